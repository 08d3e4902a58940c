//! Answers in `multipart/related` that stream.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use hie_gateway_dialect::multipart::Writer;

use crate::gate::Gate;
use crate::mhd::iti68_retrieve_document::exactly;
use crate::ports::{Answer, Body};
use crate::respond::{Dialect, Fault, refused};

/// One part: its headers and its bytes.
pub struct Part {
    /// Content-Type.
    pub content_type: String,
    /// Content-Location.
    pub location: Option<String>,
    /// Bytes.
    pub body: Body,
}

/// Sends parts one after the other; a part that fails breaks the answer off, so that no half answer looks whole.
pub fn send(gate: &Gate, root: &str, parts: impl Stream<Item = Answer<Part>> + Send + 'static) -> Response {
    // 256 random bits: no content holds it but by design of whoever knows it beforehand.
    let boundary = hex::encode(gate.ports.node.random());
    let Ok(mut writer) = Writer::new(&boundary) else {
        return refused(gate, Dialect::Dicom, Fault::Of(hie_protocol::refusal::Class::Broken));
    };
    let content_type = writer.content_type(root);
    let stream = async_stream::stream! {
        let mut parts = Box::pin(parts);
        while let Some(part) = parts.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    tracing::warn!(class = ?error.class, what = error.what, "a multipart answer broke off");
                    yield Err(std::io::Error::other("a part could not be read"));
                    return;
                }
            };
            let length = part.body.size.to_string();
            let mut headers = vec![("Content-Type", part.content_type.as_str()), ("Content-Length", length.as_str())];
            headers.extend(part.location.as_deref().map(|location| ("Content-Location", location)));
            yield Ok(Bytes::from(writer.start(&headers)));
            let mut content = exactly(part.body.stream, part.body.size);
            while let Some(chunk) = content.next().await {
                let failed = chunk.is_err();
                yield chunk;
                if failed {
                    return;
                }
            }
        }
        yield Ok::<Bytes, std::io::Error>(Bytes::from(writer.finish()));
    };
    let mut response = (StatusCode::OK, axum::body::Body::from_stream(stream)).into_response();
    if let Ok(value) = HeaderValue::try_from(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}
