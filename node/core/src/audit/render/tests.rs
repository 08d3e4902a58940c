#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_protocol::claim::{BreakGlass, BreakGlassReason};
use hie_protocol::id::{Correlation, DocumentId, Millis, OrgId, TreeHash};
use hie_protocol::vocabulary::{Purpose, Role};

use super::super::event::{Actor, AuditEvent, Counterpart, CounterpartEntry, EventKind, Outcome, PatientRef};
use super::super::search::AuditEntry;
use super::{Names, audit_event, instant, sentence};

fn org(text: &str) -> OrgId {
    OrgId::parse(text).unwrap()
}

fn disclosure() -> AuditEntry {
    let actor = Actor {
        org: org("urn:oid:2.999.2"),
        node: None,
        user: "meyer".to_owned(),
        user_name: "Dr. Anna Meyer".to_owned(),
        role: Role::Physician,
    };
    let mut event = AuditEvent::new(
        EventKind::DisclosureSent,
        Millis(1_795_435_200_123),
        Correlation::new([9; 16]),
        actor,
    );
    event.purpose = Some(Purpose::EmergencyTreatment);
    event.patient = Some(PatientRef([4; 16]));
    event.documents = vec![DocumentId::new([5; 16]), DocumentId::new([6; 16])];
    event.counterpart = Some(Counterpart {
        org: org("urn:oid:2.999.2"),
        entry: Some(CounterpartEntry {
            index: 12,
            leaf: TreeHash::new([3; 32]),
        }),
    });
    event.emergency = Some(BreakGlass {
        reason: BreakGlassReason::LifeAtRisk,
        words: "unconscious".to_owned(),
        declared: Millis(1),
    });
    AuditEntry {
        index: 77,
        leaf: TreeHash::new([1; 32]),
        event,
    }
}

fn said(event: &AuditEvent) -> String {
    let here = org("urn:oid:2.999.1");
    let name = |id: &OrgId| (id.as_str() == "urn:oid:2.999.2").then(|| "City Hospital".to_owned());
    sentence(
        event,
        &Names {
            here: &here,
            org: &name,
            patient: None,
        },
    )
}

#[test]
fn a_disclosure_is_a_balp_privacy_disclosure_with_both_sides_and_the_request_id() {
    let resource = audit_event(&disclosure(), &org("urn:oid:2.999.1"));
    assert_eq!(
        resource["meta"]["profile"][0],
        "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"
    );
    assert_eq!(
        (resource["type"]["code"].as_str(), resource["action"].as_str()),
        (Some("110106"), Some("R"))
    );
    assert_eq!(resource["subtype"][0]["code"], "disclose");
    assert_eq!(resource["agent"][0]["who"]["identifier"]["value"], "urn:oid:2.999.1");
    assert_eq!(resource["agent"][1]["who"]["identifier"]["value"], "urn:oid:2.999.2");
    assert_eq!(resource["agent"][2]["requestor"], true);
    assert_eq!(resource["purposeOfEvent"][0]["coding"][0]["code"], "ETREAT");
    let entities = resource["entity"].as_array().unwrap();
    assert_eq!(entities[0]["type"]["code"], "XrequestId");
    assert_eq!(entities[0]["what"]["identifier"]["value"], "09".repeat(16));
    assert_eq!(
        entities.len(),
        6,
        "request, patient, two documents, their receipt, ours"
    );
    assert_eq!(entities[4]["what"]["identifier"]["value"], "urn:oid:2.999.2#12");
}

#[test]
fn every_kind_has_a_resource_and_a_sentence() {
    for kind in EventKind::ALL {
        let mut entry = disclosure();
        entry.event.kind = *kind;
        let resource = audit_event(&entry, &org("urn:oid:2.999.1"));
        for field in ["type", "recorded", "agent", "source", "action", "outcome"] {
            assert!(!resource[field].is_null(), "{kind:?} lacks {field}");
        }
        let text = said(&entry.event);
        assert!(
            text.starts_with("Dr. Anna Meyer (physician) of City Hospital ") && text.ends_with('.'),
            "{text}"
        );
        entry.event.patient = None;
        assert!(
            audit_event(&entry, &org("urn:oid:2.999.1"))["meta"].is_null(),
            "no patient, no patient pattern"
        );
    }
}

#[test]
fn a_sentence_says_who_what_why_and_how_it_ended() {
    let mut event = disclosure().event;
    assert_eq!(
        said(&event),
        "Dr. Anna Meyer (physician) of City Hospital received 2 documents of a patient from here for emergency \
         treatment, as an emergency: life at risk (\u{201c}unconscious\u{201d})."
    );
    event.kind = EventKind::QuestionAnswered;
    event.emergency = None;
    event.outcome = Outcome::Denied;
    event.reasons = vec!["patient-opted-out".to_owned()];
    assert_eq!(
        said(&event),
        "Dr. Anna Meyer (physician) of City Hospital asked here for the records of a patient for emergency treatment; \
         this was refused (patient-opted-out)."
    );
    let system = AuditEvent::new(
        EventKind::Started,
        Millis(0),
        Correlation::new([0; 16]),
        Actor::system(org("urn:oid:2.999.1"), ""),
    );
    assert_eq!(said(&system), "This node started.");
}

#[test]
fn instants_follow_the_calendar() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_799_999, "2000-02-29T23:59:59.999Z"),
        (1_795_435_200_123, "2026-11-23T12:00:00.123Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(instant(Millis(millis)), text);
    }
}
