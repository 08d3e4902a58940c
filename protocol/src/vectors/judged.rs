//! Signed things and how they are judged: `signatures.json`, `registry.json`, `claims.json` in `protocol/vectors`.

use serde_json::{Value, json};

use super::{NOW, claim, frozen, member, org, receipt, record, registry, registry_of_version_2};
use crate::cbor;
use crate::claim::{BreakGlass, BreakGlassReason, Claim};
use crate::id::{Millis, NodeKey};
use crate::registry::{MEMBERS_MAX, NODES_MAX, NodeEntry, Registry, Standing};
use crate::sign::{self, DOMAIN_CLAIM, DOMAIN_RECEIPT, DOMAIN_RECORD, DOMAIN_REGISTRY, Signer, tests::TestKey};
use crate::vocabulary::Purpose;

#[test]
fn spec_p_sign_vectors_do_not_change() {
    let things = [
        ("registry", DOMAIN_REGISTRY, cbor::encode(&registry()).unwrap()),
        ("index-record", DOMAIN_RECORD, cbor::encode(&record(1)).unwrap()),
        ("claim", DOMAIN_CLAIM, cbor::encode(&claim()).unwrap()),
        ("receipt", DOMAIN_RECEIPT, cbor::encode(&receipt()).unwrap()),
    ];
    let mut cases: Vec<Value> = Vec::new();
    let key = TestKey::new(1);
    let refused = |name: &str, domain: &str, public: &TestKey, signed: &[u8]| {
        assert!(
            sign::verify(domain, signed, 1 << 20, |_| Some(public.public())).is_err(),
            "{name}"
        );
        json!({
            "name": name, "outcome": "refused", "domain": domain, "public": public.public().to_hex(),
            "signed": hex::encode(signed),
        })
    };
    for (rule, domain, payload) in things {
        let signed = sign::sign(domain, payload.clone(), &key).unwrap();
        let verified = sign::verify(domain, &signed, 1 << 20, |_| Some(key.public())).unwrap();
        assert_eq!(verified.payload, payload);
        cases.push(json!({
            "name": rule, "outcome": "verified", "rule": format!("signed-{}", rule.replace("index-", "")), "domain": domain,
            "seed": hex::encode([1; 32]), "node": key.node().to_hex(), "public": key.public().to_hex(),
            "payload": hex::encode(payload), "signed": hex::encode(&signed),
        }));
        let other = if domain == DOMAIN_CLAIM {
            DOMAIN_RECORD
        } else {
            DOMAIN_CLAIM
        };
        cases.push(refused(&format!("{rule} of another domain"), other, &key, &signed));
        cases.push(refused(
            &format!("{rule} of another key"),
            domain,
            &TestKey::new(2),
            &signed,
        ));
        let (mut content, mut signature) = (signed.clone(), signed.clone());
        content[60] ^= 1;
        *signature.last_mut().unwrap() ^= 0x80;
        cases.push(refused(&format!("{rule} with another content"), domain, &key, &content));
        cases.push(refused(
            &format!("{rule} with another signature"),
            domain,
            &key,
            &signature,
        ));
    }
    let about = "COSE_Sign1 with Ed25519; the node key of vectors is the seed's byte 32 times";
    frozen("signatures.json", &json!({ "about": about, "cases": cases }));
}

/// A registry as offered to a node, signed whether or not it breaks a rule.
fn offered(name: &str, why: &str, registry: &Registry, signer: u8, held: Option<u64>) -> Value {
    let signed = sign::sign(DOMAIN_REGISTRY, cbor::encode(registry).unwrap(), &TestKey::new(signer)).unwrap();
    let taken = Registry::verify(&signed, TestKey::new(1).public(), held);
    assert_eq!(taken.is_ok(), why.is_empty(), "{name}: {taken:?}");
    json!({
        "name": name, "outcome": if why.is_empty() { "taken" } else { "refused" }, "why": why, "held": held,
        "authority": TestKey::new(1).public().to_hex(), "signed": hex::encode(signed),
    })
}

fn changed(change: impl FnOnce(&mut Registry)) -> Registry {
    let mut registry = registry();
    change(&mut registry);
    registry
}

#[test]
fn spec_p_reg_vectors_do_not_change() {
    let entry = |seed: u8| NodeEntry {
        key: NodeKey::new([seed; 32]),
        ..member(1).nodes.remove(0)
    };
    let many = (0..=MEMBERS_MAX).map(|number| crate::registry::Member {
        org: crate::id::OrgId::parse(&format!("urn:oid:2.999.{}", 1000 + number)).unwrap(),
        nodes: Vec::new(),
        roles: Vec::new(),
        name: String::new(),
        ..member(1)
    });
    let nodes = (0..=NODES_MAX)
        .map(|seed| entry(u8::try_from(seed).unwrap() + 9))
        .collect();
    let cases = vec![
        offered("first", "", &registry(), 1, None),
        offered("the same version again", "", &registry(), 1, Some(7)),
        offered(
            "newer, with every field of version 2",
            "",
            &registry_of_version_2(),
            1,
            Some(7),
        ),
        offered(
            "a member is revoked",
            "",
            &changed(|it| it.members[1].standing = Standing::Revoked(NOW)),
            1,
            Some(6),
        ),
        offered("another signer", "signature", &registry(), 2, None),
        offered("an older version", "rollback", &registry(), 1, Some(8)),
        offered(
            "members out of order",
            "rule 2",
            &changed(|it| it.members.reverse()),
            1,
            None,
        ),
        offered(
            "a member twice",
            "rule 2",
            &changed(|it| it.members.insert(0, member(1))),
            1,
            None,
        ),
        offered(
            "a node key twice",
            "rule 2",
            &changed(|it| it.members[1].nodes[0].key = NodeKey::new([1; 32])),
            1,
            None,
        ),
        offered(
            "nine nodes",
            "rule 1",
            &changed(|it| it.members[0].nodes = nodes),
            1,
            None,
        ),
        offered(
            "1001 members",
            "rule 1",
            &changed(|it| it.members = many.collect()),
            1,
            None,
        ),
        offered(
            "a name of 201 characters",
            "rule 1",
            &changed(|it| it.members[0].name = "x".repeat(201)),
            1,
            None,
        ),
        offered("no replicas", "rule 3", &changed(|it| it.policy.replicas = 0), 1, None),
        offered(
            "no write quorum",
            "rule 3",
            &changed(|it| it.policy.write_quorum = 0),
            1,
            None,
        ),
        offered(
            "a write quorum over the replicas",
            "rule 3",
            &changed(|it| it.policy.write_quorum = 4),
            1,
            None,
        ),
        offered(
            "short-lived tombstones",
            "rule 4",
            &changed(|it| it.policy.tombstone_life_ms = it.policy.record_life_ms),
            1,
            None,
        ),
    ];
    let mut quorums = Vec::new();
    for (replicas, write_quorum) in [(1, 1), (3, 1), (3, 2), (3, 3), (5, 3)] {
        let policy = changed(|it| (it.policy.replicas, it.policy.write_quorum) = (replicas, write_quorum)).policy;
        for holders in 1..=6 {
            let (of, write, read) = (
                policy.replicas_of(holders),
                policy.write_quorum_of(holders),
                policy.read_quorum_of(holders),
            );
            quorums.push(json!([replicas, write_quorum, holders, of, write, read]));
        }
    }
    let about = "registries offered to a node that holds the version 'held'; why names the rule of SPEC.md section 3. quorums: replicas, write_quorum, holders, R, W, read";
    frozen(
        "registry.json",
        &json!({ "about": about, "cases": cases, "quorums": quorums }),
    );
}

struct Judged {
    channel: u8,
    audience: u8,
    now: Millis,
    signer: u8,
}

const FITTING: Judged = Judged {
    channel: 1,
    audience: 2,
    now: NOW,
    signer: 1,
};

fn judged(name: &str, why: &str, claim: &Claim, by: &Judged) -> Value {
    let signed = sign::sign(DOMAIN_CLAIM, cbor::encode(claim).unwrap(), &TestKey::new(by.signer)).unwrap();
    let mut registry = registry();
    registry.members.push(member(3));
    registry.members[2].standing = Standing::Revoked(NOW);
    let (channel, audience) = (NodeKey::new([by.channel; 32]), org(by.audience));
    let taken = Claim::verify(&signed, &registry, &channel, &audience, by.now);
    assert_eq!(taken.is_ok(), why.is_empty(), "{name}: {taken:?}");
    json!({
        "name": name, "outcome": if why.is_empty() { "taken" } else { "refused" }, "why": why, "channel": channel.to_hex(),
        "audience": audience.as_str(), "now": by.now.0, "registry": hex::encode(cbor::encode(&registry).unwrap()),
        "signed": hex::encode(signed),
    })
}

fn altered(change: impl FnOnce(&mut Claim)) -> Claim {
    let mut claim = claim();
    change(&mut claim);
    claim
}

fn by(change: impl FnOnce(&mut Judged)) -> Judged {
    let mut judged = FITTING;
    change(&mut judged);
    judged
}

#[test]
fn spec_p_claim_vectors_do_not_change() {
    let plain = altered(|it| (it.purpose, it.break_glass) = (Purpose::Treatment, None));
    let third = altered(|it| (it.org, it.node) = (org(3), NodeKey::new([3; 32])));
    let declared = BreakGlass {
        reason: BreakGlassReason::CareNow,
        words: "x".repeat(201),
        declared: NOW,
    };
    let cases = vec![
        judged("an emergency", "", &claim(), &FITTING),
        judged("treatment", "", &plain, &FITTING),
        judged("30 s ahead", "", &claim(), &by(|it| it.now = Millis(NOW.0 - 30_000))),
        judged("30 s past its end", "", &claim(), &by(|it| it.now = NOW.plus(90_000))),
        judged(
            "made in the future",
            "time",
            &claim(),
            &by(|it| it.now = Millis(NOW.0 - 30_001)),
        ),
        judged("ended", "time", &claim(), &by(|it| it.now = NOW.plus(90_001))),
        judged("over another channel", "channel", &claim(), &by(|it| it.channel = 2)),
        judged("for somebody else", "audience", &claim(), &by(|it| it.audience = 1)),
        judged("signed by another member", "signer", &claim(), &by(|it| it.signer = 2)),
        judged(
            "of another organisation",
            "org",
            &altered(|it| it.org = org(2)),
            &FITTING,
        ),
        judged(
            "of a revoked member",
            "signer",
            &third,
            &by(|it| (it.signer, it.channel) = (3, 3)),
        ),
        judged(
            "lives too long",
            "life",
            &altered(|it| it.expires = NOW.plus(60_001)),
            &FITTING,
        ),
        judged(
            "ends before it starts",
            "life",
            &altered(|it| it.expires = Millis(NOW.0 - 1)),
            &FITTING,
        ),
        judged(
            "BTG without declaration",
            "emergency",
            &altered(|it| it.break_glass = None),
            &FITTING,
        ),
        judged(
            "a declaration without BTG",
            "emergency",
            &altered(|it| it.purpose = Purpose::Treatment),
            &FITTING,
        ),
        judged(
            "a user's name too long",
            "text",
            &altered(|it| it.user_name = "x".repeat(201)),
            &FITTING,
        ),
        judged(
            "a reason too long",
            "text",
            &altered(|it| it.break_glass = Some(declared)),
            &FITTING,
        ),
        judged(
            "an encounter too long",
            "text",
            &altered(|it| it.evidence.as_mut().unwrap().encounter = "x".repeat(201)),
            &FITTING,
        ),
    ];
    let about = "claims that arrive over the channel of a node, for an audience, at a time; registry is the payload of the registry in force";
    frozen("claims.json", &json!({ "about": about, "cases": cases }));
}
