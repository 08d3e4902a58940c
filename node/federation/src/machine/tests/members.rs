use hie_protocol::message::IndexMessage;

use super::region::{LIFE_MS, Region, index_key, is_complete, org, registry, texts};
use crate::placement::placement;
use crate::port::{Input, Outcome, Why};
use crate::table::{Kept, Table};

/// A key that moves to member 4 when it joins four others, and the member that loses it.
fn moving() -> (u8, usize) {
    let before = registry(&[0, 1, 2, 3], 1);
    let after = registry(&[0, 1, 2, 3, 4], 2);
    for number in 0..=255_u8 {
        let (old, new) = (
            placement(&index_key(number), &before),
            placement(&index_key(number), &after),
        );
        if new.contains(&org(4)) && !old.contains(&org(0)) {
            let loses = (0..4)
                .find(|at| old.contains(&org(*at)) && !new.contains(&org(*at)))
                .unwrap();
            return (number, loses);
        }
    }
    panic!("no key moves");
}

fn change(region: &mut Region, at: usize) {
    region.input(at, Input::Registry(Box::new(registry(&[0, 1, 2, 3, 4], 2))));
}

#[test]
fn spec_f_settled_a_new_holder_is_not_whole_before_everybody_has_announced() {
    let (key, _) = moving();
    let mut region = Region::new(&[0, 1, 2, 3]);
    let record = region.record(0, key, 1, b"one");
    region.publish(0, record);
    // The owner hears of the change last.
    for at in 1..4 {
        change(&mut region, at);
    }
    region.join(4, registry(&[0, 1, 2, 3, 4], 2));
    region.pass(3);
    let whole = |region: &mut Region| {
        region.forget();
        let message = IndexMessage::Lookup {
            id: 6,
            keys: vec![index_key(key)],
            after: None,
        };
        region.input(4, Input::Received { from: org(1), message });
        region
            .sent
            .iter()
            .any(|(_, _, message)| matches!(message, IndexMessage::Found { whole: true, .. }))
    };
    assert!(!whole(&mut region));
    change(&mut region, 0);
    region.pass(3);
    assert!(whole(&mut region));
    assert_eq!(region.nodes[&4].memory.scan(Table::Held, &[], &[], 9).len(), 1);
}

#[test]
fn spec_f_announce_follows_the_last_confirmation() {
    let (key, _) = moving();
    let mut region = Region::new(&[0, 1, 2, 3]);
    let record = region.record(0, key, 1, b"one");
    region.publish(0, record);
    for at in 0..4 {
        change(&mut region, at);
    }
    region.forget();
    region.join(4, registry(&[0, 1, 2, 3, 4], 2));
    region.pass(12);
    let to_new = region.sent.iter().filter(|(from, to, _)| *from == 0 && *to == org(4));
    let stores: Vec<bool> = to_new
        .filter_map(|(_, _, message)| match message {
            IndexMessage::Store { id, records } => Some(records.is_empty() && *id == 2),
            _ => None,
        })
        .collect();
    let first = stores.iter().position(|announces| *announces).unwrap();
    assert!(first > 0 && stores[..first].iter().all(|announces| !announces));
}

#[test]
fn spec_f_settled_one_record_life_settles_without_announcements() {
    let mut region = Region::new(&[0, 1, 2]);
    for at in [0, 1] {
        region.input(at, Input::Registry(Box::new(registry(&[0, 1, 2, 3], 2))));
    }
    region.down.insert(2);
    region.join(3, registry(&[0, 1, 2, 3], 2));
    let key = (0..=255_u8)
        .find(|number| {
            let holders = placement(&index_key(*number), &registry(&[0, 1, 2, 3], 2));
            holders.contains(&org(3)) && holders.contains(&org(2)) && holders.contains(&org(0))
        })
        .unwrap();
    let Outcome::Partial { silent, .. } = region.ask(0, key) else {
        panic!("complete too early")
    };
    assert_eq!(silent, [(org(2), Why::NoAnswer), (org(3), Why::NotWhole)]);
    region.pass(LIFE_MS / 1000 + 30);
    assert!(is_complete(&region.ask(0, key)));
}

#[test]
fn spec_f_joint_a_publish_needs_a_quorum_of_the_earlier_holders_too() {
    let (key, loses) = moving();
    let mut region = Region::new(&[0, 1, 2, 3]);
    change(&mut region, 0);
    region.join(4, registry(&[0, 1, 2, 3, 4], 2));
    region.pass(3);
    // Of the new holders the two that held before are down but one: 4 alone and one other are no old quorum.
    let new = placement(&index_key(key), &registry(&[0, 1, 2, 3, 4], 2));
    let kept: Vec<usize> = (0..4).filter(|at| new.contains(&org(*at))).collect();
    region.down.extend([kept[0], loses]);
    change(&mut region, kept[1]);
    let record = region.record(0, key, 1, b"one");
    let id = region.publish(0, record);
    region.pass(15);
    assert!(!region.published(id), "only one of the earlier holders has it");
    // The one that loses the key says so: from then on it serves no stale quorum.
    region.down.remove(&loses);
    change(&mut region, loses);
    region.pass(70);
    assert!(region.published(id));
    region.down.clear();
    change(&mut region, kept[0]);
    region.pass(15);
    assert_eq!(texts(&region.ask(4, key)), [b"one"]);
}

#[test]
fn a_registry_never_goes_back() {
    let mut region = Region::new(&[0, 1, 2, 3]);
    change(&mut region, 0);
    region.input(0, Input::Registry(Box::new(registry(&[0], 1))));
    assert_eq!(region.nodes[&0].machine.registry().version, 2);
}

#[test]
fn a_revoked_owner_is_not_shown() {
    let mut region = Region::new(&[0, 1, 2, 3]);
    let key = (0..=255_u8)
        .find(|number| !placement(&index_key(*number), &registry(&[0, 1, 2, 3], 1)).contains(&org(3)))
        .unwrap();
    let record = region.record(3, key, 1, b"one");
    region.publish(3, record);
    assert_eq!(texts(&region.ask(0, key)), [b"one"]);
    let mut next = registry(&[0, 1, 2, 3], 2);
    next.members[3].standing = hie_protocol::registry::Standing::Revoked(region.now);
    for at in 0..3 {
        region.input(at, Input::Registry(Box::new(next.clone())));
    }
    region.pass(3);
    let outcome = region.ask(0, key);
    assert!(is_complete(&outcome) && texts(&outcome).is_empty());
}

#[test]
fn equal_inputs_give_equal_effects() {
    let story = || {
        let mut region = Region::new(&[0, 1, 2, 3]);
        for (owner, key) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
            let record = region.record(owner, key, 1, b"one");
            region.publish(owner, record);
        }
        change(&mut region, 1);
        region.pass(5);
        let _ = region.ask(1, 1);
        (region.said, region.sent)
    };
    assert_eq!(story(), story());
}

#[test]
fn spec_f_return_a_member_that_returns_unsettles_every_holder() {
    let mut region = Region::new(&[0, 1, 2, 3]);
    let key = (0..=255_u8)
        .find(|number| !placement(&index_key(*number), &registry(&[0, 1, 2, 3], 1)).contains(&org(3)))
        .unwrap();
    let mut out = registry(&[0, 1, 2, 3], 2);
    out.members[3].standing = hie_protocol::registry::Standing::Revoked(region.now);
    for at in 0..4 {
        region.input(at, Input::Registry(Box::new(out.clone())));
    }
    region.pass(3);
    assert!(is_complete(&region.ask(0, key)));
    region.down.insert(3);
    for at in 0..3 {
        region.input(at, Input::Registry(Box::new(registry(&[0, 1, 2, 3], 3))));
    }
    region.pass(3);
    assert!(
        !is_complete(&region.ask(0, key)),
        "what it published before it left is not placed yet"
    );
    region.down.clear();
    region.input(3, Input::Registry(Box::new(registry(&[0, 1, 2, 3], 3))));
    region.pass(15);
    assert!(is_complete(&region.ask(0, key)));
}

#[test]
fn spec_f_highest_a_departed_owners_latest_version_hides_its_older_copies() {
    let mut region = Region::new(&[0, 1, 2, 3]);
    let key = (0..=255_u8)
        .find(|number| !placement(&index_key(*number), &registry(&[0, 1, 2, 3], 1)).contains(&org(3)))
        .unwrap();
    let record = region.record(3, key, 1, b"one");
    region.publish(3, record);
    region.down.insert(2);
    let record = region.record(3, key, 1, b"");
    region.publish(3, record);
    region.down.clear();
    let mut next = registry(&[0, 1, 2, 3], 2);
    next.members[3].standing = hie_protocol::registry::Standing::Revoked(region.now);
    // Holders 0 and 1, which know of the deletion, hear first that the owner left; the asker has the old copy.
    region.down.insert(3);
    for at in [0, 1] {
        region.input(at, Input::Registry(Box::new(next.clone())));
    }
    let outcome = region.ask(2, key);
    assert!(is_complete(&outcome) && texts(&outcome).is_empty());
}
