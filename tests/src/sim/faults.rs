//! What goes wrong: crashes, power cuts, partitions, clocks, disks.

use std::collections::BTreeMap;

use hie_node_federation::placement::placement;
use hie_node_federation::port::Input;
use hie_node_federation::table::{Entry, Kept, Table, record_key};
use hie_protocol::id::OrgId;
use hie_protocol::record::{IndexRecord, RecordId};
use hie_protocol::registry::MemberRole;

use super::climate::Clocks;
use super::node::is_active;
use super::oracle::{Law, Oracle, number_in};
use super::world::{Event, World};

/// Ten minutes, in milliseconds.
const MINUTES_OFF_MS: i64 = 600_000;
/// A year, in milliseconds.
const YEAR_OFF_MS: i64 = 365 * 86_400_000;
/// Time between two inspections, in milliseconds.
const INSPECT_EVERY_MS: u64 = 10_000;
/// How long after its expiry a record may lie on a disk, in milliseconds.
const PURGE_MARGIN_MS: u64 = 60_000;
/// Sequences that a shell leaves out after its store was set back: more than it can have used since.
pub(super) const LEAP: u64 = 1 << 32;

impl World {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        match self.rng.index(20) {
            0..=6 => {
                let at = self.rng.index(self.nodes.len());
                self.crash(at);
            }
            7..=8 => {
                // A power cut takes several at the same instant.
                for at in 0..self.nodes.len() {
                    if self.rng.chance(600) {
                        self.crash(at);
                    }
                }
            }
            9..=12 => self.divide(false),
            13..=14 => self.divide(true),
            15 if self.climate.wipes => self.lose_disk(true),
            16 if self.climate.backups => self.lose_disk(false),
            _ => self.step_clock(),
        }
        let next = self.rng.range(1000, self.climate.fault_every_ms * 2);
        self.plan(next, Event::Fault);
    }

    fn step_clock(&mut self) {
        let at = self.rng.index(self.nodes.len());
        self.counts.clock_steps += 1;
        let near = self.rng.range(0, 14_000) as i64 - 7000;
        let far = match self.climate.clocks {
            Clocks::Near | Clocks::Drift => 0,
            Clocks::Minutes => MINUTES_OFF_MS,
            Clocks::Year => YEAR_OFF_MS,
        };
        // One at a time is far off: a region whose clocks are all wrong has no time.
        let alone = self.nodes.iter().all(|node| node.clock_off.abs() < MINUTES_OFF_MS / 2);
        if far > 0 && alone && self.rng.chance(400) {
            let sign = if self.rng.chance(500) { 1 } else { -1 };
            self.nodes[at].clock_off = sign * far;
            let after = self.rng.range(500, 60_000);
            self.plan(after, Event::ClockRight { node: at });
        } else {
            self.nodes[at].clock_off = near + self.climate.shift_ms * at as i64;
        }
        self.input(at, Input::Tick, None);
    }

    pub(super) fn clock_right(&mut self, at: usize) {
        self.nodes[at].clock_off = 0;
        self.input(at, Input::Tick, None);
    }

    pub(super) fn crash(&mut self, at: usize) {
        if self.nodes[at].machine.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.nodes[at].disk.cut();
        self.nodes[at].disk_free = self.now;
        self.forget_links(at);
        self.oracle.crashed(at);
        let down = self.rng.range(200, 20_000);
        self.plan(down, Event::Restart { node: at });
        if self.climate.backups && self.rng.chance(300) {
            self.nodes[at].disk.back_up();
        }
    }

    /// A disk is lost, or an old backup takes its place. One at a time, with time to heal in between.
    fn lose_disk(&mut self, wipe: bool) {
        let lately = |lost: Option<u64>| lost.is_some_and(|at| at + self.climate.record_life_ms > self.now);
        if self.nodes.iter().any(|node| lately(node.lost_disk)) {
            return;
        }
        let at = self.rng.index(self.nodes.len());
        if self.nodes[at].machine.is_none() || self.is_liar(at) {
            return;
        }
        self.crash(at);
        if wipe {
            self.nodes[at].disk.wipe();
        } else if !self.nodes[at].disk.restore() {
            return;
        }
        self.nodes[at].counter += LEAP;
        self.nodes[at].lost_disk = Some(self.now);
        self.counts.disks_lost += 1;
        // What it owned and had not yet backed up is gone with its documents.
        let org = self.nodes[at].org.clone();
        self.oracle.forsaken(&org);
    }

    pub(super) fn end_faults(&mut self) {
        self.calm = true;
        self.heal_all();
        for at in 0..self.nodes.len() {
            if self.nodes[at].clock_off.abs() >= MINUTES_OFF_MS / 2 {
                self.clock_right(at);
            }
            if self.nodes[at].machine.is_none() && self.nodes[at].registry.is_some() {
                self.start(at);
            }
        }
    }

    /// At the moment of an acknowledgement: a write quorum of holders must have synced what is acknowledged, of
    /// those that its owner knew at some time since it was issued.
    pub(super) fn judge_copies(&mut self, at: usize, since: u64, records: &[(RecordId, u64)]) {
        let known = self.nodes[at].registry.as_ref().map_or(0, |registry| registry.version);
        let mut found = Vec::new();
        for (id, number) in records {
            let mut known = self
                .registries
                .iter()
                .filter(|one| (since..=known).contains(&one.version));
            let enough = known.any(|registry| {
                let held = placement(&id.key, registry);
                let held = held.iter().filter(|org| self.has_synced(org, id, *number)).count();
                held >= registry
                    .policy
                    .write_quorum_of(registry.with_role(MemberRole::IndexHolder).count())
            });
            if !enough && !self.oracle.may_vanish(id, self.now) {
                found.push(format!("{id:?}: acknowledged without enough copies"));
            }
        }
        for what in found {
            self.oracle.violated(Law::Thin, self.now, what);
        }
    }

    fn has_synced(&self, org: &OrgId, id: &RecordId, number: u64) -> bool {
        let Some(holder) = self.at(org) else { return false };
        // A liar may say anything, and what a lost disk had is not seen any more.
        let unknown = self.is_liar(holder) || self.nodes[holder].lost_disk.is_some();
        unknown || self.oracle.is_version(id, number, self.on_disk(holder, id).as_ref())
    }

    /// Disks and queues stay within their bounds.
    pub(super) fn inspect(&mut self) {
        self.plan(INSPECT_EVERY_MS, Event::Inspect);
        let life = self.climate.record_life_ms;
        let mut found = Vec::new();
        for node in self.nodes.iter().filter(|node| node.machine.is_some()) {
            let mut owners: BTreeMap<String, u64> = BTreeMap::new();
            for (key, value) in node.disk.table(Table::Held) {
                *owners.entry(hex_owner(key)).or_default() += 1;
                let record = Entry::decode(value).and_then(|entry| entry.record());
                let signed = record.as_ref().and_then(|record| self.oracle.signed_ms(record));
                let ends = signed.map(|(at, tombstone)| at + if tombstone { 2 * life } else { life });
                let awake = node.lost_disk.is_none() && node.up_since + PURGE_MARGIN_MS < self.now;
                if awake && ends.is_some_and(|ends| ends + PURGE_MARGIN_MS < self.now) && self.clocks_are_near() {
                    found.push(format!("{} still holds what expired long ago", node.org));
                    break;
                }
            }
            let most = self.climate.quota.unwrap_or(u64::MAX);
            if owners.values().any(|count| *count > most) {
                found.push(format!("{} holds more of an owner than its quota", node.org));
            }
        }
        for what in found {
            self.oracle.violated(Law::Bounded, self.now, what);
        }
        self.oracle.overdue(self.now);
    }

    fn clocks_are_near(&self) -> bool {
        matches!(self.climate.clocks, Clocks::Near | Clocks::Drift)
    }

    /// The faults are over and time has passed: everything must be everywhere.
    pub(super) fn judge(&mut self) {
        let registry = self.registries.last().expect("a registry").clone();
        let mut oracle = std::mem::replace(&mut self.oracle, Oracle::new(0, 0));
        oracle.overdue(self.now);
        oracle.converged(self.now, |id| {
            let holders = placement(&id.key, &registry).into_iter();
            holders
                .filter(|org| !self.at(org).is_some_and(|at| self.is_lying_holder(at)))
                .map(|org| (org.clone(), self.at(&org).and_then(|at| self.on_disk(at, id))))
                .collect()
        });
        self.oracle = oracle;
        for node in 0..self.nodes.len() {
            if is_active(&registry, &self.nodes[node].org) {
                self.plan(10 + node as u64, Event::FinalAsk { node });
            }
        }
    }

    pub(super) fn on_disk(&self, at: usize, id: &RecordId) -> Option<IndexRecord> {
        let bytes = self.nodes[at].disk.get(Table::Held, &record_key(id))?;
        Entry::decode(&bytes)?.record()
    }
}

/// The owner at the end of a record key.
fn hex_owner(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(48..).unwrap_or_default()).into_owned()
}

impl Oracle {
    /// Whether a copy is this operation's version or a later one, by the true order.
    pub(super) fn is_version(&self, id: &RecordId, number: u64, copy: Option<&IndexRecord>) -> bool {
        let operations = self.records.get(id).map(Vec::as_slice).unwrap_or_default();
        let Some(at) = operations.iter().position(|one| one.number == number) else {
            return false;
        };
        copy.is_some_and(|record| match number_in(record) {
            Some(number) => operations[at..].iter().any(|one| one.number == number),
            None => record.is_tombstone() && operations[at..].iter().any(|one| one.delete),
        })
    }
}
