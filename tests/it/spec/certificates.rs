//! The order in which certificates are judged: the first reason that applies is the one given.

use hie_node_pki::authority::{Approved, RegionAuthority, Revoked, Validity};
use hie_node_pki::csr::{CheckedCsr, make};
use hie_node_pki::key::Key;
use hie_node_pki::membership::Membership;
use hie_node_pki::refusal::CertificateRefusal;
use hie_node_pki::verify::{Side, judge_at};
use hie_node_pki::x509;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, NodeEntry, RegionPolicy, Registry, Standing, TokenParameters,
};
use ring::rand::SystemRandom;
use rustls_pki_types::CertificateDer;

const NOW: Millis = Millis(1_790_000_000_000);
const DAY: u64 = 86_400_000;

fn days(from: u64, to: u64) -> Validity {
    Validity {
        not_before: Millis(NOW.0 - from * DAY),
        not_after: Millis(NOW.0 + to * DAY),
    }
}

fn past() -> Validity {
    Validity {
        not_before: Millis(NOW.0 - 9 * DAY),
        not_after: Millis(NOW.0 - DAY),
    }
}

fn key() -> Key {
    Key::generate(&SystemRandom::new()).unwrap()
}

struct Region {
    authority: RegionAuthority,
    registry: Registry,
    member: Key,
}

/// A region with one member.
fn region() -> Region {
    let authority = RegionAuthority::create(key(), "region", days(9, 99), [1; 16]).unwrap();
    let member = key();
    let entry = Member {
        org: OrgId::parse("urn:oid:2.999.1").unwrap(),
        name: "One".into(),
        kind: MemberKind::Clinic,
        nodes: vec![NodeEntry {
            key: member.node_key(),
            public: member.public(),
            control: None,
            bulk: None,
            relays: Vec::new(),
        }],
        roles: Vec::new(),
        standing: Standing::Active,
        phone: None,
        term: 0,
    };
    let policy = RegionPolicy {
        consent: ConsentModel::OptOut,
        break_glass: BreakGlassRules {
            allowed: false,
            minutes: 0,
            tell_withheld: false,
        },
        replicas: 1,
        write_quorum: 1,
        record_life_ms: 1,
        tombstone_life_ms: 2,
        tokens: TokenParameters {
            profile: "norm-1".into(),
            epoch: 1,
            threshold: 1,
            authorities: Vec::new(),
            resharing: None,
            beside: None,
        },
        officers: None,
    };
    let registry = Registry {
        region: "region".into(),
        version: 1,
        issued: NOW,
        root: authority.root().to_vec(),
        crl: authority.revocation_list(&[], 1, days(1, 1)).unwrap(),
        members: vec![entry],
        policy,
    };
    Region {
        authority,
        registry,
        member,
    }
}

/// A leaf for a key: organisation 2.999.<last>.
fn leaf(authority: &RegionAuthority, key: &Key, last: u8, validity: Validity) -> Vec<u8> {
    let org = OrgId::parse(&format!("urn:oid:2.999.{last}")).unwrap();
    let request = CheckedCsr::check(&make(key, &org).unwrap()).unwrap();
    let approved = Approved {
        org,
        hosts: vec!["127.0.0.1".into(), "one.example".into()],
        validity,
        serial: [last; 16],
    };
    authority.issue(&request, &approved).unwrap()
}

#[test]
fn spec_p_cert_the_first_reason_that_applies_is_given() {
    let region = region();
    let judge = |registry: &Registry, leaf: &[u8]| {
        let membership = Membership::from_registry(registry).unwrap();
        judge_at(&membership, &CertificateDer::from(leaf), &[], Side::Client, NOW).map(|peer| peer.org().to_string())
    };
    let (authority, good) = (
        &region.authority,
        leaf(&region.authority, &region.member, 1, days(1, 9)),
    );
    assert_eq!(judge(&region.registry, &good), Ok("urn:oid:2.999.1".into()));

    let mut listed = region.registry.clone();
    let serial = |der: &[u8]| x509::certificate(der).unwrap().serial;
    let (ended, unknown) = (
        leaf(authority, &region.member, 1, past()),
        leaf(authority, &key(), 2, days(1, 9)),
    );
    let entries = [&good, &ended, &unknown].map(|der| Revoked {
        serial: serial(der),
        at: NOW,
        compromised: true,
    });
    listed.crl = authority.revocation_list(&entries, 2, days(1, 1)).unwrap();
    let mut stale = region.registry.clone();
    stale.crl = authority.revocation_list(&entries, 2, past()).unwrap();
    let mut suspended = region.registry.clone();
    suspended.members[0].standing = Standing::Suspended(NOW);
    let other = RegionAuthority::create(key(), "region", days(9, 99), [1; 16]).unwrap();
    let own = RegionAuthority::create(region.member.clone(), "urn:oid:2.999.1", past(), [9; 16]).unwrap();
    let misnamed = leaf(authority, &region.member, 3, days(1, 9));

    use CertificateRefusal::{
        Expired, ForeignAuthority, Malformed, NotInRegistry, NotYetValid, Revoked as OnList, SelfSigned, StaleCrl,
        Suspended,
    };
    let future = Validity {
        not_before: Millis(NOW.0 + DAY),
        not_after: Millis(NOW.0 + 2 * DAY),
    };
    let long = [good.as_slice(), &[0; 4096]].concat();
    for (what, registry, der, reason) in [
        ("over its size", &listed, long, Malformed),
        ("not DER", &listed, vec![0x30, 0x80, 0, 0], Malformed),
        ("self-signed and ended", &listed, own.root().to_vec(), SelfSigned),
        ("ended and on the list", &listed, ended, Expired),
        (
            "to come",
            &region.registry,
            leaf(authority, &region.member, 1, future),
            NotYetValid,
        ),
        (
            "of another root",
            &stale,
            leaf(&other, &region.member, 1, days(1, 9)),
            ForeignAuthority,
        ),
        ("a stale list that names it", &stale, good.clone(), StaleCrl),
        ("on the list and unknown", &listed, unknown, OnList),
        (
            "unknown",
            &region.registry,
            leaf(authority, &key(), 2, days(1, 9)),
            NotInRegistry,
        ),
        ("suspended and misnamed", &suspended, misnamed.clone(), Suspended),
        ("misnamed", &region.registry, misnamed, Malformed),
    ] {
        assert_eq!(judge(registry, &der), Err(reason), "{what}");
    }
}
