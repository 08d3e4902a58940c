#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hie_protocol::id::OrgId;
use hie_protocol::message::{Request, Response};
use tokio::time::Instant;

use super::Attention;
use crate::locator::driver::{Wire, WireFailure};

/// How long a stopped member leaves a request without an answer.
const STOPPED: Duration = Duration::from_secs(20);

/// A member: how long its probes and its other answers take, and whether it is stopped.
#[derive(Default)]
struct Member {
    probe_ms: u64,
    answer_ms: u64,
    stopped: AtomicBool,
    asked: AtomicUsize,
    probed: Mutex<Vec<Instant>>,
}

struct Line(Arc<Member>);

impl Wire for Line {
    fn send(&self, _org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>> {
        let member = Arc::clone(&self.0);
        async move {
            let takes = if matches!(request, Request::Registry { .. }) {
                member.probed.lock().unwrap().push(Instant::now());
                member.probe_ms
            } else {
                member.asked.fetch_add(1, Ordering::SeqCst);
                member.answer_ms
            };
            if member.stopped.load(Ordering::SeqCst) {
                passes(STOPPED).await;
                return Err(WireFailure::TimedOut);
            }
            passes(Duration::from_millis(takes)).await;
            Ok(Response::Taken)
        }
        .boxed()
    }
}

/// The time that an answer takes.
async fn passes(time: Duration) {
    let _elapsed = tokio::time::timeout(time, core::future::pending::<()>()).await;
}

fn org() -> OrgId {
    OrgId::parse("urn:oid:2.999.7.1").unwrap()
}

fn push() -> Request {
    Request::RegistryPush {
        signed: hie_protocol::bytes::Bytes(Vec::new()),
        approvals: Vec::new(),
    }
}

fn attend(member: Member) -> (Attention, Arc<Member>) {
    let member = Arc::new(member);
    (Attention::new(Arc::new(Line(Arc::clone(&member)))), member)
}

#[tokio::test]
async fn spec_x_absent_a_member_without_sign_of_life_is_given_up_and_comes_back() {
    let (attention, member) = attend(Member {
        probe_ms: 1,
        answer_ms: 1,
        ..Member::default()
    });
    let mut absent = attention.absent();
    assert!(attention.send(org(), push()).await.is_ok());
    member.stopped.store(true, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(attention.send(org(), push()).await.unwrap_err(), WireFailure::TimedOut);
    assert!(started.elapsed() < STOPPED, "nobody waits for the whole deadline");
    assert!(absent.borrow_and_update().contains(&org()));
    // What comes while it is absent fails at once, and is not even sent.
    let asked = member.asked.load(Ordering::SeqCst);
    assert_eq!(
        attention.send(org(), push()).await.unwrap_err(),
        WireFailure::Unreachable
    );
    assert_eq!(member.asked.load(Ordering::SeqCst), asked);
    member.stopped.store(false, Ordering::SeqCst);
    absent.wait_for(|absent| absent.is_empty()).await.unwrap();
    assert!(attention.send(org(), push()).await.is_ok());
}

#[tokio::test]
async fn spec_x_absent_a_slow_member_keeps_its_whole_deadline() {
    let (attention, member) = attend(Member {
        probe_ms: 5,
        answer_ms: 1500,
        ..Member::default()
    });
    assert!(attention.send(org(), push()).await.is_ok());
    assert!(attention.absent().borrow().is_empty());
    assert!(!member.probed.lock().unwrap().is_empty(), "a slow member is probed");
}

#[tokio::test]
async fn a_distant_member_is_not_taken_for_absent() {
    let (attention, _member) = attend(Member {
        probe_ms: 600,
        answer_ms: 600,
        ..Member::default()
    });
    for _ in 0..3 {
        assert!(attention.send(org(), push()).await.is_ok());
    }
    assert!(attention.absent().borrow().is_empty());
}

#[tokio::test]
async fn whoever_gives_up_waiting_is_not_counted_any_more() {
    let (attention, member) = attend(Member {
        probe_ms: 1,
        answer_ms: 300,
        ..Member::default()
    });
    let given_up = tokio::time::timeout(Duration::from_millis(50), attention.send(org(), push())).await;
    assert!(given_up.is_err());
    assert_eq!(
        attention.0.known().get(&org()).unwrap().waiting,
        0,
        "nobody waits, so nobody probes"
    );
    assert!(member.probed.lock().unwrap().is_empty());
}
