//! Identifiers of the protocol: each is a type, none is a bare string.
//!
//! Byte ids travel as CBOR byte strings of exactly their length; text ids are checked on decode, so
//! an invalid id cannot exist inside the program (SPEC P-ID).

use core::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not an OID URN.
    #[error("not an OID URN: write it as urn:oid:1.2.3 with at most {OID_CHARS_MAX} characters")]
    NotOid,
    /// The bytes have the wrong length.
    #[error("wrong length: {expected} bytes expected, {found} found")]
    Length {
        /// Bytes expected.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The hex text is broken.
    #[error("not hexadecimal text")]
    NotHex,
}

/// Longest OID URN accepted, in characters.
pub const OID_CHARS_MAX: usize = 128;

/// An organisation: an OID URN (`urn:oid:2.999.7.1`). The registry is the only source of membership.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(Box<str>);

impl OrgId {
    /// Checks and takes an OID URN. Errors: [`IdError::NotOid`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let dotted = text.strip_prefix("urn:oid:").ok_or(IdError::NotOid)?;
        if text.len() > OID_CHARS_MAX {
            return Err(IdError::NotOid);
        }
        let mut arcs = 0_usize;
        for arc in dotted.split('.') {
            let canonical = !arc.is_empty()
                && arc.bytes().all(|byte| byte.is_ascii_digit())
                && (arc.len() == 1 || !arc.starts_with('0'));
            if !canonical {
                return Err(IdError::NotOid);
            }
            arcs = arcs.saturating_add(1);
        }
        if arcs < 2 || !matches!(dotted.as_bytes().first(), Some(b'0'..=b'2')) {
            return Err(IdError::NotOid);
        }
        Ok(Self(text.into()))
    }

    /// The URN as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrgId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for OrgId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for OrgId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// Reads a CBOR byte string of a fixed length.
struct BytesVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for BytesVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a byte string of {N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as the id.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes a slice of exactly [`Self::LEN`] bytes. Errors: [`IdError::Length`].
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                let found = bytes.len();
                bytes.try_into().map(Self).map_err(|_| IdError::Length { expected: $len, found })
            }

            /// Reads hexadecimal text. Errors: [`IdError::NotHex`], [`IdError::Length`].
            pub fn from_hex(text: &str) -> Result<Self, IdError> {
                Self::from_slice(&hex::decode(text).map_err(|_| IdError::NotHex)?)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Hexadecimal text.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&hex::encode(self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_bytes(BytesVisitor::<$len>).map(Self)
            }
        }
    };
}

byte_id!(
    /// A node: SHA-256 of its certificate's SubjectPublicKeyInfo. The libp2p PeerId is the same hash.
    NodeKey, 32
);
byte_id!(
    /// An Ed25519 public key (RFC 8032), raw.
    PublicKey, 32
);
byte_id!(
    /// An Ed25519 signature (RFC 8032).
    Signature, 64
);
byte_id!(
    /// SHA-256 of content bytes.
    ContentHash, 32
);
byte_id!(
    /// BLAKE3 of content bytes: verifies a transfer at the speed of memory. It never names a content.
    TransferHash, 32
);
byte_id!(
    /// SHA-256 node of a Merkle tree (RFC 6962).
    TreeHash, 32
);
byte_id!(
    /// Where a pointer or locator is stored; derived from a PRF output or a record key, never from plain data.
    IndexKey, 32
);
byte_id!(
    /// Which versions of records a set holds, whatever their order: a sum of SHA-256 values modulo 2^256.
    SetHash, 32
);
byte_id!(
    /// A random name of one index record of one owner. Tokens of one patient get different handles.
    RecordHandle, 16
);
byte_id!(
    /// A document or study in the words of its owner; random, stable across updates.
    DocumentId, 16
);
byte_id!(
    /// One-time value.
    Nonce, 16
);
byte_id!(
    /// Names one question and its answers across organisations, in both audit logs.
    Correlation, 16
);
byte_id!(
    /// A one-time right to read one granted document over the bulk lane.
    Ticket, 32
);

/// Milliseconds since 1970-01-01T00:00:00Z. Always an argument, never read from a clock here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `milliseconds`.
    #[must_use]
    pub const fn plus(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The owner's durable counter: one writer, one sequence, never a clock (law 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Version of the patient's consent at the custodian (law 8). Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct ConsentEpoch(pub u64);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{ContentHash, IdError, OrgId};

    #[test]
    fn spec_p_id_an_oid_urn_is_checked() {
        assert!(OrgId::parse("urn:oid:2.999.1").is_ok());
        for bad in [
            "2.999.1",
            "urn:oid:",
            "urn:oid:2",
            "urn:oid:3.1",
            "urn:oid:1..2",
            "urn:oid:1.02",
            "urn:oid:1.x",
        ] {
            assert_eq!(OrgId::parse(bad), Err(IdError::NotOid), "{bad}");
        }
        let long = format!("urn:oid:1.{}", "9".repeat(200));
        assert_eq!(OrgId::parse(&long), Err(IdError::NotOid));
    }

    #[test]
    fn spec_p_id_byte_ids_have_one_length() {
        assert!(ContentHash::from_hex(&"ab".repeat(32)).is_ok());
        assert_eq!(
            ContentHash::from_hex("abcd"),
            Err(IdError::Length { expected: 32, found: 2 })
        );
        assert_eq!(ContentHash::from_hex("zz"), Err(IdError::NotHex));
    }
}
