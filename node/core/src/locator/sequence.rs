//! The owner's sequence: a durable counter, never a clock (law 4).
//!
//! Numbers are reserved in blocks before the first of them is used, so that no number is given twice even
//! when the process dies between two commits; a number may be skipped.

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hie_protocol::id::Sequence;

use crate::catalogue::Table;
use crate::kv::{Batch, Kv, KvError};

/// Numbers reserved at a time.
pub const BLOCK: u64 = 4096;
const NAME: &[u8] = b"index";

/// Gives out sequences.
pub struct Sequencer {
    kv: Arc<dyn Kv>,
    /// Next number to give, and the first that is not reserved.
    numbers: Mutex<(u64, u64)>,
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Sequencer")
    }
}

impl Sequencer {
    /// Goes on behind every number that was ever reserved. Errors: the store's.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self, KvError> {
        let stored = kv
            .get(Table::Sequences, NAME)?
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(1, u64::from_be_bytes);
        Ok(Self {
            kv,
            numbers: Mutex::new((stored, stored)),
        })
    }

    /// The next number. May block for one sync. Errors: the store's.
    pub fn next(&self) -> Result<Sequence, KvError> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, reserved) = *numbers;
        if next >= reserved {
            let until = next.saturating_add(BLOCK);
            let mut batch = Batch::new();
            batch.put(Table::Sequences, NAME, until.to_be_bytes());
            self.kv.commit(batch)?;
            numbers.1 = until;
        }
        numbers.0 = next.saturating_add(1);
        Ok(Sequence(next))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::Sequencer;
    use crate::kv::memory::MemoryKv;

    #[test]
    fn spec_x_seq_no_number_is_given_twice_over_restarts() {
        let kv = Arc::new(MemoryKv::new());
        let mut last = 0;
        for _ in 0..3 {
            let sequencer = Sequencer::open(kv.clone()).unwrap();
            for _ in 0..5 {
                let next = sequencer.next().unwrap().0;
                assert!(next > last);
                last = next;
            }
        }
    }
}
