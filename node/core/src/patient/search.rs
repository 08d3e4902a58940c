//! One search box: words of a name, birth dates in several forms and numbers, in any order.
//!
//! `14 mar 1961`, `14/03/1961`, `03/14/1961`, `1961-03-14` and `19610314` are one date; a date that can be
//! read two ways stands for both. Every term must fit; a word fits the beginning of a name.

use crate::patient::normalise::{Birth, Normal, fold};

/// Most terms of a line; the rest is not read.
pub const TERMS_MAX: usize = 8;
/// Most characters of a line that are read.
pub const LINE_CHARS_MAX: usize = 200;
/// Fewest digits of a number that is looked for.
pub const NUMBER_DIGITS_MIN: usize = 3;
/// Letters of a word that are enough to look behind it.
const PREFIX_CHARS: usize = 3;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];

/// One term of a line.
#[derive(Clone, PartialEq, Eq)]
pub enum Term {
    /// Beginning of a name.
    Word(String),
    /// A birth date, `YYYYMMDD`, or what else it can be read as.
    Date(Vec<String>),
    /// An identifier or telephone number.
    Number(String),
}

/// A line, taken apart.
#[derive(Clone, Default)]
pub struct Query {
    terms: Vec<Term>,
}

impl Query {
    /// Takes a line apart.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line: String = text.chars().take(LINE_CHARS_MAX).collect();
        let words: Vec<&str> = line
            .split([' ', ',', ';', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        let mut terms = Vec::new();
        let mut rest = words.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            if terms.len() >= TERMS_MAX {
                break;
            }
            if let Some((date, left)) = spoken_date(rest) {
                terms.push(Term::Date(vec![date]));
                rest = left;
                continue;
            }
            rest = tail;
            let dates = written_dates(first);
            if dates.is_empty() {
                terms.extend(plain(first));
            } else {
                terms.push(Term::Date(dates));
            }
        }
        Self { terms }
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

fn plain(word: &str) -> Vec<Term> {
    let folded = fold(word);
    let digits = folded.chars().filter(char::is_ascii_digit).count();
    if digits >= NUMBER_DIGITS_MIN {
        return vec![Term::Number(folded.replace(' ', ""))];
    }
    folded
        .split(' ')
        .filter(|part| part.chars().count() >= 2)
        .map(|part| Term::Word(part.to_owned()))
        .collect()
}

/// `14 mar 1961`, `mar 14 1961`: the date and the words behind it.
fn spoken_date<'a, 'b>(words: &'b [&'a str]) -> Option<(String, &'b [&'a str])> {
    let (taken, left) = words.split_at_checked(3)?;
    let [one, two, three] = taken else { return None };
    let month = |word: &str| {
        let folded = fold(word);
        MONTHS
            .iter()
            .position(|name| folded.len() >= 3 && folded.starts_with(name) && folded.chars().all(char::is_alphabetic))
    };
    let (month, day) = match (month(one), month(two)) {
        (None, Some(month)) => (month, one),
        (Some(month), None) => (month, two),
        _ => return None,
    };
    let day: u16 = day.trim_end_matches(['.', 't', 'h', 's', 'n', 'r', 'd']).parse().ok()?;
    let birth = Birth::of(three.parse().ok()?, u16::try_from(month + 1).ok(), Some(day))?;
    Some((birth.full()?, left))
}

fn written_dates(word: &str) -> Vec<String> {
    let fields: Vec<&str> = word.split(['/', '.', '-']).collect();
    let number = |text: &&str| text.parse::<u16>().ok().filter(|_| text.len() <= 4);
    let full = |year: u16, month: u16, day: u16| Birth::of(year, Some(month), Some(day)).and_then(Birth::full);
    let mut dates: Vec<String> = match fields.as_slice() {
        [one] if one.len() == 8 && one.bytes().all(|byte| byte.is_ascii_digit()) => {
            let part = |from: usize, to: usize| one.get(from..to).and_then(|text| text.parse::<u16>().ok());
            part(0, 4)
                .zip(part(4, 6))
                .zip(part(6, 8))
                .and_then(|((year, month), day)| full(year, month, day))
                .into_iter()
                .collect()
        }
        [one, two, three] => match (number(one), number(two), number(three)) {
            (Some(year), Some(month), Some(day)) if one.len() == 4 => full(year, month, day).into_iter().collect(),
            (Some(first), Some(second), Some(year)) if three.len() == 4 => full(year, second, first)
                .into_iter()
                .chain(full(year, first, second))
                .collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    dates.dedup();
    dates
}

/// Blocking keys that lead to a term.
#[must_use]
pub fn blocks_of_text(term: &Term) -> Vec<String> {
    match term {
        Term::Word(word) => vec![format!("w|{word}"), format!("p|{}", head(word))],
        Term::Date(dates) => dates.iter().map(|date| format!("d|{date}")).collect(),
        Term::Number(number) => vec![format!("n|{number}")],
    }
}

/// Blocking keys under which a person is found by a line of text.
#[must_use]
pub fn blocks_of_person(person: &Normal) -> Vec<String> {
    let mut blocks = Vec::new();
    for word in words(person) {
        blocks.push(format!("w|{word}"));
        blocks.push(format!("p|{}", head(word)));
    }
    blocks.extend(person.birth.and_then(Birth::full).map(|date| format!("d|{date}")));
    blocks.extend(numbers(person).map(|number| format!("n|{number}")));
    blocks
}

fn head(word: &str) -> String {
    word.chars().take(PREFIX_CHARS).collect()
}

fn words(person: &Normal) -> impl Iterator<Item = &str> {
    person.names.iter().flat_map(|name| {
        core::iter::once(&name.family)
            .chain(&name.parts)
            .chain(core::iter::once(&name.given))
            .chain(&name.middle)
            .map(String::as_str)
    })
}

fn numbers(person: &Normal) -> impl Iterator<Item = &str> {
    person
        .identifiers
        .iter()
        .map(|id| id.value.as_str())
        .chain(person.phones.iter().map(String::as_str))
}

/// Whether every term fits the person; a line without terms fits nobody.
#[must_use]
pub fn matches(query: &Query, person: &Normal) -> bool {
    let date = person.birth.and_then(Birth::full);
    !query.terms.is_empty()
        && query.terms.iter().all(|term| match term {
            Term::Word(word) => words(person).any(|name| name.starts_with(word.as_str())),
            Term::Date(dates) => date.as_ref().is_some_and(|date| dates.contains(date)),
            Term::Number(number) => numbers(person).any(|known| known == number),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::{Query, Term};

    fn dates(text: &str) -> Vec<String> {
        Query::parse(text)
            .terms()
            .iter()
            .flat_map(|term| {
                if let Term::Date(dates) = term {
                    dates.clone()
                } else {
                    Vec::new()
                }
            })
            .collect()
    }

    #[test]
    fn one_date_has_many_forms() {
        for text in [
            "14 mar 1961",
            "Mar 14 1961",
            "14 March 1961",
            "14/03/1961",
            "03/14/1961",
            "14.03.1961",
            "1961-03-14",
            "19610314",
            "smith 1961-03-14 bob",
        ] {
            assert_eq!(dates(text), ["19610314"], "{text}");
        }
        assert_eq!(dates("03/04/1961"), ["19610403", "19610304"]);
        assert!(dates("99/99/1961 31/02/1961").is_empty());
    }

    #[test]
    fn words_and_numbers_are_told_apart() {
        let query = Query::parse("O'Brien, anne-marie MRN-00123");
        assert!(
            query.terms()
                == [
                    Term::Word("OBRIEN".into()),
                    Term::Word("ANNE".into()),
                    Term::Word("MARIE".into()),
                    Term::Number("MRN00123".into())
                ]
        );
        assert_eq!(Query::parse(&"ab ".repeat(500)).terms().len(), super::TERMS_MAX);
        assert!(Query::parse(" , ; ").terms().is_empty());
    }
}
