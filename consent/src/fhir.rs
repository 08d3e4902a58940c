//! FHIR R4 Consent to directive (HL7 FHIR R4 Consent; IHE PCF 1.1 §53.2 for the overarching policies).
//!
//! The resource comes parsed and guarded. What is not understood never widens: a criterion with an unread value
//! makes its provision unread; in a deny the whole criterion falls away, so that the deny reaches all it could
//! mean. An untyped root provision is ambiguous in the field (an exception to the policy, or its scope): it is
//! read the closed way (SPEC C-FHIR).

mod provision;
pub mod time;

use hie_protocol::id::OrgId;
use hie_protocol::vocabulary::{Confidentiality, Purpose};
use serde_json::Value;

use crate::directive::{Directive, DirectiveSource, Effect, Provision};

/// Most faults reported for one resource.
pub const FAULTS_MAX: usize = 32;

/// Why a Consent is not taken: where in the resource, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Fault {
    /// FHIRPath-like place.
    pub path: String,
    /// What is wrong and what to do.
    pub reason: &'static str,
}

/// Reads a FHIR R4 Consent. `org` resolves a reference or identifier to an organisation.
///
/// Errors: every [`Fault`] found, when the resource is not a Consent that can stand for a directive. A Consent that
/// is already stored and has faults is represented by [`Directive::unreadable`].
pub fn read(consent: &Value, org: &dyn Fn(&str) -> Option<OrgId>) -> Result<Directive, Vec<Fault>> {
    let mut faults = Vec::new();
    if text(consent, "resourceType") != Some("Consent") {
        return Err(vec![fault("Consent.resourceType", "not a Consent resource")]);
    }
    let status = text(consent, "status");
    let known = [
        "active",
        "inactive",
        "entered-in-error",
        "proposed",
        "rejected",
        "draft",
    ];
    if !status.is_some_and(|status| known.contains(&status)) {
        faults.push(fault(
            "Consent.status",
            "missing or not one of active, inactive, entered-in-error, proposed, rejected, draft",
        ));
    }
    let scope = codes_of(consent.get("scope"));
    if scope.is_empty() {
        faults.push(fault(
            "Consent.scope",
            "missing: write patient-privacy of the consentscope code system",
        ));
    }
    if consent.get("patient").is_none_or(|patient| !patient.is_object()) {
        faults.push(fault("Consent.patient", "missing: write a reference to the patient"));
    }
    let undated = |at: &Value| at.as_str().and_then(time::instant_range).is_none();
    if consent.get("dateTime").is_some_and(undated) {
        faults.push(fault("Consent.dateTime", "not a FHIR dateTime"));
    }
    let mut reader = provision::Reader::new(consent, org);
    let root = consent.get("provision").map(|value| reader.root(value));
    faults.append(&mut reader.faults);
    faults.truncate(FAULTS_MAX);
    if !faults.is_empty() {
        return Err(faults);
    }
    let id = text(consent, "id").unwrap_or_default().to_owned();
    let version = consent
        .get("meta")
        .and_then(|meta| text(meta, "versionId"))
        .unwrap_or_default()
        .to_owned();
    let other_matter = scope
        .iter()
        .all(|(_, code)| matches!(code.as_str(), "treatment" | "adr"));
    let mut directive = Directive {
        source: DirectiveSource {
            resource: id.clone(),
            version,
        },
        id,
        in_force: status == Some("active") && !other_matter,
        base: None,
        provision: None,
    };
    compose(&mut directive, overarching(consent), root);
    narrow(&mut directive, consent, &scope);
    Ok(directive)
}

/// A policy and the way it relates to a permit in the root provision.
struct Policy {
    rule: Provision,
    /// OPTIN: a root permit says what the patient opted in to, so it replaces the policy.
    spelled_out_by_root: bool,
}

/// Joins the overarching policy and the root provision.
fn compose(directive: &mut Directive, policy: Option<Policy>, root: Option<provision::Root>) {
    let Some(root) = root else {
        directive.base = Some(policy.map_or_else(not_understood, |policy| policy.rule));
        return;
    };
    if root.typed {
        let permits = root.rule.effect == Effect::Permit;
        directive.base = policy
            .filter(|policy| !(permits && policy.spelled_out_by_root && policy.rule.effect == Effect::Permit))
            .map(|policy| policy.rule);
        directive.provision = Some(root.rule);
        return;
    }
    let scoped = root.rule.period.is_some() || !root.rule.is_for_all() || root.rule.unread;
    match policy {
        // An exception to a refusal, or the scope of it: both leave the refusal standing.
        Some(policy) if policy.rule.effect == Effect::Deny && scoped => directive.base = Some(policy.rule),
        // The same ambiguity under a permit: what it names is denied, and nothing is permitted.
        Some(_) if scoped => directive.provision = Some(denying(root.rule)),
        Some(policy) => {
            let mut rule = policy.rule;
            rule.exceptions.extend(root.rule.exceptions);
            directive.provision = Some(rule);
        }
        None => {
            let mut rule = denying(root.rule);
            rule.unread |= scoped || rule.exceptions.is_empty();
            directive.provision = Some(rule);
        }
    }
}

fn denying(mut rule: Provision) -> Provision {
    rule.effect = Effect::Deny;
    rule
}

fn not_understood() -> Provision {
    let mut rule = Provision::new(Effect::Deny);
    rule.unread = true;
    rule
}

/// A research consent speaks about research only; an unknown scope or a modifier can only deny.
fn narrow(directive: &mut Directive, consent: &Value, scope: &[(String, String)]) {
    let research = scope.iter().all(|(_, code)| code == "research");
    let known = scope.iter().all(|(system, code)| {
        system == CONSENT_SCOPE && matches!(code.as_str(), "patient-privacy" | "research" | "treatment" | "adr")
    });
    let modified = consent.get("modifierExtension").is_some() || consent.get("implicitRules").is_some();
    for rule in directive.base.iter_mut().chain(&mut directive.provision) {
        if research && rule.purposes.is_empty() && !rule.unread {
            rule.purposes = vec![Purpose::Research];
        }
        rule.unread |= modified || !known;
    }
}

/// The overarching policy, where it is one that we know; of several the most closed.
fn overarching(consent: &Value) -> Option<Policy> {
    let rules = codes_of(consent.get("policyRule")).into_iter();
    let uris = list(consent, "policy")
        .iter()
        .filter_map(|policy| text(policy, "uri"))
        .map(str::to_owned);
    let pcf_rules = rules.clone().map(|(_, code)| code);
    let coded = rules
        .filter(|(system, _)| system == ACT_CODE)
        .filter_map(|(_, code)| opt(&code));
    let named = uris.chain(pcf_rules).filter_map(|uri| pcf(&uri));
    coded.chain(named).min_by_key(|policy| {
        (
            policy.rule.effect == Effect::Permit,
            !policy.rule.even_emergency,
            policy.rule.purposes.len(),
        )
    })
}

fn opt(code: &str) -> Option<Policy> {
    let rule = match code {
        "OPTIN" | "OPTINR" => permit(&[Purpose::Treatment, Purpose::Operations, Purpose::Payment]),
        "OPTOUT" | "OPTOUTE" => Provision::new(Effect::Deny),
        _ => return None,
    };
    Some(Policy {
        rule,
        spelled_out_by_root: true,
    })
}

/// IHE PCF 1.1 §53.2.1. `all-normal` leaves research and public health to a provision that names them.
fn pcf(uri: &str) -> Option<Policy> {
    let mut rule = match uri.strip_prefix(PCF_POLICY)? {
        "basic-normal" => permit(&[Purpose::Treatment]),
        "all-normal" => permit(&[Purpose::Treatment, Purpose::Operations, Purpose::Payment]),
        "break-glass-only" | "deny" => Provision::new(Effect::Deny),
        _ => return None,
    };
    if rule.effect == Effect::Permit {
        rule.confidentiality = vec![Confidentiality::Normal];
    } else if uri.ends_with("-only") {
        rule.exceptions.push(permit(&[Purpose::BreakGlass]));
    } else {
        rule.even_emergency = true;
    }
    Some(Policy {
        rule,
        spelled_out_by_root: false,
    })
}

fn permit(purposes: &[Purpose]) -> Provision {
    let mut rule = Provision::new(Effect::Permit);
    rule.purposes = purposes.to_vec();
    rule
}

fn fault(path: &str, reason: &'static str) -> Fault {
    Fault {
        path: path.to_owned(),
        reason,
    }
}

/// Every (system, code) of a CodeableConcept.
fn codes_of(concept: Option<&Value>) -> Vec<(String, String)> {
    concept
        .map(|concept| list(concept, "coding"))
        .unwrap_or_default()
        .iter()
        .filter_map(coding)
        .collect()
}

fn coding(value: &Value) -> Option<(String, String)> {
    Some((text(value, "system")?.to_owned(), text(value, "code")?.to_owned()))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

const CONSENT_SCOPE: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const PCF_POLICY: &str = "https://profiles.ihe.net/ITI/PCF/Policy-";

#[cfg(test)]
mod tests;
