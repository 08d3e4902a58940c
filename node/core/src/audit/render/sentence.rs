//! An entry as one plain sentence: who, from where, did what, why, and how it ended.

use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::OrgId;
use hie_protocol::vocabulary::{Purpose, Role};

use super::super::event::{AuditEvent, EventKind, Outcome};

/// Names that the log itself does not hold.
pub struct Names<'a> {
    /// Organisation whose log it is.
    pub here: &'a OrgId,
    /// Name of an organisation, from the registry.
    pub org: &'a dyn Fn(&OrgId) -> Option<String>,
    /// The patient as the reader may see her, for example "Maria Lopez (MRN 4711)".
    pub patient: Option<String>,
}

/// The sentence.
#[must_use]
pub fn sentence(event: &AuditEvent, names: &Names<'_>) -> String {
    let patient = names.patient.clone().unwrap_or_else(|| {
        if event.patient.is_some() {
            "a patient".to_owned()
        } else {
            "no particular patient".to_owned()
        }
    });
    let other = event
        .counterpart
        .as_ref()
        .map(|counterpart| org_name(&counterpart.org, names));
    let documents = documents(event.documents.len());
    let mut text = actor(event, names);
    text.push(' ');
    text.push_str(&deed(event, &patient, other.as_deref(), &documents));
    if let Some(purpose) = event.purpose {
        text.push_str(" for ");
        text.push_str(purpose_words(purpose));
    }
    if let Some(emergency) = &event.emergency {
        text.push_str(match emergency.reason {
            BreakGlassReason::LifeAtRisk => ", as an emergency: life at risk",
            BreakGlassReason::CareNow => ", as an emergency: care needed now",
            BreakGlassReason::RiskToOthers => ", as an emergency: serious risk to others",
        });
        if !emergency.words.is_empty() {
            text.push_str(&format!(" (\u{201c}{}\u{201d})", emergency.words));
        }
    }
    match event.outcome {
        Outcome::Success => {}
        Outcome::Denied => text.push_str("; this was refused"),
        Outcome::Failed => text.push_str("; this did not complete"),
        Outcome::Broken => text.push_str("; this node failed"),
    }
    if !event.reasons.is_empty() {
        text.push_str(&format!(" ({})", event.reasons.join(", ")));
    }
    text.push('.');
    text
}

fn actor(event: &AuditEvent, names: &Names<'_>) -> String {
    let actor = &event.actor;
    let home = org_name(&actor.org, names);
    let away = actor.org != *names.here;
    match (actor.role, actor.user.is_empty(), away) {
        (_, true, false) => {
            if actor.user_name.is_empty() {
                "This node".to_owned()
            } else {
                actor.user_name.clone()
            }
        }
        (_, true, true) => format!("The node of {home}"),
        (Role::Unknown, false, _) => format!("{} of {home}", actor.user_name),
        (role, false, false) => format!("{} ({})", actor.user_name, role_words(role)),
        (role, false, true) => format!("{} ({}) of {home}", actor.user_name, role_words(role)),
    }
}

fn deed(event: &AuditEvent, patient: &str, other: Option<&str>, documents: &str) -> String {
    let to = other.unwrap_or("another organisation");
    let detail = event.detail.as_deref();
    match event.kind {
        EventKind::QuestionAsked => format!("asked the region for the records of {patient}"),
        EventKind::QuestionAnswered => format!("asked here for the records of {patient}"),
        EventKind::DisclosureSent => format!("received {documents} of {patient} from here"),
        EventKind::DisclosureReceived => format!("received {documents} of {patient} from {to}"),
        EventKind::RecordOpened => format!("opened {documents} of {patient}"),
        EventKind::Imported => format!("took in {documents} of {patient}"),
        EventKind::Published => format!("published that there are records of {patient}"),
        EventKind::ConsentRecorded => format!("recorded a choice of {patient}"),
        EventKind::ConsentRevoked => format!("revoked a choice of {patient}"),
        EventKind::EmergencyDeclared => format!("declared emergency access to {patient}"),
        EventKind::EmergencyUsed => format!("used emergency access to open {documents} of {patient}"),
        EventKind::SignedIn => "signed in".to_owned(),
        EventKind::SignInFailed => "failed to sign in".to_owned(),
        EventKind::SignedOut => "signed out".to_owned(),
        EventKind::PeerRefused => with("was turned away at the door", detail),
        EventKind::ConfigurationChanged => with("changed the configuration", detail),
        EventKind::AuditSearched => with("searched the access log", detail),
        EventKind::AccountChanged => with("changed an account", detail),
        EventKind::Started => "started".to_owned(),
        EventKind::Stopped => "stopped".to_owned(),
        EventKind::PatientsSearched => "searched the patients of this organisation".to_owned(),
        EventKind::PatientsLinked => with(&format!("changed what belongs together for {patient}"), detail),
        EventKind::Erased => "erased the data of a patient".to_owned(),
        EventKind::CopyDeleted => format!("deleted the received copies of {patient}"),
        EventKind::TokensEvaluated => with("had match tokens evaluated", detail),
        EventKind::BudgetAlarm => with("used match tokens at an alarming rate", detail),
        EventKind::PeerMisbehaved => with(&format!("caught {to} breaking the protocol"), detail),
    }
}

fn with(deed: &str, detail: Option<&str>) -> String {
    detail.map_or_else(|| deed.to_owned(), |detail| format!("{deed}: {detail}"))
}

fn documents(count: usize) -> String {
    match count {
        0 => "records".to_owned(),
        1 => "1 document".to_owned(),
        more => format!("{more} documents"),
    }
}

fn org_name(org: &OrgId, names: &Names<'_>) -> String {
    (names.org)(org).unwrap_or_else(|| org.to_string())
}

const fn role_words(role: Role) -> &'static str {
    match role {
        Role::Physician => "physician",
        Role::Nurse => "nurse",
        Role::Pharmacist => "pharmacist",
        Role::ConsentAdministrator => "consent administrator",
        Role::Auditor => "auditor",
        Role::Operator => "operator",
        Role::Patient => "patient",
        Role::System => "program",
        Role::Unknown => "unknown role",
    }
}

const fn purpose_words(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Treatment => "treatment",
        Purpose::EmergencyTreatment => "emergency treatment",
        Purpose::BreakGlass => "emergency access",
        Purpose::Operations => "running the organisation",
        Purpose::Payment => "payment",
        Purpose::Research => "research",
        Purpose::PublicHealth => "public health",
        Purpose::PatientRequest => "the patient's own request",
        Purpose::Unknown => "an unknown purpose",
    }
}
