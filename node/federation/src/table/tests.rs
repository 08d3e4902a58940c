#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use hie_protocol::bytes::Bytes;
use hie_protocol::id::{Millis, Sequence};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::{prop_assert_eq, proptest};

use super::{After, Entry, Kept, Ledger, Table, timed, untimed};
use crate::port::{Effect, Misbehaviour, PersistId};

#[derive(Default)]
struct Memory(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Memory {
    fn take(&mut self, effect: Option<Effect>) -> Option<PersistId> {
        let Some(Effect::Persist { id, changes }) = effect else {
            return None;
        };
        for change in changes {
            match change.value {
                Some(value) => self.0.insert((change.table, change.key), value),
                None => self.0.remove(&(change.table, change.key)),
            };
        }
        Some(id)
    }
}

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

#[test]
fn an_entry_reads_back() {
    let entry = Entry {
        sequence: Sequence(7),
        expires: Millis(9),
        tombstone: true,
        signed: Bytes(vec![1, 2, 3]),
    };
    assert_eq!(Entry::decode(&entry.encode()), Some(entry.clone()));
    for cut in 0..18 {
        assert_eq!(Entry::decode(&entry.encode()[..cut]), None);
    }
    let mut other = entry.encode();
    other[0] = 2;
    assert_eq!(Entry::decode(&other), None, "a later version is not guessed at");
}

#[test]
fn times_sort_as_bytes() {
    assert!(timed(Millis(255), b"z") < timed(Millis(256), b"a"));
    assert_eq!(untimed(&timed(Millis(256), b"a")), Some((Millis(256), b"a".as_slice())));
    assert_eq!(untimed(b"short"), None);
}

#[test]
fn what_waits_for_a_sync_waits_for_the_latest_one() {
    let mut ledger = Ledger::default();
    let after = || {
        After::Emit(Box::new(Effect::Misbehaved {
            org: org(),
            what: Misbehaviour::Forged,
        }))
    };
    assert!(ledger.defer(after()).is_some(), "nothing is on its way");
    ledger.write(Table::Own, vec![1], Some(vec![1]));
    assert!(ledger.defer(after()).is_none());
    assert!(ledger.close().is_some());
    assert!(ledger.defer(after()).is_none(), "the first batch is not durable yet");
    ledger.write(Table::Own, vec![2], Some(vec![2]));
    assert!(ledger.defer(after()).is_none());
    assert!(ledger.close().is_some());
    assert_eq!(ledger.persisted(PersistId(0)).len(), 2);
    assert_eq!(ledger.persisted(PersistId(1)).len(), 1);
    assert_eq!(ledger.waiting(), 0);
}

fn org() -> hie_protocol::id::OrgId {
    hie_protocol::id::OrgId::parse("urn:oid:2.999.1").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Reading through the ledger is reading a plain map, whatever is synced and whatever is not.
    #[test]
    fn the_ledger_reads_like_a_map(
        writes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>()), 0..4_u8), 0..40),
        from in any::<u8>(), max in 1..10_usize,
    ) {
        let (mut ledger, mut memory, mut plain) = (Ledger::default(), Memory::default(), BTreeMap::new());
        let mut unsynced: Vec<Effect> = Vec::new();
        for (key, value, then) in writes {
            let key = vec![key % 16, key / 16];
            match value {
                Some(value) => plain.insert(key.clone(), vec![value]),
                None => plain.remove(&key),
            };
            ledger.write(Table::Held, key, value.map(|value| vec![value]));
            // Some batches stay unsynced for a while; syncs are confirmed in order.
            if then > 0 {
                unsynced.extend(ledger.close());
            }
            if then > 2 {
                let last = unsynced.drain(..).filter_map(|effect| memory.take(Some(effect))).last();
                if let Some(id) = last {
                    ledger.persisted(id);
                }
            }
            let start = vec![from % 16, from / 16];
            let expected: Vec<_> = plain.range(start.clone()..).take(max).map(|(a, b)| (a.clone(), b.clone())).collect();
            prop_assert_eq!(ledger.scan(&memory, Table::Held, &[], &start, max), expected);
            let under: Vec<_> = plain.iter().filter(|(a, _)| a[0] == 3).map(|(a, b)| (a.clone(), b.clone())).collect();
            prop_assert_eq!(ledger.scan(&memory, Table::Held, &[3], &[], 99), under);
        }
    }
}
