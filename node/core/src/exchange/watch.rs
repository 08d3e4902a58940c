//! What somebody must look at about the match tokens: authorities that lied, members that ask too much.
//!
//! The audit log has each case for good; the watch keeps the newest ones at hand for `hie status` and the console.
//! It holds organisations and words without personal data.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hie_protocol::id::{Millis, OrgId};

/// Notices kept.
pub const NOTICES_MAX: usize = 64;
/// How long after an authority failed others are asked before it, in milliseconds.
pub const FAILED_MS: u64 = 30_000;
/// Least time between two audit entries about the same authority, in milliseconds; the count goes on.
pub const REPORT_MS: u64 = 60_000;

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When.
    pub at: Millis,
    /// Who.
    pub org: OrgId,
    /// What, in words.
    pub words: String,
}

/// What an authority's own answers prove against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misbehaved {
    /// How often since the node started.
    pub times: u64,
    /// When first.
    pub first: Millis,
    /// When last.
    pub last: Millis,
    /// What was wrong last.
    pub why: String,
}

#[derive(Default)]
struct State {
    misbehaved: BTreeMap<OrgId, Misbehaved>,
    reported: BTreeMap<OrgId, Millis>,
    failed: BTreeMap<OrgId, Millis>,
    alarms: VecDeque<Notice>,
    alarms_total: u64,
}

/// The watch of one node.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Watch")
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer that proves its sender wrong; true when it is to be reported to the audit log now.
    pub fn misbehaved(&self, org: &OrgId, why: &str, now: Millis) -> bool {
        let mut state = self.state();
        let entry = state.misbehaved.entry(org.clone()).or_insert_with(|| Misbehaved {
            times: 0,
            first: now,
            last: now,
            why: String::new(),
        });
        entry.times = entry.times.saturating_add(1);
        entry.last = now;
        why.clone_into(&mut entry.why);
        state.failed.insert(org.clone(), now);
        let due = state.reported.get(org).is_none_or(|last| now.since(*last) >= REPORT_MS);
        if due {
            state.reported.insert(org.clone(), now);
        }
        due
    }

    /// Remembers that an authority did not answer.
    pub fn failed(&self, org: &OrgId, now: Millis) {
        self.state().failed.insert(org.clone(), now);
    }

    /// Forgets that an authority did not answer.
    pub fn answered(&self, org: &OrgId) {
        self.state().failed.remove(org);
    }

    /// Whether an authority failed a short while ago.
    #[must_use]
    pub fn is_failing(&self, org: &OrgId, now: Millis) -> bool {
        self.state()
            .failed
            .get(org)
            .is_some_and(|at| now.since(*at) < FAILED_MS)
    }

    /// Adds an alarm about a member.
    pub fn alarm(&self, notice: Notice) {
        let mut state = self.state();
        state.alarms_total = state.alarms_total.saturating_add(1);
        if state.alarms.len() >= NOTICES_MAX {
            state.alarms.pop_front();
        }
        state.alarms.push_back(notice);
    }

    /// Organisations whose answers prove them wrong.
    #[must_use]
    pub fn liars(&self) -> BTreeMap<OrgId, Misbehaved> {
        self.state().misbehaved.clone()
    }

    /// The newest alarms, oldest first, and how many there were in all.
    #[must_use]
    pub fn alarms(&self) -> (Vec<Notice>, u64) {
        let state = self.state();
        (state.alarms.iter().cloned().collect(), state.alarms_total)
    }
}
