//! ristretto255 and SHA-512 as RFC 9497 section 4.1 wants them: hashing to the group and to
//! scalars, and the canonical encodings at the rim.

use curve25519_dalek::{
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
    traits::{Identity, IsIdentity},
};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::{ELEMENT_LEN, OprfError};

/// `"OPRFV1-" || I2OSP(mode, 1) || "-" || identifier` (RFC 9497 section 3.1), mode VOPRF.
pub const CONTEXT: &[u8] = b"OPRFV1-\x01-ristretto255-SHA512";

/// A source of randomness: fills the whole buffer.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Bytes in a SHA-512 block (`s_in_bytes` of RFC 9380).
const BLOCK_LEN: usize = 128;

/// `hash_to_ristretto255` with `expand_message_xmd` (RFC 9380 appendix B).
pub fn hash_to_group(input: &[u8]) -> RistrettoPoint {
    let uniform = expand_message(&[input], b"HashToGroup-");
    RistrettoPoint::from_uniform_bytes(&uniform)
}

/// `HashToScalar` (RFC 9497 section 4.1) over the concatenation of `parts`.
pub fn hash_to_scalar(parts: &[&[u8]]) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&expand_message(parts, b"HashToScalar-"))
}

/// `expand_message_xmd` of RFC 9380 section 5.3.1 for SHA-512 and 64 bytes: exactly one block `b_1`.
fn expand_message(parts: &[&[u8]], purpose: &[u8]) -> [u8; 64] {
    let dst_len = u8::try_from(purpose.len().saturating_add(CONTEXT.len())).unwrap_or(u8::MAX);
    let mut b0 = Sha512::new();
    b0.update([0u8; BLOCK_LEN]);
    for part in parts {
        b0.update(part);
    }
    // I2OSP(len_in_bytes, 2) || I2OSP(0, 1) || DST_prime
    b0.update([0, 64, 0]);
    b0.update(purpose);
    b0.update(CONTEXT);
    b0.update([dst_len]);
    let mut b1 = Sha512::new();
    b1.update(b0.finalize());
    b1.update([1]);
    b1.update(purpose);
    b1.update(CONTEXT);
    b1.update([dst_len]);
    b1.finalize().into()
}

/// Reads a point: canonical encoding, never the identity (RFC 9497 section 2.1).
pub fn point(bytes: &[u8; ELEMENT_LEN], what: &'static str, position: usize) -> Result<RistrettoPoint, OprfError> {
    CompressedRistretto(*bytes)
        .decompress()
        .filter(|point| !point.is_identity())
        .ok_or(OprfError::Point { what, position })
}

/// Reads a scalar that must be canonical and not zero.
pub fn scalar(bytes: &[u8; 32], what: &'static str) -> Result<Scalar, OprfError> {
    Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes))
        .filter(|scalar| *scalar != Scalar::ZERO)
        .ok_or(OprfError::Scalar { what })
}

/// Draws a non-zero scalar from 64 bytes of randomness (bias below 2^-252).
pub fn random_scalar(random: Random<'_>) -> Result<Zeroizing<Scalar>, OprfError> {
    let mut wide = Zeroizing::new([0u8; 64]);
    random(wide.as_mut_slice());
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide));
    if *scalar == Scalar::ZERO {
        return Err(OprfError::Randomness);
    }
    Ok(scalar)
}

/// The scalar 1/2: the half of a point, doubled and encoded in a batch, is the point.
pub fn half() -> Scalar {
    Scalar::from(2_u8).invert()
}

/// The Lagrange coefficient of `own` at the place `at`, among the indices `all` (all distinct).
pub fn lagrange(own: u16, all: &[u16], at: u16) -> Scalar {
    let mut above = Scalar::ONE;
    let mut below = Scalar::ONE;
    for other in all.iter().filter(|other| **other != own) {
        above *= Scalar::from(at) - Scalar::from(*other);
        below *= Scalar::from(own) - Scalar::from(*other);
    }
    above * below.invert()
}

/// Interpolates points of the shares `(index, point)` at the place `at`.
pub fn interpolate(shares: &[(u16, RistrettoPoint)], at: u16) -> RistrettoPoint {
    let indices: Vec<u16> = shares.iter().map(|(index, _)| *index).collect();
    shares
        .iter()
        .map(|(index, point)| lagrange(*index, &indices, at) * point)
        .fold(RistrettoPoint::identity(), |sum, term| sum + term)
}
