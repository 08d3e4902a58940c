//! The guard over a public JSON suite, its limits, and generated values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::{Map, Value};

use super::{FhirError, Limits, gunzip, lines, parse, parse_lines};
use crate::corpus;

/// Accepted by JSON, refused here by rule: the same key twice in one object.
const DUPLICATE_KEYS: [&str; 2] = ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"];

#[test]
fn the_json_suite_is_judged_rightly() {
    let Some(folder) = corpus::folder("07-hostile-and-vectors/json-test-suite") else {
        return;
    };
    let (mut accepted, mut refused) = (0, 0);
    for path in corpus::files(&folder) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let end = name.trim_end_matches(".gz");
        let result = parse(&corpus::read(&path), &Limits::default());
        if end.starts_with("y_") && !DUPLICATE_KEYS.contains(&end) {
            assert!(result.is_ok(), "{name}: {:?}", result.err());
            accepted += 1;
        } else if end.starts_with("n_") || DUPLICATE_KEYS.contains(&end) {
            assert!(result.is_err(), "{name} was accepted");
            refused += 1;
        }
    }
    assert!(accepted > 40 && refused > 50, "{accepted} {refused}");
}

#[test]
fn depth_never_reaches_the_stack() {
    for opening in ["[", "{\"a\":"] {
        let deep = opening.repeat(100_000);
        let Err(FhirError::Json { reason, .. }) = parse(deep.as_bytes(), &Limits::default()) else {
            panic!("accepted")
        };
        assert!(reason.contains("deeper than 32"), "{reason}");
        let unlimited = Limits {
            depth: usize::MAX,
            ..Limits::default()
        };
        assert!(parse(deep.as_bytes(), &unlimited).is_err());
    }
    let fits = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    assert!(parse(fits.as_bytes(), &Limits::default()).is_ok());
    assert!(parse(format!("[{fits}]").as_bytes(), &Limits::default()).is_err());
}

#[test]
fn refusals_name_line_column_path_and_remedy_but_no_value() {
    let text = "{\"name\": [\n  {\"family\": \"Okafor\"},\n  {\"family\": \"Okafor\", \"family\": \"Other\"}]}";
    let error = parse(text.as_bytes(), &Limits::default()).unwrap_err();
    let FhirError::Json { line, path, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*line, path.as_str()), (3, "$.name[1].family"));
    let words = error.to_string();
    assert!(
        words.contains("same key twice") && words.contains("keep one") && !words.contains("Okafor"),
        "{words}"
    );
    let hostile = parse(b"{\"\\u0000<script>\": tru}", &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(hostile.contains("$.?"), "{hostile}");
}

#[test]
fn limits_bite_one_past_the_edge() {
    let limits = Limits {
        bytes: 40,
        depth: 4,
        string_bytes: 5,
        nodes: 4,
    };
    for good in [&b"[1,2,3]"[..], b"\"12345\"", b"[[[[]]]]", b"\xef\xbb\xbf{}"] {
        assert!(parse(good, &limits).is_ok(), "{:?}", parse(good, &limits));
    }
    for bad in [
        &b"[1,2,3,4]"[..],
        b"\"123456\"",
        b"[[[[[]]]]]",
        b"{} {}",
        b"\xff",
        &[b' '; 41],
    ] {
        assert!(parse(bad, &limits).is_err(), "{bad:?}");
    }
    let FhirError::NotUtf8 { line, column } = parse(b"{}\n {\xff", &limits).unwrap_err() else {
        panic!()
    };
    assert_eq!((line, column), (2, 3));
}

#[test]
fn gzip_bombs_and_damage_are_refused() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![b' '; 1 << 20]).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(gunzip(&packed, 1 << 20).unwrap().len(), 1 << 20);
    assert!(matches!(
        gunzip(&packed, (1 << 20) - 1),
        Err(FhirError::GzipTooLarge { .. })
    ));
    assert!(matches!(
        gunzip(&packed[..packed.len() / 2], 1 << 20),
        Err(FhirError::Gzip { .. })
    ));
}

#[test]
fn a_bad_line_is_refused_alone() {
    let text = b"{\"a\":1}\r\n\n{\"a\":\n  {\"b\":2}  ";
    let results: Vec<_> = parse_lines(text, &Limits::default())
        .map(|(number, result)| (number, result.is_ok()))
        .collect();
    assert_eq!(results, [(1, true), (3, false), (4, true)]);
    assert_eq!(lines(b"").count(), 0);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (any::<i32>(), 0_u8..6)
            .prop_map(|(digits, places)| Value::from(f64::from(digits) / 10_f64.powi(i32::from(places)))),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in values()) {
        let bytes = serde_json::to_vec(&value).unwrap();
        assert_eq!(serde_json::to_vec(&parse(&bytes, &Limits::default()).unwrap()).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = parse(&bytes, &Limits::default()) {
            assert_eq!(serde_json::from_slice::<Value>(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).unwrap(), value);
        }
    }
}
