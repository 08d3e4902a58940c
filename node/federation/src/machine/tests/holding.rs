use hie_protocol::bytes::Bytes;
use hie_protocol::id::{IndexKey, Millis};
use hie_protocol::message::{IndexMessage, StoreOutcome};
use hie_protocol::record::{IndexRecord, SignedRecord};

use super::region::{LIFE_MS, Region, index_key, org, registry, signed};
use crate::placement::placement;
use crate::port::{Effect, Input, Misbehaviour};
use crate::table::{Kept, Table};

/// Hands records to holder 1 as `from` and gives its outcomes, if it answered.
fn store(region: &mut Region, from: usize, records: Vec<SignedRecord>) -> Option<Vec<StoreOutcome>> {
    region.forget();
    region.input(
        1,
        Input::Received {
            from: org(from),
            message: IndexMessage::Store { id: 5, records },
        },
    );
    region.sent.iter().find_map(|(at, _, message)| match message {
        IndexMessage::Stored { id: 5, outcomes } if *at == 1 => Some(outcomes.clone()),
        _ => None,
    })
}

fn bytes(by: usize, record: IndexRecord) -> SignedRecord {
    signed(by, record).signed().clone()
}

#[test]
fn spec_f_sync_a_holder_answers_after_its_sync() {
    let mut region = Region::new(&[0, 1, 2]);
    region.slow_disk.insert(1);
    let record = region.record(0, 7, 1, b"one");
    let record = bytes(0, record);
    assert_eq!(store(&mut region, 0, vec![record.clone()]), None);
    assert_eq!(
        store(&mut region, 0, vec![record]),
        None,
        "a repetition does not jump the queue"
    );
    region.sync_all(1);
    let answers = region
        .sent
        .iter()
        .filter(|(_, _, message)| matches!(message, IndexMessage::Stored { .. }));
    assert_eq!(answers.count(), 2);
}

#[test]
fn spec_f_highest_the_highest_sequence_stays() {
    let mut region = Region::new(&[0, 1, 2]);
    let old = region.record(0, 7, 1, b"old");
    let new = region.record(0, 7, 1, b"new");
    for record in [new, old] {
        let record = bytes(0, record);
        assert_eq!(store(&mut region, 0, vec![record]), Some(vec![StoreOutcome::Held]));
    }
    let found = look(&mut region, 1, 0);
    assert_eq!(found.0.len(), 1);
    assert!(found.1);
}

/// What holder `at` shows to `asker` under key 7.
fn look(region: &mut Region, at: usize, asker: usize) -> (Vec<SignedRecord>, bool) {
    look_at(region, at, asker, vec![index_key(7)])
}

fn look_at(region: &mut Region, at: usize, asker: usize, keys: Vec<IndexKey>) -> (Vec<SignedRecord>, bool) {
    region.forget();
    let message = IndexMessage::Lookup {
        id: 6,
        keys,
        after: None,
    };
    region.input(
        at,
        Input::Received {
            from: org(asker),
            message,
        },
    );
    region
        .sent
        .iter()
        .find_map(|(_, _, message)| match message {
            IndexMessage::Found {
                id: 6, records, whole, ..
            } => Some((records.concat(), *whole)),
            _ => None,
        })
        .unwrap()
}

#[test]
fn spec_f_signed_a_holder_refuses_what_the_owner_did_not_sign() {
    let mut region = Region::new(&[0, 1, 2]);
    let forged = region.record(0, 7, 1, b"forged");
    let forged = bytes(2, forged);
    assert_eq!(store(&mut region, 2, vec![forged]), Some(vec![StoreOutcome::Refused]));
    let named = Effect::Misbehaved {
        org: org(2),
        what: Misbehaviour::Forged,
    };
    assert!(region.said.contains(&(1, named)));
    let honest = region.record(0, 7, 1, b"one");
    let mut broken = bytes(0, honest);
    *broken.0.last_mut().unwrap() ^= 1;
    assert_eq!(
        store(&mut region, 0, vec![broken, Bytes(vec![0xff])]),
        Some(vec![StoreOutcome::Refused; 2])
    );
    assert!(look(&mut region, 1, 0).0.is_empty());
}

#[test]
fn spec_f_expiry_an_expired_or_everlasting_record_is_refused_and_a_held_one_forgotten() {
    let mut region = Region::new(&[0, 1, 2]);
    let mut expired = region.record(0, 7, 1, b"late");
    expired.expires = Millis(region.now.0 - 60_000);
    let mut everlasting = region.record(0, 7, 1, b"long");
    everlasting.expires = Millis(u64::MAX / 2);
    let records = vec![bytes(0, expired), bytes(0, everlasting)];
    assert_eq!(store(&mut region, 0, records), Some(vec![StoreOutcome::Refused; 2]));
    let record = region.record(2, 7, 1, b"one");
    let record = bytes(2, record);
    store(&mut region, 2, vec![record]);
    region.now = region.now.plus(LIFE_MS + 11_000);
    region.pass(2);
    assert!(region.nodes[&1].memory.scan(Table::Held, &[], &[], 9).is_empty());
}

#[test]
fn spec_f_tombstone_a_deletion_is_kept_and_shown() {
    let mut region = Region::new(&[0, 1, 2]);
    let live = region.record(0, 7, 1, b"one");
    let dead = region.record(0, 7, 1, b"");
    let (live, dead) = (bytes(0, live), bytes(0, dead));
    store(&mut region, 0, vec![dead.clone()]);
    region.now = region.now.plus(LIFE_MS - 60_000);
    region.pass(2);
    store(&mut region, 0, vec![live]);
    assert_eq!(look(&mut region, 1, 2), (vec![dead], true));
}

#[test]
fn spec_f_label_a_holder_holds_back_what_a_label_excludes() {
    let mut region = Region::new(&[0, 1, 2]);
    let mut record = region.record(0, 7, 1, b"one");
    record.label.excluded = vec![org(2)];
    let record = bytes(0, record);
    store(&mut region, 0, vec![record.clone()]);
    assert_eq!(look(&mut region, 1, 2), (Vec::new(), true));
    assert_eq!(look(&mut region, 1, 0), (vec![record], true));
}

#[test]
fn spec_f_place_a_holder_refuses_keys_of_others() {
    let members = [0, 1, 2, 3, 4];
    let mut region = Region::new(&members);
    let elsewhere = (0..=255_u8)
        .find(|number| !placement(&index_key(*number), &registry(&members, 1)).contains(&org(1)))
        .unwrap();
    let record = region.record(0, elsewhere, 1, b"one");
    let record = bytes(0, record);
    assert_eq!(store(&mut region, 0, vec![record]), Some(vec![StoreOutcome::Misplaced]));
}

#[test]
fn spec_f_limit_an_owner_has_a_quota_and_strangers_have_none() {
    let mut region = Region::new(&[0, 1, 2]);
    region
        .nodes
        .get_mut(&1)
        .unwrap()
        .machine
        .config
        .held_records_per_owner_max = 2;
    for (handle, outcome) in [
        (1, StoreOutcome::Held),
        (2, StoreOutcome::Held),
        (3, StoreOutcome::Refused),
    ] {
        let record = region.record(0, 7, handle, b"one");
        let record = bytes(0, record);
        assert_eq!(store(&mut region, 0, vec![record]), Some(vec![outcome]));
    }
    let dead = region.record(0, 7, 1, b"");
    let dead = bytes(0, dead);
    assert_eq!(
        store(&mut region, 0, vec![dead]),
        Some(vec![StoreOutcome::Held]),
        "a known record changes freely"
    );
    let record = region.record(0, 7, 9, b"one");
    let record = bytes(0, record);
    assert_eq!(store(&mut region, 8, vec![record]), None, "not a member");
}

#[test]
fn spec_f_limit_an_answer_cut_at_a_limit_is_not_whole() {
    let mut region = Region::new(&[0, 1, 2]);
    for part in 0..5_u8 {
        let records: Vec<SignedRecord> = (0..50_u8)
            .map(|number| {
                let record = region.record(0, 7, part * 50 + number, b"one");
                bytes(0, record)
            })
            .collect();
        store(&mut region, 0, records);
    }
    // 250 handles: one answer holds them.
    let (found, whole) = look(&mut region, 1, 0);
    assert_eq!((found.len(), whole), (250, true));
    for owner in [1, 2] {
        let records: Vec<SignedRecord> = (0..5_u8)
            .map(|number| {
                let record = region.record(owner, 7, number + 1, b"one");
                bytes(owner, record)
            })
            .collect();
        store(&mut region, if owner == 1 { 0 } else { 2 }, records);
    }
    // A single key goes on page by page; several keys are cut.
    let (found, whole) = look_at(&mut region, 1, 0, vec![index_key(7), index_key(8)]);
    assert_eq!((found.len(), whole), (256, false));
}
