//! Flags under the banner (UX E8): severe only, each with both sides and its sources. Today they are conflicts;
//! interactions are not checked, and the page says so. Doses that differ and problems resolved elsewhere are said in
//! their rows.

use crate::clinical::allergies::{AllergyBlock, holders};
use crate::clinical::medications::MedicationLine;
use crate::clinical::{Source, listed};
use crate::console::words;

/// Most flags shown; the rest is counted and listed on demand.
pub const FLAGS_MAX: usize = 3;

/// A flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Kind, for example `Conflict`.
    pub kind: &'static str,
    /// Sentence.
    pub words: String,
}

/// The conflicts, gravest first.
#[must_use]
pub fn conflicts(sources: &[&Source], allergies: &AllergyBlock, medications: &[MedicationLine]) -> Vec<Flag> {
    let conflict = |words: String| Flag {
        kind: "Conflict",
        words,
    };
    let mut flags = Vec::new();
    flags.extend(denied(sources, allergies).map(conflict));
    for row in allergies
        .rows
        .iter()
        .filter(|row| !row.remarks.is_empty() && !row.organisations.is_empty())
    {
        flags.push(conflict(format!(
            "{} allergy at {}; {}. Treat as allergic.",
            row.name,
            holders(row),
            row.remarks.join("; ")
        )));
    }
    for line in medications {
        if let Some(stopped) = &line.stopped {
            flags.push(conflict(format!("{}. {stopped}.", line.name)));
        }
    }
    flags
}

/// What organisations hold that others deny: “no known allergies” against the allergies elsewhere, and against those
/// that the denying organisation lists itself.
fn denied(sources: &[&Source], allergies: &AllergyBlock) -> Option<String> {
    let denying: Vec<(&str, String)> = sources
        .iter()
        .filter_map(|source| {
            let stated = source.summary.as_ref()?.no_known_allergies.as_ref()?;
            let date = stated
                .recorded
                .as_deref()
                .map(|date| format!(" ({})", words::fhir_date(date)))
                .unwrap_or_default();
            Some((source.name.as_str(), date))
        })
        .collect();
    let denies = |name: &String| denying.iter().any(|(denier, _)| denier == name);
    // The allergies of those that deny nothing, each with its holders.
    let held: Vec<(&str, Vec<String>)> = allergies
        .rows
        .iter()
        .map(|row| {
            let holders = row.organisations.iter().filter(|name| !denies(name)).cloned().collect();
            (row.name.as_str(), holders)
        })
        .filter(|(_, holders): &(_, Vec<String>)| !holders.is_empty())
        .collect();
    let statements: Vec<String> = denying
        .iter()
        .filter_map(|(name, date)| {
            let own: Vec<String> = allergies
                .rows
                .iter()
                .filter(|row| row.organisations.iter().any(|holder| holder == name))
                .map(|row| row.name.clone())
                .collect();
            let said = format!("{name} says “no known allergies”{date}");
            match (own.is_empty(), held.is_empty()) {
                (true, true) => None,
                (true, false) => Some(said),
                (false, _) => Some(format!("{said} yet lists {}", listed(&own))),
            }
        })
        .collect();
    if statements.is_empty() {
        return None;
    }
    let mut places: Vec<String> = held.iter().flat_map(|(_, holders)| holders.iter().cloned()).collect();
    places.sort_unstable();
    places.dedup();
    let places = if places.len() > 1 {
        words::organisations(places.len())
    } else {
        listed(&places)
    };
    let what = match held.as_slice() {
        [] => String::new(),
        [(name, _)] => format!("{name} allergy at {places}; "),
        [(name, _), _] => format!("{name} and 1 other allergy at {places}; "),
        [(name, _), rest @ ..] => format!("{name} and {} other allergies at {places}; ", rest.len()),
    };
    Some(format!("{what}{}. Treat as allergic.", listed(&statements)))
}
