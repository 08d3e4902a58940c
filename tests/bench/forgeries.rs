//! Forged, replayed and re-targeted records, claims, registries and receipts, against a control group of honest ones.
//! `forgeries [COUNT]`: about COUNT hostile things and as many honest ones; ends with 1 when one hostile thing is taken
//! or one honest thing is refused. Records go to a holder's machine as `store`, and into answers to an asker's.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measuring program"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use hie_node_core::exchange::claim::ClaimGate;
use hie_node_core::ports::Clock;
use hie_node_federation::config::Config;
use hie_node_federation::machine::Federation;
use hie_node_federation::port::{AskId, Effect, Input, Outcome};
use hie_node_federation::table::{Entry, Kept as _, Table, record_key};
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::claim::Claim;
use hie_protocol::id::{ConsentEpoch, Correlation, IndexKey, Millis, Nonce, RecordHandle, Sequence, TreeHash};
use hie_protocol::message::{IndexMessage, Receipt, StoreOutcome};
use hie_protocol::record::{IndexRecord, Label, RecordContent, SignedRecord, VerifiedRecord};
use hie_protocol::registry::{Registry, Standing};
use hie_protocol::sign::{self, DOMAIN_CLAIM, DOMAIN_RECORD, Signer};
use hie_protocol::vocabulary::{Purpose, Role};
use hie_tests::sim::disk::Disk;
use hie_tests::sim::node::{EPOCH_MS, Impostor, Node, SimKey, member, registry};
use hie_tests::sim::rng::Rng;
use tokio::sync::watch;

/// Hostile things when the command line names no number.
const COUNT: u64 = 10_000;
/// Life of records, in milliseconds.
const LIFE_MS: u64 = 3_600_000;
/// A clock that stands still.
const NOW: Millis = Millis(EPOCH_MS + 1_000_000);

struct Still;

impl Clock for Still {
    fn now(&self) -> Millis {
        NOW
    }
}

/// What became of one kind.
#[derive(Default)]
struct Row {
    hostile: bool,
    tried: u64,
    taken: u64,
}

/// A region of five: the fourth is revoked, the fifth unknown.
struct Rig {
    rng: Rng,
    nodes: Vec<Node>,
    registry: Registry,
    disk: Disk,
    holder: Federation,
    asker: Federation,
    asker_disk: Disk,
    rows: BTreeMap<&'static str, Row>,
    sequence: u64,
}

fn main() -> ExitCode {
    let count = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(COUNT);
    let start = Instant::now();
    let mut rig = Rig::new();
    let rounds = count.div_ceil(KINDS);
    for _ in 0..rounds {
        rig.records();
        rig.answers();
        rig.claims();
        rig.registries();
        rig.receipts();
    }
    rig.print(start)
}

/// Hostile things of one round.
const KINDS: u64 = 24;

impl Rig {
    fn new() -> Self {
        let nodes: Vec<Node> = (0..5).map(Node::new).collect();
        let members = nodes[..4].iter().map(|node| member(node, true)).collect();
        let mut registry = registry(members, LIFE_MS);
        registry.members[3].standing = Standing::Revoked(Millis(EPOCH_MS));
        let (disk, asker_disk) = (Disk::default(), Disk::default());
        let holder = Federation::restore(Config::new(nodes[0].org.clone(), 1), registry.clone(), &disk);
        let asker = Federation::restore(Config::new(nodes[2].org.clone(), 1), registry.clone(), &asker_disk);
        Self {
            rng: Rng::new(1),
            nodes,
            registry,
            disk,
            holder,
            asker,
            asker_disk,
            rows: BTreeMap::new(),
            sequence: 1,
        }
    }

    fn count(&mut self, kind: &'static str, hostile: bool, taken: bool) {
        let row = self.rows.entry(kind).or_default();
        row.hostile = hostile;
        row.tried += 1;
        row.taken += u64::from(taken);
    }

    /// A record of member 1 with the next sequence.
    fn record(&mut self) -> IndexRecord {
        self.sequence += 1;
        IndexRecord {
            owner: self.nodes[1].org.clone(),
            key: IndexKey::new(self.rng.bytes32()),
            handle: RecordHandle::new(self.rng.bytes16()),
            sequence: Sequence(self.sequence),
            label: Label::open(ConsentEpoch(1)),
            expires: NOW.plus(LIFE_MS),
            content: RecordContent::Live(Bytes(self.rng.bytes32().to_vec())),
        }
    }

    fn signed_by(record: &IndexRecord, signer: &dyn Signer) -> SignedRecord {
        record
            .clone()
            .sign(signer)
            .expect("a well-formed record")
            .signed()
            .clone()
    }

    /// Hands one record to the holder as member 2 would; whether its disk now has exactly these bytes.
    fn offer(&mut self, record: &IndexRecord, signed: &SignedRecord) -> bool {
        let message = IndexMessage::Store {
            id: self.rng.next(),
            records: vec![signed.clone()],
        };
        let from = self.nodes[1].org.clone();
        let mut inputs = vec![Input::Received { from, message }];
        let mut said_held = false;
        while let Some(input) = inputs.pop() {
            for effect in self.holder.step(NOW, input, &self.disk) {
                match effect {
                    Effect::Persist { id, changes } => {
                        self.disk.write(id, changes);
                        let _ = self.disk.sync();
                        inputs.push(Input::Persisted(id));
                    }
                    Effect::Send {
                        message: IndexMessage::Stored { outcomes, .. },
                        ..
                    } => said_held |= outcomes.contains(&StoreOutcome::Held),
                    _ => {}
                }
            }
        }
        let kept = self.disk.get(Table::Held, &record_key(&record.id()));
        let kept = kept.and_then(|bytes| Entry::decode(&bytes));
        let taken = kept.is_some_and(|entry| entry.signed == *signed);
        assert!(said_held || !taken, "what is kept is confirmed");
        taken
    }

    fn records(&mut self) {
        let honest = self.record();
        let signed = Self::signed_by(&honest, &self.nodes[1].key);
        let taken = self.offer(&honest, &signed);
        self.count("record: honest", false, taken);
        let mut older = honest.clone();
        older.sequence = Sequence(honest.sequence.0 - 1);
        older.content = RecordContent::Tombstone;
        let old = Self::signed_by(&older, &self.nodes[1].key);
        let taken = self.offer(&older, &old);
        self.count("record: old sequence", true, taken);
        let twin = IndexRecord {
            content: RecordContent::Tombstone,
            ..honest.clone()
        };
        let other = Self::signed_by(&twin, &self.nodes[1].key);
        let taken = self.offer(&twin, &other);
        self.count("record: same sequence, other content", true, taken);
        for (kind, signed, record) in self.forged(&honest) {
            let taken = self.offer(&record, &signed);
            self.count(kind, true, taken);
        }
    }

    /// Forgeries over one honest record.
    fn forged(&mut self, honest: &IndexRecord) -> Vec<(&'static str, SignedRecord, IndexRecord)> {
        let newer = IndexRecord {
            sequence: Sequence(u64::MAX),
            ..honest.clone()
        };
        let expired = IndexRecord {
            expires: Millis(EPOCH_MS),
            ..newer.clone()
        };
        let everlasting = IndexRecord {
            expires: Millis(u64::MAX),
            ..newer.clone()
        };
        let revoked = IndexRecord {
            owner: self.nodes[3].org.clone(),
            ..newer.clone()
        };
        let mut mutated = Self::signed_by(&newer, &self.nodes[1].key);
        let at = self.rng.index(mutated.0.len());
        mutated.0[at] ^= 1 << self.rng.index(8);
        let payload = cbor::encode(&newer).expect("a record");
        let owner = &self.nodes[1].key;
        let claimed = sign::sign(DOMAIN_CLAIM, payload, owner).expect("an envelope");
        let mut cut = Self::signed_by(&newer, owner);
        cut.0.pop();
        let swapped = {
            // The signature of one record under the content of another.
            let (left, right) = (Self::signed_by(honest, owner), Self::signed_by(&newer, owner));
            let tail = left.0.len() - 64;
            Bytes([&right.0[..right.0.len() - 64], &left.0[tail..]].concat())
        };
        let liar = &self.nodes[2].key;
        vec![
            (
                "record: another member signs",
                Self::signed_by(&newer, liar),
                newer.clone(),
            ),
            (
                "record: in the owner's name",
                Self::signed_by(&newer, &Impostor(liar, owner.node())),
                newer.clone(),
            ),
            (
                "record: a stranger signs",
                Self::signed_by(&newer, &self.nodes[4].key),
                newer.clone(),
            ),
            (
                "record: a revoked owner",
                Self::signed_by(&revoked, &self.nodes[3].key),
                revoked,
            ),
            ("record: signed as a claim", Bytes(claimed), newer.clone()),
            ("record: one bit changed", mutated, newer.clone()),
            ("record: cut", cut, newer.clone()),
            ("record: another's signature", swapped, newer),
            ("record: expired", Self::signed_by(&expired, owner), expired),
            ("record: everlasting", Self::signed_by(&everlasting, owner), everlasting),
        ]
    }

    /// Forgeries in an answer: the asker shows none of them.
    fn answers(&mut self) {
        let honest = self.record();
        let control = Self::signed_by(&honest, &self.nodes[1].key);
        let shown = self.ask(honest.key, &control);
        self.count("answer: honest", false, shown);
        let another = self.record();
        let retargeted = Self::signed_by(&another, &self.nodes[1].key);
        let shown = self.ask(honest.key, &retargeted);
        self.count("answer: a record of another key", true, shown);
        let liar = &self.nodes[0].key;
        let impostor = Self::signed_by(&honest, &Impostor(liar, self.nodes[1].key.node()));
        let shown = self.ask(honest.key, &impostor);
        self.count("answer: in the owner's name", true, shown);
        let foreign = Self::signed_by(&honest, &self.nodes[0].key);
        let shown = self.ask(honest.key, &foreign);
        self.count("answer: another member signs", true, shown);
    }

    /// Puts a question that two holders answer with `signed`; whether it is shown.
    fn ask(&mut self, key: IndexKey, signed: &SignedRecord) -> bool {
        let id = AskId(self.rng.next());
        let deadline = NOW.plus(1000);
        let mut inputs = vec![Input::Ask {
            id,
            keys: vec![key],
            deadline,
        }];
        let (mut now, mut shown) = (NOW, false);
        for _ in 0..100 {
            let Some(input) = inputs.pop() else {
                now = now.plus(100);
                inputs.push(Input::Tick);
                continue;
            };
            for effect in self.asker.step(now, input, &self.asker_disk) {
                match effect {
                    Effect::Send {
                        to,
                        message: IndexMessage::Lookup { id, .. },
                    } if to != self.nodes[3].org => inputs.push(Input::Received {
                        from: to,
                        message: IndexMessage::Found {
                            id,
                            records: vec![vec![signed.clone()]],
                            whole: true,
                            next: None,
                        },
                    }),
                    Effect::Persist { id, changes } => {
                        self.asker_disk.write(id, changes);
                        let _ = self.asker_disk.sync();
                        inputs.push(Input::Persisted(id));
                    }
                    Effect::Answer { outcome, .. } => {
                        let (Outcome::Complete { records, .. } | Outcome::Partial { records, .. }) = outcome;
                        shown |= records.iter().any(|one: &VerifiedRecord| one.signed() == signed);
                    }
                    _ => {}
                }
            }
        }
        shown
    }

    fn claim(&mut self) -> Claim {
        Claim {
            org: self.nodes[1].org.clone(),
            node: self.nodes[1].key.node(),
            user: "er.one".into(),
            user_name: "ER One".into(),
            role: Role::Physician,
            purpose: Purpose::Treatment,
            evidence: None,
            break_glass: None,
            audience: self.nodes[0].org.clone(),
            correlation: Correlation::new(self.rng.bytes16()),
            nonce: Nonce::new(self.rng.bytes16()),
            issued: NOW,
            expires: NOW.plus(30_000),
        }
    }

    fn claims(&mut self) {
        let (_publish, view) = watch::channel(Arc::new(self.registry.clone()));
        let gate = ClaimGate::new(self.nodes[0].org.clone(), view, Arc::new(Still));
        let honest = self.claim();
        let node = self.nodes[1].key.node();
        let bytes = honest.sign(&self.nodes[1].key).expect("a claim");
        self.count("claim: honest", false, gate.take(&bytes, &node).is_ok());
        self.count("claim: replayed", true, gate.take(&bytes, &node).is_ok());
        let mut offer = |kind, claim: Claim, signer: &dyn Signer, channel| {
            let taken = claim.sign(signer).is_ok_and(|bytes| gate.take(&bytes, channel).is_ok());
            let row: &mut Row = self.rows.entry(kind).or_default();
            (row.hostile, row.tried, row.taken) = (true, row.tried + 1, row.taken + u64::from(taken));
        };
        let fresh = |at: u8| Claim {
            nonce: Nonce::new([at; 16]),
            ..honest.clone()
        };
        let (owner, liar) = (&self.nodes[1].key, &self.nodes[2].key);
        let for_another = Claim {
            audience: self.nodes[2].org.clone(),
            ..fresh(1)
        };
        offer("claim: for another custodian", for_another, owner, &node);
        let others = liar.node();
        offer("claim: over another's channel", fresh(2), owner, &others);
        offer("claim: in another's name", fresh(3), &Impostor(liar, node), &node);
        let stale = Claim {
            issued: Millis(NOW.0 - 200_000),
            expires: Millis(NOW.0 - 150_000),
            ..fresh(4)
        };
        offer("claim: of the past", stale, owner, &node);
        let early = Claim {
            issued: NOW.plus(100_000),
            expires: NOW.plus(130_000),
            ..fresh(5)
        };
        offer("claim: of the future", early, owner, &node);
        let borrowed = Claim {
            org: self.nodes[2].org.clone(),
            ..fresh(6)
        };
        offer("claim: for another organisation", borrowed, owner, &node);
    }

    fn registries(&mut self) {
        let office = SimKey::new(9);
        let mut next = self.registry.clone();
        next.version = 7;
        let signed = next.sign(&office).expect("a registry");
        let honest = Registry::verify(&signed, office.public(), Some(6)).is_ok();
        self.count("registry: honest", false, honest);
        let rolled_back = Registry::verify(&signed, office.public(), Some(8)).is_ok();
        self.count("registry: an older version", true, rolled_back);
        let usurped = next
            .sign(&Impostor(&self.nodes[2].key, office.node()))
            .expect("a registry");
        let usurped = Registry::verify(&usurped, office.public(), Some(6)).is_ok();
        self.count("registry: a member signs", true, usurped);
        let mut changed = signed;
        let at = self.rng.index(changed.len());
        changed[at] ^= 1 << self.rng.index(8);
        let changed = Registry::verify(&changed, office.public(), Some(6)).is_ok();
        self.count("registry: one bit changed", true, changed);
    }

    fn receipts(&mut self) {
        let receipt = Receipt {
            log: self.nodes[1].org.clone(),
            index: self.rng.next(),
            leaf: TreeHash::new(self.rng.bytes32()),
            correlation: Correlation::new(self.rng.bytes16()),
            audience: self.nodes[0].org.clone(),
            purpose: Purpose::Treatment,
            at: NOW,
        };
        let honest = receipt.sign(&self.nodes[1].key).expect("a receipt");
        let honest = Receipt::verify(&honest, &self.registry).is_ok();
        self.count("receipt: honest", false, honest);
        let other = receipt.sign(&self.nodes[2].key).expect("a receipt");
        let other = Receipt::verify(&other, &self.registry).is_ok();
        self.count("receipt: another member signs", true, other);
        let payload = cbor::encode(&receipt).expect("a receipt");
        let record = sign::sign(DOMAIN_RECORD, payload, &self.nodes[1].key).expect("an envelope");
        let record = Receipt::verify(&record, &self.registry).is_ok();
        self.count("receipt: signed as a record", true, record);
    }

    fn print(&self, start: Instant) -> ExitCode {
        let (mut tried, mut taken, mut honest, mut refused) = (0, 0, 0, 0);
        for (kind, row) in &self.rows {
            println!("{kind:<40} {:>7} tried {:>7} taken", row.tried, row.taken);
            if row.hostile {
                (tried, taken) = (tried + row.tried, taken + row.taken);
            } else {
                (honest, refused) = (honest + row.tried, refused + row.tried - row.taken);
            }
        }
        println!("hostile       {tried} tried, {taken} taken (bound: 0)");
        println!("honest        {honest} tried, {refused} refused (bound: 0)");
        println!("took          {:.1?}", start.elapsed());
        if taken == 0 && refused == 0 && tried > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
