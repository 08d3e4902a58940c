//! Certificate signing requests (PKCS#10, RFC 2986): a node proves that it holds the key it asks a certificate for.
//!
//! The names inside a request are wishes: the authority takes only the key, and writes the names it has approved.

use rcgen::{CertificateParams, DistinguishedName, DnType};
use x509_parser::certification_request::X509CertificationRequest;

use hie_protocol::id::{NodeKey, OrgId, PublicKey};

use crate::key::{Key, KeyError};
use crate::x509::{self, Kind, X509Error};

/// Largest request, in bytes.
pub const CSR_BYTES_MAX: usize = 4096;

/// Why a request is not accepted or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// The bytes are malformed.
    #[error("the certificate request cannot be read")]
    Read(#[from] X509Error),
    /// The signature does not prove the key.
    #[error("the certificate request is not signed with the key it names")]
    NoProof,
    /// The own key cannot be used.
    #[error("the key cannot sign a certificate request")]
    Key(#[from] KeyError),
    /// The request cannot be written.
    #[error("the certificate request cannot be written: {0}")]
    Write(String),
}

/// Makes a request for the key, in DER. Errors: [`CsrError::Key`], [`CsrError::Write`].
pub fn make(key: &Key, org: &OrgId) -> Result<Vec<u8>, CsrError> {
    let write = |error: rcgen::Error| CsrError::Write(error.to_string());
    let mut params = CertificateParams::new(Vec::new()).map_err(write)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, org.as_str());
    params.distinguished_name = name;
    let request = params.serialize_request(&key.signing()?).map_err(write)?;
    Ok(request.der().to_vec())
}

/// A request whose proof of possession holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCsr {
    spki: Vec<u8>,
    public: PublicKey,
    node: NodeKey,
}

impl CheckedCsr {
    /// Reads a request in DER and checks that it is signed by the Ed25519 key that it names.
    ///
    /// Errors: [`CsrError::Read`], [`CsrError::NoProof`].
    pub fn check(der: &[u8]) -> Result<Self, CsrError> {
        let request: X509CertificationRequest<'_> = x509::parse(Kind::Csr, der, CSR_BYTES_MAX)?;
        let spki = &request.certification_request_info.subject_pki;
        let public = x509::ed25519(spki).ok_or(X509Error::NotEd25519 { kind: Kind::Csr })?;
        request.verify_signature().map_err(|_| CsrError::NoProof)?;
        Ok(Self {
            spki: spki.raw.to_vec(),
            public,
            node: x509::node_key(spki.raw),
        })
    }

    /// The node that asks.
    #[must_use]
    pub fn node(&self) -> NodeKey {
        self.node
    }

    /// Its raw key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ring::rand::SystemRandom;

    use hie_protocol::id::OrgId;

    use super::{CheckedCsr, CsrError, make};
    use crate::key::Key;
    use crate::x509::{Kind, X509Error};

    #[test]
    fn a_request_proves_its_key() {
        let key = Key::generate(&SystemRandom::new()).unwrap();
        let der = make(&key, &OrgId::parse("urn:oid:2.999.1").unwrap()).unwrap();
        let checked = CheckedCsr::check(&der).unwrap();
        assert_eq!((checked.node(), checked.public()), (key.node_key(), key.public()));
    }

    #[test]
    fn no_flipped_bit_yields_another_key() {
        let key = Key::generate(&SystemRandom::new()).unwrap();
        let der = make(&key, &OrgId::parse("urn:oid:2.999.1").unwrap()).unwrap();
        for at in 0..der.len() * 8 {
            let mut forged = der.clone();
            forged[at / 8] ^= 1 << (at % 8);
            // A flip outside what is signed (the tag of the whole) may pass; it must not change who asks.
            if let Ok(checked) = CheckedCsr::check(&forged) {
                assert_eq!(checked.node(), key.node_key(), "bit {at}");
            }
        }
        for end in 0..der.len() {
            assert!(CheckedCsr::check(&der[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn other_keys_and_large_requests_are_refused() {
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = rcgen::CertificateParams::default()
            .serialize_request(&p256)
            .unwrap()
            .der()
            .to_vec();
        let refused = CheckedCsr::check(&der);
        assert!(matches!(
            refused,
            Err(CsrError::Read(X509Error::NotEd25519 { kind: Kind::Csr }))
        ));
        let refused = CheckedCsr::check(&vec![0x30; 5000]);
        assert!(matches!(
            refused,
            Err(CsrError::Read(X509Error::TooLarge { found: 5000, .. }))
        ));
    }
}
