//! ITI-68 Retrieve Document (MHD 4.2, 2:3.68): the content behind `attachment.url`, streamed from wherever it is held.
//!
//! The law: bytes pass through, never gathered; their SHA-256 is checked as they pass and a mismatch cuts the answer
//! short; unknown and forbidden look alike; a foreign document can do nothing in a browser.

use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use hie_protocol::id::ContentHash;

use crate::fhir::negotiate::{accepts, essence, text};
use crate::gate::Gate;
use crate::headers::CSP_FOREIGN;
use crate::mhd::range::Asked;
use crate::ports::{Answer, Body, Caller, DocumentRef};
use crate::respond::{Dialect, Fault, failed, refused};

/// Digest of the whole content (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// Its older form (RFC 3230).
const DIGEST: HeaderName = HeaderName::from_static("digest");

/// Retrieves.
pub async fn retrieve(
    State(gate): State<Gate>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match content(&gate, &caller, &DocumentRef(id), &headers).await {
        Ok(response) | Err(response) => response,
    }
}

async fn content(
    gate: &Gate,
    caller: &Caller,
    document: &DocumentRef,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let fail = |error: &_| failed(gate, Dialect::Fhir, error);
    // What it is comes first: nothing is disclosed for an answer that would be 304, 406 or 416.
    let card = gate
        .ports
        .records
        .card(caller, document)
        .await
        .map_err(|error| fail(&error))?;
    let kind = essence(&card.meta.content_type);
    if !accepts(headers, |range| takes(range, &kind)) {
        return Err(refused(gate, Dialect::Fhir, Fault::NotAcceptable));
    }
    let tag = card.meta.hash.as_ref().map(entity_tag);
    if let (Some(tag), Some(known)) = (&tag, text(headers, &IF_NONE_MATCH))
        && known
            .split(',')
            .any(|known| known.trim().trim_start_matches("W/") == tag)
    {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, header(tag))]).into_response());
    }
    let asked = text(headers, &RANGE).and_then(Asked::parse);
    let same = text(headers, &IF_RANGE).is_none_or(|known| tag.as_deref() == Some(known));
    let part = match (asked.filter(|_| same), card.meta.size) {
        (Some(asked), Some(size)) => Some(asked.within(size).ok_or_else(|| outside(gate, size))?),
        _ => None,
    };
    let from = part.map_or(0, |(first, _)| first);
    let body = gate
        .ports
        .records
        .content(caller, document, from)
        .await
        .map_err(|error| fail(&error))?;
    Ok(answer(body, part))
}

fn takes(range: &str, kind: &str) -> bool {
    let range = essence(range);
    let family = kind.split('/').next().unwrap_or_default();
    range == "*/*" || range == kind || range.strip_suffix("/*").is_some_and(|wanted| wanted == family)
}

fn outside(gate: &Gate, size: u64) -> Response {
    let mut response = refused(gate, Dialect::Fhir, Fault::Range);
    response
        .headers_mut()
        .insert(CONTENT_RANGE, header(&format!("bytes */{size}")));
    response
}

fn answer(body: Body, part: Option<(u64, u64)>) -> Response {
    let digest = STANDARD.encode(body.hash.as_bytes());
    let length = part.map_or(body.size, |(_, length)| length);
    let status = if part.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let stream = axum::body::Body::from_stream(exactly(body.stream, length));
    let mut response = (status, stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header(&body.content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, header(&entity_tag(&body.hash)));
    headers.insert(DIGEST, header(&format!("sha-256={digest}")));
    headers.insert(REPR_DIGEST, header(&format!("sha-256=:{digest}:")));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP_FOREIGN));
    if let Some((first, length)) = part {
        let last = first.saturating_add(length).saturating_sub(1);
        headers.insert(CONTENT_RANGE, header(&format!("bytes {first}-{last}/{}", body.size)));
    }
    response
}

/// The first `length` bytes of a stream; an error, or an end before them, breaks the answer off.
pub fn exactly(
    stream: BoxStream<'static, Answer<Bytes>>,
    length: u64,
) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
    async_stream::stream! {
        let mut stream = stream;
        let mut left = length;
        while left > 0 {
            match stream.next().await {
                Some(Ok(bytes)) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    left = left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
                    yield Ok(bytes.slice(..take));
                }
                Some(Err(error)) => {
                    tracing::warn!(class = ?error.class, what = error.what, "a document broke off");
                    yield Err(std::io::Error::other("the content broke off"));
                    return;
                }
                None => {
                    yield Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the content ended early"));
                    return;
                }
            }
        }
        // The last chunk is behind the hash check: the stream is asked for its end, and an error there still counts.
        if let Some(Err(error)) = stream.next().await {
            tracing::warn!(class = ?error.class, what = error.what, "a document did not verify");
            yield Err(std::io::Error::other("the content did not verify"));
        }
    }
    .boxed()
}

fn entity_tag(hash: &ContentHash) -> String {
    format!("\"sha-256-{}\"", hash.to_hex())
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}
