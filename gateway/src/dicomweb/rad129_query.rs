//! QIDO-RS (PS3.18 section 10.6; RAD-129): studies, series and instances of this archive.
//!
//! The law: an attribute is named by keyword or tag; what is not understood is refused (400) rather than ignored, since
//! an ignored filter widens the answer; when more match than are sent, the answer says so (Warning 299).

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hie_gateway_dialect::dicom::attribute;
use hie_gateway_dialect::dicom::instance::is_uid;
use hie_protocol::refusal::Class;
use serde_json::{Value, json};

use crate::dicomweb::media::takes_json;
use crate::dicomweb::{Below, DICOM_JSON, base};
use crate::fhir::READERS;
use crate::fhir::parameters::decode;
use crate::gate::Gate;
use crate::ports::{Caller, ImagingLevel, ImagingQuery};
use crate::respond::{Dialect, Fault, Problem, failed, refused};
use crate::routes::{Access, Route};

/// Most results of one query.
pub const RESULTS_MAX: usize = 1000;
/// Longest matching value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;

const STUDY: &str = "0020000D";
const SERIES: &str = "0020000E";
const INSTANCE: &str = "00080018";

/// QIDO-RS part of the table of routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    use ImagingLevel::{Instance, Series, Study};
    let levels = [
        ("/dicom-web/studies", Study),
        ("/dicom-web/series", Series),
        ("/dicom-web/instances", Instance),
        ("/dicom-web/studies/{study}/series", Series),
        ("/dicom-web/studies/{study}/instances", Instance),
        ("/dicom-web/studies/{study}/series/{series}/instances", Instance),
    ];
    let route = |(path, level)| {
        let handler = move |gate: State<Gate>, caller: Caller, below: Below, uri: Uri, headers: HeaderMap| {
            search(gate, caller, below, uri, headers, level)
        };
        Route::new(
            Dialect::Dicom,
            Method::GET,
            path,
            "RAD-129",
            Access::Api(READERS),
            handler,
        )
    };
    levels.into_iter().map(route).collect()
}

async fn search(
    State(gate): State<Gate>,
    caller: Caller,
    below: Below,
    uri: Uri,
    headers: HeaderMap,
    level: ImagingLevel,
) -> Response {
    if !takes_json(&headers) {
        return refused(&gate, Dialect::Dicom, Fault::NotAcceptable);
    }
    let asked = match Asked::read(&below, uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(words) => return Problem::with(&gate, Fault::Of(Class::Invalid), words).respond(&gate, Dialect::Dicom),
    };
    match gate.ports.archive.query(&caller, level, asked.query).await {
        Ok((found, more)) => answer(&gate, found, more, asked.fuzzy, level),
        Err(error) => failed(&gate, Dialect::Dicom, &error),
    }
}

/// A query as it was asked.
struct Asked {
    query: ImagingQuery,
    fuzzy: bool,
}

impl Asked {
    fn read(below: &Below, query: &str) -> Result<Self, &'static str> {
        let given = decode(query.as_bytes()).ok_or("At most 64 parameters with values of at most 1024 bytes.")?;
        let mut asked = Self {
            query: ImagingQuery {
                study: below.study.clone(),
                series: below.series.clone(),
                instance: below.instance.clone(),
                limit: RESULTS_MAX,
                ..ImagingQuery::default()
            },
            fuzzy: false,
        };
        for (name, value) in given {
            asked.parameter(&name, value)?;
        }
        Ok(asked)
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "limit" => self.query.limit = number(&value).ok_or("limit is a whole number.")?.min(RESULTS_MAX),
            "offset" => self.query.offset = number(&value).ok_or("offset is a whole number.")?,
            "fuzzymatching" => self.fuzzy = value.eq_ignore_ascii_case("true"),
            "includefield" => {
                for field in value.split(',').map(str::trim).filter(|field| !field.is_empty()) {
                    let field = if field == "all" {
                        Some(field.to_owned())
                    } else {
                        path(field)
                    };
                    self.query
                        .include
                        .push(field.ok_or("includefield names an attribute that is not known.")?);
                }
            }
            // Some clients send the format as a parameter; the answer is JSON in any case.
            "accept" | "_format" => {}
            _ => self.matching(name, value)?,
        }
        Ok(())
    }

    fn matching(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        let tag = path(name).ok_or("A parameter names an attribute that is not known: use a DICOM keyword or tag.")?;
        if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err("A matching value is too long or holds control characters.");
        }
        if value.is_empty() {
            // Universal matching: the attribute is wanted back.
            self.query.include.push(tag);
            return Ok(());
        }
        let slot = match tag.as_str() {
            STUDY => Some(&mut self.query.study),
            SERIES => Some(&mut self.query.series),
            INSTANCE => Some(&mut self.query.instance),
            _ => None,
        };
        match slot {
            Some(slot @ None) if is_uid(&value) => *slot = Some(value),
            Some(Some(fixed)) if *fixed == value => {}
            _ => self.query.matching.push((tag, value)),
        }
        Ok(())
    }
}

/// A tag, or tags joined by dots for an attribute inside a sequence.
fn path(name: &str) -> Option<String> {
    let tags: Option<Vec<String>> = name.split('.').take(8).map(attribute::tag).collect();
    tags.map(|tags| tags.join("."))
}

fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

fn answer(gate: &Gate, mut found: Vec<Value>, more: bool, fuzzy: bool, level: ImagingLevel) -> Response {
    let base = base(gate);
    found.iter_mut().for_each(|object| link(object, &base, level));
    let mut response = if found.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (
            StatusCode::OK,
            [(CONTENT_TYPE, DICOM_JSON)],
            Value::Array(found).to_string(),
        )
            .into_response()
    };
    let mut warn = |words: &str| {
        if let Ok(value) = HeaderValue::try_from(format!("299 hie \"{words}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    };
    if more {
        warn("There are additional results that can be requested");
    }
    if fuzzy {
        warn("The fuzzymatching parameter is not supported. Only literal matching has been performed.");
    }
    response
}

/// Adds the Retrieve URL (0008,1190).
fn link(object: &mut Value, base: &str, level: ImagingLevel) {
    let uid = |tag: &str| {
        object
            .get(tag)
            .and_then(|element| element.pointer("/Value/0"))
            .and_then(Value::as_str)
            .filter(|uid| is_uid(uid))
    };
    let study = uid(STUDY).map(|study| format!("{base}/studies/{study}"));
    let url = match level {
        ImagingLevel::Study => study,
        ImagingLevel::Series => study
            .zip(uid(SERIES))
            .map(|(study, series)| format!("{study}/series/{series}")),
        ImagingLevel::Instance => {
            let series = study
                .zip(uid(SERIES))
                .map(|(study, series)| format!("{study}/series/{series}"));
            series
                .zip(uid(INSTANCE))
                .map(|(series, instance)| format!("{series}/instances/{instance}"))
        }
    };
    if let (Some(url), Some(map)) = (url, object.as_object_mut()) {
        map.insert("00081190".to_owned(), json!({ "vr": "UR", "Value": [url] }));
    }
}
