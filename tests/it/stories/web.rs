//! The standard doors over real HTTP: FHIR and DICOMweb with an account of the node, and the sign-in page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_gateway_dialect::multipart::{MultipartType, PARTS_MAX, parse};
use hie_tests::region::{Node, PASSWORD, Region, until};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const FHIR: &str = "application/fhir+json";

struct Web {
    client: Client,
    base: String,
}

impl Web {
    fn of(node: &Node) -> Self {
        // Another test of this process may have installed it.
        let _kept = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            client,
            base: format!("http://{}", node.web),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        account: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        let path = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self
            .client
            .request(method, path)
            .basic_auth(account, Some(PASSWORD))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, "haddad", &[], Vec::new()).await
    }

    #[track_caller]
    fn json(&self, path: &str) -> impl Future<Output = Value> {
        let (asked, path) = (self.get(path), path.to_owned());
        async move {
            let reply = asked.await;
            let (status, text) = (reply.status(), reply.text().await.unwrap());
            assert!(status.is_success(), "{path}: {status}: {text}");
            serde_json::from_str(&text).unwrap()
        }
    }
}

fn resources(bundle: &Value) -> Vec<Value> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .filter(|entry| entry["search"]["mode"] == "match")
        .map(|entry| entry["resource"].clone())
        .collect()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--B\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

/// SHA-256 that a DocumentReference announces, when its content is fixed.
fn announced(document: &Value) -> Option<Vec<u8>> {
    let extensions = document["content"][0]["attachment"]["extension"].as_array()?;
    let name = extensions
        .iter()
        .find_map(|extension| extension["valueUri"].as_str()?.strip_prefix("ni:///sha-256;"))?;
    Some(URL_SAFE_NO_PAD.decode(name).unwrap())
}

fn custodian(document: &Value) -> &str {
    document["custodian"]["identifier"]["value"].as_str().unwrap()
}

async fn documents_of_the_region(web: &Web, patient: &str) {
    let wanted = [Site::CityGeneral, Site::StAnne, Site::HarbourGp];
    let found = until("the search gives documents of all three", || async {
        let bundle = web
            .json(&format!("/fhir/DocumentReference?patient={patient}&status=current"))
            .await;
        let documents = resources(&bundle);
        let whole = wanted
            .iter()
            .all(|site| documents.iter().any(|document| custodian(document) == site.urn()));
        (whole && !bundle.to_string().contains("OperationOutcome")).then_some(documents)
    })
    .await;
    let mut compared = 0;
    for document in &found {
        let Some(hash) = announced(document) else { continue };
        let reply = web
            .get(document["content"][0]["attachment"]["url"].as_str().unwrap())
            .await;
        assert_eq!(reply.status(), 200, "{document:#}");
        assert_eq!(
            reply.headers()[CONTENT_TYPE],
            document["content"][0]["attachment"]["contentType"].as_str().unwrap()
        );
        assert_eq!(
            Sha256::digest(reply.bytes().await.unwrap()).to_vec(),
            hash,
            "{document:#}"
        );
        compared += 1;
    }
    assert!(compared >= 3, "{compared} documents compared");
    let unknown = web.get("/fhir/Binary/none").await;
    assert_eq!(unknown.status(), 404);
}

async fn choices(web: &Web, patient: &str) {
    let code = |system: &str, code: &str| json!({ "coding": [{ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code }] });
    let consent = json!({
        "resourceType": "Consent", "status": "active", "scope": code("consentscope", "patient-privacy"),
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
        "patient": { "reference": format!("Patient/{patient}") }, "policyRule": code("v3-ActCode", "OPTIN"),
    });
    let headers = [("content-type", FHIR), ("prefer", "return=representation")];
    let refused = web
        .send(
            Method::POST,
            "/fhir/Consent",
            "haddad",
            &headers,
            consent.to_string().into_bytes(),
        )
        .await;
    assert_eq!(refused.status(), 403, "a physician records no consent");
    let made = web
        .send(
            Method::POST,
            "/fhir/Consent",
            "ruiz",
            &headers,
            consent.to_string().into_bytes(),
        )
        .await;
    assert_eq!(made.status(), 201);
    let location = made.headers()[LOCATION].to_str().unwrap().to_owned();
    let id = made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    assert!(
        location.starts_with(&format!("{}/fhir/Consent/{id}", web.base)),
        "{location}"
    );
    assert_eq!(web.json(&format!("/fhir/Consent/{id}")).await["status"], "active");
    assert_eq!(
        resources(&web.json(&format!("/fhir/Consent?patient={patient}")).await).len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_retrieve_fhir_gives_documents_of_the_region_byte_for_byte() {
    let region = Region::new().await;
    let sites = [Site::CityGeneral, Site::StAnne, Site::HarbourGp];
    let mut nodes = Vec::new();
    for site in sites {
        nodes.push(region.join(site).await);
    }
    for (node, site) in nodes.iter().zip(sites) {
        region.fill(node, site).await;
    }
    let web = Web::of(&nodes[0]);
    let statement = web.json("/fhir/metadata").await;
    assert_eq!(
        (statement["resourceType"].as_str(), statement["fhirVersion"].as_str()),
        (Some("CapabilityStatement"), Some("4.0.1"))
    );
    assert_eq!(
        web.client
            .get(format!("{}/fhir/Patient?family=Okafor", web.base))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    let bundle = web
        .json("/fhir/Patient?family=Okafor&given=Grace&birthdate=1961-03-14")
        .await;
    let patients = resources(&bundle);
    assert_eq!(patients.len(), 1, "{bundle:#}");
    let patient = patients[0]["id"].as_str().unwrap();
    documents_of_the_region(&web, patient).await;
    choices(&web, patient).await;

    // The purpose is a closed word, and an emergency is declared whole.
    let search = format!("/fhir/DocumentReference?patient={patient}&status=current");
    for (headers, status) in [
        (vec![("x-hie-purpose", "CURIOSITY")], 400),
        (vec![("x-hie-purpose", "BTG")], 400),
        (vec![("x-hie-emergency-reason", "life-at-risk")], 400),
        (
            vec![("x-hie-purpose", "BTG"), ("x-hie-emergency-reason", "life-at-risk")],
            400,
        ),
        (
            vec![
                ("x-hie-purpose", "BTG"),
                ("x-hie-emergency-reason", "life-at-risk"),
                ("x-hie-emergency-words", "Unconscious"),
            ],
            200,
        ),
        (vec![("x-hie-purpose", "TREAT")], 200),
    ] {
        assert_eq!(
            web.send(Method::GET, &search, "haddad", &headers, Vec::new())
                .await
                .status(),
            status,
            "{headers:?}"
        );
    }
    for mut node in nodes {
        node.verify().await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_in_and_go_out_over_dicomweb_unchanged() {
    let region = Region::new().await;
    let mut node = region.join(Site::NorthImaging).await;
    let web = Web::of(&node);
    let people = Region::population();
    let series = people
        .into_iter()
        .flat_map(|person| person.records)
        .find_map(|record| record.series)
        .unwrap();
    let files: Vec<Vec<u8>> = (1..=3).map(|number| series.file(number)).collect();
    let kind = "multipart/related; type=\"application/dicom\"; boundary=B";
    let headers = [("content-type", kind), ("accept", "application/dicom+json")];
    let stored = web
        .send(Method::POST, "/dicom-web/studies", "it", &headers, form(&files))
        .await;
    assert_eq!(stored.status(), 200);
    let fates = stored.json::<Value>().await.unwrap();
    assert_eq!(fates["00081199"]["Value"].as_array().unwrap().len(), 3, "{fates:#}");
    let refused = web
        .send(Method::POST, "/dicom-web/studies", "silva", &headers, form(&[]))
        .await;
    assert_eq!(refused.status(), 403);

    let studies = web
        .json(&format!("/dicom-web/studies?PatientID={}", series.patient_id))
        .await;
    assert_eq!(studies[0]["0020000D"]["Value"][0], series.study_uid.as_str());
    let instances = web
        .json(&format!("/dicom-web/studies/{}/instances", series.study_uid))
        .await;
    assert_eq!(instances.as_array().unwrap().len(), 3);

    let path = format!("/dicom-web/studies/{}", series.study_uid);
    let accept = [(
        ACCEPT.as_str(),
        "multipart/related; type=\"application/dicom\"; transfer-syntax=*",
    )];
    let reply = web.send(Method::GET, &path, "haddad", &accept, Vec::new()).await;
    assert_eq!(reply.status(), 200);
    let kind = MultipartType::parse(reply.headers()[CONTENT_TYPE].to_str().unwrap()).unwrap();
    let parts = parse(&reply.bytes().await.unwrap(), &kind.boundary, PARTS_MAX).unwrap();
    let mut came: Vec<Vec<u8>> = parts.into_iter().map(|(_, bytes)| bytes).collect();
    let mut went = files;
    came.sort();
    went.sort();
    assert!(came == went, "the retrieved bytes differ from the stored");
    node.verify().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_with_the_right_password_only() {
    let region = Region::new().await;
    let mut node = region.join(Site::CityGeneral).await;
    let web = Web::of(&node);
    let page = web.client.get(format!("{}/sign-in", web.base)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers().contains_key("content-security-policy"));
    let text = page.text().await.unwrap();
    assert!(
        text.contains("name=\"password\"") && text.contains(Site::CityGeneral.name()),
        "{text}"
    );
    let without = web.client.get(format!("{}/find", web.base)).send().await.unwrap();
    assert_eq!(
        (without.status().as_u16(), without.headers()[LOCATION].to_str().unwrap()),
        (303, "/sign-in")
    );
    let submit = async |password: &str| {
        let body = format!("account=haddad&password={}", password.replace(' ', "+"));
        let request = web
            .client
            .post(format!("{}/sign-in", web.base))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(body).send().await.unwrap()
    };
    let right = submit(PASSWORD).await;
    assert_eq!(right.status(), 303);
    let cookie = right.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    let find = web
        .client
        .get(format!("{}/find", web.base))
        .header("cookie", cookie)
        .send()
        .await
        .unwrap();
    assert!(find.text().await.unwrap().contains("Dr A. Haddad"));
    let wrong = submit("correct horse").await;
    assert_eq!(wrong.status(), 401);
    assert!(!wrong.headers().contains_key(SET_COOKIE));
    let text = wrong.text().await.unwrap();
    assert!(text.contains("not right") && !text.contains("correct horse"));
    node.stop().await;
}
