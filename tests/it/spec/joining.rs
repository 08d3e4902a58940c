//! The bodies of enrolment, in `protocol/vectors/enrol.json`.

use hie::authority::enrol::{Admission, EnrolAnswer, EnrolRequest};
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::OrgId;
use serde_json::{Value, json};

#[test]
fn spec_p_join_vectors_do_not_change() {
    let root = env!("CARGO_MANIFEST_DIR");
    let frames = std::fs::read_to_string(format!("{root}/../protocol/vectors/frames.json")).unwrap();
    let frames: Value = serde_json::from_str(&frames).unwrap();
    let registry = hex::decode(frames["signed registry"].as_str().unwrap()).unwrap();
    let admission = |share: Option<Vec<u8>>| {
        EnrolAnswer::Approved(Box::new(Admission {
            chain: vec![Bytes(vec![1]), Bytes(vec![2])],
            registry: Bytes(registry.clone()),
            share: share.map(Bytes),
        }))
    };
    let request = |control: Option<&str>| EnrolRequest {
        secret: Bytes(vec![9; 16]),
        csr: Bytes(vec![0x30, 0]),
        control: control.map(Into::into),
        bulk: control.map(Into::into),
        relays: if control.is_none() {
            vec![OrgId::parse("urn:oid:2.999.7.2").unwrap()]
        } else {
            Vec::new()
        },
    };
    let mut share = vec![1, 0, 1, 0, 1, 1];
    share.resize(37, 0);
    let mut cases: Vec<Value> = Vec::new();
    let mut add = |name: &str, rule: &str, bytes: Vec<u8>| {
        cases.push(json!({ "name": name, "rule": rule, "hex": hex::encode(bytes) }));
    };
    add(
        "a node that can be dialled",
        "enrol-request",
        cbor::encode(&request(Some("a.example:8443"))).unwrap(),
    );
    add(
        "a node that dials out only",
        "enrol-request",
        cbor::encode(&request(None)).unwrap(),
    );
    let waiting = EnrolAnswer::Waiting("bottle farm porter pheasant".into());
    add("waiting", "enrol-answer", cbor::encode(&waiting).unwrap());
    add(
        "rejected",
        "enrol-answer",
        cbor::encode(&EnrolAnswer::Rejected).unwrap(),
    );
    add("approved", "enrol-answer", cbor::encode(&admission(None)).unwrap());
    add(
        "approved as token authority",
        "enrol-answer",
        cbor::encode(&admission(Some(share))).unwrap(),
    );
    let made = json!({ "about": "bodies of enrolment", "cases": cases });
    let path = format!("{root}/../protocol/vectors/enrol.json");
    if std::env::var_os("HIE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == made, "enrol.json differs from what this program makes");
}
