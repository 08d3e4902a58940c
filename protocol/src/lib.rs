//! hie-protocol
pub mod oprf;
pub mod seal;
