#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::Value;

use super::{
    Frontier, Hash, MerkleError, empty_root, leaf_hash, node_hash,
    prove::{consistency_proof, inclusion_proof, root},
    verify::{verify_consistency, verify_inclusion},
};

/// RFC 6962 section 2.1, written down as it stands.
fn naive(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => leaf_hash(one),
        many => {
            let mut k = 1;
            while k * 2 < many.len() {
                k *= 2;
            }
            node_hash(&naive(&many[..k]), &naive(&many[k..]))
        }
    }
}

/// A tree with its store, and the root after each append.
struct Grown {
    nodes: BTreeMap<(u8, u64), Hash>,
    frontier: Frontier,
}

impl Grown {
    fn new(leaves: &[Vec<u8>]) -> Self {
        let mut grown = Self {
            nodes: BTreeMap::new(),
            frontier: Frontier::new(),
        };
        for leaf in leaves {
            for node in grown.frontier.append(leaf_hash(leaf)).unwrap() {
                let before = grown.nodes.insert((node.level, node.index), node.hash);
                assert_eq!(before, None, "a node is completed once");
            }
        }
        grown
    }

    fn store(&self) -> impl Fn(u8, u64) -> Option<Hash> {
        |level, index| self.nodes.get(&(level, index)).copied()
    }
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| i.to_be_bytes().to_vec()).collect()
}

#[test]
fn the_published_roots_come_out() {
    // The eight leaves and roots of the certificate-transparency reference tests.
    let inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let leaves: Vec<Vec<u8>> = inputs.iter().map(|h| hex::decode(h).unwrap()).collect();
    let grown = Grown::new(&leaves);
    assert_eq!(
        hex::encode(grown.frontier.root()),
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    );
    let first = Grown::new(&leaves[..1]);
    assert_eq!(
        hex::encode(first.frontier.root()),
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    assert_eq!(
        hex::encode(Frontier::new().root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

#[test]
fn every_proof_of_every_small_tree_verifies_and_no_other() {
    let leaves = leaves(20);
    let grown = Grown::new(&leaves);
    let store = grown.store();
    for size in 1..=20u64 {
        let now = naive(&leaves[..size as usize]);
        assert_eq!(root(&store, size).unwrap(), now);
        for index in 0..size {
            let proof = inclusion_proof(&store, index, size).unwrap();
            let leaf = leaf_hash(&leaves[index as usize]);
            verify_inclusion(&leaf, index, size, &proof, &now).unwrap();
            for other in (0..20).filter(|other| *other != index) {
                assert!(verify_inclusion(&leaf, other, size, &proof, &now).is_err());
            }
        }
        for old in 1..=size {
            let before = naive(&leaves[..old as usize]);
            let proof = consistency_proof(&store, old, size).unwrap();
            verify_consistency(old, size, &before, &now, &proof).unwrap();
            for other in (0..=20).filter(|other| *other != old) {
                assert!(verify_consistency(other, size, &before, &now, &proof).is_err());
            }
        }
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]

    #[test]
    fn the_tree_agrees_with_the_definition(
        content in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 1..200),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let grown = Grown::new(&content);
        let store = grown.store();
        let now = naive(&content);
        let size = content.len() as u64;
        prop_assert_eq!(grown.frontier.root(), now);
        prop_assert_eq!(grown.frontier.size(), size);
        prop_assert_eq!(root(&store, size).unwrap(), now);

        let index = a.index(content.len());
        let proof = inclusion_proof(&store, index as u64, size).unwrap();
        let leaf = leaf_hash(&content[index]);
        prop_assert!(verify_inclusion(&leaf, index as u64, size, &proof, &now).is_ok());

        let old = b.index(content.len()) + 1;
        let before = naive(&content[..old]);
        let proof = consistency_proof(&store, old as u64, size).unwrap();
        prop_assert!(verify_consistency(old as u64, size, &before, &now, &proof).is_ok());
    }

    /// One changed bit in any part of what is proved, and nothing verifies.
    #[test]
    fn tampering_shows(
        size in 2usize..100,
        at in any::<prop::sample::Index>(),
        hash in any::<prop::sample::Index>(),
        bit in 0usize..256,
    ) {
        let content = leaves(size);
        let grown = Grown::new(&content);
        let store = grown.store();
        let now = grown.frontier.root();
        let index = at.index(size);
        let flip = |h: &Hash| { let mut h = *h; h[bit / 8] ^= 1 << (bit % 8); h };

        let proof = inclusion_proof(&store, index as u64, size as u64).unwrap();
        let leaf = leaf_hash(&content[index]);
        let check = |leaf: &Hash, proof: &[Hash], root: &Hash| {
            verify_inclusion(leaf, index as u64, size as u64, proof, root)
        };
        prop_assert!(check(&leaf, &proof, &now).is_ok());
        prop_assert!(check(&flip(&leaf), &proof, &now).is_err());
        prop_assert!(check(&leaf, &proof, &flip(&now)).is_err());
        let mut bad = proof.clone();
        let place = hash.index(bad.len());
        bad[place] = flip(&bad[place]);
        prop_assert!(check(&leaf, &bad, &now).is_err());
        prop_assert!(check(&leaf, &proof[1..], &now).is_err());

        let old = index.max(1).min(size - 1);
        let before = naive(&content[..old]);
        let proof = consistency_proof(&store, old as u64, size as u64).unwrap();
        let check = |a: &Hash, b: &Hash, proof: &[Hash]| {
            verify_consistency(old as u64, size as u64, a, b, proof)
        };
        prop_assert!(check(&before, &now, &proof).is_ok());
        prop_assert!(check(&flip(&before), &now, &proof).is_err());
        prop_assert!(check(&before, &flip(&now), &proof).is_err());
        let mut bad = proof.clone();
        let place = hash.index(bad.len());
        bad[place] = flip(&bad[place]);
        prop_assert!(check(&before, &now, &bad).is_err());
        prop_assert!(check(&before, &now, &proof[1..]).is_err());
    }

    #[test]
    fn frontiers_round_trip(count in 0usize..130, more in 0usize..5) {
        let content = leaves(count + more);
        let kept = Grown::new(&content[..count]).frontier;
        let mut read = Frontier::from_bytes(&kept.to_bytes()).unwrap();
        prop_assert_eq!(&read, &kept);
        for leaf in &content[count..] {
            read.append(leaf_hash(leaf)).unwrap();
        }
        prop_assert_eq!(read.root(), naive(&content));
    }

    #[test]
    fn foreign_frontiers_are_read_whole_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(read) = Frontier::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}

#[test]
fn malformed_requests_are_refused() {
    let grown = Grown::new(&leaves(5));
    let store = grown.store();
    assert_eq!(
        inclusion_proof(&store, 5, 5),
        Err(MerkleError::NoLeaf { index: 5, size: 5 })
    );
    assert_eq!(
        consistency_proof(&store, 0, 5),
        Err(MerkleError::Sizes { old: 0, new: 5 })
    );
    assert_eq!(
        consistency_proof(&store, 6, 5),
        Err(MerkleError::Sizes { old: 6, new: 5 })
    );
    assert_eq!(root(&store, 6), Err(MerkleError::Missing { level: 1, index: 2 }));
    assert_eq!(root(&store, u64::MAX), Err(MerkleError::TooLarge));
    let bytes = grown.frontier.to_bytes();
    for cut in 0..bytes.len() {
        assert_eq!(
            Frontier::from_bytes(&bytes[..cut]),
            Err(MerkleError::Frontier { length: cut })
        );
    }
    let largest = [[0xff; 8].as_slice(), &[0; 64 * 32]].concat();
    assert_eq!(Frontier::from_bytes(&largest), Err(MerkleError::TooLarge));
    let full = [(1u64 << 62).to_be_bytes().as_slice(), &[0; 32]].concat();
    let mut full = Frontier::from_bytes(&full).unwrap();
    assert_eq!(full.append([0; 32]), Err(MerkleError::TooLarge));
}

fn corpus(name: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("HIE_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join("07-hostile-and-vectors").join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("SKIPPED: {} cannot be read: {error}", path.display());
            None
        }
        Err(error) => panic!("{} cannot be read: {error}", path.display()),
    }
}

fn hash(value: &Value) -> Option<Hash> {
    STANDARD.decode(value.as_str()?).ok()?.try_into().ok()
}

fn proof(value: &Value) -> Option<Vec<Hash>> {
    value
        .as_array()
        .map_or(Some(Vec::new()), |hashes| hashes.iter().map(hash).collect())
}

#[test]
fn the_inclusion_corpus() {
    let Some(cases) = corpus("rfc6962-merkle-inclusion.json") else {
        return;
    };
    assert!(cases.len() >= 40);
    for case in cases {
        let holds = (|| {
            let (leaf, root) = (hash(&case["leafHash"])?, hash(&case["root"])?);
            let (index, size) = (case["leafIdx"].as_u64()?, case["treeSize"].as_u64()?);
            verify_inclusion(&leaf, index, size, &proof(&case["proof"])?, &root).ok()
        })();
        assert_eq!(holds.is_none(), case["wantErr"].as_bool().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn the_consistency_corpus() {
    let Some(cases) = corpus("rfc6962-merkle-consistency.json") else {
        return;
    };
    assert!(cases.len() >= 40);
    for case in cases {
        let holds = (|| {
            let (old_root, new_root) = (hash(&case["root1"])?, hash(&case["root2"])?);
            let (old, new) = (case["size1"].as_u64()?, case["size2"].as_u64()?);
            verify_consistency(old, new, &old_root, &new_root, &proof(&case["proof"])?).ok()
        })();
        assert_eq!(holds.is_none(), case["wantErr"].as_bool().unwrap(), "{}", case["name"]);
    }
}
