#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_gateway_dialect::fhir::clinical::read;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_protocol::message::MatchGrade;

use super::allergies::Label;
use super::{Clock, EntryId, Kind, Source, View, view};
use crate::ports::OrgState;
use crate::twins::region::{NAMES, NOW, Summary, grace, org};

const CLOCK: Clock = Clock {
    now: NOW,
    offset_minutes: 0,
};

fn source(number: usize, state: OrgState, summary: Option<&Summary>) -> Source {
    let mut source = Source::waiting(number, org(number), NAMES[number].to_owned());
    source.state = state;
    source.summary = summary.map(|summary| read(&summary.bytes(), &Limits::default()).unwrap());
    source
}

fn of(parts: &[(OrgState, Option<Summary>)]) -> (Vec<Source>, View) {
    let sources: Vec<Source> = parts
        .iter()
        .enumerate()
        .map(|(number, (state, summary))| source(number, state.clone(), summary.as_ref()))
        .collect();
    let made = view(&grace().demographics, &sources, &CLOCK);
    (sources, made)
}

/// Every entry of every summary, counted from the summaries themselves.
fn expected(sources: &[Source]) -> Vec<EntryId> {
    let mut all = Vec::new();
    for source in sources {
        let Some(summary) = &source.summary else { continue };
        let counts = [
            (Kind::Allergy, summary.allergies.len()),
            (Kind::RefutedAllergy, summary.refuted_allergies.len()),
            (Kind::Medication, summary.medications.len()),
            (Kind::Problem, summary.problems.len()),
            (Kind::Visit, summary.visits.len()),
            (Kind::Imaging, summary.imaging.len()),
        ];
        for (kind, count) in counts {
            all.extend((0..count).map(|position| EntryId {
                source: source.number,
                kind,
                position,
            }));
        }
    }
    all.sort();
    all
}

fn penicillin(recorded: &str) -> Summary {
    Summary::new().allergy("91936005", "Penicillin", Some(("anaphylaxis", "severe")), recorded)
}

#[test]
fn every_entry_is_reachable_from_exactly_one_row() {
    let rich = || {
        penicillin("2021-01-01")
            .typed_allergy("codeine", "2012-01-01")
            .typed_allergy("codeine", "2013-01-01")
            .refuted("1003755004", "Latex", "2023-01-01")
            .medication("active", "855332", "Warfarin", "5 mg", "2026-01-01")
            .medication("stopped", "855332", "Warfarin", "3 mg", "2020-01-01")
            .medication("completed", "723", "Amoxicillin", "500 mg", "2020-01-01")
            .problem("44054006", "Type 2 diabetes", "2011-01-01", None)
            .problem("44054006", "Type 2 diabetes", "2001-01-01", Some("2002-01-01"))
            .visit("2026-01-01", "review")
    };
    let mut twisted = source(2, OrgState::IdentityNotAgreed, Some(&rich()));
    twisted.grade = MatchGrade::Probable;
    let sources = vec![
        source(0, OrgState::Answered, Some(&rich())),
        source(1, OrgState::Answered, Some(&rich())),
        twisted,
        source(3, OrgState::Answered, Some(&rich().born("1961-05-14"))),
    ];
    let made = view(&grace().demographics, &sources, &CLOCK);
    let mut found = made.entries();
    found.sort();
    assert_eq!(found, expected(&sources));
    assert_eq!(found.len(), 40);
    assert_eq!(made.apart.len(), 2);
}

#[test]
fn known_allergies_name_the_gap() {
    let (_, made) = of(&[
        (OrgState::Answered, Some(penicillin("2021-01-01"))),
        (OrgState::TimedOut(5000), None),
        (OrgState::Offline(None), None),
    ]);
    assert_eq!(made.allergies.label, Label::Known);
    assert_eq!(
        (made.allergies.heading.as_str(), made.allergies.gap.as_str()),
        ("Known allergies", "2 organisations did not answer")
    );
    assert_eq!(
        made.gap,
        "No answer: St Anne Hospital (timed out), Harbour GP (offline). This record may be incomplete."
    );
}

#[test]
fn no_known_allergies_needs_all_three_conditions() {
    let none = || Some(Summary::new().no_known_allergies("2019-01-12"));
    let label = |parts: &[(OrgState, Option<Summary>)]| of(parts).1.allergies.label;
    let (_, made) = of(&[(OrgState::Answered, none()), (OrgState::NoRecord, None)]);
    assert_eq!(made.allergies.label, Label::NoneKnown);
    assert!(
        made.allergies.note.contains("City General said") && made.allergies.note.contains("12-Jan-2019"),
        "{}",
        made.allergies.note
    );
    assert_eq!(
        label(&[(OrgState::Answered, none()), (OrgState::TimedOut(5000), None)]),
        Label::NotRecorded
    );
    assert_eq!(
        label(&[(OrgState::Answered, none()), (OrgState::Refused, None)]),
        Label::NotRecorded
    );
    assert_eq!(label(&[(OrgState::Answered, Some(Summary::new()))]), Label::Unknown);
    assert_eq!(
        label(&[(OrgState::Answered, none()), (OrgState::SomeWithheld, None)]),
        Label::Unknown
    );
    assert_eq!(
        label(&[(OrgState::Answered, none()), (OrgState::IdentityNotAgreed, None)]),
        Label::Unknown
    );
    assert_eq!(
        label(&[
            (OrgState::Answered, none()),
            (OrgState::Answered, Some(penicillin("2021-01-01").born("1961-05-14")))
        ]),
        Label::Unknown
    );
    assert_eq!(
        label(&[
            (OrgState::Answered, none()),
            (OrgState::Answered, Some(penicillin("2021-01-01")))
        ]),
        Label::Known
    );
    assert_eq!(
        label(&[(OrgState::Answered, none()), (OrgState::Waiting, None)]),
        Label::NotYetKnown
    );
    assert_eq!(label(&[(OrgState::TimedOut(5000), None)]), Label::Unavailable);
}

#[test]
fn an_unreadable_summary_is_a_gap() {
    let mut broken = source(1, OrgState::Answered, None);
    broken.unreadable = true;
    let sources = vec![
        source(
            0,
            OrgState::Answered,
            Some(&Summary::new().no_known_allergies("2019-01-12")),
        ),
        broken,
    ];
    let made = view(&grace().demographics, &sources, &CLOCK);
    assert_eq!(made.allergies.label, Label::NotRecorded);
    assert!(made.gap.contains("summary could not be read"));
}

#[test]
fn waiting_is_never_blank() {
    let parts: Vec<(OrgState, Option<Summary>)> = (0..7).map(|_| (OrgState::Waiting, None)).collect();
    let (_, made) = of(&parts);
    assert_eq!(
        format!("{} – {}", made.allergies.heading, made.allergies.gap),
        "Allergies not yet known – 0 of 7 answered"
    );
}

#[test]
fn allergy_against_none_known_is_a_conflict() {
    let (_, made) = of(&[
        (OrgState::Answered, Some(penicillin("2021-01-01"))),
        (OrgState::Answered, Some(penicillin("2016-01-01"))),
        (
            OrgState::Answered,
            Some(Summary::new().no_known_allergies("2019-01-12")),
        ),
    ]);
    assert_eq!(made.allergies.rows.len(), 1, "one substance, one row");
    assert_eq!(
        made.flags[0].words,
        "Penicillin allergy at 2 organisations; Harbour GP says “no known allergies” (12-Jan-2019). Treat as allergic."
    );
}

#[test]
fn a_refuted_allergy_stays_allergic_with_its_remark() {
    let refuted = Summary::new().refuted("91936005", "Penicillin", "2023-04-01");
    let (_, made) = of(&[
        (OrgState::Answered, Some(penicillin("2021-01-01"))),
        (OrgState::Answered, Some(refuted)),
    ]);
    assert_eq!(made.allergies.rows.len(), 1);
    assert_eq!(
        made.allergies.rows[0].remarks,
        ["St Anne Hospital: tested negative 2023"]
    );
    assert!(made.flags[0].words.contains("Treat as allergic"));
}

#[test]
fn free_text_is_never_merged() {
    let typed = || Some(Summary::new().typed_allergy("codeine", "2012-01-01"));
    let (_, made) = of(&[(OrgState::Answered, typed()), (OrgState::Answered, typed())]);
    assert_eq!(made.allergies.rows.len(), 2);
    assert!(
        made.allergies.rows[0]
            .attribution
            .contains("not coded, not checked for interactions")
    );
}

#[test]
fn doses_that_differ_stand_side_by_side_newest_first() {
    let metformin = |dose: &str, day: &str| Some(Summary::new().medication("active", "6809", "Metformin", dose, day));
    let (_, made) = of(&[
        (OrgState::Answered, metformin("500 mg twice a day", "2025-06-14")),
        (OrgState::Answered, metformin("1 g twice a day", "2026-11-02")),
    ]);
    let row = &made.medications[0];
    assert_eq!(made.medications.len(), 1);
    assert_eq!(row.pills, ["Doses differ"]);
    assert_eq!(
        row.attribution,
        [
            "St Anne Hospital 02-Nov-2026: DOSE 1 g twice a day",
            "City General 14-Jun-2025: DOSE 500 mg twice a day"
        ]
    );
}

#[test]
fn stopped_elsewhere_counts_as_current_unless_issued_again() {
    let warfarin = |status: &str, day: &str| Some(Summary::new().medication(status, "855332", "Warfarin", "5 mg", day));
    let (_, made) = of(&[
        (OrgState::Answered, warfarin("active", "2024-01-01")),
        (OrgState::Answered, warfarin("stopped", "2025-06-14")),
    ]);
    assert_eq!(
        made.medications[0].stopped.as_deref(),
        Some("Stopped at St Anne Hospital 14-Jun-2025; still listed at City General")
    );
    assert!(made.past_medications.is_empty());
    assert_eq!(made.flags.len(), 1);
    assert!(made.medications[0].attribution[0].contains("older than 12 months"));
    let (_, again) = of(&[
        (OrgState::Answered, warfarin("active", "2026-01-01")),
        (OrgState::Answered, warfarin("stopped", "2025-06-14")),
    ]);
    assert_eq!(again.medications[0].stopped, None);
}

#[test]
fn a_problem_resolved_elsewhere_shows_both_dates() {
    let (_, made) = of(&[
        (
            OrgState::Answered,
            Some(Summary::new().problem("195967001", "Asthma", "1974-01-01", None)),
        ),
        (
            OrgState::Answered,
            Some(Summary::new().problem("195967001", "Asthma", "1974-01-01", Some("1990-05-01"))),
        ),
    ]);
    assert_eq!(made.problems.len(), 1);
    assert_eq!(
        made.problems[0].conflict.as_deref(),
        Some("Active at City General 01-Jan-1974; resolved at St Anne Hospital 01-May-1990")
    );
}

#[test]
fn another_birth_date_stops_and_stands_apart() {
    let (_, made) = of(&[
        (OrgState::Answered, Some(Summary::new())),
        (OrgState::Answered, Some(penicillin("2021-01-01").born("1961-05-14"))),
    ]);
    assert_eq!(
        made.stops,
        ["Born 14-May-1961 at St Anne Hospital. Check identity before using St Anne Hospital's data."]
    );
    assert!(made.allergies.rows.is_empty());
    assert_eq!(made.apart[0].allergies.len(), 1);
}

#[test]
fn flags_are_three_and_the_rest_is_counted() {
    let stop = |status: &str, day: &str| {
        let mut summary = Summary::new();
        for code in ["1", "2", "3", "4", "5"] {
            summary = summary.medication(status, code, code, "5 mg", day);
        }
        Some(summary)
    };
    let (_, made) = of(&[
        (OrgState::Answered, stop("active", "2024-01-01")),
        (OrgState::Answered, stop("stopped", "2025-01-01")),
    ]);
    assert_eq!((made.flags.len(), made.more_flags.len()), (3, 2));
}
