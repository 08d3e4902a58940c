//! STOW-RS Store Instances (PS3.18 section 10.5; RAD-108).
//!
//! The law: one instance stands in memory at a time, whatever the size of the body; each is durable before the next is
//! read; the answer names every instance with its fate, also when the body breaks off half way.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use hie_gateway_dialect::multipart::{Event, Headers, MultipartType, PARTS_MAX, Parts};
use hie_protocol::refusal::Class;
use serde_json::{Map, Value, json};

use crate::dicomweb::media::takes_json;
use crate::dicomweb::{Below, DICOM_JSON, INSTANCE_BYTES_MAX, base};
use crate::fhir::negotiate::{essence, text};
use crate::gate::Gate;
use crate::ports::{Caller, PortError, StoredInstance};
use crate::respond::{Dialect, Fault, Problem, refused};

/// Largest body, in bytes.
pub const STORE_BYTES_MAX: usize = 64 * 1024 * 1024 * 1024;
/// Time for a whole body.
pub const STORE_DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
/// Longest time without a byte of the body.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Failure reasons (PS3.18 table I.2-2): refused for lack of resources.
const NO_RESOURCES: u16 = 0xA700;
/// Not understood.
const NOT_UNDERSTOOD: u16 = 0xC000;
/// Longest Error Comment (value representation LO), in characters.
const COMMENT_CHARS_MAX: usize = 64;
/// Processing failure.
const FAILED: u16 = 0x0110;
/// Not authorised.
const NOT_AUTHORISED: u16 = 0x0124;

/// Stores.
pub async fn store(State(gate): State<Gate>, caller: Caller, below: Below, headers: HeaderMap, body: Body) -> Response {
    match take(&gate, &caller, &below, &headers, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn take(
    gate: &Gate,
    caller: &Caller,
    below: &Below,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let bad = |words: &str| Problem::with(gate, Fault::Of(Class::Invalid), words).respond(gate, Dialect::Dicom);
    let content_type = text(headers, &CONTENT_TYPE).unwrap_or_default();
    if essence(content_type) != "multipart/related" {
        return Err(refused(gate, Dialect::Dicom, Fault::MediaType));
    }
    if !takes_json(headers) {
        return Err(refused(gate, Dialect::Dicom, Fault::NotAcceptable));
    }
    let kind = MultipartType::parse(content_type).map_err(|error| bad(&error.to_string()))?;
    if kind
        .root
        .as_deref()
        .is_some_and(|root| essence(root) != "application/dicom")
    {
        return Err(refused(gate, Dialect::Dicom, Fault::MediaType));
    }
    let parts = Parts::new(&kind.boundary, PARTS_MAX).map_err(|error| bad(&error.to_string()))?;
    let mut intake = Intake {
        gate,
        caller,
        study: below.study.clone(),
        part: None,
        stored: Vec::new(),
    };
    match intake.read(parts, body).await {
        Err(words) if intake.stored.is_empty() => Err(bad(&words)),
        Ok(()) if intake.stored.is_empty() => Err(bad("The body has no instance.")),
        outcome => Ok(answer(gate, &intake.stored, outcome.err().as_deref())),
    }
}

/// The part in hand.
struct InHand {
    bytes: Vec<u8>,
    /// Why it is not stored, when that is clear before its end.
    failure: Option<(u16, &'static str)>,
}

struct Intake<'a> {
    gate: &'a Gate,
    caller: &'a Caller,
    study: Option<String>,
    part: Option<InHand>,
    stored: Vec<StoredInstance>,
}

impl Intake<'_> {
    /// Reads the body to its end. Errors: words of what is wrong with it; what came before is stored.
    async fn read(&mut self, mut parts: Parts, body: Body) -> Result<(), String> {
        let mut stream = body.into_data_stream();
        let mut total = 0_usize;
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, stream.next()).await;
            let Some(chunk) = next.map_err(|_| "The body stopped arriving. Send it again.".to_owned())? else {
                break;
            };
            let chunk = chunk.map_err(|_| "The body broke off. Send it again.".to_owned())?;
            total = total.saturating_add(chunk.len());
            if total > STORE_BYTES_MAX {
                return Err("The body is larger than what is taken here: send fewer instances at a time.".to_owned());
            }
            for event in parts.push(&chunk).map_err(|error| error.to_string())? {
                self.event(event).await;
            }
        }
        parts.finish().map_err(|error| error.to_string())
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::PartStart(headers) => {
                self.part = Some(InHand {
                    bytes: Vec::new(),
                    failure: wrong_type(&headers),
                })
            }
            Event::Data(bytes) => {
                let Some(part) = &mut self.part else { return };
                if part.failure.is_none() && part.bytes.len().saturating_add(bytes.len()) > INSTANCE_BYTES_MAX {
                    part.failure = Some((NO_RESOURCES, "the instance is larger than 512 MiB"));
                    part.bytes = Vec::new();
                }
                if part.failure.is_none() {
                    part.bytes.extend_from_slice(&bytes);
                }
            }
            Event::PartEnd => {
                let Some(part) = self.part.take() else { return };
                let stored = self.keep(part).await;
                self.stored.push(stored);
            }
        }
    }

    async fn keep(&self, part: InHand) -> StoredInstance {
        let fate = match part.failure {
            Some((reason, words)) => Err((reason, words.to_owned())),
            None => {
                let stored = self
                    .gate
                    .ports
                    .archive
                    .store(self.caller, self.study.clone(), Bytes::from(part.bytes))
                    .await;
                stored.map_err(|error| reason(&error))
            }
        };
        fate.unwrap_or_else(|failure| StoredInstance {
            sop_class: String::new(),
            sop_instance: String::new(),
            study: self.study.clone().unwrap_or_default(),
            failure: Some(failure),
        })
    }
}

fn wrong_type(headers: &Headers) -> Option<(u16, &'static str)> {
    let dicom = headers
        .content_type()
        .is_none_or(|kind| essence(kind) == "application/dicom");
    (!dicom).then_some((NOT_UNDERSTOOD, "the part is not application/dicom"))
}

fn reason(error: &PortError) -> (u16, String) {
    tracing::info!(class = ?error.class, what = error.what, "an instance was not stored");
    match error.class {
        Class::Invalid => (NOT_UNDERSTOOD, error.what.clone()),
        Class::Refused => (NOT_AUTHORISED, "not authorised".to_owned()),
        Class::Unavailable => (NO_RESOURCES, error.what.clone()),
        Class::Misbehaved | Class::Broken => (FAILED, "it could not be stored".to_owned()),
    }
}

/// An attribute with one value in DICOM JSON.
fn of(key: &str, vr: &str, value: Value) -> (String, Value) {
    (key.to_owned(), json!({ "vr": vr, "Value": [value] }))
}

/// Referenced SOP Class and Instance UID.
fn named(instance: &StoredInstance) -> Map<String, Value> {
    [
        of("00081150", "UI", instance.sop_class.clone().into()),
        of("00081155", "UI", instance.sop_instance.clone().into()),
    ]
    .into_iter()
    .collect()
}

/// Failure Reason and Error Comment.
fn failure(reason: u16, words: &str) -> [(String, Value); 2] {
    let comment = words.chars().take(COMMENT_CHARS_MAX).collect::<String>();
    [
        of("00081197", "US", reason.into()),
        of("00000902", "LO", comment.into()),
    ]
}

/// The Store Instances Response Module (PS3.18 annex I) as DICOM JSON.
fn answer(gate: &Gate, stored: &[StoredInstance], broken_off: Option<&str>) -> Response {
    let base = base(gate);
    let sequence = |items: Vec<Value>| json!({ "vr": "SQ", "Value": items });
    let (mut kept, mut failed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for instance in stored {
        match &instance.failure {
            None => {
                let mut item = named(instance);
                // The series is not told here; QIDO-RS finds the instance below its study.
                item.extend([of(
                    "00081190",
                    "UR",
                    format!("{base}/studies/{}", instance.study).into(),
                )]);
                kept.push(Value::Object(item));
            }
            Some((reason, words)) => {
                let mut item = if instance.sop_instance.is_empty() {
                    Map::new()
                } else {
                    named(instance)
                };
                item.extend(failure(*reason, words));
                if instance.sop_instance.is_empty() {
                    others.push(Value::Object(item))
                } else {
                    failed.push(Value::Object(item))
                }
            }
        }
    }
    if let Some(words) = broken_off {
        others.push(Value::Object(failure(NOT_UNDERSTOOD, words).into_iter().collect()));
    }
    let whole = failed.is_empty() && others.is_empty();
    let status = match (kept.is_empty(), whole) {
        (false, true) => StatusCode::OK,
        (false, false) => StatusCode::ACCEPTED,
        (true, _) => StatusCode::CONFLICT,
    };
    let study = stored
        .iter()
        .find(|instance| instance.failure.is_none())
        .map(|instance| instance.study.clone());
    let mut answer = Map::new();
    answer.extend(study.map(|study| of("00081190", "UR", format!("{base}/studies/{study}").into())));
    for (key, items) in [("00081198", failed), ("00081199", kept), ("0008119A", others)] {
        if !items.is_empty() {
            answer.insert(key.to_owned(), sequence(items));
        }
    }
    (status, [(CONTENT_TYPE, DICOM_JSON)], Value::Object(answer).to_string()).into_response()
}
