//! The token authority's side: multiply each blinded point by the share, and prove it.
//!
//! Who may ask, how often, and the audit of each question are the caller's business.

use curve25519_dalek::ristretto::RistrettoPoint;
use zeroize::Zeroizing;

use super::{
    BlindedElement, EVALUATE_BATCH_MAX, Evaluation, OprfError,
    group::{self, Random},
    key::KeyShare,
    proof::{self, Pair},
};

/// Evaluates a batch with one share (`BlindEvaluate` of RFC 9497 section 3.3.2).
///
/// # Errors
/// [`OprfError::BatchSize`], [`OprfError::Point`] naming the place of a malformed element, or
/// [`OprfError::Randomness`].
pub fn evaluate(share: &KeyShare, blinded: &[BlindedElement], random: Random<'_>) -> Result<Evaluation, OprfError> {
    let points = decode(blinded)?;
    // Half of every answer first: doubling and encoding a whole batch shares one inversion.
    let half = Zeroizing::new(share.scalar() * group::half());
    let halves: Vec<RistrettoPoint> = points.iter().map(|point| *half * point).collect();
    let encoded = RistrettoPoint::double_and_compress_batch(&halves);
    let elements: Vec<[u8; 32]> = encoded.iter().map(|point| point.to_bytes()).collect();
    let pairs: Vec<Pair> = blinded
        .iter()
        .zip(points)
        .zip(&elements)
        .map(|((element, asked), answered)| Pair {
            asked,
            asked_bytes: element.0,
            answered_bytes: *answered,
        })
        .collect();
    let nonce = group::random_scalar(random)?;
    let proof = proof::prove(share.scalar(), share.public().point(), &pairs, &nonce);
    Ok(Evaluation { elements, proof })
}

/// Decodes a batch of blinded elements within its limit.
pub(super) fn decode(blinded: &[BlindedElement]) -> Result<Vec<RistrettoPoint>, OprfError> {
    if blinded.is_empty() || blinded.len() > EVALUATE_BATCH_MAX {
        return Err(OprfError::BatchSize { count: blinded.len() });
    }
    blinded
        .iter()
        .enumerate()
        .map(|(position, element)| group::point(&element.0, "the blinded element", position))
        .collect()
}
