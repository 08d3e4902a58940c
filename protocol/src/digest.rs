//! Digests of sets of index records: what one holder has of one owner, in 40 bytes.
//!
//! ```text
//! element = SHA-256("hie record version v1" | index key (32) | handle (16) | sequence (8, big endian))
//! hash    = sum of the elements as big-endian numbers, modulo 2^256
//! ```
//!
//! The sum does not depend on the order and is maintained by one addition and one subtraction for each change.
//! Two different sets that come about without intent agree with probability 2^-256 for equal counts. Somebody who
//! chooses the elements could find a second set with the same sum in about 2^32 steps (generalised birthday), but
//! only the owner chooses handles and sequences, and it gains nothing by misleading itself. A holder can always
//! state the sum that the owner told it: the digest finds loss and delay, and proves what a holder confirmed; it
//! does not prove that the holder still has it (SPEC F-DIGEST).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cbor;
use crate::id::{IndexKey, Millis, OrgId, RecordHandle, Sequence, SetHash};
use crate::message::RangeDigest;
use crate::registry::Registry;
use crate::sign::{self, DOMAIN_DIGEST, SignError, Signer};

/// First bytes of each element: names the purpose and its version.
pub const VERSION_DOMAIN: &[u8] = b"hie record version v1";
/// Largest signed digest, in bytes.
pub const DIGEST_BYTES_MAX: usize = 1024;

/// A set of versions of one owner's records, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionSum {
    /// How many.
    pub count: u64,
    sum: [u8; 32],
}

impl Default for VersionSum {
    fn default() -> Self {
        Self { count: 0, sum: [0; 32] }
    }
}

impl VersionSum {
    /// The sum with this count and hash.
    #[must_use]
    pub const fn new(count: u64, hash: SetHash) -> Self {
        Self {
            count,
            sum: *hash.as_bytes(),
        }
    }

    /// The hash of the set.
    #[must_use]
    pub const fn hash(&self) -> SetHash {
        SetHash::new(self.sum)
    }

    /// Adds a version.
    pub fn add(&mut self, key: &IndexKey, handle: &RecordHandle, sequence: Sequence) {
        self.count = self.count.wrapping_add(1);
        self.plus(&element(key, handle, sequence));
    }

    /// Takes a version away that was added before.
    pub fn remove(&mut self, key: &IndexKey, handle: &RecordHandle, sequence: Sequence) {
        self.count = self.count.wrapping_sub(1);
        // Minus x is plus the complement of x plus one.
        let mut complement = element(key, handle, sequence).map(|byte| !byte);
        for byte in complement.iter_mut().rev() {
            let (next, carry) = byte.overflowing_add(1);
            *byte = next;
            if !carry {
                break;
            }
        }
        self.plus(&complement);
    }

    /// Adds all versions of another set that shares none with this one.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.plus(&other.sum);
    }

    /// The digest of a range that holds this set.
    #[must_use]
    pub const fn over(&self, from: IndexKey, to: IndexKey) -> RangeDigest {
        RangeDigest {
            from,
            to,
            count: self.count,
            hash: self.hash(),
        }
    }

    fn plus(&mut self, other: &[u8; 32]) {
        let mut carry = 0_u16;
        for (mine, theirs) in self.sum.iter_mut().zip(other).rev() {
            let sum = u16::from(*mine) + u16::from(*theirs) + carry;
            let [high, low] = sum.to_be_bytes();
            (*mine, carry) = (low, u16::from(high));
        }
    }
}

/// What one version adds to the hash of a set.
#[must_use]
pub fn element(key: &IndexKey, handle: &RecordHandle, sequence: Sequence) -> [u8; 32] {
    Sha256::new()
        .chain_update(VERSION_DOMAIN)
        .chain_update(key.as_bytes())
        .chain_update(handle.as_bytes())
        .chain_update(sequence.0.to_be_bytes())
        .finalize()
        .into()
}

/// What an owner says that a holder has confirmed: signed, kept by the holder, shown to other holders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// Whose records.
    pub owner: OrgId,
    /// Who confirmed them.
    pub holder: OrgId,
    /// Registry version under which they are placed there.
    pub version: u64,
    /// Which index keys, how many records, and which versions.
    pub range: RangeDigest,
    /// The owner's highest sequence when it was signed: a record with a higher one is not counted here.
    pub sequence: Sequence,
    /// When the owner signed it.
    pub at: Millis,
}

impl ShardDigest {
    /// Signs the digest. Errors: [`SignError`].
    pub fn sign(&self, owner: &dyn Signer) -> Result<Vec<u8>, SignError> {
        sign::sign(DOMAIN_DIGEST, cbor::encode(self)?, owner)
    }

    /// Verifies a digest signed by an active node of its owner. Errors: [`SignError`].
    pub fn verify(bytes: &[u8], registry: &Registry) -> Result<Self, SignError> {
        let verified = sign::verify(DOMAIN_DIGEST, bytes, DIGEST_BYTES_MAX, |node| registry.active_key(node))?;
        let digest: Self = cbor::decode(&verified.payload, DIGEST_BYTES_MAX)?;
        let signer = registry.node(&verified.node).map(|(member, _)| &member.org);
        if signer == Some(&digest.owner) {
            Ok(digest)
        } else {
            Err(SignError::UnknownSigner(verified.node))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::VersionSum;
    use crate::id::{IndexKey, RecordHandle, Sequence};

    fn version(at: u8) -> (IndexKey, RecordHandle, Sequence) {
        (
            IndexKey::new([at; 32]),
            RecordHandle::new([at; 16]),
            Sequence(u64::from(at)),
        )
    }

    #[test]
    fn spec_f_digest_does_not_depend_on_the_order_and_forgets_what_is_taken_away() {
        let (mut forwards, mut backwards, mut parts) =
            (VersionSum::default(), VersionSum::default(), VersionSum::default());
        let mut second = VersionSum::default();
        for at in 0..100 {
            let (key, handle, sequence) = version(at);
            forwards.add(&key, &handle, sequence);
            let (key, handle, sequence) = version(99 - at);
            backwards.add(&key, &handle, sequence);
            let part = if at % 3 == 0 { &mut parts } else { &mut second };
            let (key, handle, sequence) = version(at);
            part.add(&key, &handle, sequence);
        }
        parts.merge(&second);
        assert_eq!(forwards, backwards);
        assert_eq!(forwards, parts);
        let before = forwards;
        let (key, handle, _) = version(7);
        forwards.add(&key, &handle, Sequence(1000));
        assert_ne!(forwards.hash(), before.hash());
        forwards.remove(&key, &handle, Sequence(1000));
        assert_eq!(forwards, before);
        for at in 0..100 {
            let (key, handle, sequence) = version(at);
            forwards.remove(&key, &handle, sequence);
        }
        assert_eq!(forwards, VersionSum::default());
    }
}
