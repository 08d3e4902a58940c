//! Token authorities that lie, that are asked too much, that change, and whose key changes.

use std::collections::BTreeMap;

use hie_node_federation::port::Outcome;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{Correlation, IndexKey, OrgId, PublicKey};
use hie_protocol::message::Response;
use hie_protocol::oprf::derive;
use hie_protocol::oprf::key::deal;
use hie_protocol::registry::{Registry, Resharing, ShareSeat, TokenAuthority as Entry, TokenEpoch};
use hie_protocol::vocabulary::{Purpose, Role};

use super::replies;
use super::world::{Org, World, asking, org_id, robert};
use crate::audit::event::{EventKind, Outcome as EventOutcome};
use crate::exchange::claim::Asking;
use crate::exchange::fanout::Reply;
use crate::exchange::reshare::ReshareError;
use crate::locator::tokens::{Output, TokenAuthority, TokenError};
use crate::patient::normalise::normalise;
use crate::patient::tokens;
use crate::ports::{Clock, OsRandom, Random};

/// Tries after which chance is no excuse.
const TRIES: usize = 200;

fn publishing() -> Asking {
    Asking::system(Purpose::Operations, Role::System, Correlation::new([7; 16]))
}

fn inputs(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![b'x', number]).collect()
}

fn twisted(response: Response) -> Response {
    match response {
        Response::Evaluated {
            index,
            mut elements,
            proof,
        } => {
            elements.reverse();
            Response::Evaluated { index, elements, proof }
        }
        other => other,
    }
}

fn cut(response: Response) -> Response {
    match response {
        Response::Evaluated {
            index,
            mut elements,
            proof,
        } => {
            elements.pop();
            Response::Evaluated { index, elements, proof }
        }
        other => other,
    }
}

fn pointless(response: Response) -> Response {
    match response {
        Response::Evaluated { index, elements, proof } => {
            let elements = elements.iter().map(|_| PublicKey::new([0xff; 32])).collect();
            Response::Evaluated { index, elements, proof }
        }
        other => other,
    }
}

fn unproved(response: Response) -> Response {
    match response {
        Response::Evaluated { index, elements, .. } => Response::Evaluated {
            index,
            elements,
            proof: Bytes(vec![1; 9]),
        },
        other => other,
    }
}

fn off_topic(_: Response) -> Response {
    Response::Taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_liar_a_lying_authority_is_named_and_the_others_complete() {
    for lie in [twisted, cut, pointless, unproved, off_topic] {
        for who in [publishing(), asking(3, Purpose::Treatment)] {
            let world = World::new();
            let a = world.a();
            let truth = a.tokens.evaluate(&who, 1, inputs(3)).await.unwrap();
            *world.net.lie.lock().unwrap() = Some((org_id(3), lie));
            let mut tries = 0;
            while a.watch.liars().is_empty() {
                tries += 1;
                assert!(tries < TRIES, "nobody was named");
                let outputs = a.tokens.evaluate(&who, 1, inputs(3)).await;
                assert_eq!(
                    outputs.unwrap_or_default(),
                    truth,
                    "the question completes with the others"
                );
                world.clock.advance(3_600_000);
            }
            let named: Vec<OrgId> = a.watch.liars().into_keys().collect();
            assert_eq!(named, [org_id(3)]);
            let entries = a.entries(EventKind::PeerMisbehaved);
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].counterpart.as_ref().unwrap().org, org_id(3));
            assert_eq!(
                (entries[0].outcome, entries[0].correlation),
                (EventOutcome::Failed, who.correlation)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_liar_an_honest_refusal_is_no_lie() {
    let world = World::new();
    let a = world.a();
    world.net.silence(&org_id(2));
    let outputs = a.tokens.evaluate(&publishing(), 1, inputs(2)).await.unwrap();
    assert_eq!(outputs.len(), 2);
    world.net.silence(&org_id(3));
    let error = a.tokens.evaluate(&publishing(), 1, inputs(2)).await.unwrap_err();
    assert_eq!(error.silent(), [org_id(2), org_id(3)]);
    assert!(a.watch.liars().is_empty() && a.entries(EventKind::PeerMisbehaved).is_empty());
    assert!(matches!(
        a.tokens.evaluate(&publishing(), 2, inputs(2)).await,
        Err(TokenError::Epoch(2))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_budget_a_scraper_is_refused_by_the_region_and_stands_in_the_logs() {
    let world = World::new();
    let mut answered = 0;
    for _ in 0..40 {
        let who = asking(1, Purpose::Treatment);
        match world.a().tokens.evaluate(&who, 1, inputs(24)).await {
            Ok(_) => answered += 1,
            Err(error) => assert_eq!(error.silent(), [org_id(2), org_id(3)]),
        }
    }
    assert_eq!(answered, 30);
    for org in [world.b(), world.c()] {
        let evaluated = org.entries(EventKind::TokensEvaluated);
        assert_eq!(evaluated.len(), 30);
        assert_eq!(evaluated[0].actor.user, "dr-grey");
        let alarms = org.entries(EventKind::BudgetAlarm);
        let outcomes: Vec<EventOutcome> = alarms.iter().map(|entry| entry.outcome).collect();
        assert_eq!(outcomes, [EventOutcome::Success, EventOutcome::Denied]);
        let (notices, _) = org.watch.alarms();
        assert!(notices.iter().all(|notice| notice.org == org_id(1)) && notices.len() == 2);
    }
    assert!(world.a().entries(EventKind::BudgetAlarm).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_budget_publication_is_logged_at_both_ends() {
    let world = World::new();
    let a = world.a();
    let many: Vec<Vec<u8>> = (0..1500_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    a.tokens.evaluate(&publishing(), 1, many).await.unwrap();
    let mine = a.entries(EventKind::TokensEvaluated);
    assert_eq!(mine.len(), 2, "one entry for each batch");
    assert!(mine.iter().all(|entry| entry.correlation == publishing().correlation));
    let theirs = [world.b(), world.c()]
        .map(|org| org.entries(EventKind::TokensEvaluated).len())
        .iter()
        .sum::<usize>();
    assert_eq!(theirs, 2);
}

fn reseat(generation: u32, dealers: &[u16], first: u16) -> Resharing {
    let seats = (0..3_u8).map(|at| ShareSeat {
        index: first + u16::from(at),
        org: org_id(at + 1),
    });
    Resharing {
        generation,
        threshold: 3,
        dealers: dealers.to_vec(),
        seats: seats.collect(),
    }
}

async fn outputs(org: &Org) -> Vec<Output> {
    org.tokens.evaluate(&publishing(), 1, inputs(5)).await.unwrap()
}

/// The registry with the points that the seats told.
fn switch(registry: &mut Registry, points: &BTreeMap<OrgId, (u16, PublicKey)>) {
    let tokens = &mut registry.policy.tokens;
    tokens.threshold = 3;
    let entries = points.iter().map(|(org, (index, point))| Entry {
        index: *index,
        org: org.clone(),
        point: *point,
    });
    tokens.authorities = entries.collect();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_share_a_resharing_keeps_every_output_and_destroys_the_old_shares() {
    let world = World::new();
    let truth = outputs(world.a()).await;
    world.take(|registry| registry.policy.tokens.resharing = Some(reseat(1, &[1, 2], 4)));
    let mut points = BTreeMap::new();
    for org in &world.orgs {
        let seated = org.seat.step().await.unwrap().unwrap();
        assert_eq!(
            Some(&seated),
            org.seat.step().await.unwrap().as_ref(),
            "asked again, the same"
        );
        assert_eq!(seated.commitments.len(), 2);
        points.insert(org.id.clone(), (seated.index, seated.point));
        assert_eq!(outputs(org).await, truth, "the old shares go on");
    }
    // One asks under the old registry while the others have the new one: both sharings answer.
    let old = world.a();
    world.take_some(&world.orgs[1..], |registry| switch(registry, &points));
    assert_eq!(outputs(old).await, truth);
    assert_eq!(outputs(world.b()).await, truth);
    world.take(|registry| switch(registry, &points));
    assert_eq!(outputs(old).await, truth);
    assert_eq!(world.c().keyring.names().len(), 2);
    world.take(|registry| {
        switch(registry, &points);
        registry.policy.tokens.resharing = None;
    });
    for org in &world.orgs {
        assert_eq!(org.seat.step().await, Ok(None));
        let names = org.keyring.names();
        assert_eq!((names.len(), names[0].generation), (1, 1), "the old share is destroyed");
        assert_eq!(outputs(org).await, truth);
    }
    assert!(world.orgs.iter().all(|org| org.watch.liars().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_share_only_a_seat_gets_a_part() {
    let world = World::new();
    let ask = |node, generation| {
        let request = hie_protocol::message::Request::Reshare { epoch: 1, generation };
        world.net.deliver(&world.a().id, node, request)
    };
    let refused = |response: Response| matches!(response, Response::Refused(_));
    assert!(refused(ask(world.c().node, 1).await), "no resharing is under way");
    world.take(|registry| {
        let mut resharing = reseat(1, &[1, 2], 4);
        resharing.threshold = 2;
        resharing.seats.truncate(2);
        registry.policy.tokens.resharing = Some(resharing);
    });
    assert!(!refused(ask(world.b().node, 1).await));
    assert!(refused(ask(world.b().node, 2).await), "another attempt");
    assert!(refused(ask(world.c().node, 1).await), "no seat");
    assert!(
        refused(ask(hie_protocol::id::NodeKey::new([9; 32]), 1).await),
        "a stranger"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_liar_a_lying_dealer_is_named() {
    let world = World::new();
    world.take(|registry| registry.policy.tokens.resharing = Some(reseat(1, &[1, 2], 4)));
    *world.net.lie.lock().unwrap() = Some((org_id(2), |response| match response {
        Response::Reshared { commitments, mut share } => {
            share.0[0] ^= 1;
            Response::Reshared { commitments, share }
        }
        other => other,
    }));
    assert_eq!(world.c().seat.step().await, Err(ReshareError::Lied(org_id(2))));
    assert_eq!(world.c().keyring.names().len(), 1);
    assert!(world.c().watch.liars().contains_key(&org_id(2)));
    let entries = world.c().entries(EventKind::PeerMisbehaved);
    assert_eq!(entries[0].counterpart.as_ref().unwrap().org, org_id(2));
    *world.net.lie.lock().unwrap() = None;
    assert!(world.c().seat.step().await.unwrap().is_some());
}

/// Walks and publishes until everything stands under the registry's keys.
async fn settle(world: &World) {
    for org in &world.orgs {
        for _ in 0..TRIES {
            let (progress, _) = org.retoken.step().unwrap();
            let (_, failed) = org.publisher.round().await.unwrap();
            assert!(failed.is_none(), "{failed:?}");
            if progress.done {
                break;
            }
        }
        assert!(org.retoken.progress().unwrap().unwrap().done);
    }
}

async fn found(world: &World) -> bool {
    let events = world.a().ask(&asking(1, Purpose::Treatment), &robert()).await;
    matches!(replies(&events).get(&org_id(2)), Some(Reply::Opened(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_epoch_a_key_is_replaced_while_every_question_is_answered() {
    let world = World::new();
    world.b().hold(&robert(), &[("1", b"note")]).await;
    world.publish().await;
    settle(&world).await;
    assert!(found(&world).await);
    let asked = tokens::publish(&normalise(&robert()), 1);
    let bytes = asked.iter().map(|token| token.input.as_bytes().to_vec()).collect();
    let old = world.a().tokens.evaluate(&publishing(), 1, bytes).await.unwrap();

    // The new key comes: everybody publishes under both.
    let random = OsRandom::new();
    let (_, shares) = deal(2, 3, &mut |out: &mut [u8]| random.fill(out).unwrap()).unwrap();
    let mut entries = Vec::new();
    for (org, share) in world.orgs.iter().zip(shares) {
        entries.push(Entry {
            index: share.index(),
            org: org.id.clone(),
            point: PublicKey::new(*share.public().point()),
        });
        org.keyring.add(2, 0, share).unwrap();
    }
    let coming = TokenEpoch {
        epoch: 2,
        threshold: 2,
        authorities: entries,
    };
    world.take(|registry| registry.policy.tokens.beside = Some(coming.clone()));
    assert!(found(&world).await);
    settle(&world).await;
    assert!(found(&world).await);

    // The switch: questions use the new one.
    world.take(|registry| {
        let tokens = &mut registry.policy.tokens;
        tokens.beside = Some(TokenEpoch {
            epoch: 1,
            threshold: tokens.threshold,
            authorities: core::mem::replace(&mut tokens.authorities, coming.authorities.clone()),
        });
        tokens.epoch = 2;
    });
    assert!(found(&world).await, "no question falls between two keys");
    settle(&world).await;

    // The old one goes: its records are withdrawn, its shares destroyed.
    world.take(|registry| registry.policy.tokens.beside = None);
    settle(&world).await;
    assert!(found(&world).await);
    for org in &world.orgs {
        org.seat.step().await.unwrap();
        assert!(org.keyring.names().iter().all(|name| name.epoch == 2));
    }
    let keys: Vec<IndexKey> = old
        .iter()
        .map(|output| IndexKey::new(derive::index_key(output)))
        .collect();
    let deadline = world.clock.now().plus(3000);
    let records = match world.a().index.lookup(keys, deadline).await.unwrap() {
        Outcome::Complete { records, .. } => records,
        Outcome::Partial { silent, .. } => panic!("{silent:?}"),
    };
    assert!(records.is_empty(), "what was published under the old key is withdrawn");
}
