//! Match tokens: each binds at least two fields of a person into one input of the oblivious function.
//!
//! Canonical input: `hie-tok|norm-1|<type>|<epoch>|<field>|<field>...`. No type uses a telephone number, an
//! e-mail address or a number alone, nor a given name with a birth date alone: the smallest guess space of the
//! set is above 2^32 (SPEC M-TOK). Who publishes writes every variant (double surnames, former names,
//! addresses and numbers); who asks does the same within the smaller limit of one lookup.

use core::fmt;

use crate::patient::names::{roots, soundex};
use crate::patient::normalise::{IdentifierKind, Normal, NormalName, PROFILE};

/// Most tokens that an owner publishes for one patient.
pub const PUBLISH_MAX: usize = 64;
/// Most tokens of one question: one evaluation batch and one lookup.
pub const ASK_MAX: usize = 48;
/// Shortest identifier of an authority that is not known to be national: below it, number and birth year
/// together have fewer than 2^32 plausible values.
pub const IDENTIFIER_CHARS_MIN: usize = 8;

/// Token types in the order of their strength: when a limit cuts, it cuts from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// Identifier of one authority and birth year.
    N,
    /// Social security number and birth year.
    I1,
    /// Driver's licence and birth year.
    J1,
    /// Insurance id and birth date.
    K,
    /// Family name, first initial, birth date.
    A,
    /// Sounds of family and given name, birth date.
    B3,
    /// Family and given name in either order, birth date.
    M,
    /// Given name, telephone number.
    G,
    /// Telephone number, birth year and month.
    G3,
    /// E-mail address, given name.
    H,
    /// E-mail address, birth date.
    H2,
    /// Given name, birth date, postal code.
    C2,
    /// Last four of the social security number, birth date, initial.
    I6,
    /// House number, sound of the street, postal code, given name.
    L2,
    /// Family and given name, birth year.
    E2,
    /// Family and given name, birth month and day.
    F,
}

impl TokenKind {
    /// The type as it stands in the input.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B3 => "B3",
            Self::C2 => "C2",
            Self::E2 => "E2",
            Self::F => "F",
            Self::G => "G",
            Self::G3 => "G3",
            Self::H => "H",
            Self::H2 => "H2",
            Self::I1 => "I1",
            Self::I6 => "I6",
            Self::J1 => "J1",
            Self::K => "K",
            Self::L2 => "L2",
            Self::M => "M",
            Self::N => "N",
        }
    }

    /// Whether one hit of this type is enough to ask the custodian; weak types need two hits.
    #[must_use]
    pub const fn is_strong(self) -> bool {
        !matches!(self, Self::E2 | Self::F | Self::L2)
    }
}

/// A token before the oblivious function: personal data, never stored or logged in the clear.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Type.
    pub kind: TokenKind,
    /// Input of the function.
    pub input: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({:?}, hidden)", self.kind)
    }
}

/// Tokens that an owner publishes for a person.
#[must_use]
pub fn publish(person: &Normal, epoch: u32) -> Vec<Token> {
    tokens(person, epoch, PUBLISH_MAX)
}

/// Tokens that a question about a person uses.
#[must_use]
pub fn ask(person: &Normal, epoch: u32) -> Vec<Token> {
    tokens(person, epoch, ASK_MAX)
}

fn tokens(person: &Normal, epoch: u32, limit: usize) -> Vec<Token> {
    let mut set = Set {
        epoch,
        tokens: Vec::new(),
    };
    set.identifiers(person);
    for name in person.names.iter().filter(|name| !name.placeholder) {
        set.named(person, name);
    }
    set.numbers(person);
    set.tokens.sort();
    set.tokens.dedup();
    set.tokens.truncate(limit);
    set.tokens
}

struct Set {
    epoch: u32,
    tokens: Vec<Token>,
}

impl Set {
    fn add(&mut self, kind: TokenKind, fields: &[&str]) {
        if fields.iter().any(|field| field.is_empty()) {
            return;
        }
        let mut input = format!("hie-tok|{PROFILE}|{}|{}", kind.word(), self.epoch);
        for field in fields {
            input.push('|');
            // INVARIANT: a field never holds the separator, so two field lists never meet in one input.
            input.extend(field.chars().map(|letter| if letter == '|' { '/' } else { letter }));
        }
        self.tokens.push(Token { kind, input });
    }

    fn identifiers(&mut self, person: &Normal) {
        let Some(birth) = person.birth else { return };
        let year = birth.year.to_string();
        let full = birth.full().unwrap_or_default();
        for id in &person.identifiers {
            match id.kind {
                IdentifierKind::SocialSecurity if id.value.len() == 9 => self.add(TokenKind::I1, &[&id.value, &year]),
                IdentifierKind::SocialSecurity => {}
                IdentifierKind::Licence => self.add(TokenKind::J1, &[&id.system, &id.value, &year]),
                IdentifierKind::Insurance => self.add(TokenKind::K, &[&id.value, &full]),
                IdentifierKind::Other if id.value.len() >= IDENTIFIER_CHARS_MIN => {
                    self.add(TokenKind::N, &[&id.system, &id.value, &year]);
                }
                IdentifierKind::Other => {}
            }
        }
    }

    fn named(&mut self, person: &Normal, name: &NormalName) {
        let initial: String = name.given.chars().take(1).collect();
        let canons = if name.given.len() > 1 {
            roots(&name.given)
        } else {
            Vec::new()
        };
        let families: Vec<&str> = core::iter::once(name.family.as_str())
            .chain(name.parts.iter().map(String::as_str))
            .collect();
        if let Some(birth) = person.birth {
            let full = birth.full().unwrap_or_default();
            let year = birth.year.to_string();
            let month_day = full.get(4..).unwrap_or_default().to_owned();
            for family in &families {
                self.add(TokenKind::A, &[family, &initial, &full]);
                let sounds = (
                    soundex(family).unwrap_or_default(),
                    soundex(&name.given).unwrap_or_default(),
                );
                if name.given.len() > 1 {
                    self.add(TokenKind::B3, &[&sounds.0, &sounds.1, &full]);
                }
                for canon in &canons {
                    self.add(TokenKind::E2, &[family, canon, &year]);
                    self.add(TokenKind::F, &[family, canon, &month_day]);
                    let (first, second) = if *family <= canon.as_str() {
                        (*family, canon.as_str())
                    } else {
                        (canon.as_str(), *family)
                    };
                    self.add(TokenKind::M, &[first, second, &full]);
                }
            }
            for canon in &canons {
                for postal in person.addresses.iter().filter_map(|address| address.postal.as_deref()) {
                    self.add(TokenKind::C2, &[canon, &full, postal]);
                }
            }
            for id in person
                .identifiers
                .iter()
                .filter(|id| id.kind == IdentifierKind::SocialSecurity)
            {
                let last = id.value.get(id.value.len().saturating_sub(4)..).unwrap_or_default();
                self.add(TokenKind::I6, &[last, &full, &initial]);
            }
        }
        for canon in &canons {
            for phone in person.phones.iter().filter(|phone| phone.len() == 10) {
                self.add(TokenKind::G, &[phone, canon]);
            }
            for email in &person.emails {
                self.add(TokenKind::H, &[email, canon]);
            }
            for address in &person.addresses {
                let sound = soundex(&address.street).unwrap_or_default();
                let house = address.house.as_deref().unwrap_or_default();
                self.add(
                    TokenKind::L2,
                    &[house, &sound, address.postal.as_deref().unwrap_or_default(), canon],
                );
            }
        }
    }

    fn numbers(&mut self, person: &Normal) {
        let Some(full) = person.birth.and_then(crate::patient::normalise::Birth::full) else {
            return;
        };
        let month = full.get(..6).unwrap_or_default().to_owned();
        for phone in person.phones.iter().filter(|phone| phone.len() == 10) {
            self.add(TokenKind::G3, &[phone, &month]);
        }
        for email in &person.emails {
            self.add(TokenKind::H2, &[email, &full]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName};

    use super::{ASK_MAX, PUBLISH_MAX, ask, publish};
    use crate::patient::normalise::normalise;

    fn person() -> Demographics {
        Demographics {
            names: vec![PersonName {
                family: "García-Lopez".into(),
                given: vec!["Bob".into()],
                prefix: None,
                suffix: None,
            }],
            birth_date: Some("1961-03-14".into()),
            sex: Some("male".into()),
            identifiers: vec![
                PersonIdentifier {
                    system: "http://hl7.org/fhir/sid/us-ssn".into(),
                    value: "219-09-9998".into(),
                },
                PersonIdentifier {
                    system: "urn:oid:2.999.7.1.1".into(),
                    value: "MRN-00012345".into(),
                },
                PersonIdentifier {
                    system: "urn:oid:2.999.7.1.1".into(),
                    value: "1234".into(),
                },
            ],
            addresses: vec![PersonAddress {
                lines: vec!["12 Main Street".into()],
                city: None,
                state: None,
                postal_code: Some("01970".into()),
            }],
            telecoms: vec!["(617) 555-0123".into(), "bob@example.org".into()],
        }
    }

    #[test]
    fn spec_m_tok_inputs_are_frozen() {
        let tokens: Vec<String> = publish(&normalise(&person()), 1)
            .into_iter()
            .map(|token| token.input)
            .collect();
        let expected = [
            "hie-tok|norm-1|N|1|urn:oid:2.999.7.1.1|MRN00012345|1961",
            "hie-tok|norm-1|I1|1|219099998|1961",
            "hie-tok|norm-1|A|1|GARCIALOPEZ|B|19610314",
            "hie-tok|norm-1|A|1|GARCIA|B|19610314",
            "hie-tok|norm-1|A|1|LOPEZ|B|19610314",
            "hie-tok|norm-1|B3|1|G620|B100|19610314",
            "hie-tok|norm-1|B3|1|G624|B100|19610314",
            "hie-tok|norm-1|B3|1|L120|B100|19610314",
            "hie-tok|norm-1|M|1|GARCIALOPEZ|ROBERT|19610314",
            "hie-tok|norm-1|M|1|GARCIA|ROBERT|19610314",
            "hie-tok|norm-1|M|1|LOPEZ|ROBERT|19610314",
            "hie-tok|norm-1|G|1|6175550123|ROBERT",
            "hie-tok|norm-1|G3|1|6175550123|196103",
            "hie-tok|norm-1|H|1|bob@example.org|ROBERT",
            "hie-tok|norm-1|H2|1|bob@example.org|19610314",
            "hie-tok|norm-1|C2|1|ROBERT|19610314|01970",
            "hie-tok|norm-1|I6|1|9998|19610314|B",
            "hie-tok|norm-1|L2|1|12|M523|01970|ROBERT",
            "hie-tok|norm-1|E2|1|GARCIALOPEZ|ROBERT|1961",
            "hie-tok|norm-1|E2|1|GARCIA|ROBERT|1961",
            "hie-tok|norm-1|E2|1|LOPEZ|ROBERT|1961",
            "hie-tok|norm-1|F|1|GARCIALOPEZ|ROBERT|0314",
            "hie-tok|norm-1|F|1|GARCIA|ROBERT|0314",
            "hie-tok|norm-1|F|1|LOPEZ|ROBERT|0314",
        ];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn spec_m_tok_every_token_binds_two_fields() {
        let all = publish(&normalise(&person()), 9);
        assert!(
            all.iter().all(|token| token.input.split('|').count() >= 6),
            "{}",
            all.len()
        );
        let mut alone = person();
        alone.birth_date = None;
        alone.names.clear();
        assert!(publish(&normalise(&alone), 1).is_empty(), "numbers alone make no token");
        let mut unknown = person();
        unknown.names = vec![PersonName {
            family: "Doe".into(),
            given: vec!["John".into()],
            prefix: None,
            suffix: None,
        }];
        unknown.identifiers.clear();
        unknown.telecoms.clear();
        assert!(
            publish(&normalise(&unknown), 1).is_empty(),
            "a placeholder name makes no token"
        );
    }

    #[test]
    fn spec_m_tok_a_question_meets_what_was_published() {
        let mut asked = person();
        asked.names[0] = PersonName {
            family: "LOPEZ".into(),
            given: vec!["Robert".into()],
            prefix: None,
            suffix: None,
        };
        asked.identifiers.clear();
        let published = publish(&normalise(&person()), 1);
        let hits = ask(&normalise(&asked), 1)
            .into_iter()
            .filter(|token| published.contains(token))
            .count();
        assert!(hits >= 6, "{hits}");
        assert!(
            ask(&normalise(&asked), 2)
                .iter()
                .all(|token| !published.contains(token)),
            "another epoch shares nothing"
        );
    }

    #[test]
    fn limits_keep_the_strongest() {
        let mut crowded = person();
        crowded.names = (0..40)
            .map(|at: u8| PersonName {
                family: format!("Name{}", char::from(b'A' + at % 26)),
                given: vec!["Alex".into()],
                prefix: None,
                suffix: None,
            })
            .collect();
        let published = publish(&normalise(&crowded), 1);
        assert_eq!(published.len(), PUBLISH_MAX);
        assert_eq!(ask(&normalise(&crowded), 1).len(), ASK_MAX);
        assert!(published[0].input.contains("|N|"));
    }
}
