//! The summaries of many organisations as one view for people (UX E). Pure: no port, no clock, no order but its own.
//!
//! The law: the merge is for display only and loses nothing. Every entry of every summary is reachable from exactly
//! one row, and the counts agree ([`View::entries`]). Free text is never merged. A conflict is shown, never resolved.
//! A gap is named. "Nothing known", "not recorded" and "did not answer" read differently.

pub mod allergies;
pub mod events;
pub mod flags;
pub mod group;
pub mod identity;
pub mod medications;
pub mod organisations;
pub mod problems;

use hie_gateway_dialect::fhir::clinical::{Recorder, RecorderRole, Summary};
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::message::{Demographics, MatchGrade, Obligation};

use crate::clinical::allergies::AllergyBlock;
use crate::clinical::events::{DocumentLine, EventLine};
use crate::clinical::flags::Flag;
use crate::clinical::identity::Apart;
use crate::clinical::medications::{MedicationLine, PastLine};
use crate::clinical::organisations::OrganisationLine;
use crate::clinical::problems::ProblemLine;
use crate::console::words;
use crate::ports::{DocumentCard, OrgState};

/// One organisation's part of an open record.
pub struct Source {
    /// Position in the view: names its rows.
    pub number: usize,
    /// The organisation.
    pub org: OrgId,
    /// Name as shown.
    pub name: String,
    /// State.
    pub state: OrgState,
    /// Milliseconds from the question to the answer.
    pub elapsed_ms: Option<u64>,
    /// Phone for questions.
    pub phone: Option<String>,
    /// How sure the organisation is.
    pub grade: MatchGrade,
    /// The patient as that organisation knows them.
    pub demographics: Option<Demographics>,
    /// Its summary, when it granted one that can be read.
    pub summary: Option<Summary>,
    /// It granted a summary that cannot be read.
    pub unreadable: bool,
    /// Granted documents.
    pub documents: Vec<DocumentCard>,
    /// What the receiver must do.
    pub obligations: Vec<Obligation>,
    /// Declared emergency access would open more.
    pub more_on_emergency: bool,
    /// Arrived after the deadline: `New 14:03:21, St Anne`.
    pub late: Option<String>,
}

impl Source {
    /// An organisation that was asked and has not answered.
    #[must_use]
    pub const fn waiting(number: usize, org: OrgId, name: String) -> Self {
        Self {
            number,
            org,
            name,
            state: OrgState::Waiting,
            elapsed_ms: None,
            phone: None,
            grade: MatchGrade::Certain,
            demographics: None,
            summary: None,
            unreadable: false,
            documents: Vec::new(),
            obligations: Vec::new(),
            more_on_emergency: false,
            late: None,
        }
    }
}

/// The day and the offset that times are shown in.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Now.
    pub now: Millis,
    /// Minutes from UTC.
    pub offset_minutes: i32,
}

impl Clock {
    /// Today as `YYYY-MM-DD`.
    #[must_use]
    pub fn today(&self) -> String {
        words::iso_day(self.now, self.offset_minutes)
    }

    /// The day one year ago as `YYYY-MM-DD`.
    #[must_use]
    pub fn a_year_ago(&self) -> String {
        words::iso_day(Millis(self.now.0.saturating_sub(365 * 86_400_000)), self.offset_minutes)
    }
}

/// Names one entry of one summary: the source's number and the entry's reference there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// [`Source::number`].
    pub source: usize,
    /// Kind of entry.
    pub kind: Kind,
    /// Position among the source's entries of that kind.
    pub position: usize,
}

/// Kinds of entries that make rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Allergy.
    Allergy,
    /// Refuted allergy.
    RefutedAllergy,
    /// Medication.
    Medication,
    /// Problem.
    Problem,
    /// Visit.
    Visit,
    /// Imaging study in a summary.
    Imaging,
}

/// One entry as its source has it: what `I` opens side by side.
#[derive(Clone)]
pub struct Original {
    /// Which.
    pub id: EntryId,
    /// Organisation.
    pub organisation: String,
    /// As recorded there: words, date, recorder.
    pub words: String,
}

/// The whole view.
pub struct View {
    /// Organisations asked.
    pub asked: usize,
    /// Organisations that answered.
    pub answered: usize,
    /// Still waiting.
    pub waiting: usize,
    /// The gap line; empty when everybody answered.
    pub gap: String,
    /// Flags under the banner, severe only; at most [`flags::FLAGS_MAX`].
    pub flags: Vec<Flag>,
    /// Flags that are not among those shown.
    pub more_flags: Vec<Flag>,
    /// Identity stops: birth date or sex differs somewhere.
    pub stops: Vec<String>,
    /// Allergies.
    pub allergies: AllergyBlock,
    /// Current medication.
    pub medications: Vec<MedicationLine>,
    /// Organisations that contributed current medication.
    pub medication_organisations: usize,
    /// Past medication.
    pub past_medications: Vec<PastLine>,
    /// Active problems.
    pub problems: Vec<ProblemLine>,
    /// Past problems.
    pub past_problems: Vec<ProblemLine>,
    /// Visits, newest first.
    pub visits: Vec<EventLine>,
    /// Imaging, newest first.
    pub imaging: Vec<EventLine>,
    /// Organisations with images that are not in the list because they did not answer.
    pub imaging_gap: String,
    /// Documents that are not studies or summaries, newest first.
    pub documents: Vec<DocumentLine>,
    /// Organisations asked, in order.
    pub organisations: Vec<OrganisationLine>,
    /// Rows of organisations that are not surely about this patient.
    pub apart: Vec<Apart>,
    /// Some records are withheld and declared emergency access would open more.
    pub withheld: bool,
    /// Redisclosure of some of this is prohibited.
    pub part2: bool,
}

impl View {
    /// Every entry that some row of the view leads to.
    #[must_use]
    pub fn entries(&self) -> Vec<EntryId> {
        let mut all = Vec::new();
        let mut take = |originals: &[Original]| all.extend(originals.iter().map(|original| original.id.clone()));
        self.allergies.rows.iter().for_each(|row| take(&row.originals));
        self.medications.iter().for_each(|row| take(&row.originals));
        self.past_medications.iter().for_each(|row| take(&row.originals));
        self.problems
            .iter()
            .chain(&self.past_problems)
            .for_each(|row| take(&row.originals));
        self.visits
            .iter()
            .chain(&self.imaging)
            .for_each(|row| take(&row.originals));
        for apart in &self.apart {
            apart.allergies.iter().for_each(|row| take(&row.originals));
            apart.medications.iter().for_each(|row| take(&row.originals));
            apart.past_medications.iter().for_each(|row| take(&row.originals));
            apart.problems.iter().for_each(|row| take(&row.originals));
            apart
                .visits
                .iter()
                .chain(&apart.imaging)
                .for_each(|row| take(&row.originals));
        }
        all
    }
}

/// Merges the sources into the view. `person` is the patient of the banner.
#[must_use]
pub fn view(person: &Demographics, sources: &[Source], clock: &Clock) -> View {
    let counts = organisations::Counts::of(sources);
    let stops = identity::stops(person, sources);
    let sure: Vec<&Source> = sources
        .iter()
        .filter(|source| identity::is_sure(person, source))
        .collect();
    let unsure: Vec<&Source> = sources
        .iter()
        .filter(|source| !identity::is_sure(person, source))
        .collect();
    let apart: Vec<Apart> = unsure
        .iter()
        .filter(|source| source.summary.is_some())
        .map(|source| identity::apart(person, source, clock))
        .collect();
    let allergies = allergies::block(&sure, &apart, &counts);
    let (medications, past_medications) = medications::lines(&sure, clock);
    let (problems, past_problems) = problems::lines(&sure);
    let mut flags = flags::conflicts(&sure, &allergies, &medications);
    let more_flags = flags.split_off(flags.len().min(flags::FLAGS_MAX));
    let mut named: Vec<&str> = medications
        .iter()
        .flat_map(|line| line.organisations.iter().map(String::as_str))
        .collect();
    named.sort_unstable();
    named.dedup();
    View {
        asked: counts.asked,
        answered: counts.answered,
        waiting: counts.waiting,
        gap: organisations::gap_line(sources, &counts, clock),
        flags,
        more_flags,
        stops,
        medication_organisations: named.len(),
        allergies,
        medications,
        past_medications,
        problems,
        past_problems,
        visits: events::visits(&sure),
        imaging: events::imaging(&sure, clock),
        imaging_gap: organisations::imaging_gap(sources),
        documents: events::documents(sources, clock),
        organisations: sources
            .iter()
            .map(|source| organisations::line(source, clock))
            .collect(),
        apart,
        withheld: sources
            .iter()
            .any(|source| source.more_on_emergency || source.state == OrgState::SomeWithheld),
        part2: sources
            .iter()
            .any(|source| source.obligations.contains(&Obligation::NoRedisclosure)),
    }
}

/// Who recorded an entry, as words: `recorded by doctor`, `patient said`; empty when the source does not say.
#[must_use]
pub fn recorded_by(recorder: Option<&Recorder>) -> &'static str {
    match recorder.map(|recorder| recorder.role) {
        Some(RecorderRole::Doctor) => "recorded by doctor",
        Some(RecorderRole::Nurse) => "recorded by nurse",
        Some(RecorderRole::Pharmacist) => "recorded by pharmacist",
        Some(RecorderRole::Clinician) => "recorded by clinician",
        Some(RecorderRole::Patient) => "patient said",
        Some(RecorderRole::RelatedPerson) => "relative said",
        Some(RecorderRole::Device) => "recorded by device",
        Some(RecorderRole::Organisation) => "recorded by the organisation",
        None => "",
    }
}

/// Joins the parts that are not empty with ` · `.
#[must_use]
pub fn dotted(parts: &[&str]) -> String {
    parts
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" · ")
}

/// The year of a FHIR date.
#[must_use]
pub fn year(date: &str) -> &str {
    date.get(0..4).unwrap_or(date)
}

/// Words joined as people do: `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
