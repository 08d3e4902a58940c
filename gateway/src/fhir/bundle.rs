//! Searchset Bundles (FHIR R4 bundle.html section 2.36.4.1) and the OperationOutcome that names what is missing.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::console::words;
use crate::fhir::pages::Pages;
use crate::fhir::parameters::{ParameterError, Search, escape};
use crate::gate::Gate;
use crate::ports::{Caller, Completeness, OrgAnswer, OrgState};

/// One search: what was asked, by whom, and where it goes on.
pub struct Asked<'a> {
    /// Gate.
    pub gate: &'a Gate,
    /// Caller.
    pub caller: &'a Caller,
    /// Resource type.
    pub kind: &'static str,
    /// Parameters that are honoured.
    pub known: &'static [(&'static str, &'static str)],
    /// The search, its page link opened.
    pub search: Search,
    /// First entry.
    pub offset: usize,
    /// Entries of a page.
    pub count: usize,
    /// Page links.
    pub pages: &'a Pages,
}

impl<'a> Asked<'a> {
    /// Opens a search: page link, page size, strictness.
    pub fn new(
        gate: &'a Gate,
        caller: &'a Caller,
        kind: &'static str,
        known: &'static [(&'static str, &'static str)],
        search: Search,
        pages: &'a Pages,
    ) -> Result<Self, ParameterError> {
        let (search, offset) = pages.open(gate, &caller.principal.account, kind, search)?;
        search.check(known)?;
        let count = search.count()?;
        Ok(Self {
            gate,
            caller,
            kind,
            known,
            search,
            offset,
            count,
            pages,
        })
    }

    /// The answer: one page of the resources, and the outcome where something is missing.
    #[must_use]
    pub fn respond(&self, resources: &[Value], outcome: Option<Value>) -> Response {
        let base = &self.gate.settings.fhir_base;
        let page: &[Value] = resources.get(self.offset..).unwrap_or_default();
        let page = page.get(..self.count.min(page.len())).unwrap_or_default();
        let entry = |resource: &Value| {
            let id = resource.get("id").and_then(Value::as_str).unwrap_or_default();
            json!({ "fullUrl": format!("{base}/{}/{}", self.kind, escape(id)), "resource": resource, "search": { "mode": "match" } })
        };
        let mut entries: Vec<Value> = page.iter().map(entry).collect();
        if let Some(outcome) = outcome {
            entries.push(json!({ "resource": outcome, "search": { "mode": "outcome" } }));
        }
        let mut bundle = Map::new();
        bundle.insert("resourceType".to_owned(), "Bundle".into());
        bundle.insert("meta".to_owned(), json!({ "lastUpdated": instant(self.gate.now()) }));
        bundle.insert("type".to_owned(), "searchset".into());
        bundle.insert("total".to_owned(), resources.len().into());
        bundle.insert("link".to_owned(), self.links(resources.len()));
        // FHIR knows no empty arrays.
        if !entries.is_empty() {
            bundle.insert("entry".to_owned(), entries.into());
        }
        super::answer(StatusCode::OK, &Value::Object(bundle))
    }

    fn links(&self, total: usize) -> Value {
        let address = format!("{}/{}", self.gate.settings.fhir_base, self.kind);
        let query = self.search.honoured(self.known);
        let here = if query.is_empty() {
            address.clone()
        } else {
            format!("{address}?{query}")
        };
        let mut links = vec![json!({ "relation": "self", "url": here })];
        let mut page = |relation: &str, offset| {
            let token = self.pages.seal(
                self.gate,
                &self.caller.principal.account,
                self.kind,
                &self.search,
                offset,
            );
            links.extend(token.map(|token| json!({ "relation": relation, "url": format!("{address}?_page={token}") })));
        };
        if self.count > 0 && self.offset > 0 {
            page("previous", self.offset.saturating_sub(self.count));
        }
        let next = self.offset.saturating_add(self.count);
        if self.count > 0 && next < total {
            page("next", next);
        }
        links.into()
    }
}

/// A FHIR instant in UTC.
#[must_use]
pub fn instant(at: hie_protocol::id::Millis) -> String {
    format!("{}T{}Z", words::iso_day(at, 0), words::clock_seconds(at, 0))
}

/// The OperationOutcome of a partial answer: one issue for each silent organisation; none for a complete one.
#[must_use]
pub fn silence(completeness: &Completeness) -> Option<Value> {
    match completeness {
        Completeness::Complete { .. } => None,
        Completeness::Partial { silent, .. } if silent.is_empty() => Some(json!({
            "resourceType": "OperationOutcome",
            "issue": [{ "severity": "warning", "code": "incomplete",
                "details": { "text": "Part of the region's index did not answer: documents may be missing." } }],
        })),
        Completeness::Partial { silent, .. } => {
            let issues: Vec<Value> = silent.iter().map(issue).collect();
            Some(json!({ "resourceType": "OperationOutcome", "issue": issues }))
        }
    }
}

fn issue(silent: &OrgAnswer) -> Value {
    let (code, why) = match silent.state {
        OrgState::TimedOut(ms) => ("timeout", format!("did not answer within {}", words::seconds(ms))),
        OrgState::Offline(Some(since)) => ("incomplete", format!("has not been reachable since {}", instant(since))),
        OrgState::Offline(None) => ("incomplete", "is not reachable".to_owned()),
        OrgState::Waiting => ("incomplete", "has not answered yet".to_owned()),
        OrgState::IdentityNotAgreed => ("incomplete", "could not confirm the patient".to_owned()),
        OrgState::Refused => ("incomplete", "refused the question".to_owned()),
        OrgState::Answered | OrgState::NoRecord | OrgState::SomeWithheld => {
            ("incomplete", "answered in part".to_owned())
        }
    };
    let call = silent
        .phone
        .as_ref()
        .map(|phone| format!(" Call {phone}."))
        .unwrap_or_default();
    json!({
        "severity": "warning",
        "code": code,
        "details": {
            "coding": [{ "system": "urn:ietf:rfc:3986", "code": silent.org.as_str(), "display": silent.name }],
            "text": format!("{} {why}: its documents are missing from this answer.{call}", silent.name),
        },
    })
}
