//! A disk that forgets: what is written is there only once its sync is done.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use hie_node_federation::port::PersistId;
use hie_node_federation::table::{Change, Kept, Table};

type Cells = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What one node has stored.
#[derive(Debug, Default)]
pub struct Disk {
    synced: Cells,
    writing: VecDeque<(PersistId, Vec<Change>)>,
    backup: Option<Cells>,
}

impl Disk {
    /// A batch is handed to the disk.
    pub fn write(&mut self, id: PersistId, changes: Vec<Change>) {
        self.writing.push_back((id, changes));
    }

    /// The oldest batch reaches the platter.
    pub fn sync(&mut self) -> Option<PersistId> {
        let (id, changes) = self.writing.pop_front()?;
        for change in changes {
            let cells = self.synced.entry(change.table).or_default();
            match change.value {
                Some(value) => cells.insert(change.key, value),
                None => cells.remove(&change.key),
            };
        }
        Some(id)
    }

    /// The power is cut: whatever was not synced is gone.
    pub fn cut(&mut self) {
        self.writing.clear();
    }

    /// The disk is lost, backup and all.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }

    /// A copy is laid aside.
    pub fn back_up(&mut self) {
        self.backup = Some(self.synced.clone());
    }

    /// The copy laid aside takes the place of what is there; false when there is none.
    pub fn restore(&mut self) -> bool {
        match self.backup.clone() {
            Some(cells) => {
                self.writing.clear();
                self.synced = cells;
                true
            }
            None => false,
        }
    }

    /// Batches on their way.
    #[must_use]
    pub fn writing(&self) -> usize {
        self.writing.len()
    }

    /// Everything synced in one table.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        let cells = self.synced.get(&table).into_iter().flatten();
        cells.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Bytes of keys and values synced in one table.
    #[must_use]
    pub fn bytes(&self, table: Table) -> usize {
        self.table(table).map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl Kept for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.synced.get(&table)?.get(key).cloned()
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = if from > prefix { from } else { prefix };
        let Some(cells) = self.synced.get(&table) else {
            return Vec::new();
        };
        cells
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(max)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}
