use hie_protocol::id::Millis;
use hie_protocol::message::IndexMessage;

use super::region::{Region, index_key, is_complete, org, signed, texts};
use crate::port::{AskId, Decline, Effect, Input, Misbehaviour, Outcome, RequestId, Why};

#[test]
fn spec_f_quorum_an_answer_is_complete_with_a_read_quorum() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record);
    region.down.insert(2);
    let outcome = region.ask(1, 7);
    assert!(is_complete(&outcome));
    assert_eq!(texts(&outcome), [b"one"]);
}

#[test]
fn spec_f_silent_a_partial_answer_names_exactly_the_silent() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record);
    region.input(1, Input::Link { org: org(0), up: false });
    region.down.extend([0, 2]);
    let asked = region.now;
    let expected = vec![(org(0), Why::Unreachable), (org(2), Why::NoAnswer)];
    let Outcome::Partial { silent, as_of, records } = region.ask(1, 7) else {
        panic!("complete without a quorum")
    };
    assert_eq!((silent, as_of, records.len()), (expected, asked, 1));
}

#[test]
fn spec_f_silent_nobody_waits_for_who_cannot_be_reached() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"one");
    region.publish(0, record);
    region.down.extend([0, 2]);
    region.input(1, Input::Link { org: org(0), up: false });
    let asked = region.now;
    region.input(1, Input::Link { org: org(2), up: false });
    let Outcome::Partial { silent, records, .. } = region.ask(1, 7) else {
        panic!("complete without a quorum")
    };
    assert_eq!(silent, [(org(0), Why::Unreachable), (org(2), Why::Unreachable)]);
    assert_eq!((region.now, records.len()), (asked, 1), "it was not waited for");
}

#[test]
fn spec_f_silent_nothing_known_is_not_silence() {
    let mut region = Region::new(&[0, 1, 2]);
    let outcome = region.ask(1, 9);
    assert!(is_complete(&outcome) && texts(&outcome).is_empty());
}

#[test]
fn spec_f_highest_an_asker_takes_the_highest_sequence() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"old");
    region.publish(0, record);
    region.down.insert(2);
    let record = region.record(0, 7, 1, b"new");
    region.publish(0, record);
    region.down.clear();
    region.down.insert(0);
    assert_eq!(texts(&region.ask(2, 7)), [b"new"], "its own copy is the old one");
}

#[test]
fn spec_f_tombstone_a_deletion_hides_an_older_copy() {
    let mut region = Region::new(&[0, 1, 2]);
    let record = region.record(0, 7, 1, b"old");
    region.publish(0, record);
    region.down.insert(2);
    let record = region.record(0, 7, 1, b"");
    region.publish(0, record);
    region.down.clear();
    region.down.insert(0);
    let outcome = region.ask(2, 7);
    assert!(is_complete(&outcome) && texts(&outcome).is_empty());
}

/// Asks at node 1 while 0 and 2 are made to answer by hand; gives the ids of the two lookups.
fn open(region: &mut Region) -> Vec<(usize, u64)> {
    region.down.extend([0, 2]);
    region.forget();
    let deadline = region.now.plus(2000);
    region.input(
        1,
        Input::Ask {
            id: AskId(900),
            keys: vec![index_key(7)],
            deadline,
        },
    );
    let lookups = region.sent.iter().filter_map(|(_, to, message)| match message {
        IndexMessage::Lookup { id, .. } => Some((if *to == org(0) { 0 } else { 2 }, *id)),
        _ => None,
    });
    lookups.collect()
}

fn answered(region: &Region) -> Vec<Outcome> {
    let said = region.said.iter().filter_map(|(_, effect)| match effect {
        Effect::Answer { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    said.collect()
}

#[test]
fn spec_f_signed_an_asker_takes_no_forgery_and_names_the_forger() {
    let mut region = Region::new(&[0, 1, 2]);
    let lookups = open(&mut region);
    assert_eq!(lookups.len(), 2);
    for (at, id) in &lookups {
        let record = region.record(if *at == 0 { 2 } else { 0 }, 7, 1, b"forged");
        let records = vec![vec![signed(*at, record).signed().clone()]];
        let message = IndexMessage::Found {
            id: *id,
            records,
            whole: true,
            next: None,
        };
        region.input(
            1,
            Input::Received {
                from: org(*at),
                message,
            },
        );
        let named = Effect::Misbehaved {
            org: org(*at),
            what: Misbehaviour::Forged,
        };
        assert!(region.said.contains(&(1, named)));
    }
    region.pass(3);
    let answers = answered(&region);
    let expected = vec![(org(0), Why::Misbehaved), (org(2), Why::Misbehaved)];
    assert!(matches!(&answers[..], [Outcome::Partial { silent, records, .. }]
        if *silent == expected && records.is_empty()));
}

#[test]
fn spec_f_once_only_the_holder_that_was_asked_can_answer() {
    let mut region = Region::new(&[0, 1, 2]);
    let lookups = open(&mut region);
    let (at, id) = lookups[0];
    let other = if at == 0 { 2 } else { 0 };
    let found = |id| IndexMessage::Found {
        id,
        records: vec![Vec::new()],
        whole: true,
        next: None,
    };
    region.input(
        1,
        Input::Received {
            from: org(other),
            message: found(id),
        },
    );
    region.input(
        1,
        Input::Received {
            from: org(at),
            message: found(id + 1000),
        },
    );
    region.pass(3);
    assert!(matches!(&answered(&region)[..], [Outcome::Partial { silent, .. }] if silent.len() == 2));
    region.input(
        1,
        Input::Received {
            from: org(at),
            message: found(id),
        },
    );
    region.pass(3);
    assert_eq!(answered(&region).len(), 1, "too late: one question, one answer");
}

#[test]
fn an_answer_that_does_not_fit_is_misbehaviour() {
    let mut region = Region::new(&[0, 1, 2]);
    let lookups = open(&mut region);
    let (at, id) = lookups[0];
    region.input(
        1,
        Input::Received {
            from: org(at),
            message: IndexMessage::Found {
                id,
                records: Vec::new(),
                whole: true,
                next: None,
            },
        },
    );
    let named = Effect::Misbehaved {
        org: org(at),
        what: Misbehaviour::Unfitting,
    };
    assert!(region.said.contains(&(1, named)));
}

#[test]
fn a_cut_answer_is_asked_for_in_smaller_parts() {
    let mut region = Region::new(&[0, 1, 2]);
    // 64 keys of 5 records each are more than one answer may carry.
    for key in 0..64_u8 {
        let records = (0..5_u8).map(|handle| {
            let record = region.record(0, key, handle, b"one");
            signed(0, record)
        });
        let records: Vec<_> = records.collect();
        let id = crate::port::PublishId(10_000 + u64::from(key));
        region.input(0, Input::Publish { id, records });
    }
    region.pass(2);
    let keys = (0..64_u8).map(index_key).collect();
    let deadline = region.now.plus(2000);
    region.input(
        1,
        Input::Ask {
            id: AskId(901),
            keys,
            deadline,
        },
    );
    region.pass(3);
    let answers = answered(&region);
    assert!(is_complete(&answers[0]));
    assert_eq!(texts(&answers[0]).len(), 320);
}

#[test]
fn spec_f_limit_a_question_has_limits() {
    let mut region = Region::new(&[0, 1, 2]);
    let deadline = region.now.plus(2000);
    region.input(
        1,
        Input::Ask {
            id: AskId(1),
            keys: Vec::new(),
            deadline,
        },
    );
    let declined = Effect::Declined {
        request: RequestId::Ask(AskId(1)),
        why: Decline::Size,
    };
    assert!(region.said.contains(&(1, declined)));
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait() {
    let mut region = Region::new(&[0, 1, 2]);
    region.down.extend([0, 2]);
    let (id, keys) = (AskId(5), vec![index_key(7)]);
    let deadline = region.now.plus(2000);
    region.input(1, Input::Ask { id, keys, deadline });
    region.now = Millis(region.now.0 - 3_600_000);
    region.pass(4);
    let answered = region
        .said
        .iter()
        .any(|(at, effect)| *at == 1 && matches!(effect, Effect::Answer { id: of, .. } if *of == id));
    assert!(answered);
}
