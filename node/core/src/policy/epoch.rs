//! The consent epoch of a patient: a durable counter that every permit and copy carries (law 8).
//!
//! It only grows, and it grows in the commit that records the change. A transfer holds a [`Watch`] and reads
//! it before every piece: an atomic load, no lookup.

use core::fmt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_protocol::id::ConsentEpoch;

use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError};

/// Patients whose epoch is watched at once; beyond it those nobody watches are forgotten.
pub const WATCHED_MAX: usize = 65_536;

/// Reads one patient's epoch without a lookup.
#[derive(Clone, Debug)]
pub struct Watch(Arc<AtomicU64>);

impl Watch {
    /// The epoch now.
    #[must_use]
    pub fn now(&self) -> ConsentEpoch {
        ConsentEpoch(self.0.load(Ordering::SeqCst))
    }
}

/// The epochs of all patients.
pub struct Epochs {
    kv: Arc<dyn Kv>,
    watched: Mutex<HashMap<PatientKey, Arc<AtomicU64>>>,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Epochs")
    }
}

impl Epochs {
    /// Epochs over the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            watched: Mutex::default(),
        }
    }

    /// Watches a patient's epoch. Errors: the store's.
    pub fn watch(&self, patient: PatientKey) -> Result<Watch, KvError> {
        let mut watched = self.lock();
        if let Some(cell) = watched.get(&patient) {
            return Ok(Watch(Arc::clone(cell)));
        }
        let stored = self.stored(patient)?;
        if watched.len() >= WATCHED_MAX {
            watched.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        let cell = Arc::new(AtomicU64::new(stored.0));
        watched.insert(patient, Arc::clone(&cell));
        Ok(Watch(cell))
    }

    /// The epoch now. Errors: the store's.
    pub fn current(&self, patient: PatientKey) -> Result<ConsentEpoch, KvError> {
        Ok(self.watch(patient)?.now())
    }

    /// Writes the next epoch into `batch`. After the commit say [`Self::moved`]. Errors: the store's.
    pub(super) fn next(&self, patient: PatientKey, batch: &mut Batch) -> Result<ConsentEpoch, KvError> {
        let next = ConsentEpoch(self.stored(patient)?.0.saturating_add(1));
        batch.put(Table::ConsentEpochs, patient.0, next.0.to_be_bytes());
        Ok(next)
    }

    /// The commit is durable: whoever watches sees it from now on.
    pub(super) fn moved(&self, patient: PatientKey, epoch: ConsentEpoch) {
        if let Some(cell) = self.lock().get(&patient) {
            cell.fetch_max(epoch.0, Ordering::SeqCst);
        }
    }

    fn stored(&self, patient: PatientKey) -> Result<ConsentEpoch, KvError> {
        let bytes = self.kv.get(Table::ConsentEpochs, &patient.0)?;
        let epoch = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        Ok(ConsentEpoch(epoch))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PatientKey, Arc<AtomicU64>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
