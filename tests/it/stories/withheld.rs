//! A patient's no: what it closes is gone for exactly whom it names; emergency access opens it and leaves a trace.

use hie::fault::Exit;
use hie::order::Order;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_tests::region::{Answer, Node, Region, asker, emergency, grace, kind, reference};
use serde_json::{Value, json};

const CLOSED: &str = "Emergency department summary";
const WORDS: &str = "Unconscious, no relatives reachable";

/// St Anne's patient refuses City General.
fn refusal() -> Value {
    let code = |system: &str, code: &str| json!({ "coding": [{ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code }] });
    json!({
        "resourceType": "Consent", "status": "active", "dateTime": "2026-02-01",
        "scope": code("consentscope", "patient-privacy"),
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
        "patient": { "identifier": { "system": Site::StAnne.mrn_system(), "value": "SA-0088123" } },
        "policyRule": code("v3-ActCode", "OPTIN"),
        "provision": {
            "type": "deny",
            "actor": [{
                "role": code("v3-ParticipationType", "IRCP"),
                "reference": { "type": "Organization", "identifier": { "system": "urn:ietf:rfc:3986", "value": Site::CityGeneral.urn() } },
            }],
        },
    })
}

fn shows(answer: &Answer, site: Site) -> bool {
    answer.titles(site.name()).contains(CLOSED)
}

/// Questions under which a log has an entry of this kind about emergency access.
async fn questions(node: &Node, wanted: &str) -> Vec<String> {
    let log = node.log().await;
    let found = log
        .iter()
        .filter(|entry| kind(entry) == wanted && entry["emergency"] == true);
    found
        .map(|entry| entry["correlation"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_emergency_opens_what_a_patient_closed_and_nothing_else_does() {
    let region = Region::new().await;
    let sites = [Site::CityGeneral, Site::StAnne, Site::NorthImaging];
    let (city, anne, north) = (
        region.join(sites[0]).await,
        region.join(sites[1]).await,
        region.join(sites[2]).await,
    );
    for (node, site) in [&city, &anne, &north].into_iter().zip(sites) {
        region.fill(node, site).await;
    }
    let open = city
        .find_until(&grace(), "all three answer", |answer| {
            answer.complete && answer.givers().len() == 3
        })
        .await;
    assert!(shows(&open, Site::StAnne));
    let closed_document = reference(&open.document(Site::StAnne.name(), CLOSED));
    let norths = reference(&open.document(Site::NorthImaging.name(), "CT head report"));
    city.get(&closed_document, asker("haddad"), &region.path("before"))
        .await
        .done();
    north
        .find_until(&grace(), "North Imaging sees St Anne", |answer| {
            answer.complete && shows(answer, Site::StAnne)
        })
        .await;

    // Only the consent office records a choice.
    let file = region.path("consent.json");
    std::fs::write(&file, refusal().to_string()).unwrap();
    anne.order(Order::ConsentAdd {
        asker: asker("haddad"),
        path: file.clone(),
    })
    .await
    .ended(Exit::Refused);
    let recorded = anne
        .order(Order::ConsentAdd {
            asker: asker("ruiz"),
            path: file,
        })
        .await
        .done();
    assert_eq!(recorded[0]["resourceType"], "Consent", "{recorded:#?}");

    // It holds from the next question on, without waiting for anything.
    let answer = city.find(&grace(), asker("haddad")).await;
    assert!(
        answer.documents(Site::StAnne.name()).is_empty(),
        "{:#?}",
        answer.of(Site::StAnne.name())
    );
    assert!(!serde_json::to_string(&answer.organisations).unwrap().contains(CLOSED));
    assert!(answer.complete, "a refusal is an answer: {}", answer.words);
    assert!(answer.titles(Site::NorthImaging.name()).contains("CT head report"));
    let kept = region.path("after");
    let refused = city.get(&closed_document, asker("haddad"), &kept).await;
    assert!(refused.outcome.is_err(), "the old reference still opens it");
    assert!(!kept.exists());
    city.get(&norths, asker("haddad"), &region.path("norths")).await.done();
    let other = north.find(&grace(), asker("haddad")).await;
    assert!(
        shows(&other, Site::StAnne),
        "somebody else was closed out: {:#?}",
        other.of(Site::StAnne.name())
    );
    let own = anne.find(&grace(), asker("haddad")).await;
    assert!(shows(&own, Site::StAnne), "St Anne treats its own patient");

    // Emergency access opens it, with obligations, and both logs say so under the same question.
    let urgent = city.find(&grace(), emergency(WORDS)).await;
    assert!(shows(&urgent, Site::StAnne), "{:#?}", urgent.of(Site::StAnne.name()));
    let obligations = urgent.of(Site::StAnne.name()).unwrap()["obligations"].clone();
    assert!(
        obligations.as_array().unwrap().contains(&json!("review")),
        "{obligations}"
    );
    let out = region.path("urgent");
    let urgent_document = reference(&urgent.document(Site::StAnne.name(), CLOSED));
    city.get(&urgent_document, emergency(WORDS), &out).await.done();
    assert_eq!(
        std::fs::read(&out).unwrap(),
        std::fs::read(region.path("before")).unwrap()
    );
    let declared = questions(&city, "emergency-declared").await;
    let used = questions(&anne, "emergency-used").await;
    assert!(
        !declared.is_empty() && !used.is_empty(),
        "declared {declared:?}, used {used:?}"
    );
    assert!(
        used.iter().all(|question| declared.contains(question)),
        "declared {declared:?}, used {used:?}"
    );
    let told = anne.log().await;
    assert!(
        told.iter()
            .any(|entry| entry["event"].to_string().contains("life-at-risk")),
        "the reason is in St Anne's log"
    );

    // Nothing stays open behind it.
    let after = city.find(&grace(), asker("haddad")).await;
    assert!(!shows(&after, Site::StAnne));
    assert!(
        city.get(&urgent_document, asker("haddad"), &region.path("later"))
            .await
            .outcome
            .is_err()
    );
    for mut node in [city, anne, north] {
        node.verify().await;
        node.stop().await;
    }
}
