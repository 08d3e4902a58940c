//! hie-node-pki
