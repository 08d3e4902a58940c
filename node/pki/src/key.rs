//! The node's Ed25519 key (PKCS#8): made once, kept in a file that only its owner may read, never sent anywhere.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use hie_protocol::id::{NodeKey, PublicKey, Signature};
use hie_protocol::sign::Signer;

use crate::pem::{self, PemError};
use crate::x509;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot use the key file {path}")]
    File {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("the key file {path} is open to others (mode {mode:o}): run chmod 600 on it")]
    Open {
        /// Path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A key is there already.
    #[error("the key file {path} exists: a node keeps its key, move it away to make a new one")]
    Exists {
        /// Path.
        path: PathBuf,
    },
    /// Not PEM.
    #[error("the key is not PEM")]
    Pem(#[from] PemError),
    /// Not a usable Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8 (RFC 8410): {0}")]
    NotEd25519(String),
    /// The random source failed.
    #[error("the system's random source failed")]
    Random,
}

/// An Ed25519 key pair. Cheap to clone; its `Debug` shows the public name only.
#[derive(Clone)]
pub struct Key {
    inner: Arc<Inner>,
}

struct Inner {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Ed25519KeyPair,
    public: PublicKey,
    node: NodeKey,
}

impl Key {
    /// Makes a new key. Errors: [`KeyError::Random`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(random).map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Takes a key in PKCS#8. Errors: [`KeyError::NotEd25519`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|rejected| KeyError::NotEd25519(rejected.to_string()))?;
        let public = PublicKey::from_slice(pair.public_key().as_ref())
            .map_err(|error| KeyError::NotEd25519(error.to_string()))?;
        let pkcs8 = Zeroizing::new(der.to_vec());
        let node = x509::node_key(&signing(&pkcs8)?.subject_public_key_info());
        Ok(Self {
            inner: Arc::new(Inner {
                pkcs8,
                pair,
                public,
                node,
            }),
        })
    }

    /// Reads PEM text. Errors: [`KeyError::Pem`], [`KeyError::NotEd25519`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8(&Zeroizing::new(pem::read(pem::PRIVATE_KEY, text)?))
    }

    /// Loads a key file. Errors: every [`KeyError`]; a file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let fault = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(fault)?;
        let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        let limit = u64::try_from(pem::PEM_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_string(&mut text).map_err(fault)?;
        Self::from_pem(&text)
    }

    /// Writes a new key file with mode 0600 and syncs it. Errors: [`KeyError::Exists`], [`KeyError::File`].
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let fault = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::File {
                path: path.to_owned(),
                source,
            },
        };
        let text = Zeroizing::new(pem::write(pem::PRIVATE_KEY, &self.inner.pkcs8));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(fault)?;
        file.write_all(text.as_bytes()).map_err(fault)?;
        file.sync_all().map_err(fault)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent).and_then(|folder| folder.sync_all()).map_err(fault),
            None => Ok(()),
        }
    }

    /// The raw public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.inner.public
    }

    /// The node this key is.
    #[must_use]
    pub fn node_key(&self) -> NodeKey {
        self.inner.node
    }

    /// The key as a certificate maker. Errors: [`KeyError::NotEd25519`].
    pub(crate) fn signing(&self) -> Result<KeyPair, KeyError> {
        signing(&self.inner.pkcs8)
    }

    /// The key as TLS wants it.
    pub(crate) fn pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.inner.pkcs8.to_vec())
    }
}

fn signing(pkcs8: &[u8]) -> Result<KeyPair, KeyError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.to_vec()), &PKCS_ED25519)
        .map_err(|error| KeyError::NotEd25519(error.to_string()))
}

impl core::fmt::Debug for Key {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "Key({})", self.inner.node)
    }
}

impl Signer for Key {
    fn node(&self) -> NodeKey {
        self.inner.node
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0_u8; Signature::LEN];
        // INVARIANT: an Ed25519 signature has 64 bytes.
        for (to, from) in bytes.iter_mut().zip(self.inner.pair.sign(message).as_ref()) {
            *to = *from;
        }
        Signature::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::os::unix::fs::PermissionsExt as _;

    use ring::rand::SystemRandom;
    use ring::signature::{ED25519, UnparsedPublicKey};

    use hie_protocol::sign::Signer as _;

    use super::{Key, KeyError};

    #[test]
    fn a_saved_key_is_the_same_key_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let key = Key::generate(&SystemRandom::new()).unwrap();
        key.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Key::load(&path).unwrap();
        assert_eq!((loaded.node_key(), loaded.public()), (key.node_key(), key.public()));
        assert!(matches!(key.save(&path), Err(KeyError::Exists { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn it_signs_and_hides_itself() {
        let key = Key::generate(&SystemRandom::new()).unwrap();
        let signature = key.sign(b"message");
        UnparsedPublicKey::new(&ED25519, key.public().as_bytes())
            .verify(b"message", signature.as_bytes())
            .unwrap();
        assert_eq!(format!("{key:?}"), format!("Key({})", key.node_key()));
    }

    #[test]
    fn foreign_keys_are_refused() {
        assert!(matches!(Key::from_pkcs8(b"no key"), Err(KeyError::NotEd25519(_))));
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(matches!(
            Key::from_pem(&p256.serialize_pem()),
            Err(KeyError::NotEd25519(_))
        ));
        assert!(matches!(Key::from_pem("x"), Err(KeyError::Pem(_))));
    }
}
