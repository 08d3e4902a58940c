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
    let denials: Vec<String> = sources
        .iter()
        .filter_map(|source| {
            let stated = source.summary.as_ref()?.no_known_allergies.as_ref()?;
            let date = stated
                .recorded
                .as_deref()
                .map(|date| format!(" ({})", words::fhir_date(date)))
                .unwrap_or_default();
            Some(format!("{} says “no known allergies”{date}", source.name))
        })
        .collect();
    let held: Vec<_> = allergies
        .rows
        .iter()
        .filter(|row| !row.organisations.is_empty())
        .collect();
    if let (Some(first), false) = (held.first(), denials.is_empty()) {
        let what = match held.len() {
            1 => format!("{} allergy at {}", first.name, holders(first)),
            count => format!(
                "{} and {} at {}",
                first.name,
                words::plural(count.saturating_sub(1), "other allergy").replace("allergys", "allergies"),
                places(&held)
            ),
        };
        flags.push(conflict(format!("{what}; {}. Treat as allergic.", listed(&denials))));
    }
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

fn places(rows: &[&crate::clinical::allergies::AllergyLine]) -> String {
    let mut names: Vec<String> = rows.iter().flat_map(|row| row.organisations.iter().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        words::organisations(names.len())
    } else {
        listed(&names)
    }
}
