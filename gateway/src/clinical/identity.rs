//! Whose rows are these (UX E4, E7): an organisation that is only probably about this patient, or whose birth date or
//! sex differs, keeps its rows apart. Its allergies stay in sight, the rest is folded until asked for.

use hie_protocol::message::{Demographics, MatchGrade};

use crate::clinical::allergies::{self, AllergyLine};
use crate::clinical::events::{self, EventLine};
use crate::clinical::medications::{self, MedicationLine, PastLine};
use crate::clinical::problems::{self, ProblemLine};
use crate::clinical::{Clock, Source};
use crate::console::words;
use crate::ports::OrgState;

/// Rows of one organisation that stand apart.
pub struct Apart {
    /// Position of the source.
    pub number: usize,
    /// Heading.
    pub heading: String,
    /// Allergies, in sight.
    pub allergies: Vec<AllergyLine>,
    /// Current medication, folded.
    pub medications: Vec<MedicationLine>,
    /// Past medication, folded.
    pub past_medications: Vec<PastLine>,
    /// Problems, folded.
    pub problems: Vec<ProblemLine>,
    /// Visits, folded.
    pub visits: Vec<EventLine>,
    /// Imaging, folded.
    pub imaging: Vec<EventLine>,
}

/// Whether a source's rows may stand among the patient's.
#[must_use]
pub fn is_sure(person: &Demographics, source: &Source) -> bool {
    source.grade == MatchGrade::Certain
        && source.state != OrgState::IdentityNotAgreed
        && difference(person, source).is_none()
}

/// The sentences of the banner's stop, one for each organisation that differs.
#[must_use]
pub fn stops(person: &Demographics, sources: &[Source]) -> Vec<String> {
    sources.iter().filter_map(|source| difference(person, source)).collect()
}

fn difference(person: &Demographics, source: &Source) -> Option<String> {
    let summary = source.summary.as_ref().map(|summary| &summary.patient);
    let theirs = |told: Option<&String>, in_summary: Option<&String>| told.or(in_summary).cloned();
    let told = source.demographics.as_ref();
    let born = theirs(
        told.and_then(|told| told.birth_date.as_ref()),
        summary.and_then(|patient| patient.birth_date.as_ref()),
    );
    let sex = theirs(
        told.and_then(|told| told.sex.as_ref()),
        summary.and_then(|patient| patient.sex.as_ref()),
    );
    let name = &source.name;
    if let (Some(ours), Some(theirs)) = (&person.birth_date, &born)
        && !agree(ours, theirs)
    {
        return Some(format!(
            "Born {} at {name}. Check identity before using {name}'s data.",
            words::fhir_date(theirs)
        ));
    }
    if let (Some(ours), Some(theirs)) = (&person.sex, &sex)
        && ours != theirs
        && ours != "unknown"
        && theirs != "unknown"
    {
        return Some(format!(
            "Sex {} at {name}. Check identity before using {name}'s data.",
            sex_words(theirs)
        ));
    }
    None
}

/// A shorter date agrees with a longer one that starts with it.
fn agree(left: &str, right: &str) -> bool {
    let (left, right) = (left.get(0..10).unwrap_or(left), right.get(0..10).unwrap_or(right));
    left.starts_with(right) || right.starts_with(left)
}

/// FHIR administrative gender as a word for the banner.
#[must_use]
pub fn sex_words(code: &str) -> &'static str {
    match code {
        "male" => "Male",
        "female" => "Female",
        "other" => "Other",
        _ => "not recorded",
    }
}

/// The rows of a source that stands apart.
#[must_use]
pub fn apart(person: &Demographics, source: &Source, clock: &Clock) -> Apart {
    let only = [source];
    let (medications, past_medications) = medications::lines(&only, clock);
    let (mut problems, past_problems) = problems::lines(&only);
    problems.extend(past_problems);
    let heading = if difference(person, source).is_some() {
        format!("Not surely this patient ({}) – check identity", source.name)
    } else {
        format!("Probably this patient ({}) – check", source.name)
    };
    Apart {
        number: source.number,
        heading,
        allergies: allergies::lines(&only),
        medications,
        past_medications,
        problems,
        visits: events::visits(&only),
        imaging: events::imaging(&only, clock),
    }
}
