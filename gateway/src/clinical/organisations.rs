//! Who was asked and what became of it (UX E5): one state each, always countable, and one line that names the gap.

use hie_protocol::message::MatchGrade;

use crate::clinical::{Clock, Source, listed};
use crate::console::words;
use crate::ports::OrgState;

/// Counts of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Asked.
    pub asked: usize,
    /// Answered, whatever the answer.
    pub answered: usize,
    /// Not yet answered.
    pub waiting: usize,
    /// Timed out or offline.
    pub silent: usize,
    /// Refused the question.
    pub refused: usize,
    /// Sent a summary that cannot be read.
    pub unreadable: usize,
    /// Not surely the same person there, without a summary to look at.
    pub unsure: usize,
    /// Somebody withheld something, or may have.
    pub withheld: bool,
}

impl Counts {
    /// Counts the sources.
    #[must_use]
    pub fn of(sources: &[Source]) -> Self {
        let count = |test: &dyn Fn(&Source) -> bool| sources.iter().filter(|source| test(source)).count();
        let waiting = count(&|source| source.state == OrgState::Waiting);
        let silent = count(&|source| source.state.is_silent());
        let refused = count(&|source| source.state == OrgState::Refused);
        Self {
            asked: sources.len(),
            answered: sources
                .len()
                .saturating_sub(waiting)
                .saturating_sub(silent)
                .saturating_sub(refused),
            waiting,
            silent,
            refused,
            unreadable: count(&|source| source.unreadable),
            unsure: count(&|source| source.summary.is_none() && is_unsure(source)),
            withheld: sources
                .iter()
                .any(|source| source.more_on_emergency || source.state == OrgState::SomeWithheld),
        }
    }
}

fn is_unsure(source: &Source) -> bool {
    source.state == OrgState::IdentityNotAgreed || source.grade == MatchGrade::Probable
}

/// One organisation in the list.
pub struct OrganisationLine {
    /// Name.
    pub name: String,
    /// State in words.
    pub words: String,
    /// Missing from the answer.
    pub silent: bool,
    /// Not yet answered.
    pub waiting: bool,
}

/// The line of one organisation.
#[must_use]
pub fn line(source: &Source, clock: &Clock) -> OrganisationLine {
    let time = source
        .elapsed_ms
        .map(|ms| format!(" {}", words::seconds(ms)))
        .unwrap_or_default();
    let late = if source.late.is_some() { ", late" } else { "" };
    let phone = source
        .phone
        .as_ref()
        .map(|phone| format!(", phone {phone}"))
        .unwrap_or_default();
    let words = match &source.state {
        OrgState::Waiting => "waiting".to_owned(),
        _ if source.unreadable => "answered: its summary could not be read".to_owned(),
        OrgState::Answered => format!("answered{time}{late}"),
        OrgState::NoRecord => format!("answered: no record of this patient{late}"),
        OrgState::SomeWithheld => format!("answered, some withheld{late}"),
        OrgState::IdentityNotAgreed => "identity not agreed there".to_owned(),
        OrgState::Refused => format!("refused{phone}"),
        OrgState::TimedOut(ms) => format!("no answer in {} s{phone}", ms.div_ceil(1000)),
        OrgState::Offline(Some(since)) => {
            format!("offline since {}{phone}", words::clock(*since, clock.offset_minutes))
        }
        OrgState::Offline(None) => format!("offline{phone}"),
    };
    let silent = source.state.is_silent() || source.state == OrgState::Refused;
    OrganisationLine {
        name: source.name.clone(),
        words,
        silent,
        waiting: source.state == OrgState::Waiting,
    }
}

/// `No answer: Lakeside Clinic (timed out), North Imaging (offline since 03:10). This record may be incomplete.`
/// Empty when nobody is missing.
#[must_use]
pub fn gap_line(sources: &[Source], counts: &Counts, clock: &Clock) -> String {
    let why = |source: &Source| match &source.state {
        OrgState::TimedOut(_) => Some("timed out".to_owned()),
        OrgState::Offline(Some(since)) => Some(format!("offline since {}", words::clock(*since, clock.offset_minutes))),
        OrgState::Offline(None) => Some("offline".to_owned()),
        OrgState::Refused => Some("refused".to_owned()),
        _ if source.unreadable => Some("summary could not be read".to_owned()),
        _ => None,
    };
    let missing: Vec<String> = sources
        .iter()
        .filter_map(|source| why(source).map(|why| format!("{} ({why})", source.name)))
        .collect();
    let waiting: Vec<String> = sources
        .iter()
        .filter(|source| source.state == OrgState::Waiting)
        .map(|source| source.name.clone())
        .collect();
    let mut sentences = Vec::new();
    if !waiting.is_empty() {
        sentences.push(format!("Waiting for {}.", listed(&waiting)));
    }
    if !missing.is_empty() {
        sentences.push(format!("No answer: {}.", missing.join(", ")));
    }
    if counts.waiting > 0 || !missing.is_empty() {
        sentences.push("This record may be incomplete.".to_owned());
    }
    sentences.join(" ")
}

/// `North Imaging not checked (offline)`; empty when every organisation answered.
#[must_use]
pub fn imaging_gap(sources: &[Source]) -> String {
    let missing = sources.iter().filter_map(|source| match &source.state {
        OrgState::Offline(_) => Some(format!("{} not checked (offline)", source.name)),
        OrgState::TimedOut(_) => Some(format!("{} not checked (timed out)", source.name)),
        OrgState::Refused => Some(format!("{} not checked (refused)", source.name)),
        _ => None,
    });
    missing.collect::<Vec<_>>().join(" · ")
}
