//! A document (UX B4): text escaped, FHIR documents as sections, PDF in its own tab, everything else as a download.
//!
//! The law: content from elsewhere never runs, is never interpreted by name, and loads nothing.

use askama::Template;
use axum::body::Body as HttpBody;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hie_gateway_dialect::fhir::clinical::read;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_protocol::message::Demographics;

use crate::clinical::events::document_line;
use crate::clinical::{Source, View, view};
use crate::console::opened::{self, OpenedRecord, is_handle};
use crate::console::page::{Frame, page};
use crate::console::record::Banner;
use crate::console::words;
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::headers::CSP_FOREIGN;
use crate::ports::{Answer, Body, DocumentCard, DocumentRef, OrgState, PortError, SubjectRef};
use crate::respond::{Dialect, Fault, Problem};

/// Largest document that is shown in a page, in bytes; a larger one is a download.
pub const SHOWN_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How a document is shown.
enum Shown {
    /// Escaped text.
    Text(String),
    /// The sections of a FHIR document.
    Sections(Box<View>),
    /// In its own tab.
    Pdf,
    /// As a download only, and why.
    Download(&'static str),
    /// It did not come.
    Missing(String),
}

#[derive(Template)]
#[template(path = "document.html")]
struct DocumentTemplate {
    frame: Frame,
    banner: Banner,
    line: String,
    position: String,
    previous: Option<String>,
    next: Option<String>,
    document: String,
    content_type: String,
    size: String,
    shown: Shown,
    part2: bool,
}

/// What the two handlers of a document need first.
async fn find(
    gate: &Gate,
    signed_in: &SignedIn,
    subject: &str,
    document: &str,
) -> Result<(std::sync::Arc<OpenedRecord>, DocumentCard), Problem> {
    let record = opened::open(gate, signed_in, &SubjectRef(subject.to_owned()), false).await?;
    if !is_handle(document) {
        return Err(Problem::of(gate, Fault::Nothing));
    }
    let document = DocumentRef(document.to_owned());
    // The list may not have come yet, after a restart of this node or a new sign-in: ask the exchange.
    let card = match record.card(&document) {
        Some(card) => card,
        None => {
            let caller = signed_in.caller_about(&record.subject);
            gate.ports
                .records
                .card(&caller, &document)
                .await
                .map_err(|error| Problem::from_port(gate, &error))?
        }
    };
    Ok((record, card))
}

/// GET `/record/{subject}/document/{document}`.
pub async fn show(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path((subject, document)): Path<(String, String)>,
) -> Response {
    let (record, card) = match find(&gate, &signed_in, &subject, &document).await {
        Ok(found) => found,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let caller = signed_in.caller_about(&record.subject);
    let content = gate.ports.records.content(&caller, &card.reference, 0).await;
    let (shown, size, part2) = match content {
        Ok(body) => {
            let size = words::size(body.size);
            let shown = shown(&gate, &record, &card, body).await;
            (shown, size, false)
        }
        Err(error) => (missing(&gate, &record, &card, &error), String::new(), false),
    };
    let status = if matches!(shown, Shown::Missing(_)) {
        axum::http::StatusCode::BAD_GATEWAY
    } else {
        axum::http::StatusCode::OK
    };
    let clock = gate.clock();
    let list = record.documents(&clock);
    let at = list.iter().position(|line| line.document == card.reference);
    let handle = |index: Option<usize>| {
        index
            .and_then(|index| list.get(index))
            .map(|line| line.document.0.clone())
    };
    let template = DocumentTemplate {
        frame: Frame::of(&gate, &signed_in, "/find"),
        banner: Banner::of(&gate, &record),
        line: document_line(&card, &clock).line,
        position: at
            .map(|at| format!("{} of {}", at.saturating_add(1), list.len()))
            .unwrap_or_default(),
        previous: handle(at.and_then(|at| at.checked_sub(1))),
        next: handle(at.map(|at| at.saturating_add(1))),
        document,
        content_type: card.meta.content_type.clone(),
        size,
        shown,
        part2: part2 || record.view(&clock).part2,
    };
    page(status, &template)
}

fn missing(gate: &Gate, record: &OpenedRecord, card: &DocumentCard, error: &PortError) -> Shown {
    let problem = Problem::from_port(gate, error);
    let phone = record
        .phone(&card.reference)
        .map(|phone| format!(" Phone {phone}."))
        .unwrap_or_default();
    Shown::Missing(format!(
        "{} did not send this document (reference {}).{phone}",
        card.org_name, problem.reference
    ))
}

async fn shown(gate: &Gate, record: &OpenedRecord, card: &DocumentCard, body: Body) -> Shown {
    let kind = essence(&card.meta.content_type);
    match kind.as_str() {
        "application/pdf" => return Shown::Pdf,
        "text/plain" | "application/fhir+json" | "application/json" => {}
        _ => {
            return Shown::Download(
                "This format is not shown here. It can be saved and opened with the program it was made for.",
            );
        }
    }
    if body.size > SHOWN_BYTES_MAX {
        return Shown::Download("This document is too large to show here. It can be saved.");
    }
    let bytes = match collect(body).await {
        Ok(bytes) => bytes,
        Err(error) => return missing(gate, record, card, &error),
    };
    if kind == "text/plain" {
        return Shown::Text(String::from_utf8_lossy(&bytes).into_owned());
    }
    match read(&bytes, &Limits::default()) {
        Ok(summary) => {
            let mut source = Source::waiting(0, card.org.clone(), card.org_name.clone());
            source.state = OrgState::Answered;
            source.summary = Some(summary);
            // A document is shown as its source has it: compared with nobody.
            Shown::Sections(Box::new(view(&Demographics::default(), &[source], &gate.clock())))
        }
        Err(_) => Shown::Download("This document could not be read as a summary. It can be saved as it was sent."),
    }
}

async fn collect(mut body: Body) -> Answer<Bytes> {
    let mut all = BytesMut::new();
    while let Some(chunk) = body.stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

/// The MIME type without parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// GET `/record/{subject}/document/{document}/original`: the bytes as they were sent. Only PDF opens in the browser,
/// in its own tab and sandboxed by policy; everything else is a download under a name without personal data.
pub async fn original(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path((subject, document)): Path<(String, String)>,
) -> Response {
    let (record, card) = match find(&gate, &signed_in, &subject, &document).await {
        Ok(found) => found,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let caller = signed_in.caller_about(&record.subject);
    let body = match gate.ports.records.content(&caller, &card.reference, 0).await {
        Ok(body) => body,
        Err(error) => return crate::respond::failed(&gate, Dialect::Page, &error),
    };
    let (kind, name) = match essence(&card.meta.content_type).as_str() {
        "application/pdf" => ("application/pdf", "pdf"),
        "text/plain" => ("text/plain; charset=utf-8", "txt"),
        "application/fhir+json" | "application/json" => ("application/fhir+json", "json"),
        "text/xml" | "application/xml" | "application/hl7-cda+xml" => ("application/octet-stream", "xml"),
        _ => ("application/octet-stream", "bin"),
    };
    let way = if kind == "application/pdf" {
        "inline"
    } else {
        "attachment"
    };
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_LENGTH, body.size.to_string()),
        (CONTENT_DISPOSITION, format!("{way}; filename=\"document.{name}\"")),
        (CONTENT_SECURITY_POLICY, CSP_FOREIGN.to_owned()),
    ];
    let stream = body.stream.map(|chunk| chunk.map_err(std::io::Error::other));
    (headers, HttpBody::from_stream(stream)).into_response()
}
