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
        assert_eq!(busy, OpenError::Busy { path: folder.path().to_owned() });
        assert!(busy.to_string().contains("is in use: another node runs on it; stop that one first"));
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
    assert_eq!(newer, OpenError::Layout { path: folder.path().to_owned(), found: 9 });
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
        batch.put(Table::Accounts, key, vault.seal(KeyScope::Node, Table::Accounts, &key, canary).unwrap());
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
