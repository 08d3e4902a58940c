//! The judge of node certificates: one function, used by both sides of a handshake and again for live channels.
//!
//! Order: size and chain length; path to the region's root with an Ed25519 signature, usage and validity by this
//! node's clock; revocation list, fail-closed; then the registry. What cannot be judged is refused.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    EndEntityCert, Error as PkiError, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use hie_protocol::id::{Millis, NodeKey, OrgId};

use crate::clock::{Clock, unix_time};
use crate::membership::{Membership, MembershipCell};
use crate::refusal::CertificateRefusal;
use crate::x509::{self, CERTIFICATE_BYTES_MAX, CHAIN_MAX};

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Shown by the acceptor.
    Server,
    /// Shown by the dialler.
    Client,
}

/// A member's node whose certificate holds. Minted only by [`Judge::judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    node: NodeKey,
    org: OrgId,
    not_after: Millis,
}

impl Peer {
    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeKey {
        self.node
    }

    /// Its organisation, from the registry.
    #[must_use]
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// End of its certificate.
    #[must_use]
    pub fn not_after(&self) -> Millis {
        self.not_after
    }
}

/// Judges certificates by the membership in force and the node's clock.
#[derive(Debug, Clone)]
pub struct Judge {
    membership: Arc<MembershipCell>,
    clock: Arc<dyn Clock>,
    schemes: WebPkiSupportedAlgorithms,
}

impl Judge {
    /// A judge over the shared membership.
    #[must_use]
    pub fn new(membership: Arc<MembershipCell>, clock: Arc<dyn Clock>) -> Self {
        let schemes = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Self {
            membership,
            clock,
            schemes,
        }
    }

    /// The membership it judges by.
    #[must_use]
    pub fn membership(&self) -> &Arc<MembershipCell> {
        &self.membership
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Judges a chain as presented, leaf first. Errors: the refusal.
    pub fn judge(&self, chain: &[CertificateDer<'_>], side: Side) -> Result<Peer, CertificateRefusal> {
        let (leaf, rest) = chain.split_first().ok_or(CertificateRefusal::Missing)?;
        judge_at(&self.membership.load(), leaf, rest, side, self.clock.now())
    }
}

/// Judges a leaf at an instant. Errors: the refusal.
pub fn judge_at(
    membership: &Membership,
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    side: Side,
    now: Millis,
) -> Result<Peer, CertificateRefusal> {
    let small = |der: &CertificateDer<'_>| der.len() <= CERTIFICATE_BYTES_MAX;
    if rest.len() >= CHAIN_MAX || !small(leaf) || !rest.iter().all(small) {
        return Err(CertificateRefusal::Malformed);
    }
    let facts = x509::certificate(leaf).map_err(|_| CertificateRefusal::Malformed)?;
    path(membership, leaf, side, now).map_err(|error| refusal(&error, facts.self_issued))?;
    let node = membership.node(&facts.node).ok_or(CertificateRefusal::NotInRegistry)?;
    if !node.active {
        return Err(CertificateRefusal::Suspended);
    }
    // INVARIANT: the registry binds the key; a leaf that names another organisation is not of the profile.
    if facts.org.as_ref() != Some(&node.org) || facts.public != Some(node.public) {
        return Err(CertificateRefusal::Malformed);
    }
    Ok(Peer {
        node: facts.node,
        org: node.org.clone(),
        not_after: facts.not_after,
    })
}

fn path(membership: &Membership, leaf: &CertificateDer<'_>, side: Side, now: Millis) -> Result<(), PkiError> {
    let crls = [membership.crl()];
    let revocation = RevocationOptionsBuilder::new(&crls)
        .map_err(|_| PkiError::UnknownRevocationStatus)?
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build();
    let usage = match side {
        Side::Server => KeyUsage::server_auth(),
        Side::Client => KeyUsage::client_auth(),
    };
    let anchors = core::slice::from_ref(membership.anchor());
    EndEntityCert::try_from(leaf)?.verify_for_usage(
        &[webpki::ring::ED25519],
        anchors,
        &[],
        unix_time(now),
        usage,
        Some(revocation),
        None,
    )?;
    Ok(())
}

/// Sorts webpki's errors. A self-issued leaf is called so whatever else is wrong with its path.
fn refusal(error: &PkiError, self_issued: bool) -> CertificateRefusal {
    match error {
        PkiError::CertRevoked => CertificateRefusal::Revoked,
        PkiError::CrlExpired { .. }
        | PkiError::UnknownRevocationStatus
        | PkiError::InvalidCrlSignatureForPublicKey
        | PkiError::UnsupportedCrlSignatureAlgorithmContext(_)
        | PkiError::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
        | PkiError::IssuerNotCrlSigner => CertificateRefusal::StaleCrl,
        _ if self_issued => CertificateRefusal::SelfSigned,
        PkiError::CertExpired { .. } => CertificateRefusal::Expired,
        PkiError::CertNotValidYet { .. } => CertificateRefusal::NotYetValid,
        // The name of the region's root with a signature that it did not make is a foreign authority, too.
        PkiError::UnknownIssuer
        | PkiError::InvalidSignatureForPublicKey
        | PkiError::UnsupportedSignatureAlgorithmContext(_)
        | PkiError::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => CertificateRefusal::ForeignAuthority,
        _ => CertificateRefusal::Malformed,
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // The name is the key: the caller compares the node of the leaf with the node it meant.
        judge_at(
            &self.membership.load(),
            end_entity,
            intermediates,
            Side::Server,
            self.clock.now(),
        )
        .map(|_| ServerCertVerified::assertion())
        .map_err(CertificateRefusal::to_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // All are offered so that a stranger shows its certificate and hears why it is refused; the path above takes
        // Ed25519 only.
        self.schemes.supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        judge_at(
            &self.membership.load(),
            end_entity,
            intermediates,
            Side::Client,
            self.clock.now(),
        )
        .map(|_| ClientCertVerified::assertion())
        .map_err(CertificateRefusal::to_tls)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}
