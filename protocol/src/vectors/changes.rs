//! Charters and their approvals, digests of sets, keys passed on: `charter.json`, `digest.json`, `reshare.json` in
//! `protocol/vectors`.

use serde_json::{Value, json};

use super::{NOW, frozen, member, registry, registry_of_version_2};
use crate::bytes::Bytes;
use crate::cbor;
use crate::charter::{Approval, Handed, Held, Verdict, key_name};
use crate::digest::VersionSum;
use crate::id::{IndexKey, Millis, NodeKey, OrgId, RecordHandle, Sequence, Signature};
use crate::oprf::key::{KeyShare, deal_secret};
use crate::oprf::reshare::{Part, Plan, accept, deal, take};
use crate::registry::{Registry, Resharing, ShareSeat, Standing};
use crate::sign::{Signer, tests::TestKey};

/// An officer's key under its own name.
struct OfficerKey(TestKey);

impl Signer for OfficerKey {
    fn node(&self) -> NodeKey {
        key_name(&self.0.public())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

fn approval(by: u8, registry: &Registry, from: u64) -> Vec<u8> {
    let approval = Approval {
        region: registry.region.clone(),
        charter: registry.charter().unwrap(),
        from,
    };
    approval.sign(&OfficerKey(TestKey::new(by))).unwrap()
}

/// The registry in force: officers 5 and 6 of which two approve, a suspended and a revoked member.
fn held() -> Registry {
    registry_of_version_2()
}

fn next(change: impl FnOnce(&mut Registry)) -> Registry {
    let mut next = held();
    next.version = 10;
    change(&mut next);
    next
}

fn offered(name: &str, why: &str, next: &Registry, approvals: &[Vec<u8>]) -> Value {
    let held = held();
    let floor = 8;
    let handed = Handed {
        signed: Bytes(next.sign(&TestKey::new(1)).unwrap()),
        approvals: approvals.iter().cloned().map(Bytes).collect(),
    };
    let judge = Held { registry: &held, floor };
    let verdict = judge.judge(&handed, TestKey::new(1).public());
    assert_eq!(verdict.is_ok(), why.is_empty(), "{name}: {verdict:?}");
    let after = match verdict {
        Ok(Verdict::Newer { floor, .. }) => floor,
        Ok(Verdict::Same) | Err(_) => floor,
    };
    json!({
        "name": name, "outcome": if why.is_empty() { "taken" } else { "refused" }, "why": why, "floor": floor, "floor_after": after,
        "held": hex::encode(cbor::encode(&held).unwrap()), "authority": TestKey::new(1).public().to_hex(),
        "handed": hex::encode(cbor::encode(&handed).unwrap()), "charter": next.charter().unwrap().to_hex(),
    })
}

#[test]
fn spec_p_charter_vectors_do_not_change() {
    let grown = next(|it| it.members.push(member(5)));
    let other = next(|it| it.members.push(member(6)));
    let both = |registry: &Registry, from: u64| vec![approval(5, registry, from), approval(6, registry, from)];
    let standing = |standing: Standing, term: u32| {
        next(|it| {
            it.members[2].standing = standing;
            it.members[2].term = term;
        })
    };
    let returned = standing(Standing::Active, 3);
    let mut foreign = grown.clone();
    foreign.region = "Southport Region".into();
    let cases = vec![
        offered("the one in force", "", &held(), &[]),
        offered(
            "a member falls",
            "",
            &next(|it| it.members[0].standing = Standing::Revoked(NOW)),
            &[],
        ),
        offered("a fresh list", "", &next(|it| it.crl = vec![9]), &[]),
        offered(
            "a suspended member is revoked",
            "",
            &standing(Standing::Revoked(NOW), 2),
            &[],
        ),
        offered("a new member, approved by both", "", &grown, &both(&grown, 9)),
        offered(
            "approved from different versions",
            "",
            &grown,
            &[approval(5, &grown, 10), approval(6, &grown, 9)],
        ),
        offered("a return, approved", "", &returned, &both(&returned, 10)),
        offered(
            "an approval too many, of a stranger",
            "",
            &grown,
            &[both(&grown, 9), vec![approval(7, &grown, 9)]].concat(),
        ),
        offered("approved by nobody", "approvals", &grown, &[]),
        offered("approved by one", "approvals", &grown, &[approval(5, &grown, 9)]),
        offered(
            "approved twice by one",
            "approvals",
            &grown,
            &[approval(5, &grown, 9), approval(5, &grown, 10)],
        ),
        offered(
            "approved by a stranger",
            "approvals",
            &grown,
            &[approval(5, &grown, 9), approval(7, &grown, 9)],
        ),
        offered("approvals of another charter", "approvals", &grown, &both(&other, 9)),
        offered("approvals of another region", "approvals", &grown, &both(&foreign, 9)),
        offered("approvals not above the floor", "approvals", &grown, &both(&grown, 8)),
        offered("approvals for a later version", "approvals", &grown, &both(&grown, 11)),
        offered("older", "rollback", &next(|it| it.version = 7), &[]),
        offered(
            "another of the same version",
            "equivocation",
            &next(|it| (it.version, it.crl) = (8, vec![9])),
            &[],
        ),
        offered(
            "signed earlier",
            "backdated",
            &next(|it| it.issued = Millis(NOW.0 - 1)),
            &[],
        ),
        offered(
            "another region",
            "region",
            &next(|it| it.region = "Southport Region".into()),
            &[],
        ),
        offered("another root", "region", &next(|it| it.root = vec![9]), &[]),
        offered(
            "a return without a new term",
            "standing",
            &standing(Standing::Active, 2),
            &[],
        ),
        offered(
            "a later fall",
            "standing",
            &standing(Standing::Suspended(NOW.plus(1)), 2),
            &[],
        ),
        offered("a lower term", "standing", &standing(Standing::Suspended(NOW), 1), &[]),
        offered(
            "a revoked member returns",
            "standing",
            &next(|it| it.members[3].standing = Standing::Active),
            &[],
        ),
    ];
    let plain = registry().charter().unwrap().to_hex();
    let about = "registries offered to a node with a registry in force (its payload) and a floor; charter is the hash of what is offered";
    frozen(
        "charter.json",
        &json!({ "about": about, "cases": cases, "charter of version 1": [[hex::encode(cbor::encode(&registry()).unwrap()), plain]] }),
    );
}

#[test]
fn spec_f_digest_vectors_do_not_change() {
    let version = |at: u8| {
        (
            IndexKey::new([at; 32]),
            RecordHandle::new([at; 16]),
            Sequence(u64::from(at)),
        )
    };
    let sets: [(&str, Vec<u8>); 4] = [
        ("nothing", vec![]),
        ("one", vec![7]),
        ("three", vec![1, 2, 3]),
        ("two hundred", (0..200).collect()),
    ];
    let mut cases: Vec<Value> = Vec::new();
    for (name, members) in sets {
        let mut sum = VersionSum::default();
        let mut versions = Vec::new();
        for (key, handle, sequence) in members.into_iter().map(version) {
            sum.add(&key, &handle, sequence);
            versions.push(json!([key.to_hex(), handle.to_hex(), sequence.0]));
        }
        cases.push(json!({ "name": name, "versions": versions, "count": sum.count, "hash": sum.hash().to_hex() }));
    }
    let about = "sets of versions of records (index key, handle, sequence) and their digests";
    frozen("digest.json", &json!({ "about": about, "cases": cases }));
}

fn part_json(part: &Part) -> Value {
    json!({ "commitments": part.commitments.iter().map(hex::encode).collect::<Vec<_>>(), "value": hex::encode(part.value) })
}

/// A scalar below the group's order.
fn scalar(byte: u8) -> [u8; 32] {
    let mut number = [byte; 32];
    number[31] = 1;
    number
}

#[test]
fn spec_m_reshare_vectors_do_not_change() {
    let mut random = |buffer: &mut [u8]| {
        buffer.fill(0);
        buffer[..32].copy_from_slice(&scalar(0x31));
    };
    let (group, shares) = deal_secret(&scalar(0x30), 2, 3, &mut random).unwrap();
    let seat = |index: u16| ShareSeat {
        index,
        org: OrgId::parse(&format!("urn:oid:2.999.{index}")).unwrap(),
    };
    let resharing = Resharing {
        generation: 4,
        threshold: 3,
        dealers: vec![1, 3],
        seats: vec![seat(4), seat(5), seat(6)],
    };
    let plan = Plan::new(1, &resharing).unwrap();
    let dealers: Vec<&KeyShare> = shares.iter().filter(|share| share.index() != 2).collect();
    let frame = hex::encode(cbor::encode(&(1_u32, &resharing)).unwrap());
    let share_of = |share: &KeyShare| hex::encode(&*share.to_bytes());
    let mut cases: Vec<Value> = Vec::new();
    for seat in [4_u16, 5, 6] {
        let parts: Vec<Part> = dealers
            .iter()
            .map(|dealer| deal(&plan, dealer, seat).unwrap())
            .collect();
        let accepted: Vec<_> = dealers
            .iter()
            .zip(&parts)
            .map(|(dealer, part)| accept(&plan, seat, &dealer.public(), part).unwrap())
            .collect();
        let taken = take(&plan, seat, &accepted).unwrap();
        cases.push(json!({
            "name": format!("seat {seat}"), "outcome": "taken", "plan": frame, "seat": seat, "public": hex::encode(group.public()),
            "dealers": dealers.iter().map(|dealer| share_of(dealer)).collect::<Vec<_>>(),
            "parts": parts.iter().map(part_json).collect::<Vec<_>>(), "share": share_of(&taken),
        }));
    }
    let good = deal(&plan, dealers[1], 5).unwrap();
    let altered = |change: &dyn Fn(&mut Part)| {
        let mut part = good.clone();
        change(&mut part);
        part
    };
    let wrong = [
        ("the part of another seat", deal(&plan, dealers[1], 6).unwrap()),
        ("the part of another dealer", deal(&plan, dealers[0], 5).unwrap()),
        ("a commitment too few", altered(&|it| it.commitments.truncate(2))),
        (
            "another commitment",
            altered(&|it| it.commitments[2] = it.commitments[1]),
        ),
        ("a value over the order", altered(&|it| it.value = [0xff; 32])),
    ];
    for (name, part) in wrong {
        assert!(accept(&plan, 5, &dealers[1].public(), &part).is_err(), "{name}");
        let mut case = part_json(&part);
        case["name"] = json!(name);
        case["outcome"] = json!("refused");
        case["plan"] = json!(frame);
        case["seat"] = json!(5);
        case["point"] = json!(hex::encode(dealers[1].public().point()));
        cases.push(case);
    }
    let about = "a key of threshold 2 passed on: plan is the frame of [epoch, resharing], dealers their encoded shares, one part of each";
    frozen("reshare.json", &json!({ "about": about, "cases": cases }));
}
