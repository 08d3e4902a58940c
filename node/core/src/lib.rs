//! hie-node-core
