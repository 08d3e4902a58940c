//! Searching the log, newest first; every entry of a page is proved to be in the tree before it is shown.

use std::sync::Arc;

use hie_protocol::checkpoint::SignedCheckpoint;
use hie_protocol::id::{Correlation, Millis, OrgId, TreeHash};
use hie_protocol::merkle::verify::verify_inclusion;
use hie_protocol::merkle::{Hash, leaf_hash};

use super::AuditError;
use super::event::{AuditEvent, EventKind, PatientRef};
use super::log::AuditLog;
use super::tables::{self, EMERGENCY_TAG};
use crate::catalogue::Table;
use crate::kv::Scan;
use crate::vault::VaultError;

/// Most entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 500;
/// Most entries that one search reads before it answers with a cursor.
pub const EXAMINED_MAX: usize = 20_000;

/// What is looked for; nothing given means everything.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// About this patient.
    pub patient: Option<PatientRef>,
    /// By this account of this organisation.
    pub user: Option<(OrgId, String)>,
    /// Of this question.
    pub correlation: Option<Correlation>,
    /// Of one of these kinds.
    pub kinds: Vec<EventKind>,
    /// Only what has to do with emergency access.
    pub emergency_only: bool,
    /// From (inclusive), to (exclusive).
    pub period: (Option<Millis>, Option<Millis>),
    /// Entries before this index: the cursor of the page before.
    pub before: Option<u64>,
    /// Most entries.
    pub limit: usize,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Position.
    pub index: u64,
    /// Leaf hash.
    pub leaf: TreeHash,
    /// What it says.
    pub event: AuditEvent,
}

/// A page of entries and what is proved about it.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Cursor of the next page, when there may be more.
    pub next: Option<u64>,
    /// Size of the log that the page was read from.
    pub size: u64,
    /// Newest checkpoint, signed.
    pub checkpoint: Option<SignedCheckpoint>,
    /// Whether every entry was proved: under the checkpoint, or under the present root when it is younger.
    pub whole: bool,
}

impl AuditLog {
    /// One page. Errors: [`AuditError::Altered`] for an entry that does not open, the store.
    pub fn search(&self, filter: &AuditFilter) -> Result<AuditPage, AuditError> {
        let (size, root) = self.head();
        let checkpoint = self.latest_checkpoint()?;
        let under = checkpoint
            .as_ref()
            .map(|signed| (signed.claimed().size(), *signed.claimed().root()));
        let heads = [under, Some((size, *root.as_bytes()))];
        let limit = filter.limit.clamp(1, PAGE_ENTRIES_MAX);
        let (table, prefix) = self.driving(filter);
        let mut page = AuditPage {
            entries: Vec::new(),
            next: None,
            size,
            checkpoint,
            whole: true,
        };
        let mut before = filter.before.unwrap_or(size).min(size);
        let mut examined = 0;
        loop {
            let from = tables::with_index(&prefix, before);
            let keys = self
                .kv
                .scan(&Scan::of(table, &prefix).after(&from).backward().limit(limit))?;
            if keys.is_empty() {
                return Ok(page);
            }
            for (key, _) in keys {
                let Some(index) = tables::index_of(&key) else { continue };
                before = index;
                examined += 1;
                let entry = self.entry(index)?;
                if matches(filter, &entry.event) {
                    page.whole &= self.is_proved(&entry, &heads);
                    page.entries.push(entry);
                }
                if page.entries.len() >= limit || examined >= EXAMINED_MAX {
                    page.next = (before > 0).then_some(before);
                    return Ok(page);
                }
            }
        }
    }

    /// One entry. Errors: [`AuditError::Altered`] when it is missing or does not open, the store.
    pub fn entry(&self, index: u64) -> Result<AuditEntry, AuditError> {
        let altered = || AuditError::Altered { index };
        let sealed = self
            .kv
            .get(Table::AuditLeaves, &tables::index_key(index))?
            .ok_or_else(altered)?;
        let canonical = match tables::open(&self.vault, index, &sealed) {
            Ok(canonical) => canonical,
            Err(VaultError::Altered { .. }) => return Err(altered()),
            Err(error) => return Err(error.into()),
        };
        let event = AuditEvent::from_canonical(&canonical).map_err(|_| altered())?;
        Ok(AuditEntry {
            index,
            leaf: TreeHash::new(leaf_hash(&canonical)),
            event,
        })
    }

    /// The narrowest index for a filter.
    fn driving(&self, filter: &AuditFilter) -> (Table, Arc<[u8]>) {
        if let Some(correlation) = filter.correlation {
            return (Table::AuditByCorrelation, Arc::from(correlation.as_bytes().as_slice()));
        }
        if let Some(patient) = filter.patient {
            return (Table::AuditByPatient, Arc::from(patient.0.as_slice()));
        }
        if filter.emergency_only {
            return (Table::AuditByKind, Arc::from([EMERGENCY_TAG].as_slice()));
        }
        if let Some((org, user)) = &filter.user {
            return (
                Table::AuditByUser,
                Arc::from(tables::user_key(&self.vault, org, user).as_slice()),
            );
        }
        match filter.kinds.as_slice() {
            [kind] => (Table::AuditByKind, Arc::from([kind.tag()].as_slice())),
            _ => (Table::AuditLeaves, Arc::from([].as_slice())),
        }
    }

    fn is_proved(&self, entry: &AuditEntry, heads: &[Option<(u64, Hash)>]) -> bool {
        let Some((size, root)) = heads.iter().flatten().find(|(size, _)| entry.index < *size) else {
            return false;
        };
        self.inclusion(entry.index, *size)
            .is_ok_and(|proof| verify_inclusion(entry.leaf.as_bytes(), entry.index, *size, &proof, root).is_ok())
    }
}

fn matches(filter: &AuditFilter, event: &AuditEvent) -> bool {
    let actor = &event.actor;
    filter.patient.is_none_or(|patient| event.patient == Some(patient))
        && filter
            .user
            .as_ref()
            .is_none_or(|(org, user)| actor.org == *org && actor.user == *user)
        && filter
            .correlation
            .is_none_or(|correlation| event.correlation == correlation)
        && (filter.kinds.is_empty() || filter.kinds.contains(&event.kind))
        && (!filter.emergency_only || tables::is_emergency(event))
        && filter.period.0.is_none_or(|from| event.at >= from)
        && filter.period.1.is_none_or(|to| event.at < to)
}
