//! Frames that a receiver must refuse, one fault each, in `protocol/vectors/refused.json`.

use serde_json::{Value, json};

use super::{NOW, claim, frozen, record, request_frames};
use crate::bytes::Bytes;
use crate::cbor::{self, FRAME_BYTES_MAX, FrameError};
use crate::claim::Claim;
use crate::id::IndexKey;
use crate::message::{IndexMessage, Request, Response};
use crate::record::IndexRecord;
use crate::retrieval::{Ask, Header};
use crate::sign::{self, DOMAIN_CLAIM, tests::TestKey};

/// A frame as hexadecimal text, read as a type of the specification, and what is wrong with it.
type Fault = (&'static str, &'static str, String);

fn hex_of(name: &str) -> String {
    let frames = request_frames();
    let (_, bytes) = frames.iter().find(|(known, _)| *known == name).unwrap();
    hex::encode(bytes)
}

/// `registry { have: 6 }` and everything that can be wrong with its bytes.
fn forms() -> Vec<Fault> {
    let good = hex_of("request registry");
    assert_eq!(good, "a1687265676973747279a1646861766506");
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let tail = good[2..].to_owned();
    vec![
        ("an empty frame", "truncated", String::new()),
        ("cut in a key", "truncated", good[..10].to_owned()),
        (
            "cut before the last value",
            "truncated",
            good[..good.len() - 2].to_owned(),
        ),
        ("a length beyond the bytes", "truncated", with("64686176", "78ff686176")),
        (
            "a count that no frame can have",
            "truncated",
            "9b7fffffffffffffff".into(),
        ),
        ("bytes behind the value", "trailing", format!("{good}00")),
        ("a second value", "trailing", format!("{good}{good}")),
        (
            "a number in a longer head",
            "head",
            format!("{}1806", &good[..good.len() - 2]),
        ),
        (
            "a number in eight bytes",
            "head",
            format!("{}1b0000000000000006", &good[..good.len() - 2]),
        ),
        ("a map in a longer head", "head", format!("b801{tail}")),
        ("a text in a longer head", "head", with("687265", "78087265")),
        ("an indefinite map", "form", format!("bf{tail}ff")),
        ("an indefinite text", "form", with("6468617665", "7f6468617665ff")),
        ("a tag", "form", format!("c1{good}")),
        ("a half float", "form", format!("{}f94600", &good[..good.len() - 2])),
        (
            "a double float",
            "form",
            format!("{}fb4018000000000000", &good[..good.len() - 2]),
        ),
        ("undefined", "form", format!("{}f7", &good[..good.len() - 2])),
        ("a simple value", "form", format!("{}f0", &good[..good.len() - 2])),
        ("a break", "form", format!("{}ff", &good[..good.len() - 2])),
        ("a reserved head", "form", format!("{}1c", &good[..good.len() - 2])),
        ("too deep", "depth", format!("{}00", "81".repeat(17))),
        ("far too deep", "depth", "81".repeat(5000)),
        ("text that is not UTF-8", "shape", with("68617665", "ff617665")),
        ("a negative number", "shape", format!("{}26", &good[..good.len() - 2])),
        ("null for a number", "shape", format!("{}f6", &good[..good.len() - 2])),
        (
            "an unknown request",
            "shape",
            with("7265676973747279", "7265676973747278"),
        ),
        ("a request without content", "shape", "687265676973747279".into()),
        ("no entry in a choice", "shape", "a0".into()),
        ("two entries in a choice", "order", format!("a2{tail}{tail}")),
        (
            "an array for a map",
            "shape",
            "a1687265676973747279810 6".replace(' ', ""),
        ),
        ("a missing key", "shape", "a1687265676973747279a0".into()),
        (
            "an unknown key",
            "shape",
            "a1687265676973747279a26161006468617665 06".replace(' ', ""),
        ),
        (
            "a key twice",
            "order",
            "a1687265676973747279a2646861766506646861766506".into(),
        ),
    ]
}

fn orders_and_lists() -> Vec<Fault> {
    let hello = hex_of("request hello");
    let clock = format!("65636c6f636b{}", hex::encode(cbor::encode(&NOW).unwrap()));
    let versions = "6876657273696f6e738101";
    let registry = "68726567697374727907";
    assert_eq!(hello, format!("a16568656c6c6fa3{clock}{registry}{versions}"));
    let lookup = |keys: usize| {
        let keys = vec![IndexKey::new([5; 32]); keys];
        let message = IndexMessage::Lookup {
            id: 1,
            keys,
            after: None,
        };
        hex::encode(Request::Index(message).encode().unwrap())
    };
    let good = lookup(1);
    let key = format!("5820{}", "05".repeat(32));
    let found = |records: usize| {
        let records = vec![vec![Bytes(vec![1]); records]];
        let message = IndexMessage::Found {
            id: 1,
            records,
            whole: true,
            next: None,
        };
        hex::encode(Request::Index(message).encode().unwrap())
    };
    vec![
        (
            "keys out of order",
            "order",
            format!("a16568656c6c6fa3{registry}{clock}{versions}"),
        ),
        (
            "a version over 65535",
            "shape",
            hello.replacen("8101", "811a00010000", 1),
        ),
        (
            "seventeen versions",
            "shape",
            hello.replacen("8101", &format!("91{}", "01".repeat(17)), 1),
        ),
        ("65 keys", "shape", lookup(65)),
        ("257 records", "shape", found(257)),
        (
            "a key of 31 bytes",
            "shape",
            good.replacen(&key, &format!("581f{}", "05".repeat(31)), 1),
        ),
        (
            "a key as text",
            "shape",
            good.replacen(&key, &format!("7820{}", "05".repeat(32)), 1),
        ),
        (
            "a key as an array of numbers",
            "shape",
            good.replacen(&key, &format!("9820{}", "05".repeat(32)), 1),
        ),
        (
            "null in place of nothing",
            "shape",
            good.replacen("a26269 64".replace(' ', "").as_str(), "a3626964", 1)
                .replacen(&key, &format!("{key}656166746572f6"), 1),
        ),
    ]
}

fn values() -> Vec<(&'static str, Fault)> {
    let claim = hex::encode(cbor::encode(&claim()).unwrap());
    let record = hex::encode(cbor::encode(&record(1)).unwrap());
    let swap = |bytes: &str, from: &str, to: &str| {
        let (from, to) = (hex::encode(from), hex::encode(to));
        assert_eq!(from.len(), to.len());
        assert!(bytes.contains(&from));
        bytes.replacen(&from, &to, 1)
    };
    let refusal = |word: &str| {
        let (head, word) = (0x60 + u8::try_from(word.len()).unwrap(), hex::encode(word));
        format!("a16772656675736564{head:02x}{word}")
    };
    vec![
        (
            "request",
            (
                "an empty list in place of nothing",
                "shape",
                "a16d72656769737472792d70757368a2667369676e6564410169617070726f76616c7380".into(),
            ),
        ),
        ("request", ("null for a share", "shape", share("f6"))),
        ("request", ("a share over 65535", "shape", share("1a00010000"))),
        (
            "claim",
            ("a purpose outside the list", "shape", swap(&claim, "cBTG", "cBTH")),
        ),
        (
            "claim",
            (
                "a role outside the list",
                "shape",
                swap(&claim, "physician", "physicist"),
            ),
        ),
        (
            "claim",
            (
                "an OID with a leading zero",
                "shape",
                swap(&claim, "2.999.7.1", "2.999.0.1").replacen(
                    &hex::encode("2.999.0.1"),
                    &hex::encode("2.999.071"),
                    1,
                ),
            ),
        ),
        (
            "claim",
            ("an OID under 3", "shape", swap(&claim, "2.999.7.1", "3.999.7.1")),
        ),
        (
            "claim",
            ("an id that is no OID", "shape", swap(&claim, "urn:oid:2", "urn:uid:2")),
        ),
        (
            "index-record",
            ("another class of content", "shape", swap(&record, "live", "lice")),
        ),
        (
            "index-record",
            (
                "a confidentiality outside the list",
                "shape",
                record.replacen(
                    "6f636f6e666964656e7469616c697479614e",
                    "6f636f6e666964656e7469616c6974796158",
                    1,
                ),
            ),
        ),
        (
            "response",
            ("a refusal outside the list", "shape", refusal("nothing-there")),
        ),
        ("response", ("taken with content", "shape", "a16574616b656ef6".into())),
        (
            "response",
            (
                "a refusal as a structure",
                "shape",
                "a167726566757365 64a0".replace(' ', ""),
            ),
        ),
        (
            "lane-ask",
            ("a negative instance", "shape", lane_ask("a168696e7374616e636520")),
        ),
        (
            "lane-ask",
            (
                "an instance over 32 bits",
                "shape",
                lane_ask("a168696e7374616e63651b0000000100000000"),
            ),
        ),
        ("lane-ask", ("an unknown item", "shape", lane_ask("68646f63756d656e73"))),
    ]
}

/// `evaluate` with another share, which stands between the epoch and the blinded elements.
fn share(value: &str) -> String {
    let good = hex_of("request evaluate");
    let (head, epoch) = ("a1686576616c75617465a3", "6565706f636801");
    assert!(good.starts_with(head) && good.contains(epoch));
    good.replacen(head, "a1686576616c75617465a4", 1)
        .replacen(epoch, &format!("{epoch}657368617265{value}"), 1)
}

fn lane_ask(item: &str) -> String {
    format!("a36466726f6d00646974656d{item}667469636b65745820{}", "05".repeat(32))
}

/// Envelopes around a good payload that are not the one form of a signed thing.
fn envelopes() -> Vec<Fault> {
    let good = hex::encode(claim().sign(&TestKey::new(1)).unwrap());
    let protected = format!("5826a2012704 5820{}", "01".repeat(32)).replace(' ', "");
    assert!(good.starts_with(&format!("84{protected}a0590174")));
    let with = |to: &str| good.replacen(&protected, to, 1);
    let key = "01".repeat(32);
    vec![
        ("tagged", "form", format!("d2{good}")),
        ("ES256", "shape", with(&format!("5826a20126045820{key}"))),
        (
            "a third header",
            "shape",
            with(&format!("5828a30127 0300 045820{key}").replace(' ', "")),
        ),
        ("no key id", "shape", with("43a10127")),
        (
            "a key id of 31 bytes",
            "shape",
            with(&format!("5825a2012704581f{}", "01".repeat(31))),
        ),
        (
            "a header in a longer form",
            "shape",
            with(&format!("5827a2011826045820{key}")),
        ),
        (
            "an unprotected header",
            "shape",
            good.replacen(&format!("{protected}a0"), &format!("{protected}a10400"), 1),
        ),
        (
            "a detached payload",
            "shape",
            format!("84{protected}f6a0f65840{}", "00".repeat(64)).replacen("f6a0", "a0", 1),
        ),
        (
            "a payload in a longer head",
            "head",
            good.replacen("a0590174", "a05a00000174", 1),
        ),
        (
            "three parts",
            "shape",
            good.replacen("84", "83", 1)[..good.len() - 132].to_owned(),
        ),
        ("a signature of 63 bytes", "shape", {
            let cut = good[..good.len() - 2].to_owned();
            let at = cut.len() - 126 - 4;
            format!("{}583f{}", &cut[..at], &cut[at + 4..])
        }),
    ]
}

fn refused_as(rule: &str, bytes: &[u8]) -> FrameError {
    let error = match rule {
        "request" => Request::decode(bytes).err(),
        "response" => Response::decode(bytes).err(),
        "claim" => cbor::decode::<Claim>(bytes, FRAME_BYTES_MAX).err(),
        "index-record" => cbor::decode::<IndexRecord>(bytes, FRAME_BYTES_MAX).err(),
        "lane-ask" => cbor::decode::<Ask>(bytes, FRAME_BYTES_MAX).err(),
        "lane-header" => cbor::decode::<Header>(bytes, FRAME_BYTES_MAX).err(),
        other => panic!("{other} is read nowhere"),
    };
    error.unwrap()
}

#[test]
fn spec_p_cbor_frames_with_one_fault_each_are_refused() {
    let mut made: Vec<Value> = Vec::new();
    let requests = forms()
        .into_iter()
        .chain(orders_and_lists())
        .map(|fault| ("request", fault));
    for (rule, (name, why, text)) in requests.chain(values()) {
        let bytes = hex::decode(&text).unwrap();
        let error = refused_as(rule, &bytes);
        let class = match error {
            FrameError::TooDeep { .. } => "depth",
            FrameError::Truncated { .. } => "truncated",
            FrameError::Form { .. } => "form",
            FrameError::Trailing { .. } => "trailing",
            _ => "value",
        };
        let value = matches!(why, "head" | "order" | "shape");
        assert_eq!(class, if value { "value" } else { why }, "{name}");
        made.push(json!({ "name": name, "rule": rule, "why": why, "hex": text }));
    }
    for (name, why, text) in envelopes() {
        let bytes = hex::decode(&text).unwrap();
        let key = TestKey::new(1);
        assert!(
            sign::verify(DOMAIN_CLAIM, &bytes, 9999, |_| Some(key.public())).is_err(),
            "{name}"
        );
        made.push(json!({ "name": name, "rule": "signed-claim", "why": why, "hex": text }));
    }
    frozen(
        "refused.json",
        &json!({ "about": "frames that a receiver refuses, read as the rule of SPEC.md; why: depth, truncated, form, trailing, head (not shortest), order (of keys), shape (of the rule)", "cases": made }),
    );
}
