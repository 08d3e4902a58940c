#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use hie_consent::decide::{Decision, Reason, decide};
use hie_consent::fhir;
use hie_consent::request::{ConsentRequest, EmergencyDeclaration, ItemFacts, RegionRules};
use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::registry::{BreakGlassRules, ConsentModel};
use hie_protocol::vocabulary::{DocumentClass, Purpose, Role, Sensitivity};

use super::{Choices, Emergency, WITHHOLDABLE, sentences};

const NOW: Millis = Millis(1_795_354_320_000);
const LAKESIDE: &str = "urn:oid:2.999.4";
const ANYBODY: &str = "urn:oid:2.999.5";

fn choices(share: bool, emergency: Emergency) -> Choices {
    Choices {
        share,
        except: vec![(OrgId::parse(LAKESIDE).unwrap(), "Lakeside Clinic".into())],
        withhold: vec!["hiv", "mental-health"],
        until: None,
        emergency,
    }
}

/// Asks for a document of another organisation; `None` when it opens, else why not.
fn ask(
    choices: &Choices,
    region: ConsentModel,
    org: &str,
    purpose: Purpose,
    label: Option<Sensitivity>,
) -> Option<Vec<Reason>> {
    let consent = choices.to_consent("p1", Millis(NOW.0 - 86_400_000), Some(true));
    let directive = fhir::read(&consent, &|name| OrgId::parse(name).ok())
        .unwrap_or_else(|faults| panic!("the page writes a Consent with faults: {faults:?}"));
    assert!(directive.in_force);
    let rules = RegionRules::new(
        region,
        BreakGlassRules {
            allowed: true,
            minutes: 60,
            tell_withheld: true,
        },
    );
    let mut item = ItemFacts::normal(DocumentId::new([1; 16]), DocumentClass::Note);
    item.sensitivity.extend(label);
    let request = ConsentRequest {
        asker_org: OrgId::parse(org).unwrap(),
        asker_user: "haddad".into(),
        role: Role::Physician,
        purpose,
        break_glass: (purpose == Purpose::BreakGlass).then_some(EmergencyDeclaration {
            declared: NOW,
            reason: BreakGlassReason::LifeAtRisk,
        }),
        evidence_of_treatment: true,
        asker_is_patient: false,
        item,
        custodian: OrgId::parse("urn:oid:2.999.1").unwrap(),
        now: NOW,
        epoch: ConsentEpoch(1),
    };
    match decide(&[directive], &rules, &request) {
        Decision::Permitted(_) => None,
        Decision::Denied(denial) => Some(denial.reasons),
    }
}

#[test]
fn the_judge_reads_every_choice_and_decides_as_the_page_says() {
    const TREAT: Purpose = Purpose::Treatment;
    const BREAK: Purpose = Purpose::BreakGlass;
    const HIV: Option<Sensitivity> = Some(Sensitivity::Hiv);
    use Emergency::{Everything, ExceptWithheld, Nothing};
    // Share, in an emergency, who asks, purpose, label; and whether it opens.
    let cases = [
        (true, ExceptWithheld, ANYBODY, TREAT, None, true),
        (true, ExceptWithheld, ANYBODY, TREAT, HIV, false),
        (true, ExceptWithheld, LAKESIDE, TREAT, None, false),
        (true, ExceptWithheld, ANYBODY, Purpose::EmergencyTreatment, HIV, false),
        (true, ExceptWithheld, ANYBODY, BREAK, None, true),
        (true, ExceptWithheld, LAKESIDE, BREAK, None, true),
        (true, ExceptWithheld, ANYBODY, BREAK, HIV, false),
        (true, Everything, ANYBODY, TREAT, HIV, false),
        (true, Everything, ANYBODY, BREAK, HIV, true),
        (true, Everything, LAKESIDE, BREAK, HIV, true),
        (true, Nothing, ANYBODY, TREAT, None, true),
        (true, Nothing, ANYBODY, BREAK, None, false),
        (true, Nothing, LAKESIDE, BREAK, HIV, false),
        (false, ExceptWithheld, ANYBODY, TREAT, None, false),
        (false, ExceptWithheld, ANYBODY, BREAK, None, true),
        (false, ExceptWithheld, ANYBODY, BREAK, HIV, false),
        (false, Everything, LAKESIDE, BREAK, HIV, true),
        (false, Nothing, ANYBODY, TREAT, None, false),
        (false, Nothing, ANYBODY, BREAK, None, false),
        (true, Everything, ANYBODY, Purpose::Research, None, false),
        (true, Everything, ANYBODY, Purpose::Payment, None, false),
    ];
    for (share, emergency, org, purpose, label, opens) in cases {
        for region in [ConsentModel::OptOut, ConsentModel::OptIn] {
            let reasons = ask(&choices(share, emergency), region, org, purpose, label);
            assert_eq!(
                reasons.is_none(),
                opens,
                "share {share}, {emergency:?}, {org}, {purpose:?}, {label:?}, {region:?}: {reasons:?}"
            );
            let understood = reasons.is_none_or(|reasons| !reasons.contains(&Reason::DirectiveNotUnderstood));
            assert!(understood, "share {share}, {emergency:?}: every part is understood");
        }
    }
}

#[test]
fn every_label_that_can_be_withheld_is_one_the_judge_knows() {
    for kind in WITHHOLDABLE {
        let withheld = Choices {
            withhold: vec![kind.code],
            ..Choices::default()
        };
        let plain = ask(&withheld, ConsentModel::OptOut, ANYBODY, Purpose::Treatment, None);
        assert_eq!(plain, None, "{}: a document without the label opens", kind.code);
        for code in kind.sensitivity {
            let label = Sensitivity::from_code(code);
            assert_ne!(label, Sensitivity::Unknown, "{code}");
            for purpose in [Purpose::Treatment, Purpose::BreakGlass] {
                let reasons = ask(&withheld, ConsentModel::OptOut, ANYBODY, purpose, Some(label));
                let reasons = reasons.unwrap_or_else(|| panic!("{code} opens for {purpose:?}"));
                assert!(reasons.contains(&Reason::DataExcluded), "{code}: {reasons:?}");
            }
        }
    }
}

#[test]
fn choices_end_with_their_last_day() {
    let mut until = choices(true, Emergency::Everything);
    let open = |choices: &Choices| ask(choices, ConsentModel::OptIn, ANYBODY, Purpose::Treatment, None).is_none();
    until.until = Some("2026-11-22".into());
    assert!(open(&until), "the last day counts");
    until.until = Some("2026-11-21".into());
    assert!(!open(&until));
}

#[test]
fn choices_become_sentences() {
    let said = |choices: &Choices| sentences(&choices.to_consent("p1", Millis(0), Some(true))).join(" ");
    let mut shared = choices(true, Emergency::ExceptWithheld);
    shared.until = Some("2026-12-31".into());
    let shared = said(&shared);
    for part in [
        "in force",
        "Share with everyone who treats the patient.",
        "Except: closed for Lakeside Clinic.",
        "Except: closed for HIV.",
        "Except: closed for HIV, in an emergency too.",
        "Until 31-Dec-2026.",
    ] {
        assert!(shared.contains(part), "{part}: {shared}");
    }
    assert!(said(&choices(true, Emergency::Nothing)).contains("Except: closed for an emergency."));
    let closed = said(&choices(false, Emergency::Everything));
    assert!(closed.contains("Share with nobody.") && closed.contains("Except: opens for an emergency."));
    assert!(!closed.contains("in an emergency too"), "{closed}");
}

#[test]
fn a_draft_is_not_in_force_and_a_signature_is_said() {
    let choices = Choices::default();
    let draft = choices.to_consent("p1", NOW, None);
    assert_eq!(draft["status"], "draft");
    assert!(draft.get("verification").is_none());
    assert_eq!(
        choices.to_consent("p1", NOW, Some(true))["verification"][0]["verified"],
        true
    );
    assert_eq!(
        choices.to_consent("p1", NOW, Some(false))["verification"][0]["verified"],
        false
    );
}
