//! The index machine's tables in this node's store.
//!
//! The machine has no error for a disk that cannot be read, because it must never take that for "nothing
//! here". A failed read is remembered; the driver looks at it behind every step and stops.

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hie_node_federation::table::{Change, Kept, Table as IndexTable};

use crate::catalogue::Table;
use crate::kv::{Batch, Kv, KvError, SCAN_LIMIT_MAX, Scan};

/// The tables of the machine.
pub struct KvKept {
    kv: Arc<dyn Kv>,
    failed: Mutex<Option<KvError>>,
}

impl fmt::Debug for KvKept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("KvKept")
    }
}

const fn place(table: IndexTable) -> Table {
    match table {
        IndexTable::Held => Table::HeldRecords,
        IndexTable::HeldExpiry => Table::HeldByExpiry,
        IndexTable::HeldCount => Table::HeldByOwnerCount,
        IndexTable::Own => Table::OwnRecords,
        IndexTable::OwnDue => Table::OwnDue,
        IndexTable::Outbox => Table::Outbox,
        IndexTable::Membership => Table::IndexMembership,
    }
}

impl KvKept {
    /// Tables in the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            failed: Mutex::new(None),
        }
    }

    /// Writes changes, synced. Errors: the store's.
    pub fn commit(&self, changes: Vec<Change>) -> Result<(), KvError> {
        let mut batch = Batch::new();
        for change in changes {
            match change.value {
                Some(value) => batch.put(place(change.table), change.key, value),
                None => batch.delete(place(change.table), change.key),
            }
        }
        self.kv.commit(batch)
    }

    /// The read that failed since the start. Errors: that failure.
    pub fn check(&self) -> Result<(), KvError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone().map_or(Ok(()), Err)
    }

    fn remember(&self, error: KvError) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl Kept for KvKept {
    fn get(&self, table: IndexTable, key: &[u8]) -> Option<Vec<u8>> {
        self.kv.get(place(table), key).unwrap_or_else(|error| {
            self.remember(error);
            None
        })
    }

    fn scan(&self, table: IndexTable, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        while pairs.len() < max {
            let wanted = max - pairs.len();
            let scan = Scan::of(place(table), prefix).limit(wanted);
            let page = match pairs.last() {
                Some((last, _)) => self.kv.scan(&scan.after(last)),
                None => self.kv.scan(&scan.at(from)),
            };
            match page {
                Ok(page) => {
                    let whole = page.len() < wanted.min(SCAN_LIMIT_MAX);
                    pairs.extend(page);
                    if whole {
                        break;
                    }
                }
                Err(error) => {
                    self.remember(error);
                    break;
                }
            }
        }
        pairs
    }
}
