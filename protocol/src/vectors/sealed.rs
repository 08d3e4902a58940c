//! Sealed secrets and what does not open, in `protocol/vectors/records.json`.

use serde_json::{Value, json};

use super::{frozen, org, registry, sealed_and_signed};
use crate::bytes::Bytes;
use crate::id::{ConsentEpoch, IndexKey, RecordHandle, Sequence};
use crate::oprf::derive;
use crate::record::{IndexRecord, Label, RecordContent, VerifiedRecord};
use crate::seal;
use crate::sign::tests::TestKey;

fn aad(key: &[u8; 32], handle: [u8; 16]) -> Vec<u8> {
    [b"hie record v1".as_slice(), key, &handle].concat()
}

/// A secret sealed under derived keys and signed as a record.
fn sealed(name: &str, secret: &str, keys: ([u8; 32], [u8; 32]), handle: u8, from: &Value) -> Value {
    let frames = sealed_and_signed();
    let (_, plain) = frames.iter().find(|(known, _)| *known == secret).unwrap();
    let (key, seal_key) = keys;
    let (handle, nonce) = ([handle; 16], [handle; 12]);
    let bytes = seal::seal_padded(&seal_key, nonce, &aad(&key, handle), plain).unwrap();
    assert_eq!(
        seal::open_padded(&seal_key, &aad(&key, handle), &bytes).unwrap(),
        *plain
    );
    let record = IndexRecord {
        owner: org(1),
        key: IndexKey::new(key),
        handle: RecordHandle::new(handle),
        sequence: Sequence(1),
        label: Label::open(ConsentEpoch(0)),
        expires: super::NOW,
        content: RecordContent::Live(Bytes(bytes.clone())),
    };
    let signed = record.sign(&TestKey::new(1)).unwrap();
    VerifiedRecord::verify(signed.signed(), &registry()).unwrap();
    json!({
        "name": name, "outcome": "opened", "rule": secret.replace("sealed ", "").clone() + "-secret", "from": from,
        "index_key": hex::encode(key), "seal_key": hex::encode(seal_key), "handle": hex::encode(handle),
        "nonce": hex::encode(nonce), "secret": hex::encode(plain), "sealed": hex::encode(bytes),
        "signed": hex::encode(&signed.signed().0),
    })
}

/// A box that does not open: its fault is in the place, the key, a byte or the padding.
fn closed(name: &str, seal_key: [u8; 32], place: ([u8; 32], u8), bytes: &[u8]) -> Value {
    let (key, handle) = place;
    assert!(
        seal::open_padded(&seal_key, &aad(&key, [handle; 16]), bytes).is_err(),
        "{name}"
    );
    json!({
        "name": name, "outcome": "refused", "index_key": hex::encode(key), "seal_key": hex::encode(seal_key),
        "handle": hex::encode([handle; 16]), "sealed": hex::encode(bytes),
    })
}

#[test]
fn spec_p_seal_vectors_do_not_change() {
    let (output, record_key) = ([0x0b; 64], [1; 32]);
    let pointer = (derive::index_key(&output), derive::seal_key(&output));
    let locator = (derive::locator_key(&record_key), derive::locator_seal_key(&record_key));
    let mut cases = vec![
        sealed(
            "a pointer",
            "sealed pointer",
            pointer,
            1,
            &json!({ "output": hex::encode(output) }),
        ),
        sealed(
            "a locator",
            "sealed locator",
            locator,
            2,
            &json!({ "record_key": hex::encode(record_key) }),
        ),
    ];
    let (key, seal_key) = pointer;
    let good = seal::seal_padded(&seal_key, [3; 12], &aad(&key, [3; 16]), b"plain").unwrap();
    let raw = |plain: &[u8]| seal::seal(&seal_key, [3; 12], &aad(&key, [3; 16]), plain).unwrap();
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let mut two_blocks = [0_u8; 128];
    two_blocks[63] = 0x80;
    cases.extend([
        closed("under another handle", seal_key, (key, 4), &good),
        closed("under another index key", seal_key, ([9; 32], 3), &good),
        closed("another seal key", [9; 32], (key, 3), &good),
        closed("a flipped byte", seal_key, (key, 3), &flipped),
        closed("cut short", seal_key, (key, 3), &good[..27]),
        closed("not padded", seal_key, (key, 3), &raw(b"plain")),
        closed("padded with zeros alone", seal_key, (key, 3), &raw(&[0; 64])),
        closed("padded with two blocks", seal_key, (key, 3), &raw(&two_blocks)),
        closed("no content and no padding", seal_key, (key, 3), &raw(b"")),
    ]);
    let about = "ChaCha20-Poly1305 boxes of index records; 'from' gives the secret that both keys derive from";
    frozen("records.json", &json!({ "about": about, "cases": cases }));
}
