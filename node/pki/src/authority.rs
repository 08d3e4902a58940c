//! The region authority: its self-signed root, the leaves it issues, the revocation list it signs.
//!
//! It writes only the names it has approved, never those of a request. Times, serial numbers and list numbers are
//! arguments; who keeps the list of issued serials is not decided here.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};

use hie_protocol::id::{Millis, NodeKey, OrgId, PublicKey, Signature};
use hie_protocol::registry::NAME_CHARS_MAX;
use hie_protocol::sign::Signer;

use crate::csr::CheckedCsr;
use crate::key::{Key, KeyError};
use crate::x509::{self, X509Error};

/// Life of a revocation list, in milliseconds: longer than the outage that a region must survive (72 h).
pub const CRL_LIFE_MS: u64 = 96 * 60 * 60 * 1000;
/// Life of a member certificate, in milliseconds: 7 days.
pub const LEAF_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Life of the region's root, in milliseconds: 10 years.
pub const ROOT_LIFE_MS: u64 = 3650 * 24 * 60 * 60 * 1000;
/// Most names and addresses in a leaf.
pub const LEAF_NAMES_MAX: usize = 8;
/// Bytes of a serial number.
pub const SERIAL_BYTES: usize = 16;
/// Latest time a certificate can carry (9999-12-31T23:59:59Z), in milliseconds.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

/// Why the authority cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its key.
    #[error("the authority's key cannot be used")]
    Key(#[from] KeyError),
    /// Its root.
    #[error("the region's root certificate cannot be used")]
    Root(#[from] X509Error),
    /// Root and key do not belong together.
    #[error("the root certificate belongs to key {root}, the key at hand is {key}")]
    Mismatch {
        /// Key of the root.
        root: NodeKey,
        /// Key at hand.
        key: NodeKey,
    },
    /// A time out of range, or an end before its start.
    #[error("the {0} is out of range or ends before it starts")]
    Time(&'static str),
    /// A name cannot be written.
    #[error("the name {0:?} cannot stand in a certificate: use a DNS name, an IP address, or a shorter text")]
    Name(String),
    /// The certificate cannot be written.
    #[error("the certificate cannot be written: {0}")]
    Write(String),
}

/// Validity of a certificate or list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First instant.
    pub not_before: Millis,
    /// Last instant.
    pub not_after: Millis,
}

/// What the authority writes into a member's leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The member.
    pub org: OrgId,
    /// DNS names and IP addresses, at most [`LEAF_NAMES_MAX`].
    pub hosts: Vec<String>,
    /// Validity.
    pub validity: Validity,
    /// Random bytes; the top bit is cleared and the next one set, so the number is positive and of full length.
    pub serial: [u8; SERIAL_BYTES],
}

/// A serial number on the revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Serial number as in [`x509::Facts`].
    pub serial: Vec<u8>,
    /// Since when.
    pub at: Millis,
    /// Whether the key is compromised (else: the member has left).
    pub compromised: bool,
}

/// The region's authority.
#[derive(Debug, Clone)]
pub struct RegionAuthority {
    key: Key,
    root: Vec<u8>,
}

impl RegionAuthority {
    /// Makes a region's root for a key. Errors: every [`AuthorityError`].
    pub fn create(
        key: Key,
        region: &str,
        validity: Validity,
        serial: [u8; SERIAL_BYTES],
    ) -> Result<Self, AuthorityError> {
        let mut params = params(region, validity, serial)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key.signing()?).map_err(written)?.der().to_vec();
        Self::open(key, root)
    }

    /// Opens an authority from its key and root certificate (DER). Errors: [`AuthorityError`].
    pub fn open(key: Key, root: Vec<u8>) -> Result<Self, AuthorityError> {
        let facts = x509::certificate(&root)?;
        if facts.node == key.node_key() {
            Ok(Self { key, root })
        } else {
            Err(AuthorityError::Mismatch {
                root: facts.node,
                key: key.node_key(),
            })
        }
    }

    /// The root certificate in DER.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// SHA-256 of the root certificate: the invitation carries it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        x509::fingerprint(&self.root)
    }

    /// The key that verifies the registry.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Issues a member's leaf, in DER. Errors: every [`AuthorityError`].
    pub fn issue(&self, request: &CheckedCsr, approved: &Approved) -> Result<Vec<u8>, AuthorityError> {
        let mut params = leaf(
            approved.org.as_str(),
            &approved.hosts,
            approved.validity,
            approved.serial,
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(uri(approved.org.as_str())?);
        self.sign_leaf(&params, request.spki())
    }

    /// Issues the leaf of the authority's own enrolment server. It bears a mark that no member's leaf has, and no
    /// client usage: it never passes for a member. Errors: every [`AuthorityError`].
    pub fn issue_enrolment(
        &self,
        server: &Key,
        hosts: &[String],
        validity: Validity,
        serial: [u8; SERIAL_BYTES],
    ) -> Result<Vec<u8>, AuthorityError> {
        let mut params = leaf("region authority", hosts, validity, serial)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names.push(uri(x509::AUTHORITY_MARK)?);
        let spki = rcgen::PublicKeyData::subject_public_key_info(&server.signing()?);
        self.sign_leaf(&params, &spki)
    }

    /// Signs a revocation list, in DER. `number` grows with every list. Errors: every [`AuthorityError`].
    pub fn revocation_list(
        &self,
        revoked: &[Revoked],
        number: u64,
        validity: Validity,
    ) -> Result<Vec<u8>, AuthorityError> {
        let revoked_certs = revoked
            .iter()
            .map(|entry| {
                let reason = if entry.compromised {
                    RevocationReason::KeyCompromise
                } else {
                    RevocationReason::CessationOfOperation
                };
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&entry.serial),
                    revocation_time: date(entry.at, "time of revocation")?,
                    reason_code: Some(reason),
                    invalidity_date: None,
                })
            })
            .collect::<Result<Vec<_>, AuthorityError>>()?;
        let (this_update, next_update) = dates(validity, "life of the revocation list")?;
        let list = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer()?).map_err(written)?.der().to_vec())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        Issuer::from_ca_cert_der(&self.root.as_slice().into(), self.key.signing()?).map_err(written)
    }

    fn sign_leaf(&self, params: &CertificateParams, spki: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(written)?;
        Ok(params.signed_by(&key, &self.issuer()?).map_err(written)?.der().to_vec())
    }
}

impl Signer for RegionAuthority {
    fn node(&self) -> NodeKey {
        self.key.node_key()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.key.sign(message)
    }
}

fn written(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Write(error.to_string())
}

fn params(name: &str, validity: Validity, serial: [u8; SERIAL_BYTES]) -> Result<CertificateParams, AuthorityError> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(AuthorityError::Name(name.chars().take(NAME_CHARS_MAX).collect()));
    }
    let (not_before, not_after) = dates(validity, "validity")?;
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    let mut serial = serial;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::new(Vec::new()).map_err(written)?;
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = distinguished_name;
    Ok(params)
}

fn leaf(
    name: &str,
    hosts: &[String],
    validity: Validity,
    serial: [u8; SERIAL_BYTES],
) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(name, validity, serial)?;
    if hosts.len() > LEAF_NAMES_MAX {
        return Err(AuthorityError::Name(format!("{} hosts", hosts.len())));
    }
    params.subject_alt_names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// An IP address or DNS name as a subject alternative name.
pub(crate) fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = host.len() <= 253
        && !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let name = host.to_owned();
    match host.try_into() {
        Ok(dns) if plain => Ok(SanType::DnsName(dns)),
        _ => Err(AuthorityError::Name(name)),
    }
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    text.try_into()
        .map(SanType::URI)
        .map_err(|_| AuthorityError::Name(text.to_owned()))
}

pub(crate) fn date(at: Millis, what: &'static str) -> Result<time::OffsetDateTime, AuthorityError> {
    if at.0 > TIME_MS_MAX {
        return Err(AuthorityError::Time(what));
    }
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000)
        .map_err(|_| AuthorityError::Time(what))
}

pub(crate) fn dates(
    validity: Validity,
    what: &'static str,
) -> Result<(time::OffsetDateTime, time::OffsetDateTime), AuthorityError> {
    if validity.not_after <= validity.not_before {
        return Err(AuthorityError::Time(what));
    }
    Ok((date(validity.not_before, what)?, date(validity.not_after, what)?))
}
