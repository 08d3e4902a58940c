//! What members did against the rules, counted by member and kind. A count is all that is kept: who, what, how often,
//! when last. The node shows it and writes it to its audit log, at most once a minute for each member and kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hie_protocol::id::{Millis, OrgId};

/// Shortest time between two reports of one kind of one member.
pub const REPORT_MS_MIN: u64 = 60_000;

/// A kind of offence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// A frame that is not of this protocol.
    Malformed,
    /// A frame over its limit, refused by its announced length.
    Oversize,
    /// A frame that did not come, or an answer that was not taken, in time.
    Slow,
    /// Over its budget of requests, bytes or time.
    Budget,
    /// Too many connections.
    Connections,
    /// No common version, or a message that its version does not have.
    Version,
    /// A claim that does not hold: replayed, expired, for somebody else, not its own.
    Claim,
    /// Something that its alleged signer did not sign.
    Forged,
    /// An answer to a question that was never asked, or that does not fit it.
    Unasked,
    /// A registry that is not the region's, or an older one.
    Registry,
    /// A ticket that it was not given.
    Ticket,
}

impl Offence {
    /// The closed word for logs and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversize => "oversize",
            Self::Slow => "slow",
            Self::Budget => "over-budget",
            Self::Connections => "connections",
            Self::Version => "version",
            Self::Claim => "claim",
            Self::Forged => "forged",
            Self::Unasked => "unasked",
            Self::Registry => "registry",
            Self::Ticket => "ticket",
        }
    }
}

/// How often a member did something, and when last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Who.
    pub org: OrgId,
    /// What.
    pub offence: Offence,
    /// How often: since the start in [`Ledger::counts`], since the last report in [`Ledger::due`].
    pub times: u64,
    /// When last.
    pub last: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    times: u64,
    last: Millis,
    told: u64,
    told_at: Option<Millis>,
}

/// Counts of all members. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<(OrgId, Offence), Entry>>>);

impl Ledger {
    /// Counts one offence.
    pub fn count(&self, org: &OrgId, offence: Offence, at: Millis) {
        let mut entries = self.lock();
        let entry = entries.entry((org.clone(), offence)).or_insert(Entry {
            times: 0,
            last: at,
            told: 0,
            told_at: None,
        });
        entry.times = entry.times.saturating_add(1);
        entry.last = at;
    }

    /// Everything since the start, in the order of members and kinds.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let entries = self.lock();
        let counts = entries.iter().map(|((org, offence), entry)| Count {
            org: org.clone(),
            offence: *offence,
            times: entry.times,
            last: entry.last,
        });
        counts.collect()
    }

    /// What is to be reported now, each kind of each member at most once a minute; it counts as reported.
    #[must_use]
    pub fn due(&self, now: Millis) -> Vec<Count> {
        let mut due = Vec::new();
        for ((org, offence), entry) in self.lock().iter_mut() {
            let rested = entry.told_at.is_none_or(|told| now.since(told) >= REPORT_MS_MIN);
            if entry.times > entry.told && rested {
                due.push(Count {
                    org: org.clone(),
                    offence: *offence,
                    times: entry.times.saturating_sub(entry.told),
                    last: entry.last,
                });
                entry.told = entry.times;
                entry.told_at = Some(now);
            }
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(OrgId, Offence), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::id::{Millis, OrgId};

    use super::{Count, Ledger, Offence, REPORT_MS_MIN};

    #[test]
    fn spec_p_counted_an_offence_is_counted_and_reported_once_a_minute() {
        let (ledger, org) = (Ledger::default(), OrgId::parse("urn:oid:2.999.1").unwrap());
        let count = |times, last| Count {
            org: org.clone(),
            offence: Offence::Claim,
            times,
            last: Millis(last),
        };
        ledger.count(&org, Offence::Claim, Millis(1));
        ledger.count(&org, Offence::Claim, Millis(2));
        assert_eq!(ledger.due(Millis(3)), [count(2, 2)]);
        ledger.count(&org, Offence::Claim, Millis(4));
        assert_eq!(ledger.due(Millis(5)), []);
        assert_eq!(ledger.due(Millis(3 + REPORT_MS_MIN)), [count(1, 4)]);
        assert_eq!(ledger.due(Millis(3 + 2 * REPORT_MS_MIN)), []);
        ledger.count(&org, Offence::Slow, Millis(9));
        assert_eq!(ledger.counts().len(), 2);
        assert_eq!(
            ledger.counts().first(),
            Some(&Count {
                offence: Offence::Slow,
                times: 1,
                ..count(1, 9)
            })
        );
    }
}
