//! Normalisation profile `norm-1`: the same person written two ways becomes the same values (SPEC M-NORM).
//!
//! Compatibility decomposition (NFKD), marks stripped, upper case, letters and digits alone. What stands for
//! "not known" (1900-01-01, 999-99-9999, UNKNOWN) becomes absent: an absent value is no evidence, neither for
//! nor against. Letters outside A-Z that no rule maps stay as they are, so that a name in another script is
//! compared and tokenised as written.

use core::fmt;

use hie_protocol::message::{Demographics, PersonAddress, PersonName};
use icu_normalizer::DecomposingNormalizer;

use crate::patient::names;

/// Name of the profile; part of every PRF input.
pub const PROFILE: &str = "norm-1";
/// Most names, addresses, phones, e-mail addresses or identifiers that are used of one person.
pub const VALUES_MAX: usize = 8;
/// Most characters of a value that are read; the rest is cut.
pub const VALUE_CHARS_MAX: usize = 120;
/// First year that a birth date may have.
pub const BIRTH_YEAR_MIN: u16 = 1870;
/// Last year that a birth date may have.
pub const BIRTH_YEAR_MAX: u16 = 2120;

/// A person, normalised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Normal {
    /// Names, current first.
    pub names: Vec<NormalName>,
    /// Birth date as far as known.
    pub birth: Option<Birth>,
    /// Administrative sex, `M` or `F`; other values are no evidence.
    pub sex: Option<char>,
    /// Identifiers.
    pub identifiers: Vec<NormalIdentifier>,
    /// Addresses, current first.
    pub addresses: Vec<NormalAddress>,
    /// Telephone numbers: the last ten digits.
    pub phones: Vec<String>,
    /// E-mail addresses, lower case.
    pub emails: Vec<String>,
}

impl fmt::Debug for Normal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Normal({} names, {} identifiers)",
            self.names.len(),
            self.identifiers.len()
        )
    }
}

/// A name, normalised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NormalName {
    /// Family name without spaces, particles included.
    pub family: String,
    /// The words of a family name that stand alone (double surnames), without particles.
    pub parts: Vec<String>,
    /// First given name.
    pub given: String,
    /// Further given names or initials.
    pub middle: Vec<String>,
    /// Generational suffix.
    pub suffix: Option<&'static str>,
    /// The given or family name stands for "not known".
    pub placeholder: bool,
}

/// A birth date as far as known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// Year.
    pub year: u16,
    /// Month, 1-12.
    pub month: Option<u8>,
    /// Day, 1-31; never without a month.
    pub day: Option<u8>,
}

/// What kind of identifier a system assigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifierKind {
    /// United States social security number: nine digits, shared by households in practice.
    SocialSecurity,
    /// Driver's licence.
    Licence,
    /// Insurance membership.
    Insurance,
    /// Any other: one authority gives each number to one person.
    Other,
}

/// An identifier, normalised.
#[derive(Clone, PartialEq, Eq)]
pub struct NormalIdentifier {
    /// Kind.
    pub kind: IdentifierKind,
    /// Assigning authority as written, trimmed.
    pub system: String,
    /// Letters and digits, upper case.
    pub value: String,
}

/// An address, normalised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NormalAddress {
    /// House number.
    pub house: Option<String>,
    /// Street without spaces, words shortened.
    pub street: String,
    /// City without spaces.
    pub city: String,
    /// First five characters of the postal code.
    pub postal: Option<String>,
}

impl Birth {
    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`; none for anything else and for placeholder dates.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.trim().get(..10.min(text.trim().len()))?.split('-');
        let digits = |part: &str, len: usize| {
            (part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u16>().ok())?
        };
        let year = digits(fields.next()?, 4)?;
        let month = fields
            .next()
            .map(|part| digits(part, 2))
            .map_or(Some(None), |part| part.map(Some))?;
        let day = fields
            .next()
            .map(|part| digits(part, 2))
            .map_or(Some(None), |part| part.map(Some))?;
        Self::of(year, month, day)
    }

    /// Builds a date from its fields; none when it does not exist or stands for "not known".
    #[must_use]
    pub fn of(year: u16, month: Option<u16>, day: Option<u16>) -> Option<Self> {
        if !(BIRTH_YEAR_MIN..=BIRTH_YEAR_MAX).contains(&year) || year == 1900 {
            return None;
        }
        let small = |value: u16| u8::try_from(value).ok();
        let birth = Self {
            year,
            month: month.and_then(small),
            day: day.and_then(small),
        };
        let real = match (month, day) {
            (None, None) => true,
            (Some(1..=12), None) => true,
            (Some(month), Some(day)) => (1..=days_of(year, month)).contains(&day),
            _ => false,
        };
        real.then_some(birth)
    }

    /// Whether year, month and day are known.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.day.is_some()
    }

    /// `YYYYMMDD` of a full date.
    #[must_use]
    pub fn full(self) -> Option<String> {
        Some(format!("{:04}{:02}{:02}", self.year, self.month?, self.day?))
    }
}

fn days_of(year: u16, month: u16) -> u16 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

/// Folds a text: NFKD, marks stripped, upper case; everything but letters and digits becomes one space.
#[must_use]
pub fn fold(text: &str) -> String {
    let cut: String = text.chars().take(VALUE_CHARS_MAX).collect();
    let decomposed = DecomposingNormalizer::new_nfkd().normalize(&cut);
    let mut folded = String::with_capacity(decomposed.len());
    for letter in decomposed.chars() {
        match letter {
            'ß' | 'ẞ' => folded.push_str("SS"),
            'ø' | 'Ø' => folded.push('O'),
            'æ' | 'Æ' => folded.push_str("AE"),
            'œ' | 'Œ' => folded.push_str("OE"),
            'ł' | 'Ł' => folded.push('L'),
            'đ' | 'Đ' | 'ð' | 'Ð' => folded.push('D'),
            'þ' | 'Þ' => folded.push_str("TH"),
            'ı' => folded.push('I'),
            '\'' | '’' | '‘' | '`' | 'ʼ' => {}
            '\u{0300}'..='\u{036f}' => {}
            _ if letter.is_alphanumeric() => folded.extend(letter.to_uppercase()),
            _ if folded.ends_with(' ') || folded.is_empty() => {}
            _ => folded.push(' '),
        }
    }
    while folded.ends_with(' ') {
        folded.pop();
    }
    folded
}

/// Normalises a person by the profile.
#[must_use]
pub fn normalise(person: &Demographics) -> Normal {
    let mut normal = Normal {
        names: distinct(person.names.iter().filter_map(name)),
        birth: person.birth_date.as_deref().and_then(Birth::parse),
        sex: person.sex.as_deref().and_then(sex),
        identifiers: distinct(
            person
                .identifiers
                .iter()
                .filter_map(|id| identifier(&id.system, &id.value)),
        ),
        addresses: distinct(person.addresses.iter().filter_map(address)),
        ..Normal::default()
    };
    let (emails, phones): (Vec<&String>, Vec<&String>) = person.telecoms.iter().partition(|text| text.contains('@'));
    normal.emails = distinct(emails.into_iter().filter_map(|text| email(text)));
    normal.phones = distinct(phones.into_iter().filter_map(|text| phone(text)));
    normal
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for value in values {
        if kept.len() >= VALUES_MAX {
            break;
        }
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    kept
}

fn name(name: &PersonName) -> Option<NormalName> {
    let mut suffix = None;
    let mut keep = |text: &str| -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for word in fold(text).split(' ').filter(|word| !word.is_empty()) {
            match names::suffix(word) {
                // A lone suffix word may be a name of its own (Junior); a suffix follows a name.
                Some(written) if !words.is_empty() => suffix = Some(written),
                _ if names::is_title(word) => {}
                _ => words.push(strip_digits(word)),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    };
    let family_words = keep(&name.family);
    let given_words: Vec<String> = name.given.iter().take(VALUES_MAX).flat_map(|text| keep(text)).collect();
    let stated = name
        .suffix
        .as_deref()
        .and_then(|text| fold(text).split(' ').find_map(names::suffix));
    let family: String = family_words.concat();
    let all_given: String = given_words.concat();
    if family.is_empty() && all_given.is_empty() {
        return None;
    }
    let parts: Vec<String> = family_words
        .iter()
        .filter(|word| word.len() > 1 && !names::is_particle(word))
        .cloned()
        .collect();
    let mut given = given_words.into_iter();
    let first = given.next().unwrap_or_default();
    let doe = family == "DOE" && matches!(first.as_str(), "JOHN" | "JANE");
    let placeholder =
        doe || names::is_placeholder(&family) || names::is_placeholder(&first) || names::is_placeholder(&all_given);
    Some(NormalName {
        family,
        parts: if parts.len() > 1 { parts } else { Vec::new() },
        given: first,
        middle: given.collect(),
        suffix: stated.or(suffix),
        placeholder,
    })
}

/// Synthetic data ends names with digits ("Smith123"): a name has no digits.
fn strip_digits(word: &str) -> String {
    word.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

fn sex(text: &str) -> Option<char> {
    match text.trim().to_ascii_lowercase().as_str() {
        "male" | "m" => Some('M'),
        "female" | "f" => Some('F'),
        _ => None,
    }
}

/// Normalises an identifier; none for a placeholder.
#[must_use]
pub fn identifier(system: &str, value: &str) -> Option<NormalIdentifier> {
    let system = system.trim().trim_end_matches('/');
    let value: String = fold(value).replace(' ', "");
    let kind = kind_of(system);
    let plain = value.len() >= 3
        && !one_repeated(&value)
        && !matches!(
            value.as_str(),
            "123456789" | "987654321" | "078051120" | "UNKNOWN" | "NONE" | "TEST"
        );
    let social = value.len() == 9
        && value.bytes().all(|byte| byte.is_ascii_digit())
        && !value.starts_with("000")
        && !value.starts_with("666")
        && !value.ends_with("0000");
    let usable = !system.is_empty()
        && system.len() <= VALUE_CHARS_MAX
        && plain
        && (kind != IdentifierKind::SocialSecurity
            || social
            || (value.len() == 4 && value.bytes().all(|byte| byte.is_ascii_digit())));
    usable.then(|| NormalIdentifier {
        kind,
        system: system.to_owned(),
        value,
    })
}

fn kind_of(system: &str) -> IdentifierKind {
    let lower = system.to_ascii_lowercase();
    let oid = lower.strip_prefix("urn:oid:").unwrap_or(&lower);
    if lower.ends_with("/us-ssn") || oid == "2.16.840.1.113883.4.1" {
        IdentifierKind::SocialSecurity
    } else if oid.starts_with("2.16.840.1.113883.4.3.") || lower.contains("licen") {
        IdentifierKind::Licence
    } else if lower.ends_with("/us-medicare")
        || lower.ends_with("/us-mbi")
        || lower.contains("insurance")
        || lower.contains("subscriber")
    {
        IdentifierKind::Insurance
    } else {
        IdentifierKind::Other
    }
}

fn one_repeated(value: &str) -> bool {
    value
        .chars()
        .next()
        .is_some_and(|first| value.chars().all(|letter| letter == first))
}

fn address(address: &PersonAddress) -> Option<NormalAddress> {
    let mut house = None;
    let mut street = String::new();
    let line = address.lines.first().map(|text| fold(text)).unwrap_or_default();
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        if names::is_unit_word(word) && !street.is_empty() {
            break;
        }
        if house.is_none() && word.starts_with(|first: char| first.is_ascii_digit()) {
            house = Some(word.to_owned());
        } else {
            street.push_str(names::street_word(word));
        }
    }
    let city = address.city.as_deref().map(fold).unwrap_or_default().replace(' ', "");
    let postal = address
        .postal_code
        .as_deref()
        .map(fold)
        .map(|text| text.replace(' ', ""))
        .map(|text| text.chars().take(5).collect::<String>());
    let postal = postal.filter(|text| text.len() >= 4 && !matches!(text.as_str(), "00000" | "99999" | "0000"));
    let known = !street.is_empty() || postal.is_some();
    let homeless = matches!(street.as_str(), "HOMELESS" | "UNKNOWN" | "GENERALDELIVERY");
    (known && !homeless).then_some(NormalAddress {
        house,
        street,
        city,
        postal,
    })
}

/// The last ten digits of a telephone number; none for too few digits or a placeholder.
#[must_use]
pub fn phone(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).take(20).collect();
    let tail = digits.get(digits.len().saturating_sub(10)..)?.to_owned();
    let local = tail.get(tail.len().saturating_sub(7)..).unwrap_or_default();
    let usable = tail.len() >= 7 && !one_repeated(&tail) && !one_repeated(local) && local != "1234567";
    usable.then_some(tail)
}

fn email(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let text = text.strip_prefix("mailto:").unwrap_or(&text);
    let (user, host) = text.split_once('@')?;
    let form = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_alphanumeric() || ".-_+".contains(letter))
    };
    let usable = form(user)
        && form(host)
        && text.len() <= VALUE_CHARS_MAX
        && !matches!(user, "none" | "na" | "noemail" | "unknown" | "test");
    usable.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
