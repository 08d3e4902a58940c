//! hie-protocol
pub mod checkpoint;
pub mod invitation;
pub mod merkle;
pub mod oprf;
pub mod seal;
pub mod words;
