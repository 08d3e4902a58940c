//! hie-node-federation
