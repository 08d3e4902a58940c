#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use hie_protocol::id::{IndexKey, Millis, OrgId};

use super::{HolderSet, weight};

fn set(count: u32) -> HolderSet {
    let mut holders: Vec<OrgId> = (1..=count)
        .map(|number| OrgId::parse(&format!("urn:oid:2.999.{number}")).unwrap())
        .collect();
    holders.sort();
    HolderSet {
        version: 1,
        holders,
        replicas: 3,
        write_quorum: 2,
        read_quorum: 2,
        taken: Millis(0),
    }
}

fn key(number: u16) -> IndexKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    IndexKey::new(bytes)
}

#[test]
fn spec_f_place_frozen_vectors() {
    let org = OrgId::parse("urn:oid:2.999.1").unwrap();
    assert_eq!(weight(&IndexKey::new([0; 32]), &org), WEIGHT_ZERO);
    assert_eq!(weight(&IndexKey::new([0xff; 32]), &org), WEIGHT_ONES);
    let placed = |number| -> Vec<String> {
        let orgs = set(6).place(&key(number));
        orgs.iter()
            .map(|org| org.as_str().trim_start_matches("urn:oid:2.999.").to_owned())
            .collect()
    };
    for (number, expected) in PLACED {
        assert_eq!(placed(number), expected, "key {number}");
    }
}

/// The cases of `protocol/vectors/placement.json`: a key, holders with their weights, and who holds it.
#[test]
fn spec_f_place_vectors_do_not_change() {
    let mut cases = Vec::new();
    for (holders, number) in [
        (1_u32, 0_u16),
        (2, 7),
        (3, 1),
        (5, 0x0505),
        (6, 2),
        (6, 3),
        (20, 4),
        (200, 5),
    ] {
        let (set, key) = (
            set(holders),
            if number == 0x0505 {
                IndexKey::new([5; 32])
            } else {
                key(number)
            },
        );
        let weights: BTreeMap<&str, String> = set
            .holders
            .iter()
            .map(|org| (org.as_str(), format!("{:016x}", weight(&key, org))))
            .collect();
        let placed: Vec<String> = set.place(&key).iter().map(ToString::to_string).collect();
        cases.push(serde_json::json!({
            "name": format!("key {number} among {holders}"), "key": key.to_hex(), "replicas": set.replicas, "weights": weights,
            "placed": placed,
        }));
    }
    let about = "weights of holders for a key (8 bytes, hexadecimal) and the holders that keep it, heaviest first";
    let made = serde_json::json!({ "about": about, "cases": cases });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol/vectors/placement.json");
    if std::env::var_os("HIE_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(made, kept);
}

#[test]
fn spec_f_place_one_holder_more_moves_only_what_it_gains() {
    let (before, after) = (set(6), set(7));
    let new = OrgId::parse("urn:oid:2.999.7").unwrap();
    let mut moved = 0;
    for number in 0..2000 {
        let (old, now) = (before.place(&key(number)), after.place(&key(number)));
        if old == now {
            continue;
        }
        moved += 1;
        let kept: Vec<&OrgId> = now.iter().filter(|org| **org != new).collect();
        assert!(now.contains(&new));
        assert_eq!(kept, old.iter().take(2).collect::<Vec<_>>());
    }
    // Three of seven copies: 857 of 2000 on average.
    assert!((700..1000).contains(&moved), "{moved}");
}

#[test]
fn spec_f_place_spreads_keys_evenly() {
    let mut load: BTreeMap<OrgId, u32> = BTreeMap::new();
    for number in 0..6000 {
        for org in set(6).place(&key(number)) {
            *load.entry(org).or_default() += 1;
        }
    }
    assert!(load.values().all(|count| (2800..3200).contains(count)), "{load:?}");
}

#[test]
fn a_small_region_places_everywhere() {
    assert_eq!(set(2).place(&key(1)).len(), 2);
    assert!(set(0).place(&key(1)).is_empty());
}

// Computed by another program from the sentence at the top of the module.
const WEIGHT_ZERO: u64 = 0x8399_22e6_e5a7_5d1e;
const WEIGHT_ONES: u64 = 0x343b_d2da_787f_c37f;
const PLACED: [(u16, [&str; 3]); 4] = [
    (0, ["2", "6", "1"]),
    (1, ["5", "1", "2"]),
    (2, ["1", "3", "6"]),
    (1000, ["4", "6", "2"]),
];
