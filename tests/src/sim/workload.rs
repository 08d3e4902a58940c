//! What the callers do: publish, change, delete, renew and ask.

use hie_node_federation::config::Planted;
use hie_node_federation::owner::renewal;
use hie_node_federation::port::{AskId, Input, PublishId};
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, Millis, OrgId, RecordHandle, Sequence};
use hie_protocol::record::{IndexRecord, Label, RecordContent, RecordId};

use super::node::is_active;
use super::oracle::{Operation, content};
use super::world::{Event, World};

/// Records of one owner under one key.
const RECORDS_PER_KEY_MAX: usize = 3;
/// How often an operation or a question is about the record published last, in permille.
const FOLLOW_UP_PERMILLE: u64 = 500;
/// Records that the greedy member publishes at once.
const GREEDY_RECORDS: u64 = 8;
/// Longest time that the shell takes to sign records anew, in milliseconds.
const RENEWING_MS_MAX: u64 = 1500;
/// A clock within this is near, in milliseconds.
const CLOCK_NEAR_MS: u64 = 8000;
/// How long a question may take, in milliseconds.
const DEADLINE_MS: u64 = 3000;

impl World {
    /// Some owner publishes one to three operations at once.
    pub(super) fn publish_something(&mut self) {
        if self.calm {
            return;
        }
        let after = self.pause(self.climate.pace_ms.0);
        self.plan(after, Event::Publish);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(|at| self.may_act(*at)).collect();
        if owners.is_empty() {
            return;
        }
        let again = self.latest.as_ref().and_then(|id| self.at(&id.owner));
        let again = again.filter(|at| owners.contains(at) && self.rng.chance(FOLLOW_UP_PERMILLE));
        let at = again.unwrap_or_else(|| owners[self.rng.index(owners.len())]);
        let mut records = Vec::new();
        let mut names: Vec<(RecordId, u64)> = Vec::new();
        let greedy = self.climate.quota.is_some() && at == 0;
        let count = if greedy { GREEDY_RECORDS } else { self.rng.range(1, 3) };
        for _ in 0..count {
            let (id, delete) = self.choose(at);
            if names.iter().any(|(name, _)| *name == id) {
                continue;
            }
            let number = self.rng.next();
            let excluded = if delete { Vec::new() } else { self.excluded(at) };
            let mut operation = Operation::new(number, delete, excluded, self.now);
            operation.forsaken = greedy;
            operation.strayed = self.nodes[at].off(self.now).unsigned_abs() > CLOCK_NEAR_MS;
            records.push(
                self.record(at, &id, &operation)
                    .sign(&self.nodes[at].key)
                    .expect("a valid record"),
            );
            self.oracle.issued(id.clone(), operation);
            self.latest = Some(id.clone());
            names.push((id, number));
        }
        if records.is_empty() {
            return;
        }
        let id = PublishId(self.rng.next());
        let version = self.nodes[at].registry.as_ref().expect("a member").version;
        self.publishes.insert(id, (version, names));
        self.input(at, Input::Publish { id, records }, None);
    }

    /// A pause of this mean.
    const fn pause(&mut self, mean_ms: u64) -> u64 {
        self.rng.range(mean_ms / 10, mean_ms * 2 - mean_ms / 10)
    }

    /// Whether a node runs and both it and the region count it as a member.
    fn may_act(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.takes_part()
            && self
                .registries
                .last()
                .is_some_and(|registry| is_active(registry, &node.org))
    }

    /// A new record, or an operation on an old one.
    fn choose(&mut self, at: usize) -> (RecordId, bool) {
        let owner = self.nodes[at].org.clone();
        let again = self.latest.clone().filter(|id| id.owner == owner);
        if let Some(id) = again.filter(|_| self.rng.chance(FOLLOW_UP_PERMILLE)) {
            let delete = !self.is_deleted(&id) && self.rng.chance(350);
            return (id, delete);
        }
        let key: IndexKey = self.keys[self.rng.index(self.keys.len())];
        let first = RecordId {
            key,
            owner: owner.clone(),
            handle: RecordHandle::new([0; 16]),
        };
        let mine = self.oracle.records.range(first..).map(|(id, _)| id);
        let mine: Vec<RecordId> = mine
            .take_while(|id| id.key == key && id.owner == owner)
            .filter(|id| !self.oracle.equivocal.contains(*id))
            .cloned()
            .collect();
        let greedy = self.climate.quota.is_some() && at == 0;
        if mine.is_empty() || greedy || (mine.len() < RECORDS_PER_KEY_MAX && self.rng.chance(500)) {
            let handle = RecordHandle::new(self.rng.bytes16());
            return (RecordId { key, owner, handle }, false);
        }
        let id = mine[self.rng.index(mine.len())].clone();
        let delete = !self.is_deleted(&id) && self.rng.chance(350);
        (id, delete)
    }

    fn is_deleted(&self, id: &RecordId) -> bool {
        self.oracle.records[id].last().is_some_and(|last| last.delete)
    }

    fn excluded(&mut self, at: usize) -> Vec<OrgId> {
        let other = self.rng.index(self.nodes.len());
        if other == at || self.rng.chance(800) {
            Vec::new()
        } else {
            vec![self.nodes[other].org.clone()]
        }
    }

    fn record(&mut self, at: usize, id: &RecordId, operation: &Operation) -> IndexRecord {
        let now = self.nodes[at].clock(self.now);
        let policy = &self.nodes[at].registry.as_ref().expect("a member").policy;
        let life = if operation.delete {
            policy.tombstone_life_ms
        } else {
            policy.record_life_ms
        };
        let content = if operation.delete {
            RecordContent::Tombstone
        } else {
            RecordContent::Live(Bytes(content(operation.number)))
        };
        let label = Label {
            excluded: operation.excluded.clone(),
            ..Label::open(ConsentEpoch(1))
        };
        IndexRecord {
            owner: id.owner.clone(),
            key: id.key,
            handle: id.handle,
            sequence: self.version(at, now),
            label,
            expires: now.plus(life),
            content,
        }
    }

    /// The next version: from the durable counter, or, when that bug is planted, from the clock.
    fn version(&mut self, at: usize, now: Millis) -> Sequence {
        let counted = self.nodes[at].sequence();
        if self.planted == Some(Planted::WallClockVersions) {
            Sequence(now.0)
        } else {
            counted
        }
    }

    /// The shell signs records anew.
    pub(super) fn renew(&mut self, at: usize, records: Vec<IndexRecord>) {
        let now = self.nodes[at].clock(self.now);
        let policy = self.nodes[at].registry.as_ref().expect("a member").policy.clone();
        let mut renewed = Vec::new();
        for record in records {
            let sequence = self.version(at, now);
            let next = renewal(&record, sequence, now, &policy);
            self.oracle.renewed(&record, self.now);
            renewed.push((record.sequence, next.sign(&self.nodes[at].key).expect("a valid record")));
        }
        // Signing takes its time, and the world goes on.
        let life = self.nodes[at].life;
        let after = self.rng.range(1, RENEWING_MS_MAX);
        let records = renewed;
        self.plan(
            after,
            Event::Renewed {
                node: at,
                life,
                records,
            },
        );
    }

    /// Somebody asks for one to three keys.
    pub(super) fn ask_something(&mut self) {
        if self.calm {
            return;
        }
        let after = self.pause(self.climate.pace_ms.1);
        self.plan(after, Event::Ask);
        let askers: Vec<usize> = (0..self.nodes.len()).filter(|at| self.may_act(*at)).collect();
        if askers.is_empty() {
            return;
        }
        let at = askers[self.rng.index(askers.len())];
        let latest = self.latest.as_ref().map(|id| id.key);
        let latest = latest.filter(|_| self.rng.chance(FOLLOW_UP_PERMILLE));
        let mut keys: Vec<IndexKey> = latest.into_iter().collect();
        for _ in 0..self.rng.range(1, 3) {
            let key = self.keys[self.rng.index(self.keys.len())];
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        self.put_question(at, keys, false);
    }

    /// After the faults, each member asks for everything and must get it.
    pub(super) fn final_ask(&mut self, at: usize) {
        for keys in self.keys.clone().chunks(4) {
            self.put_question(at, keys.to_vec(), true);
        }
    }

    fn put_question(&mut self, at: usize, keys: Vec<IndexKey>, must_complete: bool) {
        let id = AskId(self.rng.next());
        let node = &self.nodes[at];
        let deadline = node.clock(self.now).plus(DEADLINE_MS);
        let registry = node.registry.clone().expect("a member");
        let (me, end) = (node.org.clone(), self.now + DEADLINE_MS);
        self.oracle
            .asked(id, at, me, self.step, registry, keys.clone(), end, must_complete);
        self.counts.asked += 1;
        self.input(at, Input::Ask { id, keys, deadline }, Some(id));
    }
}
