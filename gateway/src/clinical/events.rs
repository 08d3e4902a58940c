//! Visits, imaging and documents, newest first. A study in a summary and its document are one row.

use std::cmp::Reverse;

use hie_gateway_dialect::fhir::clinical::EventRow;
use hie_protocol::message::DocumentMeta;
use hie_protocol::vocabulary::DocumentClass;

use crate::clinical::{Clock, EntryId, Kind, Original, Source, dotted, group};
use crate::console::words;
use crate::ports::DocumentRef;

/// A visit or a study.
pub struct EventLine {
    /// Date as shown.
    pub date: String,
    /// Words.
    pub words: String,
    /// Attribution.
    pub attribution: String,
    /// The study's document, when its pictures can be opened.
    pub document: Option<DocumentRef>,
    /// Mark of a row that arrived after the deadline: `New 14:03:21, St Anne`.
    pub late: Option<String>,
    /// The entries; none for a study that no summary mentions.
    pub originals: Vec<Original>,
}

/// A document.
pub struct DocumentLine {
    /// To open.
    pub document: DocumentRef,
    /// Date as shown.
    pub date: String,
    /// Title, or its kind where the organisation gives no title.
    pub title: String,
    /// Organisation, author.
    pub attribution: String,
    /// Title, organisation and date in one line.
    pub line: String,
}

/// Visits.
#[must_use]
pub fn visits(sources: &[&Source]) -> Vec<EventLine> {
    let mut lines: Vec<(Option<String>, EventLine)> = Vec::new();
    for member in group::members(sources, |summary| &summary.visits) {
        let row = member.row;
        let place = row
            .place
            .as_deref()
            .filter(|place| *place != member.source.name)
            .unwrap_or_default();
        let what = [row.reason.clone().unwrap_or_else(|| group::words(&row.code)), stay(row)];
        let what: Vec<&str> = what
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty() && *part != "not recorded")
            .collect();
        let words = [member.source.name.as_str()]
            .into_iter()
            .chain(what)
            .collect::<Vec<_>>()
            .join(", ");
        let line = EventLine {
            date: shown(row.period.start.as_deref()),
            words,
            attribution: dotted(&[place, class_words(row)]),
            document: None,
            late: member.source.late.clone(),
            originals: vec![original(member.source, Kind::Visit, member.position, row)],
        };
        lines.push((row.period.start.clone(), line));
    }
    sorted(lines)
}

/// The class in words; a bare code of HL7 v3 ActEncounterCode is never shown (UX E9).
fn class_words(row: &EventRow) -> &str {
    match row.class.as_deref().unwrap_or_default() {
        "EMER" => "emergency",
        "IMP" | "ACUTE" | "NONAC" => "inpatient",
        "HH" => "home visit",
        "VR" => "by telephone or video",
        class if class.chars().all(|letter| letter.is_ascii_uppercase()) => "",
        class => class,
    }
}

/// Nights between start and end, for stays.
fn stay(row: &EventRow) -> String {
    let inpatient = row
        .class
        .as_deref()
        .is_some_and(|class| class.to_lowercase().contains("inpatient") || class == "IMP");
    match (&row.period.start, &row.period.end) {
        (Some(start), Some(end)) if inpatient && start.get(0..10) != end.get(0..10) => {
            format!("admitted to {}", words::fhir_date(end))
        }
        _ => String::new(),
    }
}

/// Studies: documents of class imaging, and studies that only a summary mentions.
#[must_use]
pub fn imaging(sources: &[&Source], clock: &Clock) -> Vec<EventLine> {
    let mut lines: Vec<(Option<String>, EventLine)> = Vec::new();
    for source in sources {
        let rows = source
            .summary
            .as_ref()
            .map(|summary| summary.imaging.as_slice())
            .unwrap_or_default();
        let mut used = vec![false; rows.len()];
        for card in source
            .documents
            .iter()
            .filter(|card| card.meta.class == DocumentClass::Imaging)
        {
            let uid = card.meta.imaging.as_ref().map(|imaging| imaging.study_uid.as_str());
            let mut originals = Vec::new();
            for (position, (row, used)) in rows.iter().zip(used.iter_mut()).enumerate() {
                if !*used && uid.is_some() && row.study_uid.as_deref().map(plain_uid) == uid.map(plain_uid) {
                    *used = true;
                    originals.push(original(source, Kind::Imaging, position, row));
                }
            }
            let start = card.meta.period.map(|period| period.0).or(card.meta.created);
            let line = EventLine {
                date: start.map_or_else(
                    || "date not recorded".to_owned(),
                    |at| words::day(at, clock.offset_minutes),
                ),
                words: study_words(&card.meta),
                attribution: source.name.clone(),
                document: Some(card.reference.clone()),
                late: source.late.clone(),
                originals,
            };
            lines.push((start.map(|at| words::iso_day(at, clock.offset_minutes)), line));
        }
        for (position, (row, _)) in rows.iter().zip(&used).enumerate().filter(|(_, (_, used))| !**used) {
            let modality = row.class.as_deref().unwrap_or_default();
            let words = match group::words(&row.code) {
                words if words == "not recorded" && !modality.is_empty() => modality.to_owned(),
                words => words,
            };
            let line = EventLine {
                date: shown(row.period.start.as_deref()),
                words,
                attribution: dotted(&[&source.name, "pictures not released here"]),
                document: None,
                late: source.late.clone(),
                originals: vec![original(source, Kind::Imaging, position, row)],
            };
            lines.push((row.period.start.clone(), line));
        }
    }
    sorted(lines)
}

fn plain_uid(uid: &str) -> &str {
    uid.strip_prefix("urn:oid:").unwrap_or(uid)
}

/// What a study is: its title, else modality and body part.
#[must_use]
pub fn study_words(meta: &DocumentMeta) -> String {
    if !meta.title.trim().is_empty() {
        return meta.title.clone();
    }
    let imaging = meta.imaging.as_ref();
    let parts = imaging.map(|imaging| {
        imaging
            .modalities
            .iter()
            .chain(&imaging.body_part)
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    });
    parts
        .filter(|parts| !parts.is_empty())
        .unwrap_or_else(|| "Imaging study".to_owned())
}

/// Documents that are neither studies nor summaries.
#[must_use]
pub fn documents(sources: &[Source], clock: &Clock) -> Vec<DocumentLine> {
    let mut lines: Vec<(u64, DocumentLine)> = Vec::new();
    for source in sources {
        for card in &source.documents {
            if matches!(card.meta.class, DocumentClass::Imaging | DocumentClass::Summary) {
                continue;
            }
            lines.push((card.meta.created.map_or(0, |at| at.0), document_line(card, clock)));
        }
    }
    lines.sort_by_key(|(created, _)| Reverse(*created));
    lines.into_iter().map(|(_, line)| line).collect()
}

/// One document as a line.
#[must_use]
pub fn document_line(card: &crate::ports::DocumentCard, clock: &Clock) -> DocumentLine {
    let meta = &card.meta;
    let kind = || meta.kind.as_ref().and_then(|kind| kind.display.clone());
    let title = Some(meta.title.trim())
        .filter(|title| !title.is_empty())
        .map(str::to_owned)
        .or_else(kind);
    let title = title.unwrap_or_else(|| "Document".to_owned());
    let date = meta.created.map_or_else(
        || "date not recorded".to_owned(),
        |at| words::day(at, clock.offset_minutes),
    );
    let author = meta.author.as_deref().unwrap_or_default();
    let line = [title.as_str(), &card.org_name, &date, author]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" – ");
    DocumentLine {
        document: card.reference.clone(),
        date,
        attribution: dotted(&[&card.org_name, author]),
        title,
        line,
    }
}

fn shown(date: Option<&str>) -> String {
    date.map_or_else(|| "date not recorded".to_owned(), words::fhir_date)
}

fn sorted(mut lines: Vec<(Option<String>, EventLine)>) -> Vec<EventLine> {
    lines.sort_by_key(|(date, _)| Reverse(date.clone()));
    lines.into_iter().map(|(_, line)| line).collect()
}

fn original(source: &Source, kind: Kind, position: usize, row: &EventRow) -> Original {
    let until = row
        .period
        .end
        .as_deref()
        .map(|end| format!("to {}", words::fhir_date(end)))
        .unwrap_or_default();
    let words = dotted(&[
        &group::words(&row.code),
        row.status.as_deref().unwrap_or_default(),
        class_words(row),
        &shown(row.period.start.as_deref()),
        &until,
        row.reason.as_deref().unwrap_or_default(),
        row.place.as_deref().unwrap_or_default(),
    ]);
    Original {
        id: EntryId {
            source: source.number,
            kind,
            position,
        },
        organisation: source.name.clone(),
        words,
    }
}
