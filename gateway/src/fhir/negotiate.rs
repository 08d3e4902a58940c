//! Which formats a caller takes and sends: JSON only, said plainly (406 and 415).

use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use crate::fhir::parameters;
use crate::gate::Gate;
use crate::respond::{Dialect, Fault, Problem};

/// Most bytes of an `Accept` header that are read.
pub const ACCEPT_BYTES_MAX: usize = 4096;
/// Words of a 406.
pub const JSON_ONLY: &str = "This server speaks JSON only: accept application/fhir+json.";

/// Proof that the caller takes FHIR JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl FromRequestParts<Gate> for Json {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gate: &Gate) -> Result<Self, Response> {
        let query = parameters::decode(parts.uri.query().unwrap_or_default().as_bytes());
        let format = query
            .iter()
            .flatten()
            .find(|(name, _)| name == "_format")
            .map(|(_, value)| value.as_str());
        Self::check(gate, &parts.headers, format)
    }
}

impl Json {
    /// Checks `_format`, which wins, and `Accept`.
    #[expect(clippy::result_large_err, reason = "axum's rejection is a response")]
    pub fn check(gate: &Gate, headers: &HeaderMap, format: Option<&str>) -> Result<Self, Response> {
        let json = match format {
            // A plus that was not escaped reads as a space.
            Some(format) => is_json(&format.replace(' ', "+")),
            None => accepts(headers, is_json),
        };
        if json {
            Ok(Self)
        } else {
            Err(Problem::with(gate, Fault::NotAcceptable, JSON_ONLY).respond(gate, Dialect::Fhir))
        }
    }
}

/// Whether a MIME type, or the short form of `_format`, is FHIR JSON.
#[must_use]
pub fn is_json(text: &str) -> bool {
    let essence = essence(text);
    matches!(
        essence.as_str(),
        "json"
            | "application/json"
            | "application/fhir+json"
            | "text/json"
            | "application/json+fhir"
            | "application/*"
            | "*/*"
    )
}

/// The type and subtype of a MIME type in lower case, without parameters.
#[must_use]
pub fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The media ranges of `Accept` in order, those with `q=0` left out; none when there is no header.
#[must_use]
pub fn ranges(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    values.peek()?;
    let text: String = values
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",");
    let ranges = split_outside_quotes(text.get(..text.len().min(ACCEPT_BYTES_MAX)).unwrap_or_default());
    let wanted = |range: &String| {
        let quality = range
            .split(';')
            .filter_map(|part| part.trim().strip_prefix("q="))
            .next();
        quality.is_none_or(|quality| quality.trim().parse::<f32>().is_ok_and(|quality| quality > 0.0))
    };
    Some(ranges.into_iter().filter(wanted).collect())
}

/// Whether one of the media ranges passes; no header accepts everything.
pub fn accepts(headers: &HeaderMap, passes: impl Fn(&str) -> bool) -> bool {
    ranges(headers).is_none_or(|ranges| ranges.iter().any(|range| passes(range)))
}

fn split_outside_quotes(text: &str) -> Vec<String> {
    let mut ranges = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        quoted ^= letter == '"';
        match ranges.last_mut() {
            Some(last) if letter != ',' || quoted => last.push(letter),
            _ => ranges.push(String::new()),
        }
    }
    ranges
        .into_iter()
        .map(|range| range.trim().to_owned())
        .filter(|range| !range.is_empty())
        .collect()
}

/// The essence of the body's type.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> String {
    essence(text(headers, &CONTENT_TYPE).unwrap_or_default())
}

/// A header as text.
#[must_use]
pub fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
