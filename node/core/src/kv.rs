//! The storage port: an ordered key-value store with snapshots and atomic, durable batches.
//!
//! Law 6: [`Kv::commit`] returns only after the write-ahead log is synced. An input/output error, a failed
//! sync or a full disk is [`KvError::Fatal`]: the store refuses every later commit, and the program stops.
//! Table modules are pure and return entries of a [`Batch`]; the use case commits once.

use core::ops::Bound;

use hie_protocol::refusal::Class;

use crate::catalogue::Table;

pub mod memory;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes; larger content belongs to the content store.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most pairs that one scan returns, whatever the caller asks.
pub const SCAN_LIMIT_MAX: usize = 4096;

/// Why the store does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A write or sync failed. What was not acknowledged may be lost; nothing more is accepted.
    #[error("the store failed and accepts nothing more: {what}; repair the disk and start the node again")]
    Fatal {
        /// What the engine said.
        what: String,
    },
    /// A read failed or found a broken block.
    #[error("the store cannot read table {table}: {what}; check the disk, then restore from a backup")]
    Unreadable {
        /// Name of the table.
        table: &'static str,
        /// What the engine said.
        what: String,
    },
    /// A key, value or batch is over its limit.
    #[error("a {what} of {found} bytes is over the limit of {limit}")]
    TooLarge {
        /// Key, value or batch.
        what: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

impl KvError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Fatal { .. } | Self::Unreadable { .. } => Class::Broken,
            Self::TooLarge { .. } => Class::Invalid,
        }
    }

    /// Whether the program must stop.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal { .. })
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// What a scan reads: the keys of a table that begin with a prefix, in one direction, from a bound on.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Table.
    pub table: Table,
    /// Every key returned begins with this.
    pub prefix: &'a [u8],
    /// Where to begin, seen in the direction of the scan.
    pub from: Bound<&'a [u8]>,
    /// Order.
    pub direction: Direction,
    /// Most pairs; never more than [`SCAN_LIMIT_MAX`].
    pub limit: usize,
}

impl<'a> Scan<'a> {
    /// Everything under `prefix`, smallest key first, at most [`SCAN_LIMIT_MAX`] pairs.
    #[must_use]
    pub const fn of(table: Table, prefix: &'a [u8]) -> Self {
        Self {
            table,
            prefix,
            from: Bound::Unbounded,
            direction: Direction::Forward,
            limit: SCAN_LIMIT_MAX,
        }
    }

    /// Begins at `key` itself.
    #[must_use]
    pub const fn at(mut self, key: &'a [u8]) -> Self {
        self.from = Bound::Included(key);
        self
    }

    /// Begins with the first key behind `key`, as seen in the direction of the scan: for paging.
    #[must_use]
    pub const fn after(mut self, key: &'a [u8]) -> Self {
        self.from = Bound::Excluded(key);
        self
    }

    /// Largest key first.
    #[must_use]
    pub const fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// At most `limit` pairs.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = if limit < SCAN_LIMIT_MAX { limit } else { SCAN_LIMIT_MAX };
        self
    }
}

/// One write of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a value.
    Put {
        /// Table.
        table: Table,
        /// Key.
        key: Vec<u8>,
        /// Value, version marker first.
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete {
        /// Table.
        table: Table,
        /// Key.
        key: Vec<u8>,
    },
}

/// Writes that become true together, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
}

impl core::fmt::Debug for Batch {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "Batch({} writes, {} bytes)", self.writes.len(), self.bytes)
    }
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.push(Write::Put {
            table,
            key: key.into(),
            value: value.into(),
        });
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.push(Write::Delete { table, key: key.into() });
    }

    /// Adds one write.
    pub fn push(&mut self, write: Write) {
        self.bytes = self.bytes.saturating_add(write.bytes());
        self.writes.push(write);
    }

    /// Adds everything of another batch behind.
    pub fn append(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.writes.extend(other.writes);
    }

    /// The writes in order.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The writes in order, taken.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    /// Number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Checks every limit. Errors: [`KvError::TooLarge`].
    pub fn check(&self) -> Result<(), KvError> {
        let within = |what, found, limit| {
            if found <= limit {
                Ok(())
            } else {
                Err(KvError::TooLarge { what, found, limit })
            }
        };
        within("batch", self.bytes, BATCH_BYTES_MAX)?;
        for write in &self.writes {
            match write {
                Write::Put { key, value, .. } => {
                    within("key", key.len(), KEY_BYTES_MAX)?;
                    within("value", value.len(), VALUE_BYTES_MAX)?;
                }
                Write::Delete { key, .. } => within("key", key.len(), KEY_BYTES_MAX)?,
            }
        }
        Ok(())
    }
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len().saturating_add(value.len()),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// Reading, from the store as it is now or from a snapshot.
pub trait KvRead: Send + Sync {
    /// The value of a key. Errors: [`KvError::Unreadable`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// Pairs in order. Errors: [`KvError::Unreadable`].
    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Pair>, KvError>;
}

/// The store.
pub trait Kv: KvRead + 'static {
    /// A view that later commits do not change. Errors: [`KvError::Unreadable`].
    fn snapshot(&self) -> Result<Box<dyn KvRead + '_>, KvError>;
    /// Makes the whole batch true and durable, or nothing. Returns after the sync.
    ///
    /// Errors: [`KvError::TooLarge`] (nothing happened), [`KvError::Fatal`] (the program must stop).
    fn commit(&self, batch: Batch) -> Result<(), KvError>;
}

/// The smallest key that is larger than every key with this prefix; none when there is no such key.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests;
