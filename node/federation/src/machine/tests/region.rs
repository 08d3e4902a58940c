//! A small region in memory: every datagram arrives at once unless a test cuts it off.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, Millis, NodeKey, OrgId, PublicKey, RecordHandle, Sequence, Signature};
use hie_protocol::message::IndexMessage;
use hie_protocol::record::{IndexRecord, Label, RecordContent, VerifiedRecord};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, Standing,
    TokenParameters,
};
use hie_protocol::sign::Signer;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::config::Config;
use crate::machine::Federation;
use crate::port::{AskId, Effect, Input, Outcome, PersistId, PublishId};
use crate::table::{Change, Kept, Table};

/// Life of a live record in tests, in milliseconds.
pub(super) const LIFE_MS: u64 = 1_000_000;

pub(super) struct Key(Ed25519KeyPair, u8);

impl Key {
    pub(super) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), seed)
    }
}

impl Signer for Key {
    fn node(&self) -> NodeKey {
        NodeKey::new([self.1; 32])
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_slice(self.0.sign(message).as_ref()).unwrap()
    }
}

pub(super) fn org(at: usize) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.{}", at + 1)).unwrap()
}

pub(super) fn index_key(number: u8) -> IndexKey {
    IndexKey::new([number; 32])
}

pub(super) fn member(at: usize) -> Member {
    let key = Key::new(u8::try_from(at).unwrap() + 1);
    let public = PublicKey::from_slice(key.0.public_key().as_ref()).unwrap();
    Member {
        org: org(at),
        name: format!("Organisation {at}"),
        kind: MemberKind::Clinic,
        nodes: vec![NodeEntry {
            key: key.node(),
            public,
            control: None,
            bulk: None,
            relays: Vec::new(),
        }],
        roles: vec![MemberRole::IndexHolder],
        standing: Standing::Active,
        phone: None,
        term: 0,
    }
}

pub(super) fn registry(members: &[usize], version: u64) -> Registry {
    Registry {
        region: "Test region".into(),
        version,
        issued: Millis(0),
        root: Vec::new(),
        crl: Vec::new(),
        members: members.iter().map(|at| member(*at)).collect(),
        policy: RegionPolicy {
            consent: ConsentModel::OptOut,
            break_glass: BreakGlassRules {
                allowed: true,
                minutes: 60,
                tell_withheld: false,
            },
            replicas: 3,
            write_quorum: 2,
            record_life_ms: LIFE_MS,
            tombstone_life_ms: LIFE_MS * 3,
            tokens: TokenParameters {
                profile: "test".into(),
                epoch: 1,
                threshold: 1,
                authorities: Vec::new(),
                resharing: None,
                beside: None,
            },
            officers: None,
        },
    }
}

#[derive(Default)]
pub(super) struct Memory(pub BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Kept for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&(table, key.to_vec())).cloned()
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fits = |at: Table, key: &Vec<u8>| at == table && key.starts_with(prefix) && key.as_slice() >= from;
        let found = self.0.iter().filter(|((at, key), _)| fits(*at, key));
        found
            .take(max)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

pub(super) struct Node {
    pub machine: Federation,
    pub memory: Memory,
    /// Batches whose sync a test holds back.
    pub unsynced: VecDeque<(PersistId, Vec<Change>)>,
}

/// Members by number; effects for the callers pile up in `said`.
pub(super) struct Region {
    pub now: Millis,
    pub nodes: BTreeMap<usize, Node>,
    pub down: BTreeSet<usize>,
    pub slow_disk: BTreeSet<usize>,
    pub said: Vec<(usize, Effect)>,
    pub sent: Vec<(usize, OrgId, IndexMessage)>,
    counter: u64,
}

impl Region {
    /// A region in which everybody has announced everything.
    pub(super) fn new(members: &[usize]) -> Self {
        let mut region = Self {
            now: Millis(1_000_000_000),
            nodes: BTreeMap::new(),
            down: BTreeSet::new(),
            slow_disk: BTreeSet::new(),
            said: Vec::new(),
            sent: Vec::new(),
            counter: 0,
        };
        for at in members {
            region.join(*at, registry(members, 1));
        }
        region.pass(5);
        region.forget();
        region
    }

    pub(super) fn join(&mut self, at: usize, registry: Registry) {
        let config = Config::new(org(at), 1_000_000 * (at as u64 + 1));
        let memory = Memory::default();
        let machine = Federation::restore(config, registry, &memory);
        self.nodes.insert(
            at,
            Node {
                machine,
                memory,
                unsynced: VecDeque::new(),
            },
        );
        self.input(at, Input::Tick);
    }

    pub(super) fn restart(&mut self, at: usize) {
        let node = self.nodes.get_mut(&at).unwrap();
        let config = Config::new(org(at), node.machine.config.first_question + 50_000);
        node.unsynced.clear();
        node.machine = Federation::restore(config, node.machine.registry().clone(), &node.memory);
        self.input(at, Input::Tick);
    }

    pub(super) fn forget(&mut self) {
        self.said.clear();
        self.sent.clear();
    }

    /// Feeds one node and everything that follows from it.
    pub(super) fn input(&mut self, at: usize, input: Input) {
        let mut agenda = VecDeque::from([(at, input)]);
        while let Some((at, input)) = agenda.pop_front() {
            if self.down.contains(&at) {
                continue;
            }
            let everybody: Vec<usize> = self.nodes.keys().copied().collect();
            let node = self.nodes.get_mut(&at).unwrap();
            for effect in node.machine.step(self.now, input, &node.memory) {
                match effect {
                    Effect::Persist { id, changes } => {
                        node.unsynced.push_back((id, changes));
                        if !self.slow_disk.contains(&at) {
                            agenda.extend(sync(node).map(|id| (at, Input::Persisted(id))));
                        }
                    }
                    Effect::Send { to, message } => {
                        self.sent.push((at, to.clone(), message.clone()));
                        let from = org(at);
                        let to = everybody.iter().copied().find(|other| org(*other) == to);
                        agenda.extend(to.map(|to| (to, Input::Received { from, message })));
                    }
                    Effect::WakeAt(_) => {}
                    said => self.said.push((at, said)),
                }
            }
        }
    }

    /// The held-back syncs of a node are done.
    pub(super) fn sync_all(&mut self, at: usize) {
        while let Some(id) = sync(self.nodes.get_mut(&at).unwrap()) {
            self.input(at, Input::Persisted(id));
        }
    }

    /// Seconds pass, half a second at a time.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now = self.now.plus(500);
            for at in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.input(at, Input::Tick);
            }
        }
    }

    pub(super) fn record(&mut self, owner: usize, key: u8, handle: u8, text: &[u8]) -> IndexRecord {
        self.counter += 1;
        let tombstone = text.is_empty();
        let life = if tombstone { LIFE_MS * 3 } else { LIFE_MS };
        IndexRecord {
            owner: org(owner),
            key: index_key(key),
            handle: RecordHandle::new([handle; 16]),
            sequence: Sequence(self.counter),
            label: Label::open(ConsentEpoch(1)),
            expires: self.now.plus(life),
            content: if tombstone {
                RecordContent::Tombstone
            } else {
                RecordContent::Live(Bytes(text.to_vec()))
            },
        }
    }

    pub(super) fn publish(&mut self, owner: usize, record: IndexRecord) -> PublishId {
        let id = PublishId(record.sequence.0);
        let records = vec![signed(owner, record)];
        self.input(owner, Input::Publish { id, records });
        id
    }

    pub(super) fn published(&self, id: PublishId) -> bool {
        self.said.iter().any(|(_, effect)| *effect == Effect::Published { id })
    }

    /// Asks and waits until the answer is there.
    pub(super) fn ask(&mut self, at: usize, key: u8) -> Outcome {
        self.counter += 1;
        let id = AskId(self.counter);
        let deadline = self.now.plus(3000);
        self.input(
            at,
            Input::Ask {
                id,
                keys: vec![index_key(key)],
                deadline,
            },
        );
        for _ in 0..8 {
            let answer = self.said.iter().find_map(|(_, effect)| match effect {
                Effect::Answer { id: answered, outcome } if *answered == id => Some(outcome.clone()),
                _ => None,
            });
            if let Some(outcome) = answer {
                return outcome;
            }
            self.pass(1);
        }
        panic!("no answer");
    }
}

fn sync(node: &mut Node) -> Option<PersistId> {
    let (id, changes) = node.unsynced.pop_front()?;
    for change in changes {
        match change.value {
            Some(value) => node.memory.0.insert((change.table, change.key), value),
            None => node.memory.0.remove(&(change.table, change.key)),
        };
    }
    Some(id)
}

pub(super) fn signed(by: usize, record: IndexRecord) -> VerifiedRecord {
    record.sign(&Key::new(u8::try_from(by).unwrap() + 1)).unwrap()
}

/// The texts of the records of an answer.
pub(super) fn texts(outcome: &Outcome) -> Vec<Vec<u8>> {
    let (Outcome::Complete { records, .. } | Outcome::Partial { records, .. }) = outcome;
    let text = |record: &IndexRecord| match &record.content {
        RecordContent::Live(bytes) => bytes.0.clone(),
        RecordContent::Tombstone => panic!("a tombstone was shown"),
    };
    records.iter().map(|verified| text(verified.record())).collect()
}

pub(super) const fn is_complete(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Complete { .. })
}
