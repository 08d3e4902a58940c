//! One holder's replica tables at size: N locators of other owners (10 million by default) taken in through the real
//! machine and the real store, then looked up.
//!
//!     cargo run --release -p hie-tests --example holder -- [RECORDS [LOOKUPS]]
//!
//! Every record is signed by its owner and verified by the holder, as from the wire; signing runs on a thread of its own.
//! Prints the sustained rate, the latency of lookups, and bytes on disk for each record. Ends with 1 when the 99th
//! percentile of a lookup is 5 ms or more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measuring program"
)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use hie_node_core::kv::Kv;
use hie_node_core::locator::kept::KvKept;
use hie_node_federation::config::Config;
use hie_node_federation::machine::Federation;
use hie_node_federation::port::{Effect, Input};
use hie_node_store::rocks::RocksStore;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, Millis, OrgId, RecordHandle, Sequence};
use hie_protocol::message::{IndexMessage, STORE_RECORDS_MAX};
use hie_protocol::record::{IndexRecord, Label, RecordContent, SignedRecord};
use hie_tests::sim::node::{EPOCH_MS, Node, member, registry};
use sha2::{Digest, Sha256};

/// Locators of one patient lie under one key.
const LOCATORS_PER_KEY: u64 = 8;
/// Sealed bytes of a typical locator: nonce, padded content, tag.
const SEALED_BYTES: usize = 12 + 256 + 16;
/// Batches handed to the machine between two syncs.
const BATCHES_PER_SYNC: usize = 8;
/// The 99th percentile of a lookup must stay below this, in milliseconds.
const LOOKUP_P99_MS: f64 = 5.0;
const LIFE_MS: u64 = 14 * 86_400_000;

fn key_of(number: u64) -> IndexKey {
    let patient = number / LOCATORS_PER_KEY;
    IndexKey::new(Sha256::digest(patient.to_be_bytes()).into())
}

fn locator(owner: &Node, number: u64) -> SignedRecord {
    let mut handle = [0; 16];
    handle.copy_from_slice(&Sha256::digest(number.to_le_bytes())[..16]);
    let mut sealed = Vec::with_capacity(SEALED_BYTES);
    for block in 0_u64.. {
        if sealed.len() >= SEALED_BYTES {
            break;
        }
        sealed.extend_from_slice(&Sha256::digest([number.to_be_bytes(), block.to_be_bytes()].concat()));
    }
    sealed.truncate(SEALED_BYTES);
    let record = IndexRecord {
        owner: owner.org.clone(),
        key: key_of(number),
        handle: RecordHandle::new(handle),
        sequence: Sequence(number + 1),
        label: Label::open(ConsentEpoch(1)),
        expires: Millis(EPOCH_MS + LIFE_MS - number % 1_000_000),
        content: RecordContent::Live(Bytes(sealed)),
    };
    record.sign(&owner.key).expect("a valid record").signed().clone()
}

struct Holder {
    machine: Federation,
    kept: KvKept,
    owner: OrgId,
    started: Instant,
}

impl Holder {
    /// One input; what is written is synced when `sync` is set.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = Millis(EPOCH_MS + self.started.elapsed().as_millis() as u64);
        self.machine.step(now, input, &self.kept)
    }

    /// Takes batches in as the driver does: one sync for all of them.
    fn take(&mut self, batches: Vec<Vec<SignedRecord>>, id: u64) -> usize {
        let (mut unsynced, mut persist) = (Vec::new(), None);
        for (at, records) in batches.into_iter().enumerate() {
            let message = IndexMessage::Store {
                id: id + at as u64,
                records,
            };
            let from = self.owner.clone();
            for effect in self.step(Input::Received { from, message }) {
                if let Effect::Persist { id, changes } = effect {
                    unsynced.extend(changes);
                    persist = Some(id);
                }
            }
        }
        let mut stored = 0;
        if let Some(id) = persist {
            self.kept.commit(unsynced).expect("a sync");
            for effect in self.step(Input::Persisted(id)) {
                if let Effect::Send {
                    message: IndexMessage::Stored { outcomes, .. },
                    ..
                } = effect
                {
                    stored += outcomes.len();
                }
            }
        }
        stored
    }

    /// One lookup as from the wire; how many records it found, and its milliseconds.
    fn look_up(&mut self, key: IndexKey) -> (usize, f64) {
        let message = IndexMessage::Lookup {
            id: 1,
            keys: vec![key],
            after: None,
        };
        let (from, began) = (self.owner.clone(), Instant::now());
        let effects = self.step(Input::Received { from, message });
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let found = effects.into_iter().find_map(|effect| match effect {
            Effect::Send {
                message: IndexMessage::Found { records, .. },
                ..
            } => Some(records.iter().map(Vec::len).sum()),
            _ => None,
        });
        (found.unwrap_or(0), took)
    }
}

fn bytes_under(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("a folder");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let facts = entry.metadata().expect("its facts");
        if facts.is_dir() {
            bytes_under(&entry.path())
        } else {
            facts.len()
        }
    });
    sizes.sum()
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let records = numbers.first().copied().unwrap_or(10_000_000);
    let lookups = numbers.get(1).copied().unwrap_or(20_000);
    let folder = tempfile::tempdir().expect("a folder");
    let (holder, owner) = (Node::new(0), Node::new(1));
    let registry = registry(vec![member(&holder, true), member(&owner, false)], LIFE_MS);
    let kv: Arc<dyn Kv> = Arc::new(RocksStore::open(folder.path()).expect("a store"));
    let kept = KvKept::new(Arc::clone(&kv));
    let mut config = Config::new(holder.org.clone(), 1);
    config.held_records_per_owner_max = records + 1;
    let machine = Federation::restore(config, registry, &kept);
    let mut holder = Holder {
        machine,
        kept,
        owner: owner.org.clone(),
        started: Instant::now(),
    };
    let _ = holder.step(Input::Tick);
    let (sender, signed) = sync_channel::<Vec<SignedRecord>>(64);
    let signing = std::thread::spawn(move || {
        let mut batch = Vec::with_capacity(STORE_RECORDS_MAX);
        for number in 0..records {
            batch.push(locator(&owner, number));
            if batch.len() == STORE_RECORDS_MAX || number + 1 == records {
                sender.send(std::mem::take(&mut batch)).expect("a receiver");
            }
        }
    });
    let began = Instant::now();
    let (mut stored, mut id, mut shown) = (0_usize, 0_u64, Instant::now());
    let mut busy = 0.0;
    while let Ok(first) = signed.recv() {
        let mut batches = vec![first];
        batches.extend(signed.try_iter().take(BATCHES_PER_SYNC - 1));
        let took = Instant::now();
        id += batches.len() as u64;
        stored += holder.take(batches, id);
        busy += took.elapsed().as_secs_f64();
        if shown.elapsed().as_secs() >= 20 {
            shown = Instant::now();
            eprintln!(
                "{stored} of {records}, {:.0} records/s",
                stored as f64 / began.elapsed().as_secs_f64()
            );
        }
    }
    signing.join().expect("the signer");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(stored as u64, records, "every record is confirmed");
    println!(
        "{records} locators under {} keys taken in: {:.0} records/s sustained, of which the holder alone {:.0} records/s",
        records.div_ceil(LOCATORS_PER_KEY),
        records as f64 / took,
        records as f64 / busy,
    );
    let bytes = bytes_under(folder.path());
    println!("{:.0} bytes on disk for each record", bytes as f64 / records as f64);
    let (mut times, mut found) = (Vec::new(), 0);
    for at in 0..lookups {
        let spread = u64::from_be_bytes(Sha256::digest(at.to_be_bytes())[..8].try_into().expect("eight bytes"));
        let (count, took) = holder.look_up(key_of(spread % records));
        found += count;
        times.push(took);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{lookups} lookups, {found} records found: p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms, most {:.3} ms",
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
    );
    if at(0.99) < LOOKUP_P99_MS {
        ExitCode::SUCCESS
    } else {
        println!("the 99th percentile is not below {LOOKUP_P99_MS} ms");
        ExitCode::FAILURE
    }
}
