//! A member that lies: it forges owners, replays what it overheard, and answers what nobody asked.

use hie_node_federation::placement::placement;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, OrgId, RecordHandle, Sequence};
use hie_protocol::message::{IndexMessage, StoreOutcome};
use hie_protocol::record::{IndexRecord, Label, RecordContent, RecordId, SignedRecord};
use hie_protocol::sign::Signer;

use super::node::Impostor;
use super::oracle::content;
use super::world::{Event, World};

/// How often an answer of the liar is tampered with, in permille.
const TAMPER_PERMILLE: u64 = 150;
/// How often an omitting liar leaves everything out of an answer, in permille.
const OMIT_PERMILLE: u64 = 700;

impl World {
    /// The liar does one of its things.
    pub(super) fn lie(&mut self) {
        let Some(liar) = self.climate.liar.filter(|_| !self.calm) else {
            return;
        };
        let after = self.rng.range(500, 5000);
        self.plan(after, Event::Lie);
        if self.nodes[liar].machine.is_none() {
            return;
        }
        let key = self.keys[self.rng.index(self.keys.len())];
        let targets = placement(&key, self.registries.last().expect("a registry"));
        match self.rng.index(4) {
            0 | 1 => {
                let message = IndexMessage::Store {
                    id: self.rng.next(),
                    records: vec![self.forge(liar, key)],
                };
                self.tell(liar, &targets, &message);
            }
            2 if !self.captured.is_empty() => {
                let message = self.captured[self.rng.index(self.captured.len())].clone();
                self.tell(liar, &targets, &message);
            }
            _ => {
                let id = self.rng.next();
                let records = vec![vec![self.forge(liar, key)]];
                self.tell(
                    liar,
                    &targets,
                    &IndexMessage::Found {
                        id,
                        records,
                        whole: true,
                        next: None,
                    },
                );
                self.tell(
                    liar,
                    &targets,
                    &IndexMessage::Stored {
                        id,
                        outcomes: vec![StoreOutcome::Held],
                    },
                );
            }
        }
    }

    fn tell(&mut self, liar: usize, targets: &[OrgId], message: &IndexMessage) {
        for target in targets {
            if *target != self.nodes[liar].org {
                self.send(liar, target, message.clone());
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

    /// Whether the liar leaves everything out of this answer.
    fn omits(&mut self, from: usize) -> bool {
        self.climate.liar == Some(from) && self.climate.omits && !self.calm && self.rng.chance(OMIT_PERMILLE)
    }

    /// The liar adds a forgery to some of its answers.
    pub(super) fn tamper(&mut self, from: usize, message: IndexMessage) -> (IndexMessage, bool) {
        let lies = self.climate.liar == Some(from) && !self.calm && self.rng.chance(TAMPER_PERMILLE);
        match message {
            IndexMessage::Found {
                id,
                records,
                whole,
                next,
            } if self.omits(from) => {
                // It says that there is nothing, which nobody can see from its answer alone.
                let records = records.into_iter().map(|_| Vec::new()).collect();
                self.counts.omitted += 1;
                (
                    IndexMessage::Found {
                        id,
                        records,
                        whole,
                        next,
                    },
                    false,
                )
            }
            IndexMessage::Found {
                id, mut records, whole, ..
            } if lies && !records.is_empty() => {
                // The place of a forgery is its own key: the asker's first.
                let under = records.first().and_then(|first| first.first().cloned());
                let key = under.and_then(|signed| key_of(&signed)).unwrap_or(self.keys[0]);
                let forged = self.forge(from, key);
                if let Some(first) = records.first_mut() {
                    first.push(forged);
                }
                (
                    IndexMessage::Found {
                        id,
                        records,
                        whole,
                        next: None,
                    },
                    true,
                )
            }
            message => (message, false),
        }
    }
}

fn key_of(signed: &SignedRecord) -> Option<IndexKey> {
    let payload = hie_protocol::sign::peek(&signed.0, 4096).ok()?;
    let record: IndexRecord = hie_protocol::cbor::decode(&payload, 4096).ok()?;
    Some(record.key)
}
