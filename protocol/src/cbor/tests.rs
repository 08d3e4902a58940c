#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{FRAME_BYTES_MAX, FrameError, decode, encode, guard};

#[test]
fn maps_are_written_in_key_order_of_rfc_8949() {
    let map: BTreeMap<&str, u8> = [("aa", 1), ("b", 2), ("a", 3)].into();
    assert_eq!(
        hex::encode(encode(&map).unwrap()),
        "a3616103616202626161".to_owned() + "01"
    );
}

#[test]
fn spec_p_cbor_only_the_deterministic_form_is_read() {
    let ordered = hex::decode("a26161016162".to_owned() + "02").unwrap();
    assert!(decode::<BTreeMap<String, u8>>(&ordered, 99).is_ok());
    let swapped = hex::decode("a26162026161".to_owned() + "01").unwrap();
    assert_eq!(
        decode::<BTreeMap<String, u8>>(&swapped, 99),
        Err(FrameError::NotDeterministic)
    );
    let long_form = hex::decode("1801").unwrap();
    assert_eq!(decode::<u8>(&long_form, 99), Err(FrameError::NotDeterministic));
}

#[test]
fn hostile_frames_are_refused_with_their_place() {
    let deep = vec![0x81_u8; 100_000];
    assert_eq!(
        decode::<Vec<u8>>(&deep, FRAME_BYTES_MAX),
        Err(FrameError::TooDeep { at: 16 })
    );
    for (bytes, error) in [
        ("9b7fffffffffffffff", FrameError::Truncated { at: 0 }),
        ("5b7fffffffffffffff00", FrameError::Truncated { at: 9 }),
        ("bbffffffffffffffff", FrameError::Truncated { at: 0 }),
        ("9fff", FrameError::Form { at: 0 }),
        ("c001", FrameError::Form { at: 0 }),
        ("f97e00", FrameError::Form { at: 0 }),
        ("0000", FrameError::Trailing { at: 1 }),
        ("", FrameError::Truncated { at: 0 }),
    ] {
        assert_eq!(guard(&hex::decode(bytes).unwrap()), Err(error), "{bytes}");
    }
    assert_eq!(
        decode::<u8>(&[0; 9], 4),
        Err(FrameError::TooLarge { found: 9, limit: 4 })
    );
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![Just(None), any::<String>().prop_map(Some)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value: Vec<(u64, i64, bool)>, words in proptest::collection::btree_map(any::<String>(), text(), 0..9)) {
        let bytes = encode(&(value.clone(), words.clone())).unwrap();
        assert_eq!(decode::<(Vec<(u64, i64, bool)>, BTreeMap<String, Option<String>>)>(&bytes, FRAME_BYTES_MAX).unwrap(), (value, words));
    }

    #[test]
    fn arbitrary_bytes_never_crash(bytes: Vec<u8>) {
        let _outcome = decode::<BTreeMap<String, Vec<u8>>>(&bytes, FRAME_BYTES_MAX);
    }
}
