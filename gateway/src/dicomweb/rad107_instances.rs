//! WADO-RS Retrieve Instances (PS3.18 section 10.4.1.1.1; RAD-107): a study, a series or one instance as stored.

use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;

use crate::dicomweb::media::{Media, accepted};
use crate::dicomweb::multipart::{self, Part};
use crate::dicomweb::{Below, base, instance_url};
use crate::gate::Gate;
use crate::mhd::iti68_retrieve_document::exactly;
use crate::ports::{Answer, Body, Caller, InstanceContent};
use crate::respond::{Dialect, Fault, failed, refused};

/// MIME type of an instance.
pub const DICOM: &str = "application/dicom";

/// Retrieves.
pub async fn retrieve(State(gate): State<Gate>, caller: Caller, below: Below, headers: HeaderMap) -> Response {
    match instances(&gate, &caller, &below, &headers).await {
        Ok(response) | Err(response) => response,
    }
}

async fn instances(gate: &Gate, caller: &Caller, below: &Below, headers: &HeaderMap) -> Result<Response, Response> {
    let media = accepted(headers);
    let single = |media: &Media| media.essence == DICOM && below.instance.is_some();
    let refuse = || refused(gate, Dialect::Dicom, Fault::NotAcceptable);
    if !media.iter().any(|media| media.takes_parts(DICOM) || single(media)) {
        return Err(refuse());
    }
    let found = below.instances(gate, caller).await?;
    let fits = |media: &&Media| {
        found
            .iter()
            .all(|instance| media.takes_syntax(&instance.transfer_syntax))
    };
    let chosen = media
        .iter()
        .filter(|media| media.takes_parts(DICOM) || single(media))
        .find(fits)
        .ok_or_else(refuse)?;
    // The first instance is opened before the answer starts: its failure is still a status.
    let mut rest = found.into_iter();
    let first = rest
        .next()
        .ok_or_else(|| refused(gate, Dialect::Dicom, Fault::Nothing))?;
    let body = (first.read)()
        .await
        .map_err(|error| failed(gate, Dialect::Dicom, &error))?;
    if single(chosen) {
        return Ok(alone(&first, body));
    }
    let base = base(gate);
    let parts = async_stream::stream! {
        yield Ok(part(&base, &first, body));
        for instance in rest {
            let body: Answer<Body> = (instance.read)().await;
            yield body.map(|body| part(&base, &instance, body));
        }
    };
    Ok(multipart::send(gate, DICOM, parts))
}

fn part(base: &str, instance: &InstanceContent, body: Body) -> Part {
    Part {
        content_type: format!("{DICOM}; transfer-syntax={}", instance.transfer_syntax),
        location: Some(instance_url(
            base,
            &instance.study,
            &instance.series,
            &instance.instance,
        )),
        body,
    }
}

fn alone(instance: &InstanceContent, body: Body) -> Response {
    let length = body.size;
    let stream = axum::body::Body::from_stream(exactly(body.stream, length));
    let mut response = (StatusCode::OK, stream).into_response();
    let kind = format!("{DICOM}; transfer-syntax={}", instance.transfer_syntax);
    let kind = HeaderValue::try_from(kind).unwrap_or_else(|_| HeaderValue::from_static(DICOM));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Bytes at hand as a part's body.
#[must_use]
pub fn at_hand(bytes: bytes::Bytes) -> Body {
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let hash = hie_protocol::id::ContentHash::from_slice(digest.as_ref())
        .unwrap_or(hie_protocol::id::ContentHash::new([0; 32]));
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Body {
        content_type: "application/octet-stream".to_owned(),
        size,
        hash,
        stream: Box::pin(stream::iter([Ok(bytes)])),
    }
}
