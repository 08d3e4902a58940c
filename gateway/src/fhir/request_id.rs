//! `X-Request-Id` comes back as it was sent (FHIR R4 http.html section 3.1.0.1.5), so that a caller can pair its log with ours.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

/// Longest request id that is passed through, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Its header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Copies the request's id to its answer; an id with other characters than letters, digits, `-`, `_`, `.` or `:` is left out.
pub async fn pass(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_plain(id)).cloned();
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}
