//! What the messages of the vectors must keep to: signers, owners, audiences, limits.

use super::{NOW, claim, demographics, digest, index_frames, manifest, opened, org, receipt, record, registry};
use crate::bytes::Bytes;
use crate::claim::{Claim, ClaimError};
use crate::digest::ShardDigest;
use crate::id::{IndexKey, Millis, NodeKey};
use crate::message::{IndexMessage, Receipt, Request};
use crate::record::{RecordContent, RecordError, VerifiedRecord};
use crate::registry::{Registry, RegistryError, Standing};
use crate::sign::tests::TestKey;
use crate::version::{V1, V2};

#[test]
fn spec_p_reg_only_the_authority_and_only_forward() {
    let key = TestKey::new(1);
    let signed = registry().sign(&key).unwrap();
    assert_eq!(Registry::verify(&signed, key.public(), Some(7)).unwrap(), registry());
    assert!(matches!(
        Registry::verify(&signed, TestKey::new(2).public(), None),
        Err(RegistryError::Signed(_))
    ));
    assert_eq!(
        Registry::verify(&signed, key.public(), Some(8)),
        Err(RegistryError::Rollback { offered: 7, held: 8 })
    );
    let mut doubled = registry();
    doubled.members[1].nodes[0].key = doubled.members[0].nodes[0].key;
    assert!(matches!(doubled.sign(&key), Err(RegistryError::Rule(_))));
    let mut unsorted = registry();
    unsorted.members.reverse();
    assert!(matches!(unsorted.sign(&key), Err(RegistryError::Rule(_))));
}

#[test]
fn spec_p_reg_quorums_meet_in_any_region() {
    let policy = registry().policy;
    for holders in 1..20 {
        let (replicas, write, read) = (
            policy.replicas_of(holders),
            policy.write_quorum_of(holders),
            policy.read_quorum_of(holders),
        );
        assert!(
            write + read > replicas && write <= replicas && read <= replicas,
            "{holders}"
        );
    }
}

#[test]
fn spec_p_rec_only_the_owner_signs() {
    let registry = registry();
    let good = record(1).sign(&TestKey::new(1)).unwrap();
    assert_eq!(
        VerifiedRecord::verify(good.signed(), &registry).unwrap().record(),
        &record(1)
    );
    let forged = record(1).sign(&TestKey::new(2)).unwrap();
    assert_eq!(
        VerifiedRecord::verify(forged.signed(), &registry),
        Err(RecordError::NotOwner {
            signer: org(2),
            owner: org(1)
        })
    );
    let mut revoked = registry.clone();
    revoked.members[0].standing = Standing::Revoked(NOW);
    assert_eq!(
        VerifiedRecord::verify(good.signed(), &revoked),
        Err(RecordError::Revoked(org(1)))
    );
    let mut large = record(1);
    large.content = RecordContent::Live(Bytes(vec![0; 5000]));
    assert_eq!(large.sign(&TestKey::new(1)), Err(RecordError::Limit("sealed bytes")));
}

#[test]
fn spec_p_claim_holds_for_one_channel_audience_and_minute() {
    let (registry, key) = (registry(), TestKey::new(1));
    let bytes = claim().sign(&key).unwrap();
    let judge = |channel: u8, audience: u8, now: Millis| {
        Claim::verify(&bytes, &registry, &NodeKey::new([channel; 32]), &org(audience), now)
    };
    assert_eq!(judge(1, 2, NOW), Ok(claim()));
    assert_eq!(
        judge(2, 2, NOW),
        Err(ClaimError::Rule("arrived over another node's channel"))
    );
    assert_eq!(judge(1, 1, NOW), Err(ClaimError::Rule("for another custodian")));
    assert_eq!(judge(1, 2, NOW.plus(91_000)), Err(ClaimError::Rule("expired")));
    assert_eq!(
        judge(1, 2, Millis(NOW.0 - 31_000)),
        Err(ClaimError::Rule("made in the future"))
    );
    let mut long = claim();
    long.expires = NOW.plus(60_001);
    assert_eq!(long.sign(&key), Err(ClaimError::Rule("lives too long")));
    let mut undeclared = claim();
    undeclared.break_glass = None;
    assert!(undeclared.sign(&key).is_err());
    let mut foreign = claim();
    foreign.org = org(2);
    let bytes = foreign.sign(&key).unwrap();
    assert_eq!(
        Claim::verify(&bytes, &registry, &NodeKey::new([1; 32]), &org(2), NOW),
        Err(ClaimError::Rule("the node belongs to another organisation"))
    );
}

#[test]
fn a_receipt_is_signed_by_its_log() {
    let registry = registry();
    let bytes = receipt().sign(&TestKey::new(1)).unwrap();
    assert_eq!(Receipt::verify(&bytes, &registry).unwrap(), receipt());
    assert!(Receipt::verify(&receipt().sign(&TestKey::new(2)).unwrap(), &registry).is_err());
}

#[test]
fn spec_f_digest_is_signed_by_its_owner() {
    let registry = registry();
    let bytes = digest().sign(&TestKey::new(1)).unwrap();
    assert_eq!(ShardDigest::verify(&bytes, &registry).unwrap(), digest());
    assert!(ShardDigest::verify(&digest().sign(&TestKey::new(2)).unwrap(), &registry).is_err());
}

#[test]
fn a_message_names_the_version_it_needs() {
    let store = |count| IndexMessage::Store {
        id: 1,
        records: vec![Bytes(vec![1]); count],
    };
    assert_eq!((store(64).since(), store(65).since()), (V1, V2));
    for (name, bytes) in index_frames() {
        let Request::Index(message) = Request::decode(&bytes).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(message.since(), V2, "{name}");
    }
}

#[test]
fn lists_over_their_limit_are_refused() {
    let keys = vec![IndexKey::new([5; 32]); 65];
    let bytes = Request::Index(IndexMessage::Lookup {
        id: 1,
        keys,
        after: None,
    })
    .encode()
    .unwrap();
    assert!(Request::decode(&bytes).is_err());
}

#[test]
fn personal_types_do_not_print_themselves() {
    let text = format!("{:?} {:?} {:?} {:?}", demographics(), opened(), claim(), manifest());
    for secret in ["Example", "1961", "Haddad", "CT head", "2.25.1", "unconscious"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
