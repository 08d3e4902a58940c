//! hie-protocol
pub mod merkle;
pub mod oprf;
pub mod seal;
