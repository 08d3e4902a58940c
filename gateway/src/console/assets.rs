//! The style sheet and the script, built into the program.

use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::routes::{Access, Route};

/// The style sheet.
pub const CSS: &str = include_str!("../../assets/console.css");
/// The script.
pub const JS: &str = include_str!("../../assets/console.js");

/// The mark in the browser's tab.
pub const ICON: &str = include_str!("../../assets/icon.svg");

/// Routes of the assets.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::page(Method::GET, "/assets/console.css", Access::Open, css),
        Route::page(Method::GET, "/assets/console.js", Access::Open, js),
        Route::page(Method::GET, "/assets/icon.svg", Access::Open, icon),
    ]
}

async fn css() -> Response {
    asset("text/css; charset=utf-8", CSS)
}

async fn js() -> Response {
    asset("text/javascript; charset=utf-8", JS)
}

async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    // No personal data in here; it may be kept, but is asked for again so that an upgrade shows at once.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}
