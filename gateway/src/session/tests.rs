#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;

use hie_protocol::claim::{BreakGlass, BreakGlassReason};
use hie_protocol::id::Millis;
use hie_protocol::vocabulary::{Purpose, Role};

use super::attempts::{FORGET_MS, FREE_FAILURES, WAIT_MS_MAX, WAIT_MS_MIN};
use super::{Attempts, Emergency, IDLE_MS_MAX, LIFE_MS_MAX, Sessions};
use crate::ports::{Principal, SubjectRef};

fn doctor() -> Principal {
    Principal {
        account: "haddad".into(),
        name: "Dr A. Haddad".into(),
        department: None,
        roles: vec![Role::Physician],
    }
}

fn counter() -> impl Fn() -> [u8; 32] {
    let next = Cell::new(0_u8);
    move || {
        next.set(next.get() + 1);
        [next.get(); 32]
    }
}

#[test]
fn a_session_ends_when_idle_and_at_its_limit() {
    let sessions = Sessions::default();
    let token = sessions.open(doctor(), Millis(0), counter());
    assert!(sessions.find(&token, Millis(IDLE_MS_MAX), true).is_some());
    assert!(
        sessions.find(&token, Millis(2 * IDLE_MS_MAX), false).is_some(),
        "a look without touch does not prolong"
    );
    assert!(sessions.find(&token, Millis(2 * IDLE_MS_MAX + 1), true).is_none());

    let token = sessions.open(doctor(), Millis(0), counter());
    let mut now = 0;
    while now + IDLE_MS_MAX <= LIFE_MS_MAX {
        now += IDLE_MS_MAX;
        assert!(sessions.find(&token, Millis(now), true).is_some());
    }
    assert!(sessions.find(&token, Millis(LIFE_MS_MAX + 1), true).is_none());
}

#[test]
fn emergency_access_holds_for_one_subject_and_ends() {
    let sessions = Sessions::default();
    let token = sessions.open(doctor(), Millis(0), counter());
    let session = sessions.find(&token, Millis(0), true).unwrap();
    let grace = SubjectRef("one".into());
    let declared = BreakGlass {
        reason: BreakGlassReason::LifeAtRisk,
        words: "unconscious".into(),
        declared: Millis(0),
    };
    assert!(sessions.declare(
        session.id,
        grace.clone(),
        Emergency {
            declared,
            ends: Millis(60_000)
        },
        Millis(0)
    ));
    let session = sessions.find(&token, Millis(1), true).unwrap();
    let caller = session.caller(&[Role::Physician], Some(&grace), Millis(59_999));
    assert_eq!(caller.purpose, Purpose::BreakGlass);
    assert!(caller.break_glass.is_some());
    for (about, at) in [
        (Some(&grace), 60_000),
        (Some(&SubjectRef("other".into())), 1),
        (None, 1),
    ] {
        let caller = session.caller(&[Role::Physician], about, Millis(at));
        assert_eq!(caller.purpose, Purpose::Treatment);
        assert!(caller.break_glass.is_none());
    }
    sessions.withdraw(session.id, &grace);
    assert!(
        sessions
            .find(&token, Millis(1), true)
            .unwrap()
            .emergency(&grace, Millis(1))
            .is_none()
    );
}

#[test]
fn a_closed_or_unknown_session_is_not_found() {
    let sessions = Sessions::default();
    let token = sessions.open(doctor(), Millis(0), counter());
    let id = sessions.find(&token, Millis(0), true).unwrap().id;
    assert!(sessions.find("00", Millis(0), true).is_none());
    sessions.close(id);
    assert!(sessions.find(&token, Millis(0), true).is_none());
    assert!(!sessions.lives(id, Millis(0)));
}

#[test]
fn failures_slow_down_and_are_forgotten() {
    let attempts = Attempts::default();
    for _ in 0..FREE_FAILURES - 1 {
        attempts.failed("a", Millis(0));
    }
    assert_eq!(attempts.wait_ms("a", Millis(0)), 0);
    attempts.failed("a", Millis(0));
    assert_eq!(attempts.wait_ms("a", Millis(0)), WAIT_MS_MIN);
    assert_eq!(attempts.wait_ms("a", Millis(WAIT_MS_MIN)), 0);
    assert_eq!(attempts.wait_ms("b", Millis(0)), 0);
    for _ in 0..20 {
        attempts.failed("a", Millis(0));
    }
    assert_eq!(attempts.wait_ms("a", Millis(0)), WAIT_MS_MAX);
    assert_eq!(attempts.wait_ms("a", Millis(FORGET_MS + 1)), 0);
    attempts.succeeded("a");
    assert_eq!(attempts.wait_ms("a", Millis(0)), 0);
}
