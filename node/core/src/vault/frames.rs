//! Content sealed in frames: a range can be read, memory stays constant, and a cut, swapped or repeated frame
//! does not open (STREAM construction: frame number and a mark of the last frame make the nonce).

use core::fmt;

use ring::aead::{Aad, LessSafeKey, Nonce};

use super::{NONCE_BYTES, VaultError};

/// The key of one content. One key seals one content, once: its frame numbers are its nonces.
pub struct ContentKey(LessSafeKey);

impl ContentKey {
    pub(super) fn new(key: LessSafeKey) -> Self {
        Self(key)
    }

    /// Seals a frame in place and appends its tag. Errors: [`VaultError::Altered`] for a frame beyond the cipher's limit.
    pub fn seal_frame(&self, index: u64, last: bool, frame: &mut Vec<u8>) -> Result<(), VaultError> {
        self.0
            .seal_in_place_append_tag(nonce(index, last), Aad::empty(), frame)
            .map_err(|_| VaultError::Altered { table: "content" })
    }

    /// Opens a frame where it lies; answers how many of its first bytes are plain now. Errors: [`VaultError::Altered`].
    pub fn open_frame(&self, index: u64, last: bool, frame: &mut [u8]) -> Result<usize, VaultError> {
        self.0
            .open_in_place(nonce(index, last), Aad::empty(), frame)
            .map(|plain| plain.len())
            .map_err(|_| VaultError::Altered { table: "content" })
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ContentKey(hidden)")
    }
}

fn nonce(index: u64, last: bool) -> Nonce {
    let value = (u128::from(last) << 64) | u128::from(index);
    let mut bytes = [0; NONCE_BYTES];
    for (to, from) in bytes.iter_mut().rev().zip(value.to_le_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(bytes)
}
