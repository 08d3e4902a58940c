//! Search parameters of a FHIR search, by GET or by POST `_search`.
//!
//! The law: unknown parameters are ignored, unless the caller asks for strict handling, and the self link tells which
//! were honoured. A POST's personal values appear in no link: links end up in logs and browser histories.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use hie_consent::fhir::time::instant_range;
use hie_gateway_dialect::fhir::resource::{is_id, relative};
use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;

use crate::fhir::negotiate::{self, Json};
use crate::gate::Gate;
use crate::ports::PatientSelector;
use crate::respond::{Dialect, Fault, Problem};

/// Most parameters of one search.
pub const PARAMETERS_MAX: usize = 64;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Most alternatives of one parameter.
pub const ALTERNATIVES_MAX: usize = 32;
/// Most entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 500;

/// Parameters that say how to answer, not what to find.
const CONTROLS: &[&str] = &["_count", "_format", "_pretty", "_page"];

/// The parameters of one search.
pub struct Search {
    /// Name with modifier, value.
    pub given: Vec<(String, String)>,
    /// True when they came in a body.
    pub posted: bool,
    /// True for `Prefer: handling=strict`.
    pub strict: bool,
}

impl FromRequest<Gate> for Search {
    type Rejection = Response;

    async fn from_request(request: Request, gate: &Gate) -> Result<Self, Response> {
        let refuse = |fault, words: &str| Problem::with(gate, fault, words).respond(gate, Dialect::Fhir);
        let too_many = || {
            refuse(
                Fault::Of(Class::Invalid),
                "At most 64 parameters with values of at most 1024 bytes.",
            )
        };
        let headers = request.headers().clone();
        let mut given = decode(request.uri().query().unwrap_or_default().as_bytes()).ok_or_else(too_many)?;
        let posted = request.method() == Method::POST;
        if posted {
            let body = Bytes::from_request(request, gate)
                .await
                .map_err(|_| refuse(Fault::TooLarge, Fault::TooLarge.words()))?;
            let kind = negotiate::content_type(&headers);
            if kind != "application/x-www-form-urlencoded" && !(kind.is_empty() && body.is_empty()) {
                return Err(refuse(
                    Fault::MediaType,
                    "Send _search as application/x-www-form-urlencoded.",
                ));
            }
            given.extend(decode(&body).ok_or_else(too_many)?);
        }
        if given.len() > PARAMETERS_MAX {
            return Err(too_many());
        }
        let search = Self {
            given,
            posted,
            strict: prefers(&headers, "handling=strict"),
        };
        Json::check(gate, &headers, search.one("_format"))?;
        Ok(search)
    }
}

/// A bad value: which parameter, and what it must be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParameterError {
    /// Not a date.
    #[error("The parameter {0} is not a FHIR date with one of the prefixes eq, ge, gt, le, lt, sa, eb.")]
    Date(&'static str),
    /// Not a number.
    #[error("The parameter {0} is not a whole number.")]
    Number(&'static str),
    /// No patient.
    #[error("Name the patient: patient=<id> or patient.identifier=<system>|<value>, exactly one of them.")]
    Patient,
    /// Too many alternatives.
    #[error("The parameter {0} has more than 32 alternatives.")]
    Alternatives(&'static str),
    /// A community that is no OID URN.
    #[error("The parameter {0} is not a list of OID URNs.")]
    Community(&'static str),
    /// Strict handling was asked for and a parameter is not known.
    #[error("A parameter is not known here and strict handling was asked for: see the CapabilityStatement.")]
    Unknown,
    /// The link to a page cannot be read.
    #[error("This link is no longer good: search again.")]
    Page,
    /// Nothing to search by.
    #[error("Search by at least one of: {0}.")]
    Nothing(&'static str),
}

impl ParameterError {
    /// The answer.
    #[must_use]
    pub fn respond(&self, gate: &Gate) -> Response {
        Problem::with(gate, Fault::Of(Class::Invalid), &self.to_string()).respond(gate, Dialect::Fhir)
    }
}

/// Whether `Prefer` has this preference.
#[must_use]
pub fn prefers(headers: &HeaderMap, preference: &str) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split([',', ';']))
        .any(|part| part.trim().eq_ignore_ascii_case(preference))
}

/// Decodes `application/x-www-form-urlencoded`; none over the limits.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let pairs: Vec<_> = bytes
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(PARAMETERS_MAX + 1)
        .collect();
    if pairs.len() > PARAMETERS_MAX {
        return None;
    }
    let pair = |pair: &[u8]| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = unescape(halves.next().unwrap_or_default());
        let value = unescape(halves.next().unwrap_or_default());
        (name.len() <= VALUE_BYTES_MAX && value.len() <= pages_or(&name)).then_some((name, value))
    };
    pairs.into_iter().map(pair).collect()
}

/// A sealed page link holds a whole search.
fn pages_or(name: &str) -> usize {
    if name == "_page" {
        crate::fhir::pages::TOKEN_CHARS_MAX
    } else {
        VALUE_BYTES_MAX
    }
}

fn unescape(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0_usize;
    while let Some(byte) = bytes.get(at) {
        let ahead = bytes
            .get(at.saturating_add(1)..at.saturating_add(3))
            .and_then(|two| hex::decode(two).ok());
        match (byte, ahead.as_deref()) {
            (b'%', Some([value])) => {
                out.push(*value);
                at = at.saturating_add(2);
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at = at.saturating_add(1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Escapes a value for a query or a path segment.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// One parameter's alternatives: a comma separates, a backslash escapes.
fn alternatives(value: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut escaped = false;
    for letter in value.chars() {
        match (escaped, letter, all.last_mut()) {
            (false, '\\', _) => escaped = true,
            (false, ',', _) => all.push(String::new()),
            (_, letter, Some(last)) => {
                escaped = false;
                last.push(letter);
            }
            (_, _, None) => {}
        }
    }
    all.into_iter()
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}

/// A token `system|code`: none for the system means any, an empty one means without system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// System, when a bar was written.
    pub system: Option<String>,
    /// Code or value; empty means any in the system.
    pub code: String,
}

impl Token {
    fn read(text: &str) -> Self {
        match text.split_once('|') {
            Some((system, code)) => Self {
                system: Some(system.to_owned()),
                code: code.to_owned(),
            },
            None => Self {
                system: None,
                code: text.to_owned(),
            },
        }
    }

    /// Whether a coded value is meant.
    #[must_use]
    pub fn is(&self, system: &str, code: &str) -> bool {
        self.system.as_deref().is_none_or(|wanted| wanted == system) && (self.code.is_empty() || self.code == code)
    }
}

/// A range of instants that a date parameter asks for: from inclusive, to exclusive.
pub type Span = (Option<Millis>, Option<Millis>);

impl Search {
    /// The first value of a parameter.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<&str> {
        self.given
            .iter()
            .find(|(given, value)| given == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Every repetition of a parameter (AND) with its alternatives (OR).
    pub fn all(&self, name: &'static str) -> Result<Vec<Vec<String>>, ParameterError> {
        let mut groups = Vec::new();
        for (_, value) in self.given.iter().filter(|(given, _)| given == name) {
            let group = alternatives(value);
            if group.len() > ALTERNATIVES_MAX {
                return Err(ParameterError::Alternatives(name));
            }
            if !group.is_empty() {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    /// Tokens of a parameter.
    pub fn tokens(&self, name: &'static str) -> Result<Vec<Vec<Token>>, ParameterError> {
        Ok(self
            .all(name)?
            .iter()
            .map(|group| group.iter().map(|text| Token::read(text)).collect())
            .collect())
    }

    /// The dates of a parameter; all of them must hold.
    pub fn dates(&self, name: &'static str) -> Result<Vec<Span>, ParameterError> {
        let given = self
            .given
            .iter()
            .filter(|(given, value)| given == name && !value.is_empty());
        given
            .map(|(_, value)| date(value).ok_or(ParameterError::Date(name)))
            .collect()
    }

    /// The patient that the search is about: exactly one.
    pub fn patient(&self) -> Result<PatientSelector, ParameterError> {
        let by_id = self
            .given
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "patient" | "patient:Patient"));
        let by_identifier = self.given.iter().filter(|(name, _)| {
            matches!(
                name.as_str(),
                "patient.identifier" | "patient:identifier" | "patient:Patient.identifier"
            )
        });
        let mut all = by_id
            .map(|(_, value)| selector_by_id(value))
            .chain(by_identifier.map(|(_, value)| selector_by_identifier(value)));
        match (all.next(), all.next()) {
            (Some(Some(selector)), None) => Ok(selector),
            _ => Err(ParameterError::Patient),
        }
    }

    /// Entries of one page.
    pub fn count(&self) -> Result<usize, ParameterError> {
        let Some(text) = self.one("_count") else {
            return Ok(PAGE_ENTRIES_MAX);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number too large for the machine is still a number: the page has its limit anyway.
        if digits {
            Ok(text.parse().unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX))
        } else {
            Err(ParameterError::Number("_count"))
        }
    }

    /// Refuses unknown parameters when strict handling was asked for.
    pub fn check(&self, known: &[(&'static str, &'static str)]) -> Result<(), ParameterError> {
        let unknown = self.given.iter().any(|(name, _)| !is_known(name, known));
        if self.strict && unknown {
            Err(ParameterError::Unknown)
        } else {
            Ok(())
        }
    }

    /// The query of the self link: what was honoured. A posted search shows the names of its personal parameters, not
    /// their values.
    #[must_use]
    pub fn honoured(&self, known: &[(&'static str, &'static str)]) -> String {
        let shown = |(name, value): &(String, String)| {
            let personal = self.posted && !CONTROLS.contains(&name.as_str()) && !is_impersonal(name);
            format!(
                "{}={}",
                escape(name),
                if personal { String::new() } else { escape(value) }
            )
        };
        let honoured = self
            .given
            .iter()
            .filter(|(name, _)| is_known(name, known) && name != "_page");
        honoured.map(shown).collect::<Vec<_>>().join("&")
    }
}

fn is_known(name: &str, known: &[(&'static str, &'static str)]) -> bool {
    let (plain, modifier) = name.split_once(':').unwrap_or((name, ""));
    let declared = known.iter().find(|(declared, _)| *declared == plain);
    CONTROLS.contains(&name)
        || match declared {
            None => {
                matches!(name, "patient:Patient.identifier")
                    && known.iter().any(|(declared, _)| *declared == "patient.identifier")
            }
            Some((_, "string")) => matches!(modifier, "" | "exact" | "contains"),
            Some((_, "reference")) => matches!(modifier, "" | "Patient" | "identifier"),
            Some(_) => modifier.is_empty(),
        }
}

fn is_impersonal(name: &str) -> bool {
    matches!(
        name,
        "status" | "type" | "category" | "format" | "security-label" | "targetCommunityIdList" | "active"
    )
}

fn selector_by_id(value: &str) -> Option<PatientSelector> {
    let id = match relative(value) {
        Some((kind, id)) => (kind == "Patient").then_some(id)?,
        None => value,
    };
    is_id(id).then(|| PatientSelector::Id(id.to_owned()))
}

fn selector_by_identifier(value: &str) -> Option<PatientSelector> {
    let (system, value) = value.split_once('|')?;
    (!system.is_empty() && !value.is_empty()).then(|| PatientSelector::Identifier {
        system: system.to_owned(),
        value: value.to_owned(),
    })
}

/// Reads a date with its prefix (FHIR R4 search.html section 3.1.1.4.5).
fn date(text: &str) -> Option<Span> {
    let (prefix, rest) = match text.get(..2) {
        Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_lowercase()) => (prefix, text.get(2..)?),
        _ => ("eq", text),
    };
    let (first, last) = instant_range(&rest.replace(' ', "+"))?;
    let after = last.plus(1);
    match prefix {
        "eq" => Some((Some(first), Some(after))),
        "ge" => Some((Some(first), None)),
        "gt" | "sa" => Some((Some(after), None)),
        "le" => Some((None, Some(after))),
        "lt" | "eb" => Some((None, Some(first))),
        _ => None,
    }
}

/// Whether an instant lies in all spans.
#[must_use]
pub fn within(at: Millis, spans: &[Span]) -> bool {
    spans
        .iter()
        .all(|(from, to)| from.is_none_or(|from| from <= at) && to.is_none_or(|to| at < to))
}

/// Whether a period overlaps all spans.
#[must_use]
pub fn overlaps(period: (Millis, Millis), spans: &[Span]) -> bool {
    spans
        .iter()
        .all(|(from, to)| from.is_none_or(|from| from <= period.1) && to.is_none_or(|to| period.0 < to))
}

/// The narrowest span that all spans allow.
#[must_use]
pub fn narrowest(spans: &[Span]) -> Span {
    (
        spans.iter().filter_map(|span| span.0).max(),
        spans.iter().filter_map(|span| span.1).min(),
    )
}

#[cfg(test)]
mod tests;
