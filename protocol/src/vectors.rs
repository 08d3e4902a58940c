//! Golden bytes: each message has a frozen frame in `protocol/vectors/frames.json`; a changed byte is a changed protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod audit;
mod changes;
mod joining;
mod judged;
mod lane;
mod oprf;
mod refused;
mod rules;
mod sealed;

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::cbor;
use crate::charter::Approval;
use crate::claim::{BreakGlass, BreakGlassReason, Claim, Evidence};
use crate::digest::ShardDigest;
use crate::id::{
    ConsentEpoch, ContentHash, Correlation, DocumentId, IndexKey, Millis, NodeKey, Nonce, OrgId, PublicKey,
    RecordHandle, Sequence, SetHash, Ticket, TransferHash, TreeHash,
};
use crate::message::{
    Coding, Comparison, Cursor, Demographics, DocumentMeta, Grant, IndexMessage, MatchGrade, Obligation, Open, Opened,
    PersonAddress, PersonIdentifier, PersonName, Place, RangeDigest, Receipt, RecordVersion, Request, Response,
    SecretBytes, Seen, StoreOutcome,
};
use crate::office::{DealerDigest, DealtShare, HeldShare, SeatReport, TokenOrders, TokenReport};
use crate::record::{ImagingSummary, IndexRecord, Label, LocatorSecret, PointerSecret, RecordContent};
use crate::refusal::Refusal;
use crate::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, Officer, Officers, RegionPolicy,
    Registry, Resharing, ShareSeat, Standing, TokenAuthority, TokenEpoch, TokenParameters,
};
use crate::retrieval::{Ask, Header, InstanceEntry, Item, Refused, SeriesEntry, StudyManifest};
use crate::sign::tests::TestKey;
use crate::version::V1;
use crate::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};

const NOW: Millis = Millis(1_790_000_000_000);

pub(crate) fn org(last: u8) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.7.{last}")).unwrap()
}

fn member(last: u8) -> Member {
    Member {
        org: org(last),
        name: format!("Member {last}"),
        kind: MemberKind::Hospital,
        nodes: vec![NodeEntry {
            key: NodeKey::new([last; 32]),
            public: TestKey::new(last).public(),
            control: Some("a.example:8443".into()),
            bulk: Some("a.example:8444".into()),
            relays: Vec::new(),
        }],
        roles: vec![MemberRole::IndexHolder, MemberRole::TokenAuthority],
        standing: Standing::Active,
        phone: None,
        term: 0,
    }
}

pub(crate) fn registry() -> Registry {
    Registry {
        region: "Northport Region".into(),
        version: 7,
        issued: NOW,
        root: vec![1, 2, 3],
        crl: vec![4, 5],
        members: vec![member(1), member(2)],
        policy: RegionPolicy {
            consent: ConsentModel::OptOut,
            break_glass: BreakGlassRules {
                allowed: true,
                minutes: 60,
                tell_withheld: true,
            },
            replicas: 3,
            write_quorum: 2,
            record_life_ms: 14 * 86_400_000,
            tombstone_life_ms: 45 * 86_400_000,
            tokens: TokenParameters {
                profile: "norm-1".into(),
                epoch: 1,
                threshold: 1,
                authorities: vec![TokenAuthority {
                    index: 1,
                    org: org(1),
                    point: PublicKey::new([9; 32]),
                }],
                resharing: None,
                beside: None,
            },
            officers: None,
        },
    }
}

fn record(owner: u8) -> IndexRecord {
    IndexRecord {
        owner: org(owner),
        key: IndexKey::new([5; 32]),
        handle: RecordHandle::new([6; 16]),
        sequence: Sequence(42),
        label: Label {
            confidentiality: Confidentiality::Normal,
            excluded: vec![org(2)],
            epoch: ConsentEpoch(3),
        },
        expires: NOW.plus(1000),
        content: RecordContent::Live(Bytes(vec![7; 30])),
    }
}

fn claim() -> Claim {
    Claim {
        org: org(1),
        node: NodeKey::new([1; 32]),
        user: "haddad".into(),
        user_name: "Dr A. Haddad".into(),
        role: Role::Physician,
        purpose: Purpose::BreakGlass,
        evidence: Some(Evidence {
            encounter: "enc-1".into(),
            digest: ContentHash::new([8; 32]),
        }),
        break_glass: Some(BreakGlass {
            reason: BreakGlassReason::LifeAtRisk,
            words: "unconscious".into(),
            declared: NOW,
        }),
        audience: org(2),
        correlation: Correlation::new([1; 16]),
        nonce: Nonce::new([2; 16]),
        issued: NOW,
        expires: NOW.plus(60_000),
    }
}

fn demographics() -> Demographics {
    Demographics {
        names: vec![PersonName {
            family: "Example".into(),
            given: vec!["Ann".into()],
            prefix: None,
            suffix: Some("Jr".into()),
        }],
        birth_date: Some("1961-03-14".into()),
        sex: Some("female".into()),
        identifiers: vec![PersonIdentifier {
            system: "urn:oid:2.999.1".into(),
            value: "1".into(),
        }],
        addresses: vec![PersonAddress {
            lines: vec!["12 Elm Road".into()],
            city: None,
            state: None,
            postal_code: Some("12345".into()),
        }],
        telecoms: vec!["+15550142".into()],
    }
}

fn document() -> DocumentMeta {
    DocumentMeta {
        id: DocumentId::new([3; 16]),
        class: DocumentClass::Imaging,
        kind: Some(Coding {
            system: "http://loinc.org".into(),
            code: "18748-4".into(),
            display: None,
        }),
        category: None,
        format: None,
        title: "CT head".into(),
        author: None,
        content_type: "application/dicom".into(),
        created: Some(NOW),
        period: Some((NOW, NOW)),
        size: Some(5),
        hash: Some(ContentHash::new([4; 32])),
        confidentiality: Confidentiality::Restricted,
        sensitivity: vec![Sensitivity::SubstanceUse],
        imaging: Some(ImagingSummary {
            study_uid: "2.25.1".into(),
            modalities: vec!["CT".into()],
            body_part: None,
            series: 1,
            instances: 3,
        }),
    }
}

fn opened() -> Opened {
    Opened {
        matched: Some(MatchGrade::Certain),
        demographics: Some(demographics()),
        grants: vec![Grant {
            document: document(),
            ticket: Ticket::new([5; 32]),
        }],
        more_on_emergency: false,
        obligations: vec![Obligation::Review],
        epoch: ConsentEpoch(3),
        receipt: Bytes(vec![1]),
    }
}

fn manifest() -> StudyManifest {
    let instance = InstanceEntry {
        sop_uid: "2.25.3".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        number: Some(1),
        extent: (512, 512, 1),
        size: 9,
        hash: ContentHash::new([4; 32]),
    };
    let series = SeriesEntry {
        series_uid: "2.25.2".into(),
        modality: "CT".into(),
        number: None,
        description: None,
        body_part: None,
        instances: vec![instance],
    };
    StudyManifest {
        study_uid: "2.25.1".into(),
        description: None,
        date: Some("20261119".into()),
        series: vec![series],
    }
}

fn receipt() -> Receipt {
    Receipt {
        log: org(1),
        index: 9,
        leaf: TreeHash::new([2; 32]),
        correlation: Correlation::new([1; 16]),
        audience: org(2),
        purpose: Purpose::Treatment,
        at: NOW,
    }
}

fn digest() -> ShardDigest {
    ShardDigest {
        owner: org(1),
        holder: org(2),
        version: 7,
        range: RangeDigest {
            from: IndexKey::new([0; 32]),
            to: IndexKey::new([255; 32]),
            count: 3,
            hash: SetHash::new([8; 32]),
        },
        sequence: Sequence(42),
        at: NOW,
    }
}

fn request(message: Request) -> Vec<u8> {
    let bytes = message.encode().unwrap();
    assert_eq!(Request::decode(&bytes).unwrap(), message);
    bytes
}

fn response(message: Response) -> Vec<u8> {
    let bytes = message.encode().unwrap();
    assert_eq!(Response::decode(&bytes).unwrap(), message);
    bytes
}

/// A registry that uses every field of version 2.
fn registry_of_version_2() -> Registry {
    let mut registry = registry();
    registry.version = 8;
    registry.members[0].nodes[0].control = None;
    registry.members[0].nodes[0].relays = vec![org(2)];
    registry.members[1].roles = vec![MemberRole::IndexHolder, MemberRole::Witness, MemberRole::Relay];
    registry.members[1].phone = Some("+15550142".into());
    registry.members[1].kind = MemberKind::ImagingCentre;
    let mut third = member(3);
    third.standing = Standing::Suspended(NOW);
    third.term = 2;
    let mut fourth = member(4);
    fourth.standing = Standing::Revoked(NOW);
    registry.members.extend([third, fourth]);
    let tokens = &mut registry.policy.tokens;
    tokens.resharing = Some(Resharing {
        generation: 1,
        threshold: 2,
        dealers: vec![1],
        seats: vec![ShareSeat { index: 1, org: org(1) }, ShareSeat { index: 2, org: org(2) }],
    });
    tokens.beside = Some(TokenEpoch {
        epoch: 2,
        threshold: 1,
        authorities: tokens.authorities.clone(),
    });
    registry.policy.consent = ConsentModel::OptIn;
    registry.policy.officers = Some(Officers {
        approvals: 2,
        officers: [5, 6]
            .map(|seed| Officer {
                name: format!("Officer {seed}"),
                public: TestKey::new(seed).public(),
            })
            .to_vec(),
    });
    registry
}

fn request_frames() -> [(&'static str, Vec<u8>); 9] {
    let hello = Request::Hello {
        versions: vec![V1],
        registry: 7,
        clock: NOW,
    };
    let store = IndexMessage::Store {
        id: 1,
        records: vec![Bytes(vec![1, 2])],
    };
    let stored = IndexMessage::Stored {
        id: 1,
        outcomes: vec![StoreOutcome::Held, StoreOutcome::Refused, StoreOutcome::Misplaced],
    };
    let lookup = IndexMessage::Lookup {
        id: 2,
        keys: vec![IndexKey::new([5; 32])],
        after: None,
    };
    let found = IndexMessage::Found {
        id: 2,
        records: vec![vec![Bytes(vec![1])], vec![]],
        whole: true,
        next: None,
    };
    let evaluate = Request::Evaluate {
        claim: Bytes(vec![1]),
        epoch: 1,
        blinded: vec![PublicKey::new([9; 32])],
        share: None,
    };
    let open = Open {
        claim: Bytes(vec![1]),
        demographics: demographics(),
        handles: vec![RecordHandle::new([6; 16])],
        documents: vec![],
    };
    let push = Request::RegistryPush {
        signed: Bytes(vec![1]),
        approvals: vec![],
    };
    [
        ("request hello", request(hello)),
        ("request registry", request(Request::Registry { have: 6 })),
        ("request registry-push", request(push)),
        ("request index store", request(Request::Index(store))),
        ("request index stored", request(Request::Index(stored))),
        ("request index lookup", request(Request::Index(lookup))),
        ("request index found", request(Request::Index(found))),
        ("request evaluate", request(evaluate)),
        ("request open", request(Request::Open(Box::new(open)))),
    ]
}

fn index_frames() -> [(&'static str, Vec<u8>); 8] {
    let place = Place {
        key: IndexKey::new([5; 32]),
        handle: RecordHandle::new([6; 16]),
        owner: org(1),
    };
    let range = digest().range;
    let version = RecordVersion {
        key: place.key,
        handle: place.handle,
        sequence: Sequence(42),
    };
    let on = IndexMessage::Lookup {
        id: 2,
        keys: vec![place.key],
        after: Some(Cursor {
            owner: org(1),
            handle: place.handle,
        }),
    };
    let more = IndexMessage::Found {
        id: 2,
        records: vec![vec![Bytes(vec![1])]],
        whole: false,
        next: Some(Cursor {
            owner: org(1),
            handle: place.handle,
        }),
    };
    let beat = IndexMessage::Beat {
        beat: 9,
        behind: vec![org(2)],
        lacking: vec![org(1)],
        seen: vec![Seen { org: org(2), beat: 4 }],
    };
    let compare = IndexMessage::Compare {
        id: 3,
        version: 7,
        ranges: vec![range],
    };
    let compared = IndexMessage::Compared {
        id: 3,
        ranges: vec![
            Comparison::Same,
            Comparison::Split(vec![range]),
            Comparison::Entries(vec![version]),
            Comparison::Later,
        ],
    };
    let handed = IndexMessage::Digest { signed: Bytes(vec![1]) };
    let pull = IndexMessage::Pull {
        id: 4,
        version: 7,
        after: Some(place.clone()),
    };
    let pulled = IndexMessage::Pulled {
        id: 4,
        records: vec![Bytes(vec![1])],
        next: Some(place),
        whole: true,
        digests: vec![Bytes(vec![2])],
    };
    [
        ("request index lookup after", on),
        ("request index found next", more),
        ("request index beat", beat),
        ("request index compare", compare),
        ("request index compared", compared),
        ("request index digest", handed),
        ("request index pull", pull),
        ("request index pulled", pulled),
    ]
    .map(|(name, message)| (name, request(Request::Index(message))))
}

fn response_frames() -> [(&'static str, Vec<u8>); 6] {
    let hello = Response::Hello {
        version: V1,
        registry: 7,
        clock: NOW,
    };
    let evaluated = Response::Evaluated {
        index: 1,
        elements: vec![PublicKey::new([9; 32])],
        proof: Bytes(vec![0; 64]),
    };
    [
        ("response hello", response(hello)),
        (
            "response registry",
            response(Response::Registry {
                signed: None,
                approvals: vec![],
            }),
        ),
        ("response taken", response(Response::Taken)),
        ("response evaluated", response(evaluated)),
        ("response opened", response(Response::Opened(Box::new(opened())))),
        ("response refused", response(Response::Refused(Refusal::NothingHere))),
    ]
}

/// Frames of version 2 about the token key.
fn token_frames() -> [(&'static str, Vec<u8>); 3] {
    let evaluate = Request::Evaluate {
        claim: Bytes(vec![1]),
        epoch: 1,
        blinded: vec![PublicKey::new([9; 32])],
        share: Some(7),
    };
    let reshare = Request::Reshare {
        epoch: 1,
        generation: 2,
    };
    let reshared = Response::Reshared {
        commitments: vec![PublicKey::new([9; 32]), PublicKey::new([10; 32])],
        share: SecretBytes(vec![3; 32]),
    };
    [
        ("request evaluate v2", request(evaluate)),
        ("request reshare v2", request(reshare)),
        ("response reshared v2", response(reshared)),
    ]
}

/// Frames of version 2 about officers' approvals.
fn charter_frames() -> [(&'static str, Vec<u8>); 4] {
    let approval = Approval {
        region: registry().region,
        charter: registry().charter().unwrap(),
        from: 8,
    };
    let signed = Bytes(vec![1]);
    let push = Request::RegistryPush {
        signed: signed.clone(),
        approvals: vec![Bytes(vec![2])],
    };
    let handed = Response::Registry {
        signed: Some(signed),
        approvals: vec![Bytes(vec![2]), Bytes(vec![3])],
    };
    [
        ("request registry-push v2", request(push)),
        ("response registry v2", response(handed)),
        ("approval", cbor::encode(&approval).unwrap()),
        ("signed approval", approval.sign(&TestKey::new(11)).unwrap()),
    ]
}

/// What a member and the region office say about the token key.
fn office_frames() -> [(&'static str, Vec<u8>); 2] {
    let point = PublicKey::new([9; 32]);
    let report = TokenReport {
        org: org(1),
        at: NOW,
        published: vec![1, 2],
        held: vec![HeldShare {
            epoch: 1,
            index: 1,
            point,
        }],
        seat: Some(SeatReport {
            generation: 2,
            index: 3,
            point,
            commitments: vec![DealerDigest {
                dealer: 1,
                digest: Bytes(vec![7; 32]),
            }],
        }),
        lied: Some(org(2)),
    };
    let orders = TokenOrders {
        shares: vec![DealtShare {
            epoch: 2,
            share: SecretBytes(vec![3; 37]),
        }],
    };
    [
        ("signed token report", report.sign(&TestKey::new(1)).unwrap()),
        ("token orders", cbor::encode(&orders).unwrap()),
    ]
}

fn lane_frames() -> [(&'static str, Vec<u8>); 4] {
    let ask = Ask {
        ticket: Ticket::new([5; 32]),
        item: Item::Document,
        from: 0,
    };
    let header = Header {
        item: Item::InstancesFrom(2),
        receipt: Bytes(vec![1]),
        epoch: ConsentEpoch(3),
        content_type: "application/dicom".into(),
        size: 9,
        from: 4,
        hash: ContentHash::new([4; 32]),
        manifest: Some(manifest()),
        transfer: None,
    };
    let second = Header {
        manifest: None,
        transfer: Some(TransferHash::new([6; 32])),
        ..header.clone()
    };
    let refused = Refused { refusal: Refusal::Busy };
    [
        ("lane ask", cbor::encode(&ask).unwrap()),
        ("lane header", cbor::encode(&header).unwrap()),
        ("lane header 2", cbor::encode(&second).unwrap()),
        ("lane refused", cbor::encode(&refused).unwrap()),
    ]
}

fn sealed_and_signed() -> [(&'static str, Vec<u8>); 7] {
    let key = TestKey::new(1);
    let pointer = PointerSecret {
        record_key: vec![1; 32],
        classes: vec![DocumentClass::Summary],
        years: Some((2011, 2026)),
    };
    let locator = LocatorSecret {
        document: DocumentId::new([3; 16]),
        class: DocumentClass::Note,
        kind: Some(("http://loinc.org".into(), "34133-9".into())),
        content_type: "text/plain".into(),
        created: Some(NOW),
        period: None,
        size: None,
        hash: None,
        sensitivity: vec![],
        imaging: None,
    };
    [
        ("sealed pointer", cbor::encode(&pointer).unwrap()),
        ("sealed locator", cbor::encode(&locator).unwrap()),
        ("signed digest", digest().sign(&key).unwrap()),
        ("signed claim", claim().sign(&key).unwrap()),
        ("signed record", record(1).sign(&key).unwrap().signed().0.clone()),
        ("signed receipt", receipt().sign(&key).unwrap()),
        ("signed registry", registry().sign(&key).unwrap()),
    ]
}

fn frames() -> BTreeMap<&'static str, Vec<u8>> {
    request_frames()
        .into_iter()
        .chain(index_frames())
        .chain(response_frames())
        .chain(token_frames())
        .chain(lane_frames())
        .chain(sealed_and_signed())
        .chain([(
            "signed registry of version 2",
            registry_of_version_2().sign(&TestKey::new(1)).unwrap(),
        )])
        .chain(charter_frames())
        .chain(office_frames())
        .collect()
}

/// Compares what this program makes with the file of that name; writes it when `HIE_WRITE_VECTORS` is set.
fn frozen(file: &str, made: &serde_json::Value) {
    let path = format!("{}/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HIE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == *made, "{file} differs from what this program makes");
}

#[test]
fn spec_p_msg_golden_frames_do_not_change() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/frames.json");
    let made: BTreeMap<String, String> = frames()
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), hex::encode(bytes)))
        .collect();
    if std::env::var_os("HIE_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let frozen: BTreeMap<String, String> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, bytes) in &frozen {
        assert_eq!(made.get(name), Some(bytes), "{name}");
    }
    assert_eq!(made.len(), frozen.len());
}

/// A frame as JSON: byte strings as `{"hex": ..}`, so that another program can write it anew and compare.
fn plain(value: &ciborium::Value) -> serde_json::Value {
    use ciborium::Value as Cbor;
    use serde_json::json;
    match value {
        Cbor::Integer(number) => json!(i64::try_from(*number).unwrap()),
        Cbor::Bytes(bytes) => json!({ "hex": hex::encode(bytes) }),
        Cbor::Text(text) => json!(text),
        Cbor::Bool(truth) => json!(truth),
        Cbor::Null => serde_json::Value::Null,
        Cbor::Array(items) => items.iter().map(plain).collect(),
        Cbor::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| (key.as_text().unwrap().to_owned(), plain(value)))
            .collect(),
        other => panic!("{other:?} is in no frame"),
    }
}

#[test]
fn spec_p_msg_golden_values_do_not_change() {
    let made: BTreeMap<&str, serde_json::Value> = frames()
        .into_iter()
        .map(|(name, bytes)| (name, plain(&ciborium::from_reader(bytes.as_slice()).unwrap())))
        .collect();
    frozen("values.json", &serde_json::to_value(made).unwrap());
}
