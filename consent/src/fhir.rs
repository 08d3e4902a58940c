//! FHIR R4 Consent to directive.

use hie_protocol::id::OrgId;
use serde_json::Value;

use crate::directive::Directive;

/// Why a Consent is not taken: where in the resource, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Fault {
    /// FHIRPath-like place.
    pub path: String,
    /// What is wrong and what to do.
    pub reason: &'static str,
}

/// Reads a FHIR R4 Consent. `org` resolves a reference or OID URN to a member organisation.
///
/// Errors: every [`Fault`] found, when the resource is not a Consent that can stand for a directive.
pub fn read(consent: &Value, org: &dyn Fn(&str) -> Option<OrgId>) -> Result<Directive, Vec<Fault>> {
    let _ = (consent, org);
    Err(vec![Fault { path: "Consent".to_owned(), reason: "not read" }])
}
