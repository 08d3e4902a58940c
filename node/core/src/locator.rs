//! Index records of this node: from what it holds to signed pointers and locators, and the shell of the
//! federated index.
//!
//! ```text
//! mark in the publish queue -> worker -> tokens -> PRF -> pointers + locators, signed -> driver -> holders
//!                                          (outputs kept, sealed)                         |
//!                          mark removed <------ write quorum has synced them <------------'
//! ```

pub mod build;
pub mod driver;
pub mod kept;
pub mod remembered;
pub mod retoken;
pub mod sequence;
pub mod state;
pub mod tokens;
pub mod worker;
