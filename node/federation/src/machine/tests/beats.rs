//! Who may be behind: acknowledgements that wait, answers that are confirmed, omissions that are named.

use hie_protocol::id::{OrgId, RecordHandle};

use super::region::{Region, index_key, is_complete, org, registry, signed, texts};
use crate::placement::placement;
use crate::port::{Effect, Input, Misbehaviour, Outcome, PublishId, Why};
use crate::table::{Table, record_key};

/// A key that `owner` does not hold, and its three holders.
fn key_away_from(owner: usize, members: &[usize]) -> (u8, Vec<usize>) {
    let registry = registry(members, 1);
    let at = |who: &OrgId| members.iter().copied().find(|member| org(*member) == *who).unwrap();
    let placed = (0..=u8::MAX).map(|key| {
        let holders: Vec<usize> = placement(&index_key(key), &registry).iter().map(at).collect();
        (key, holders)
    });
    placed
        .into_iter()
        .find(|(_, holders)| !holders.contains(&owner))
        .unwrap()
}

#[test]
fn spec_f_struck_a_publish_waits_until_the_region_knows_who_is_behind() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.insert(2);
    let record = region.record(0, 7, 1, b"one");
    let id = region.publish(0, record);
    region.pass(20);
    assert!(!region.published(id), "a write quorum alone does not acknowledge");
    region.pass(30);
    assert!(region.published(id), "the region knows that the third holder is behind");
    let record = region.record(0, 7, 2, b"two");
    let id = region.publish(0, record);
    assert!(region.published(id), "from then on nobody waits for it");
    region.down.clear();
    region.pass(30);
    region.down.insert(2);
    let record = region.record(0, 7, 3, b"three");
    let id = region.publish(0, record);
    assert!(!region.published(id), "it had caught up: it is waited for again");
}

#[test]
fn spec_f_confirmed_a_quorum_with_a_holder_that_is_behind_is_partial() {
    let members = [0, 1, 2, 3];
    let mut region = Region::new(&members);
    let (key, holders) = key_away_from(3, &members);
    region.down.insert(holders[2]);
    let record = region.record(3, key, 1, b"one");
    let id = region.publish(3, record);
    region.pass(50);
    assert!(region.published(id));
    // The holder that is behind comes back, the owner and another holder fall silent.
    region.down.clear();
    region.down.extend([3, holders[1]]);
    let Outcome::Partial { silent, .. } = region.ask(holders[0], key) else {
        panic!("complete with a holder that is behind")
    };
    let mut expected = vec![(org(holders[1]), Why::NoAnswer), (org(3), Why::Unconfirmed)];
    expected.sort();
    assert_eq!(silent, expected);
    // The owner delivers, and nobody is behind any more.
    region.down.clear();
    region.pass(30);
    let outcome = region.ask(holders[2], key);
    assert!(is_complete(&outcome));
    assert_eq!(texts(&outcome), [b"one"]);
}

#[test]
fn spec_f_confirmed_a_dead_owner_that_was_confirmed_leaves_answers_complete() {
    let members = [0, 1, 2, 3, 4, 5];
    let mut region = Region::new(&members);
    let (key, holders) = key_away_from(5, &members);
    let record = region.record(5, key, 1, b"one");
    let id = region.publish(5, record);
    assert!(region.published(id));
    region.pass(10);
    region.down.extend([5, holders[2]]);
    region.pass(60);
    let outcome = region.ask(holders[0], key);
    assert!(is_complete(&outcome));
    // Cut off from most, nothing is known of what a silent owner has acknowledged since.
    region.down.extend(members.iter().filter(|at| !holders.contains(at)));
    region.pass(60);
    let Outcome::Partial { silent, .. } = region.ask(holders[0], key) else {
        panic!("complete in a minority")
    };
    assert!(silent.contains(&(org(5), Why::Unconfirmed)));
}

#[test]
fn spec_f_pages_a_key_with_more_records_than_a_message_is_read_whole() {
    let mut region = Region::new(&[0, 1, 2]);
    let records: Vec<_> = (0..600_u16)
        .map(|number| {
            let mut record = region.record(0, 7, 1, b"one of many");
            let mut handle = [0; 16];
            handle[..2].copy_from_slice(&number.to_be_bytes());
            record.handle = RecordHandle::new(handle);
            signed(0, record)
        })
        .collect();
    let id = PublishId(77);
    region.input(0, Input::Publish { id, records });
    assert!(region.published(id));
    let outcome = region.ask(1, 7);
    assert!(is_complete(&outcome));
    assert_eq!(texts(&outcome).len(), 600);
}

#[test]
fn spec_f_omitted_who_leaves_a_confirmed_record_out_twice_is_named() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"one");
    let place = (Table::Held, record_key(&record.id()));
    region.publish(0, record);
    region.pass(70);
    let lose = |region: &mut Region| region.nodes.get_mut(&2).unwrap().memory.0.remove(&place);
    assert!(lose(&mut region).is_some());
    assert!(is_complete(&region.ask(1, 7)));
    assert!(lose(&mut region).is_some(), "what was left out is handed over at once");
    let named = |region: &Region| {
        let said = region.said.iter();
        let names = said.filter(|(at, effect)| {
            let what = Misbehaviour::Omitted;
            *at == 1 && *effect == Effect::Misbehaved { org: org(2), what }
        });
        names.count()
    };
    assert_eq!(named(&region), 0, "once may be chance");
    region.pass(12);
    assert_eq!(named(&region), 1);
}

#[test]
fn a_beat_is_numbered_across_restarts() {
    let mut region = Region::new(&[0, 1, 2]);
    let last = |region: &Region| {
        let beats = region.sent.iter().filter_map(|(at, _, message)| match message {
            hie_protocol::message::IndexMessage::Beat { beat, .. } if *at == 0 => Some(*beat),
            _ => None,
        });
        beats.max().unwrap()
    };
    region.pass(11);
    let before = last(&region);
    region.forget();
    region.restart(0);
    region.pass(6);
    assert!(last(&region) > before);
}
