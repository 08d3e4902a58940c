//! A member that lies: it forges owners, re-targets and replays what it overheard, answers what nobody asked,
//! leaves out what it holds, and signs two contents with one sequence.

use hie_node_federation::placement::placement;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, OrgId, RecordHandle, Sequence};
use hie_protocol::message::{IndexMessage, StoreOutcome};
use hie_protocol::record::{IndexRecord, Label, RecordContent, RecordId, SignedRecord};
use hie_protocol::sign::Signer;

use super::climate::Lie;
use super::node::Impostor;
use super::oracle::{Operation, content};
use super::world::{Event, World};

/// What a liar has put into an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Taint {
    /// Nothing that its receiver could notice.
    #[default]
    Clean,
    /// Nothing at all: the answer to a question that another was asked.
    Guessed,
    /// A record that its owner did not sign.
    Forged,
    /// A true record of this owner under a key that was not asked.
    Foreign(OrgId, IndexKey),
}

/// How often an answer of the forging liar is tampered with, in permille.
const TAMPER_PERMILLE: u64 = 150;
/// How often a lying holder leaves a record out, in permille.
const OMIT_PERMILLE: u64 = 500;

impl World {
    pub(super) fn is_liar(&self, at: usize) -> bool {
        self.climate.liar.is_some_and(|(liar, _)| liar == at)
    }

    /// Whether a node says that it holds what it does not.
    pub(super) fn is_lying_holder(&self, at: usize) -> bool {
        self.is_liar(at) && matches!(self.climate.liar, Some((_, Lie::Omit | Lie::Stale)))
    }

    fn lies(&self, at: usize, how: Lie) -> bool {
        !self.calm && self.climate.liar == Some((at, how))
    }

    /// The liar does one of its things.
    pub(super) fn lie(&mut self) {
        let Some((liar, how)) = self.climate.liar.filter(|_| !self.calm) else {
            return;
        };
        let after = self.rng.range(500, 5000);
        self.plan(after, Event::Lie);
        if self.nodes[liar].machine.is_none() {
            return;
        }
        let key = self.keys[self.rng.index(self.keys.len())];
        match how {
            Lie::Forge => self.spread_forgeries(liar, key),
            Lie::Equivocate => self.equivocate(liar, key),
            Lie::Guess | Lie::Omit | Lie::Stale => {}
        }
    }

    fn spread_forgeries(&mut self, liar: usize, key: IndexKey) {
        let targets = placement(&key, self.registries.last().expect("a registry"));
        let id = self.rng.next();
        match self.rng.index(4) {
            0 | 1 => {
                let records = vec![self.forge(liar, key)];
                self.tell(liar, &targets, &IndexMessage::Store { id, records });
            }
            2 if !self.captured.is_empty() => {
                let message = self.captured[self.rng.index(self.captured.len())].clone();
                self.tell(liar, &targets, &message);
            }
            _ => {
                let records = vec![vec![self.forge(liar, key)]];
                let found = IndexMessage::Found {
                    id,
                    records,
                    whole: true,
                    next: None,
                };
                self.tell(liar, &targets, &found);
                let outcomes = vec![StoreOutcome::Held];
                self.tell(liar, &targets, &IndexMessage::Stored { id, outcomes });
            }
        }
    }

    /// Two contents under one sequence, each to some of the holders.
    fn equivocate(&mut self, liar: usize, key: IndexKey) {
        let targets = placement(&key, self.registries.last().expect("a registry"));
        let owner = self.nodes[liar].org.clone();
        let handle = RecordHandle::new(self.rng.bytes16());
        let sequence = self.nodes[liar].sequence();
        let expires = self.nodes[liar].clock(self.now).plus(self.climate.record_life_ms);
        for target in targets {
            let number = self.rng.next();
            let record = IndexRecord {
                owner: owner.clone(),
                key,
                handle,
                sequence,
                label: Label::open(ConsentEpoch(1)),
                expires,
                content: RecordContent::Live(Bytes(content(number))),
            };
            let id = record.id();
            self.oracle.equivocal.insert(id.clone());
            let operation = Operation::new(number, false, Vec::new(), self.now);
            self.oracle.issued(id, operation);
            let signed = record.sign(&self.nodes[liar].key).expect("a valid record");
            let message = IndexMessage::Store {
                id: self.rng.next(),
                records: vec![signed.signed().clone()],
            };
            self.tell(liar, &[target], &message);
        }
    }

    fn tell(&mut self, liar: usize, targets: &[OrgId], message: &IndexMessage) {
        for target in targets {
            let at = self.at(target).filter(|at| *at != liar);
            if let Some(at) = at {
                self.dispatch(liar, at, message.clone(), Taint::Clean);
            }
        }
    }

    /// A record of somebody else: over a real one or beside it, signed by the liar or in another's name.
    fn forge(&mut self, liar: usize, key: IndexKey) -> SignedRecord {
        let me = self.nodes[liar].org.clone();
        let real: Vec<RecordId> = self
            .oracle
            .records
            .keys()
            .filter(|id| id.key == key && id.owner != me)
            .cloned()
            .collect();
        let id = if real.is_empty() || self.rng.chance(300) {
            let victim = (liar + 1 + self.rng.index(self.nodes.len() - 1)) % self.nodes.len();
            RecordId {
                key,
                owner: self.nodes[victim].org.clone(),
                handle: RecordHandle::new(self.rng.bytes16()),
            }
        } else {
            real[self.rng.index(real.len())].clone()
        };
        let now = self.nodes[liar].clock(self.now);
        let record = IndexRecord {
            owner: id.owner.clone(),
            key: id.key,
            handle: id.handle,
            sequence: Sequence(1_000_000_000),
            label: Label::open(ConsentEpoch(9)),
            expires: now.plus(100_000),
            content: RecordContent::Live(Bytes(content(self.rng.next()))),
        };
        let key = &self.nodes[liar].key;
        let victim = self.at(&id.owner).expect("a node");
        // An unknown name would not be a forgery to a member whose registry is old: take one known to all.
        let known = self.registries[0].member(&id.owner).is_some();
        let signed = if !known || self.rng.chance(500) {
            record.sign(key)
        } else {
            record.sign(&Impostor(key, self.nodes[victim].key.node()))
        };
        signed.expect("a well-formed forgery").signed().clone()
    }

    /// What the liar makes of a message of its own machine, and whether the receiver must notice; none when it
    /// keeps the message to itself.
    pub(super) fn tamper(&mut self, from: usize, to: usize, message: IndexMessage) -> Option<(IndexMessage, Taint)> {
        if !self.is_liar(from) || self.calm {
            return Some((message, Taint::Clean));
        }
        match message {
            IndexMessage::Found {
                id,
                records,
                whole,
                next,
            } => {
                let (records, whole, tainted) = self.tamper_answer(from, to, records, whole);
                let answer = IndexMessage::Found {
                    id,
                    records,
                    whole,
                    next,
                };
                Some((answer, tainted))
            }
            IndexMessage::Stored { id, outcomes } if self.is_lying_holder(from) => {
                let outcomes = vec![StoreOutcome::Held; outcomes.len()];
                Some((IndexMessage::Stored { id, outcomes }, Taint::Clean))
            }
            message => Some((message, Taint::Clean)),
        }
    }

    fn tamper_answer(
        &mut self,
        from: usize,
        to: usize,
        mut records: Vec<Vec<SignedRecord>>,
        whole: bool,
    ) -> (Vec<Vec<SignedRecord>>, bool, Taint) {
        let keys = match &self.network.answering {
            Some((asker, _, keys)) if *asker == to => keys.clone(),
            _ => Vec::new(),
        };
        if self.lies(from, Lie::Forge) && !records.is_empty() && self.rng.chance(TAMPER_PERMILLE) {
            let key = keys.first().copied().unwrap_or(self.keys[0]);
            let added = if self.rng.chance(300) { self.foreign(key) } else { None };
            let (added, taint) = match added {
                Some((signed, owner, key)) => (signed, Taint::Foreign(owner, key)),
                None => (self.forge(from, key), Taint::Forged),
            };
            records[0].push(added);
            return (records, whole, taint);
        }
        if self.lies(from, Lie::Omit) {
            for under in &mut records {
                under.retain(|_| !self.rng.chance(OMIT_PERMILLE));
            }
            return (records, true, Taint::Clean);
        }
        if self.lies(from, Lie::Stale) {
            for (key, under) in keys.iter().zip(&mut records) {
                let first = self.stale.entry(*key).or_insert_with(|| under.clone());
                under.clone_from(first);
            }
            return (records, true, Taint::Clean);
        }
        (records, whole, Taint::Clean)
    }

    /// A real record of another key: signed by its owner, but not an answer to what was asked.
    fn foreign(&self, key: IndexKey) -> Option<(SignedRecord, OrgId, IndexKey)> {
        let mut stored = self.captured.iter().rev().filter_map(|message| match message {
            IndexMessage::Store { records, .. } => records.first(),
            _ => None,
        });
        stored.find_map(|signed| {
            let record = read(signed).filter(|record| record.key != key)?;
            let genuine = self.oracle.records.contains_key(&record.id());
            genuine.then(|| (signed.clone(), record.owner, record.key))
        })
    }

    /// The guessing liar was asked, and answers what others were asked in the same breath.
    pub(super) fn overhear(&mut self, to: usize, asker: usize, id: u64, keys: &[IndexKey]) {
        if !self.lies(to, Lie::Guess) || self.rng.chance(500) {
            return;
        }
        for guess in [id.wrapping_sub(2), id.wrapping_sub(1), id + 1, id + 2] {
            let nothing = IndexMessage::Found {
                id: guess,
                records: vec![Vec::new(); keys.len()],
                whole: true,
                next: None,
            };
            self.dispatch(to, asker, nothing, Taint::Guessed);
        }
    }
}

fn read(signed: &SignedRecord) -> Option<IndexRecord> {
    let payload = hie_protocol::sign::peek(&signed.0, 4096).ok()?;
    hie_protocol::cbor::decode(&payload, 4096).ok()
}
