//! A thin reading model over JSON values: the few shapes of FHIR that this node reads, and no generated types.
//!
//! A reader never fails: an element of the wrong shape reads as absent. Whoever must refuse such a resource does so
//! in `import`. Types that carry a person's data print their shape only.

use std::fmt;

use serde_json::Value;

/// SNOMED CT as FHIR names it.
pub const SNOMED: &str = "http://snomed.info/sct";
/// LOINC as FHIR names it.
pub const LOINC: &str = "http://loinc.org";
/// RxNorm as FHIR names it.
pub const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
/// The HL7 v3 confidentiality codes.
pub const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
/// The HL7 v3 ActCode system: sensitivity and encounter class codes.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
/// Deepest Concept, name or reference list that is read.
pub const ITEMS_MAX: usize = 256;

/// Gives types with a person's data a `Debug` that shows the type and nothing else.
macro_rules! hide {
    ($($kind:ty),+ $(,)?) => { $(
        impl std::fmt::Debug for $kind {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(concat!(stringify!($kind), "(hidden)"))
            }
        }
    )+ };
}
pub(crate) use hide;

/// One code of one code system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coding {
    /// The code system's URI; empty when the source gives none.
    pub system: String,
    /// The code.
    pub code: String,
    /// The text beside the code, as the source has it.
    pub display: Option<String>,
}

impl Coding {
    /// A coding from its three parts.
    pub fn of(system: &str, code: &str, display: &str) -> Self {
        Self {
            system: system.to_owned(),
            code: code.to_owned(),
            display: Some(display.to_owned()),
        }
    }

    /// True for this system and code.
    pub fn is(&self, system: &str, code: &str) -> bool {
        self.system == system && self.code == code
    }

    /// Reads a FHIR Coding; none without a code.
    pub fn read(value: &Value) -> Option<Self> {
        Some(Self {
            system: text(value, "system").unwrap_or_default().to_owned(),
            code: text(value, "code")?.to_owned(),
            display: text(value, "display").map(str::to_owned),
        })
    }

    /// Writes a FHIR Coding.
    pub fn to_value(&self) -> Value {
        let mut map = serde_json::Map::new();
        if !self.system.is_empty() {
            map.insert("system".to_owned(), self.system.clone().into());
        }
        map.insert("code".to_owned(), self.code.clone().into());
        if let Some(display) = &self.display {
            map.insert("display".to_owned(), display.clone().into());
        }
        Value::Object(map)
    }
}

/// A FHIR CodeableConcept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Concept {
    /// The codings in the source's order.
    pub codings: Vec<Coding>,
    /// The words of whoever recorded it.
    pub text: Option<String>,
}

hide!(Concept);

impl Concept {
    /// Reads a CodeableConcept; an absent one reads as empty.
    pub fn read(value: &Value) -> Self {
        Self {
            codings: list(value, "coding")
                .iter()
                .take(ITEMS_MAX)
                .filter_map(Coding::read)
                .collect(),
            text: text(value, "text").map(str::to_owned),
        }
    }

    /// True when neither code nor text is present.
    pub fn is_empty(&self) -> bool {
        self.codings.is_empty() && self.text.is_none()
    }

    /// The words to show: the recorder's text, else a display, else the code itself.
    pub fn words(&self) -> Option<&str> {
        let display = || self.codings.iter().find_map(|coding| coding.display.as_deref());
        let code = || self.codings.first().map(|coding| coding.code.as_str());
        self.text
            .as_deref()
            .filter(|text| !text.trim().is_empty())
            .or_else(display)
            .or_else(code)
    }

    /// True when one of the codings is this one.
    pub fn has(&self, system: &str, code: &str) -> bool {
        self.codings.iter().any(|coding| coding.is(system, code))
    }

    /// True when one of the codings has this code, whatever its system.
    pub fn has_code(&self, code: &str) -> bool {
        self.codings.iter().any(|coding| coding.code == code)
    }
}

/// A start and an end, each a FHIR date or dateTime.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Period {
    /// First moment.
    pub start: Option<String>,
    /// Last moment.
    pub end: Option<String>,
}

/// One business identifier.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IdentifierFacts {
    /// The assigner's URI.
    pub system: String,
    /// The identifier itself.
    pub value: String,
    /// The v2-0203 type code (`MR`, `SS`, `NI`, ...) where given.
    pub type_code: Option<String>,
}

/// One name of a person.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NameFacts {
    /// Family name.
    pub family: Option<String>,
    /// Given names in order.
    pub given: Vec<String>,
    /// Prefixes.
    pub prefix: Vec<String>,
    /// Suffixes.
    pub suffix: Vec<String>,
    /// The FHIR name use (`official`, `maiden`, ...).
    pub use_: Option<String>,
    /// The whole name as one text, where the source has it.
    pub text: Option<String>,
}

/// One postal address.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AddressFacts {
    /// Street lines.
    pub lines: Vec<String>,
    /// City.
    pub city: Option<String>,
    /// State or region.
    pub state: Option<String>,
    /// Postal code.
    pub postal_code: Option<String>,
    /// Country.
    pub country: Option<String>,
    /// The FHIR address use (`home`, `old`, ...).
    pub use_: Option<String>,
}

/// One contact point.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TelecomFacts {
    /// `phone`, `email`, ...
    pub system: Option<String>,
    /// The number or address.
    pub value: String,
    /// The FHIR use (`home`, `mobile`, ...).
    pub use_: Option<String>,
}

/// What the source says about death.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Deceased {
    /// Nothing is said.
    #[default]
    NotStated,
    /// Stated to be alive.
    No,
    /// Stated to have died, and when, if known.
    Yes {
        /// Date or dateTime of death.
        at: Option<String>,
    },
}

/// What a Patient resource says about a person, for matching and for the banner.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PatientFacts {
    /// Identifiers that have a value.
    pub identifiers: Vec<IdentifierFacts>,
    /// Names, the official one first when marked so.
    pub names: Vec<NameFacts>,
    /// FHIR date (`YYYY`, `YYYY-MM` or `YYYY-MM-DD`).
    pub birth_date: Option<String>,
    /// Administrative gender: `male`, `female`, `other`, `unknown`.
    pub sex: Option<String>,
    /// Addresses.
    pub addresses: Vec<AddressFacts>,
    /// Contact points that have a value.
    pub telecoms: Vec<TelecomFacts>,
    /// Death.
    pub deceased: Deceased,
    /// Whether the record is in use, where said.
    pub active: Option<bool>,
}

hide!(Period, IdentifierFacts, NameFacts, AddressFacts, TelecomFacts, Deceased);

impl fmt::Debug for PatientFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PatientFacts")
            .field("identifiers", &self.identifiers.len())
            .field("names", &self.names.len())
            .field("addresses", &self.addresses.len())
            .field("telecoms", &self.telecoms.len())
            .finish_non_exhaustive()
    }
}

impl PatientFacts {
    /// Reads a Patient resource.
    pub fn read(patient: &Value) -> Self {
        let mut names: Vec<NameFacts> = list(patient, "name").iter().take(ITEMS_MAX).map(name).collect();
        names.sort_by_key(|name| match name.use_.as_deref() {
            Some("official") => 0,
            Some("usual") | None => 1,
            Some("old" | "maiden") => 3,
            Some(_) => 2,
        });
        Self {
            identifiers: list(patient, "identifier")
                .iter()
                .take(ITEMS_MAX)
                .filter_map(identifier)
                .collect(),
            names,
            birth_date: text(patient, "birthDate").map(str::to_owned),
            sex: text(patient, "gender").map(str::to_owned),
            addresses: list(patient, "address").iter().take(ITEMS_MAX).map(address).collect(),
            telecoms: list(patient, "telecom")
                .iter()
                .take(ITEMS_MAX)
                .filter_map(telecom)
                .collect(),
            deceased: deceased(patient),
            active: patient.get("active").and_then(Value::as_bool),
        }
    }
}

/// The resource type.
pub fn kind(resource: &Value) -> Option<&str> {
    text(resource, "resourceType")
}

/// The text under `key`, when it is a string.
pub fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// The items under `key`; empty when absent or no array.
pub fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The value under `key`, `null` when absent: reads chain without failing.
pub fn at<'v>(value: &'v Value, key: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    value.get(key).unwrap_or(&NULL)
}

/// All texts of the array under `key`.
pub fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key)
        .iter()
        .take(ITEMS_MAX)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The CodeableConcept under `key`.
pub fn concept(value: &Value, key: &str) -> Concept {
    Concept::read(at(value, key))
}

/// The codings of the CodeableConcept, or of the list of CodeableConcepts, under `key`.
pub fn codings(value: &Value, key: &str) -> Vec<Coding> {
    match value.get(key) {
        Some(Value::Array(items)) => items
            .iter()
            .take(ITEMS_MAX)
            .flat_map(|item| Concept::read(item).codings)
            .collect(),
        Some(item) => Concept::read(item).codings,
        None => Vec::new(),
    }
}

/// The Codings in the array under `key` (for example `meta.security`).
pub fn coding_list(value: &Value, key: &str) -> Vec<Coding> {
    list(value, key)
        .iter()
        .take(ITEMS_MAX)
        .filter_map(Coding::read)
        .collect()
}

/// The Period under `key`.
pub fn period(value: &Value, key: &str) -> Period {
    let value = at(value, key);
    Period {
        start: text(value, "start").map(str::to_owned),
        end: text(value, "end").map(str::to_owned),
    }
}

/// The first of several elements that holds a date: a text, or a Period's start (else its end).
pub fn moment(value: &Value, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match value.get(key) {
        Some(Value::String(date)) => Some(date.clone()),
        Some(period) => text(period, "start").or_else(|| text(period, "end")).map(str::to_owned),
        None => None,
    })
}

/// The `reference` text of the Reference under `key`.
pub fn reference<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(|reference| text(reference, "reference"))
}

/// The relative form `Type/id` of a reference or URL, without version; none for anything else.
pub fn relative(reference: &str) -> Option<(&str, &str)> {
    let plain = reference.split("/_history/").next()?;
    if plain.contains(['?', '#']) {
        return None;
    }
    let mut parts = plain.rsplit('/');
    let id = parts.next()?;
    let kind = parts.next()?;
    (is_id(id) && is_type(kind)).then_some((kind, id))
}

/// FHIR's rule for logical ids: 1 to 64 of `A-Z a-z 0-9 - .`.
pub fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

/// The look of a resource type name.
pub fn is_type(kind: &str) -> bool {
    (2..=40).contains(&kind.len())
        && kind.starts_with(|first: char| first.is_ascii_uppercase())
        && kind.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// FHIR date or dateTime by shape: year, month, day, time and zone with plausible numbers.
pub fn is_date(text: &str) -> bool {
    let (date, time) = text
        .split_once('T')
        .map_or((text, None), |(date, time)| (date, Some(time)));
    let parts: Vec<&str> = date.split('-').collect();
    let number = |part: Option<&&str>, width: usize, range: std::ops::RangeInclusive<u16>| {
        part.is_none_or(|part| {
            part.len() == width
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && part.parse().is_ok_and(|number| range.contains(&number))
        })
    };
    let day = parts.len() <= 3
        && number(parts.first(), 4, 1..=9999)
        && number(parts.get(1), 2, 1..=12)
        && number(parts.get(2), 2, 1..=31);
    day && time.is_none_or(|time| {
        parts.len() == 3
            && time.len() >= 5
            && time
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b":.+-Z".contains(&byte))
    })
}

/// A person's or organisation's name as one line: given before family.
pub fn person_name(resource: &Value) -> Option<String> {
    if let Some(name) = text(resource, "name") {
        return Some(name.to_owned());
    }
    let name = list(resource, "name").first().map(name)?;
    if let Some(text) = name.text {
        return Some(text);
    }
    let mut words: Vec<&str> = name.prefix.iter().map(String::as_str).collect();
    words.extend(name.given.iter().map(String::as_str));
    words.extend(name.family.as_deref());
    words.extend(name.suffix.iter().map(String::as_str));
    (!words.is_empty()).then(|| words.join(" "))
}

fn name(value: &Value) -> NameFacts {
    NameFacts {
        family: text(value, "family").map(str::to_owned),
        given: texts(value, "given"),
        prefix: texts(value, "prefix"),
        suffix: texts(value, "suffix"),
        use_: text(value, "use").map(str::to_owned),
        text: text(value, "text").map(str::to_owned),
    }
}

fn identifier(value: &Value) -> Option<IdentifierFacts> {
    let id = text(value, "value").filter(|id| !id.trim().is_empty())?;
    Some(IdentifierFacts {
        system: text(value, "system").unwrap_or_default().to_owned(),
        value: id.to_owned(),
        type_code: codings(value, "type").into_iter().next().map(|coding| coding.code),
    })
}

fn address(value: &Value) -> AddressFacts {
    let owned = |key: &str| text(value, key).map(str::to_owned);
    AddressFacts {
        lines: texts(value, "line"),
        city: owned("city"),
        state: owned("state"),
        postal_code: owned("postalCode"),
        country: owned("country"),
        use_: owned("use"),
    }
}

fn telecom(value: &Value) -> Option<TelecomFacts> {
    Some(TelecomFacts {
        system: text(value, "system").map(str::to_owned),
        value: text(value, "value")
            .filter(|value| !value.trim().is_empty())?
            .to_owned(),
        use_: text(value, "use").map(str::to_owned),
    })
}

fn deceased(patient: &Value) -> Deceased {
    if let Some(at) = text(patient, "deceasedDateTime") {
        return Deceased::Yes {
            at: Some(at.to_owned()),
        };
    }
    match patient.get("deceasedBoolean").and_then(Value::as_bool) {
        Some(true) => Deceased::Yes { at: None },
        Some(false) => Deceased::No,
        None => Deceased::NotStated,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use serde_json::json;

    use super::{Deceased, PatientFacts, is_date, relative};

    #[test]
    fn a_patient_reads_and_hides() {
        let facts = PatientFacts::read(&json!({
            "resourceType": "Patient", "birthDate": "1961-03-14", "gender": "female", "deceasedBoolean": false,
            "identifier": [{"system": "urn:oid:1.2", "value": "77", "type": {"coding": [{"code": "MR"}]}}, {"system": "x"}],
            "name": [{"use": "maiden", "family": "Before"}, {"use": "official", "family": "Okafor", "given": ["Grace", "N"]}],
            "telecom": [{"system": "phone", "value": "555"}, {"system": "phone"}],
            "address": [{"line": ["1 Pier"], "postalCode": "123"}]
        }));
        assert_eq!(facts.identifiers.len(), 1);
        assert_eq!(facts.identifiers[0].type_code.as_deref(), Some("MR"));
        assert_eq!(facts.names[0].family.as_deref(), Some("Okafor"));
        assert!(facts.deceased == Deceased::No && facts.telecoms.len() == 1);
        let shown = format!("{facts:?} {:?}", facts.names);
        assert!(!shown.contains("Okafor") && !shown.contains("1961"), "{shown}");
    }

    #[test]
    fn references_become_relative_only_when_they_are() {
        assert_eq!(relative("Patient/1"), Some(("Patient", "1")));
        assert_eq!(
            relative("https://a.example/fhir/Patient/a-b.c/_history/3"),
            Some(("Patient", "a-b.c"))
        );
        for bad in [
            "urn:uuid:1",
            "Patient?identifier=a|b",
            "#x",
            "patient/1",
            "Patient/",
            "Patient/a b",
            "",
        ] {
            assert_eq!(relative(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_checked_by_shape() {
        for good in [
            "1961",
            "1961-03",
            "1961-03-14",
            "2011-09-30T17:49:34+00:00",
            "2011-09-30T17:49:34.210Z",
        ] {
            assert!(is_date(good), "{good}");
        }
        for bad in [
            "",
            "61",
            "1961-13",
            "1961-3-1",
            "1961-03-14-15",
            "abcd",
            "1961-03T10:00:00Z",
            "2011-09-30Tx",
        ] {
            assert!(!is_date(bad), "{bad}");
        }
    }
}
