//! Verification of proofs without a store (the algorithms of RFC 9162 sections 2.1.3.2 and
//! 2.1.4.2, which fit RFC 6962 trees unchanged).

use super::{Hash, MerkleError, PROOF_LEN_MAX, SIZE_MAX, node_hash};

/// Verifies that `leaf` is the leaf `index` of the tree with `size` leaves and this root.
///
/// # Errors
/// [`MerkleError::NoLeaf`], [`MerkleError::TooLarge`], [`MerkleError::Length`] or [`MerkleError::Root`].
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), MerkleError> {
    if size > SIZE_MAX {
        return Err(MerkleError::TooLarge);
    }
    if index >= size {
        return Err(MerkleError::NoLeaf { index, size });
    }
    let length = MerkleError::Length { count: proof.len() };
    if proof.len() > PROOF_LEN_MAX {
        return Err(length);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(length);
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if hash == *root { Ok(()) } else { Err(MerkleError::Root) }
}

/// Verifies that the tree of `new` leaves begins with the tree of `old` leaves.
///
/// # Errors
/// [`MerkleError::Sizes`] unless `1 <= old <= new` (nothing can be proved of an empty tree),
/// [`MerkleError::TooLarge`], [`MerkleError::Length`], [`MerkleError::OldRoot`] or [`MerkleError::Root`].
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), MerkleError> {
    if new > SIZE_MAX {
        return Err(MerkleError::TooLarge);
    }
    if old == 0 || old > new {
        return Err(MerkleError::Sizes { old, new });
    }
    let length = MerkleError::Length { count: proof.len() };
    if proof.len() > PROOF_LEN_MAX {
        return Err(length);
    }
    if old == new {
        if !proof.is_empty() {
            return Err(length);
        }
        return if old_root == new_root {
            Ok(())
        } else {
            Err(MerkleError::Root)
        };
    }
    // Where the old tree is one complete subtree, its root is the path's first hash, left unsaid.
    let (seed, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(length)?
    };
    if rest.is_empty() {
        return Err(length);
    }
    let shift = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut old_hash, mut new_hash) = (*seed, *seed);
    for sibling in rest {
        if last == 0 {
            return Err(length);
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if old_hash != *old_root {
        return Err(MerkleError::OldRoot);
    }
    if new_hash == *new_root {
        Ok(())
    } else {
        Err(MerkleError::Root)
    }
}
