//! hie-protocol
pub mod oprf;
