#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_protocol::message::{Demographics, PersonAddress, PersonName};

use super::{Birth, IdentifierKind, fold, identifier, normalise, phone};

fn named(family: &str, given: &[&str], suffix: Option<&str>) -> super::NormalName {
    let name = PersonName {
        family: family.into(),
        given: given.iter().map(|text| (*text).into()).collect(),
        prefix: None,
        suffix: suffix.map(Into::into),
    };
    normalise(&Demographics {
        names: vec![name],
        ..Demographics::default()
    })
    .names
    .remove(0)
}

#[test]
fn spec_m_norm_folding_strips_marks_and_signs() {
    for (from, to) in [
        ("Müller-Lüdenscheidt", "MULLER LUDENSCHEIDT"),
        ("O’Brien", "OBRIEN"),
        ("  José  María ", "JOSE MARIA"),
        ("Weiß", "WEISS"),
        ("Bjørn", "BJORN"),
        ("ﬁnn", "FINN"),
        ("Łukasz", "LUKASZ"),
        ("Anne-Marie", "ANNE MARIE"),
    ] {
        assert_eq!(fold(from), to, "{from}");
    }
}

#[test]
fn spec_m_norm_names_split_into_their_parts() {
    let name = named("García-Lopez Jr.", &["Robert James"], None);
    assert_eq!((name.family.as_str(), name.given.as_str()), ("GARCIALOPEZ", "ROBERT"));
    assert_eq!(name.parts, ["GARCIA", "LOPEZ"]);
    assert_eq!(
        (name.middle.as_slice(), name.suffix),
        (["JAMES".to_owned()].as_slice(), Some("JR"))
    );
    assert!(named("de la Cruz", &["Ana"], None).parts.is_empty());
    assert_eq!(named("Marquardt819", &["Adolfo500"], Some("Sr.")).family, "MARQUARDT");
    assert_eq!(named("Smith", &["Mrs. Jane"], None).given, "JANE");
    assert!(named("Doe", &["John"], None).placeholder);
    assert!(named("Smith", &["Baby", "Boy"], None).placeholder);
    assert!(!named("Doe", &["Miriam"], None).placeholder);
}

#[test]
fn spec_m_norm_placeholders_are_absent() {
    for text in ["1900-01-01", "1961-02-30", "61-02-03", "", "19610203", "1961-13"] {
        assert!(Birth::parse(text).is_none(), "{text}");
    }
    assert_eq!(
        Birth::parse("1960-02-29").and_then(Birth::full).as_deref(),
        Some("19600229")
    );
    assert!(!Birth::parse("1961-03").unwrap().is_full());
    let ssn = "http://hl7.org/fhir/sid/us-ssn";
    for text in ["999-99-9999", "000-12-3456", "123-45-6789", "12", ""] {
        assert!(identifier(ssn, text).is_none(), "{text}");
    }
    assert_eq!(
        identifier(ssn, "219-09-9998").map(|id| (id.kind, id.value)),
        Some((IdentifierKind::SocialSecurity, "219099998".into()))
    );
    for text in ["555", "000-000-0000", "(212) 555-5555", "1234567"] {
        assert!(phone(text).is_none(), "{text}");
    }
    assert_eq!(phone("+1 (617) 555-0123").as_deref(), Some("6175550123"));
}

#[test]
fn addresses_meet_in_one_form() {
    let of = |line: &str| {
        let address = PersonAddress {
            lines: vec![line.into()],
            city: Some("Salem".into()),
            state: None,
            postal_code: Some("01970-1234".into()),
        };
        normalise(&Demographics {
            addresses: vec![address],
            ..Demographics::default()
        })
        .addresses
        .remove(0)
    };
    assert!(of("12 North Main Street, Apt 4") == of("12 N Main St"));
    assert_eq!(of("12 N Main St").postal.as_deref(), Some("01970"));
    assert_eq!(of("12 N Main St").house.as_deref(), Some("12"));
}

#[test]
fn hostile_texts_are_cut_and_survive() {
    let long = "é".repeat(100_000);
    assert_eq!(fold(&long).len(), super::VALUE_CHARS_MAX);
    assert!(Birth::parse("日本日本-日本-日本").is_none());
    let many = Demographics {
        telecoms: vec![long; 50],
        ..Demographics::default()
    };
    assert!(normalise(&many).phones.is_empty());
}
