//! A disk that forgets: what is written is there only once its sync is done.

use std::collections::{BTreeMap, VecDeque};

use hie_node_federation::port::PersistId;
use hie_node_federation::table::{Change, Kept, Table};

/// What one node has stored.
#[derive(Debug, Default)]
pub struct Disk {
    synced: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    writing: VecDeque<(PersistId, Vec<Change>)>,
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
            let place = (change.table, change.key);
            match change.value {
                Some(value) => self.synced.insert(place, value),
                None => self.synced.remove(&place),
            };
        }
        Some(id)
    }

    /// The power is cut: whatever was not synced is gone.
    pub fn cut(&mut self) {
        self.writing.clear();
    }
}

impl Kept for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.synced.get(&(table, key.to_vec())).cloned()
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = if from > prefix { from } else { prefix };
        self.synced
            .range((table, start.to_vec())..)
            .take_while(|((at, key), _)| *at == table && key.starts_with(prefix))
            .take(max)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}
