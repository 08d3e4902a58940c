//! The batched discrete-logarithm-equality proof of RFC 9497 section 2.2: one proof that every
//! element of a batch was multiplied by the scalar behind one public point.

use curve25519_dalek::{ristretto::RistrettoPoint, scalar::Scalar, traits::VartimeMultiscalarMul};
use sha2::{Digest, Sha512};

use super::{
    PROOF_LEN,
    group::{CONTEXT, hash_to_scalar},
};

/// One pair (C_i, D_i) in points and in encoded form.
pub struct Pair {
    pub asked: RistrettoPoint,
    pub asked_bytes: [u8; 32],
    pub answered_bytes: [u8; 32],
}

/// `GenerateProof` with A = the group's generator, B = `public`, and the given nonce `r`.
pub fn prove(secret: &Scalar, public: &[u8; 32], pairs: &[Pair], r: &Scalar) -> [u8; PROOF_LEN] {
    let weights = weights(public, pairs);
    let composite = RistrettoPoint::vartime_multiscalar_mul(weights.iter(), pairs.iter().map(|p| p.asked));
    let answered = secret * composite;
    let challenge = challenge(
        public,
        &composite,
        &answered,
        &RistrettoPoint::mul_base(r),
        &(r * composite),
    );
    let response = r - challenge * secret;
    let mut proof = [0u8; PROOF_LEN];
    let (left, right) = proof.split_at_mut(32);
    left.copy_from_slice(challenge.as_bytes());
    right.copy_from_slice(response.as_bytes());
    proof
}

/// `VerifyProof`: whether `proof` shows that each pair is related by the scalar behind `public`.
///
/// `public_bytes` encode `public`; `answered` are the decoded points of the pairs' `answered_bytes`, in the same order.
pub fn holds(
    public: &RistrettoPoint,
    public_bytes: &[u8; 32],
    pairs: &[Pair],
    answered: &[RistrettoPoint],
    proof: &[u8; PROOF_LEN],
) -> bool {
    let Some((claimed, response)) = scalars(proof) else {
        return false;
    };
    let weights = weights(public_bytes, pairs);
    let m = RistrettoPoint::vartime_multiscalar_mul(weights.iter(), pairs.iter().map(|p| p.asked));
    let z = RistrettoPoint::vartime_multiscalar_mul(weights.iter(), answered);
    let t2 = RistrettoPoint::vartime_double_scalar_mul_basepoint(&claimed, public, &response);
    let t3 = RistrettoPoint::vartime_multiscalar_mul([response, claimed], [m, z]);
    challenge(public_bytes, &m, &z, &t2, &t3) == claimed
}

/// The two scalars of a proof, each canonical; zero is allowed here as RFC 9497 allows it.
fn scalars(proof: &[u8; PROOF_LEN]) -> Option<(Scalar, Scalar)> {
    let (left, right) = proof.split_first_chunk::<32>()?;
    let right: [u8; 32] = right.try_into().ok()?;
    let challenge = Option::<Scalar>::from(Scalar::from_canonical_bytes(*left))?;
    let response = Option::<Scalar>::from(Scalar::from_canonical_bytes(right))?;
    Some((challenge, response))
}

/// The scalars d_i of `ComputeComposites`, bound to the key and to every pair.
fn weights(public: &[u8; 32], pairs: &[Pair]) -> Vec<Scalar> {
    const SEED_DST: &[u8] = b"Seed-";
    let dst_len = u16::try_from(SEED_DST.len().saturating_add(CONTEXT.len())).unwrap_or(u16::MAX);
    let seed = Sha512::new()
        .chain_update([0, 32])
        .chain_update(public)
        .chain_update(dst_len.to_be_bytes())
        .chain_update(SEED_DST)
        .chain_update(CONTEXT)
        .finalize();
    (0u16..)
        .zip(pairs)
        .map(|(i, pair)| {
            hash_to_scalar(&[
                &[0, 64],
                &seed,
                &i.to_be_bytes(),
                &[0, 32],
                &pair.asked_bytes,
                &[0, 32],
                &pair.answered_bytes,
                b"Composite",
            ])
        })
        .collect()
}

/// The Fiat-Shamir challenge over (B, M, Z, t2, t3).
fn challenge(
    public: &[u8; 32],
    m: &RistrettoPoint,
    z: &RistrettoPoint,
    t2: &RistrettoPoint,
    t3: &RistrettoPoint,
) -> Scalar {
    let encoded = [m, z, t2, t3].map(|point| point.compress().to_bytes());
    let mut parts: Vec<&[u8]> = vec![&[0, 32], public];
    for bytes in &encoded {
        parts.push(&[0, 32]);
        parts.push(bytes);
    }
    parts.push(b"Challenge");
    hash_to_scalar(&parts)
}
