//! Change of membership: which answers count while the holders of keys move.
//!
//! A node remembers the holder sets of earlier registries for one record life. Three rules keep every
//! acknowledged publish visible across a change, without a coordinator:
//!
//! 1. An owner acknowledges when a write quorum of **every** remembered set has the record (SPEC F-JOINT);
//!    a holder that has left a key for good votes by saying `Misplaced`.
//! 2. A holder new to a key does not answer whole for it until every active member has announced that all
//!    its records of this registry version are placed, or one record life has passed (SPEC F-SETTLED).
//!    A gap in the versions seen, or a member that returns, makes every key new (SPEC F-RETURN).
//! 3. An owner announces a version with a `Store` that carries no records and whose id is that registry
//!    version, once the holder has confirmed everything placed at it (SPEC F-ANNOUNCE).

use std::collections::BTreeMap;

use hie_protocol::cbor;
use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::config::{CLOCK_SKEW_MS_MAX, EARLIER_SETS_MAX};
use crate::placement::HolderSet;
use crate::table::{Kept, Ledger, Table};

const SETS_KEY: &[u8] = b"sets";
const HEARD_PREFIX: &[u8] = b"heard/";
const MEMBERSHIP_BYTES_MAX: usize = 1024 * 1024;
const HEARD_MAX: usize = 10_000;

/// What this node knows about the current and the earlier holder sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sets {
    /// Oldest first; the last is in force.
    pub sets: Vec<HolderSet>,
    /// Under this version this node held everything placed at it.
    pub settled: Option<u64>,
    /// Own records are in the outbox, or confirmed, for every holder of this version.
    pub placed: Option<HolderSet>,
}

/// Holder sets and announcements of one node.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub(crate) known: Sets,
    /// Last version that each member announced.
    heard: BTreeMap<OrgId, u64>,
}

impl Membership {
    /// Reads what was kept.
    pub(crate) fn restore(kept: &dyn Kept) -> Self {
        let known = kept
            .get(Table::Membership, SETS_KEY)
            .and_then(|bytes| cbor::decode(&bytes, MEMBERSHIP_BYTES_MAX).ok())
            .unwrap_or_default();
        let mut heard = BTreeMap::new();
        for (key, value) in kept.scan(Table::Membership, HEARD_PREFIX, &[], HEARD_MAX) {
            let org = key
                .strip_prefix(HEARD_PREFIX)
                .and_then(|text| core::str::from_utf8(text).ok());
            let version: Option<[u8; 8]> = value.try_into().ok();
            if let (Some(Ok(org)), Some(version)) = (org.map(OrgId::parse), version) {
                heard.insert(org, u64::from_be_bytes(version));
            }
        }
        Self { known, heard }
    }

    /// The set in force.
    pub(crate) fn current(&self) -> Option<&HolderSet> {
        self.known.sets.last()
    }

    /// Version in force.
    pub(crate) fn version(&self) -> u64 {
        self.current().map_or(0, |set| set.version)
    }

    /// Takes a registry that is newer than the one in force. Returns whether keys may have moved.
    ///
    /// `returned`: a member takes part again that did not in the version before. What it published earlier
    /// was not placed while it was out, so a holder that settled without it starts anew.
    pub(crate) fn take(&mut self, registry: &Registry, returned: bool, now: Millis, ledger: &mut Ledger) -> bool {
        let set = HolderSet::of(registry, now);
        let gap = self
            .current()
            .is_some_and(|last| set.version != last.version.saturating_add(1));
        let skipped = gap || (returned && self.current().is_some());
        if skipped {
            // INVARIANT: what lay where under a version never seen, or was published by a member that was
            // out, is unknown, so nothing is settled.
            self.known.settled = None;
        }
        let previous = self.current().cloned();
        let moved = match self.known.sets.last_mut() {
            Some(last) if !skipped && last.places_like(&set) => {
                if self.known.settled == Some(last.version) {
                    self.known.settled = Some(set.version);
                }
                last.version = set.version;
                false
            }
            _ => {
                self.known.sets.push(set);
                true
            }
        };
        // INVARIANT: `placed` speaks of the set before this one, or of none; anything older proves nothing.
        let proven = |placed: &HolderSet| previous.as_ref().is_some_and(|last| placed.places_like(last));
        if skipped || (moved && !self.known.placed.as_ref().is_some_and(proven)) {
            self.known.placed = None;
        }
        let surplus = self.known.sets.len().saturating_sub(EARLIER_SETS_MAX.saturating_add(1));
        self.known.sets.drain(..surplus);
        self.save(ledger);
        moved
    }

    /// A member has announced a version.
    pub(crate) fn hear(&mut self, from: &OrgId, version: u64, ledger: &mut Ledger) {
        if self.heard.get(from).is_some_and(|heard| *heard >= version) {
            return;
        }
        self.heard.insert(from.clone(), version);
        let key = [HEARD_PREFIX, from.as_str().as_bytes()].concat();
        ledger.write(Table::Membership, key, Some(version.to_be_bytes().to_vec()));
    }

    /// Notes that own records are placed under the set in force.
    pub(crate) fn set_placed(&mut self, set: HolderSet, ledger: &mut Ledger) {
        if self.known.placed.as_ref() != Some(&set) {
            self.known.placed = Some(set);
            self.save(ledger);
        }
    }

    /// Settles and forgets what time and announcements allow.
    pub(crate) fn review(&mut self, registry: &Registry, now: Millis, ledger: &mut Ledger) {
        let before = self.known.clone();
        let life = registry
            .policy
            .record_life_ms
            .saturating_add(CLOCK_SKEW_MS_MAX.saturating_mul(2));
        let version = self.version();
        let all_heard = registry
            .active()
            .all(|member| self.heard.get(&member.org) == Some(&version));
        let aged = self
            .known
            .sets
            .iter()
            .rev()
            .find(|set| now.since(set.taken) >= life)
            .map(|set| set.version);
        self.known.settled = self.known.settled.max(aged);
        if all_heard {
            self.known.settled = Some(version);
        }
        while let [_, next, ..] = self.known.sets.as_slice() {
            if now.since(next.taken) < life {
                break;
            }
            self.known.sets.remove(0);
        }
        if self.known != before {
            self.save(ledger);
        }
    }

    /// Whether this node, a holder of `key` now, holds everything acknowledged under it.
    pub(crate) fn whole(&self, key: &IndexKey, me: &OrgId) -> bool {
        let Some(settled) = self.known.settled else {
            return false;
        };
        if settled >= self.version() {
            return true;
        }
        let since = || self.known.sets.iter().filter(|set| set.version >= settled);
        since().any(|set| set.version == settled) && since().all(|set| set.places_at(key, me))
    }

    fn save(&self, ledger: &mut Ledger) {
        let bytes = cbor::encode(&self.known).ok();
        ledger.write(Table::Membership, SETS_KEY.to_vec(), bytes);
    }
}
