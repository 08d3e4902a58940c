//! TLS of the web server. Browsers do not take Ed25519, so this is a P-256 certificate of its own: configured PEM
//! files, or one that the node makes and signs itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::authority::{AuthorityError, LEAF_NAMES_MAX, SERIAL_BYTES, Validity, dates, host_name};
use crate::config::provider;
use crate::pem::{self, PEM_BYTES_MAX, PemError};
use crate::x509;

/// Why the web server has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is no PEM of the right kind.
    #[error("{path} is not usable")]
    Pem {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: PemError,
    },
    /// A name or time for the own certificate.
    #[error("the web certificate cannot be made")]
    Make(#[from] AuthorityError),
    /// The certificate cannot be written.
    #[error("the web certificate cannot be written: {0}")]
    Write(String),
    /// Certificate and key do not work.
    #[error("the web certificate and key do not work together: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate chain and key for the web server.
pub struct WebIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl core::fmt::Debug for WebIdentity {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "WebIdentity({} certificates)", self.chain.len())
    }
}

impl WebIdentity {
    /// Makes a self-signed P-256 certificate for the hosts. Errors: [`WebError::Make`], [`WebError::Write`].
    pub fn self_signed(hosts: &[String], validity: Validity, serial: [u8; SERIAL_BYTES]) -> Result<Self, WebError> {
        let write = |error: rcgen::Error| WebError::Write(error.to_string());
        if hosts.is_empty() || hosts.len() > LEAF_NAMES_MAX {
            return Err(AuthorityError::Name(format!("{} hosts", hosts.len())).into());
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(write)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(write)?;
        (params.not_before, params.not_after) = dates(validity, "validity")?;
        let mut serial = serial;
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, hosts.first().map_or("hie", String::as_str));
        params.distinguished_name = name;
        params.subject_alt_names = hosts
            .iter()
            .map(|host| host_name(host))
            .collect::<Result<_, AuthorityError>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key).map_err(write)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key,
        })
    }

    /// Loads configured PEM files: a chain, leaf first, and its PKCS#8 key. Errors: [`WebError::File`], [`WebError::Pem`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, WebError> {
        let chain = read(certificate, pem::CERTIFICATE)?
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let mut keys = read(key, pem::PRIVATE_KEY)?;
        keys.truncate(1);
        let missing = || WebError::Pem {
            path: key.to_owned(),
            source: PemError::Missing(pem::PRIVATE_KEY),
        };
        let key = keys.pop().ok_or_else(missing)?;
        Ok(Self {
            chain,
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)),
        })
    }

    /// The chain as PEM text.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem::write(pem::CERTIFICATE, der)).collect()
    }

    /// The key as PEM text; it wipes itself.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::write(pem::PRIVATE_KEY, self.key.secret_der()))
    }

    /// SHA-256 of the leaf, as a browser shows it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.chain.first().map(|der| x509::fingerprint(der))
    }

    /// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1. Errors: [`WebError::Tls`].
    pub fn server(&self) -> Result<Arc<ServerConfig>, WebError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn read(path: &Path, label: &'static str) -> Result<Vec<Vec<u8>>, WebError> {
    let fault = |source| WebError::File {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(fault)?.len();
    let found = usize::try_from(size).unwrap_or(usize::MAX);
    let refused = |source| WebError::Pem {
        path: path.to_owned(),
        source,
    };
    if found > PEM_BYTES_MAX {
        return Err(refused(PemError::TooLarge { found }));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
    pem::read_all(label, &text).map_err(refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::id::Millis;

    use super::{WebError, WebIdentity};
    use crate::authority::Validity;

    const VALIDITY: Validity = Validity {
        not_before: Millis(1_700_000_000_000),
        not_after: Millis(1_800_000_000_000),
    };

    #[test]
    fn a_made_certificate_serves_and_survives_its_files() {
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = WebIdentity::self_signed(&hosts, VALIDITY, [7; 16]).unwrap();
        made.server().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("web.pem"), folder.path().join("web.key"));
        std::fs::write(&chain, made.chain_pem()).unwrap();
        std::fs::write(&key, made.key_pem().as_bytes()).unwrap();
        let loaded = WebIdentity::load(&chain, &key).unwrap();
        loaded.server().unwrap();
        assert_eq!(loaded.fingerprint(), made.fingerprint());
        assert!(matches!(WebIdentity::load(&key, &chain), Err(WebError::Pem { .. })));
        assert!(matches!(
            WebIdentity::load(&folder.path().join("none"), &key),
            Err(WebError::File { .. })
        ));
    }

    #[test]
    fn hosts_are_checked() {
        for bad in ["", "a b", "a/b", "ü"] {
            assert!(
                WebIdentity::self_signed(&[bad.to_owned()], VALIDITY, [7; 16]).is_err(),
                "{bad}"
            );
        }
        assert!(WebIdentity::self_signed(&[], VALIDITY, [7; 16]).is_err());
    }
}
