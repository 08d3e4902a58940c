//! Stored values know their age: one version byte, then deterministic CBOR.
//!
//! A type that changes its shape raises [`Stored::VERSION`] and reads its older shapes in
//! [`Stored::migrate`]; a version that nobody reads is an error, never a guess.

use hie_protocol::cbor::{self, FrameError};
use hie_protocol::refusal::Class;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kv::VALUE_BYTES_MAX;

/// A value that lives in a table.
pub trait Stored: Serialize + DeserializeOwned {
    /// Version written today.
    const VERSION: u8;

    /// Reads the body of an older version; none when that version was never written.
    #[must_use]
    fn migrate(_version: u8, _body: &[u8]) -> Option<Self> {
        None
    }
}

/// Why a stored value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionedError {
    /// No bytes at all.
    #[error("a stored value is empty")]
    Empty,
    /// Written by another version of the program.
    #[error("a stored value has version {found}, this program reads up to {newest}; use the program that wrote it")]
    Version {
        /// Version found.
        found: u8,
        /// Newest version known.
        newest: u8,
    },
    /// The body is broken.
    #[error("a stored value is malformed")]
    Body(#[from] FrameError),
}

impl VersionedError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Broken
    }
}

/// Writes version and body. Errors: [`VersionedError::Body`] for a value that CBOR cannot carry.
pub fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, VersionedError> {
    let mut bytes = vec![T::VERSION];
    bytes.extend(cbor::encode(value)?);
    Ok(bytes)
}

/// Reads a value of this or an older version. Errors: every [`VersionedError`].
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, VersionedError> {
    let (version, body) = bytes.split_first().ok_or(VersionedError::Empty)?;
    if *version == T::VERSION {
        return Ok(cbor::decode(body, VALUE_BYTES_MAX)?);
    }
    T::migrate(*version, body).ok_or(VersionedError::Version {
        found: *version,
        newest: T::VERSION,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    use super::{Stored, VersionedError, decode, encode};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Old {
        count: u8,
    }
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct New {
        count: u8,
        name: String,
    }
    impl Stored for Old {
        const VERSION: u8 = 1;
    }
    impl Stored for New {
        const VERSION: u8 = 2;
        fn migrate(version: u8, body: &[u8]) -> Option<Self> {
            let old: Old = (version == 1)
                .then(|| hie_protocol::cbor::decode(body, 99).ok())
                .flatten()?;
            Some(Self {
                count: old.count,
                name: String::new(),
            })
        }
    }

    #[test]
    fn an_older_value_is_migrated_and_a_newer_one_refused() {
        let old = encode(&Old { count: 7 }).unwrap();
        assert_eq!(
            decode::<New>(&old),
            Ok(New {
                count: 7,
                name: String::new()
            })
        );
        let new = encode(&New {
            count: 7,
            name: "n".into(),
        })
        .unwrap();
        assert_eq!(
            decode::<Old>(&new),
            Err(VersionedError::Version { found: 2, newest: 1 })
        );
        assert_eq!(decode::<Old>(&[]), Err(VersionedError::Empty));
        assert!(matches!(decode::<Old>(&[1, 0xff]), Err(VersionedError::Body(_))));
    }
}
