//! hie-node-peer
