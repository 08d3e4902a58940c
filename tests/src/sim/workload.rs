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
/// How long a question may take, in milliseconds.
const DEADLINE_MS: u64 = 3000;

impl World {
    /// Some owner publishes one to three operations at once.
    pub(super) fn publish_something(&mut self) {
        if self.calm {
            return;
        }
        let after = self.rng.range(100, 1900);
        self.plan(after, Event::Publish);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(|at| self.may_act(*at)).collect();
        if owners.is_empty() {
            return;
        }
        let at = owners[self.rng.index(owners.len())];
        let mut records = Vec::new();
        let mut names: Vec<(RecordId, u64)> = Vec::new();
        for _ in 0..self.rng.range(1, 3) {
            let (id, delete) = self.choose(at);
            if names.iter().any(|(name, _)| *name == id) {
                continue;
            }
            let number = self.rng.next();
            let operation = Operation {
                number,
                delete,
                excluded: if delete { Vec::new() } else { self.excluded(at) },
                issued_ms: self.now,
                acked: None,
            };
            records.push(
                self.record(at, &id, &operation)
                    .sign(&self.nodes[at].key)
                    .expect("a valid record"),
            );
            self.oracle.issued(id.clone(), operation);
            names.push((id, number));
        }
        let id = PublishId(self.rng.next());
        self.publishes.insert(id, names);
        self.input(at, Input::Publish { id, records }, None);
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
        let key: IndexKey = self.keys[self.rng.index(self.keys.len())];
        let mine: Vec<RecordId> = self
            .oracle
            .records
            .keys()
            .filter(|id| id.owner == owner && id.key == key)
            .cloned()
            .collect();
        if mine.is_empty() || (mine.len() < RECORDS_PER_KEY_MAX && self.rng.chance(500)) {
            return (
                RecordId {
                    key,
                    owner,
                    handle: RecordHandle::new(self.rng.bytes16()),
                },
                false,
            );
        }
        let id = mine[self.rng.index(mine.len())].clone();
        let deleted = self.oracle.records[&id].last().is_some_and(|last| last.delete);
        let delete = !deleted && self.rng.chance(350);
        (id, delete)
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
            renewed.push((record.sequence, next.sign(&self.nodes[at].key).expect("a valid record")));
        }
        self.input(at, Input::Renewed { records: renewed }, None);
    }

    /// Somebody asks for one to three keys.
    pub(super) fn ask_something(&mut self) {
        if self.calm {
            return;
        }
        let after = self.rng.range(100, 2900);
        self.plan(after, Event::Ask);
        let askers: Vec<usize> = (0..self.nodes.len()).filter(|at| self.may_act(*at)).collect();
        if askers.is_empty() {
            return;
        }
        let at = askers[self.rng.index(askers.len())];
        let mut keys: Vec<IndexKey> = Vec::new();
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
        self.input(at, Input::Ask { id, keys, deadline }, Some(id));
    }
}
