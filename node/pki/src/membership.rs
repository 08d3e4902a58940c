//! Who belongs to the region, as the handshake sees it: root, revocation list and the registry's node keys.
//!
//! A [`Membership`] is an immutable snapshot made from a verified registry; a [`MembershipCell`] is the one place that
//! every verifier reads it from, so that a new registry is in force for the next handshake at once.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use hie_protocol::id::{Millis, NodeKey, OrgId, PublicKey};
use hie_protocol::registry::{MemberRole, Registry, Standing};

use crate::x509::{self, X509Error};

/// Why a registry cannot be turned into a membership.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The root certificate.
    #[error("the root certificate of the registry cannot be used")]
    Root(#[source] X509Error),
    /// The root is no usable trust anchor.
    #[error("the root certificate of the registry is no trust anchor: {0}")]
    Anchor(String),
    /// The revocation list.
    #[error("the revocation list of the registry cannot be used")]
    Crl(#[source] X509Error),
    /// The revocation list is of a form outside the profile.
    #[error("the revocation list of the registry is outside the profile: {0}")]
    CrlForm(String),
}

/// A node of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberNode {
    /// Its organisation.
    pub org: OrgId,
    /// Its raw key.
    pub public: PublicKey,
    /// `host:port` of its control channel.
    pub control: Option<String>,
    /// `host:port` of its bulk lane.
    pub bulk: Option<String>,
    /// Members through which it is reached.
    pub relays: Vec<OrgId>,
    /// Whether its organisation carries sealed channels of others.
    pub relay: bool,
    /// Whether its organisation takes part.
    pub active: bool,
}

/// A snapshot of who belongs to the region.
pub struct Membership {
    version: u64,
    root: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    crl: CertRevocationList<'static>,
    crl_until: Option<Millis>,
    nodes: BTreeMap<NodeKey, MemberNode>,
}

impl Membership {
    /// Takes root, revocation list and members from a registry whose signature the caller has verified.
    ///
    /// Errors: every [`MembershipError`].
    pub fn from_registry(registry: &Registry) -> Result<Self, MembershipError> {
        x509::certificate(&registry.root).map_err(MembershipError::Root)?;
        let root = CertificateDer::from(registry.root.clone());
        let anchor = webpki::anchor_from_trusted_cert(&root)
            .map_err(|error| MembershipError::Anchor(error.to_string()))?
            .to_owned();
        let crl_until = x509::crl(&registry.crl).map_err(MembershipError::Crl)?.next_update;
        let crl = OwnedCertRevocationList::from_der(&registry.crl)
            .map_err(|error| MembershipError::CrlForm(error.to_string()))?;
        let mut nodes = BTreeMap::new();
        for member in &registry.members {
            for node in &member.nodes {
                let entry = MemberNode {
                    org: member.org.clone(),
                    public: node.public,
                    control: node.control.clone(),
                    bulk: node.bulk.clone(),
                    relays: node.relays.clone(),
                    relay: member.roles.contains(&MemberRole::Relay),
                    active: member.standing == Standing::Active,
                };
                nodes.insert(node.key, entry);
            }
        }
        Ok(Self {
            version: registry.version,
            root,
            anchor,
            crl: crl.into(),
            crl_until,
            nodes,
        })
    }

    /// Registry version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The region's root in DER.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Until when the revocation list is in force.
    #[must_use]
    pub fn crl_until(&self) -> Option<Millis> {
        self.crl_until
    }

    /// A node, active or not.
    #[must_use]
    pub fn node(&self, key: &NodeKey) -> Option<&MemberNode> {
        self.nodes.get(key)
    }

    /// Nodes of active members, in the order of their keys.
    pub fn active(&self) -> impl Iterator<Item = (&NodeKey, &MemberNode)> {
        self.nodes.iter().filter(|(_, node)| node.active)
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    pub(crate) fn crl(&self) -> &CertRevocationList<'static> {
        &self.crl
    }
}

impl core::fmt::Debug for Membership {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "Membership(version {}, {} nodes)", self.version, self.nodes.len())
    }
}

/// The membership in force. Shared by every verifier of a node; whoever takes a new registry replaces it.
#[derive(Debug)]
pub struct MembershipCell(RwLock<Arc<Membership>>);

impl MembershipCell {
    /// Starts with a snapshot.
    #[must_use]
    pub fn new(membership: Membership) -> Self {
        Self(RwLock::new(Arc::new(membership)))
    }

    /// The snapshot in force.
    #[must_use]
    pub fn load(&self) -> Arc<Membership> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a snapshot in force.
    pub fn replace(&self, membership: Membership) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(membership);
    }
}
