#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_node_pki::csr;
use hie_node_pki::key::Key;
use hie_node_pki::x509;
use hie_protocol::bytes::Bytes;
use hie_protocol::charter::{Approval, Held, Verdict};
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::{ConsentModel, MemberKind, MemberRole, Officer, Officers, Registry, Standing};
use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use super::change::{Change, Effect, differences};
use super::enrol::{EnrolAnswer, EnrolRequest, Guest};
use super::est::Renewal;
use super::{Authority, CRL_RENEW_MS, DAY_MS, RegionOptions};
use crate::fault::{Exit, Fault};

const NOW: Millis = Millis(1_795_436_523_456);

fn key() -> Key {
    Key::generate(&SystemRandom::new()).unwrap()
}

fn org(last: u8) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.7.{last}")).unwrap()
}

fn region() -> (TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let options = RegionOptions {
        name: "Northport".into(),
        consent: ConsentModel::OptOut,
        address: "127.0.0.1:8440".into(),
        token_threshold: 1,
        token_authorities: 1,
        certificate_days: 7,
    };
    let authority = Authority::init(&folder.path().join("region"), options, NOW).unwrap();
    (folder, authority)
}

fn request(authority: &mut Authority, last: u8, key: &Key, now: Millis) -> EnrolRequest {
    let guest = Guest {
        org: org(last),
        name: format!("Member {last}"),
        kind: MemberKind::Clinic,
        roles: vec![MemberRole::IndexHolder],
        phone: None,
        days: 7,
    };
    let invitation = authority.invite(guest, now).unwrap();
    EnrolRequest {
        secret: Bytes(invitation.secret().to_vec()),
        csr: Bytes(csr::make(key, &org(last)).unwrap()),
        control: Some("a.example:8443".into()),
        bulk: None,
        relays: Vec::new(),
    }
}

/// Joins at once; the chain that the member got.
fn join(authority: &mut Authority, last: u8, key: &Key) -> Vec<CertificateDer<'static>> {
    let request = request(authority, last, key, NOW);
    match authority.enrol(&request, true, NOW).unwrap() {
        EnrolAnswer::Approved(admission) => admission.chain.into_iter().map(|one| one.0.into()).collect(),
        other => panic!("{other:?}"),
    }
}

fn officers(keys: &[&Key], approvals: u8) -> Officers {
    Officers {
        approvals,
        officers: keys
            .iter()
            .enumerate()
            .map(|(at, key)| Officer {
                name: format!("Officer {at}"),
                public: key.public(),
            })
            .collect(),
    }
}

fn approval(authority: &Authority, id: u64, key: &Key) -> Vec<u8> {
    let pending = authority.pending(id).unwrap();
    let approval = Approval {
        region: authority.state.registry.region.clone(),
        charter: pending.charter,
        from: pending.from,
    };
    approval.sign(key).unwrap()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> Fault {
    let fault = outcome.unwrap_err();
    assert_eq!(fault.exit, Exit::Refused, "{fault}");
    fault
}

/// What a member that holds `held` makes of what the authority hands it.
fn as_member(held: &Registry, floor: u64, authority: &Authority) -> Verdict {
    let handed = authority.state.handed(held.version).unwrap();
    let held = Held { registry: held, floor };
    held.judge(&handed, authority.root.public()).unwrap()
}

#[test]
fn spec_p_charter_grants_wait_for_officers_and_taking_away_does_not() {
    let (_folder, mut authority) = region();
    let (one, two, three, stranger) = (key(), key(), key(), key());
    join(&mut authority, 1, &key());
    let rule = officers(&[&one, &two, &three], 2);
    let first = authority.grant(Change::Officers(Some(rule)), NOW).unwrap();
    assert!(
        matches!(first, Effect::Done(_)),
        "the first officers come in without officers"
    );
    let held = authority.state.registry.clone();
    let request = request(&mut authority, 2, &key(), NOW);
    // Even automatic approval waits.
    assert!(matches!(
        authority.enrol(&request, true, NOW).unwrap(),
        EnrolAnswer::Waiting(_)
    ));
    let id = authority.state.pending[0].id;
    let words = differences(&authority.state.registry, &authority.proposal(id).unwrap()).join("\n");
    assert!(words.contains("new member Member 2"), "{words}");
    refused(authority.approve(id, approval(&authority, id, &stranger), NOW));
    assert_eq!(
        authority.approve(id, approval(&authority, id, &one), NOW).unwrap(),
        Effect::Pending(id)
    );
    assert_eq!(
        authority.approve(id, approval(&authority, id, &one), NOW).unwrap(),
        Effect::Pending(id)
    );

    // What is taken away in between holds at once, is kept, and does not void the approval.
    authority.suspend(&org(1), NOW.plus(5)).unwrap();
    let suspended = authority.state.registry.clone();
    assert!(matches!(as_member(&held, 0, &authority), Verdict::Newer { .. }));
    let done = authority
        .approve(id, approval(&authority, id, &three), NOW.plus(9))
        .unwrap();
    assert_eq!(done, Effect::Done(suspended.version + 1));
    assert_eq!(
        authority.state.registry.members[0].standing,
        Standing::Suspended(NOW.plus(5))
    );
    assert_eq!(authority.state.registry.members.len(), 2);
    assert!(matches!(
        authority.enrol(&request, true, NOW).unwrap(),
        EnrolAnswer::Approved(_)
    ));
    // Members take it, from before the suspension and from after.
    assert!(matches!(as_member(&held, 0, &authority), Verdict::Newer { .. }));
    assert!(matches!(as_member(&suspended, 0, &authority), Verdict::Newer { .. }));
}

#[test]
fn spec_p_charter_an_approval_counts_for_one_charter_only() {
    let (_folder, mut authority) = region();
    let (one, two) = (key(), key());
    join(&mut authority, 1, &key());
    authority
        .grant(Change::Officers(Some(officers(&[&one, &two], 2))), NOW)
        .unwrap();
    let roles = |roles: &[MemberRole]| Change::Roles {
        org: org(1),
        roles: roles.to_vec(),
    };
    let pending = |effect: Effect| match effect {
        Effect::Pending(id) => id,
        Effect::Done(version) => panic!("in force with {version}"),
    };
    let witness = pending(authority.grant(roles(&[MemberRole::Witness]), NOW).unwrap());
    let relay = pending(authority.grant(roles(&[MemberRole::Relay]), NOW).unwrap());
    let early = approval(&authority, relay, &one);
    authority.approve(relay, early.clone(), NOW).unwrap();
    for officer in [&one, &two] {
        authority
            .approve(witness, approval(&authority, witness, officer), NOW)
            .unwrap();
    }
    assert_eq!(authority.state.registry.members[0].roles, [MemberRole::Witness]);
    // The other change now follows another registry: what was approved of it counts no more.
    let again = authority.pending(relay).unwrap();
    assert!(again.approvals.is_empty() && again.from > authority.state.floor);
    refused(authority.approve(relay, early, NOW));
    authority.withdraw(relay).unwrap();
    assert!(authority.pending(relay).is_err());
    // The office cannot go round its officers by its own state.
    authority.state.registry.members[0].roles = vec![MemberRole::Relay];
    refused(authority.publish(NOW));
}

#[test]
fn spec_p_charter_who_is_behind_is_given_the_hand_over_first() {
    let (_folder, mut authority) = region();
    let (one, two, three) = (key(), key(), key());
    join(&mut authority, 1, &key());
    authority
        .grant(Change::Officers(Some(officers(&[&one, &two], 2))), NOW)
        .unwrap();
    let old = authority.state.registry.clone();
    let mut grant = |change: Change, by: &[&Key]| {
        let Effect::Pending(id) = authority.grant(change, NOW).unwrap() else {
            panic!("it did not wait");
        };
        for officer in by {
            authority.approve(id, approval(&authority, id, officer), NOW).unwrap();
        }
        assert!(authority.pending(id).is_err());
    };
    grant(Change::Officers(Some(officers(&[&three], 1))), &[&one, &two]);
    grant(
        Change::Roles {
            org: org(1),
            roles: vec![],
        },
        &[&three],
    );
    let (mut held, mut floor, mut steps) = (old, 0, 0);
    while held.version < authority.state.registry.version {
        let Verdict::Newer {
            registry, floor: next, ..
        } = as_member(&held, floor, &authority)
        else {
            panic!("nothing newer");
        };
        (held, floor, steps) = (*registry, next, steps + 1);
    }
    assert_eq!(steps, 2);
}

#[test]
fn spec_p_suspend_a_member_returns_with_a_new_term() {
    let (folder, mut authority) = region();
    let node = key();
    let chain = join(&mut authority, 1, &node);
    authority.suspend(&org(1), NOW.plus(5)).unwrap();
    refused(authority.suspend(&org(1), NOW.plus(6)));
    let csr = csr::make(&node, &org(1)).unwrap();
    let fault = refused(authority.renew(&chain, &csr, true, NOW.plus(7)));
    assert!(fault.why.contains("suspended"), "{fault}");
    let suspended = authority.state.registry.clone();
    authority.grant(Change::Reinstate { org: org(1) }, NOW.plus(8)).unwrap();
    let member = &authority.state.registry.members[0];
    assert_eq!((member.standing, member.term), (Standing::Active, 1));
    assert!(matches!(as_member(&suspended, 0, &authority), Verdict::Newer { .. }));
    refused(authority.grant(Change::Reinstate { org: org(1) }, NOW.plus(9)));
    // Its certificate was never revoked; a revoked member's is, and it does not return by reinstatement.
    assert!(matches!(
        authority.renew(&chain, &csr, true, NOW.plus(9)).unwrap(),
        Renewal::Issued(_)
    ));
    authority.revoke(&org(1), NOW.plus(10)).unwrap();
    refused(authority.grant(Change::Reinstate { org: org(1) }, NOW.plus(11)));
    assert!(
        refused(authority.renew(&chain, &csr, true, NOW.plus(12)))
            .why
            .contains("revoked")
    );
    // All of it is on disk.
    let kept = authority.state.clone();
    drop(authority);
    assert_eq!(Authority::open(&folder.path().join("region")).unwrap().state, kept);
}

#[test]
fn spec_p_est_the_same_key_renews_and_a_new_key_waits() {
    let (_folder, mut authority) = region();
    let (node, fresh, other) = (key(), key(), key());
    let chain = join(&mut authority, 1, &node);
    join(&mut authority, 2, &other);
    let version = authority.state.registry.version;
    let later = NOW.plus(5 * DAY_MS);
    let same = csr::make(&node, &org(1)).unwrap();
    let Renewal::Issued(leaf) = authority.renew(&chain, &same, false, later).unwrap() else {
        panic!("the same key waits");
    };
    let facts = x509::certificate(&leaf).unwrap();
    assert_eq!((facts.node, facts.org), (node.node_key(), Some(org(1))));
    assert_eq!(facts.not_after.0 / 1000, later.plus(7 * DAY_MS).0 / 1000);
    assert_eq!(
        authority.state.registry.version, version,
        "a renewal changes no registry"
    );

    let new = csr::make(&fresh, &org(1)).unwrap();
    assert_eq!(authority.renew(&chain, &new, false, later).unwrap(), Renewal::Waiting);
    assert_eq!(authority.renew(&chain, &new, false, later).unwrap(), Renewal::Waiting);
    assert_eq!(
        authority
            .state
            .requested
            .iter()
            .filter(|one| one.beside.is_some())
            .count(),
        1
    );
    let id = authority.state.requested.last().unwrap().id;
    authority.decide(id, true, later).unwrap();
    assert_eq!(authority.state.registry.members[0].nodes.len(), 2);
    assert!(matches!(
        authority.renew(&chain, &new, false, later).unwrap(),
        Renewal::Issued(_)
    ));
    // The old key goes, and its certificates with it.
    let drop_old = Change::DropNode {
        org: org(1),
        node: node.node_key(),
    };
    authority.grant(drop_old, later).unwrap();
    refused(authority.renew(&[leaf.into()], &same, false, later));

    // Nobody renews with another member's key, without a certificate, or past its end.
    let chain = join(&mut authority, 3, &key());
    let theirs = csr::make(&other, &org(3)).unwrap();
    refused(authority.renew(&chain, &theirs, true, NOW));
    refused(authority.renew(&[], &same, true, NOW));
    let ended = authority.renew(&chain, &theirs, true, NOW.plus(8 * DAY_MS));
    assert!(refused(ended).why.contains("expired"));
    let mut broken = new.clone();
    *broken.last_mut().unwrap() ^= 1;
    refused(authority.renew(&chain, &broken, true, NOW));
}

#[test]
fn the_revocation_list_outlives_an_outage_and_time_never_goes_back() {
    let (_folder, mut authority) = region();
    assert!(!authority.is_stale(NOW.plus(CRL_RENEW_MS - 1)) && authority.is_stale(NOW.plus(CRL_RENEW_MS)));
    let until = x509::crl(&authority.state.registry.crl).unwrap().next_update.unwrap();
    assert!(until.since(NOW.plus(CRL_RENEW_MS)) >= 72 * 3_600_000);
    authority.publish(NOW.plus(DAY_MS)).unwrap();
    authority.publish(NOW).unwrap();
    assert_eq!(authority.state.registry.issued, NOW.plus(DAY_MS));
}
