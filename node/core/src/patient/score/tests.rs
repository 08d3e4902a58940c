#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_protocol::message::{Demographics, MatchGrade, PersonAddress, PersonIdentifier, PersonName};

use super::{Verdict, judge, lead};
use crate::patient::normalise::normalise;

/// `family/given middle/suffix|birth|sex|phone|address|ssn`, `-` for absent.
fn person(line: &str) -> Demographics {
    let fields: Vec<&str> = line.split('|').collect();
    let some = |at: usize| fields.get(at).copied().filter(|text| *text != "-").map(str::to_owned);
    let name: Vec<&str> = fields[0].split('/').collect();
    Demographics {
        names: vec![PersonName {
            family: name[0].into(),
            given: name[1].split(' ').map(Into::into).collect(),
            prefix: None,
            suffix: name.get(2).map(|text| (*text).into()),
        }],
        birth_date: some(1),
        sex: some(2),
        telecoms: some(3).into_iter().collect(),
        addresses: some(4)
            .map(|line| PersonAddress {
                lines: vec![line],
                city: Some("Salem".into()),
                state: None,
                postal_code: Some("01970".into()),
            })
            .into_iter()
            .collect(),
        identifiers: some(5)
            .map(|value| PersonIdentifier {
                system: "http://hl7.org/fhir/sid/us-ssn".into(),
                value,
            })
            .into_iter()
            .collect(),
    }
}

fn verdict(left: &str, right: &str) -> Verdict {
    judge(&normalise(&person(left)), &normalise(&person(right)))
}

#[test]
fn spec_m_grade_cases() {
    let certain = Some(MatchGrade::Certain);
    let probable = Some(MatchGrade::Probable);
    for (what, left, right, grade) in [
        (
            "the same with a telephone",
            "Smith/Robert|1961-03-14|male|6175550123|-|-",
            "SMITH/Bob|1961-03-14|male|617-555-0123|-|-",
            certain,
        ),
        (
            "name, birth date and sex alone",
            "Smith/Robert|1961-03-14|male|-|-|-",
            "Smith/Robert|1961-03-14|male|-|-|-",
            probable,
        ),
        (
            "and the middle name",
            "Smith/Robert James|1961-03-14|male|-|-|-",
            "Smith/Robert James|1961-03-14|male|-|-|-",
            probable,
        ),
        (
            "one number and birth date",
            "Smith/Robert|1961-03-14|male|-|-|219-09-9998",
            "Jones/Robert|1961-03-14|male|-|-|219099998",
            certain,
        ),
        (
            "one number and name, a slip in the date",
            "Smith/Robert|1961-03-14|male|-|-|219-09-9998",
            "Smith/Robert|1961-03-15|male|-|-|219099998",
            certain,
        ),
        (
            "twins of one household",
            "Smith/Anna|2001-05-06|female|6175550123|1 Main St|-",
            "Smith/Hannah|2001-05-06|female|6175550123|1 Main St|-",
            probable,
        ),
        (
            "twins under the guarantor's number",
            "Smith/Mark|2001-05-06|male|6175550123|1 Main St|219-09-9998",
            "Smith/Luke|2001-05-06|male|6175550123|1 Main St|219-09-9998",
            probable,
        ),
        (
            "father and son",
            "Smith/Robert/Sr|1941-03-14|male|6175550123|1 Main St|-",
            "Smith/Robert/Jr|1966-03-14|male|6175550123|1 Main St|-",
            None,
        ),
        (
            "junior and senior with one date",
            "Smith/Robert/Sr|1966-03-14|male|6175550123|1 Main St|-",
            "Smith/Robert/Jr|1966-03-14|male|6175550123|1 Main St|-",
            probable,
        ),
        (
            "father and son under one number",
            "Smith/Robert|1941-03-14|male|-|-|219-09-9998",
            "Smith/Robert|1966-03-14|male|-|-|219-09-9998",
            probable,
        ),
        (
            "married and moved, one telephone",
            "Smith/Mary|1961-03-14|female|6175550123|1 Main St|-",
            "Jones/Mary|1961-03-14|female|6175550123|9 Elm St|-",
            probable,
        ),
        (
            "strangers",
            "Smith/Robert|1961-03-14|male|-|-|-",
            "Jones/Robert|1972-08-01|male|-|-|-",
            None,
        ),
        (
            "day and month changed about",
            "Smith/Robert|1961-03-04|male|6175550123|1 Main St|-",
            "Smith/Robert|1961-04-03|male|6175550123|1 Main St|-",
            certain,
        ),
        (
            "names changed about",
            "Nguyen/Thanh|1961-03-14|male|6175550123|-|-",
            "Thanh/Nguyen|1961-03-14|male|6175550123|-|-",
            certain,
        ),
        (
            "unknown man",
            "Doe/John|1961-03-14|male|6175550123|1 Main St|-",
            "Doe/John|1961-03-14|male|6175550123|1 Main St|-",
            None,
        ),
        (
            "other sex, no contact",
            "Smith/Robin|1961-03-14|male|-|-|219-09-9998",
            "Smith/Robin|1961-03-14|female|-|-|219-09-9998",
            probable,
        ),
        (
            "two different numbers",
            "Smith/Robert|1961-03-14|male|6175550123|1 Main St|219-09-9998",
            "Smith/Robert|1961-03-14|male|6175550123|1 Main St|219-09-9997",
            probable,
        ),
        (
            "no birth date",
            "Smith/Robert|-|male|6175550123|1 Main St|-",
            "Smith/Robert|1961-03-14|male|6175550123|1 Main St|-",
            probable,
        ),
    ] {
        let found = verdict(left, right);
        assert_eq!(found.grade, grade, "{what}: {found:?}");
        assert_eq!(verdict(right, left).grade, grade, "{what}, the other way round");
    }
}

#[test]
fn the_reasons_are_in_words_without_values() {
    let found = verdict(
        "Smith/Mary|1961-03-14|female|6175550123|-|-",
        "Jones/Mary|1961-03-14|female|6175550123|-|-",
    );
    assert_eq!(found.agrees, ["telephone", "given name", "birth date", "sex"]);
    assert_eq!(found.differs, ["family name"]);
}

#[test]
fn spec_m_grade_two_certain_people_are_both_probable() {
    let asked = normalise(&person("Smith/Robert|1961-03-14|male|6175550123|-|-"));
    let twin_records = [
        "Smith/Robert|1961-03-14|male|6175550123|-|-",
        "Smith/Robert|1961-03-14|male|6175550123|1 Main St|-",
        "Jones/Ann|1999-01-02|female|-|-|-",
    ];
    let judged = twin_records
        .iter()
        .enumerate()
        .map(|(at, line)| (at, judge(&asked, &normalise(&person(line)))))
        .collect();
    let led = lead(judged);
    assert_eq!(led.len(), 2);
    assert!(
        led.iter()
            .all(|(_, verdict)| verdict.grade == Some(MatchGrade::Probable))
    );
    let alone = lead(vec![(0, judge(&asked, &asked))]);
    assert_eq!(alone[0].1.grade, Some(MatchGrade::Certain));
}
