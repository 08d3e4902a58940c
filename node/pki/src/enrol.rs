//! Enrolment over TLS before a node has a certificate: the invitation's root fingerprint is all the trust there is.
//!
//! The server shows its leaf and the region's root. The client accepts the root only if its SHA-256 is the one of the
//! invitation, and the leaf only if that root issued it and it bears the authority's mark: a member's leaf, though
//! issued by the same root, cannot play the authority.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error as PkiError, KeyUsage};

use crate::clock::{Clock, unix_time};
use crate::identity::NodeIdentity;
use crate::refusal::CertificateRefusal;
use crate::x509;

/// Accepts the authority whose root has this fingerprint.
#[derive(Debug)]
pub(crate) struct PinnedRoot {
    pub fingerprint: [u8; 32],
    pub clock: Arc<dyn Clock>,
    pub schemes: WebPkiSupportedAlgorithms,
}

impl PinnedRoot {
    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), CertificateRefusal> {
        let facts = x509::certificate(leaf).map_err(|_| CertificateRefusal::Malformed)?;
        let root = rest
            .iter()
            .find(|der| x509::fingerprint(der) == self.fingerprint)
            .ok_or(CertificateRefusal::ForeignAuthority)?;
        let anchor = webpki::anchor_from_trusted_cert(root).map_err(|_| CertificateRefusal::Malformed)?;
        let certificate = EndEntityCert::try_from(leaf).map_err(|_| CertificateRefusal::Malformed)?;
        certificate
            .verify_for_usage(
                &[webpki::ring::ED25519],
                &[anchor],
                &[],
                unix_time(self.clock.now()),
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(|error| match error {
                PkiError::CertExpired { .. } => CertificateRefusal::Expired,
                PkiError::CertNotValidYet { .. } => CertificateRefusal::NotYetValid,
                _ => CertificateRefusal::ForeignAuthority,
            })?;
        if facts.authority {
            Ok(())
        } else {
            Err(CertificateRefusal::NotInRegistry)
        }
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.judge(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
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

/// At the authority's door: a caller shows nothing, or a certificate in its validity under the region's root.
#[derive(Debug)]
pub(crate) struct KnownCaller {
    anchor: TrustAnchor<'static>,
    clock: Arc<dyn Clock>,
    schemes: WebPkiSupportedAlgorithms,
}

impl KnownCaller {
    /// Takes the root from the authority's own chain. Errors: a chain without a usable root.
    pub(crate) fn new(authority: &NodeIdentity, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let unusable = || TlsError::General("the chain of the authority ends in no usable root".into());
        let root = authority.chain().last().ok_or_else(unusable)?;
        Ok(Self {
            anchor: webpki::anchor_from_trusted_cert(root)
                .map_err(|_| unusable())?
                .to_owned(),
            clock,
            schemes: rustls::crypto::ring::default_provider().signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for KnownCaller {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let malformed = |_| CertificateRefusal::Malformed.to_tls();
        x509::certificate(end_entity).map_err(|_| CertificateRefusal::Malformed.to_tls())?;
        EndEntityCert::try_from(end_entity)
            .map_err(malformed)?
            .verify_for_usage(
                &[webpki::ring::ED25519],
                core::slice::from_ref(&self.anchor),
                &[],
                unix_time(self.clock.now()),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|error| match error {
                PkiError::CertExpired { .. } => CertificateRefusal::Expired.to_tls(),
                PkiError::CertNotValidYet { .. } => CertificateRefusal::NotYetValid.to_tls(),
                _ => CertificateRefusal::ForeignAuthority.to_tls(),
            })?;
        Ok(ClientCertVerified::assertion())
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
