//! Frozen normalisation and tokens: `norm-1.json` and `tokens.json` in `protocol/vectors`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use hie_protocol::cbor;
use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName};
use serde_json::{Value, json};

use super::names;
use super::normalise::{fold, normalise};
use super::tokens::{ask, publish};

fn frozen(file: &str, made: &Value) {
    let path = format!("{}/../../protocol/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HIE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == *made, "{file} differs from what this program makes");
}

#[test]
fn spec_m_norm_tables_do_not_change() {
    let pairs = |table: &[(&str, &str)]| -> BTreeMap<String, String> {
        table
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect()
    };
    let about = "the tables of the profile norm-1; nicknames in the order of the table, each with its short forms";
    let made = json!({
        "about": about, "nicknames": names::NICKNAMES, "suffixes": pairs(names::SUFFIXES), "titles": names::TITLES,
        "particles": names::PARTICLES, "placeholders": names::PLACEHOLDER_NAMES, "street words": pairs(names::STREET_WORDS),
        "unit words": names::UNIT_WORDS,
    });
    frozen("norm-1.json", &made);
}

fn name(family: &str, given: &[&str]) -> PersonName {
    PersonName {
        family: family.into(),
        given: given.iter().map(|text| (*text).into()).collect(),
        prefix: None,
        suffix: None,
    }
}

fn address(line: &str, postal: &str) -> PersonAddress {
    PersonAddress {
        lines: vec![line.into(), "c/o Nobody".into()],
        city: Some("Salem".into()),
        state: None,
        postal_code: Some(postal.into()),
    }
}

fn id(system: &str, value: &str) -> PersonIdentifier {
    PersonIdentifier {
        system: system.into(),
        value: value.into(),
    }
}

/// A person with something of every type of token.
fn whole() -> Demographics {
    Demographics {
        names: vec![name("García-Lopez Jr.", &["Bob", "James"]), name("Smith", &["Robert"])],
        birth_date: Some("1961-03-14".into()),
        sex: Some("male".into()),
        identifiers: vec![
            id("http://hl7.org/fhir/sid/us-ssn", "219-09-9998"),
            id("urn:oid:2.999.7.1.1", "MRN-00012345"),
            id("urn:oid:2.16.840.1.113883.4.3.25", "S 123-456"),
            id("http://hl7.org/fhir/sid/us-mbi/", "1EG4-TE5-MK73"),
            id("urn:oid:2.999.7.1.1", "1234"),
        ],
        addresses: vec![
            address("12 North Main Street, Apt 4", "01970-1234"),
            address("Elm Road 7b", "B-4"),
        ],
        telecoms: vec![
            "(617) 555-0123".into(),
            "mailto:Bob@Example.org".into(),
            "+1 617 555 0123".into(),
        ],
    }
}

fn people() -> Vec<(&'static str, Demographics)> {
    let with = |change: &dyn Fn(&mut Demographics)| {
        let mut person = whole();
        change(&mut person);
        person
    };
    let named = |family: &str, given: &[&str]| {
        with(&|person: &mut Demographics| {
            person.names = vec![name(family, given)];
            person.identifiers.clear();
            person.telecoms.clear();
        })
    };
    vec![
        ("something of everything", whole()),
        ("nothing", Demographics::default()),
        ("a year alone", with(&|person| person.birth_date = Some("1961".into()))),
        (
            "year and month",
            with(&|person| person.birth_date = Some("1961-03".into())),
        ),
        (
            "a birth time",
            with(&|person| person.birth_date = Some(" 1961-03-14T10:00:00Z".into())),
        ),
        ("no birth date", with(&|person| person.birth_date = None)),
        (
            "1900-01-01",
            with(&|person| person.birth_date = Some("1900-01-01".into())),
        ),
        (
            "29 February of no leap year",
            with(&|person| person.birth_date = Some("1961-02-29".into())),
        ),
        ("a name with marks", named("Đặng-Müller", &["Łukasz", "Ægir"])),
        ("ligatures and apostrophes", named("O’ﬁnn d'Arc", &["Þór"])),
        ("particles", named("de la Cruz y Vega", &["Ana"])),
        ("one letter", named("Lee", &["X"])),
        ("another script", named("李", &["小龙"])),
        ("another script with capitals", named("Ивано́в", &["Пётр"])),
        (
            "titles, digits and suffixes",
            named("Dr. Smith2 III", &["Mrs", "Jane7", "Ann"]),
        ),
        ("a suffix for a name", named("Junior", &["Senior"])),
        ("John Doe", named("Doe", &["John"])),
        ("a baby", named("Smith", &["Baby", "Boy"])),
        ("up to three roots", named("Smith", &["Al"])),
        ("no given name", named("Smith", &[])),
        (
            "a separator in a system",
            with(&|person| person.identifiers = vec![id("urn:x|y", "12345678")]),
        ),
        (
            "placeholder numbers",
            with(&|person| {
                person.identifiers = vec![
                    id("http://hl7.org/fhir/sid/us-ssn", "999-99-9999"),
                    id("x", "UNKNOWN"),
                    id("urn:oid:2.16.840.1.113883.4.1", "9998"),
                ];
                person.telecoms = [
                    "555-5555",
                    "1234567",
                    "999-999-9999",
                    "none@example.org",
                    "a b@example.org",
                ]
                .map(Into::into)
                .to_vec();
            }),
        ),
        (
            "a short number",
            with(&|person| person.telecoms = vec!["555-0123".into()]),
        ),
        (
            "homeless",
            with(&|person| person.addresses = vec![address("General Delivery", "01970"), address("", "00000")]),
        ),
        (
            "a unit before a street",
            with(&|person| person.addresses = vec![address("Unit 5 Oak Lane", "EC1A 1BB")]),
        ),
        (
            "nine names",
            with(&|person| {
                person.names = (b'A'..=b'J')
                    .map(|letter| name(&format!("Name{}", char::from(letter)), &["Alex"]))
                    .collect()
            }),
        ),
    ]
}

#[test]
fn spec_m_tok_vectors_do_not_change() {
    let mut cases: Vec<Value> = Vec::new();
    for (what, person) in people() {
        let normal = normalise(&person);
        let texts = |tokens: Vec<super::tokens::Token>| -> Vec<String> {
            tokens.into_iter().map(|token| token.input).collect()
        };
        cases.push(json!({
            "name": what, "demographics": hex::encode(cbor::encode(&person).unwrap()), "epoch": 1,
            "published": texts(publish(&normal, 1)), "asked": texts(ask(&normal, 1)),
        }));
    }
    let folded: Vec<Value> = [
        "",
        "Weiß",
        "ẞ",
        "Straße 5",
        "İstanbul",
        "ŉ",
        "x\u{301}y",
        "½ Ⅷ ①",
        "  a--b  ",
        &"é".repeat(130),
    ]
    .iter()
    .map(|text| json!([text, fold(text)]))
    .collect();
    let sounds: Vec<Value> = ["", "李", "ROBERT", "ASHCRAFT", "TYMCZAK", "PFISTER", "O1BRIEN"]
        .iter()
        .map(|text| json!([text, names::soundex(text).unwrap_or_default()]))
        .collect();
    let about = "the tokens of demographics (a frame of the rule of that name), in order; folded texts; sounds";
    frozen(
        "tokens.json",
        &json!({ "about": about, "cases": cases, "folded": folded, "sounds": sounds }),
    );
}
