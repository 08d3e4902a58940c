//! A small invented region for tests and examples: seven organisations, one patient who is known at four of them.

use bytes::Bytes;
use hie_protocol::id::{DocumentId, Millis, OrgId};
use hie_protocol::message::{Demographics, DocumentMeta, MatchGrade, PersonAddress, PersonName};
use hie_protocol::record::ImagingSummary;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Role};
use serde_json::{Value, json};

use crate::ports::{
    Completeness, DocumentCard, DocumentRef, OrgAnswer, OrgState, PersonHit, Principal, RecordEvent, SubjectRef,
};
use crate::twins::{HeldDocument, World};

/// 22-Nov-2026 13:32:00 UTC.
pub const NOW: Millis = Millis(1_795_354_320_000);
/// Handle of the patient.
pub const GRACE: &str = "grace-handle";

const SNOMED: &str = "http://snomed.info/sct";
const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";

/// A summary under construction.
#[derive(Default)]
pub struct Summary {
    entries: Vec<Value>,
    born: Option<&'static str>,
}

impl Summary {
    /// An empty summary of the patient.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another birth date than the patient's.
    #[must_use]
    pub fn born(mut self, date: &'static str) -> Self {
        self.born = Some(date);
        self
    }

    fn push(mut self, kind: &str, mut resource: Value) -> Self {
        let id = format!("{}-{}", kind.to_lowercase(), self.entries.len());
        if let Some(map) = resource.as_object_mut() {
            map.insert("resourceType".to_owned(), kind.into());
            map.insert("id".to_owned(), id.as_str().into());
        }
        self.entries
            .push(json!({ "fullUrl": format!("urn:uuid:{id}"), "resource": resource }));
        self
    }

    /// A coded allergy with its reaction; `severity` is `mild`, `moderate` or `severe`.
    #[must_use]
    pub fn allergy(self, code: &str, name: &str, reaction: Option<(&str, &str)>, recorded: &str) -> Self {
        let reactions: Vec<Value> = reaction
            .iter()
            .map(|(words, severity)| json!({ "manifestation": [{ "text": words }], "severity": severity }))
            .collect();
        self.push("AllergyIntolerance", json!({
            "clinicalStatus": { "coding": [{ "code": "active" }] }, "verificationStatus": { "coding": [{ "code": "confirmed" }] },
            "code": { "coding": [{ "system": SNOMED, "code": code, "display": name }] }, "recordedDate": recorded, "reaction": reactions,
        }))
    }

    /// An allergy as free text.
    #[must_use]
    pub fn typed_allergy(self, words: &str, recorded: &str) -> Self {
        self.push(
            "AllergyIntolerance",
            json!({ "code": { "text": words }, "recordedDate": recorded }),
        )
    }

    /// An allergy that a test refuted.
    #[must_use]
    pub fn refuted(self, code: &str, name: &str, recorded: &str) -> Self {
        self.push(
            "AllergyIntolerance",
            json!({
                "verificationStatus": { "coding": [{ "code": "refuted" }] },
                "code": { "coding": [{ "system": SNOMED, "code": code, "display": name }] }, "recordedDate": recorded,
            }),
        )
    }

    /// The statement that no allergies are known.
    #[must_use]
    pub fn no_known_allergies(self, recorded: &str) -> Self {
        self.push("AllergyIntolerance", json!({
            "clinicalStatus": { "coding": [{ "code": "active" }] },
            "code": { "coding": [{ "system": SNOMED, "code": "716186003", "display": "No known allergy" }] }, "recordedDate": recorded,
        }))
    }

    /// A prescription.
    #[must_use]
    pub fn medication(self, status: &str, code: &str, name: &str, dose: &str, authored: &str) -> Self {
        self.push(
            "MedicationRequest",
            json!({
                "status": status, "intent": "order", "authoredOn": authored, "dosageInstruction": [{ "text": dose }],
                "medicationCodeableConcept": { "coding": [{ "system": RXNORM, "code": code, "display": name }] },
            }),
        )
    }

    /// A problem; `ended` makes it resolved.
    #[must_use]
    pub fn problem(self, code: &str, name: &str, onset: &str, ended: Option<&str>) -> Self {
        let status = if ended.is_some() { "resolved" } else { "active" };
        let mut resource = json!({
            "clinicalStatus": { "coding": [{ "code": status }] }, "onsetDateTime": onset,
            "code": { "coding": [{ "system": SNOMED, "code": code, "display": name }] },
        });
        if let (Some(ended), Some(map)) = (ended, resource.as_object_mut()) {
            map.insert("abatementDateTime".to_owned(), ended.into());
        }
        self.push("Condition", resource)
    }

    /// A visit.
    #[must_use]
    pub fn visit(self, day: &str, why: &str) -> Self {
        self.push("Encounter", json!({ "status": "finished", "class": { "code": "AMB" }, "type": [{ "text": why }], "period": { "start": day, "end": day } }))
    }

    /// The document Bundle.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let mut entries = vec![
            json!({ "fullUrl": "urn:uuid:composition", "resource": { "resourceType": "Composition", "id": "composition", "status": "final",
                "type": { "coding": [{ "system": "http://loinc.org", "code": "60591-5" }] }, "subject": { "reference": "urn:uuid:patient" },
                "date": "2026-11-22T13:00:00Z", "title": "Summary" } }),
            json!({ "fullUrl": "urn:uuid:patient", "resource": { "resourceType": "Patient", "id": "patient",
                "name": [{ "family": "Okafor", "given": ["Grace"] }], "gender": "female", "birthDate": self.born.unwrap_or("1961-03-14") } }),
        ];
        entries.extend(self.entries.iter().cloned());
        Bytes::from(json!({ "resourceType": "Bundle", "type": "document", "entry": entries }).to_string())
    }
}

/// An organisation of the region by its number.
#[must_use]
pub fn org(number: usize) -> OrgId {
    let parsed = OrgId::parse(&format!("urn:oid:2.999.{}", number.saturating_add(1)));
    #[expect(clippy::expect_used, reason = "the text is an OID URN for every number")]
    parsed.expect("an OID URN")
}

/// An organisation in an answer.
#[must_use]
pub fn answer(number: usize, name: &str, state: OrgState, elapsed_ms: u64) -> OrgAnswer {
    let elapsed_ms = (!state.is_silent() && state != OrgState::Waiting).then_some(elapsed_ms);
    OrgAnswer {
        org: org(number),
        name: name.to_owned(),
        state,
        elapsed_ms,
        phone: None,
    }
}

/// The event of an organisation that answered with a summary.
#[must_use]
pub fn answered(number: usize, name: &str, summary: &Summary) -> RecordEvent {
    organisation(
        answer(number, name, OrgState::Answered, 100 + 200 * number as u64),
        Some(summary.bytes()),
        Vec::new(),
    )
}

/// The event of an organisation.
#[must_use]
pub fn organisation(answer: OrgAnswer, summary: Option<Bytes>, documents: Vec<DocumentCard>) -> RecordEvent {
    RecordEvent::Organisation {
        answer,
        documents,
        demographics: None,
        summary,
        obligations: Vec::new(),
        more_on_emergency: false,
    }
}

/// Asks these organisations.
#[must_use]
pub fn asking(names: &[&str]) -> RecordEvent {
    RecordEvent::Asking(
        names
            .iter()
            .enumerate()
            .map(|(number, name)| answer(number, name, OrgState::Waiting, 0))
            .collect(),
    )
}

/// A document of an organisation.
#[must_use]
pub fn card(
    number: usize,
    org_name: &str,
    reference: &str,
    title: &str,
    class: DocumentClass,
    content_type: &str,
    created: u64,
) -> DocumentCard {
    let imaging = (class == DocumentClass::Imaging).then(|| ImagingSummary {
        study_uid: format!("2.999.7.{reference}"),
        modalities: vec!["CR".to_owned()],
        body_part: Some("CHEST".to_owned()),
        series: 1,
        instances: 2,
    });
    DocumentCard {
        reference: DocumentRef(reference.to_owned()),
        org: org(number),
        org_name: org_name.to_owned(),
        meta: DocumentMeta {
            id: DocumentId::new([1; 16]),
            class,
            kind: None,
            category: None,
            format: None,
            title: title.to_owned(),
            author: Some("Dr B. Cole".to_owned()),
            content_type: content_type.to_owned(),
            created: Some(Millis(created)),
            period: None,
            size: None,
            hash: None,
            confidentiality: Confidentiality::Normal,
            sensitivity: Vec::new(),
            imaging,
        },
    }
}

/// The patient as found.
#[must_use]
pub fn grace() -> PersonHit {
    let name = PersonName {
        family: "Okafor".to_owned(),
        given: vec!["Grace".to_owned()],
        prefix: Some("Ms".to_owned()),
        suffix: None,
    };
    let address = PersonAddress {
        lines: vec!["12 Elm Road".to_owned()],
        city: Some("Northport".to_owned()),
        ..PersonAddress::default()
    };
    PersonHit {
        subject: SubjectRef(GRACE.to_owned()),
        demographics: Demographics {
            names: vec![name],
            birth_date: Some("1961-03-14".to_owned()),
            sex: Some("female".to_owned()),
            addresses: vec![address],
            ..Demographics::default()
        },
        grade: MatchGrade::Certain,
        differs: Vec::new(),
        record_number: Some("482 193 0075".to_owned()),
        patient: Some("p-grace".to_owned()),
        known_at: ["City General", "St Anne Hospital", "Harbour GP", "Mercy Walk-in"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// The names of the seven.
pub const NAMES: [&str; 7] = [
    "City General",
    "St Anne Hospital",
    "Harbour GP",
    "Mercy Walk-in",
    "Eastside Labs",
    "Lakeside Clinic",
    "North Imaging",
];

fn city_general() -> Summary {
    Summary::new()
        .allergy("91936005", "Penicillin", Some(("anaphylaxis", "severe")), "2021-05-01")
        .medication("active", "855332", "Warfarin", "5 mg once a day", "2026-10-02")
        .problem("49436004", "Atrial fibrillation", "2019-04-01", None)
}

fn st_anne() -> Summary {
    Summary::new()
        .allergy("91936005", "Penicillin", Some(("anaphylaxis", "severe")), "2016-02-01")
        .allergy("1003755004", "Latex", Some(("rash", "moderate")), "2018-03-01")
        .medication("active", "6809", "Metformin", "500 mg twice a day", "2025-06-14")
        .medication(
            "active",
            "435",
            "Salbutamol inhaler",
            "2 puffs as required",
            "2025-06-14",
        )
        .problem("195967001", "Asthma", "1974-01-01", None)
        .visit("2025-06-14", "admitted 3 days, AF")
}

fn harbour() -> Summary {
    Summary::new()
        .no_known_allergies("2019-01-12")
        .typed_allergy("codeine", "2012-07-01")
        .medication("active", "855332", "Warfarin", "5 mg once a day", "2026-11-02")
        .medication("active", "6809", "Metformin", "1 g twice a day", "2026-11-02")
        .medication("active", "19484", "Bisoprolol", "2.5 mg once a day", "2026-11-02")
        .medication("active", "35296", "Ramipril", "5 mg once a day", "2026-11-02")
        .medication("stopped", "8134", "Omeprazole", "20 mg once a day", "2024-01-02")
        .problem("44054006", "Type 2 diabetes", "2011-06-01", None)
        .problem("38341003", "Hypertension", "2008-06-01", None)
        .visit("2026-11-02", "review")
}

fn mercy() -> Summary {
    Summary::new()
        .medication("active", "21212", "Clarithromycin", "500 mg twice a day", "2026-11-19")
        .visit("2026-11-19", "chest infection")
}

/// What opening the patient's record brings: five answers, two silent, conflicts between them.
#[must_use]
pub fn conflicting() -> Vec<RecordEvent> {
    let xray = card(
        3,
        NAMES[3],
        "xray",
        "Chest X-ray",
        DocumentClass::Imaging,
        "application/dicom",
        1_795_046_400_000,
    );
    let letter = card(
        1,
        NAMES[1],
        "letter",
        "Discharge letter",
        DocumentClass::Note,
        "text/plain",
        1_750_118_400_000,
    );
    let report = card(
        3,
        NAMES[3],
        "report",
        "Chest X-ray report",
        DocumentClass::Report,
        "application/pdf",
        1_795_046_400_000,
    );
    let silent = vec![
        answer(5, NAMES[5], OrgState::TimedOut(5_000), 0),
        answer(6, NAMES[6], OrgState::Offline(Some(Millis(NOW.0 - 37_320_000))), 0),
    ];
    let with = |number: usize, summary: &Summary, documents| {
        organisation(
            answer(
                number,
                NAMES.get(number).copied().unwrap_or_default(),
                OrgState::Answered,
                100 + 200 * number as u64,
            ),
            Some(summary.bytes()),
            documents,
        )
    };
    vec![
        asking(&NAMES),
        with(0, &city_general(), Vec::new()),
        with(1, &st_anne(), vec![letter]),
        with(2, &harbour(), Vec::new()),
        with(3, &mercy(), vec![xray, report]),
        organisation(answer(4, NAMES[4], OrgState::NoRecord, 700), None, Vec::new()),
        RecordEvent::Done(Completeness::Partial { silent, as_of: NOW }),
    ]
}

/// A user with one role.
#[must_use]
pub fn user(account: &str, name: &str, department: Option<&str>, role: Role) -> (String, String, Principal) {
    let principal = Principal {
        account: account.to_owned(),
        name: name.to_owned(),
        department: department.map(str::to_owned),
        roles: vec![role],
    };
    (account.to_owned(), "correct horse".to_owned(), principal)
}

/// The region: users `haddad`, `ruiz`, `silva`, `okoye`, password `correct horse`.
#[must_use]
pub fn world() -> World {
    let mut world = World {
        now: NOW,
        accounts: vec![
            user("haddad", "Dr A. Haddad", Some("Emergency"), Role::Physician),
            user("ruiz", "M. Ruiz", None, Role::ConsentAdministrator),
            user("silva", "R. Silva", None, Role::Auditor),
            user("okoye", "T. Okoye", None, Role::Operator),
        ],
        people: vec![grace()],
        organisations: NAMES
            .iter()
            .enumerate()
            .map(|(number, name)| (org(number), (*name).to_owned()))
            .collect(),
        ..World::default()
    };
    world.records.insert(SubjectRef(GRACE.to_owned()), conflicting());
    world.health.name = "City General".to_owned();
    world.health.region = "Northport Region".to_owned();
    for event in conflicting() {
        if let RecordEvent::Organisation { documents, .. } = event {
            for card in documents {
                let content = Bytes::from_static(b"Dear colleague, <script>alert(1)</script>");
                world.documents.insert(
                    card.reference.clone(),
                    HeldDocument {
                        card,
                        content,
                        study: None,
                        instances: Vec::new(),
                    },
                );
            }
        }
    }
    world
}
