//! hie-node-store
