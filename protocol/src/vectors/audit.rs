//! Merkle trees, proofs and checkpoints: `merkle.json` and `checkpoint.json` in `protocol/vectors`.

use std::collections::BTreeMap;

use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use super::frozen;
use crate::checkpoint::note::{KeyKind, NoteKey};
use crate::checkpoint::{Checkpoint, NoteSigner, SignedCheckpoint};
use crate::merkle::prove::{consistency_proof, inclusion_proof, root};
use crate::merkle::verify::{verify_consistency, verify_inclusion};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::sign::tests::TestKey;

const LEAVES: u8 = 9;

fn hexes(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(hex::encode).collect()
}

#[test]
fn spec_p_audit_tree_vectors_do_not_change() {
    let leaves: Vec<Vec<u8>> = (0..LEAVES).map(|at| vec![at; usize::from(at)]).collect();
    let (mut tree, mut nodes) = (Frontier::new(), BTreeMap::new());
    for leaf in &leaves {
        for node in tree.append(leaf_hash(leaf)).unwrap() {
            nodes.insert((node.level, node.index), node.hash);
        }
    }
    let find = |level: u8, index: u64| nodes.get(&(level, index)).copied();
    let roots: Vec<Hash> = (0..=u64::from(LEAVES)).map(|size| root(&find, size).unwrap()).collect();
    let mut cases: Vec<Value> = Vec::new();
    for size in 1..=u64::from(LEAVES) {
        let top = roots[usize::try_from(size).unwrap()];
        for index in 0..size {
            let proof = inclusion_proof(&find, index, size).unwrap();
            let leaf = leaf_hash(&leaves[usize::try_from(index).unwrap()]);
            verify_inclusion(&leaf, index, size, &proof, &top).unwrap();
            cases.push(json!({ "name": format!("leaf {index} of {size}"), "kind": "inclusion", "outcome": "holds", "index": index, "size": size,
                "leaf": hex::encode(leaf), "proof": hexes(&proof), "root": hex::encode(top) }));
        }
        for old in 1..=size {
            let proof = consistency_proof(&find, old, size).unwrap();
            let before = roots[usize::try_from(old).unwrap()];
            verify_consistency(old, size, &before, &top, &proof).unwrap();
            cases.push(json!({ "name": format!("{old} before {size}"), "kind": "consistency", "outcome": "holds", "old": old, "size": size,
                "old_root": hex::encode(before), "proof": hexes(&proof), "root": hex::encode(top) }));
        }
    }
    cases.extend(false_proofs(&find, &leaves, &roots));
    let contents: Vec<String> = leaves.iter().map(hex::encode).collect();
    let about = "leaf contents, the root at every size from 0, and proofs that hold or are refused";
    frozen(
        "merkle.json",
        &json!({ "about": about, "leaves": contents, "roots": hexes(&roots), "cases": cases }),
    );
}

fn false_proofs(find: &impl Fn(u8, u64) -> Option<Hash>, leaves: &[Vec<u8>], roots: &[Hash]) -> Vec<Value> {
    let good = inclusion_proof(find, 2, 7).unwrap();
    let leaf = leaf_hash(&leaves[2]);
    let mut longer = good.clone();
    longer.push([0; 32]);
    let wrong = [
        ("another leaf", leaf_hash(&leaves[3]), 2, 7, good.clone(), roots[7]),
        ("another place", leaf, 3, 7, good.clone(), roots[7]),
        ("another size", leaf, 2, 9, good.clone(), roots[7]),
        ("another root", leaf, 2, 7, good.clone(), roots[8]),
        ("a hash too few", leaf, 2, 7, good[1..].to_vec(), roots[7]),
        ("a hash too many", leaf, 2, 7, longer, roots[7]),
        ("a leaf behind the end", leaf, 7, 7, good, roots[7]),
    ];
    let mut cases: Vec<Value> = Vec::new();
    for (name, leaf, index, size, proof, top) in wrong {
        assert!(verify_inclusion(&leaf, index, size, &proof, &top).is_err(), "{name}");
        cases.push(
            json!({ "name": name, "kind": "inclusion", "outcome": "refused", "index": index, "size": size,
            "leaf": hex::encode(leaf), "proof": hexes(&proof), "root": hex::encode(top) }),
        );
    }
    let good = consistency_proof(find, 3, 7).unwrap();
    let wrong = [
        ("another old root", 3, 7, roots[2], good.clone(), roots[7]),
        ("another new root", 3, 7, roots[3], good.clone(), roots[8]),
        ("no proof", 3, 7, roots[3], Vec::new(), roots[7]),
        ("nothing before something", 0, 7, roots[0], Vec::new(), roots[7]),
        ("backwards", 7, 3, roots[7], good, roots[3]),
    ];
    for (name, old, size, before, proof, top) in wrong {
        assert!(verify_consistency(old, size, &before, &top, &proof).is_err(), "{name}");
        cases.push(
            json!({ "name": name, "kind": "consistency", "outcome": "refused", "old": old, "size": size,
            "old_root": hex::encode(before), "proof": hexes(&proof), "root": hex::encode(top) }),
        );
    }
    cases
}

const ORIGIN: &str = "hie/urn:oid:2.999.7.1/audit";

fn note_key(name: &str, kind: KeyKind, seed: u8) -> NoteKey {
    NoteKey::new(name, kind, *TestKey::new(seed).public().as_bytes()).unwrap()
}

fn judged(name: &str, outcome: &str, text: &str) -> Value {
    let (log, witness) = (
        note_key(ORIGIN, KeyKind::Log, 1),
        note_key("witness.example", KeyKind::Witness, 2),
    );
    let read = SignedCheckpoint::parse(text.as_bytes());
    let verified = read.and_then(|signed| signed.verify(ORIGIN, &log, std::slice::from_ref(&witness)));
    assert_eq!(verified.is_ok(), outcome == "verified", "{name}: {verified:?}");
    let times: Vec<u64> = verified
        .iter()
        .flat_map(|it| it.cosignatures())
        .map(|it| it.timestamp_s)
        .collect();
    let head = verified
        .ok()
        .map(|it| (it.checkpoint().size(), hex::encode(it.checkpoint().root())));
    json!({
        "name": name, "outcome": outcome, "text": text, "origin": ORIGIN, "log": log.to_text(), "witness": witness.to_text(),
        "size": head.as_ref().map(|it| it.0), "root": head.map(|it| it.1), "cosigned_at": times,
    })
}

#[test]
fn spec_p_audit_checkpoint_vectors_do_not_change() {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let sign = |seed: u8| move |message: &[u8]| -> [u8; 64] { pair(seed).sign(message).as_ref().try_into().unwrap() };
    let (log, witness) = (
        note_key(ORIGIN, KeyKind::Log, 1),
        note_key("witness.example", KeyKind::Witness, 2),
    );
    let (by_log, by_witness, by_other) = (sign(1), sign(2), sign(3));
    let checkpoint = Checkpoint::new(ORIGIN, 5, [7; 32]).unwrap();
    let plain = NoteSigner::new(&log, &by_log).sign(&checkpoint).unwrap();
    let verified = plain.verify(ORIGIN, &log, &[]).unwrap();
    let cosigned = |signer: &NoteSigner<'_>| {
        let mut both = plain.clone();
        both.add(signer.cosign(&verified, 1_790_000_000).unwrap()).unwrap();
        both.to_text()
    };
    let stranger = note_key("stranger.example", KeyKind::Witness, 3);
    let text = plain.to_text();
    let forged = NoteSigner::new(&log, &by_other).sign(&checkpoint).unwrap().to_text();
    let elsewhere = Checkpoint::new("hie/urn:oid:2.999.7.2/audit", 5, [7; 32]).unwrap();
    let elsewhere = NoteSigner::new(&log, &by_log).sign(&elsewhere).unwrap().to_text();
    let cases = vec![
        judged("signed by its log", "verified", &text),
        judged(
            "cosigned",
            "verified",
            &cosigned(&NoteSigner::new(&witness, &by_witness)),
        ),
        judged(
            "cosigned by a stranger",
            "verified",
            &cosigned(&NoteSigner::new(&stranger, &by_other)),
        ),
        judged(
            "a false cosignature",
            "refused",
            &cosigned(&NoteSigner::new(&witness, &by_other)),
        ),
        judged("a false signature", "refused", &forged),
        judged("another log", "refused", &elsewhere),
        judged("another size", "refused", &text.replacen("\n5\n", "\n6\n", 1)),
        judged(
            "a size with a zero before it",
            "refused",
            &text.replacen("\n5\n", "\n05\n", 1),
        ),
        judged("a fourth line", "refused", &text.replacen("\n5\n", "\n5\nmore\n", 1)),
        judged("no signature", "refused", &text[..text.find("\u{2014}").unwrap()]),
        judged("no newline at the end", "refused", text.trim_end()),
        judged("a control character", "refused", &text.replacen("\n5\n", "\n5\t\n", 1)),
        judged("nothing", "refused", ""),
    ];
    let about = "signed checkpoints judged with the key of the log and of one witness (C2SP signed-note verifier keys)";
    frozen("checkpoint.json", &json!({ "about": about, "cases": cases }));
}
