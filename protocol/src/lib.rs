//! hie-protocol
