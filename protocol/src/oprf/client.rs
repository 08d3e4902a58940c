//! The asking member's side: blind, verify each authority's answer, combine, unblind, hash.
//!
//! An [`Evaluation`] becomes [`Verified`] only by its proof, [`Combined`] only from enough distinct
//! verified answers, and an output only by the [`Blinding`] that asked: each step takes the proof of
//! the one before as a value.

use std::fmt;

use curve25519_dalek::{
    ristretto::RistrettoPoint,
    scalar::Scalar,
    traits::{IsIdentity, MultiscalarMul},
};
use sha2::{Digest, Sha256, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::{
    BlindedElement, EVALUATE_BATCH_MAX, Evaluation, INPUT_LEN_MAX, OUTPUT_LEN, OprfError,
    group::{self, Random},
    key::PublicShare,
    proof::{self, Pair},
    server::decode,
};

/// The secret state of one batch: inputs and blinds, wiped when dropped.
pub struct Blinding {
    inputs: Vec<Zeroizing<Vec<u8>>>,
    blinds: Vec<Scalar>,
    blinded: Vec<BlindedElement>,
    /// The decoded form of `blinded`, so that no authority's answer has them decoded again.
    points: Vec<RistrettoPoint>,
}

impl Blinding {
    /// Blinds a batch of inputs (`Blind` of RFC 9497 section 3.3.2).
    ///
    /// # Errors
    /// [`OprfError::BatchSize`], [`OprfError::InputSize`], [`OprfError::InputUnusable`] or
    /// [`OprfError::Randomness`].
    pub fn new(inputs: &[&[u8]], random: Random<'_>) -> Result<(Self, Vec<BlindedElement>), OprfError> {
        if inputs.is_empty() || inputs.len() > EVALUATE_BATCH_MAX {
            return Err(OprfError::BatchSize { count: inputs.len() });
        }
        let count = inputs.len();
        let mut state = Self {
            inputs: Vec::with_capacity(count),
            blinds: Vec::with_capacity(count),
            blinded: Vec::new(),
            points: Vec::with_capacity(count),
        };
        // Half of every point first: doubling and encoding a whole batch shares one inversion.
        let half = group::half();
        let mut halves = Vec::with_capacity(count);
        for (position, input) in inputs.iter().enumerate() {
            if input.is_empty() || input.len() > INPUT_LEN_MAX {
                return Err(OprfError::InputSize {
                    position,
                    length: input.len(),
                });
            }
            let point = group::hash_to_group(input);
            if point.is_identity() {
                return Err(OprfError::InputUnusable { position });
            }
            let blind = group::random_scalar(random)?;
            let halved = Zeroizing::new(*blind * half);
            let halved = *halved * point;
            halves.push(halved);
            state.points.push(halved + halved);
            state.blinds.push(*blind);
            state.inputs.push(Zeroizing::new(input.to_vec()));
        }
        let encoded = RistrettoPoint::double_and_compress_batch(&halves);
        state.blinded = encoded.iter().map(|point| BlindedElement(point.to_bytes())).collect();
        let blinded = state.blinded.clone();
        Ok((state, blinded))
    }

    /// The blinded elements of this batch, for every authority the same.
    #[must_use]
    pub fn blinded(&self) -> &[BlindedElement] {
        &self.blinded
    }

    /// Verifies one authority's answer to this batch.
    ///
    /// # Errors
    /// As [`Evaluation::verify`].
    pub fn verify(&self, share: &PublicShare, evaluation: &Evaluation) -> Result<Verified, OprfError> {
        evaluation.verify_decoded(share, &self.blinded, &self.points)
    }

    /// Unblinds and hashes: the plain RFC 9497 output for each input, in order.
    ///
    /// # Errors
    /// [`OprfError::OtherBatch`] if the answers belong to another batch.
    pub fn finalize(&self, combined: &Combined) -> Result<Vec<Zeroizing<[u8; OUTPUT_LEN]>>, OprfError> {
        if combined.batch != batch_id(&self.blinded) {
            return Err(OprfError::OtherBatch);
        }
        // One sum for each element: r^-1 * sum(l_i * E_i), halved, so that the batch is encoded with one inversion.
        let mut unblinds = Zeroizing::new(self.blinds.clone());
        Scalar::batch_invert(&mut unblinds);
        let half = group::half();
        let weights: Vec<Scalar> = combined.answers.iter().map(|(weight, _)| weight * half).collect();
        let halves: Vec<RistrettoPoint> = unblinds
            .iter()
            .enumerate()
            .map(|(place, unblind)| {
                let terms = combined.answers.iter().zip(&weights);
                let terms = terms.filter_map(|((_, points), weight)| Some((weight * unblind, points.get(place)?)));
                let (scalars, points): (Vec<Scalar>, Vec<&RistrettoPoint>) = terms.unzip();
                RistrettoPoint::multiscalar_mul(&Zeroizing::new(scalars)[..], points)
            })
            .collect();
        let encoded = RistrettoPoint::double_and_compress_batch(&halves);
        let outputs = self.inputs.iter().zip(&encoded);
        Ok(outputs.map(|(input, point)| output(input, point.as_bytes())).collect())
    }
}

impl Drop for Blinding {
    fn drop(&mut self) {
        self.blinds.zeroize();
    }
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blinding")
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

/// One authority's answer whose proof holds.
pub struct Verified {
    index: u16,
    batch: [u8; 32],
    points: Vec<RistrettoPoint>,
}

impl Verified {
    /// Index of the share that answered.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified(share {}, {} elements)", self.index, self.points.len())
    }
}

impl Evaluation {
    /// Checks the answer against the authority's published share (`VerifyProof`, RFC 9497 section 2.2.2).
    ///
    /// # Errors
    /// [`OprfError::AnswerSize`], [`OprfError::AnswerPoint`] or [`OprfError::Proof`], each naming
    /// the authority by its index; [`OprfError::BatchSize`] or [`OprfError::Point`] if `blinded` itself is malformed.
    pub fn verify(&self, share: &PublicShare, blinded: &[BlindedElement]) -> Result<Verified, OprfError> {
        let points = decode(blinded)?;
        self.verify_decoded(share, blinded, &points)
    }

    fn verify_decoded(
        &self,
        share: &PublicShare,
        blinded: &[BlindedElement],
        asked_points: &[RistrettoPoint],
    ) -> Result<Verified, OprfError> {
        let index = share.index();
        let (got, asked) = (self.elements.len(), blinded.len());
        if got != asked {
            return Err(OprfError::AnswerSize { index, got, asked });
        }
        let mut points = Vec::with_capacity(got);
        let mut pairs = Vec::with_capacity(got);
        let answers = blinded.iter().zip(asked_points).zip(&self.elements);
        for (position, ((element, asked), answered_bytes)) in answers.enumerate() {
            let answered = group::point(answered_bytes, "the answer", position)
                .map_err(|_| OprfError::AnswerPoint { index, position })?;
            points.push(answered);
            pairs.push(Pair {
                asked: *asked,
                asked_bytes: element.0,
                answered_bytes: *answered_bytes,
            });
        }
        if !proof::holds(share.decoded(), share.point(), &pairs, &points, &self.proof) {
            return Err(OprfError::Proof { index });
        }
        Ok(Verified {
            index,
            batch: batch_id(blinded),
            points,
        })
    }
}

/// The group's answer to one batch.
pub struct Combined {
    batch: [u8; 32],
    /// Lagrange coefficient at zero and points of each answer taken; summed when the batch is unblinded.
    answers: Vec<(Scalar, Vec<RistrettoPoint>)>,
}

impl fmt::Debug for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Combined({} answers)", self.answers.len())
    }
}

/// Combines verified answers by Lagrange interpolation at zero; takes the first `threshold` of them.
///
/// # Errors
/// [`OprfError::TooFew`], [`OprfError::Repeated`] or [`OprfError::OtherBatch`].
pub fn combine(threshold: u16, answers: &[Verified]) -> Result<Combined, OprfError> {
    let too_few = OprfError::TooFew {
        have: answers.len(),
        need: threshold,
    };
    let Some(taken) = answers.get(..usize::from(threshold)) else {
        return Err(too_few);
    };
    let Some(first) = taken.first() else {
        return Err(too_few);
    };
    let mut indices: Vec<u16> = Vec::with_capacity(taken.len());
    for answer in taken {
        if indices.contains(&answer.index) {
            return Err(OprfError::Repeated { index: answer.index });
        }
        if answer.batch != first.batch {
            return Err(OprfError::OtherBatch);
        }
        indices.push(answer.index);
    }
    let answers = taken
        .iter()
        .map(|answer| (group::lagrange(answer.index, &indices, 0), answer.points.clone()));
    Ok(Combined {
        batch: first.batch,
        answers: answers.collect(),
    })
}

/// Names a batch, so that answers to different batches never mix.
fn batch_id(blinded: &[BlindedElement]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for element in blinded {
        hash.update(element.0);
    }
    hash.finalize().into()
}

/// The hash of `Finalize` (RFC 9497 section 3.3.1).
fn output(input: &[u8], unblinded: &[u8; 32]) -> Zeroizing<[u8; OUTPUT_LEN]> {
    let length = u16::try_from(input.len()).unwrap_or(u16::MAX);
    let digest = Sha512::new()
        .chain_update(length.to_be_bytes())
        .chain_update(input)
        .chain_update([0, 32])
        .chain_update(unblinded)
        .chain_update(b"Finalize")
        .finalize();
    Zeroizing::new(digest.into())
}
