//! Recomputing the log: every entry, every node, every checkpoint, in order, with constant memory.
//!
//! The first thing that does not fit ends the walk and names the entry. An entry that was replaced together with
//! all its nodes by somebody who holds the keys is found at the next signed checkpoint, and the report then names
//! the entries between the last good checkpoint and that one. A log that was cut behind its last checkpoints
//! agrees with itself: only a head that somebody else kept (a witness, an auditor) shows it.

use core::fmt;
use std::collections::VecDeque;

use hie_protocol::checkpoint::SignedCheckpoint;
use hie_protocol::checkpoint::note::NoteKey;
use hie_protocol::id::TreeHash;
use hie_protocol::merkle::{Frontier, leaf_hash};

use super::AuditError;
use super::event::AuditEvent;
use super::log::LogIdentity;
use super::tables;
use crate::catalogue::Table;
use crate::kv::{KvError, KvRead, Scan};
use crate::vault::{Vault, VaultError};

/// Entries read at a time.
const PAGE: usize = 256;
/// Most heads of others in one verification.
pub const HEADS_MAX: usize = 1024;

/// How much is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Entries, nodes, the root under every checkpoint, the signature of the last.
    Tree,
    /// Also every checkpoint's signature, every event's form and its index entries.
    All,
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The entry is missing, does not open, or has another hash than its node.
    Entry,
    /// A stored tree node above the entry is missing or wrong.
    Node,
    /// The entries up to a checkpoint do not give its root.
    Root,
    /// The log ends before its checkpoint.
    Cut,
    /// The entry is missing from a search index.
    Index,
    /// A checkpoint is malformed or not signed by the log.
    Checkpoint,
    /// The entries do not give the head that somebody else holds.
    OtherHead,
}

/// The first alteration found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Altered {
    /// First entry that may be altered.
    pub first: u64,
    /// Entry behind the last that may be altered; `first + 1` when exactly one is meant.
    pub end: u64,
    /// What does not fit.
    pub fault: Fault,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries verified: all of them, or those before the alteration.
    pub size: u64,
    /// Root over them.
    pub root: TreeHash,
    /// Entries under the last checkpoint.
    pub checkpoint_size: u64,
    /// Checkpoints that fit.
    pub checkpoints: u64,
    /// Heads of others that fit.
    pub heads: u64,
    /// The first alteration, if there is one.
    pub altered: Option<Altered>,
}

impl VerifyReport {
    /// Whether the whole log is what the node signed, as far as its own checkpoints reach.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.altered.is_none()
    }

    /// Entries behind the last checkpoint: intact, not yet signed for.
    #[must_use]
    pub const fn unsigned(&self) -> u64 {
        self.size.saturating_sub(self.checkpoint_size)
    }

    pub(super) fn refuse(&self) -> Result<(), AuditError> {
        match self.altered {
            None => Ok(()),
            Some(Altered {
                first,
                fault: Fault::Cut,
                ..
            }) => Err(AuditError::Truncated {
                size: first,
                expected: self.checkpoint_size,
            }),
            Some(Altered {
                first,
                fault: Fault::Checkpoint,
                ..
            }) => Err(AuditError::CheckpointForged { size: first }),
            Some(Altered { first, .. }) => Err(AuditError::Altered { index: first }),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(altered) = self.altered else {
            return write!(
                out,
                "whole: {} entries, root {}, {} checkpoints fit, {} entries not yet under a checkpoint",
                self.size,
                self.root,
                self.checkpoints,
                self.unsigned()
            );
        };
        match altered.fault {
            Fault::Cut => write!(
                out,
                "cut: the log ends at entry {}, its checkpoint covers {}",
                altered.first, self.checkpoint_size
            ),
            Fault::Checkpoint => write!(
                out,
                "altered: the checkpoint at size {} is not signed by this log",
                altered.first
            ),
            Fault::Index => write!(out, "altered: entry {} was taken out of a search index", altered.first),
            _ if altered.end == altered.first.saturating_add(1) => write!(out, "altered: entry {}", altered.first),
            _ => write!(
                out,
                "altered: an entry from {} to {}",
                altered.first,
                altered.end.saturating_sub(1)
            ),
        }
    }
}

/// Verifies a log at rest or through a snapshot; `heads` are signed checkpoints that others hold.
///
/// Errors: the store and the vault; an alteration is no error but a finding of the report.
pub fn verify(
    kv: &dyn KvRead,
    vault: &Vault,
    identity: &LogIdentity,
    heads: &[SignedCheckpoint],
) -> Result<VerifyReport, AuditError> {
    if heads.len() > HEADS_MAX {
        return Err(AuditError::Limit);
    }
    Ok(walk(kv, vault, &identity.origin(), &identity.note_keys()?, heads, Depth::All)?.report)
}

pub(super) struct Walked {
    pub(super) report: VerifyReport,
    pub(super) frontier: Frontier,
}

pub(super) fn walk(
    kv: &dyn KvRead,
    vault: &Vault,
    origin: &str,
    keys: &[NoteKey],
    heads: &[SignedCheckpoint],
    depth: Depth,
) -> Result<Walked, AuditError> {
    let mut walker = Walker {
        kv,
        vault,
        origin,
        keys,
        depth,
        frontier: Frontier::new(),
        checkpoints: Checkpoints::default(),
        heads: sorted(heads),
        good_until: 0,
        fitting: 0,
        fitting_heads: 0,
    };
    let last = kv.scan(&Scan::of(Table::AuditCheckpoints, &[]).backward().limit(1))?;
    let checkpoint_size = last.first().and_then(|(key, _)| tables::index_of(key)).unwrap_or(0);
    let signed = last.iter().all(|(_, text)| walker.signed(text));
    let altered = if signed {
        walker.run(checkpoint_size)?
    } else {
        Some(one(checkpoint_size, Fault::Checkpoint))
    };
    let report = VerifyReport {
        size: walker.frontier.size(),
        root: TreeHash::new(walker.frontier.root()),
        checkpoint_size,
        checkpoints: walker.fitting,
        heads: walker.fitting_heads,
        altered,
    };
    Ok(Walked {
        report,
        frontier: walker.frontier,
    })
}

struct Walker<'a> {
    kv: &'a dyn KvRead,
    vault: &'a Vault,
    origin: &'a str,
    keys: &'a [NoteKey],
    depth: Depth,
    frontier: Frontier,
    checkpoints: Checkpoints,
    heads: VecDeque<&'a SignedCheckpoint>,
    /// Entries under the last root that fitted.
    good_until: u64,
    fitting: u64,
    fitting_heads: u64,
}

impl Walker<'_> {
    fn run(&mut self, checkpoint_size: u64) -> Result<Option<Altered>, AuditError> {
        let mut last: Option<Vec<u8>> = None;
        loop {
            let scan = Scan::of(Table::AuditLeaves, &[]).limit(PAGE);
            let page = match &last {
                Some(key) => self.kv.scan(&scan.after(key))?,
                None => self.kv.scan(&scan)?,
            };
            for (key, sealed) in &page {
                if let Some(altered) = self.entry(key, sealed)? {
                    return Ok(Some(altered));
                }
            }
            match page.into_iter().next_back() {
                Some((key, _)) => last = Some(key),
                None => break,
            }
        }
        let size = self.frontier.size();
        if size < checkpoint_size {
            return Ok(Some(Altered {
                first: size,
                end: checkpoint_size,
                fault: Fault::Cut,
            }));
        }
        // A leaf node without its entry: the entry was taken from the end, where no checkpoint reaches yet.
        let leaf_nodes = self.kv.scan(&Scan::of(Table::AuditNodes, &[0]).backward().limit(1))?;
        let beyond = leaf_nodes
            .first()
            .and_then(|(key, _)| tables::index_of(key))
            .filter(|index| *index >= size);
        if let Some(index) = beyond {
            return Ok(Some(Altered {
                first: size,
                end: index.saturating_add(1),
                fault: Fault::Entry,
            }));
        }
        Ok(self.heads.front().map(|head| Altered {
            first: size,
            end: head.claimed().size(),
            fault: Fault::OtherHead,
        }))
    }

    fn entry(&mut self, key: &[u8], sealed: &[u8]) -> Result<Option<Altered>, AuditError> {
        let index = self.frontier.size();
        if key != tables::index_key(index) {
            return Ok(Some(one(index, Fault::Entry)));
        }
        let canonical = match tables::open(self.vault, index, sealed) {
            Ok(canonical) => canonical,
            Err(VaultError::Altered { .. }) => return Ok(Some(one(index, Fault::Entry))),
            Err(error) => return Err(error.into()),
        };
        for node in self.frontier.append(leaf_hash(&canonical))? {
            if self.stored_node(node.level, node.index)? != Some(node.hash) {
                let first = node.index.checked_shl(u32::from(node.level)).unwrap_or(0);
                let fault = if node.level == 0 { Fault::Entry } else { Fault::Node };
                return Ok(Some(Altered {
                    first,
                    end: index.saturating_add(1),
                    fault,
                }));
            }
        }
        if self.depth == Depth::All {
            let Ok(event) = AuditEvent::from_canonical(&canonical) else {
                return Ok(Some(one(index, Fault::Entry)));
            };
            for (table, key) in tables::index_entries(self.vault, index, &event) {
                if self.kv.get(table, &key)?.is_none() {
                    return Ok(Some(one(index, Fault::Index)));
                }
            }
        }
        self.roots()
    }

    fn stored_node(&self, level: u8, index: u64) -> Result<Option<[u8; 32]>, KvError> {
        let stored = self.kv.get(Table::AuditNodes, &tables::node_key(level, index))?;
        Ok(stored.and_then(|bytes| bytes.try_into().ok()))
    }

    /// Compares the root with every head of this size.
    fn roots(&mut self) -> Result<Option<Altered>, AuditError> {
        let size = self.frontier.size();
        let range = |first, fault| Altered {
            first,
            end: size,
            fault,
        };
        while let Some((at, text)) = self.checkpoints.up_to(self.kv, size)? {
            let Ok(checkpoint) = SignedCheckpoint::parse(&text) else {
                return Ok(Some(one(at, Fault::Checkpoint)));
            };
            let claimed = checkpoint.claimed();
            let belongs = claimed.size() == at && claimed.origin() == self.origin;
            if at != size || !belongs || (self.depth == Depth::All && !self.signed(&text)) {
                return Ok(Some(one(at, Fault::Checkpoint)));
            }
            if *claimed.root() != self.frontier.root() {
                return Ok(Some(range(self.good_until, Fault::Root)));
            }
            self.fitting += 1;
            self.good_until = size;
        }
        while let Some(head) = self.heads.front().filter(|head| head.claimed().size() <= size) {
            let signed = self.signed(head.to_text().as_bytes());
            if !signed || *head.claimed().root() != self.frontier.root() {
                return Ok(Some(range(self.good_until, Fault::OtherHead)));
            }
            self.heads.pop_front();
            self.fitting_heads += 1;
        }
        Ok(None)
    }

    fn signed(&self, text: &[u8]) -> bool {
        SignedCheckpoint::parse(text).is_ok_and(|checkpoint| {
            self.keys
                .iter()
                .any(|key| checkpoint.verify(self.origin, key, &[]).is_ok())
        })
    }
}

/// Stored checkpoints in order, a page at a time.
#[derive(Default)]
struct Checkpoints {
    page: VecDeque<(Vec<u8>, Vec<u8>)>,
    last: Option<Vec<u8>>,
    ended: bool,
}

impl Checkpoints {
    /// The next checkpoint when its size is at most `size`.
    fn up_to(&mut self, kv: &dyn KvRead, size: u64) -> Result<Option<(u64, Vec<u8>)>, KvError> {
        if self.page.is_empty() && !self.ended {
            let scan = Scan::of(Table::AuditCheckpoints, &[]).limit(PAGE);
            self.page = match &self.last {
                Some(key) => kv.scan(&scan.after(key))?,
                None => kv.scan(&scan)?,
            }
            .into();
            self.ended = self.page.is_empty();
            self.last = self.page.back().map(|(key, _)| key.clone());
        }
        // A key that is no size sorts anywhere: it counts as due at once, and is then refused.
        let due = |key: &[u8]| {
            if key.len() == 8 {
                tables::index_of(key).unwrap_or(0)
            } else {
                0
            }
        };
        match self.page.front() {
            Some((key, _)) if due(key) <= size => Ok(self.page.pop_front().map(|(key, text)| (due(&key), text))),
            _ => Ok(None),
        }
    }
}

fn sorted(heads: &[SignedCheckpoint]) -> VecDeque<&SignedCheckpoint> {
    let mut heads: Vec<&SignedCheckpoint> = heads.iter().filter(|head| head.claimed().size() > 0).collect();
    heads.sort_by_key(|head| head.claimed().size());
    heads.into()
}

const fn one(index: u64, fault: Fault) -> Altered {
    Altered {
        first: index,
        end: index.saturating_add(1),
        fault,
    }
}
