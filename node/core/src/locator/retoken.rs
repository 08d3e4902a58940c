//! The own population under another token key: a walk over everything published, in the background.
//!
//! When the registry begins or ends a key epoch, every patient's index records change: tokens of the new key are
//! added, tokens of the key that went are withdrawn. The walk marks patients for publication, a page at a time and
//! only while little waits, and remembers durably how far it came (SPEC X-EPOCH).

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use hie_protocol::refusal::Class;
use serde::{Deserialize, Serialize};

use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::locator::tokens::RegistryView;
use crate::locator::worker::{MARKS_MAX, epochs};
use crate::ports::{NoRandomness, Random};
use crate::record::publish::mark;
use crate::versioned::{self, Stored, VersionedError};

/// Patients marked at a time.
pub const PAGE: usize = 256;
const NAME: &[u8] = b"token epochs";

/// Why the walk does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetokenError {
    /// The store.
    #[error("the published patients cannot be read")]
    Store(#[from] KvError),
    /// The stored place.
    #[error("the place of the walk is malformed")]
    Value(#[from] VersionedError),
    /// No random bytes.
    #[error("no mark can be made")]
    Random(#[from] NoRandomness),
}

impl RetokenError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Broken
    }

    /// Whether the program must stop.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Store(KvError::Fatal { .. }))
    }
}

/// How far the walk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Key epochs under which everything is to be published.
    pub epochs: BTreeSet<u32>,
    /// The last patient marked.
    #[serde(with = "hie_protocol::bytes")]
    after: Vec<u8>,
    /// Patients marked.
    pub marked: u64,
    /// Whether every patient was marked.
    pub walked: bool,
    /// Whether everything that was marked is published.
    pub done: bool,
}

impl Stored for Progress {
    const VERSION: u8 = 1;
}

impl Progress {
    fn begin(epochs: BTreeSet<u32>) -> Self {
        Self {
            epochs,
            after: Vec::new(),
            marked: 0,
            walked: false,
            done: false,
        }
    }

    /// How much of the population is marked, in percent: patients' keys are random, so that the place tells it.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if self.walked {
            return 100;
        }
        let place = self.after.first().map_or(0, |byte| u32::from(*byte));
        u8::try_from(place * 100 / 256).unwrap_or(99)
    }
}

/// The walk.
#[derive(Clone)]
pub struct Retoken {
    kv: Arc<dyn Kv>,
    registry: RegistryView,
    random: Arc<dyn Random>,
}

impl fmt::Debug for Retoken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Retoken")
    }
}

impl Retoken {
    /// A walk over the published patients of the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, registry: RegistryView, random: Arc<dyn Random>) -> Self {
        Self { kv, registry, random }
    }

    /// How far the walk is; none before its first step. Errors: [`RetokenError`].
    pub fn progress(&self) -> Result<Option<Progress>, RetokenError> {
        let stored = self.kv.get(Table::Meta, NAME)?;
        Ok(stored.map(|bytes| versioned::decode(&bytes)).transpose()?)
    }

    /// One step: begins anew when the registry's epochs changed, marks a page when little waits. Answers where the
    /// walk is, and whether there was something to do. Blocks for at most one sync. Errors: [`RetokenError`].
    pub fn step(&self) -> Result<(Progress, bool), RetokenError> {
        let wanted = epochs(&self.registry.borrow().policy.tokens);
        let stored = self.progress()?.filter(|stored| stored.epochs == wanted);
        if let Some(done) = stored.as_ref().filter(|stored| stored.done) {
            return Ok((done.clone(), false));
        }
        let mut progress = stored.unwrap_or_else(|| Progress::begin(wanted));
        let queue = Scan::of(Table::PublishQueue, &[]).limit(MARKS_MAX);
        let waiting = self.kv.scan(&queue)?.len();
        let mut batch = Batch::new();
        if progress.walked {
            if waiting > 0 {
                return Ok((progress, false));
            }
            progress.done = true;
        } else {
            if waiting >= MARKS_MAX {
                return Ok((progress, false));
            }
            self.mark_page(&mut progress, &mut batch)?;
        }
        batch.put(Table::Meta, NAME, versioned::encode(&progress)?);
        self.kv.commit(batch)?;
        Ok((progress, true))
    }

    fn mark_page(&self, progress: &mut Progress, batch: &mut Batch) -> Result<(), RetokenError> {
        let after = progress.after.clone();
        let scan = Scan::of(Table::Locators, &[]).limit(PAGE);
        let page = if after.is_empty() {
            self.kv.scan(&scan)?
        } else {
            self.kv.scan(&scan.after(&after))?
        };
        progress.walked = page.len() < PAGE;
        for (key, _) in page {
            if let Some(patient) = PatientKey::from_slice(&key) {
                mark(patient, &*self.random, batch)?;
                progress.marked = progress.marked.saturating_add(1);
            }
            progress.after = key;
        }
        Ok(())
    }
}
