//! Roots and proofs over a store of complete nodes (RFC 6962 section 2.1).

use super::{Hash, MerkleError, SIZE_MAX, empty_root, node_hash, split};

/// Where a store's nodes are read: complete nodes alone, as [`super::Frontier::append`] returned them.
pub trait Nodes {
    /// The node at this level and index, or nothing if it is not stored.
    fn node(&self, level: u8, index: u64) -> Option<Hash>;
}

impl<F: Fn(u8, u64) -> Option<Hash>> Nodes for F {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self(level, index)
    }
}

/// The root of the tree as it was at `size` leaves.
///
/// # Errors
/// [`MerkleError::TooLarge`], or [`MerkleError::Missing`] if the store has fewer leaves.
pub fn root(nodes: &impl Nodes, size: u64) -> Result<Hash, MerkleError> {
    if size == 0 {
        return Ok(empty_root());
    }
    check_size(size)?;
    range(nodes, 0, size)
}

/// The audit path of leaf `index` in the tree of `size` leaves, from the leaf upwards.
///
/// # Errors
/// [`MerkleError::NoLeaf`], [`MerkleError::TooLarge`] or [`MerkleError::Missing`].
pub fn inclusion_proof(nodes: &impl Nodes, index: u64, size: u64) -> Result<Vec<Hash>, MerkleError> {
    check_size(size)?;
    if index >= size {
        return Err(MerkleError::NoLeaf { index, size });
    }
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(range(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(range(nodes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `new` leaves begins with the tree of `old` leaves.
///
/// # Errors
/// [`MerkleError::Sizes`] unless `1 <= old <= new`, [`MerkleError::TooLarge`] or [`MerkleError::Missing`].
pub fn consistency_proof(nodes: &impl Nodes, old: u64, new: u64) -> Result<Vec<Hash>, MerkleError> {
    check_size(new)?;
    if old == 0 || old > new {
        return Err(MerkleError::Sizes { old, new });
    }
    let (mut low, mut high) = (0, new);
    let mut path = Vec::new();
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(range(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(range(nodes, low, middle)?);
            low = middle;
        }
    }
    // The verifier knows the old root: a subtree that is the whole old tree goes without saying.
    if low > 0 {
        path.push(range(nodes, low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// The hash over the leaves `low..high`, where `low` is a multiple of the smallest power of two
/// that is not below `high - low`.
fn range(nodes: &impl Nodes, low: u64, high: u64) -> Result<Hash, MerkleError> {
    let count = high - low;
    if !count.is_power_of_two() {
        let middle = low + split(count);
        let left = range(nodes, low, middle)?;
        return Ok(node_hash(&left, &range(nodes, middle, high)?));
    }
    // A power of two of a u64 has at most 63 trailing zeros.
    let shift = count.trailing_zeros();
    let level = u8::try_from(shift).unwrap_or(u8::MAX);
    let index = low >> shift;
    nodes.node(level, index).ok_or(MerkleError::Missing { level, index })
}

fn check_size(size: u64) -> Result<(), MerkleError> {
    if size > SIZE_MAX {
        return Err(MerkleError::TooLarge);
    }
    Ok(())
}
