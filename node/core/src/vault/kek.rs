//! The key-encryption key: 32 bytes from a file outside the data directory.

use core::fmt;

use hie_protocol::refusal::Class;
use zeroize::Zeroizing;

use crate::ports::{NoRandomness, Random, random_bytes};

/// The key-encryption key. Never printed, wiped when dropped.
pub struct Kek(Zeroizing<[u8; 32]>);

/// Why a file is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KekError {
    /// Neither 64 hexadecimal digits nor 32 raw bytes.
    #[error("the key file must hold 64 hexadecimal digits; make one with `hie init`")]
    Form,
    /// A key of equal bytes was not made at random.
    #[error("the key file holds a key that was not made at random; make one with `hie init`")]
    Weak,
}

impl KekError {
    /// Who must act.
    #[must_use]
    pub const fn class(self) -> Class {
        Class::Invalid
    }
}

impl Kek {
    /// Makes a new key. Errors: [`NoRandomness`].
    pub fn generate(random: &dyn Random) -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(random_bytes(random)?)))
    }

    /// Reads the content of a key file: 64 hexadecimal digits with or without a line end, or 32 raw bytes.
    /// Errors: [`KekError`].
    pub fn from_file_content(content: &[u8]) -> Result<Self, KekError> {
        let trimmed = content.trim_ascii();
        let mut key = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(trimmed, key.as_mut_slice()).is_err() {
            *key = content.try_into().map_err(|_| KekError::Form)?;
        }
        let first = key.first().copied();
        if key.iter().all(|byte| Some(*byte) == first) {
            return Err(KekError::Weak);
        }
        Ok(Self(key))
    }

    /// The content of a key file.
    #[must_use]
    pub fn to_file_content(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}\n", hex::encode(self.0.as_slice())))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Kek(hidden)")
    }
}
