//! Facts read from certificates and revocation lists: structure and limits only, no trust.
//!
//! Whether a certificate is good is decided by [`crate::verify`]; this module only says what it contains, and names
//! the place and reason when it is malformed.

use ring::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use hie_protocol::id::{Millis, NodeKey, OrgId, PublicKey};

use crate::der;

/// Largest certificate, in bytes. A node's leaf has about 500.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;
/// Most certificates in a presented chain: leaf and root.
pub const CHAIN_MAX: usize = 2;
/// Largest revocation list, in bytes (about 20,000 entries).
pub const CRL_BYTES_MAX: usize = 768 * 1024;

/// What kind of thing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A certificate.
    Certificate,
    /// A certificate revocation list.
    Crl,
    /// A certificate signing request.
    Csr,
}

impl core::fmt::Display for Kind {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::Certificate => "certificate",
            Self::Crl => "revocation list",
            Self::Csr => "certificate request",
        })
    }
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// Longer than allowed.
    #[error("the {kind} has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// What.
        kind: Kind,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The DER breaks off or does not have the shape of its type.
    #[error("the {kind} is malformed: {reason}")]
    Malformed {
        /// What.
        kind: Kind,
        /// Place and reason.
        reason: String,
    },
    /// Bytes follow.
    #[error("the {kind} ends at byte {at} but more bytes follow")]
    Trailing {
        /// What.
        kind: Kind,
        /// Offset of the first byte too many.
        at: usize,
    },
    /// Not an Ed25519 key.
    #[error("the {kind} does not carry an Ed25519 key (RFC 8410)")]
    NotEd25519 {
        /// What.
        kind: Kind,
    },
    /// A time before 1970.
    #[error("the {kind} has a time before 1970 in {place}")]
    Time {
        /// What.
        kind: Kind,
        /// Field.
        place: &'static str,
    },
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub node: NodeKey,
    /// Raw key, when it is Ed25519.
    pub public: Option<PublicKey>,
    /// Organisation, from the first `urn:oid:` URI of the subject's alternative names.
    pub org: Option<OrgId>,
    /// Whether it bears the mark of the region authority's own server.
    pub authority: bool,
    /// Start of validity.
    pub not_before: Millis,
    /// End of validity.
    pub not_after: Millis,
    /// Serial number, big endian.
    pub serial: Vec<u8>,
    /// Whether subject and issuer are the same name.
    pub self_issued: bool,
}

/// URI in the authority's own leaf: no member certificate may carry it.
pub const AUTHORITY_MARK: &str = "urn:hie:region-authority";

/// Reads a certificate. Errors: [`X509Error`].
pub fn certificate(der: &[u8]) -> Result<Facts, X509Error> {
    let kind = Kind::Certificate;
    let parsed: X509Certificate<'_> = parse(kind, der, CERTIFICATE_BYTES_MAX)?;
    let (org, authority) = names(&parsed)?;
    Ok(Facts {
        node: node_key(parsed.public_key().raw),
        public: ed25519(parsed.public_key()),
        org,
        authority,
        not_before: millis(kind, "notBefore", parsed.validity().not_before)?,
        not_after: millis(kind, "notAfter", parsed.validity().not_after)?,
        serial: parsed.raw_serial().to_vec(),
        self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
    })
}

/// SHA-256 of a SubjectPublicKeyInfo in DER: the name of a node.
#[must_use]
pub fn node_key(spki: &[u8]) -> NodeKey {
    NodeKey::new(sha256(spki))
}

/// SHA-256 of a certificate in DER: how an invitation names the region's root.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    sha256(certificate)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

/// What a revocation list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlFacts {
    /// When it was made.
    pub this_update: Millis,
    /// Until when it is in force.
    pub next_update: Option<Millis>,
    /// Serial numbers and when each was revoked.
    pub revoked: Vec<(Vec<u8>, Millis)>,
}

/// Reads a revocation list without judging its signature. Errors: [`X509Error`].
pub fn crl(der: &[u8]) -> Result<CrlFacts, X509Error> {
    let kind = Kind::Crl;
    let parsed: CertificateRevocationList<'_> = parse(kind, der, CRL_BYTES_MAX)?;
    let revoked = parsed
        .iter_revoked_certificates()
        .map(|entry| {
            Ok((
                entry.raw_serial().to_vec(),
                millis(kind, "revocationDate", entry.revocation_date)?,
            ))
        })
        .collect::<Result<Vec<_>, X509Error>>()?;
    Ok(CrlFacts {
        this_update: millis(kind, "thisUpdate", parsed.last_update())?,
        next_update: parsed
            .next_update()
            .map(|at| millis(kind, "nextUpdate", at))
            .transpose()?,
        revoked,
    })
}

/// Reads one DER value of at most `limit` bytes with nothing behind it.
pub(crate) fn parse<'a, T>(kind: Kind, der: &'a [u8], limit: usize) -> Result<T, X509Error>
where
    T: FromDer<'a, x509_parser::error::X509Error>,
{
    if der.len() > limit {
        return Err(X509Error::TooLarge {
            kind,
            found: der.len(),
            limit,
        });
    }
    let end = der::walk(der).map_err(|error| X509Error::Malformed {
        kind,
        reason: error.to_string(),
    })?;
    if end != der.len() {
        return Err(X509Error::Trailing { kind, at: end });
    }
    match T::from_der(der) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(X509Error::Trailing {
            kind,
            at: der.len().saturating_sub(rest.len()),
        }),
        Err(error) => Err(X509Error::Malformed {
            kind,
            reason: reason(&error),
        }),
    }
}

/// The library's reason, without its wrapping.
fn reason(error: &x509_parser::nom::Err<x509_parser::error::X509Error>) -> String {
    match error {
        x509_parser::nom::Err::Incomplete(_) => "it breaks off".to_owned(),
        x509_parser::nom::Err::Error(cause) | x509_parser::nom::Err::Failure(cause) => cause.to_string(),
    }
}

fn millis(kind: Kind, place: &'static str, at: ASN1Time) -> Result<Millis, X509Error> {
    let seconds = u64::try_from(at.timestamp()).map_err(|_| X509Error::Time { kind, place })?;
    Ok(Millis(seconds.saturating_mul(1000)))
}

/// The raw key of an Ed25519 SubjectPublicKeyInfo.
pub(crate) fn ed25519(spki: &SubjectPublicKeyInfo<'_>) -> Option<PublicKey> {
    if spki.algorithm.algorithm != OID_SIG_ED25519 || spki.algorithm.parameters.is_some() {
        return None;
    }
    PublicKey::from_slice(&spki.subject_public_key.data).ok()
}

fn names(certificate: &X509Certificate<'_>) -> Result<(Option<OrgId>, bool), X509Error> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| X509Error::Malformed {
            kind: Kind::Certificate,
            reason: format!("subjectAltName: {error}"),
        })?;
    let mut org = None;
    let mut authority = false;
    for name in names.into_iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::URI(uri) = name {
            authority |= *uri == AUTHORITY_MARK;
            org = org.or_else(|| OrgId::parse(uri).ok());
        }
    }
    Ok((org, authority))
}
