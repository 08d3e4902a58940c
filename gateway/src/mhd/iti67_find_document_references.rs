//! ITI-67 Find Document References (MHD 4.2, 2:3.67): one question to the whole region.
//!
//! The law: an answer that misses organisations says which (law 5); whatever the port returns is narrowed by every
//! parameter that the self link shows.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hie_protocol::id::OrgId;
use hie_protocol::message::Coding;
use serde_json::{Value, json};

use crate::fhir::bundle::{Asked, silence};
use crate::fhir::negotiate::Json;
use crate::fhir::pages::Pages;
use crate::fhir::parameters::{ParameterError, Search, Span, Token, narrowest, overlaps, within};
use crate::gate::Gate;
use crate::mhd::document_reference::{URI, labels, resource, uuid_urn};
use crate::pdqm::matching::fold;
use crate::ports::{Caller, DocumentCard, DocumentFilter, DocumentRef, PatientSelector};
use crate::respond::{Dialect, failed};

/// Search parameters. `event`, `facility`, `setting` and `related` are left out: custodians do not state them.
pub const PARAMETERS: &[(&str, &str)] = &[
    ("author.family", "string"),
    ("author.given", "string"),
    ("category", "token"),
    ("creation", "date"),
    ("date", "date"),
    ("format", "token"),
    ("identifier", "token"),
    ("patient", "reference"),
    ("patient.identifier", "token"),
    ("period", "date"),
    ("security-label", "token"),
    ("status", "token"),
    ("targetCommunityIdList", "uri"),
    ("type", "token"),
];

/// Searches.
pub async fn search(State(gate): State<Gate>, caller: Caller, search: Search, pages: Arc<Pages>) -> Response {
    match find(&gate, &caller, search, &pages).await {
        Ok(response) | Err(response) => response,
    }
}

async fn find(gate: &Gate, caller: &Caller, search: Search, pages: &Pages) -> Result<Response, Response> {
    let bad = |error: ParameterError| error.respond(gate);
    let asked = Asked::new(gate, caller, "DocumentReference", PARAMETERS, search, pages).map_err(bad)?;
    let patient = asked.search.patient().map_err(bad)?;
    let criteria = Criteria::read(&asked.search).map_err(bad)?;
    if !criteria.current {
        // Documents that a custodian grants are current: nothing else is published, and nobody needs to be asked.
        return Ok(asked.respond(&[], None));
    }
    let answer = gate
        .ports
        .records
        .documents(caller, patient.clone(), criteria.filter())
        .await;
    let answer = answer.map_err(|error| failed(gate, Dialect::Fhir, &error))?;
    let mut documents: Vec<DocumentCard> = answer
        .documents
        .into_iter()
        .filter(|card| criteria.meets(card))
        .collect();
    documents.sort_by(|left, right| {
        right
            .meta
            .created
            .cmp(&left.meta.created)
            .then_with(|| left.reference.cmp(&right.reference))
    });
    let subject = match (answer.patient, patient) {
        (Some(id), _) | (None, PatientSelector::Id(id)) => {
            json!({ "type": "Patient", "reference": format!("Patient/{id}") })
        }
        (None, PatientSelector::Identifier { system, value }) => {
            json!({ "type": "Patient", "identifier": { "system": system, "value": value } })
        }
    };
    let base = &gate.settings.fhir_base;
    let resources: Vec<Value> = documents
        .iter()
        .map(|card| resource(card, subject.clone(), base))
        .collect();
    Ok(asked.respond(&resources, silence(&answer.completeness)))
}

/// Reads one DocumentReference. Its subject is not repeated outside a search about that patient.
pub async fn read(State(gate): State<Gate>, caller: Caller, _json: Json, Path(id): Path<String>) -> Response {
    match gate.ports.records.card(&caller, &DocumentRef(id)).await {
        Ok(card) => {
            let absent = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";
            let subject = json!({ "type": "Patient", "extension": [{ "url": absent, "valueCode": "unknown" }] });
            crate::fhir::answer(StatusCode::OK, &resource(&card, subject, &gate.settings.fhir_base))
        }
        Err(error) => failed(&gate, Dialect::Fhir, &error),
    }
}

/// The parameters of one search: lists of alternatives that must all hold.
struct Criteria {
    current: bool,
    kind: Vec<Vec<Token>>,
    category: Vec<Vec<Token>>,
    format: Vec<Vec<Token>>,
    label: Vec<Vec<Token>>,
    identifier: Vec<Vec<Token>>,
    authors: Vec<Vec<String>>,
    created: Vec<Span>,
    period: Vec<Span>,
    communities: Vec<OrgId>,
}

impl Criteria {
    fn read(search: &Search) -> Result<Self, ParameterError> {
        let statuses = search.tokens("status")?;
        let mut created = search.dates("creation")?;
        // A custodian states one time: the document's creation is the date of its entry as well.
        created.extend(search.dates("date")?);
        let mut authors = search.all("author.family")?;
        authors.extend(search.all("author.given")?);
        let mut communities = Vec::new();
        for text in search.all("targetCommunityIdList")?.into_iter().flatten() {
            communities.push(OrgId::parse(&text).map_err(|_| ParameterError::Community("targetCommunityIdList"))?);
        }
        Ok(Self {
            current: statuses
                .iter()
                .all(|group| group.iter().any(|token| token.code == "current")),
            kind: search.tokens("type")?,
            category: search.tokens("category")?,
            format: search.tokens("format")?,
            label: search.tokens("security-label")?,
            identifier: search.tokens("identifier")?,
            authors,
            created,
            period: search.dates("period")?,
            communities,
        })
    }

    /// What the port filters by: never narrower than the criteria. Of repeated parameters it takes the first.
    fn filter(&self) -> DocumentFilter {
        let first = |groups: &Vec<Vec<Token>>| -> Vec<(String, String)> {
            let tokens = groups.first().map(Vec::as_slice).unwrap_or_default();
            // The port has no form for "any code of a system": then it must not filter at all.
            if tokens.iter().any(|token| token.code.is_empty()) {
                return Vec::new();
            }
            tokens
                .iter()
                .map(|token| (token.system.clone().unwrap_or_default(), token.code.clone()))
                .collect()
        };
        DocumentFilter {
            kind: first(&self.kind),
            category: first(&self.category),
            format: first(&self.format),
            security_label: first(&self.label),
            created: narrowest(&self.created),
            period: narrowest(&self.period),
            communities: self.communities.clone(),
        }
    }

    fn meets(&self, card: &DocumentCard) -> bool {
        let meta = &card.meta;
        let coded = |groups: &[Vec<Token>], coding: Option<&Coding>| {
            groups.iter().all(|group| {
                coding.is_some_and(|coding| group.iter().any(|token| token.is(&coding.system, &coding.code)))
            })
        };
        let labels = labels(card);
        let master = uuid_urn(&meta.id);
        let words: Vec<String> = fold(meta.author.as_deref().unwrap_or_default())
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let wrote = |name: &String| words.iter().any(|word| word.starts_with(&fold(name)));
        coded(&self.kind, meta.kind.as_ref())
            && coded(&self.category, meta.category.as_ref())
            && coded(&self.format, meta.format.as_ref())
            && self.label.iter().all(|group| {
                group
                    .iter()
                    .any(|token| labels.iter().any(|(system, code)| token.is(system, code)))
            })
            && self
                .identifier
                .iter()
                .all(|group| group.iter().any(|token| token.is(URI, &master)))
            && self.authors.iter().all(|group| group.iter().any(wrote))
            && (self.created.is_empty() || meta.created.is_some_and(|created| within(created, &self.created)))
            && (self.period.is_empty() || meta.period.is_some_and(|period| overlaps(period, &self.period)))
            && (self.communities.is_empty() || self.communities.contains(&card.org))
    }
}
