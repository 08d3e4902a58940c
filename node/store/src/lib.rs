//! The node's data on disk: RocksDB behind the key-value port, `object_store` behind the content port.
//!
//! Nothing here knows what the bytes mean, and the bytes arrive sealed. Everything that is acknowledged is
//! synced; everything that fails to be written stops the program (law 6).

pub mod contents;
pub mod rocks;
