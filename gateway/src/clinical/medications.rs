//! Medication: one row for one coded drug; doses that differ stay side by side, newest first; stopped at one
//! organisation and current at another is said and counts as current.

use std::cmp::Reverse;

use hie_gateway_dialect::fhir::clinical::MedicationRow;

use crate::clinical::group::{self, Group, Member, by_code};
use crate::clinical::{Clock, EntryId, Kind, Original, Source, dotted, recorded_by};
use crate::console::words;

/// A drug in use.
pub struct MedicationLine {
    /// Drug name in full.
    pub name: String,
    /// Form, dose and route; empty when the doses differ.
    pub details: String,
    /// Marks: `Doses differ`, `Stopped elsewhere`, `older than 12 months`.
    pub pills: Vec<String>,
    /// Lines of attribution; one for each dose when doses differ.
    pub attribution: Vec<String>,
    /// Stopped at one organisation, still listed at another, as a sentence.
    pub stopped: Option<String>,
    /// Doses differ.
    pub doses_differ: bool,
    /// Free text.
    pub free_text: bool,
    /// Mark of a row that arrived after the deadline: `New 14:03:21, St Anne`.
    pub late: Option<String>,
    /// Organisations that list it as current.
    pub organisations: Vec<String>,
    /// The entries.
    pub originals: Vec<Original>,
}

/// A drug no longer in use.
pub struct PastLine {
    /// Drug name in full.
    pub name: String,
    /// Attribution.
    pub attribution: String,
    /// The entries.
    pub originals: Vec<Original>,
}

/// Current and past drugs.
#[must_use]
pub fn lines(sources: &[&Source], clock: &Clock) -> (Vec<MedicationLine>, Vec<PastLine>) {
    let groups = by_code(group::members(sources, |summary| &summary.medications), |row| &row.code);
    let (mut current, mut past) = (Vec::new(), Vec::new());
    for group in &groups {
        if group.members.iter().any(|member| member.row.current) {
            current.push(line(group, clock));
        } else {
            past.push(past_line(group));
        }
    }
    current.sort_by_key(|line| line.name.to_lowercase());
    past.sort_by_key(|line| line.name.to_lowercase());
    (current, past)
}

fn date(row: &MedicationRow) -> Option<&str> {
    row.recorded.as_deref().or(row.period.start.as_deref())
}

fn newest_first<'m, 's>(
    members: impl Iterator<Item = &'m Member<'s, MedicationRow>>,
) -> Vec<&'m Member<'s, MedicationRow>>
where
    's: 'm,
{
    let mut sorted: Vec<_> = members.collect();
    sorted.sort_by_key(|member| Reverse(date(member.row).map(str::to_owned)));
    sorted
}

fn line(group: &Group<'_, MedicationRow>, clock: &Clock) -> MedicationLine {
    let current = newest_first(group.members.iter().filter(|member| member.row.current));
    let mut doses: Vec<String> = current.iter().filter_map(|member| dose_key(member.row)).collect();
    doses.sort_unstable();
    doses.dedup();
    let doses_differ = doses.len() > 1;
    let stopped = stopped(group, &current);
    let newest = current.iter().filter_map(|member| date(member.row)).max();
    let mut pills = Vec::new();
    if doses_differ {
        pills.push("Doses differ".to_owned());
    }
    if stopped.is_some() {
        pills.push("Stopped elsewhere".to_owned());
    }
    let free_text = group.is_free_text();
    let old = newest.is_some_and(|date| date.get(0..10).unwrap_or(date) < clock.a_year_ago().as_str());
    let mut organisations: Vec<String> = Vec::new();
    for member in &current {
        if !organisations.contains(&member.source.name) {
            organisations.push(member.source.name.clone());
        }
    }
    let first = current.first().map(|member| member.row);
    let tail = [
        if free_text {
            "not coded, not checked for interactions"
        } else {
            ""
        },
        if old { "older than 12 months" } else { "" },
    ];
    let attribution = if doses_differ {
        each_dose(&current)
    } else {
        vec![agreeing(&current, &organisations, &tail)]
    };
    MedicationLine {
        name: first.map(|row| group::words(&row.code)).unwrap_or_default(),
        details: match first {
            Some(row) if !doses_differ => details(row),
            Some(row) => row.form.clone().unwrap_or_default(),
            None => String::new(),
        },
        pills,
        attribution,
        stopped,
        doses_differ,
        free_text,
        late: group.members.iter().find_map(|member| member.source.late.clone()),
        organisations,
        originals: group.members.iter().map(original).collect(),
    }
}

/// `tablet – DOSE 5 mg – oral`.
fn details(row: &MedicationRow) -> String {
    let dose = row
        .dose
        .as_deref()
        .map_or_else(|| "dose not recorded".to_owned(), |dose| format!("DOSE {dose}"));
    let route = row
        .route
        .as_deref()
        .filter(|route| !dose.to_lowercase().contains(&route.to_lowercase()));
    [row.form.as_deref(), Some(dose.as_str()), route]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" – ")
}

fn dose_key(row: &MedicationRow) -> Option<String> {
    let dose = row.dose.as_deref()?;
    Some(dose.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
}

fn each_dose(current: &[&Member<'_, MedicationRow>]) -> Vec<String> {
    current
        .iter()
        .map(|member| {
            let dose = member
                .row
                .dose
                .as_deref()
                .map_or_else(|| "dose not recorded".to_owned(), |dose| format!("DOSE {dose}"));
            let date = date(member.row).map_or_else(|| "date not recorded".to_owned(), words::fhir_date);
            format!("{} {date}: {dose}", member.source.name)
        })
        .collect()
}

fn agreeing(current: &[&Member<'_, MedicationRow>], organisations: &[String], tail: &[&str]) -> String {
    let Some(newest) = current.first() else {
        return String::new();
    };
    let row = newest.row;
    let what = if row.ordered { "issued" } else { "recorded" };
    let when = date(row).map_or_else(
        || "date not recorded".to_owned(),
        |date| format!("{what} {}", words::fhir_date(date)),
    );
    let until = row
        .period
        .end
        .as_deref()
        .map(|end| format!(" to {}", words::fhir_date(end)))
        .unwrap_or_default();
    let mut parts = vec![format!("{}, {when}{until}", newest.source.name)];
    parts.extend(
        organisations
            .iter()
            .filter(|name| **name != newest.source.name)
            .map(|name| format!("{name} agrees")),
    );
    parts.extend(row.reason.as_deref().map(|reason| format!("for {reason}")));
    parts.push(recorded_by(row.recorder.as_ref()).to_owned());
    parts.extend(tail.iter().map(|&part| part.to_owned()));
    dotted(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A stop at another organisation conflicts unless the drug was issued again after it.
fn stopped(group: &Group<'_, MedicationRow>, current: &[&Member<'_, MedicationRow>]) -> Option<String> {
    let holders: Vec<&str> = current.iter().map(|member| member.source.name.as_str()).collect();
    let issued = current.iter().filter_map(|member| date(member.row)).max();
    let ended = |row: &MedicationRow| row.period.end.clone().or_else(|| row.recorded.clone());
    let stop = group.members.iter().find(|member| {
        let stopped = matches!(member.row.status.as_deref(), Some("stopped" | "cancelled"));
        let again = ended(member.row)
            .zip(issued)
            .is_some_and(|(end, issued)| end.as_str() < issued);
        stopped && !again && !holders.contains(&member.source.name.as_str())
    })?;
    let when = ended(stop.row)
        .map(|end| format!(" {}", words::fhir_date(&end)))
        .unwrap_or_default();
    Some(format!(
        "Stopped at {}{when}; still listed at {}",
        stop.source.name,
        holders.first().copied().unwrap_or_default()
    ))
}

fn past_line(group: &Group<'_, MedicationRow>) -> PastLine {
    let sorted = newest_first(group.members.iter());
    let newest = sorted.first();
    let attribution = newest.map(|member| {
        let end = member.row.period.end.as_deref().or_else(|| date(member.row));
        let when = end.map_or_else(
            || "date not recorded".to_owned(),
            |end| format!("last {}", words::fhir_date(end)),
        );
        format!("{}, {when}", member.source.name)
    });
    PastLine {
        name: newest.map(|member| group::words(&member.row.code)).unwrap_or_default(),
        attribution: attribution.unwrap_or_default(),
        originals: group.members.iter().map(original).collect(),
    }
}

fn original(member: &Member<'_, MedicationRow>) -> Original {
    let row = member.row;
    let date = date(row).map_or_else(|| "date not recorded".to_owned(), words::fhir_date);
    let who = row
        .recorder
        .as_ref()
        .and_then(|recorder| recorder.name.clone())
        .unwrap_or_default();
    let status = row.status.as_deref().unwrap_or("status not recorded");
    let words = dotted(&[
        &group::words(&row.code),
        &details(row),
        status,
        &date,
        recorded_by(row.recorder.as_ref()),
        &who,
        &row.notes.join("; "),
    ]);
    let id = EntryId {
        source: member.source.number,
        kind: Kind::Medication,
        position: member.position,
    };
    Original {
        id,
        organisation: member.source.name.clone(),
        words,
    }
}
