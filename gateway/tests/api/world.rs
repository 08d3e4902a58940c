//! A small hospital as a twin, and a client for it.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hie_gateway::gate::{Gate, Settings};
use hie_gateway::ports::{Completeness, DocumentCard, DocumentRef, OrgAnswer, OrgState, Principal};
use hie_gateway::routes::router;
use hie_gateway::twins::{HeldDocument, Twin, World, body};
use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_protocol::id::{DocumentId, Millis, OrgId};
use hie_protocol::message::{Coding, DocumentMeta};
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Role, Sensitivity};
use serde_json::{Value, json};
use tower::ServiceExt;

pub const BASE: &str = "https://hie.example.org/fhir";
pub const DICOM_BASE: &str = "https://hie.example.org/dicom-web";
pub const LETTER: &[u8] = b"<html><script>steal()</script>Discharge letter</html>";
/// 2026-03-01T10:00:00Z.
pub const NOW: Millis = Millis(1_772_359_200_000);

pub struct Client {
    pub twin: Arc<Twin>,
    pub router: axum::Router,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The single issue code of an OperationOutcome.
    pub fn issue(&self) -> String {
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{outcome}");
        outcome["issue"][0]["code"].as_str().unwrap().to_owned()
    }
}

pub fn basic(account: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{account}:secret")))
}

impl Client {
    pub fn new() -> Self {
        Self::over(world())
    }

    pub fn over(world: World) -> Self {
        let twin = Twin::new(world);
        let settings = Settings {
            organisation: "North Hospital".into(),
            secure: true,
            emergency_minutes: 60,
            utc_offset_minutes: 0,
            fhir_base: BASE.into(),
            tell_withheld: false,
        };
        let router = router(Gate::new(twin.ports(), settings));
        Self { twin, router }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX)
            .await
            .unwrap_or_else(|_| Bytes::from_static(b"(broken off)"));
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        account: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "evil.example");
        if !account.is_empty() {
            request = request.header("authorization", basic(account));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "haddad", &[], Body::empty()).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.call("GET", path, "haddad", headers, Body::empty()).await
    }

    pub async fn post_form(&self, path: &str, form: &'static str) -> Reply {
        self.call(
            "POST",
            path,
            "haddad",
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        )
        .await
    }
}

pub fn org(number: u8) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.7.{number}")).unwrap()
}

pub fn silent() -> Vec<OrgAnswer> {
    let answer = |number, name: &str, state, phone: Option<&str>| OrgAnswer {
        org: org(number),
        name: name.into(),
        state,
        elapsed_ms: None,
        phone: phone.map(str::to_owned),
    };
    vec![
        answer(3, "Lakeside Clinic", OrgState::TimedOut(3000), Some("555 0199")),
        answer(4, "Harbour Imaging", OrgState::Offline(None), None),
    ]
}

fn principal(account: &str, role: Role) -> (String, String, Principal) {
    let principal = Principal {
        account: account.into(),
        name: account.into(),
        department: None,
        roles: vec![role],
    };
    (account.into(), "secret".into(), principal)
}

pub fn card(number: u8, created: u64) -> DocumentCard {
    let coding = |system: &str, code: &str| {
        Some(Coding {
            system: system.into(),
            code: code.into(),
            display: None,
        })
    };
    DocumentCard {
        reference: DocumentRef(format!("ref-{number}")),
        org: org(if number == 1 { 1 } else { 2 }),
        org_name: "South Hospital".into(),
        meta: DocumentMeta {
            id: DocumentId::new([number; 16]),
            class: DocumentClass::Note,
            kind: coding("http://loinc.org", if number == 1 { "18842-5" } else { "11502-2" }),
            category: coding("http://loinc.org", "11488-4"),
            format: coding(
                "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode",
                "urn:ihe:iti:xds:2017:mimeTypeSufficient",
            ),
            title: "Discharge letter".into(),
            author: Some("Dr Zoë Müller".into()),
            content_type: "text/html".into(),
            created: Some(Millis(created)),
            period: Some((Millis(created), Millis(created + 1000))),
            size: Some(LETTER.len() as u64),
            hash: Some(body("", Bytes::from_static(LETTER), 0).hash),
            confidentiality: if number == 1 {
                Confidentiality::Normal
            } else {
                Confidentiality::Restricted
            },
            sensitivity: if number == 1 {
                vec![]
            } else {
                vec![Sensitivity::Psychiatry]
            },
            imaging: None,
        },
    }
}

pub fn patient(id: &str, family: &str, given: &str, born: &str) -> Value {
    json!({
        "resourceType": "Patient", "id": id, "active": true, "gender": "female", "birthDate": born,
        "meta": { "versionId": "3" },
        "identifier": [{ "system": "urn:oid:2.999.7.1", "value": id }, { "system": "urn:oid:2.999.1", "value": format!("N{id}") }],
        "name": [{ "family": family, "given": [given] }],
        "telecom": [{ "system": "phone", "value": "555-0101" }],
        "address": [{ "line": ["1 Pier Road"], "city": "Seaford", "postalCode": "1234" }],
        "extension": [{ "url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName", "valueString": "Øster" }],
    })
}

pub fn world() -> World {
    let mut world = World::default();
    world.now = NOW;
    world.accounts = vec![
        principal("haddad", Role::Physician),
        principal("office", Role::ConsentAdministrator),
        principal("auditor", Role::Auditor),
        principal("feed", Role::System),
    ];
    world.tokens.insert("token-1".into(), principal("feed", Role::System).2);
    world.patients = vec![
        patient("p1", "Okafor", "Grace", "1961-03-14"),
        patient("p2", "O'Neil", "Zoé", "1980"),
        patient("p3", "Okafor-Smith", "Ann", "1999-12-31"),
    ];
    for (number, created) in [(1, 1_700_000_000_000), (2, 1_750_000_000_000)] {
        let card = card(number, created);
        let held = HeldDocument {
            card: card.clone(),
            content: Bytes::from_static(LETTER),
            study: None,
            instances: vec![],
        };
        world.documents.insert(card.reference, held);
    }
    world
}

pub fn partial() -> World {
    let mut world = world();
    world.search = Some(Completeness::Partial {
        silent: silent(),
        as_of: NOW,
    });
    world
}

pub fn series(slices: u32) -> CtSeries {
    CtSeries {
        study_uid: "1.2.3".into(),
        series_uid: "1.2.3.4".into(),
        patient_id: "MRN77".into(),
        patient_id_issuer: "north".into(),
        patient_name: "OKAFOR^Grace".into(),
        birth_date: "19610314".into(),
        sex: "F".into(),
        accession: "A1".into(),
        study_date: "20260301".into(),
        study_time: "101500".into(),
        study_description: "CT head".into(),
        series_description: "axial".into(),
        rows: 16,
        columns: 16,
        slices,
        seed: 7,
    }
}
