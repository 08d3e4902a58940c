//! Allergies: the labels of UX E1, one row for one substance, severe first, nothing paged or folded.

use hie_gateway_dialect::fhir::clinical::AllergyRow;

use crate::clinical::group::{self, Group, Member, by_code};
use crate::clinical::identity::Apart;
use crate::clinical::organisations::Counts;
use crate::clinical::{EntryId, Kind, Original, Source, dotted, listed, recorded_by, year};
use crate::console::words;

/// The heading. There is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// At least one allergy.
    Known,
    /// All answered, somebody said so, nobody holds an allergy.
    NoneKnown,
    /// Some answered, none holds an allergy, some did not answer.
    NotRecorded,
    /// Nobody answered.
    Unavailable,
    /// All answered, nobody ever said anything.
    Unknown,
    /// Answers are still awaited and none so far holds an allergy.
    NotYetKnown,
}

/// The block of allergies.
pub struct AllergyBlock {
    /// Which heading.
    pub label: Label,
    /// The heading in words, with the count and the gap.
    pub heading: String,
    /// What stands behind the heading in small letters.
    pub gap: String,
    /// A sentence under the heading; empty when there is none.
    pub note: String,
    /// Rows.
    pub rows: Vec<AllergyLine>,
}

/// One substance.
pub struct AllergyLine {
    /// Substance.
    pub name: String,
    /// Severe reaction or high criticality.
    pub severe: bool,
    /// Mark beside the name: `Severe`, `Moderate`, `Mild`, `Reaction not known`, ...
    pub pills: Vec<String>,
    /// Reactions in words.
    pub reaction: String,
    /// Sources.
    pub attribution: String,
    /// Refuting or resolving statements.
    pub remarks: Vec<String>,
    /// Free text.
    pub free_text: bool,
    /// Mark of a row that arrived after the deadline: `New 14:03:21, St Anne`.
    pub late: Option<String>,
    /// Organisations with a valid entry.
    pub organisations: Vec<String>,
    /// The entries.
    pub originals: Vec<Original>,
}

/// The block of these sources. `apart` are organisations that are not surely about this patient.
#[must_use]
pub fn block(sources: &[&Source], apart: &[Apart], counts: &Counts) -> AllergyBlock {
    let rows = lines(sources);
    let statement = sources.iter().find_map(|source| denial(source));
    let elsewhere = apart.iter().any(|apart| !apart.allergies.is_empty());
    let missing = counts
        .silent
        .saturating_add(counts.refused)
        .saturating_add(counts.unreadable);
    let whole = missing == 0 && counts.waiting == 0 && !counts.withheld && !elsewhere && counts.unsure == 0;
    let silent = format!("{} did not answer", words::organisations(missing));
    let label = match (rows.is_empty(), &statement) {
        (false, _) => Label::Known,
        (true, _) if counts.waiting > 0 => Label::NotYetKnown,
        (true, _) if counts.answered == 0 => Label::Unavailable,
        (true, Some(_)) if whole => Label::NoneKnown,
        (true, _) if missing > 0 => Label::NotRecorded,
        (true, _) => Label::Unknown,
    };
    let progress = format!("{} of {} answered", counts.answered, counts.asked);
    let heading = match label {
        Label::Known => "Known allergies",
        Label::NoneKnown => "No known allergies",
        Label::NotRecorded => "Allergies not recorded",
        Label::Unavailable => "Allergies unavailable",
        Label::Unknown => "Risk status unknown",
        Label::NotYetKnown => "Allergies not yet known",
    };
    let gap = match label {
        Label::NotYetKnown => progress,
        Label::Known if counts.waiting > 0 => progress,
        _ if missing > 0 => silent.clone(),
        _ => String::new(),
    };
    let note = match label {
        Label::Known | Label::NotYetKnown => String::new(),
        Label::NoneKnown => statement.unwrap_or_default(),
        Label::NotRecorded => {
            let none = format!(
                "No allergies in the {}. {silent}. Ask the family or the GP.",
                words::plural(counts.answered, "answer")
            );
            statement.map_or_else(|| none.clone(), |said| format!("{none} {said}."))
        }
        Label::Unavailable => "No organisation answered. Ask the family or the GP.".to_owned(),
        Label::Unknown if elsewhere || counts.unsure > 0 => {
            "Some records may be about somebody else; see the allergies listed apart. Ask the family or the GP."
                .to_owned()
        }
        Label::Unknown => statement.map_or_else(
            || "Nobody has recorded whether there are allergies. Ask the patient, the family or the GP.".to_owned(),
            |said| format!("{said}. Not every record could be seen. Ask the patient, the family or the GP."),
        ),
    };
    AllergyBlock {
        label,
        heading: heading.to_owned(),
        gap,
        note,
        rows,
    }
}

/// A source's statement that no allergies are known, with who made it and when.
fn denial(source: &Source) -> Option<String> {
    let stated = source.summary.as_ref()?.no_known_allergies.as_ref()?;
    let when = stated
        .recorded
        .as_deref()
        .map(words::fhir_date)
        .unwrap_or_else(|| "date not recorded".to_owned());
    Some(dotted(&[
        &format!("{} said “no known allergies”, {when}", source.name),
        recorded_by(stated.recorder.as_ref()),
    ]))
}

/// One row for one substance.
#[must_use]
pub fn lines(sources: &[&Source]) -> Vec<AllergyLine> {
    let valid = group::members(sources, |summary| &summary.allergies);
    let refuted = group::members(sources, |summary| &summary.refuted_allergies);
    // An address tells apart a refuted entry from a valid one after grouping.
    let is_refuted = |member: &Member<'_, AllergyRow>| {
        member.source.summary.as_ref().is_some_and(|summary| {
            summary
                .refuted_allergies
                .iter()
                .any(|row| std::ptr::eq(row, member.row))
        })
    };
    let groups = by_code(valid.into_iter().chain(refuted), |row| &row.code);
    let mut lines: Vec<AllergyLine> = groups.iter().map(|group| line(group, is_refuted)).collect();
    lines.sort_by(|left, right| {
        right
            .severe
            .cmp(&left.severe)
            .then_with(|| left.name.to_lowercase().cmp(&right.name.to_lowercase()))
    });
    lines
}

fn line(group: &Group<'_, AllergyRow>, is_refuted: impl Fn(&Member<'_, AllergyRow>) -> bool) -> AllergyLine {
    let valid: Vec<&Member<'_, AllergyRow>> = group.members.iter().filter(|member| !is_refuted(member)).collect();
    let rows: Vec<&AllergyRow> = if valid.is_empty() {
        group.members.iter().map(|member| member.row).collect()
    } else {
        valid.iter().map(|member| member.row).collect()
    };
    let severities: Vec<&str> = rows
        .iter()
        .flat_map(|row| row.reactions.iter())
        .filter_map(|reaction| reaction.severity.as_deref())
        .collect();
    let severe = severities.contains(&"severe") || rows.iter().any(|row| row.criticality.as_deref() == Some("high"));
    let reaction = reactions(&rows);
    let mut pills = Vec::new();
    match () {
        () if severities.contains(&"severe") => pills.push("Severe".to_owned()),
        () if severe => pills.push("High risk".to_owned()),
        () if severities.contains(&"moderate") => pills.push("Moderate".to_owned()),
        () if severities.contains(&"mild") => pills.push("Mild".to_owned()),
        () => {}
    }
    if reaction.is_empty() {
        pills.push("Reaction not known".to_owned());
    }
    let every = |test: &dyn Fn(&AllergyRow) -> bool| rows.iter().all(|row| test(row));
    if valid.is_empty() {
        pills.push("Tested negative".to_owned());
    } else if every(&|row| matches!(row.verification.as_deref(), Some("unconfirmed" | "presumed"))) {
        pills.push("Unconfirmed".to_owned());
    }
    if every(&|row| matches!(row.status.as_deref(), Some("resolved" | "inactive"))) {
        pills.push("Recorded as no longer active".to_owned());
    }
    let free_text = group.is_free_text();
    let mut organisations: Vec<String> = Vec::new();
    for member in &valid {
        if !organisations.contains(&member.source.name) {
            organisations.push(member.source.name.clone());
        }
    }
    AllergyLine {
        name: rows.first().map(|row| group::words(&row.code)).unwrap_or_default(),
        severe,
        pills,
        reaction,
        attribution: attribution(
            if valid.is_empty() {
                group.members.iter().collect()
            } else {
                valid
            },
            free_text,
        ),
        remarks: group
            .members
            .iter()
            .filter(|member| is_refuted(member))
            .map(refutation)
            .collect(),
        free_text,
        late: group.members.iter().find_map(|member| member.source.late.clone()),
        organisations,
        originals: group
            .members
            .iter()
            .map(|member| original(member, is_refuted(member)))
            .collect(),
    }
}

fn reactions(rows: &[&AllergyRow]) -> String {
    let mut all: Vec<String> = Vec::new();
    for reaction in rows.iter().flat_map(|row| row.reactions.iter()) {
        let described = reaction
            .description
            .iter()
            .filter(|_| reaction.manifestations.is_empty());
        for words in reaction.manifestations.iter().chain(described) {
            if !all.iter().any(|known| known.eq_ignore_ascii_case(words)) {
                all.push(words.clone());
            }
        }
    }
    all.join(", ")
}

fn attribution(members: Vec<&Member<'_, AllergyRow>>, free_text: bool) -> String {
    let mut places: Vec<String> = Vec::new();
    for member in &members {
        let date = member.row.recorded.as_deref().or(member.row.onset.as_deref());
        let place = date.map_or_else(
            || format!("{}, date not recorded", member.source.name),
            |date| format!("{} {}", member.source.name, year(date)),
        );
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut who: Vec<&str> = members
        .iter()
        .map(|member| recorded_by(member.row.recorder.as_ref()))
        .filter(|who| !who.is_empty())
        .collect();
    who.dedup();
    let who = who.first().copied().unwrap_or_default();
    dotted(&[
        &places.join(", "),
        who,
        if free_text {
            "not coded, not checked for interactions"
        } else {
            ""
        },
    ])
}

fn refutation(member: &Member<'_, AllergyRow>) -> String {
    match &member.row.recorded {
        Some(date) => format!("{}: tested negative {}", member.source.name, year(date)),
        None => format!("{}: tested negative", member.source.name),
    }
}

fn original(member: &Member<'_, AllergyRow>, refuted: bool) -> Original {
    let row = member.row;
    let reaction = reactions(&[row]);
    let date = row
        .recorded
        .as_deref()
        .map_or_else(|| "date not recorded".to_owned(), words::fhir_date);
    let who = row
        .recorder
        .as_ref()
        .and_then(|recorder| recorder.name.clone())
        .unwrap_or_default();
    let words = dotted(&[
        &group::words(&row.code),
        &reaction,
        row.reactions
            .iter()
            .find_map(|reaction| reaction.severity.as_deref())
            .unwrap_or_default(),
        row.verification.as_deref().unwrap_or_default(),
        &date,
        recorded_by(row.recorder.as_ref()),
        &who,
        &row.notes.join("; "),
    ]);
    let kind = if refuted { Kind::RefutedAllergy } else { Kind::Allergy };
    Original {
        id: EntryId {
            source: member.source.number,
            kind,
            position: member.position,
        },
        organisation: member.source.name.clone(),
        words,
    }
}

/// The names of organisations with a valid entry, as words.
#[must_use]
pub fn holders(line: &AllergyLine) -> String {
    if line.organisations.len() > 1 {
        words::organisations(line.organisations.len())
    } else {
        listed(&line.organisations)
    }
}
