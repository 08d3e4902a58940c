//! The access log (UX B8): one sentence for each access, filters as chips, paging by cursor, what is proved.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use hie_protocol::id::Millis;

use crate::console::find::read_date;
use crate::console::page::{Frame, ok};
use crate::console::words;
use crate::gate::Gate;
use crate::guard::{Fields, SignedIn};
use crate::ports::{AccessEntry, AccessProof, AccessQuery};
use crate::respond::{Dialect, failed};

/// Entries on a page.
pub const PAGE_ENTRIES: usize = 50;

/// One entry as shown.
pub struct EntryLine {
    /// Position in the log.
    pub index: u64,
    /// `19-Nov-2026 10:02`.
    pub at: String,
    /// Sentence.
    pub sentence: String,
    /// Emergency access.
    pub emergency: bool,
}

/// A filter in force: its words and the form without it.
pub struct Chip {
    /// Field that it fills.
    pub field: &'static str,
    /// Words.
    pub label: String,
}

#[derive(Template)]
#[template(path = "access_log.html")]
struct AccessLogTemplate {
    frame: Frame,
    text: String,
    from: String,
    until: String,
    emergency_only: bool,
    chips: Vec<Chip>,
    problem: &'static str,
    entries: Vec<EntryLine>,
    next: Option<u64>,
    proof: String,
    broken: bool,
    checkpoint: String,
}

/// GET `/access-log`: the newest entries.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn) -> Response {
    search(&gate, &signed_in, &Fields::default()).await
}

/// POST `/access-log`: a search, a filter taken away, or the next page.
pub async fn submit(State(gate): State<Gate>, signed_in: SignedIn, fields: Fields) -> Response {
    search(&gate, &signed_in, &fields).await
}

/// Start of a day in this place, as a moment.
fn midnight(date: &str, offset_minutes: i32) -> Option<Millis> {
    let mut parts = date.split('-').filter_map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    // Days from civil date, the inverse of `words::civil`.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400_000 - i64::from(offset_minutes) * 60_000)
        .ok()
        .map(Millis)
}

async fn search(gate: &Gate, signed_in: &SignedIn, fields: &Fields) -> Response {
    let offset = gate.settings.utc_offset_minutes;
    let without = fields.one("without").unwrap_or_default();
    let field = |name: &str| {
        if name == without {
            None
        } else {
            fields.one(name).map(str::to_owned)
        }
    };
    let (text, from, until) = (field("text"), field("from"), field("until"));
    let emergency_only = field("emergency").is_some();
    let mut problem = "";
    let mut day = |text: &Option<String>| match text.as_deref().map(read_date) {
        Some(None) => {
            problem = "Write dates as 14-Mar-2026.";
            None
        }
        Some(Some(date)) => midnight(&date, offset),
        None => None,
    };
    let period = (day(&from), day(&until).map(|until| until.plus(86_400_000)));
    let query = AccessQuery {
        text: text.clone(),
        emergency_only,
        period,
        before: fields.one("before").and_then(|before| before.parse().ok()),
        limit: PAGE_ENTRIES.saturating_add(1),
    };
    let (mut entries, proof) = match gate.ports.access_log.search(&signed_in.caller(), query).await {
        Ok(found) => found,
        Err(error) => return failed(gate, Dialect::Page, &error),
    };
    let more = entries.len() > PAGE_ENTRIES;
    entries.truncate(PAGE_ENTRIES);
    let next = entries.last().filter(|_| more).map(|entry| entry.index);
    let proof_line = proof_words(&entries, &proof);
    ok(&AccessLogTemplate {
        frame: Frame::of(gate, signed_in, "/access-log"),
        chips: chips(text.as_deref(), from.as_deref(), until.as_deref(), emergency_only),
        text: text.unwrap_or_default(),
        from: from.unwrap_or_default(),
        until: until.unwrap_or_default(),
        emergency_only,
        problem,
        entries: entries
            .into_iter()
            .map(|entry| EntryLine {
                index: entry.index,
                at: format!("{} {}", words::day(entry.at, offset), words::clock(entry.at, offset)),
                sentence: entry.sentence,
                emergency: entry.emergency,
            })
            .collect(),
        next,
        proof: proof_line,
        broken: !proof.whole,
        checkpoint: proof.checkpoint,
    })
}

/// What is proved about the entries of this page.
fn proof_words(entries: &[AccessEntry], proof: &AccessProof) -> String {
    let range = entries
        .last()
        .zip(entries.first())
        .map(|(last, first)| format!("entries {}–{}", last.index, first.index));
    match (proof.whole, range) {
        (true, Some(range)) => format!(
            "Proof: {range} of a log of {} checked against its tree. Not altered.",
            proof.size
        ),
        (true, None) => format!("Proof: a log of {} entries. Not altered.", proof.size),
        (false, _) => "The log could not be proved for this page. Call security before you rely on it.".to_owned(),
    }
}

fn chips(text: Option<&str>, from: Option<&str>, until: Option<&str>, emergency_only: bool) -> Vec<Chip> {
    let mut chips = Vec::new();
    let mut chip = |field, label: Option<String>| chips.extend(label.map(|label| Chip { field, label }));
    chip("text", text.map(|text| format!("About {text}")));
    chip("from", from.map(|from| format!("From {from}")));
    chip("until", until.map(|until| format!("To {until}")));
    chip("emergency", emergency_only.then(|| "Emergency access only".to_owned()));
    chips
}

#[cfg(test)]
mod tests {
    use hie_protocol::id::Millis;

    use super::midnight;

    #[test]
    fn a_day_starts_at_local_midnight() {
        assert_eq!(midnight("1970-01-01", 0), Some(Millis(0)));
        assert_eq!(midnight("2000-02-29", 0), Some(Millis(951_782_400_000)));
        assert_eq!(midnight("1970-01-02", 60), Some(Millis(82_800_000)));
    }
}
