//! Whole conversations of the bulk lane as bytes, and streams to refuse: `protocol/vectors/lane.json`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{frozen, manifest};
use crate::bytes::Bytes;
use crate::cbor;
use crate::id::{ConsentEpoch, ContentHash, Ticket, TransferHash};
use crate::refusal::Refusal;
use crate::retrieval::{Ask, CHUNK_BYTES_MAX, FrameKind, Header, Item, LANE_FRAME_BYTES_MAX, Refused, StudyManifest};

fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= kind.body_max());
    let length = u32::try_from(body.len()).unwrap();
    [length.to_be_bytes().as_slice(), &[kind as u8], body].concat()
}

fn ask(item: Item, from: u64) -> Vec<u8> {
    let ask = Ask {
        ticket: Ticket::new([5; 32]),
        item,
        from,
    };
    framed(FrameKind::Ask, &cbor::encode(&ask).unwrap())
}

fn head(item: Item, content: &[u8], from: u64, manifest: Option<StudyManifest>) -> Header {
    Header {
        item,
        receipt: Bytes(vec![1]),
        epoch: ConsentEpoch(3),
        content_type: "text/plain".into(),
        size: u64::try_from(content.len()).unwrap(),
        from,
        hash: ContentHash::new(Sha256::digest(content).into()),
        manifest,
        transfer: None,
    }
}

fn header(header: &Header) -> Vec<u8> {
    framed(FrameKind::Header, &cbor::encode(header).unwrap())
}

fn refused(refusal: Refusal) -> Vec<u8> {
    framed(FrameKind::Refused, &cbor::encode(&Refused { refusal }).unwrap())
}

/// One item: header, content in two chunks, end.
fn item(item: Item, content: &[u8], from: u64) -> Vec<u8> {
    let (left, right) = content[usize::try_from(from).unwrap()..].split_at(2);
    [
        header(&head(item, content, from, None)),
        framed(FrameKind::Chunk, left),
        framed(FrameKind::Chunk, right),
        framed(FrameKind::End, &[]),
    ]
    .concat()
}

/// BLAKE3 of the content of all conversations.
const TRANSFER: &str = "23234e1e0182c5d9cac4a73600596e47b2d0fbdd84a42f4fe32a7feabe2e36e5";

/// A document whose header carries a transfer hash.
fn carried(content: &[u8], transfer: TransferHash) -> Vec<u8> {
    let mut head = head(Item::Document, content, 0, None);
    head.transfer = Some(transfer);
    let frames = [
        header(&head),
        framed(FrameKind::Chunk, content),
        framed(FrameKind::End, &[]),
    ];
    frames.concat()
}

fn conversation(name: &str, outcome: &str, asker: &[u8], custodian: &[u8]) -> Value {
    json!({ "name": name, "outcome": outcome, "asker": hex::encode(asker), "custodian": hex::encode(custodian) })
}

fn taken() -> Vec<Value> {
    let content = b"ten bytes.";
    let study = manifest();
    let digest = cbor::encode(&study).unwrap();
    let mut listed = head(Item::Document, &digest, 0, Some(study));
    listed.size = 0;
    let study = [header(&listed), framed(FrameKind::End, &[])].concat();
    let rest = [
        item(Item::Instance(1), content, 4),
        item(Item::Instance(2), content, 0),
        framed(FrameKind::End, &[]),
    ];
    let revoked = [
        header(&head(Item::Document, content, 0, None)),
        framed(FrameKind::Chunk, &content[..4]),
        refused(Refusal::NothingHere),
    ];
    vec![
        conversation(
            "a document",
            "whole",
            &ask(Item::Document, 0),
            &item(Item::Document, content, 0),
        ),
        conversation(
            "the rest of a document",
            "whole",
            &ask(Item::Document, 7),
            &item(Item::Document, content, 7),
        ),
        conversation("a manifest", "whole", &ask(Item::Document, 0), &study),
        conversation(
            "an instance",
            "whole",
            &ask(Item::Instance(3), 0),
            &item(Item::Instance(3), content, 0),
        ),
        conversation(
            "all instances from one on",
            "whole",
            &ask(Item::InstancesFrom(1), 4),
            &rest.concat(),
        ),
        conversation(
            "no such ticket",
            "refused",
            &ask(Item::Document, 0),
            &refused(Refusal::NothingHere),
        ),
        conversation(
            "revoked on the way",
            "refused",
            &ask(Item::Document, 0),
            &revoked.concat(),
        ),
        conversation(
            "a document with a transfer hash",
            "whole",
            &ask(Item::Document, 0),
            &carried(content, TransferHash::from_hex(TRANSFER).unwrap()),
        ),
    ]
}

#[test]
fn spec_p_bulk_vectors_do_not_change() {
    let content = b"ten bytes.";
    let whole = item(Item::Document, content, 0);
    let over = |length: usize, kind: u8| {
        let length = u32::try_from(length).unwrap();
        [length.to_be_bytes().as_slice(), &[kind]].concat()
    };
    let more = [
        header(&head(Item::Document, content, 8, None)),
        framed(FrameKind::Chunk, content),
        framed(FrameKind::End, &[]),
    ];
    let fewer = [
        header(&head(Item::Document, content, 0, None)),
        framed(FrameKind::End, &[]),
    ];
    let mut altered = whole.clone();
    let last = altered.len() - 6;
    altered[last] ^= 1;
    let document = ask(Item::Document, 0);
    let bad = [
        ("a chunk over 256 KiB", over(CHUNK_BYTES_MAX + 1, 3)),
        ("a header over 8 MiB", over(LANE_FRAME_BYTES_MAX + 1, 2)),
        ("a refusal over 1024 bytes", over(1025, 5)),
        ("an end with a body", over(1, 4)),
        ("a frame of kind 0", over(0, 0)),
        ("a frame of kind 6", over(0, 6)),
        ("an ask in place of an answer", document.clone()),
        ("cut in a head", whole[..3].to_vec()),
        ("cut in a body", whole[..20].to_vec()),
        ("cut before the end", whole[..whole.len() - 5].to_vec()),
        ("a chunk before the header", framed(FrameKind::Chunk, content)),
        ("an end before the header", framed(FrameKind::End, &[])),
        ("more bytes than announced", more.concat()),
        ("fewer bytes than announced", fewer.concat()),
        ("another content than its hash", altered),
        ("another beginning than asked", item(Item::Document, content, 4)),
        ("another item than asked", item(Item::Instance(0), content, 0)),
        ("bytes behind the end", [whole, vec![0]].concat()),
        ("another transfer hash", carried(content, TransferHash::new([6; 32]))),
    ];
    let broken = bad
        .iter()
        .map(|(name, bytes)| conversation(name, "broken", &document, bytes));
    let cases: Vec<Value> = taken().into_iter().chain(broken).collect();
    let about = "one ask and its answer as bytes; outcome: whole, refused (a refusal arrived), broken (the asker ends the connection)";
    frozen("lane.json", &json!({ "about": about, "cases": cases }));
}
