//! The sealed box: ChaCha20-Poly1305 (RFC 8439) with the nonce in front.
//!
//! ```text
//! box = nonce (12 bytes) || ciphertext || tag (16 bytes)
//! ```
//!
//! The caller draws the nonce at random and uses a key for one purpose; the associated data binds
//! the box to its place. A padded box carries its content filled up to a multiple of
//! [`PAD_BLOCK_LEN`] bytes (ISO/IEC 7816-4: 0x80, then zeros), so that its length tells the
//! size class alone. Opening a damaged, foreign or misplaced box gives one and the same error.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Length of a key, in bytes.
pub const KEY_LEN: usize = 32;

/// Length of a nonce, in bytes.
pub const NONCE_LEN: usize = 12;

/// Bytes that a box adds to its content before padding.
pub const OVERHEAD_LEN: usize = NONCE_LEN + 16;

/// Longest content of one box, in bytes.
pub const PLAIN_LEN_MAX: usize = 1024 * 1024;

/// Padded content is a multiple of this, in bytes.
pub const PAD_BLOCK_LEN: usize = 64;

/// First byte of the padding (ISO/IEC 7816-4).
const PAD_MARK: u8 = 0x80;

/// Why a box cannot be made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The content is too long.
    #[error("{length} bytes are too many for one sealed box; at most {PLAIN_LEN_MAX} fit")]
    TooLong {
        /// Length of the content or of the box, in bytes.
        length: usize,
    },
    /// The bytes are too few to be a box.
    #[error("{length} bytes are too few for a sealed box of at least {OVERHEAD_LEN}")]
    TooShort {
        /// Length of the box, in bytes.
        length: usize,
    },
    /// Wrong key, wrong associated data, or altered bytes.
    #[error("the sealed box does not open with this key in this place")]
    Closed,
    /// The content opened but is not padded.
    #[error("the sealed box opens but its padding is malformed")]
    Padding,
}

/// Seals `plain` as it is.
///
/// # Errors
/// [`SealError::TooLong`].
pub fn seal(key: &[u8; KEY_LEN], nonce: [u8; NONCE_LEN], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    close(key, nonce, aad, plain, 0)
}

/// Seals `plain` with padding; always at least one byte of it.
///
/// # Errors
/// [`SealError::TooLong`].
pub fn seal_padded(
    key: &[u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let padding = PAD_BLOCK_LEN - plain.len() % PAD_BLOCK_LEN;
    close(key, nonce, aad, plain, padding)
}

/// Opens a box made by [`seal`].
///
/// # Errors
/// [`SealError::TooLong`], [`SealError::TooShort`] or [`SealError::Closed`].
pub fn open(key: &[u8; KEY_LEN], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let length = sealed.len();
    if length > PLAIN_LEN_MAX + PAD_BLOCK_LEN + OVERHEAD_LEN {
        return Err(SealError::TooLong { length });
    }
    let (nonce, body) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(SealError::TooShort { length })?;
    if length < OVERHEAD_LEN {
        return Err(SealError::TooShort { length });
    }
    let mut buffer = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain_len = cipher(key)?
        .open_in_place(nonce, Aad::from(aad), &mut buffer)
        .map_err(|_| SealError::Closed)?
        .len();
    buffer.truncate(plain_len);
    Ok(buffer)
}

/// Opens a box made by [`seal_padded`] and takes the padding off.
///
/// # Errors
/// As [`open`], and [`SealError::Padding`].
pub fn open_padded(key: &[u8; KEY_LEN], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut plain = open(key, aad, sealed)?;
    if plain.len() % PAD_BLOCK_LEN != 0 {
        return Err(SealError::Padding);
    }
    let mark = plain.iter().rposition(|byte| *byte != 0).ok_or(SealError::Padding)?;
    if plain.get(mark) != Some(&PAD_MARK) || plain.len() - mark > PAD_BLOCK_LEN {
        return Err(SealError::Padding);
    }
    plain.truncate(mark);
    Ok(plain)
}

fn close(
    key: &[u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    plain: &[u8],
    padding: usize,
) -> Result<Vec<u8>, SealError> {
    let length = plain.len();
    if length > PLAIN_LEN_MAX {
        return Err(SealError::TooLong { length });
    }
    let mut content = Vec::with_capacity(length + padding);
    content.extend_from_slice(plain);
    if padding > 0 {
        content.push(PAD_MARK);
        content.resize(length + padding, 0);
    }
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut content)
        .map_err(|_| SealError::TooLong { length })?;
    Ok([nonce.as_slice(), content.as_slice(), tag.as_ref()].concat())
}

fn cipher(key: &[u8; KEY_LEN]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .map(LessSafeKey::new)
        .map_err(|_| SealError::Closed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{OVERHEAD_LEN, PLAIN_LEN_MAX, SealError, open, open_padded, seal, seal_padded};

    /// RFC 8439 section 2.8.2.
    #[test]
    fn the_rfc_8439_example_seals_the_same() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
            tip for the future, sunscreen would be it.";
        let sealed = seal(&key, nonce, &aad, plain).unwrap();
        let text = hex::encode(&sealed[12..]);
        assert!(text.starts_with("d31a8d34648e60db7b86afbc53ef7ec2"));
        assert!(text.ends_with("1ae10b594f09e26a7e902ecbd0600691"));
        assert_eq!(open(&key, &aad, &sealed).unwrap(), plain);
    }

    proptest! {
        #[test]
        fn boxes_round_trip(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            aad in prop::collection::vec(any::<u8>(), 0..40),
            plain in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let sealed = seal(&key, nonce, &aad, &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_LEN);
            prop_assert_eq!(&open(&key, &aad, &sealed).unwrap(), &plain);
            let padded = seal_padded(&key, nonce, &aad, &plain).unwrap();
            prop_assert_eq!((padded.len() - OVERHEAD_LEN) % 64, 0);
            prop_assert!(padded.len() - OVERHEAD_LEN - plain.len() <= 64);
            prop_assert_eq!(&open_padded(&key, &aad, &padded).unwrap(), &plain);
        }

        #[test]
        fn any_changed_byte_closes_the_box(at in 0usize..60, mask in 1u8..) {
            let mut sealed = seal(&[1; 32], [2; 12], b"place", &[3; 32]).unwrap();
            sealed[at] ^= mask;
            prop_assert_eq!(open(&[1; 32], b"place", &sealed), Err(SealError::Closed));
        }
    }

    #[test]
    fn wrong_key_place_or_length_is_refused() {
        let sealed = seal_padded(&[1; 32], [2; 12], b"place", b"content").unwrap();
        assert_eq!(open(&[9; 32], b"place", &sealed), Err(SealError::Closed));
        assert_eq!(open(&[1; 32], b"elsewhere", &sealed), Err(SealError::Closed));
        for cut in 0..OVERHEAD_LEN {
            let short = open(&[1; 32], b"place", &sealed[..cut]);
            assert_eq!(short, Err(SealError::TooShort { length: cut }));
        }
        let long = vec![0; PLAIN_LEN_MAX + 1];
        let refused = seal(&[1; 32], [2; 12], b"", &long);
        assert_eq!(
            refused,
            Err(SealError::TooLong {
                length: PLAIN_LEN_MAX + 1
            })
        );
    }

    #[test]
    fn padding_must_be_the_canonical_one() {
        let mut two_blocks_of_padding = [0u8; 128];
        two_blocks_of_padding[63] = 0x80;
        let mut unmarked = [0u8; 64];
        unmarked[63] = 1;
        for plain in [
            [0u8; 64].as_slice(),
            b"",
            &[0x80; 63],
            &two_blocks_of_padding,
            &unmarked,
        ] {
            let sealed = seal(&[1; 32], [2; 12], b"", plain).unwrap();
            assert_eq!(open_padded(&[1; 32], b"", &sealed), Err(SealError::Padding));
        }
    }

    #[test]
    fn contents_of_one_size_class_look_alike() {
        let of = |n: usize| seal_padded(&[1; 32], [2; 12], b"", &vec![5; n]).unwrap().len();
        assert_eq!(of(0), of(63));
        assert_eq!(of(64), of(127));
        assert!(of(63) < of(64));
    }
}
