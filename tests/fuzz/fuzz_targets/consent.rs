//! FHIR Consent and the judge: the same answer twice, and what cannot be read only ever closes (SPEC C-TOTAL, C-CLOSED).
#![no_main]

use hie_consent::decide::{Decision, decide};
use hie_consent::directive::{Directive, DirectiveSource};
use hie_consent::request::{ConsentRequest, EmergencyDeclaration, ItemFacts, RegionRules};
use hie_consent::{explain, fhir};
use hie_fuzz::region::{NOW, break_glass};
use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::{ConsentEpoch, DocumentId, OrgId};
use hie_protocol::registry::ConsentModel;
use hie_protocol::vocabulary::{DocumentClass, Purpose, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(resource) = serde_json::from_slice(data) else {
        return;
    };
    let org = |text: &str| OrgId::parse(text).ok();
    let Ok(directive) = fhir::read(&resource, &org) else {
        return;
    };
    assert_eq!(fhir::read(&resource, &org).as_ref(), Ok(&directive));
    let source = DirectiveSource {
        resource: "c".into(),
        version: "1".into(),
    };
    let both = [directive.clone(), Directive::unreadable("c", source)];
    for model in [ConsentModel::OptOut, ConsentModel::OptIn] {
        let rules = RegionRules::new(model, break_glass());
        for (role, purpose) in [
            (Role::Physician, Purpose::Treatment),
            (Role::Physician, Purpose::BreakGlass),
            (Role::Pharmacist, Purpose::Research),
            (Role::Unknown, Purpose::Treatment),
            (Role::Physician, Purpose::Unknown),
        ] {
            let request = request(role, purpose);
            let decision = decide(core::slice::from_ref(&directive), &rules, &request);
            let again = decide(core::slice::from_ref(&directive), &rules, &request);
            assert_eq!(permits(&decision), permits(&again));
            assert_eq!(explain::decision(&decision), explain::decision(&again));
            if role == Role::Unknown || purpose == Purpose::Unknown {
                assert!(!permits(&decision), "an unknown role or purpose is permitted");
            }
            if permits(&decide(&both, &rules, &request)) {
                assert!(permits(&decision), "an unreadable directive opens");
            }
        }
    }
    let _ = explain::excluded_organisations(core::slice::from_ref(&directive), NOW);
});

fn permits(decision: &Decision) -> bool {
    matches!(decision, Decision::Permitted(_))
}

fn request(role: Role, purpose: Purpose) -> ConsentRequest {
    let org = |text| OrgId::parse(text).expect("an OID URN");
    let declared = EmergencyDeclaration {
        declared: NOW,
        reason: BreakGlassReason::LifeAtRisk,
    };
    ConsentRequest {
        asker_org: org("urn:oid:2.999.7.1"),
        asker_user: "haddad".into(),
        role,
        purpose,
        break_glass: (purpose == Purpose::BreakGlass).then_some(declared),
        evidence_of_treatment: true,
        asker_is_patient: false,
        item: ItemFacts::normal(DocumentId::new([1; 16]), DocumentClass::ALL[0]),
        custodian: org("urn:oid:2.999.7.2"),
        now: NOW,
        epoch: ConsentEpoch(1),
    }
}
