#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use futures::stream::StreamExt;
use hie_protocol::claim::{BreakGlass, BreakGlassReason};
use hie_protocol::id::{OrgId, Ticket};
use hie_protocol::message::{Obligation, Response};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{Ask, Item, TICKET_LIFE_MS};
use hie_protocol::vocabulary::Purpose;

use crate::audit::event::EventKind;
use crate::exchange::claim::Asking;
use crate::exchange::fanout::{AskEvent, Completeness, RemoteDocument, Reply, Silence};
use crate::exchange::lane::Frame;
use crate::exchange::local::LocalError;
use crate::exchange::retrieve::{RetrieveError, StudyPiece};
use crate::ports::Clock;

mod tokens;
pub(crate) mod world;

use world::{Org, World, asking, robert};

fn replies(events: &[AskEvent]) -> BTreeMap<OrgId, Reply> {
    events
        .iter()
        .filter_map(|event| match event {
            AskEvent::Organisation { org, reply, .. } => Some((org.clone(), reply.clone())),
            _ => None,
        })
        .collect()
}

fn completeness(events: &[AskEvent]) -> Completeness {
    match events.last().unwrap() {
        AskEvent::Done { completeness, .. } => completeness.clone(),
        other => panic!("{other:?} is no end"),
    }
}

fn granted(reply: &Reply) -> Vec<RemoteDocument> {
    match reply {
        Reply::Opened(opening) => opening.documents.clone(),
        _ => Vec::new(),
    }
}

async fn read(org: &Org, asking: &Asking, remote: &RemoteDocument) -> Result<Vec<u8>, RetrieveError> {
    let mut fetched = org.retriever.document(asking, remote, 0).await?;
    let mut all = Vec::new();
    while let Some(piece) = fetched.stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_find_a_question_is_answered_by_everybody_who_holds() {
    let world = World::new();
    world
        .b()
        .hold(&robert(), &[("n1", b"from B"), ("n2", &[7; 300_000])])
        .await;
    world.c().hold(&robert(), &[("n1", b"from C")]).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let events = world.a().ask(&asked, &robert()).await;
    assert!(
        matches!(completeness(&events), Completeness::Complete { .. }),
        "{events:?}"
    );
    let replies = replies(&events);
    assert!(matches!(replies[&world.a().id], Reply::NoRecord { .. }));
    let from_b = granted(&replies[&world.b().id]);
    assert_eq!((from_b.len(), granted(&replies[&world.c().id]).len()), (2, 1));
    let mut bodies = Vec::new();
    for remote in &from_b {
        bodies.push(read(world.a(), &asked, remote).await.unwrap());
    }
    bodies.sort_by_key(Vec::len);
    assert_eq!(bodies, [b"from B".to_vec(), vec![7; 300_000]]);
    // Law 7: the question, the answer, the disclosure and its arrival stand in the logs, joined by the receipt.
    assert_eq!(world.a().entries(EventKind::QuestionAsked).len(), 1);
    assert_eq!(world.b().entries(EventKind::QuestionAnswered).len(), 1);
    let sent = world.b().entries(EventKind::DisclosureSent);
    let received = world.a().entries(EventKind::DisclosureReceived);
    assert_eq!((sent.len(), received.len()), (2, 2));
    let entry = received[0].counterpart.as_ref().unwrap().entry.unwrap();
    assert_eq!(world.b().audit.entry(entry.index).unwrap().leaf, entry.leaf);
    assert_eq!(sent[0].correlation, received[0].correlation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_partial_names_exactly_the_silent() {
    let world = World::new();
    world.b().hold(&robert(), &[("n1", b"from B")]).await;
    world.c().hold(&robert(), &[("n1", b"from C")]).await;
    world.publish().await;
    // A holder that still waits for an announcement is not whole, and rightly named: go on when none does.
    let mut tries = 0;
    let events = loop {
        world.net.silence(&world.c().id);
        let events = world.a().ask(&asking(1, Purpose::Treatment), &robert()).await;
        let settling = match completeness(&events) {
            Completeness::Partial { silent, .. } => silent.iter().any(|(_, why)| matches!(why, Silence::Index(_))),
            Completeness::Complete { .. } => false,
        };
        if !settling || tries >= 20 {
            break events;
        }
        tries += 1;
        world.net.restore(&world.c().id);
        world.a().ask(&asking(1, Purpose::Treatment), &robert()).await;
    };
    match completeness(&events) {
        Completeness::Partial { silent, .. } => assert_eq!(silent, [(world.c().id.clone(), Silence::Unreachable)]),
        whole => panic!("{whole:?}"),
    }
    assert_eq!(granted(&replies(&events)[&world.b().id]).len(), 1);
    let Some(AskEvent::Done { held, .. }) = events.last() else {
        panic!("no end")
    };
    assert_eq!(
        held[&world.c().id].len(),
        1,
        "the locators say what the silent one holds"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_uniform_an_excluded_organisation_sees_nothing() {
    let world = World::new();
    let (patient, _) = world.b().hold(&robert(), &[("n1", b"from B")]).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let before = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]);
    assert_eq!(before.len(), 1);
    world.b().exclude(patient, &world.a().id);
    // At once, before the index knows: the same answer as where nothing is known, and the old ticket is worth nothing.
    let events = world.a().ask(&asking(2, Purpose::Treatment), &robert()).await;
    assert!(
        matches!(
            replies(&events)[&world.b().id],
            Reply::NoRecord {
                more_on_emergency: false
            }
        ),
        "{events:?}"
    );
    let refused = read(world.a(), &asked, &before[0]).await.unwrap_err();
    assert!(
        matches!(refused, RetrieveError::Refused(Refusal::NothingHere)),
        "{refused}"
    );
    // And behind the index: nothing points to B any more for A, but still for C.
    world.publish().await;
    let found = world
        .a()
        .finder
        .find(&asking(3, Purpose::Treatment), &robert())
        .await
        .unwrap();
    assert!(!found.custodians.contains_key(&world.b().id));
    let found = world
        .c()
        .finder
        .find(&asking(4, Purpose::Treatment), &robert())
        .await
        .unwrap();
    assert!(found.custodians.contains_key(&world.b().id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_emergency_opens_with_obligations_and_entries_on_both_sides() {
    let world = World::new();
    let (patient, _) = world.b().hold(&robert(), &[("n1", b"from B")]).await;
    world.b().exclude(patient, &world.a().id);
    world.publish().await;
    let mut asked = asking(5, Purpose::BreakGlass);
    asked.break_glass = Some(BreakGlass {
        reason: BreakGlassReason::LifeAtRisk,
        words: "unconscious".into(),
        declared: world.clock.now(),
    });
    let events = world.a().ask(&asked, &robert()).await;
    let reply = replies(&events)[&world.b().id].clone();
    let Reply::Opened(opening) = reply else {
        panic!("{reply:?}")
    };
    let (documents, obligations) = (&opening.documents, &opening.obligations);
    assert!(
        obligations.contains(&Obligation::Review) && obligations.contains(&Obligation::NotifyPatient),
        "{obligations:?}"
    );
    assert_eq!(read(world.a(), &asked, &documents[0]).await.unwrap(), b"from B");
    let declared = world.a().entries(EventKind::EmergencyDeclared);
    let used = world.b().entries(EventKind::EmergencyUsed);
    assert_eq!((declared.len(), used.len()), (1, 2), "the answer and the transfer");
    assert_eq!(used[1].emergency.as_ref().unwrap().words, "unconscious");
    assert!(world.a().entries(EventKind::DisclosureReceived)[0].emergency.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_revoked_a_running_transfer_ends() {
    let world = World::new();
    let (patient, _) = world.b().hold(&robert(), &[("n1", &[3; 4_000_000])]).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let remote = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]).remove(0);
    let mut fetched = world.a().retriever.document(&asked, &remote, 0).await.unwrap();
    let mut arrived = fetched.stream.next().await.unwrap().unwrap().len();
    world.b().exclude(patient, &world.a().id);
    let end = loop {
        match fetched.stream.next().await {
            Some(Ok(bytes)) => arrived += bytes.len(),
            Some(Err(error)) => break error,
            None => panic!("the transfer ended as if it were whole"),
        }
    };
    assert!(matches!(end, RetrieveError::Refused(Refusal::NothingHere)), "{end}");
    assert!(arrived <= 2 * 128 * 1024, "{arrived} bytes left after the revocation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_claim_a_replay_is_refused() {
    let world = World::new();
    world.b().hold(&robert(), &[("n1", b"from B")]).await;
    world.publish().await;
    world.a().ask(&asking(1, Purpose::Treatment), &robert()).await;
    let (to, from, request) = world.net.seen.lock().unwrap()[0].clone();
    assert_eq!(
        world.net.deliver(&to, from, request.clone()).await,
        Response::Refused(Refusal::Claim),
        "used twice"
    );
    let other = world.c().node;
    assert_eq!(
        world.net.deliver(&to, other, request.clone()).await,
        Response::Refused(Refusal::Claim),
        "another channel"
    );
    assert_eq!(
        world.net.deliver(&world.c().id, from, request).await,
        Response::Refused(Refusal::Claim),
        "another custodian"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_lane_a_ticket_serves_its_node_until_it_ends() {
    let world = World::new();
    world.b().hold(&robert(), &[("n1", b"from B")]).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let remote = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]).remove(0);
    let ask = |ticket| Ask {
        ticket,
        item: Item::Document,
        from: 0,
    };
    let nothing = |frames: &[Frame]| matches!(frames, [Frame::Refused(Refusal::NothingHere)]);
    let forged: Vec<Frame> = world
        .b()
        .lane
        .serve(world.a().node, ask(Ticket::new([1; 32])))
        .collect()
        .await;
    assert!(nothing(&forged), "{forged:?}");
    let stolen: Vec<Frame> = world.b().lane.serve(world.c().node, ask(remote.ticket)).collect().await;
    assert!(nothing(&stolen), "{stolen:?}");
    let part = Ask {
        from: 99,
        ..ask(remote.ticket)
    };
    let behind: Vec<Frame> = world.b().lane.serve(world.a().node, part).collect().await;
    assert!(
        matches!(behind.as_slice(), [Frame::Refused(Refusal::Malformed)]),
        "{behind:?}"
    );
    assert_eq!(read(world.a(), &asked, &remote).await.unwrap(), b"from B");
    world.clock.advance(TICKET_LIFE_MS + 1000);
    let late: Vec<Frame> = world.b().lane.serve(world.a().node, ask(remote.ticket)).collect().await;
    assert!(nothing(&late), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_retrieve_goes_on_after_a_break_and_verifies_the_hash() {
    let world = World::new();
    let body: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    world.b().hold(&robert(), &[("n1", &body)]).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let remote = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]).remove(0);
    *world.net.break_after.lock().unwrap() = Some(4);
    assert!(read(world.a(), &asked, &remote).await.unwrap() == body);
    let mut other = remote.clone();
    other.meta.hash = Some(hie_protocol::id::ContentHash::new([0; 32]));
    let refused = read(world.a(), &asked, &other).await.unwrap_err();
    assert!(matches!(refused, RetrieveError::Hash), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_lane_a_study_streams_in_viewing_order_on_one_entry() {
    let world = World::new();
    let (patient, _) = world.b().hold(&robert(), &[]).await;
    let bytes = |number: i64| vec![u8::try_from(number).unwrap(); 200_000];
    for number in [3, 1, 2] {
        world.b().hold_instance(patient, number, bytes(number)).await;
    }
    let again = world.b().hold_instance(patient, 2, bytes(2)).await;
    assert!(!again.changed, "the same instance changes nothing");
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let remote = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]).remove(0);
    assert_eq!(
        remote
            .meta
            .imaging
            .as_ref()
            .map(|imaging| (imaging.series, imaging.instances)),
        Some((1, 3))
    );
    let manifest = world.a().retriever.manifest(&asked, &remote).await.unwrap();
    let numbers: Vec<_> = manifest.instances().map(|(_, instance)| instance.number).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    *world.net.break_after.lock().unwrap() = Some(5);
    let mut pieces = world.a().retriever.study(asked.clone(), remote.clone(), 0, 3);
    let mut got: Vec<Vec<u8>> = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece.unwrap() {
            StudyPiece::Begin { index, .. } => {
                assert_eq!(usize::try_from(index).unwrap(), got.len());
                got.push(Vec::new());
            }
            StudyPiece::Bytes(bytes) => got.last_mut().unwrap().extend_from_slice(&bytes),
            StudyPiece::End => {}
        }
    }
    assert!(got == [bytes(1), bytes(2), bytes(3)]);
    let mut second = world.a().retriever.instance(&asked, &remote, 1, 199_990).await.unwrap();
    assert_eq!(second.stream.next().await.unwrap().unwrap().as_ref(), [2; 10]);
    assert_eq!(
        world.b().entries(EventKind::DisclosureSent).len(),
        1,
        "one entry for the study"
    );
    assert_eq!(world.a().entries(EventKind::DisclosureReceived).len(), 1);
    world.b().exclude(patient, &world.a().id);
    assert!(
        world.a().retriever.instance(&asked, &remote, 0, 0).await.is_err(),
        "the released study is shut again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_retrieve_an_instance_is_verified_by_transfer_hash_or_content_hash() {
    fn flip(frame: &mut Frame) {
        if let Frame::Chunk(bytes) = frame {
            let mut changed = bytes.to_vec();
            changed[0] ^= 1;
            *bytes = changed.into();
        }
    }
    fn as_of_version_1(frame: &mut Frame) {
        if let Frame::Header(header) = frame {
            assert!(header.transfer.take().is_some() || header.manifest.is_some());
        }
    }
    fn as_of_version_1_and_flip(frame: &mut Frame) {
        as_of_version_1(frame);
        flip(frame);
    }
    fn wrong_transfer_hash(frame: &mut Frame) {
        if let Frame::Header(header) = frame {
            header.transfer = Some(hie_protocol::id::TransferHash::new([9; 32]));
        }
    }
    let world = World::new();
    let (patient, _) = world.b().hold(&robert(), &[]).await;
    let body = vec![3; 400_000];
    world.b().hold_instance(patient, 1, body.clone()).await;
    world.publish().await;
    let asked = asking(1, Purpose::Treatment);
    let remote = granted(&replies(&world.a().ask(&asked, &robert()).await)[&world.b().id]).remove(0);
    type Change = Option<fn(&mut Frame)>;
    let changes: [(Change, bool); 5] = [
        (None, true),
        (Some(as_of_version_1), true),
        (Some(flip), false),
        (Some(as_of_version_1_and_flip), false),
        (Some(wrong_transfer_hash), false),
    ];
    for (at, (change, good)) in changes.into_iter().enumerate() {
        *world.net.change.lock().unwrap() = change;
        let pieces = world.a().retriever.study(asked.clone(), remote.clone(), 0, 1);
        let (mut got, mut outcome) = (Vec::new(), Ok(()));
        for piece in pieces.collect::<Vec<_>>().await {
            match piece {
                Ok(StudyPiece::Bytes(bytes)) => got.extend_from_slice(&bytes),
                Ok(StudyPiece::Begin { .. } | StudyPiece::End) => {}
                Err(error) => outcome = Err(error),
            }
        }
        let mut one = world.a().retriever.instance(&asked, &remote, 0, 0).await.unwrap();
        let (mut alone, mut ended) = (Vec::new(), Ok(()));
        while let Some(piece) = one.stream.next().await {
            match piece {
                Ok(bytes) => alone.extend_from_slice(&bytes),
                Err(error) => ended = Err(error),
            }
        }
        if good {
            assert!(outcome.is_ok() && ended.is_ok(), "change {at}: {outcome:?} {ended:?}");
            assert!(got == body && alone == body, "change {at}");
        } else {
            assert!(matches!(outcome, Err(RetrieveError::Hash)), "change {at}: {outcome:?}");
            assert!(matches!(ended, Err(RetrieveError::Hash)), "change {at}: {ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_local_own_users_pass_the_same_door() {
    let world = World::new();
    let (_, taken) = world.b().hold(&robert(), &[("n1", b"from B")]).await;
    let correlation = hie_protocol::id::Correlation::new([1; 16]);
    let mut asker = world.b().asker(hie_protocol::vocabulary::Role::Physician);
    let mut opened = world
        .b()
        .local
        .open(&asker, taken[0].document, correlation, 0)
        .await
        .unwrap();
    assert_eq!(opened.stream.next().await.unwrap().unwrap().as_ref(), b"from B");
    assert_eq!(world.b().entries(EventKind::RecordOpened).len(), 1);
    asker.role = hie_protocol::vocabulary::Role::Operator;
    assert!(matches!(
        world.b().local.open(&asker, taken[0].document, correlation, 0).await,
        Err(LocalError::NothingHere)
    ));
    assert_eq!(
        world.b().entries(EventKind::RecordOpened).len(),
        2,
        "the refusal is recorded too"
    );
}
