//! Problems: one row for one concept; active at one organisation and resolved at another is said with both dates.

use hie_gateway_dialect::fhir::clinical::ProblemRow;

use crate::clinical::group::{self, Group, Member, by_code};
use crate::clinical::{EntryId, Kind, Original, Source, dotted, recorded_by, year};
use crate::console::words;

/// One problem.
pub struct ProblemLine {
    /// Problem.
    pub name: String,
    /// `since 2019`, `2011 to 2014`.
    pub since: String,
    /// Active here, resolved there, as a sentence.
    pub conflict: Option<String>,
    /// Attribution.
    pub attribution: String,
    /// Free text.
    pub free_text: bool,
    /// Mark of a row that arrived after the deadline: `New 14:03:21, St Anne`.
    pub late: Option<String>,
    /// The entries.
    pub originals: Vec<Original>,
}

/// Active and past problems.
#[must_use]
pub fn lines(sources: &[&Source]) -> (Vec<ProblemLine>, Vec<ProblemLine>) {
    let groups = by_code(group::members(sources, |summary| &summary.problems), |row| &row.code);
    let mut active: Vec<(String, ProblemLine)> = Vec::new();
    let mut past: Vec<(String, ProblemLine)> = Vec::new();
    for group in &groups {
        let newest = group
            .members
            .iter()
            .filter_map(|member| begun(member.row))
            .max()
            .unwrap_or_default()
            .to_owned();
        if group.members.iter().any(|member| member.row.current) {
            active.push((newest, line(group)));
        } else {
            past.push((newest, line(group)));
        }
    }
    let newest_first = |mut lines: Vec<(String, ProblemLine)>| {
        lines.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.name.cmp(&right.1.name)));
        lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>()
    };
    (newest_first(active), newest_first(past))
}

fn begun(row: &ProblemRow) -> Option<&str> {
    row.onset.as_deref().or(row.recorded.as_deref())
}

fn line(group: &Group<'_, ProblemRow>) -> ProblemLine {
    let current: Vec<&Member<'_, ProblemRow>> = group.members.iter().filter(|member| member.row.current).collect();
    let shown = current.first().copied().or_else(|| group.members.first());
    let first = group.members.iter().filter_map(|member| begun(member.row)).min();
    let ended = group
        .members
        .iter()
        .filter_map(|member| member.row.ended.as_deref())
        .max();
    let since = match (current.is_empty(), first, ended) {
        (false, Some(first), _) => format!("since {}", year(first)),
        (true, Some(first), Some(ended)) => format!("{} to {}", year(first), year(ended)),
        (true, Some(first), None) => format!("from {}", year(first)),
        (_, None, _) => "date not recorded".to_owned(),
    };
    let unsure = |member: &&Member<'_, ProblemRow>| {
        matches!(
            member.row.verification.as_deref(),
            Some("provisional" | "differential" | "unconfirmed")
        )
    };
    let marks = if group.members.iter().all(|member| unsure(&member)) {
        "not confirmed"
    } else {
        ""
    };
    let free_text = group.is_free_text();
    ProblemLine {
        name: shown.map(|member| group::words(&member.row.code)).unwrap_or_default(),
        since,
        conflict: conflict(group, &current),
        attribution: dotted(&[
            &group.organisations().join(", "),
            marks,
            if free_text { "not coded" } else { "" },
        ]),
        free_text,
        late: group.members.iter().find_map(|member| member.source.late.clone()),
        originals: group.members.iter().map(original).collect(),
    }
}

/// Resolved at another organisation, not before it began at the one that lists it as active.
fn conflict(group: &Group<'_, ProblemRow>, current: &[&Member<'_, ProblemRow>]) -> Option<String> {
    let here = current.first()?;
    let holders: Vec<&str> = current.iter().map(|member| member.source.name.as_str()).collect();
    let there = group.members.iter().find(|member| {
        let began_again = member
            .row
            .ended
            .as_deref()
            .zip(begun(here.row))
            .is_some_and(|(ended, begun)| ended < begun);
        !member.row.current && !began_again && !holders.contains(&member.source.name.as_str())
    })?;
    let dated = |date: Option<&str>| {
        date.map(|date| format!(" {}", words::fhir_date(date)))
            .unwrap_or_default()
    };
    Some(format!(
        "Active at {}{}; resolved at {}{}",
        here.source.name,
        dated(begun(here.row)),
        there.source.name,
        dated(there.row.ended.as_deref().or(there.row.recorded.as_deref())),
    ))
}

fn original(member: &Member<'_, ProblemRow>) -> Original {
    let row = member.row;
    let date = begun(row).map_or_else(|| "date not recorded".to_owned(), words::fhir_date);
    let ended = row
        .ended
        .as_deref()
        .map(|ended| format!("ended {}", words::fhir_date(ended)))
        .unwrap_or_default();
    let who = row
        .recorder
        .as_ref()
        .and_then(|recorder| recorder.name.clone())
        .unwrap_or_default();
    let words = dotted(&[
        &group::words(&row.code),
        row.status.as_deref().unwrap_or("status not recorded"),
        &date,
        &ended,
        recorded_by(row.recorder.as_ref()),
        &who,
        &row.notes.join("; "),
    ]);
    let id = EntryId {
        source: member.source.number,
        kind: Kind::Problem,
        position: member.position,
    };
    Original {
        id,
        organisation: member.source.name.clone(),
        words,
    }
}
