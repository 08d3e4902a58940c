use hie_protocol::id::Sequence;
use hie_protocol::message::IndexMessage;
use hie_protocol::version::V1;

use super::region::{LIFE_MS, Region, index_key, org, registry, signed};
use crate::owner::renewal;
use crate::placement::placement;
use crate::port::{Decline, Effect, Input, PublishId, RequestId};
use crate::table::{Kept, Table};

#[test]
fn spec_f_outbox_nothing_travels_before_the_outbox_is_durable() {
    let mut region = Region::new(&[0, 1, 2]);
    region.slow_disk.insert(0);
    let record = region.record(0, 7, 1, b"one");
    let id = region.publish(0, record);
    assert!(
        !region.sent.iter().any(|(from, _, _)| *from == 0),
        "sent before the sync"
    );
    region.sync_all(0);
    assert!(
        region
            .sent
            .iter()
            .any(|(from, _, message)| *from == 0 && matches!(message, IndexMessage::Store { .. }))
    );
    assert!(region.published(id));
}

#[test]
fn spec_f_quorum_a_publish_waits_for_its_write_quorum() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.extend([1, 2]);
    let record = region.record(0, 7, 1, b"one");
    let id = region.publish(0, record);
    region.pass(5);
    assert!(!region.published(id), "one copy is not a quorum");
    region.down.remove(&2);
    region.pass(60);
    assert!(region.published(id));
}

#[test]
fn spec_f_outbox_delivers_to_every_holder_after_the_quorum() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.insert(2);
    let record = region.record(0, 7, 1, b"one");
    let id = region.publish(0, record);
    region.pass(60);
    assert!(region.published(id));
    region.down.remove(&2);
    region.pass(15);
    assert_eq!(region.nodes[&2].memory.scan(Table::Held, &[], &[], 9).len(), 1);
    assert!(
        region.nodes[&0].memory.scan(Table::Outbox, &[], &[], 9).is_empty(),
        "the outbox is empty again"
    );
}

#[test]
fn spec_f_outbox_survives_a_restart() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.extend([1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record);
    region.restart(0);
    region.down.clear();
    region.pass(20);
    for holder in [0, 1, 2] {
        assert_eq!(
            region.nodes[&holder].memory.scan(Table::Held, &[], &[], 9).len(),
            1,
            "holder {holder}"
        );
    }
}

#[test]
fn spec_f_once_an_answer_to_an_earlier_life_acknowledges_nothing() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.extend([1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record);
    let old: Vec<u64> = region
        .sent
        .iter()
        .filter_map(|(_, _, message)| match message {
            IndexMessage::Store { id, records } if !records.is_empty() => Some(*id),
            _ => None,
        })
        .collect();
    assert!(!old.is_empty());
    region.restart(0);
    let record = region.record(0, 7, 2, b"two");
    let id = region.publish(0, record);
    for question in old {
        let outcomes = vec![hie_protocol::message::StoreOutcome::Held; 1];
        for from in [org(1), org(2)] {
            let message = IndexMessage::Stored {
                id: question,
                outcomes: outcomes.clone(),
            };
            region.input(0, Input::Received { from, message });
        }
    }
    assert!(!region.published(id));
}

#[test]
fn spec_f_renew_a_live_record_is_renewed_at_half_its_life() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record.clone());
    region.now = region.now.plus(LIFE_MS / 2 - 2000);
    region.pass(1);
    assert!(
        region
            .said
            .iter()
            .all(|(_, effect)| !matches!(effect, Effect::Renew { .. }))
    );
    region.pass(2);
    let asked = region.said.iter().find_map(|(_, effect)| match effect {
        Effect::Renew { records } => Some(records.clone()),
        _ => None,
    });
    assert_eq!(asked.unwrap(), vec![record.clone()]);
    let next = renewal(&record, Sequence(50), region.now, &registry(&[0], 1).policy);
    assert!(next.expires > record.expires && next.content == record.content);
    region.input(
        0,
        Input::Renewed {
            records: vec![(record.sequence, signed(0, next))],
        },
    );
    region.now = region.now.plus(LIFE_MS / 2 + 50_000);
    region.pass(2);
    let outcome = region.ask(1, 7);
    assert_eq!(super::region::texts(&outcome), [b"one"], "alive beyond its first life");
}

#[test]
fn spec_f_renew_never_overtakes_a_publish() {
    let mut region = Region::new(&[0, 1, 2]);
    let first = region.record(0, 7, 1, b"one");
    region.publish(0, first.clone());
    let second = region.record(0, 7, 1, b"two");
    region.publish(0, second);
    let late = renewal(&first, Sequence(50), region.now, &registry(&[0], 1).policy);
    region.input(
        0,
        Input::Renewed {
            records: vec![(first.sequence, signed(0, late))],
        },
    );
    assert_eq!(super::region::texts(&region.ask(1, 7)), [b"two"]);
}

#[test]
fn spec_f_sequence_a_version_that_does_not_follow_is_declined() {
    let mut region = Region::new(&[0, 1, 2]);
    let first = region.record(0, 7, 1, b"one");
    region.publish(0, first.clone());
    let declined = |region: &Region, id| {
        region.said.iter().find_map(|(_, effect)| match effect {
            Effect::Declined {
                request: RequestId::Publish(which),
                why,
            } if *which == id => Some(*why),
            _ => None,
        })
    };
    region.input(
        0,
        Input::Publish {
            id: PublishId(90),
            records: vec![signed(0, first)],
        },
    );
    assert_eq!(declined(&region, PublishId(90)), Some(Decline::Order));
    let foreign = region.record(1, 7, 1, b"two");
    region.input(
        0,
        Input::Publish {
            id: PublishId(91),
            records: vec![signed(1, foreign)],
        },
    );
    assert_eq!(declined(&region, PublishId(91)), Some(Decline::NotOwn));
    region.input(
        0,
        Input::Publish {
            id: PublishId(92),
            records: Vec::new(),
        },
    );
    assert_eq!(declined(&region, PublishId(92)), Some(Decline::Size));
    let mut brief = region.record(0, 7, 1, b"");
    brief.expires = region.now;
    region.input(
        0,
        Input::Publish {
            id: PublishId(93),
            records: vec![signed(0, brief)],
        },
    );
    assert_eq!(
        declined(&region, PublishId(93)),
        Some(Decline::Order),
        "a tombstone outlives what it deletes"
    );
}

#[test]
fn an_own_tombstone_is_forgotten_at_its_end() {
    let mut region = Region::new(&[0, 1, 2]);
    for text in [b"one".as_slice(), b""] {
        let record = region.record(0, 7, 1, text);
        region.publish(0, record);
    }
    region.now = region.now.plus(LIFE_MS * 3 + 30_000);
    region.pass(3);
    for at in [0, 1, 2] {
        for table in [
            Table::Own,
            Table::OwnDue,
            Table::Outbox,
            Table::Held,
            Table::HeldExpiry,
            Table::HeldCount,
        ] {
            assert!(
                region.nodes[&at].memory.scan(table, &[], &[], 9).is_empty(),
                "{table:?} at {at}"
            );
        }
    }
}

#[test]
fn a_large_backlog_goes_out_in_bounded_batches() {
    let mut region = Region::new(&[0, 1, 2]);
    let version = V1;
    region.down.extend([1, 2]);
    // Its last beat is not fresh any more, and it has been set back to an older program.
    region.pass(30);
    region.input(0, Input::Speaks { org: org(1), version });
    let records: Vec<_> = (0..200_u8)
        .map(|number| {
            let record = region.record(0, number, 1, b"many");
            signed(0, record)
        })
        .collect();
    region.input(
        0,
        Input::Publish {
            id: PublishId(1),
            records,
        },
    );
    region.down.clear();
    region.pass(20);
    assert!(region.published(PublishId(1)));
    let holders = placement(&index_key(1), &registry(&[0, 1, 2], 1));
    assert_eq!(holders.len(), 3);
    for at in [0, 1, 2] {
        assert_eq!(region.nodes[&at].memory.scan(Table::Held, &[], &[], 999).len(), 200);
    }
    let first = |holder: usize| {
        let sent = region.sent.iter().filter(|(_, to, _)| *to == org(holder));
        let mut sizes = sent.filter_map(|(_, _, message)| match message {
            IndexMessage::Store { records, .. } => Some(records.len()),
            _ => None,
        });
        sizes.next()
    };
    assert_eq!((first(1), first(2)), (Some(64), Some(200)));
}
