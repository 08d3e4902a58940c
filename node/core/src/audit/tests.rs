#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::thread;

use hie_protocol::checkpoint::SignedCheckpoint;
use hie_protocol::checkpoint::note::{KeyKind, NoteKey};
use hie_protocol::id::{Correlation, DocumentId, Millis, NodeKey, OrgId, PublicKey, Signature};
use hie_protocol::merkle::verify::verify_consistency;
use hie_protocol::merkle::{Frontier, leaf_hash};
use hie_protocol::sign::Signer;
use hie_protocol::vocabulary::{Purpose, Role};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::AuditError;
use super::event::{Actor, AuditEvent, EventKind, Outcome, PatientRef};
use super::log::{AuditLog, LogIdentity, is_fatal};
use super::search::AuditFilter;
use super::verify::{Altered, Fault, VerifyReport, verify};
use crate::catalogue::Table;
use crate::kv::memory::{Fault as KvFault, MemoryKv};
use crate::kv::{Batch, KvRead, Scan};
use crate::ports::SeededRandom;
use crate::vault::{Kek, KeyScope, Vault};

struct Key(Ed25519KeyPair);

impl Signer for Key {
    fn node(&self) -> NodeKey {
        NodeKey::new([1; 32])
    }
    fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_slice(self.0.sign(message).as_ref()).unwrap()
    }
}

struct World {
    kv: Arc<MemoryKv>,
    vault: Arc<Vault>,
    identity: LogIdentity,
}

fn key(seed: u8) -> Key {
    Key(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
}

fn public(seed: u8) -> PublicKey {
    PublicKey::from_slice(key(seed).0.public_key().as_ref()).unwrap()
}

fn org() -> OrgId {
    OrgId::parse("urn:oid:2.999.1").unwrap()
}

fn world_on(kv: Arc<MemoryKv>) -> World {
    let random = Arc::new(SeededRandom::new(5));
    let kek = Kek::generate(&*random).unwrap();
    let vault = Arc::new(Vault::open(&kek, kv.clone(), random).unwrap());
    World {
        kv,
        vault,
        identity: LogIdentity {
            org: org(),
            keys: vec![public(1)],
        },
    }
}

fn world() -> World {
    world_on(Arc::new(MemoryKv::new()))
}

impl World {
    fn open(&self) -> Result<AuditLog, AuditError> {
        AuditLog::open(&self.identity, Arc::new(key(1)), self.kv.clone(), self.vault.clone())
    }

    fn verify(&self, heads: &[SignedCheckpoint]) -> VerifyReport {
        verify(&*self.kv, &self.vault, &self.identity, heads).unwrap()
    }
}

fn event(number: u64) -> AuditEvent {
    let actor = Actor {
        org: org(),
        node: None,
        user: format!("user{}", number % 3),
        user_name: "Dr. Anna Meyer".to_owned(),
        role: Role::Physician,
    };
    let mut event = AuditEvent::new(
        EventKind::RecordOpened,
        Millis(1000 + number),
        Correlation::new([7; 16]),
        actor,
    );
    event.patient = Some(PatientRef([(number % 5) as u8; 16]));
    event.purpose = Some(Purpose::Treatment);
    event.documents = vec![DocumentId::new([number as u8; 16])];
    event
}

fn filled(count: u64) -> World {
    let world = world();
    let log = world.open().unwrap();
    for number in 0..count {
        drop(log.append_one(event(number)).unwrap());
        if number % 4 == 3 {
            assert!(log.checkpoint().unwrap().is_some());
        }
    }
    world
}

#[test]
fn a_receipt_names_its_entry_and_covers_its_documents() {
    let world = world();
    let log = world.open().unwrap();
    let mut extra = Batch::new();
    extra.put(Table::Meta, *b"mine", *b"value");
    let receipts = log.append(vec![event(0), event(1)], extra).unwrap();
    assert_eq!(
        receipts.iter().map(|receipt| receipt.index()).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(
        receipts[1].leaf().as_bytes(),
        &leaf_hash(&event(1).canonical().unwrap())
    );
    assert!(receipts[1].covers(&DocumentId::new([1; 16])) && !receipts[1].covers(&DocumentId::new([2; 16])));
    assert_eq!(world.kv.get(Table::Meta, b"mine").unwrap().unwrap(), b"value");
    let mut denied = event(3);
    denied.outcome = Outcome::Denied;
    assert!(!log.append_one(denied).unwrap().covers(&DocumentId::new([3; 16])));
    let signed = receipts[0].sign(&org(), Purpose::Treatment, &key(1)).unwrap();
    let verified = hie_protocol::sign::verify("hie audit receipt v1", &signed, 2048, |_| Some(public(1))).unwrap();
    let wire: hie_protocol::message::Receipt = hie_protocol::cbor::decode(&verified.payload, 2048).unwrap();
    assert_eq!((wire.index, wire.log, wire.at), (0, org(), Millis(1000)));
}

#[test]
fn no_receipt_without_a_sync_and_nothing_acknowledged_is_lost() {
    for fault in [KvFault::SyncFails { after: 2 }, KvFault::DiskFull { after: 2 }] {
        let world = world();
        let log = world.open().unwrap();
        world.kv.inject(fault);
        drop(log.append_one(event(0)).unwrap());
        drop(log.append_one(event(1)).unwrap());
        for _ in 0..2 {
            let error = log.append_one(event(2)).unwrap_err();
            assert!(is_fatal(&error), "{error}");
        }
        assert_eq!(log.size(), 2);
        let after = world_on(Arc::new(world.kv.after_power_cut()));
        assert_eq!(after.open().unwrap().size(), 2);
        assert!(after.verify(&[]).is_whole());
    }
}

#[test]
fn many_threads_share_syncs_and_every_entry_is_there_once() {
    let world = world();
    let log = Arc::new(world.open().unwrap());
    let before = world.kv.commits();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                (0..50)
                    .map(|number| log.append_one(event(thread * 50 + number)).unwrap().index())
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut indices: Vec<u64> = Vec::new();
    for thread in threads {
        let own = thread.join().unwrap();
        assert!(own.is_sorted(), "one caller's entries keep their order");
        indices.extend(own);
    }
    indices.sort_unstable();
    assert_eq!(indices, (0..400).collect::<Vec<_>>());
    assert!(world.kv.commits() - before <= 400);
    assert!(world.verify(&[]).is_whole());
    let reopened = world.open().unwrap();
    assert_eq!(reopened.head(), log.head());
}

#[test]
fn a_checkpoint_is_made_when_there_is_something_new_and_heads_are_consistent() {
    let world = world();
    let log = world.open().unwrap();
    assert_eq!(log.checkpoint().unwrap(), None);
    drop(log.append((0..5).map(event).collect(), Batch::new()).unwrap());
    let first = log.checkpoint().unwrap().unwrap();
    assert_eq!(log.checkpoint().unwrap(), None);
    drop(log.append((5..12).map(event).collect(), Batch::new()).unwrap());
    let second = world.open().unwrap().checkpoint().unwrap().unwrap();
    let note = NoteKey::new(&world.identity.origin(), KeyKind::Log, *public(1).as_bytes()).unwrap();
    assert!(second.verify(&world.identity.origin(), &note, &[]).is_ok());
    let proof = log.consistency(5, 12).unwrap();
    verify_consistency(5, 12, first.claimed().root(), second.claimed().root(), &proof).unwrap();
    let report = world.verify(&[first, second]);
    assert_eq!(
        (report.is_whole(), report.size, report.checkpoints, report.heads),
        (true, 12, 2, 2)
    );
}

/// Every stored byte of the log, one bit at a time.
#[test]
fn every_altered_bit_of_leaves_nodes_and_checkpoints_is_found() {
    let mut tried = 0_u32;
    for table in [Table::AuditLeaves, Table::AuditNodes, Table::AuditCheckpoints] {
        let pristine = filled(9);
        for (key, value) in pristine.kv.scan(&Scan::of(table, &[])).unwrap() {
            for bit in (0..value.len() * 8).step_by(if table == Table::AuditNodes { 37 } else { 101 }) {
                let world = world_on(Arc::new(pristine.kv.after_power_cut()));
                world
                    .kv
                    .tamper(table, &key, |value| value.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8));
                let report = world.verify(&[]);
                let altered = report.altered.expect("found");
                if table == Table::AuditLeaves {
                    let index = u64::from_be_bytes(key.as_slice().try_into().unwrap());
                    assert_eq!(
                        altered,
                        Altered {
                            first: index,
                            end: index + 1,
                            fault: Fault::Entry
                        }
                    );
                    assert_eq!(world.open().err(), Some(AuditError::Altered { index }));
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn a_missing_added_or_swapped_entry_is_found() {
    for missing in [0_u64, 3, 8] {
        let world = filled(9);
        world
            .kv
            .tamper(Table::AuditLeaves, &missing.to_be_bytes(), |value| *value = None);
        let altered = world.verify(&[]).altered.unwrap();
        // The last entry stands behind the last checkpoint: its own node betrays its absence.
        assert_eq!(altered.first, missing);
        assert!(world.open().is_err());
    }
    let world = filled(9);
    let (two, five) = {
        let get = |index: u64| world.kv.get(Table::AuditLeaves, &index.to_be_bytes()).unwrap();
        (get(2), get(5))
    };
    world
        .kv
        .tamper(Table::AuditLeaves, &2_u64.to_be_bytes(), |value| *value = five);
    world
        .kv
        .tamper(Table::AuditLeaves, &5_u64.to_be_bytes(), |value| *value = two);
    assert_eq!(world.verify(&[]).altered.unwrap().first, 2);
    let world = filled(9);
    let foreign = world.kv.get(Table::AuditLeaves, &4_u64.to_be_bytes()).unwrap();
    world
        .kv
        .tamper(Table::AuditLeaves, &9_u64.to_be_bytes(), |value| *value = foreign);
    assert_eq!(world.verify(&[]).altered.unwrap().first, 9);
}

/// Somebody with every key but the node's signing key rewrites an entry and all nodes above it.
fn rewrite(world: &World, index: u64, entries: u64) {
    let mut tree = Frontier::new();
    for at in 0..entries {
        let number = if at == index { 77 } else { at };
        let canonical = event(number).canonical().unwrap();
        let sealed = world
            .vault
            .seal(KeyScope::Node, Table::AuditLeaves, &at.to_be_bytes(), &canonical)
            .unwrap();
        world
            .kv
            .tamper(Table::AuditLeaves, &at.to_be_bytes(), |value| *value = Some(sealed));
        for node in tree.append(leaf_hash(&canonical)).unwrap() {
            let key = [[node.level].as_slice(), &node.index.to_be_bytes()].concat();
            world
                .kv
                .tamper(Table::AuditNodes, &key, |value| *value = Some(node.hash.to_vec()));
        }
    }
}

#[test]
fn an_entry_rewritten_with_all_its_nodes_is_found_between_two_checkpoints() {
    let world = filled(9);
    rewrite(&world, 5, 9);
    let report = world.verify(&[]);
    let found = report.altered.unwrap();
    assert!(found.first <= 5 && 5 < found.end, "{report}");
    assert!(matches!(world.open().err(), Some(AuditError::Altered { index: 4 })));
}

#[test]
fn a_cut_log_is_found_by_its_checkpoint_and_a_cut_with_its_checkpoints_by_a_head_kept_elsewhere() {
    let world = filled(8);
    let kept = world.open().unwrap().latest_checkpoint().unwrap().unwrap();
    for index in 4..8_u64 {
        world
            .kv
            .tamper(Table::AuditLeaves, &index.to_be_bytes(), |value| *value = None);
    }
    assert_eq!(world.open().err(), Some(AuditError::Truncated { size: 4, expected: 8 }));
    assert_eq!(world.verify(&[]).altered.unwrap().fault, Fault::Cut);
    world
        .kv
        .tamper(Table::AuditCheckpoints, &8_u64.to_be_bytes(), |value| *value = None);
    assert_eq!(
        world.verify(&[]).altered.unwrap().first,
        4,
        "its leaf nodes are still there"
    );
    for (key, _) in world.kv.scan(&Scan::of(Table::AuditNodes, &[0])).unwrap().split_off(4) {
        world.kv.tamper(Table::AuditNodes, &key, |value| *value = None);
    }
    assert!(world.verify(&[]).is_whole(), "a rolled-back log agrees with itself");
    let altered = world.verify(&[kept]).altered.unwrap();
    assert_eq!(
        altered,
        Altered {
            first: 4,
            end: 8,
            fault: Fault::OtherHead
        }
    );
}

#[test]
fn a_checkpoint_of_another_key_or_an_entry_taken_from_an_index_is_found() {
    let world = filled(8);
    let stranger = World {
        identity: LogIdentity {
            org: org(),
            keys: vec![public(2)],
        },
        ..world
    };
    assert_eq!(stranger.open().err(), Some(AuditError::CheckpointForged { size: 8 }));
    let rotated = World {
        identity: LogIdentity {
            org: org(),
            keys: vec![public(2), public(1)],
        },
        ..stranger
    };
    assert!(rotated.open().is_ok(), "an earlier key of the node still counts");
    let (key, _) = rotated
        .kv
        .scan(&Scan::of(Table::AuditByPatient, &[]))
        .unwrap()
        .remove(0);
    rotated.kv.tamper(Table::AuditByPatient, &key, |value| *value = None);
    assert_eq!(rotated.verify(&[]).altered.unwrap().fault, Fault::Index);
}

#[test]
fn a_search_gives_proved_pages_newest_first() {
    let world = filled(30);
    let log = world.open().unwrap();
    let patient = PatientRef([2; 16]);
    let mut filter = AuditFilter {
        patient: Some(patient),
        limit: 4,
        ..AuditFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = log.search(&filter).unwrap();
        assert!(page.whole && page.entries.iter().all(|entry| entry.event.patient == Some(patient)));
        seen.extend(page.entries.iter().map(|entry| entry.index));
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [27, 22, 17, 12, 7, 2]);
    let user = AuditFilter {
        user: Some((org(), "user1".to_owned())),
        limit: 100,
        ..AuditFilter::default()
    };
    assert_eq!(log.search(&user).unwrap().entries.len(), 10);
    let period = AuditFilter {
        period: (Some(Millis(1010)), Some(Millis(1012))),
        limit: 100,
        ..AuditFilter::default()
    };
    assert_eq!(log.search(&period).unwrap().entries.len(), 2);
    let emergency = AuditFilter {
        emergency_only: true,
        limit: 100,
        ..AuditFilter::default()
    };
    assert!(log.search(&emergency).unwrap().entries.is_empty());
    world.kv.tamper(
        Table::AuditNodes,
        &[[0].as_slice(), &26_u64.to_be_bytes()].concat(),
        |value| {
            value.as_mut().unwrap()[0] ^= 1;
        },
    );
    let all = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    assert!(!log.search(&all).unwrap().whole, "a page that cannot be proved says so");
}

#[test]
fn canonical_bytes_are_stable_and_limits_hold() {
    let bytes = event(1).canonical().unwrap();
    assert_eq!(AuditEvent::from_canonical(&bytes).unwrap().canonical().unwrap(), bytes);
    let mut long = event(1);
    long.detail = Some("x".repeat(401));
    assert!(long.canonical().is_err());
    assert!(!format!("{:?}", event(1)).contains("Meyer"));
}
