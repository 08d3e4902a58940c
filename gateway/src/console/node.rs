//! This node (UX B9): red things first, in sentences with the fix; and the probes of a supervisor.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::console::page::{Frame, ok};
use crate::console::words;
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::ports::Health;

#[derive(Template)]
#[template(path = "node.html")]
struct NodeTemplate {
    frame: Frame,
    health: Health,
    certificate: String,
    reachable: usize,
}

/// GET `/node`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn) -> Response {
    let health = gate.ports.node.health().await;
    let certificate = health.certificate_until.map_or_else(
        || "not recorded".to_owned(),
        |at| words::day(at, gate.settings.utc_offset_minutes),
    );
    let reachable = health.peers.iter().filter(|(_, reachable, _)| *reachable).count();
    ok(&NodeTemplate {
        frame: Frame::of(&gate, &signed_in, "/node"),
        health,
        certificate,
        reachable,
    })
}

/// GET `/livez`: the process answers.
pub async fn live() -> Response {
    plain(StatusCode::OK, "alive\n")
}

/// GET `/readyz`: the node can serve.
pub async fn ready(State(gate): State<Gate>) -> Response {
    if gate.ports.node.health().await.ready {
        plain(StatusCode::OK, "ready\n")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

fn plain(status: StatusCode, words: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], words).into_response()
}
