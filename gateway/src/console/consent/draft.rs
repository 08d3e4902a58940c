//! Choices to FHIR R4 Consent and back to sentences (IHE PCF: scope patient-privacy, a typed root provision, its
//! exceptions nested).

use hie_protocol::id::{Millis, OrgId};
use serde_json::{Map, Value, json};

use crate::console::words;

const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";

/// A class of records that can be withheld.
pub struct Withholdable {
    /// Form value.
    pub code: &'static str,
    /// Words.
    pub label: &'static str,
    /// Sensitivity codes (HL7 v3 ActCode).
    pub sensitivity: &'static [&'static str],
}

/// Everything that can be withheld. Psychotherapy notes always are, by the region's rules.
pub const WITHHOLDABLE: &[Withholdable] = &[
    Withholdable {
        code: "substance-use",
        label: "Substance-use treatment (42 CFR Part 2)",
        sensitivity: &["ETH", "ETHUD", "OPIOIDUD"],
    },
    Withholdable {
        code: "mental-health",
        label: "Mental health",
        sensitivity: &["MH", "PSY"],
    },
    Withholdable {
        code: "sexual-health",
        label: "Sexual health",
        sensitivity: &["SEX", "SRH", "STD"],
    },
    Withholdable {
        code: "hiv",
        label: "HIV",
        sensitivity: &["HIV"],
    },
    Withholdable {
        code: "genetic",
        label: "Genetic",
        sensitivity: &["GDIS"],
    },
];

/// What an emergency opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emergency {
    /// Everything.
    Everything,
    /// Everything except what is withheld.
    #[default]
    ExceptWithheld,
    /// Nothing.
    Nothing,
}

impl Emergency {
    /// Reads a form value; anything unknown withholds most.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "everything" => Self::Everything,
            "except-withheld" => Self::ExceptWithheld,
            _ => Self::Nothing,
        }
    }

    /// The form value.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::ExceptWithheld => "except-withheld",
            Self::Nothing => "nothing",
        }
    }
}

/// The choices of the form.
pub struct Choices {
    /// Share with everyone who treats the patient.
    pub share: bool,
    /// Organisations that never get anything.
    pub except: Vec<(OrgId, String)>,
    /// Codes of [`WITHHOLDABLE`].
    pub withhold: Vec<&'static str>,
    /// Last day, `YYYY-MM-DD`; none: until changed.
    pub until: Option<String>,
    /// In an emergency.
    pub emergency: Emergency,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            share: true,
            except: Vec::new(),
            withhold: Vec::new(),
            until: None,
            emergency: Emergency::ExceptWithheld,
        }
    }
}

impl Choices {
    /// The FHIR Consent. `signed`: the patient signed (true) or said so (false); none for a draft.
    ///
    /// A declared emergency passes every refusal that does not name it, so what stays closed in an
    /// emergency carries a second refusal with purpose BTG.
    #[must_use]
    pub fn to_consent(&self, patient: &str, now: Millis, signed: Option<bool>) -> Value {
        let mut provision = Map::new();
        provision.insert("type".to_owned(), if self.share { "permit" } else { "deny" }.into());
        if let Some(until) = &self.until {
            provision.insert("period".to_owned(), json!({ "end": until }));
        }
        if self.share {
            // "Everyone who treats me" is no word about research or payment. TREAT covers emergencies.
            provision.insert("purpose".to_owned(), json!([{ "system": ACT_REASON, "code": "TREAT" }]));
        }
        let exceptions = self.exceptions();
        if !exceptions.is_empty() {
            provision.insert("provision".to_owned(), exceptions.into());
        }
        let day = words::iso_day(now, 0);
        let mut consent = json!({
            "resourceType": "Consent",
            "status": if signed.is_some() { "active" } else { "draft" },
            "scope": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy" }] },
            "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0", "display": "Consent Document" }] }],
            "patient": { "reference": format!("Patient/{patient}") },
            "dateTime": format!("{day}T{}Z", words::clock_seconds(now, 0)),
            "policyRule": { "coding": [{ "system": ACT_CODE, "code": if self.share { "OPTIN" } else { "OPTOUT" } }] },
            "provision": provision,
        });
        if let (Some(signed), Some(map)) = (signed, consent.as_object_mut()) {
            map.insert(
                "verification".to_owned(),
                json!([{ "verified": signed, "verificationDate": day }]),
            );
        }
        consent
    }

    fn exceptions(&self) -> Vec<Value> {
        let mut exceptions: Vec<Value> = Vec::new();
        let emergency = || json!([{ "system": ACT_REASON, "code": "BTG" }]);
        for (org, name) in &self.except {
            let actor = json!({
                "role": { "coding": [{ "system": PARTICIPATION, "code": "IRCP" }] },
                "reference": { "type": "Organization", "identifier": { "system": "urn:ietf:rfc:3986", "value": org.as_str() }, "display": name },
            });
            exceptions.push(json!({ "type": "deny", "actor": [actor] }));
        }
        for kind in WITHHOLDABLE.iter().filter(|kind| self.withhold.contains(&kind.code)) {
            let labels: Vec<Value> = kind
                .sensitivity
                .iter()
                .map(|code| json!({ "system": ACT_CODE, "code": code }))
                .collect();
            exceptions.push(json!({ "type": "deny", "securityLabel": labels.clone() }));
            if self.emergency == Emergency::ExceptWithheld {
                exceptions.push(json!({ "type": "deny", "securityLabel": labels, "purpose": emergency() }));
            }
        }
        exceptions.push(match self.emergency {
            Emergency::Nothing => json!({ "type": "deny", "purpose": emergency() }),
            Emergency::Everything | Emergency::ExceptWithheld if self.share => return exceptions,
            Emergency::Everything | Emergency::ExceptWithheld => json!({ "type": "permit", "purpose": emergency() }),
        });
        exceptions
    }
}

/// A recorded Consent as sentences.
#[must_use]
pub fn sentences(consent: &Value) -> Vec<String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let root = consent.get("provision").unwrap_or(&Value::Null);
    let status = text(consent, "status").unwrap_or_else(|| "status not recorded".to_owned());
    let date = text(consent, "dateTime").map_or_else(|| "date not recorded".to_owned(), |date| words::fhir_date(&date));
    let state = if status == "active" {
        "in force".to_owned()
    } else {
        format!("not in force ({status})")
    };
    let mut all = vec![format!("Recorded {date}, {state}.")];
    all.push(match text(root, "type").as_deref() {
        Some("permit") => "Share with everyone who treats the patient.".to_owned(),
        Some("deny") => "Share with nobody.".to_owned(),
        _ => "The rule could not be read; it shares nothing.".to_owned(),
    });
    for exception in root.get("provision").and_then(Value::as_array).into_iter().flatten() {
        all.push(exception_sentence(exception));
    }
    let end = root.get("period").and_then(|period| text(period, "end"));
    all.extend(end.map(|end| format!("Until {}.", words::fhir_date(&end))));
    all
}

fn exception_sentence(exception: &Value) -> String {
    let list = |key: &str| {
        exception
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let codes = |key: &str| {
        list(key)
            .iter()
            .filter_map(|coding| coding.get("code").and_then(Value::as_str).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let mut about: Vec<String> = list("actor")
        .iter()
        .map(|actor| {
            let reference = actor.get("reference");
            let name = reference
                .and_then(|reference| reference.get("display"))
                .and_then(Value::as_str);
            name.unwrap_or("a named person or organisation").to_owned()
        })
        .collect();
    let labels = codes("securityLabel");
    about.extend(
        WITHHOLDABLE
            .iter()
            .filter(|kind| {
                kind.sensitivity
                    .iter()
                    .any(|code| labels.iter().any(|label| label == code))
            })
            .map(|kind| kind.label.to_owned()),
    );
    let emergency = codes("purpose").iter().any(|purpose| purpose == "BTG");
    let about = match (about.is_empty(), emergency) {
        (true, true) => "an emergency".to_owned(),
        (true, false) => "some records".to_owned(),
        (false, true) => format!("{}, in an emergency too", about.join(", ")),
        (false, false) => about.join(", "),
    };
    match exception.get("type").and_then(Value::as_str) {
        Some("permit") => format!("Except: opens for {about}."),
        _ => format!("Except: closed for {about}."),
    }
}

#[cfg(test)]
mod tests;
