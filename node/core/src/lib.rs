//! The trade of a node on ports: patient index, records, locators, consent, audit, exchange, accounts.
//!
//! Deciding, matching, hashing and key building are plain functions over values; storage, time, randomness
//! and other nodes are ports (traits) with in-memory twins beside them. No database, no network library, no
//! web framework and no TLS library is known here.

pub mod account;
pub mod audit;
pub mod catalogue;
pub mod content;
pub mod exchange;
pub mod ids;
pub mod kv;
pub mod locator;
pub mod patient;
pub mod policy;
pub mod ports;
pub mod record;
pub mod vault;
pub mod versioned;
