//! What a node shows in a handshake: its key and its present certificate chain.
//!
//! Certificates live for days and are renewed for the same key, so the identity sits in a cell that the TLS
//! configurations read at each handshake.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto::ring::sign::any_eddsa_type};
use rustls_pki_types::CertificateDer;

use hie_protocol::id::{NodeKey, PublicKey, Signature};
use hie_protocol::sign::Signer;

use crate::key::{Key, KeyError};
use crate::x509::{self, CHAIN_MAX, Facts, X509Error};

/// Why a key and a chain are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Key.
    #[error("the node's key cannot be used")]
    Key(#[from] KeyError),
    /// Certificate.
    #[error("the node's certificate cannot be used")]
    Certificate(#[from] X509Error),
    /// Chain length.
    #[error("the node's chain has {0} certificates: one leaf, and at most the root behind it, are expected")]
    Chain(usize),
    /// They do not belong together.
    #[error("the certificate belongs to key {certificate}, the key at hand is {key}: enrol again, or restore the key")]
    Mismatch {
        /// Key of the certificate.
        certificate: NodeKey,
        /// Key at hand.
        key: NodeKey,
    },
    /// TLS does not take the key.
    #[error("TLS does not take the node's key: {0}")]
    Tls(String),
}

/// A key and the certificate chain issued for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    key: Key,
    facts: Arc<Facts>,
    certified: Arc<CertifiedKey>,
}

impl NodeIdentity {
    /// Joins a key and its chain (DER, leaf first). Errors: every [`IdentityError`].
    pub fn new(key: Key, chain: Vec<Vec<u8>>) -> Result<Self, IdentityError> {
        if chain.len() > CHAIN_MAX {
            return Err(IdentityError::Chain(chain.len()));
        }
        let leaf = chain.first().ok_or(IdentityError::Chain(0))?;
        let facts = x509::certificate(leaf)?;
        if facts.node != key.node_key() {
            return Err(IdentityError::Mismatch {
                certificate: facts.node,
                key: key.node_key(),
            });
        }
        let signing = any_eddsa_type(&key.pkcs8()).map_err(|error| IdentityError::Tls(error.to_string()))?;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Ok(Self {
            key,
            facts: Arc::new(facts),
            certified: Arc::new(CertifiedKey::new(chain, signing)),
        })
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What the leaf says.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The raw public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The chain in DER, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

impl Signer for NodeIdentity {
    fn node(&self) -> NodeKey {
        self.key.node_key()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.key.sign(message)
    }
}

/// The identity in force. Renewal replaces it; open channels stay as they are.
#[derive(Debug)]
pub struct IdentityCell(RwLock<NodeIdentity>);

impl IdentityCell {
    /// Starts with an identity.
    #[must_use]
    pub fn new(identity: NodeIdentity) -> Self {
        Self(RwLock::new(identity))
    }

    /// The identity in force.
    #[must_use]
    pub fn load(&self) -> NodeIdentity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a renewed identity in force.
    pub fn replace(&self, identity: NodeIdentity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }
}

/// Hands the identity in force to rustls, whatever authorities or schemes the other side hints at: it must see the
/// certificate to say why it refuses it.
#[derive(Debug)]
pub(crate) struct Present(pub Arc<IdentityCell>);

impl ResolvesServerCert for Present {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified)
    }
}

impl ResolvesClientCert for Present {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
