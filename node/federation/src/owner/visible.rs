//! How long it takes until a publish is at all its replicas: from the caller's publish to the confirmation of the last
//! holder that places it. Measured for the last publishes, in constant memory; a record that waits for a dead holder is
//! shown as waiting, and counts when it is confirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hie_protocol::id::{Millis, OrgId, Sequence};

use crate::machine::Federation;
use crate::table::RecordKey;

/// Most records that are measured at a time.
pub const MEASURED_RECORDS_MAX: usize = 16_384;
/// Durations remembered.
pub const MEASURES_MAX: usize = 1024;

/// The visibility of this organisation's own records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Publishes that the figures are made of: the last ones.
    pub measured: usize,
    /// Half of them were at all replicas within this, in milliseconds.
    pub p50_ms: u64,
    /// 95 of 100 were, in milliseconds.
    pub p95_ms: u64,
    /// All were, in milliseconds.
    pub most_ms: u64,
    /// Publishes that some replica has not confirmed yet, of those that are measured.
    pub open: usize,
    /// Holders with something unconfirmed, in the order of their ids.
    pub holders: Vec<Waiting>,
}

/// A holder that has not confirmed everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The holder.
    pub org: OrgId,
    /// Measured publishes that it has not confirmed.
    pub open: usize,
    /// The oldest may have waited for this long, in milliseconds; none when it is not known.
    pub waits_ms: Option<u64>,
    /// Whether this owner names it as behind.
    pub behind: bool,
}

#[derive(Debug)]
struct Open {
    sequence: Sequence,
    since: Millis,
    left: BTreeSet<OrgId>,
}

/// What is being measured.
#[derive(Debug, Default)]
pub(super) struct Measure {
    open: BTreeMap<RecordKey, Open>,
    took_ms: VecDeque<u64>,
}

impl Measure {
    pub(super) fn published(&mut self, mono: Millis, key: &RecordKey, sequence: Sequence, left: BTreeSet<OrgId>) {
        if left.is_empty() || (self.open.len() >= MEASURED_RECORDS_MAX && !self.open.contains_key(key)) {
            return;
        }
        let open = Open {
            sequence,
            since: mono,
            left,
        };
        self.open.insert(key.clone(), open);
    }

    pub(super) fn confirmed(&mut self, mono: Millis, from: &OrgId, key: &RecordKey, sequence: Sequence) {
        let Some(open) = self.open.get_mut(key).filter(|open| open.sequence <= sequence) else {
            return;
        };
        open.left.remove(from);
        if !open.left.is_empty() {
            return;
        }
        if self.took_ms.len() >= MEASURES_MAX {
            self.took_ms.pop_front();
        }
        self.took_ms.push_back(mono.since(open.since));
        self.open.remove(key);
    }
}

impl Federation {
    /// How fast own records become visible, and who has not confirmed everything.
    #[must_use]
    pub fn visibility(&self) -> Visibility {
        let measure = &self.owner.measure;
        let mut took: Vec<u64> = measure.took_ms.iter().copied().collect();
        took.sort_unstable();
        let at = |permille: usize| {
            let place = took.len().saturating_mul(permille).div_ceil(1000).saturating_sub(1);
            took.get(place).copied().unwrap_or(0)
        };
        let mut waiting: BTreeMap<&OrgId, usize> = BTreeMap::new();
        for org in measure.open.values().flat_map(|open| &open.left) {
            let count = waiting.entry(org).or_default();
            *count = count.saturating_add(1);
        }
        let lanes = self.owner.lanes.iter();
        let holders = lanes.filter_map(|(org, lane)| {
            let waits_ms = lane.waits_ms(self.mono());
            let open = waiting.get(org).copied().unwrap_or(0);
            let shown = Waiting {
                org: org.clone(),
                open,
                // A lane that waits from before the start does not know for how long.
                waits_ms: waits_ms.filter(|waits| *waits < self.uptime_ms()),
                behind: lane.naming.is_some(),
            };
            (waits_ms.is_some() || open > 0).then_some(shown)
        });
        Visibility {
            measured: took.len(),
            p50_ms: at(500),
            p95_ms: at(950),
            most_ms: at(1000),
            open: measure.open.len(),
            holders: holders.collect(),
        }
    }
}
