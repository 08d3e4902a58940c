#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::memory::{Fault, MemoryKv};
use super::{Batch, KEY_BYTES_MAX, Kv, KvError, KvRead, Scan, prefix_end};
use crate::catalogue::Table;

fn one(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Meta, key, value);
    batch
}

fn keys(kv: &dyn KvRead, scan: &Scan<'_>) -> Vec<Vec<u8>> {
    kv.scan(scan).unwrap().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn scans_stay_in_their_table_and_prefix_in_both_directions() {
    let kv = MemoryKv::new();
    let mut batch = Batch::new();
    for key in [b"a1".as_slice(), b"a2", b"a3", b"b1", b"\xff\xff"] {
        batch.put(Table::Meta, key, b"v");
        batch.put(Table::Sequences, key, b"w");
    }
    kv.commit(batch).unwrap();
    let all = Scan::of(Table::Meta, b"a");
    assert_eq!(keys(&kv, &all), [b"a1", b"a2", b"a3"]);
    assert_eq!(keys(&kv, &all.backward()), [b"a3", b"a2", b"a1"]);
    assert_eq!(keys(&kv, &all.after(b"a1")), [b"a2", b"a3"]);
    assert_eq!(keys(&kv, &all.at(b"a2").backward()), [b"a2", b"a1"]);
    assert_eq!(keys(&kv, &all.after(b"a2").backward()), [b"a1"]);
    assert_eq!(keys(&kv, &all.limit(1)), [b"a1"]);
    assert_eq!(keys(&kv, &Scan::of(Table::Meta, b"\xff")), [b"\xff\xff"]);
    assert_eq!(kv.scan(&Scan::of(Table::Meta, &[])).unwrap().len(), 5);
    assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
    assert_eq!(prefix_end(&[0xff]), None);
}

#[test]
fn a_snapshot_does_not_change() {
    let kv = MemoryKv::new();
    kv.commit(one(b"k", b"old")).unwrap();
    let snapshot = kv.snapshot().unwrap();
    kv.commit(one(b"k", b"new")).unwrap();
    assert_eq!(snapshot.get(Table::Meta, b"k").unwrap().unwrap(), b"old");
    assert_eq!(kv.get(Table::Meta, b"k").unwrap().unwrap(), b"new");
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    for fault in [Fault::DiskFull { after: 1 }, Fault::SyncFails { after: 1 }] {
        let kv = MemoryKv::new();
        kv.inject(fault);
        kv.commit(one(b"first", b"1")).unwrap();
        assert!(kv.commit(one(b"second", b"2")).unwrap_err().is_fatal());
        kv.inject(Fault::None);
        assert!(
            kv.commit(one(b"third", b"3")).unwrap_err().is_fatal(),
            "a failed store stays closed"
        );
        let survivor = kv.after_power_cut();
        assert_eq!(keys(&survivor, &Scan::of(Table::Meta, &[])), [b"first"]);
    }
}

#[test]
fn limits_refuse_before_anything_happens() {
    let kv = MemoryKv::new();
    let long = vec![0; KEY_BYTES_MAX + 1];
    let refused = kv.commit(one(&long, b"v"));
    assert_eq!(
        refused,
        Err(KvError::TooLarge {
            what: "key",
            found: KEY_BYTES_MAX + 1,
            limit: KEY_BYTES_MAX
        })
    );
    kv.commit(one(b"k", b"v")).unwrap();
}
