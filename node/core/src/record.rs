//! Documents and studies of this node: entry, publication, and the one door that releases them.
//!
//! The law: nothing leaves but through [`release`], which takes the consent permit and the audit receipt by
//! value; nothing arrives but through [`publish`], where entry, publication mark and audit leaf become true in
//! one commit.

pub mod entry;
pub mod publish;
pub mod release;
pub mod study;
pub mod summary;
