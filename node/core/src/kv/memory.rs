//! The in-memory twin of the store: same laws, and it fails when a test says so.

use core::ops::Bound;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Direction, Kv, KvError, KvRead, Pair, Scan, Write, prefix_end};
use crate::catalogue::Table;

type Tree = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// What the next commits do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing is wrong.
    #[default]
    None,
    /// After this many more good commits the disk is full: nothing of the batch is kept.
    DiskFull {
        /// Good commits left.
        after: u32,
    },
    /// After this many more good commits a sync fails: the batch is in memory, and lost by a restart.
    SyncFails {
        /// Good commits left.
        after: u32,
    },
}

#[derive(Default)]
struct State {
    /// What readers see.
    live: Arc<Tree>,
    /// What a restart would find: only synced batches.
    durable: Arc<Tree>,
    fault: Fault,
    failed: bool,
    commits: u64,
}

/// An ordered map behind the store's port.
#[derive(Default)]
pub struct MemoryKv {
    state: Mutex<State>,
}

impl MemoryKv {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Arranges a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// What a new process would find after a power cut: synced batches alone.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        let durable = Arc::clone(&self.state().durable);
        Self {
            state: Mutex::new(State {
                live: Arc::clone(&durable),
                durable,
                ..State::default()
            }),
        }
    }

    /// Changes a stored value behind the back of the program, synced: what a thief or a bad disk does.
    pub fn tamper(&self, table: Table, key: &[u8], change: impl FnOnce(&mut Option<Vec<u8>>)) {
        let mut state = self.state();
        let mut tree = (*state.live).clone();
        let name = (table.tag(), key.to_vec());
        let mut value = tree.remove(&name);
        change(&mut value);
        if let Some(value) = value {
            tree.insert(name, value);
        }
        state.live = Arc::new(tree);
        state.durable = Arc::clone(&state.live);
    }

    /// Good commits so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // INVARIANT: no code path panics while it holds the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct View(Arc<Tree>);

impl KvRead for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.get(&(table.tag(), key.to_vec())).cloned())
    }

    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Pair>, KvError> {
        let tag = scan.table.tag();
        let start = Bound::Included((tag, scan.prefix.to_vec()));
        let end = match prefix_end(scan.prefix) {
            Some(end) => Bound::Excluded((tag, end)),
            None => tag
                .checked_add(1)
                .map_or(Bound::Unbounded, |next| Bound::Excluded((next, Vec::new()))),
        };
        let take = |((_, key), value): (&(u8, Vec<u8>), &Vec<u8>)| (key.clone(), value.clone());
        let limit = scan.limit.min(super::SCAN_LIMIT_MAX);
        let inside = self.0.range((start, end));
        Ok(match scan.direction {
            Direction::Forward => inside
                .filter(|((_, key), _)| match scan.from {
                    Bound::Included(from) => key.as_slice() >= from,
                    Bound::Excluded(from) => key.as_slice() > from,
                    Bound::Unbounded => true,
                })
                .take(limit)
                .map(take)
                .collect(),
            Direction::Backward => inside
                .rev()
                .filter(|((_, key), _)| match scan.from {
                    Bound::Included(from) => key.as_slice() <= from,
                    Bound::Excluded(from) => key.as_slice() < from,
                    Bound::Unbounded => true,
                })
                .take(limit)
                .map(take)
                .collect(),
        })
    }
}

impl KvRead for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let live = Arc::clone(&self.state().live);
        View(live).get(table, key)
    }

    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Pair>, KvError> {
        let live = Arc::clone(&self.state().live);
        View(live).scan(scan)
    }
}

impl Kv for MemoryKv {
    fn snapshot(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        Ok(Box::new(View(Arc::clone(&self.state().live))))
    }

    fn commit(&self, batch: Batch) -> Result<(), KvError> {
        batch.check()?;
        let mut state = self.state();
        let fatal = |what: &str| Err(KvError::Fatal { what: what.to_owned() });
        if state.failed {
            return fatal("an earlier write failed");
        }
        let (full, unsynced) = match &mut state.fault {
            Fault::None => (false, false),
            Fault::DiskFull { after: 0 } => (true, false),
            Fault::SyncFails { after: 0 } => (false, true),
            Fault::DiskFull { after } | Fault::SyncFails { after } => {
                *after -= 1;
                (false, false)
            }
        };
        state.failed = full || unsynced;
        if full {
            return fatal("no space left on device");
        }
        apply(&mut state.live, batch);
        if unsynced {
            return fatal("sync failed");
        }
        state.durable = Arc::clone(&state.live);
        state.commits += 1;
        Ok(())
    }
}

/// Copies the tree only while a snapshot or a durable copy shares it.
fn apply(live: &mut Arc<Tree>, batch: Batch) {
    let tree = Arc::make_mut(live);
    for write in batch.into_writes() {
        match write {
            Write::Put { table, key, value } => {
                tree.insert((table.tag(), key), value);
            }
            Write::Delete { table, key } => {
                tree.remove(&(table.tag(), key));
            }
        }
    }
}
