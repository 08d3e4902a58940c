//! The protocol of a region: ids, vocabulary, records, messages, signatures and limits.
//!
//! Everything here is a pure function over values. There is no clock, no IO, no randomness and no
//! runtime: a second implementation needs exactly what this crate and SPEC.md Part I say.

pub mod bytes;
pub mod cbor;
pub mod charter;
pub mod checkpoint;
pub mod claim;
pub mod digest;
pub mod id;
pub mod invitation;
pub mod merkle;
pub mod message;
pub mod office;
pub mod oprf;
pub mod record;
pub mod refusal;
pub mod registry;
pub mod retrieval;
pub mod seal;
pub mod sign;
#[cfg(test)]
mod vectors;
pub mod version;
pub mod vocabulary;
pub mod words;
