//! Certificates of a region: one Ed25519 root, one short-lived Ed25519 leaf for each node, one revocation list.
//!
//! A node is its key: [`hie_protocol::id::NodeKey`] is the SHA-256 of the leaf's SubjectPublicKeyInfo. A channel is up
//! only when the leaf chains to the region's root, is not on a revocation list in force, is within its validity by
//! this node's clock, and its key belongs to an active member of the registry. Everything else is refused in the
//! handshake, fail-closed, with a [`refusal::CertificateRefusal`] that both sides can log (SPEC P-TLS).
//!
//! Time, serial numbers and randomness are arguments. No runtime, no libp2p, no network.

pub mod authority;
pub mod clock;
pub mod config;
pub mod csr;
pub mod der;
pub mod enrol;
pub mod identity;
pub mod key;
pub mod membership;
pub mod pem;
pub mod pkcs7;
pub mod refusal;
pub mod verify;
pub mod web;
pub mod x509;
