//! The headers that every response carries (UX D): a handler may set its own value, never leave one out.

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::gate::Gate;

/// Content Security Policy of the console.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types hie";
/// Content Security Policy of content that came from elsewhere: it may do nothing at all.
pub const CSP_FOREIGN: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";
/// HSTS: one year.
pub const HSTS: &str = "max-age=31536000; includeSubDomains";

const PERMISSIONS: &str = "camera=(), microphone=(), geolocation=(), payment=(), usb=()";

/// Adds what is missing.
pub async fn secure(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    keep(headers, CONTENT_SECURITY_POLICY, CSP);
    keep(headers, CACHE_CONTROL, "no-store");
    keep(headers, REFERRER_POLICY, "no-referrer");
    keep(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    keep(headers, X_FRAME_OPTIONS, "DENY");
    keep(
        headers,
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    keep(
        headers,
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    keep(headers, HeaderName::from_static("permissions-policy"), PERMISSIONS);
    if gate.settings.secure {
        keep(headers, STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

fn keep(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}
