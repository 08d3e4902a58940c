//! Emergency access (UX B3): one person, one patient, for the region's minutes; fails closed.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use hie_protocol::claim::{BreakGlass, BreakGlassReason, CLAIM_TEXT_CHARS_MAX};

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

/// GET `/record/{subject}/emergency`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    form(&gate, &signed_in, &SubjectRef(subject), StatusCode::OK, "", "", "").await
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
    let (code, words) = (
        fields.one("reason").unwrap_or_default().to_owned(),
        fields.one("words").unwrap_or_default().to_owned(),
    );
    let reason = match code.as_str() {
        "life-at-risk" => BreakGlassReason::LifeAtRisk,
        "care-now" => BreakGlassReason::CareNow,
        "risk-to-others" => BreakGlassReason::RiskToOthers,
        _ => {
            return form(
                &gate,
                &signed_in,
                &subject,
                StatusCode::BAD_REQUEST,
                &code,
                &words,
                "Choose why.",
            )
            .await;
        }
    };
    if words.is_empty() || words.chars().count() > CLAIM_TEXT_CHARS_MAX {
        return form(
            &gate,
            &signed_in,
            &subject,
            StatusCode::BAD_REQUEST,
            &code,
            &words,
            "Write a few words.",
        )
        .await;
    }
    let now = gate.now();
    let session = signed_in.session.id;
    let declared = BreakGlass {
        reason,
        words: words.clone(),
        declared: now,
    };
    let ends = now.plus(gate.settings.emergency_minutes.saturating_mul(60_000));
    const FAILED: &str = "The reason could not be saved. Nothing was opened. Try again.";
    if !gate.sessions.declare(
        session,
        subject.clone(),
        Emergency {
            declared: declared.clone(),
            ends,
        },
        now,
    ) {
        return form(
            &gate,
            &signed_in,
            &subject,
            StatusCode::SERVICE_UNAVAILABLE,
            &code,
            &words,
            FAILED,
        )
        .await;
    }
    signed_in.session.declare(subject.clone(), Emergency { declared, ends });
    match opened::open(&gate, &signed_in, &subject, true).await {
        Ok(_) => Redirect::to(&format!("/record/{}", subject.0)).into_response(),
        Err(problem) => {
            gate.sessions.withdraw(session, &subject);
            signed_in.session.withdraw(&subject);
            tracing::warn!(reference = problem.reference, "emergency access was not opened");
            form(
                &gate,
                &signed_in,
                &subject,
                problem.fault.status(),
                &code,
                &words,
                FAILED,
            )
            .await
        }
    }
}

async fn form(
    gate: &Gate,
    signed_in: &SignedIn,
    subject: &SubjectRef,
    status: StatusCode,
    reason: &str,
    words: &str,
    problem: &'static str,
) -> Response {
    match opened::open(gate, signed_in, subject, false).await {
        Ok(record) => page(
            status,
            &EmergencyTemplate {
                frame: Frame::of(gate, signed_in, "/find"),
                banner: Banner::of(gate, &record),
                minutes: gate.settings.emergency_minutes,
                reason: reason.to_owned(),
                words: words.to_owned(),
                problem,
            },
        ),
        Err(failure) => failure.respond(gate, Dialect::Page),
    }
}
