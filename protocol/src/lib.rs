

pub mod bytes;
pub mod cbor;
pub mod checkpoint;
pub mod claim;
pub mod id;
pub mod merkle;
pub mod message;
pub mod oprf;
pub mod record;
pub mod refusal;
pub mod registry;
pub mod retrieval;
pub mod seal;
pub mod sign;
pub mod version;
pub mod vocabulary;
