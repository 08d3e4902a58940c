//! The append-only Merkle tree of RFC 6962 section 2 (SHA-256; leaf prefix 0x00, node prefix 0x01).
//!
//! A node is named by its level (leaves are level 0) and its index within the level, and exists
//! once the 2^level leaves beneath it are complete; it never changes afterwards. The [`Frontier`]
//! appends with nothing but the peaks; a store that keeps the nodes an append completes can prove
//! inclusion and consistency at any size that the tree ever had. Verification needs no store.
//!
//! ```text
//! level 2        2,0                         size 7: peaks 2,0 · 1,2 · 0,6
//!             /       \
//! level 1   1,0       1,1       1,2
//!          /   \     /   \     /   \
//! level 0 0,0  0,1  0,2  0,3  0,4  0,5  0,6
//! ```

use sha2::{Digest, Sha256};

pub mod prove;
pub mod verify;

#[cfg(test)]
mod tests;

/// A node's hash.
pub type Hash = [u8; HASH_LEN];

/// Length of a hash, in bytes.
pub const HASH_LEN: usize = 32;

/// Most leaves of a tree, so that no sum of indices overflows.
pub const SIZE_MAX: u64 = 1 << 62;

/// Most hashes in a proof that can hold for any tree of at most [`SIZE_MAX`] leaves.
pub const PROOF_LEN_MAX: usize = 64;

/// Why a tree refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// The tree cannot grow, or a size is beyond any tree.
    #[error("a tree holds at most {SIZE_MAX} leaves")]
    TooLarge,
    /// The leaf is not in a tree of that size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    NoLeaf {
        /// Index of the leaf, from 0.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The earlier size is zero or above the later one.
    #[error("a tree of {new} leaves cannot be consistent with one of {old}")]
    Sizes {
        /// Leaves in the earlier tree.
        old: u64,
        /// Leaves in the later tree.
        new: u64,
    },
    /// The store lacks a node that the tree must have.
    #[error("node {level},{index} is missing from the store")]
    Missing {
        /// Level of the node; leaves are 0.
        level: u8,
        /// Index within the level.
        index: u64,
    },
    /// The proof has the wrong number of hashes for these sizes.
    #[error("the proof has {count} hashes, which does not fit the tree")]
    Length {
        /// Hashes in the proof.
        count: usize,
    },
    /// The proof does not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
    /// The earlier root does not follow from the proof.
    #[error("the proof does not lead to the earlier root")]
    OldRoot,
    /// An encoded frontier is malformed.
    #[error("the encoded frontier has {length} bytes, which does not fit its size")]
    Frontier {
        /// Bytes given.
        length: usize,
    },
}

/// The hash of a leaf's content.
#[must_use]
pub fn leaf_hash(content: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(content).finalize().into()
}

/// The hash of an interior node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A node that an append completed; it never changes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Level; leaves are 0.
    pub level: u8,
    /// Index within the level.
    pub index: u64,
    /// The node's hash.
    pub hash: Hash,
}

/// The compact state that appending needs: the size, and the roots of the complete subtrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// INVARIANT: one peak for each set bit of `size`, the largest subtree first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves in the tree.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf and returns the nodes that it completes: the leaf itself, then upwards.
    ///
    /// # Errors
    /// [`MerkleError::TooLarge`].
    pub fn append(&mut self, leaf: Hash) -> Result<Vec<Node>, MerkleError> {
        if self.size >= SIZE_MAX {
            return Err(MerkleError::TooLarge);
        }
        let mut node = Node {
            level: 0,
            index: self.size,
            hash: leaf,
        };
        let mut completed = vec![node];
        while node.index % 2 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = Node {
                level: node.level + 1,
                index: node.index / 2,
                hash: node_hash(&left, &node.hash),
            };
            completed.push(node);
        }
        self.peaks.push(node.hash);
        self.size += 1;
        Ok(completed)
    }

    /// The root at the present size.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(smallest) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(*smallest, |right, left| node_hash(left, &right))
    }

    /// Encodes the state: size (8 bytes, big-endian), then the peaks, the largest subtree first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.size.to_be_bytes().to_vec();
        for peak in &self.peaks {
            out.extend_from_slice(peak);
        }
        out
    }

    /// Decodes a state.
    ///
    /// # Errors
    /// [`MerkleError::Frontier`] if the length does not fit the size, [`MerkleError::TooLarge`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MerkleError> {
        let malformed = MerkleError::Frontier { length: bytes.len() };
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(malformed)?;
        let size = u64::from_be_bytes(*size);
        if size > SIZE_MAX {
            return Err(MerkleError::TooLarge);
        }
        let (peaks, left_over) = rest.as_chunks::<HASH_LEN>();
        if !left_over.is_empty() || u32::try_from(peaks.len()) != Ok(size.count_ones()) {
            return Err(malformed);
        }
        Ok(Self {
            size,
            peaks: peaks.to_vec(),
        })
    }
}

/// The largest power of two below `n` (RFC 6962's k); `n` is at least 2.
fn split(n: u64) -> u64 {
    let half = n.next_power_of_two() / 2;
    half.max(1)
}
