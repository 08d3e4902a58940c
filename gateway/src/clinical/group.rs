//! Which entries say the same thing: they share a code of a named code system. Nothing else is ever merged.

use hie_gateway_dialect::fhir::resource::Concept;

use crate::clinical::Source;

/// An entry of a source.
pub struct Member<'s, T> {
    /// Where it comes from.
    pub source: &'s Source,
    /// Position among the source's entries of its kind.
    pub position: usize,
    /// The row.
    pub row: &'s T,
}

/// Entries that share a code.
pub struct Group<'s, T> {
    codes: Vec<(&'s str, &'s str)>,
    /// At least one.
    pub members: Vec<Member<'s, T>>,
}

impl<T> Group<'_, T> {
    /// True when the entry is free text.
    #[must_use]
    pub const fn is_free_text(&self) -> bool {
        self.codes.is_empty()
    }

    /// Names of the organisations, in order of first appearance, each once.
    #[must_use]
    pub fn organisations(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for member in &self.members {
            if !names.contains(&member.source.name) {
                names.push(member.source.name.clone());
            }
        }
        names
    }
}

/// Groups entries by shared codes, in order of first appearance. An entry that shares codes with several groups
/// joins them into one.
pub fn by_code<'s, T>(
    members: impl IntoIterator<Item = Member<'s, T>>,
    concept: impl Fn(&'s T) -> &'s Concept,
) -> Vec<Group<'s, T>> {
    let mut groups: Vec<Group<'s, T>> = Vec::new();
    for member in members {
        let codes: Vec<(&str, &str)> = concept(member.row)
            .codings
            .iter()
            .filter(|coding| !coding.system.is_empty() && !coding.code.is_empty())
            .map(|coding| (coding.system.as_str(), coding.code.as_str()))
            .collect();
        let mut joined = Group {
            codes,
            members: Vec::new(),
        };
        let shares = |group: &Group<'s, T>, own: &[(&str, &str)]| group.codes.iter().any(|code| own.contains(code));
        let mut place = None;
        let mut kept = Vec::with_capacity(groups.len().saturating_add(1));
        for group in groups {
            if shares(&group, &joined.codes) {
                place.get_or_insert(kept.len());
                joined.codes.extend(group.codes);
                joined.members.extend(group.members);
            } else {
                kept.push(group);
            }
        }
        joined.codes.sort_unstable();
        joined.codes.dedup();
        joined.members.push(member);
        let place = place.unwrap_or(kept.len());
        kept.insert(place, joined);
        groups = kept;
    }
    groups
}

/// All entries of one kind of these sources.
pub fn members<'s, T>(
    sources: &[&'s Source],
    rows: impl Fn(&'s hie_gateway_dialect::fhir::clinical::Summary) -> &'s [T],
) -> Vec<Member<'s, T>> {
    let mut all = Vec::new();
    for source in sources {
        if let Some(summary) = &source.summary {
            all.extend(
                rows(summary)
                    .iter()
                    .enumerate()
                    .map(|(position, row)| Member { source, position, row }),
            );
        }
    }
    all
}

/// The words of a concept, or `not recorded`.
#[must_use]
pub fn words(concept: &Concept) -> String {
    let shown = concept.text.as_deref().filter(|text| !text.trim().is_empty());
    let display = || {
        concept
            .codings
            .iter()
            .find_map(|coding| coding.display.as_deref())
            .filter(|text| !text.trim().is_empty())
    };
    // Never a bare code (UX E9).
    shown.or_else(display).map_or_else(
        || {
            if concept.codings.is_empty() {
                "not recorded".to_owned()
            } else {
                "coded entry without words".to_owned()
            }
        },
        |text| text.trim().to_owned(),
    )
}
