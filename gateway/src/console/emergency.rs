//! Emergency access (UX B3): one person, one patient, for the region's minutes; fails closed.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use hie_protocol::claim::{BreakGlass, BreakGlassReason, CLAIM_TEXT_CHARS_MAX};
use hie_protocol::id::Millis;

use crate::console::opened;
use crate::console::page::{Frame, page};
use crate::console::record::Banner;
use crate::gate::Gate;
use crate::guard::{Fields, SignedIn};
use crate::ports::SubjectRef;
use crate::respond::Dialect;
use crate::session::Emergency;

#[derive(Template)]
#[template(path = "emergency.html")]
struct EmergencyTemplate {
    frame: Frame,
    banner: Banner,
    minutes: u64,
    reason: String,
    words: String,
    problem: &'static str,
}

/// What the form says: the fields as they were sent, and what is wrong with them.
#[derive(Default)]
struct Said {
    reason: String,
    words: String,
    problem: &'static str,
}

const FAILED: &str = "The reason could not be saved. Nothing was opened. Try again.";

/// GET `/record/{subject}/emergency`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    form(&gate, &signed_in, &SubjectRef(subject), StatusCode::OK, Said::default()).await
}

/// POST `/record/{subject}/emergency`. The record opens only when the declaration has been taken by the exchange;
/// otherwise nothing changes.
pub async fn submit(
    State(gate): State<Gate>,
    mut signed_in: SignedIn,
    Path(subject): Path<String>,
    fields: Fields,
) -> Response {
    let subject = SubjectRef(subject);
    let mut said = Said {
        reason: fields.one("reason").unwrap_or_default().to_owned(),
        words: fields.one("words").unwrap_or_default().to_owned(),
        problem: "",
    };
    let now = gate.now();
    let declared = match declaration(&said, now) {
        Ok(declared) => declared,
        Err(problem) => {
            said.problem = problem;
            return form(&gate, &signed_in, &subject, StatusCode::BAD_REQUEST, said).await;
        }
    };
    said.problem = FAILED;
    let session = signed_in.session.id;
    let emergency = Emergency {
        declared,
        ends: now.plus(gate.settings.emergency_minutes.saturating_mul(60_000)),
    };
    if !gate.sessions.declare(session, subject.clone(), emergency.clone(), now) {
        return form(&gate, &signed_in, &subject, StatusCode::SERVICE_UNAVAILABLE, said).await;
    }
    signed_in.session.declare(subject.clone(), emergency);
    match opened::open(&gate, &signed_in, &subject, true).await {
        Ok(_) => Redirect::to(&format!("/record/{}", subject.0)).into_response(),
        Err(problem) => {
            gate.sessions.withdraw(session, &subject);
            signed_in.session.withdraw(&subject);
            tracing::warn!(reference = problem.reference, "emergency access was not opened");
            form(&gate, &signed_in, &subject, problem.fault.status(), said).await
        }
    }
}

/// Reads the declaration, or says what is missing.
fn declaration(said: &Said, now: Millis) -> Result<BreakGlass, &'static str> {
    let reason = match said.reason.as_str() {
        "life-at-risk" => BreakGlassReason::LifeAtRisk,
        "care-now" => BreakGlassReason::CareNow,
        "risk-to-others" => BreakGlassReason::RiskToOthers,
        _ => return Err("Choose why."),
    };
    if said.words.is_empty() || said.words.chars().count() > CLAIM_TEXT_CHARS_MAX {
        return Err("Write a few words.");
    }
    Ok(BreakGlass {
        reason,
        words: said.words.clone(),
        declared: now,
    })
}

async fn form(gate: &Gate, signed_in: &SignedIn, subject: &SubjectRef, status: StatusCode, said: Said) -> Response {
    match opened::open(gate, signed_in, subject, false).await {
        Ok(record) => page(
            status,
            &EmergencyTemplate {
                frame: Frame::of(gate, signed_in, "/find"),
                banner: Banner::of(gate, &record),
                minutes: gate.settings.emergency_minutes,
                reason: said.reason,
                words: said.words,
                problem: said.problem,
            },
        ),
        Err(failure) => failure.respond(gate, Dialect::Page),
    }
}
