//! `hie find`: one question, shown organisation by organisation, with every gap named.

use futures::StreamExt as _;
use hie_gateway::ports::{Completeness, DocumentCard, OrgAnswer, OrgState, RecordEvent};
use hie_gateway_dialect::fhir::clinical::read as read_summary;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_gateway_dialect::fhir::resource::Concept;
use hie_node_core::patient::index::Candidate;
use hie_protocol::message::{Demographics, Obligation};
use hie_protocol::vocabulary::Role;
use serde_json::{Value, json};

use super::Executor;
use crate::desk::people::joined;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::moment::{write_fhir, write_words};
use crate::order::{Asker, Lines};

/// The state of an organisation in words.
#[must_use]
pub fn words(state: &OrgState) -> String {
    match state {
        OrgState::Waiting => "asked".to_owned(),
        OrgState::Answered => "answered".to_owned(),
        OrgState::NoRecord => "answered: no record of this patient".to_owned(),
        OrgState::SomeWithheld => "answered, some withheld".to_owned(),
        OrgState::IdentityNotAgreed => "identity not agreed there".to_owned(),
        OrgState::Refused => "refused".to_owned(),
        OrgState::TimedOut(waited) => format!(
            "no answer in {:.1} s",
            std::time::Duration::from_millis(*waited).as_secs_f64()
        ),
        OrgState::Offline(None) => "no answer: not reachable".to_owned(),
        OrgState::Offline(Some(since)) => format!("offline since {}", write_fhir(*since)),
    }
}

fn document(card: &DocumentCard) -> Value {
    let meta = &card.meta;
    json!({
        "reference": card.reference.0, "class": meta.class.code(), "title": meta.title,
        "created": meta.created.map(write_words), "content_type": meta.content_type, "size": meta.size,
        "sha256": meta.hash.map(|hash| hash.to_hex()),
        "sensitivity": meta.sensitivity.iter().map(|code| code.code()).collect::<Vec<_>>(),
        "instances": meta.imaging.as_ref().map(|imaging| imaging.instances),
    })
}

fn organisation(answer: &OrgAnswer) -> Value {
    json!({ "organisation": answer.org.as_str(), "name": answer.name, "state": words(&answer.state), "elapsed_ms": answer.elapsed_ms, "phone": answer.phone })
}

/// What this node knows about the person fills the question up: custodians match on everything known.
fn enriched(executor: &Executor, asked: &Demographics) -> Outcome<Demographics> {
    let candidates = executor.trade.patients.identify(asked);
    let candidates = candidates.map_err(|error| {
        Fault::new(
            Exit::Usage,
            "This question cannot be asked.",
            chain(&error),
            "Check the fields.",
        )
    })?;
    let graded: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.verdict.grade.is_some())
        .collect();
    Ok(match graded.as_slice() {
        [only] => joined(asked, &only.person.demographics),
        _ => asked.clone(),
    })
}

/// Runs the order.
pub async fn find(executor: &Executor, asker: &Asker, asked: Demographics, lines: &Lines) -> Outcome<Exit> {
    let offline = || {
        Fault::new(
            Exit::Unreachable,
            "The node does not run.",
            "only a running node can ask the region",
            "Start it with `hie serve`.",
        )
    };
    let desk = executor.records.clone().ok_or_else(offline)?;
    let caller = executor.caller(asker)?;
    let clinical = [Role::Physician, Role::Nurse, Role::Pharmacist];
    if !clinical.contains(&caller.role) {
        return Err(Fault::new(
            Exit::Refused,
            "Not allowed.",
            "only clinicians ask about patients",
            "Use a clinician's account.",
        ));
    }
    let person = enriched(executor, &asked)?;
    let events = desk.ask(&caller, person).await;
    let mut events = events.map_err(|error| {
        Fault::new(
            Exit::Unreachable,
            "The question was not asked.",
            error.what,
            "Try again.",
        )
    })?;
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            RecordEvent::Asking(orgs) => lines.say(format!("Asking {} organisation(s)", orgs.len())).await,
            RecordEvent::Organisation {
                answer,
                documents,
                more_on_emergency,
                obligations,
                summary,
                ..
            } => {
                let (mut text, mut value) = shown(executor, &answer, &documents, more_on_emergency, &obligations);
                if let Some(bytes) = summary {
                    add_clinical(&bytes, &mut text, &mut value);
                }
                lines.data(text, value).await;
            }
            RecordEvent::Done(whole) => complete = closing(executor, &whole, lines).await,
        }
    }
    Ok(if complete { Exit::Done } else { Exit::Partial })
}

/// One organisation's answer for people and for programs.
fn shown(
    executor: &Executor,
    answer: &OrgAnswer,
    documents: &[DocumentCard],
    more_on_emergency: bool,
    obligations: &[Obligation],
) -> (String, Value) {
    let mut value = organisation(answer);
    let listed: Vec<Value> = documents.iter().map(document).collect();
    if let Some(map) = value.as_object_mut() {
        map.insert("here".into(), json!(answer.org == executor.trade.me));
        map.insert("documents".into(), json!(listed));
        map.insert("more_on_emergency".into(), json!(more_on_emergency));
        map.insert("obligations".into(), json!(obligations));
    }
    let time = answer
        .elapsed_ms
        .map_or_else(String::new, |elapsed| format!("{elapsed} ms"));
    let mut text = format!("{:<26} {:<36} {time:>8}", answer.name, words(&answer.state));
    for card in documents {
        let created = card.meta.created.map_or_else(|| "on demand".to_owned(), write_words);
        text.push_str(&format!(
            "\n    {}  {:<8} {created:<12} {}",
            card.reference.0,
            card.meta.class.code(),
            card.meta.title
        ));
    }
    (text, value)
}

/// Adds what the organisation's summary says: allergies, current medications, active problems.
fn add_clinical(bytes: &[u8], text: &mut String, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    let summary = match read_summary(bytes, &Limits::default()) {
        Ok(summary) => summary,
        Err(error) => {
            text.push_str(&format!("\n    summary not readable: {error}"));
            map.insert("summary_fault".into(), json!(error.to_string()));
            return;
        }
    };
    let allergies: Vec<Value> = summary.allergies.iter().map(|row| coded(&row.code)).collect();
    let current = summary.medications.iter().filter(|row| row.current);
    let medications: Vec<Value> = current.map(|row| coded(&row.code)).collect();
    let active = summary.problems.iter().filter(|row| row.current);
    let problems: Vec<Value> = active.map(|row| coded(&row.code)).collect();
    for (name, rows) in [
        ("allergies", &allergies),
        ("medications", &medications),
        ("problems", &problems),
    ] {
        let words: Vec<&str> = rows.iter().filter_map(|row| row.get("display")?.as_str()).collect();
        if !words.is_empty() {
            text.push_str(&format!("\n    {name:<12} {}", words.join("; ")));
        }
    }
    map.insert("allergies".into(), json!(allergies));
    map.insert("medications".into(), json!(medications));
    map.insert("problems".into(), json!(problems));
    map.insert("no_known_allergies".into(), json!(summary.no_known_allergies.is_some()));
}

/// A coded row: the first coding, and the words shown.
fn coded(code: &Concept) -> Value {
    let coding = code.codings.first();
    json!({ "system": coding.map(|coding| &coding.system), "code": coding.map(|coding| &coding.code), "display": code.words() })
}

/// The closing line: whole, or exactly who is silent.
async fn closing(executor: &Executor, whole: &Completeness, lines: &Lines) -> bool {
    match whole {
        Completeness::Complete { as_of } => {
            let words = "Complete: every organisation asked has answered.";
            lines
                .data(
                    words,
                    json!({ "complete": true, "silent": [], "as_of": write_fhir(*as_of), "words": words }),
                )
                .await;
            true
        }
        Completeness::Partial { silent, as_of } => {
            let names: Vec<String> = silent
                .iter()
                .map(|answer| format!("{} ({})", executor.name(&answer.org), words(&answer.state)))
                .collect();
            let words = format!(
                "INCOMPLETE. No answer: {}. This record may be incomplete.",
                names.join(", ")
            );
            let silent: Vec<Value> = silent.iter().map(organisation).collect();
            let value = json!({ "complete": false, "silent": silent, "as_of": write_fhir(*as_of), "words": words });
            lines.data(words.clone(), value).await;
            false
        }
    }
}
