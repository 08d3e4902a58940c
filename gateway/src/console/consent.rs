//! Consent (UX B6): a patient's choices as sentences. Every choice is previewed by the engine that decides before it
//! can be saved; what is saved is exactly what was previewed.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hie_protocol::id::{Millis, OrgId};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::console::consent::draft::{Choices, Emergency, WITHHOLDABLE, sentences};
use crate::console::find::{HitLine, read_date};
use crate::console::opened::is_handle;
use crate::console::page::{Frame, page};
use crate::console::words;
use crate::gate::Gate;
use crate::guard::{Fields, SignedIn};
use crate::ports::{ConsentRow, PatientSelector, SubjectRef};
use crate::respond::{Dialect, Fault, Problem};

pub mod draft;

/// A choice of the form.
pub struct Tick {
    value: String,
    label: String,
    on: bool,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate {
    frame: Frame,
    person: HitLine,
    recorded: Vec<Vec<String>>,
    share: bool,
    organisations: Vec<Tick>,
    withhold: Vec<Tick>,
    until: String,
    emergency: &'static str,
    problem: String,
    message: String,
    rows: Vec<ConsentRow>,
    previewed: String,
}

struct Patient {
    id: String,
    person: HitLine,
}

async fn patient(gate: &Gate, signed_in: &SignedIn, subject: &str) -> Result<Patient, Problem> {
    let nothing = || Problem::of(gate, Fault::Nothing);
    if !is_handle(subject) {
        return Err(nothing());
    }
    let hit = gate
        .ports
        .people
        .subject(&signed_in.caller(), &SubjectRef(subject.to_owned()))
        .await;
    let hit = hit
        .map_err(|error| Problem::from_port(gate, &error))?
        .ok_or_else(nothing)?;
    let person = HitLine::of(&hit, &gate.clock().today());
    Ok(Patient {
        id: hit.patient.ok_or_else(nothing)?,
        person,
    })
}

/// GET `/consent/{subject}`.
pub async fn show(State(gate): State<Gate>, signed_in: SignedIn, Path(subject): Path<String>) -> Response {
    answer(&gate, &signed_in, &subject, &Choices::default(), Said::default()).await
}

/// POST `/consent/{subject}`: `action` is `preview`, `signed` or `said`.
pub async fn submit(
    State(gate): State<Gate>,
    signed_in: SignedIn,
    Path(subject): Path<String>,
    fields: Fields,
) -> Response {
    let choices = match read(&gate, &fields).await {
        Ok(choices) => choices,
        Err(words) => {
            let said = Said {
                problem: words.to_owned(),
                status: Some(StatusCode::BAD_REQUEST),
                ..Said::default()
            };
            return answer(&gate, &signed_in, &subject, &Choices::default(), said).await;
        }
    };
    let patient = match patient(&gate, &signed_in, &subject).await {
        Ok(patient) => patient,
        Err(problem) => return problem.respond(&gate, Dialect::Page),
    };
    let same = fields.one("previewed") == Some(seal(&choices).as_str());
    let signed = match fields.one("action") {
        Some("signed") if same => true,
        Some("said") if same => false,
        Some("signed" | "said") => {
            let problem = "The choices changed after the preview. Look at the preview again, then save.".to_owned();
            return preview(
                &gate,
                &signed_in,
                &subject,
                &patient,
                &choices,
                Said {
                    problem,
                    ..Said::default()
                },
            )
            .await;
        }
        _ => return preview(&gate, &signed_in, &subject, &patient, &choices, Said::default()).await,
    };
    let consent = choices.to_consent(&patient.id, gate.now(), Some(signed));
    let said = match gate.ports.consents.create(&signed_in.caller(), consent).await {
        Ok(_) => Said {
            message: "Saved and in force here.".to_owned(),
            ..Said::default()
        },
        Err(error) => {
            let problem = Problem::from_port(&gate, &error);
            let words = format!(
                "The choices could not be saved. Nothing has changed. {} (reference {})",
                problem.words, problem.reference
            );
            Said {
                problem: words,
                status: Some(problem.fault.status()),
                ..Said::default()
            }
        }
    };
    answer(&gate, &signed_in, &subject, &choices, said).await
}

/// What the page says beside the form.
#[derive(Default)]
struct Said {
    problem: String,
    message: String,
    rows: Vec<ConsentRow>,
    previewed: String,
    status: Option<StatusCode>,
}

async fn preview(
    gate: &Gate,
    signed_in: &SignedIn,
    subject: &str,
    patient: &Patient,
    choices: &Choices,
    mut said: Said,
) -> Response {
    let draft = choices.to_consent(&patient.id, gate.now(), None);
    let selector = PatientSelector::Id(patient.id.clone());
    match gate
        .ports
        .consents
        .preview(&signed_in.caller(), selector, Some(draft))
        .await
    {
        Ok(rows) => {
            said.rows = rows;
            said.previewed = seal(choices);
        }
        Err(error) => {
            let problem = Problem::from_port(gate, &error);
            said.problem = format!(
                "The preview could not be made; nothing can be saved. {} (reference {})",
                problem.words, problem.reference
            );
            said.status = Some(problem.fault.status());
        }
    }
    answer(gate, signed_in, subject, choices, said).await
}

/// Names a set of choices, so that what is saved is what was previewed.
fn seal(choices: &Choices) -> String {
    hex::encode(digest(
        &SHA256,
        choices.to_consent("", Millis(0), None).to_string().as_bytes(),
    ))
}

async fn read(gate: &Gate, fields: &Fields) -> Result<Choices, &'static str> {
    let known = gate.ports.node.organisations().await;
    let chosen = |org: &OrgId| fields.all("except").any(|value| value == org.as_str());
    let until = match fields.one("until") {
        Some(text) => Some(read_date(text).ok_or("Write the last day as 31-Dec-2026.")?),
        None => None,
    };
    Ok(Choices {
        share: fields.one("share") != Some("no"),
        except: known.into_iter().filter(|(org, _)| chosen(org)).collect(),
        withhold: WITHHOLDABLE
            .iter()
            .filter(|kind| fields.all("withhold").any(|value| value == kind.code))
            .map(|kind| kind.code)
            .collect(),
        until,
        emergency: Emergency::of(fields.one("emergency").unwrap_or_default()),
    })
}

async fn answer(gate: &Gate, signed_in: &SignedIn, subject: &str, choices: &Choices, said: Said) -> Response {
    let patient = match patient(gate, signed_in, subject).await {
        Ok(patient) => patient,
        Err(problem) => return problem.respond(gate, Dialect::Page),
    };
    let caller = signed_in.caller();
    let selector = PatientSelector::Id(patient.id);
    let recorded: Vec<Value> = match gate.ports.consents.search(&caller, Some(selector), None, None).await {
        Ok(recorded) => recorded,
        Err(error) => return crate::respond::failed(gate, Dialect::Page, &error),
    };
    let organisations = gate.ports.node.organisations().await;
    let status = said.status.unwrap_or(StatusCode::OK);
    let template = ConsentTemplate {
        frame: Frame::of(gate, signed_in, "/find"),
        person: patient.person,
        recorded: recorded.iter().map(sentences).collect(),
        share: choices.share,
        organisations: organisations
            .into_iter()
            .map(|(org, name)| Tick {
                on: choices.except.iter().any(|(chosen, _)| *chosen == org),
                value: org.as_str().to_owned(),
                label: name,
            })
            .collect(),
        withhold: WITHHOLDABLE
            .iter()
            .map(|kind| Tick {
                value: kind.code.to_owned(),
                label: kind.label.to_owned(),
                on: choices.withhold.contains(&kind.code),
            })
            .collect(),
        until: choices.until.as_deref().map(words::fhir_date).unwrap_or_default(),
        emergency: choices.emergency.code(),
        problem: said.problem,
        message: said.message,
        rows: said.rows,
        previewed: said.previewed,
    };
    page(status, &template)
}
