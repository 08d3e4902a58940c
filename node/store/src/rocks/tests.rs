#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use hie_node_core::catalogue::Table;
use hie_node_core::kv::{Batch, Kv, KvError, KvRead, Scan};
use hie_node_core::ports::SeededRandom;
use hie_node_core::vault::{Kek, KeyScope, Vault};

use super::{OpenError, RocksStore};

fn one(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Sequences, key, value);
    batch
}

fn keys(kv: &dyn KvRead, scan: &Scan<'_>) -> Vec<Vec<u8>> {
    kv.scan(scan).unwrap().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn scans_agree_with_the_in_memory_twin() {
    let folder = tempfile::tempdir().unwrap();
    let rocks = RocksStore::open(folder.path()).unwrap();
    let twin = hie_node_core::kv::memory::MemoryKv::new();
    let mut batch = Batch::new();
    for key in [b"".as_slice(), b"a", b"a1", b"a2", b"a3", b"b1", b"\xff", b"\xff\xff"] {
        for table in [Table::Registry, Table::Sequences, Table::Patients] {
            batch.put(table, key, key);
        }
    }
    batch.delete(Table::Sequences, *b"a2");
    rocks.commit(batch.clone()).unwrap();
    twin.commit(batch).unwrap();
    let bounds: [&[u8]; 9] = [b"", b"a", b"a1", b"a2", b"a9", b"b", b"zz", b"\xff", b"\xff\xff\xff"];
    for prefix in [b"".as_slice(), b"a", b"b", b"c", b"\xff"] {
        for bound in bounds {
            for limit in [1, 2, 100] {
                let base = Scan::of(Table::Sequences, prefix).limit(limit);
                for scan in [base, base.at(bound), base.after(bound)] {
                    for scan in [scan, scan.backward()] {
                        assert_eq!(rocks.scan(&scan).unwrap(), twin.scan(&scan).unwrap(), "{scan:?}");
                    }
                }
            }
        }
    }
    let snapshot = rocks.snapshot().unwrap();
    rocks.commit(one(b"later", b"v")).unwrap();
    assert_eq!(snapshot.get(Table::Sequences, b"later").unwrap(), None);
    assert_eq!(keys(&*snapshot, &Scan::of(Table::Sequences, b"b")), [b"b1"]);
}

#[test]
fn what_was_acknowledged_is_there_after_reopening_and_one_process_holds_the_store() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = RocksStore::open(folder.path()).unwrap();
        for number in 0..100_u32 {
            store.commit(one(&number.to_be_bytes(), b"v")).unwrap();
        }
        let busy = RocksStore::open(folder.path()).err().unwrap();
        assert_eq!(
            busy,
            OpenError::Busy {
                path: folder.path().to_owned()
            }
        );
        assert!(
            busy.to_string()
                .contains("is in use: another node runs on it; stop that one first")
        );
        let reader = RocksStore::open_read_only(folder.path()).unwrap();
        assert!(matches!(reader.commit(one(b"k", b"v")), Err(KvError::Fatal { .. })));
    }
    let store = RocksStore::open_existing(folder.path()).unwrap();
    assert_eq!(store.scan(&Scan::of(Table::Sequences, &[])).unwrap().len(), 100);
    let backup = folder.path().join("backup");
    store.backup(&backup).unwrap();
    let copy = RocksStore::open_existing(&backup).unwrap();
    assert_eq!(copy.scan(&Scan::of(Table::Sequences, &[])).unwrap().len(), 100);
}

#[test]
fn a_copy_of_the_files_taken_while_the_store_is_open_holds_every_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let store = RocksStore::open(folder.path()).unwrap();
    for number in 0..50_u32 {
        store.commit(one(&number.to_be_bytes(), b"v")).unwrap();
    }
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
    }
    let survivor = RocksStore::open_existing(crashed.path()).unwrap();
    assert_eq!(survivor.scan(&Scan::of(Table::Sequences, &[])).unwrap().len(), 50);
}

#[test]
fn a_missing_newer_or_damaged_store_is_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let missing = RocksStore::open_existing(folder.path()).err().unwrap();
    assert!(missing.to_string().contains("check the data directory"));
    {
        let store = RocksStore::open(folder.path()).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"layout", [9]);
        store.commit(batch).unwrap();
    }
    let newer = RocksStore::open(folder.path()).err().unwrap();
    assert_eq!(
        newer,
        OpenError::Layout {
            path: folder.path().to_owned(),
            found: 9
        }
    );
    let damaged = tempfile::tempdir().unwrap();
    drop(RocksStore::open(damaged.path()).unwrap());
    std::fs::write(damaged.path().join("CURRENT"), b"MANIFEST-999999\n").unwrap();
    assert!(RocksStore::open(damaged.path()).is_err());
}

#[test]
fn nothing_readable_reaches_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let random = Arc::new(SeededRandom::new(8));
    let kek = Kek::generate(&*random).unwrap();
    let canary = b"Canary-Family-Name-4711";
    {
        let store = Arc::new(RocksStore::open(folder.path()).unwrap());
        let vault = Vault::open(&kek, store.clone(), random.clone()).unwrap();
        let key = vault.blind_key("test", canary);
        let mut batch = Batch::new();
        batch.put(
            Table::Accounts,
            key,
            vault.seal(KeyScope::Node, Table::Accounts, &key, canary).unwrap(),
        );
        store.commit(batch).unwrap();
        store.scrub(Table::Accounts).unwrap();
    }
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary));
    }
    let other = Kek::generate(&SeededRandom::new(99)).unwrap();
    let store = Arc::new(RocksStore::open(folder.path()).unwrap());
    let refused = Vault::open(&other, store, random).err().unwrap();
    assert!(refused.to_string().contains("does not open this data directory"));
}

/// A log on a real disk: append from many threads, reopen, and find an alteration.
#[test]
fn the_audit_log_survives_reopening_and_many_threads_share_its_syncs() {
    use hie_node_core::audit::event::{Actor, AuditEvent, EventKind};
    use hie_node_core::audit::log::{AuditLog, LogIdentity};
    use hie_node_core::audit::{AuditError, verify::verify};
    use hie_protocol::id::{Correlation, Millis, NodeKey, OrgId, PublicKey, Signature};
    use ring::signature::{Ed25519KeyPair, KeyPair};

    struct Key(Ed25519KeyPair);
    impl hie_protocol::sign::Signer for Key {
        fn node(&self) -> NodeKey {
            NodeKey::new([1; 32])
        }
        fn sign(&self, message: &[u8]) -> Signature {
            Signature::from_slice(self.0.sign(message).as_ref()).unwrap()
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let org = OrgId::parse("urn:oid:2.999.1").unwrap();
    let key = || Arc::new(Key(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()));
    let public = PublicKey::from_slice(key().0.public_key().as_ref()).unwrap();
    let identity = LogIdentity {
        org: org.clone(),
        keys: vec![public],
    };
    let kek = Kek::generate(&SeededRandom::new(8)).unwrap();
    let open = || {
        let store = Arc::new(RocksStore::open(folder.path()).unwrap());
        let vault = Arc::new(Vault::open(&kek, store.clone(), Arc::new(SeededRandom::new(9))).unwrap());
        let log = AuditLog::open(&identity, key(), store.clone(), vault.clone());
        (store, vault, log)
    };
    let threads = 16_u64;
    let each = 25_u64;
    {
        let (_, _, log) = open();
        let log = Arc::new(log.unwrap());
        let start = std::time::Instant::now();
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (log, org) = (Arc::clone(&log), org.clone());
                std::thread::spawn(move || {
                    for _ in 0..each {
                        let actor = Actor::system(org.clone(), "test");
                        let event = AuditEvent::new(EventKind::Started, Millis(1), Correlation::new([0; 16]), actor);
                        drop(log.append_one(event).unwrap());
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        println!(
            "{} appends in {:?} from {threads} threads",
            threads * each,
            start.elapsed()
        );
        assert!(log.checkpoint().unwrap().is_some());
    }
    {
        let (store, vault, log) = open();
        assert_eq!(log.unwrap().size(), threads * each);
        let snapshot = store.snapshot().unwrap();
        let report = verify(&*snapshot, &vault, &identity, &[]).unwrap();
        assert!(
            report.is_whole() && report.checkpoint_size == threads * each,
            "{report}"
        );
        let leaf = store.get(Table::AuditLeaves, &7_u64.to_be_bytes()).unwrap().unwrap();
        let mut batch = Batch::new();
        batch.put(Table::AuditLeaves, 8_u64.to_be_bytes(), leaf);
        store.commit(batch).unwrap();
    }
    let (_, _, log) = open();
    assert_eq!(log.err(), Some(AuditError::Altered { index: 8 }));
}
