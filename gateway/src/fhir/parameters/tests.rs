#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_protocol::id::Millis;

use super::{
    PAGE_ENTRIES_MAX, PARAMETERS_MAX, ParameterError, Search, VALUE_BYTES_MAX, alternatives, date, decode, escape,
    overlaps, within,
};
use crate::ports::PatientSelector;

fn search(query: &str) -> Search {
    Search {
        given: decode(query.as_bytes()).unwrap(),
        posted: false,
        strict: false,
    }
}

#[test]
fn forms_decode_and_escape_back() {
    let given = decode(b"a=1&b=x%20y+z&c&d=%C3%A9&e=100%&f=%zz&g=%4").unwrap();
    let values: Vec<&str> = given.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["1", "x y z", "", "é", "100%", "%zz", "%4"]);
    for text in ["a b&c=d", "é|%", "urn:oid:1.2|7"] {
        let query = format!("x={}", escape(text));
        assert_eq!(decode(query.as_bytes()).unwrap()[0].1, text);
    }
    assert!(decode("a=1&".repeat(PARAMETERS_MAX).as_bytes()).is_some());
    assert!(decode("a=1&".repeat(PARAMETERS_MAX + 1).as_bytes()).is_none());
    assert!(decode(format!("a={}", "x".repeat(VALUE_BYTES_MAX + 1)).as_bytes()).is_none());
}

#[test]
fn alternatives_are_split_and_escapes_kept() {
    assert_eq!(alternatives(r"a,b\,c,,d\\"), ["a", "b,c", r"d\"]);
    let many = vec!["x"; 33].join(",");
    assert_eq!(
        search(&format!("type={many}")).all("type"),
        Err(ParameterError::Alternatives("type"))
    );
}

#[test]
fn dates_become_spans() {
    let day = 86_400_000;
    assert_eq!(date("1970-01-02"), Some((Some(Millis(day)), Some(Millis(2 * day)))));
    assert_eq!(date("ge1970-01-02"), Some((Some(Millis(day)), None)));
    assert_eq!(date("gt1970-01-02"), Some((Some(Millis(2 * day)), None)));
    assert_eq!(date("le1970-01-02"), Some((None, Some(Millis(2 * day)))));
    assert_eq!(date("lt1970-01-02"), Some((None, Some(Millis(day)))));
    assert_eq!(
        date("1970-01-01T00:00:01 00:00"),
        date("1970-01-01T00:00:01Z"),
        "a plus that was not escaped"
    );
    for bad in ["", "ne1970", "ap1970-01-01", "yesterday", "1970-13-01", "ge", "é1"] {
        assert_eq!(date(bad), None, "{bad}");
    }
    let spans = [date("ge1970-01-02").unwrap(), date("lt1970-01-04").unwrap()];
    assert!(!within(Millis(day - 1), &spans) && within(Millis(day), &spans) && !within(Millis(3 * day), &spans));
    assert!(overlaps((Millis(0), Millis(day)), &spans) && !overlaps((Millis(3 * day), Millis(9 * day)), &spans));
}

#[test]
fn exactly_one_patient_is_named() {
    for (query, id) in [
        ("patient=p1", "p1"),
        ("patient=Patient/p1", "p1"),
        ("patient=https%3A%2F%2Fa.example%2Ffhir%2FPatient%2Fp1", "p1"),
    ] {
        assert!(
            matches!(search(query).patient(), Ok(PatientSelector::Id(found)) if found == id),
            "{query}"
        );
    }
    let found = search("patient.identifier=urn:oid:1.2%7C77").patient();
    assert!(
        matches!(found, Ok(PatientSelector::Identifier { system, value }) if system == "urn:oid:1.2" && value == "77")
    );
    for bad in [
        "",
        "patient=",
        "patient=a/b",
        "patient=Group/1",
        "patient.identifier=77",
        "patient.identifier=%7C77",
        "patient=a&patient=b",
        "patient=a&patient.identifier=s%7Cv",
    ] {
        assert!(search(bad).patient().is_err(), "{bad}");
    }
}

#[test]
fn counts_have_a_ceiling() {
    assert_eq!(search("_count=7").count(), Ok(7));
    assert_eq!(search("").count(), Ok(PAGE_ENTRIES_MAX));
    assert_eq!(
        search("_count=99999999999999999999999999").count(),
        Ok(PAGE_ENTRIES_MAX)
    );
    for bad in ["_count=-1", "_count=x", "_count=1.5"] {
        assert_eq!(search(bad).count(), Err(ParameterError::Number("_count")), "{bad}");
    }
}
