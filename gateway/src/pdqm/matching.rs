//! Whether a Patient meets the parameters of a search, as FHIR R4 defines them (search.html section 3.1.1.4).
//!
//! Strings: the start of the field, without case and accents; `:exact` the whole field as it is; `:contains`
//! anywhere. Repetitions must all hold, alternatives are separated by commas.

use hie_consent::fhir::time::instant_range;
use hie_gateway_dialect::fhir::resource::{at, list, text, texts};
use icu_normalizer::DecomposingNormalizer;
use serde_json::Value;

use crate::fhir::parameters::{ParameterError, Search, Span, Token, overlaps};

/// The extension that ITI-78 searches by `mothersMaidenName`.
const MAIDEN_NAME: &str = "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName";

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Start,
    Exact,
    Contains,
}

type Fields = fn(&Value) -> Vec<String>;

/// String parameters and the fields that they look at.
const STRINGS: &[(&str, &str, &str, Fields)] = &[
    ("family", "family:exact", "family:contains", family),
    ("given", "given:exact", "given:contains", given),
    ("address", "address:exact", "address:contains", address),
    (
        "address-city",
        "address-city:exact",
        "address-city:contains",
        |patient| address_part(patient, "city"),
    ),
    (
        "address-country",
        "address-country:exact",
        "address-country:contains",
        |patient| address_part(patient, "country"),
    ),
    (
        "address-postalcode",
        "address-postalcode:exact",
        "address-postalcode:contains",
        |patient| address_part(patient, "postalCode"),
    ),
    (
        "address-state",
        "address-state:exact",
        "address-state:contains",
        |patient| address_part(patient, "state"),
    ),
    (
        "mothersMaidenName",
        "mothersMaidenName:exact",
        "mothersMaidenName:contains",
        maiden_name,
    ),
];

struct Text {
    how: How,
    any_of: Vec<String>,
    fields: Fields,
}

/// The parameters of one search.
pub struct Criteria {
    strings: Vec<Text>,
    ids: Vec<Vec<String>>,
    active: Vec<Vec<String>>,
    gender: Vec<Vec<String>>,
    identifiers: Vec<Vec<Token>>,
    telecoms: Vec<Vec<Token>>,
    birth: Vec<Span>,
}

impl Criteria {
    /// Reads the parameters.
    pub fn read(search: &Search) -> Result<Self, ParameterError> {
        let mut strings = Vec::new();
        for (start, exact, contains, fields) in STRINGS {
            for (name, how) in [(start, How::Start), (exact, How::Exact), (contains, How::Contains)] {
                strings.extend(search.all(name)?.into_iter().map(|any_of| Text {
                    how,
                    any_of,
                    fields: *fields,
                }));
            }
        }
        let codes = |name| -> Result<Vec<Vec<String>>, ParameterError> {
            Ok(search
                .tokens(name)?
                .into_iter()
                .map(|group| group.into_iter().map(|token| token.code).collect())
                .collect())
        };
        Ok(Self {
            strings,
            ids: search.all("_id")?,
            active: codes("active")?,
            gender: codes("gender")?,
            identifiers: search.tokens("identifier")?,
            telecoms: search.tokens("telecom")?,
            birth: search.dates("birthdate")?,
        })
    }

    /// Whether nothing says who is meant: sex and activity alone do not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let named = self.identifiers.iter().flatten().any(|token| !token.code.is_empty());
        self.strings.is_empty() && self.ids.is_empty() && !named && self.telecoms.is_empty() && self.birth.is_empty()
    }

    /// The assigning authorities that the answer is limited to (`identifier=system|`).
    #[must_use]
    pub fn domains(&self) -> Vec<String> {
        let limits = self.identifiers.iter().flatten().filter(|token| token.code.is_empty());
        limits
            .filter_map(|token| token.system.clone())
            .filter(|system| !system.is_empty())
            .collect()
    }

    /// Whether a Patient meets all of them.
    #[must_use]
    pub fn meets(&self, patient: &Value) -> bool {
        let one_of = |group: &Vec<String>, value: &str| group.iter().any(|wanted| wanted == value);
        let active = if at(patient, "active").as_bool().unwrap_or(true) {
            "true"
        } else {
            "false"
        };
        self.ids
            .iter()
            .all(|group| one_of(group, text(patient, "id").unwrap_or_default()))
            && self.active.iter().all(|group| one_of(group, active))
            && self
                .gender
                .iter()
                .all(|group| one_of(group, text(patient, "gender").unwrap_or_default()))
            && self.strings.iter().all(|wanted| wanted.meets(patient))
            && self.identifiers.iter().all(|group| has_identifier(patient, group))
            && self.telecoms.iter().all(|group| has_telecom(patient, group))
            && (self.birth.is_empty() || born_within(patient, &self.birth))
    }
}

impl Text {
    fn meets(&self, patient: &Value) -> bool {
        let fields = (self.fields)(patient);
        self.any_of.iter().any(|wanted| {
            let folded = fold(wanted);
            fields.iter().any(|field| match self.how {
                How::Exact => field == wanted,
                How::Start => fold(field).starts_with(&folded),
                How::Contains => fold(field).contains(&folded),
            })
        })
    }
}

/// Lower case, without accents.
#[must_use]
pub fn fold(text: &str) -> String {
    let lower = text.to_lowercase();
    let decomposed = DecomposingNormalizer::new_nfkd().normalize(&lower);
    decomposed
        .chars()
        .filter(|letter| !('\u{300}'..='\u{36f}').contains(letter))
        .collect()
}

fn has_identifier(patient: &Value, group: &[Token]) -> bool {
    // Alternatives without a value only limit what comes back.
    let mut wanted = group.iter().filter(|token| !token.code.is_empty()).peekable();
    let identifiers = list(patient, "identifier");
    wanted.peek().is_none()
        || wanted.any(|token| {
            let is = |identifier: &Value| {
                token.is(
                    text(identifier, "system").unwrap_or_default(),
                    text(identifier, "value").unwrap_or_default(),
                )
            };
            identifiers.iter().any(is)
        })
}

fn has_telecom(patient: &Value, group: &[Token]) -> bool {
    let plain = |number: &str| {
        number
            .chars()
            .filter(|letter| !" -().".contains(*letter))
            .collect::<String>()
            .to_lowercase()
    };
    group.iter().any(|token| {
        list(patient, "telecom").iter().any(|telecom| {
            let system = token
                .system
                .as_deref()
                .is_none_or(|system| system.is_empty() || text(telecom, "system") == Some(system));
            system && plain(text(telecom, "value").unwrap_or_default()) == plain(&token.code)
        })
    })
}

fn born_within(patient: &Value, spans: &[Span]) -> bool {
    text(patient, "birthDate")
        .and_then(instant_range)
        .is_some_and(|range| overlaps(range, spans))
}

fn family(patient: &Value) -> Vec<String> {
    list(patient, "name")
        .iter()
        .filter_map(|name| text(name, "family"))
        .map(str::to_owned)
        .collect()
}

fn given(patient: &Value) -> Vec<String> {
    list(patient, "name")
        .iter()
        .flat_map(|name| texts(name, "given"))
        .collect()
}

fn address(patient: &Value) -> Vec<String> {
    let parts = ["text", "city", "district", "state", "postalCode", "country"];
    let of = |address: &Value| {
        let mut fields = texts(address, "line");
        fields.extend(parts.iter().filter_map(|part| text(address, part)).map(str::to_owned));
        fields
    };
    list(patient, "address").iter().flat_map(of).collect()
}

fn address_part(patient: &Value, part: &str) -> Vec<String> {
    list(patient, "address")
        .iter()
        .filter_map(|address| text(address, part))
        .map(str::to_owned)
        .collect()
}

fn maiden_name(patient: &Value) -> Vec<String> {
    let named = list(patient, "extension")
        .iter()
        .filter(|extension| text(extension, "url") == Some(MAIDEN_NAME));
    named
        .filter_map(|extension| text(extension, "valueString"))
        .map(str::to_owned)
        .collect()
}
