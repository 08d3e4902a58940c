//! PDQm, MHD and PCF.

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hie_gateway::ports::{Completeness, PortError};
use hie_protocol::refusal::Class;
use serde_json::{Value, json};

use super::world::{BASE, Client, LETTER, NOW, partial, silent, world};

fn ids(bundle: &Value) -> Vec<String> {
    assert_eq!(
        (bundle["resourceType"].as_str(), bundle["type"].as_str()),
        (Some("Bundle"), Some("searchset")),
        "{bundle}"
    );
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let matches = entries.iter().filter(|entry| entry["search"]["mode"] == "match");
    let ids: Vec<String> = matches
        .map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned())
        .collect();
    ids
}

fn link(bundle: &Value, relation: &str) -> Option<String> {
    let links = bundle["link"].as_array().unwrap();
    links
        .iter()
        .find(|link| link["relation"] == relation)
        .map(|link| link["url"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn patients_are_found_by_every_parameter() {
    let client = Client::new();
    for (query, expected) in [
        ("_id=p1", vec!["p1"]),
        ("family=okafor", vec!["p1", "p3"]),
        ("family=OKAF", vec!["p1", "p3"]),
        ("family:exact=Okafor", vec!["p1"]),
        ("family:exact=okafor", vec![]),
        ("family:contains=smith", vec!["p3"]),
        ("given=zoe", vec!["p2"]),
        ("family=okafor&given=ann", vec!["p3"]),
        ("family=okafor,o'neil&gender=female", vec!["p1", "p2", "p3"]),
        ("family=okafor&gender=male", vec![]),
        ("identifier=urn:oid:2.999.7.1%7Cp2", vec!["p2"]),
        ("identifier=p2", vec!["p2"]),
        ("identifier=urn:oid:9.9%7Cp2", vec![]),
        ("birthdate=1961-03-14", vec!["p1"]),
        ("birthdate=1980", vec!["p2"]),
        ("birthdate=ge1980&birthdate=lt1999-12-31", vec!["p2"]),
        ("telecom=phone%7C5550101&_id=p1,p3", vec!["p1", "p3"]),
        ("telecom=email%7C5550101", vec![]),
        ("address=pier&family=okafor", vec![]),
        ("address=1%20pier&family=okafor", vec!["p1", "p3"]),
        ("address-city=seaf&given=grace", vec!["p1"]),
        ("address-postalcode=99", vec![]),
        ("mothersMaidenName=%C3%B8st&given=grace", vec!["p1"]),
        ("active=false&family=okafor", vec![]),
        ("family=nobody", vec![]),
    ] {
        let reply = client.get(&format!("/fhir/Patient?{query}")).await;
        assert_eq!(reply.status, 200, "{query}");
        assert_eq!(ids(&reply.json()), expected, "{query}");
        assert_eq!(reply.json()["total"], expected.len(), "{query}");
    }
}

#[tokio::test]
async fn a_patient_is_read_or_unknown() {
    let client = Client::new();
    let reply = client.get("/fhir/Patient/p1").await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (200, "W/\"3\""));
    assert_eq!(reply.json()["name"][0]["family"], "Okafor");
    for unknown in ["/fhir/Patient/p9", "/fhir/Patient/a_b", "/fhir/Patient/%00"] {
        let reply = client.get(unknown).await;
        assert_eq!(
            (reply.status.as_u16(), reply.issue().as_str()),
            (404, "not-found"),
            "{unknown}"
        );
    }
}

#[tokio::test]
async fn identifier_domains_limit_what_comes_back() {
    let client = Client::new();
    let found = client
        .get("/fhir/Patient?family:exact=Okafor&identifier=urn:oid:2.999.1%7C")
        .await
        .json();
    assert_eq!(
        found["entry"][0]["resource"]["identifier"],
        json!([{ "system": "urn:oid:2.999.1", "value": "Np1" }])
    );
    let reply = client
        .get("/fhir/Patient?family=okafor&identifier=urn:oid:5.5%7C")
        .await;
    assert_eq!((reply.status.as_u16(), reply.issue().as_str()), (404, "not-found"));
    assert_eq!(reply.json()["issue"][0]["details"]["text"], "targetSystem not found");
}

#[tokio::test]
async fn spec_g_honour_unknown_parameters_are_ignored_and_the_self_link_tells() {
    let client = Client::new();
    let reply = client
        .get("/fhir/Patient?family=okafor&nonsense=1&family:missing=true")
        .await
        .json();
    assert_eq!(ids(&reply).len(), 2);
    assert_eq!(link(&reply, "self").unwrap(), format!("{BASE}/Patient?family=okafor"));
    let strict = client
        .get_with(
            "/fhir/Patient?family=okafor&nonsense=1",
            &[("prefer", "handling=strict")],
        )
        .await;
    assert_eq!(strict.status, 400);
    assert_eq!(
        client
            .get_with("/fhir/Patient?family=okafor", &[("prefer", "handling=strict")])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn spec_g_url_links_of_a_posted_search_and_of_pages_hold_no_patient_data() {
    let client = Client::new();
    let first = client
        .post_form("/fhir/Patient/_search", "family=okafor&_count=1")
        .await
        .json();
    assert_eq!((ids(&first), first["total"].as_u64()), (vec!["p1".to_owned()], Some(2)));
    let text = first["link"].to_string().to_lowercase();
    assert!(!text.contains("okafor") && text.contains("family="), "{text}");
    let next = link(&first, "next").unwrap();
    let path = next.strip_prefix("https://hie.example.org").unwrap().to_owned();
    let second = client.get(&path).await.json();
    assert_eq!(ids(&second), ["p3"]);
    assert!(link(&second, "next").is_none() && link(&second, "previous").is_some());
    assert!(!second["link"].to_string().to_lowercase().contains("okafor"));
    // Another account, another resource, a changed or foreign token: no page.
    assert_eq!(client.call("GET", &path, "office", &[], "").await.status, 400);
    assert_eq!(
        client.get(&path.replace("/Patient", "/DocumentReference")).await.status,
        400
    );
    for bad in ["_page=x", "_page=", "_page=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(client.get(&format!("/fhir/Patient?{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(
        Client::new().get("/fhir/Patient?family=okafor&_count=0").await.json()["total"],
        2
    );
}

#[tokio::test]
async fn hostile_searches_cost_a_clear_error() {
    let client = Client::new();
    let many = format!("/fhir/Patient?{}", "family=a&".repeat(65));
    let long = format!("/fhir/Patient?family={}", "x".repeat(1025));
    let alternatives = format!("/fhir/Patient?family={}", vec!["x"; 33].join(","));
    for path in [
        "/fhir/Patient",
        "/fhir/Patient?gender=female",
        "/fhir/Patient?family=",
        "/fhir/Patient?birthdate=soon",
        "/fhir/Patient?family=a&_count=-1",
        "/fhir/Patient?family=a&_count=many",
        "/fhir/DocumentReference",
        "/fhir/DocumentReference?patient=",
        "/fhir/DocumentReference?patient=p1&patient=p2",
        "/fhir/DocumentReference?patient=p1&date=ne2020",
        "/fhir/DocumentReference?patient=p1&targetCommunityIdList=north",
        "/fhir/DocumentReference?patient.identifier=77",
        "/fhir/Consent?patient=p1",
        many.as_str(),
        long.as_str(),
        alternatives.as_str(),
    ] {
        let reply = client.get(path).await;
        let expected = if path == "/fhir/Consent?patient=p1" { 200 } else { 400 };
        assert_eq!(reply.status, expected, "{path}");
        assert!(expected == 200 || reply.issue() == "invalid", "{path}");
    }
    assert_eq!(
        client
            .get("/fhir/Patient?family=a&_count=99999999999999999999")
            .await
            .status,
        200
    );
    let form = |kind: &'static str, body: &'static str| {
        let client = &client;
        async move {
            client
                .call(
                    "POST",
                    "/fhir/Patient/_search",
                    "haddad",
                    &[("content-type", kind)],
                    body,
                )
                .await
                .status
                .as_u16()
        }
    };
    assert_eq!(form("application/json", "{}").await, 415);
    assert_eq!(
        form("application/x-www-form-urlencoded; charset=utf-8", "family=okafor").await,
        200
    );
    let large = "family=x&".repeat(20_000);
    assert_eq!(
        client
            .call(
                "POST",
                "/fhir/Patient/_search",
                "haddad",
                &[("content-type", "application/x-www-form-urlencoded")],
                large
            )
            .await
            .status,
        413
    );
    assert_eq!(client.get("/fhir/Nothing").await.issue(), "not-found");
    let wrong = client.call("DELETE", "/fhir/Patient/p1", "haddad", &[], "").await;
    assert_eq!((wrong.status.as_u16(), wrong.issue().as_str()), (405, "not-supported"));
}

#[tokio::test]
async fn documents_are_found_and_described() {
    let client = Client::new();
    let bundle = client
        .get("/fhir/DocumentReference?patient=p1&status=current")
        .await
        .json();
    assert_eq!(ids(&bundle), ["ref-2", "ref-1"], "newest first");
    let entry = &bundle["entry"][1];
    assert_eq!(entry["fullUrl"], format!("{BASE}/DocumentReference/ref-1"));
    let document = &entry["resource"];
    assert_eq!(document["subject"]["reference"], "Patient/p1");
    assert_eq!(
        document["masterIdentifier"]["value"],
        "urn:uuid:01010101-0101-0101-0101-010101010101"
    );
    assert_eq!(document["custodian"]["identifier"]["value"], "urn:oid:2.999.7.1");
    assert_eq!(
        document["extension"][0]["valueIdentifier"]["value"],
        "urn:oid:2.999.7.1"
    );
    assert_eq!(document["date"], "2023-11-14T22:13:20Z");
    let attachment = &document["content"][0]["attachment"];
    assert_eq!(attachment["url"], format!("{BASE}/Binary/ref-1"));
    assert_eq!(attachment["size"], LETTER.len());
    assert!(attachment.get("hash").is_none(), "FHIR's hash is SHA-1; ours is not");
    assert!(
        attachment["extension"][0]["valueUri"]
            .as_str()
            .unwrap()
            .starts_with("ni:///sha-256;")
    );
    let labels = bundle["entry"][0]["resource"]["securityLabel"].to_string();
    assert!(labels.contains("\"R\"") && labels.contains("\"PSY\""), "{labels}");
}

#[tokio::test]
async fn documents_are_narrowed_by_every_parameter() {
    let client = Client::new();
    for (query, expected) in [
        ("type=http://loinc.org%7C18842-5", vec!["ref-1"]),
        ("type=18842-5,11502-2", vec!["ref-2", "ref-1"]),
        ("type=18842-5&type=11502-2", vec![]),
        ("type=urn:other%7C18842-5", vec![]),
        ("type=http://loinc.org%7C", vec!["ref-2", "ref-1"]),
        ("category=11488-4", vec!["ref-2", "ref-1"]),
        ("format=urn:ihe:iti:xds:2017:mimeTypeSufficient", vec!["ref-2", "ref-1"]),
        ("format=other", vec![]),
        ("creation=ge2025", vec!["ref-2"]),
        ("date=lt2025", vec!["ref-1"]),
        ("date=2023-11-14", vec!["ref-1"]),
        ("period=ge2023-11-14&period=le2023-11-14", vec!["ref-1"]),
        ("security-label=R", vec!["ref-2"]),
        ("security-label=PSY", vec!["ref-2"]),
        ("security-label=V", vec![]),
        ("author.family=muller", vec!["ref-2", "ref-1"]),
        ("author.given=zoe&author.family=nobody", vec![]),
        (
            "identifier=urn:uuid:02020202-0202-0202-0202-020202020202",
            vec!["ref-2"],
        ),
        ("targetCommunityIdList=urn:oid:2.999.7.2", vec!["ref-2"]),
        ("status=superseded", vec![]),
        ("status=current,superseded", vec!["ref-2", "ref-1"]),
        ("_count=1", vec!["ref-2"]),
    ] {
        let reply = client.get(&format!("/fhir/DocumentReference?patient=p1&{query}")).await;
        assert_eq!(ids(&reply.json()), expected, "{query}");
    }
    let bundle = client
        .post_form(
            "/fhir/DocumentReference/_search",
            "patient.identifier=urn%3Aoid%3A2.999.1%7CNp1&status=current",
        )
        .await
        .json();
    assert_eq!(bundle["entry"][0]["resource"]["subject"]["identifier"]["value"], "Np1");
    assert!(!bundle["link"].to_string().contains("Np1"));
}

#[tokio::test]
async fn spec_g_gap_a_partial_answer_names_exactly_the_silent_organisations() {
    let bundle = Client::over(partial())
        .get("/fhir/DocumentReference?patient=p1&_count=1")
        .await
        .json();
    let entries = bundle["entry"].as_array().unwrap();
    let outcome = entries.last().unwrap();
    assert_eq!(
        (
            outcome["search"]["mode"].as_str(),
            outcome["resource"]["resourceType"].as_str()
        ),
        (Some("outcome"), Some("OperationOutcome"))
    );
    let issues = outcome["resource"]["issue"].as_array().unwrap();
    let told: Vec<(&str, &str, &str)> = issues
        .iter()
        .map(|issue| {
            (
                issue["severity"].as_str().unwrap(),
                issue["code"].as_str().unwrap(),
                issue["details"]["coding"][0]["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("warning", "timeout", "urn:oid:2.999.7.3"),
            ("warning", "incomplete", "urn:oid:2.999.7.4")
        ]
    );
    assert!(issues[0]["details"]["text"].as_str().unwrap().contains("555 0199"));
    assert_eq!(bundle["total"], 2, "the outcome is not counted");

    let complete = Client::new().get("/fhir/DocumentReference?patient=p1").await.json();
    assert!(!complete.to_string().contains("OperationOutcome"));
    let mut index = world();
    index.search = Some(Completeness::Partial {
        silent: vec![],
        as_of: NOW,
    });
    let bundle = Client::over(index)
        .get("/fhir/DocumentReference?patient=p1")
        .await
        .json();
    assert!(
        bundle.to_string().contains("\"incomplete\""),
        "a partial answer without names is still partial"
    );
    let mut one = world();
    one.search = Some(Completeness::Partial {
        silent: silent().split_off(1),
        as_of: NOW,
    });
    let bundle = Client::over(one).get("/fhir/DocumentReference?patient=p1").await.json();
    assert!(!bundle.to_string().contains("Lakeside") && bundle.to_string().contains("Harbour Imaging"));
}

#[tokio::test]
async fn a_document_reference_is_read_or_unknown() {
    let client = Client::new();
    let document = client.get("/fhir/DocumentReference/ref-1").await.json();
    assert_eq!(
        (document["id"].as_str(), document["status"].as_str()),
        (Some("ref-1"), Some("current"))
    );
    assert_eq!(client.get("/fhir/DocumentReference/ref-9").await.issue(), "not-found");
}

#[tokio::test]
async fn content_comes_whole_in_parts_or_not_again() {
    let client = Client::new();
    let whole = client.get("/fhir/Binary/ref-1").await;
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, LETTER));
    assert_eq!(whole.header("content-type"), "text/html");
    assert!(whole.header("content-security-policy").contains("sandbox"));
    assert_eq!(whole.header("content-disposition"), "attachment");
    assert!(whole.header("digest").starts_with("sha-256=") && whole.header("repr-digest").starts_with("sha-256=:"));
    let tag = whole.header("etag").to_owned();

    let range = |value: &'static str| {
        let client = &client;
        async move { client.get_with("/fhir/Binary/ref-1", &[("range", value)]).await }
    };
    let part = range("bytes=5-12").await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &LETTER[6 - 1..13]));
    assert_eq!(part.header("content-range"), format!("bytes 5-12/{}", LETTER.len()));
    assert_eq!(&range("bytes=-7").await.body[..], &LETTER[LETTER.len() - 7..]);
    assert_eq!(range("bytes=0-1,3-4").await.status, 200);
    let outside = range("bytes=999-").await;
    assert_eq!(
        (outside.status.as_u16(), outside.header("content-range")),
        (416, format!("bytes */{}", LETTER.len()).as_str())
    );

    assert_eq!(
        client
            .get_with("/fhir/Binary/ref-1", &[("if-none-match", &tag)])
            .await
            .status,
        304
    );
    let other = [("range", "bytes=0-1"), ("if-range", "\"other\"")];
    assert_eq!(client.get_with("/fhir/Binary/ref-1", &other).await.status, 200);
    for (accept, status) in [
        ("text/html", 200),
        ("text/*;q=0.5", 200),
        ("application/pdf", 406),
        ("application/fhir+json", 406),
        ("application/pdf, */*", 200),
    ] {
        assert_eq!(
            client
                .get_with("/fhir/Binary/ref-1", &[("accept", accept)])
                .await
                .status,
            status,
            "{accept}"
        );
    }
}

#[tokio::test]
async fn spec_g_hidden_unknown_and_forbidden_look_alike() {
    let client = Client::new();
    let unknown = client.get("/fhir/Binary/ref-9").await;
    let mut refusing = world();
    refusing.failure = Some(PortError {
        class: Class::Refused,
        what: "the patient Okafor said no".into(),
    });
    let forbidden = Client::over(refusing).get("/fhir/Binary/ref-1").await;
    let words = |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap()["issue"][0]["details"].clone();
    assert_eq!((unknown.status, forbidden.status), (forbidden.status, unknown.status));
    assert_eq!(unknown.status, 404);
    assert_eq!(words(&unknown.body), words(&forbidden.body));
    assert!(!String::from_utf8_lossy(&forbidden.body).contains("Okafor"));
}

#[tokio::test]
async fn failures_keep_their_class_and_lose_their_story() {
    for (class, status, code) in [
        (Class::Unavailable, 503, "transient"),
        (Class::Misbehaved, 502, "exception"),
        (Class::Broken, 500, "exception"),
        (Class::Invalid, 400, "invalid"),
    ] {
        let mut failing = world();
        failing.failure = Some(PortError {
            class,
            what: "story".into(),
        });
        let client = Client::over(failing);
        for path in [
            "/fhir/Patient/p1",
            "/fhir/Patient?family=x",
            "/fhir/DocumentReference?patient=p1",
            "/fhir/Binary/ref-1",
        ] {
            let reply = client.get(path).await;
            assert_eq!(
                (reply.status.as_u16(), reply.issue().as_str()),
                (status, code),
                "{path}"
            );
            let shown = String::from_utf8_lossy(&reply.body).contains("story");
            assert_eq!(
                shown,
                matches!(class, Class::Invalid | Class::Unavailable),
                "{path} {class:?}"
            );
        }
    }
}

const CONSENT: &str = r#"{"resourceType":"Consent","status":"active","scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
 "category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],"patient":{"reference":"Patient/p1"},
 "policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]}}"#;

async fn post_consent(client: &Client, kind: &str, prefer: &str, body: impl Into<Body>) -> super::world::Reply {
    client
        .call(
            "POST",
            "/fhir/Consent",
            "office",
            &[("content-type", kind), ("prefer", prefer)],
            body,
        )
        .await
}

#[tokio::test]
async fn a_consent_is_recorded_read_and_found() {
    let client = Client::new();
    let reply = post_consent(&client, "application/fhir+json", "return=representation", CONSENT).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("location"), format!("{BASE}/Consent/consent-1"));
    assert_eq!(reply.json()["id"], "consent-1");
    let minimal = post_consent(&client, "application/json", "return=minimal", CONSENT).await;
    assert_eq!((minimal.status.as_u16(), minimal.body.len()), (201, 0));
    let told = post_consent(&client, "application/json", "return=OperationOutcome", CONSENT).await;
    assert_eq!((told.status.as_u16(), told.issue().as_str()), (201, "informational"));

    assert_eq!(client.get("/fhir/Consent/consent-1").await.json()["status"], "active");
    assert_eq!(client.get("/fhir/Consent/consent-9").await.status, 404);
    for (query, count) in [
        ("patient=p1", 3),
        ("patient=p1&status=active", 3),
        ("patient=p1&status=inactive", 0),
        ("patient=p1&status=active,inactive", 3),
        ("_id=consent-2", 1),
        ("patient.identifier=urn:a%7C1", 3),
    ] {
        assert_eq!(
            ids(&client.get(&format!("/fhir/Consent?{query}")).await.json()).len(),
            count,
            "{query}"
        );
    }
    let posted = client
        .post_form("/fhir/Consent/_search", "patient=p1&status=active")
        .await
        .json();
    assert_eq!(ids(&posted).len(), 3);
    assert_eq!(
        link(&posted, "self").unwrap(),
        format!("{BASE}/Consent?patient=&status=active")
    );
    assert_eq!(client.get("/fhir/Consent").await.status, 400);
}

#[tokio::test]
async fn spec_g_hostile_bad_consents_are_refused_and_not_recorded() {
    let client = Client::new();
    let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
    let large = format!("{{\"resourceType\":\"Consent\",\"x\":\"{}\"}}", "x".repeat(600_000));
    let twice = CONSENT.replacen(
        "\"status\":\"active\"",
        "\"status\":\"active\",\"status\":\"inactive\"",
        1,
    );
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("application/fhir+json", b"".to_vec(), 400),
        ("application/fhir+json", b"{".to_vec(), 400),
        ("application/fhir+json", b"\xff\xfe".to_vec(), 400),
        ("application/fhir+json", deep.into_bytes(), 400),
        ("application/fhir+json", twice.into_bytes(), 400),
        ("application/fhir+json", large.into_bytes(), 413),
        ("application/fhir+json", b"[]".to_vec(), 422),
        ("application/fhir+json", b"{\"resourceType\":\"Patient\"}".to_vec(), 422),
        (
            "application/fhir+json",
            CONSENT.replace("active", "perhaps").into_bytes(),
            422,
        ),
        ("application/fhir+xml", CONSENT.as_bytes().to_vec(), 415),
        ("", CONSENT.as_bytes().to_vec(), 415),
    ];
    for (at, (kind, body, status)) in cases.into_iter().enumerate() {
        let reply = post_consent(&client, kind, "", body).await;
        assert_eq!(reply.status, status, "case {at}");
        assert_eq!(reply.json()["resourceType"], "OperationOutcome", "case {at}");
    }
    assert!(client.twin.world().consents.is_empty());
}

#[tokio::test]
async fn spec_g_url_no_location_or_link_holds_patient_data() {
    let client = Client::over(partial());
    let reply = post_consent(&client, "application/fhir+json", "", CONSENT).await;
    assert!(!reply.header("location").contains("p1"));
    let bundle = client.get("/fhir/DocumentReference?patient=p1").await.json();
    for entry in bundle["entry"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["search"]["mode"] == "match")
    {
        let urls = format!(
            "{} {}",
            entry["fullUrl"], entry["resource"]["content"][0]["attachment"]["url"]
        );
        for personal in ["Okafor", "1961", "p1", "N"] {
            assert!(!urls.contains(personal), "{urls}");
        }
    }
    assert!(
        !bundle.to_string().contains("evil.example"),
        "the Host header makes no URL"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_clear_error() {
    let client = Client::new();
    let broken = stream::iter([
        Ok(Bytes::from_static(b"{\"resource")),
        Err(std::io::Error::other("gone")),
    ])
    .boxed();
    let request = Request::builder()
        .method("POST")
        .uri("/fhir/Consent")
        .header("authorization", super::world::basic("office"));
    let request = request
        .header("content-type", "application/fhir+json")
        .body(Body::from_stream(broken))
        .unwrap();
    assert_eq!(client.send(request).await.status, 400);
}
