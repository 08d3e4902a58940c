//! Field by field: what speaks for and against two records being one person, in words.
//!
//! A missing value is no evidence. Telephone, e-mail and address are one kind of evidence together: people of
//! one household share them all. Weights are log2 of the likelihood ratio (SPEC M-SCORE).

use hie_protocol::message::MatchGrade;

use crate::patient::names::roots;
use crate::patient::normalise::{Birth, IdentifierKind, Normal, NormalName};

/// Evidence of a whole comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Sum of the weights, without the prior.
    pub bits: f64,
    /// What agrees, in words without values.
    pub agrees: Vec<&'static str>,
    /// What differs, in words without values.
    pub differs: Vec<&'static str>,
    /// Something beside name, birth date and sex agrees.
    pub corroborated: bool,
    /// A guard forbids `Certain`.
    pub guarded: bool,
    /// An identifier of one authority agrees.
    pub identifier: bool,
    /// Given or family name agrees.
    pub name: bool,
    /// The birth date agrees in full.
    pub birth: bool,
    /// A telephone, e-mail or postal address agrees.
    pub contact: bool,
}

/// Least similarity (Jaro-Winkler) of two spellings of one name.
pub const SPELLING_MIN: f64 = 0.92;
/// Years between parent and child at least.
pub const GENERATION_YEARS: u16 = 12;

impl Evidence {
    fn agree(&mut self, bits: f64, words: &'static str) {
        self.bits += bits;
        self.agrees.push(words);
    }

    fn differ(&mut self, bits: f64, words: &'static str) {
        self.bits -= bits;
        self.differs.push(words);
    }
}

/// Compares two people.
#[must_use]
pub fn compare(left: &Normal, right: &Normal) -> Evidence {
    let mut evidence = Evidence::default();
    identifiers(left, right, &mut evidence);
    contacts(left, right, &mut evidence);
    names(left, right, &mut evidence);
    births(left.birth, right.birth, &mut evidence);
    if let (Some(left), Some(right)) = (left.sex, right.sex) {
        if left == right {
            evidence.agree(1.0, "sex");
        } else {
            evidence.differ(4.0, "sex");
            evidence.guarded |= !evidence.contact;
        }
    }
    // Nothing but a household's number and a name: without a birth date only an identifier proves a person.
    evidence.guarded |= !evidence.birth && !evidence.identifier && (left.birth.is_none() || right.birth.is_none());
    evidence
}

fn identifiers(left: &Normal, right: &Normal, evidence: &mut Evidence) {
    let same = |one: &crate::patient::normalise::NormalIdentifier,
                other: &crate::patient::normalise::NormalIdentifier| {
        one.kind == other.kind && (one.kind == IdentifierKind::SocialSecurity || one.system == other.system)
    };
    let pairs = || {
        left.identifiers.iter().flat_map(|one| {
            right
                .identifiers
                .iter()
                .filter(move |other| same(one, other))
                .map(move |other| (one, other))
        })
    };
    let long = |kind: IdentifierKind, len: usize| kind != IdentifierKind::SocialSecurity || len == 9;
    if pairs().any(|(one, other)| one.value == other.value && long(one.kind, one.value.len())) {
        evidence.agree(20.0, "identifier");
        evidence.identifier = true;
        evidence.corroborated = true;
    } else if pairs().any(|(one, other)| {
        one.kind == IdentifierKind::SocialSecurity && one.value.len() == 9 && other.value.len() == 9
    }) {
        evidence.differ(4.0, "social security number");
        evidence.guarded = true;
    }
}

fn contacts(left: &Normal, right: &Normal, evidence: &mut Evidence) {
    let phone = meets(&left.phones, &right.phones, |one, other| one == other);
    let email = meets(&left.emails, &right.emails, |one, other| one == other);
    let address = meets(&left.addresses, &right.addresses, |one, other| {
        let place =
            (one.postal.is_some() && one.postal == other.postal) || (!one.city.is_empty() && one.city == other.city);
        place
            && one.house == other.house
            && !one.street.is_empty()
            && strsim::jaro_winkler(&one.street, &other.street) >= SPELLING_MIN
    });
    let kinds = [(phone, "telephone"), (email, "e-mail address"), (address, "address")];
    let mut bits = 6.0;
    for (_, words) in kinds.iter().filter(|(met, _)| *met == Some(true)) {
        evidence.agree(bits, words);
        evidence.contact = true;
        evidence.corroborated = true;
        bits = 3.0;
    }
    if !evidence.contact {
        for (_, words) in kinds.iter().filter(|(met, _)| *met == Some(false)) {
            evidence.differ(0.5, words);
        }
    }
}

/// None when one side has no value.
fn meets<T>(left: &[T], right: &[T], same: impl Fn(&T, &T) -> bool) -> Option<bool> {
    (!left.is_empty() && !right.is_empty()).then(|| left.iter().any(|one| right.iter().any(|other| same(one, other))))
}

fn names(left: &Normal, right: &Normal, evidence: &mut Evidence) {
    if left.names.iter().chain(&right.names).any(|name| name.placeholder) {
        // Nothing tells two unknown people apart but an identifier.
        evidence.guarded = true;
        evidence.differ(if evidence.identifier { 0.0 } else { 20.0 }, "name not known");
        return;
    }
    let best = left
        .names
        .iter()
        .flat_map(|one| right.names.iter().map(move |other| name_pair(one, other)))
        .max_by(|one, other| one.bits.total_cmp(&other.bits));
    let Some(best) = best else { return };
    evidence.bits += best.bits;
    evidence.agrees.extend(best.agrees);
    evidence.differs.extend(best.differs);
    evidence.guarded |= best.guarded;
    evidence.name = best.name;
}

fn name_pair(left: &NormalName, right: &NormalName) -> Evidence {
    let mut pair = Evidence::default();
    let swapped = !left.given.is_empty() && left.given == right.family && left.family == right.given;
    if swapped {
        pair.agree(11.0, "name, family and given name changed about");
        pair.name = true;
        return pair;
    }
    let family = family(left, right, &mut pair);
    let given = given(left, right, &mut pair);
    pair.name = family && given;
    if let (Some(one), Some(other)) = (left.middle.first(), right.middle.first()) {
        let short = one.len() == 1 || other.len() == 1;
        match (one == other, short && one.chars().next() == other.chars().next()) {
            (true, _) => pair.agree(if short { 2.0 } else { 3.0 }, "middle name"),
            (false, true) => pair.agree(2.0, "middle initial"),
            (false, false) => pair.differ(3.0, "middle name"),
        }
    }
    if let (Some(one), Some(other)) = (left.suffix, right.suffix)
        && one != other
    {
        pair.differ(4.0, "name suffix");
        pair.guarded = true;
    }
    pair
}

fn family(left: &NormalName, right: &NormalName, pair: &mut Evidence) -> bool {
    if left.family.is_empty() || right.family.is_empty() {
        return false;
    }
    let all = |name: &NormalName| -> Vec<String> {
        core::iter::once(name.family.clone())
            .chain(name.parts.iter().cloned())
            .collect()
    };
    let part = || all(left).iter().any(|one| all(right).contains(one));
    if left.family == right.family {
        pair.agree(8.0, "family name");
    } else if part() {
        pair.agree(6.0, "a part of the family name");
    } else if strsim::jaro_winkler(&left.family, &right.family) >= SPELLING_MIN {
        pair.agree(4.0, "family name, spelled differently");
    } else {
        pair.differ(4.0, "family name");
        return false;
    }
    true
}

fn given(left: &NormalName, right: &NormalName, pair: &mut Evidence) -> bool {
    if left.given.is_empty() || right.given.is_empty() {
        return false;
    }
    let short = left.given.len() == 1 || right.given.len() == 1;
    let roots_left = roots(&left.given);
    if left.given == right.given && !short {
        pair.agree(6.0, "given name");
    } else if short && left.given.chars().next() == right.given.chars().next() {
        pair.agree(2.0, "first initial");
    } else if roots(&right.given).iter().any(|root| roots_left.contains(root)) {
        pair.agree(5.0, "given name, in a short form");
    } else if strsim::jaro_winkler(&left.given, &right.given) >= SPELLING_MIN
        && left.given.len().min(right.given.len()) >= 5
    {
        pair.agree(3.0, "given name, spelled differently");
    } else if left.middle.contains(&right.given) || right.middle.contains(&left.given) {
        pair.agree(3.0, "given name, used as middle name");
    } else {
        pair.differ(8.0, "given name");
        pair.guarded = true;
        return false;
    }
    true
}

fn births(left: Option<Birth>, right: Option<Birth>, evidence: &mut Evidence) {
    let (Some(left), Some(right)) = (left, right) else {
        return;
    };
    let first_of_year = |birth: Birth| birth.month == Some(1) && birth.day == Some(1);
    if left.year.abs_diff(right.year) >= GENERATION_YEARS {
        evidence.differ(14.0, "birth date, by a generation");
        evidence.guarded = true;
    } else if left == right && left.is_full() {
        evidence.birth = true;
        // The first of January is what is written for a date that is not known.
        evidence.agree(if first_of_year(left) { 8.0 } else { 14.0 }, "birth date");
    } else if !left.is_full() || !right.is_full() {
        if left.year == right.year && (left.month == right.month || left.month.is_none() || right.month.is_none()) {
            evidence.agree(5.0, "birth year");
        } else {
            evidence.differ(8.0, "birth date");
        }
    } else if left.year == right.year && left.month == right.day && left.day == right.month {
        evidence.agree(8.0, "birth date, day and month changed about");
    } else {
        let equal = [
            left.year == right.year,
            left.month == right.month,
            left.day == right.day,
        ];
        if equal.iter().filter(|same| **same).count() == 2 {
            evidence.agree(4.0, "birth date, but for one part");
        } else {
            evidence.differ(8.0, "birth date");
        }
    }
}

/// Lowers a grade to what a guard leaves.
#[must_use]
pub fn capped(evidence: &Evidence, grade: MatchGrade) -> MatchGrade {
    if evidence.guarded || !evidence.corroborated {
        MatchGrade::Probable
    } else {
        grade
    }
}
