//! Patients' choices: recorded as FHIR Consents, searched, and previewed by the judge itself.
//!
//! The law: what is answered as recorded is durable and in force; a preview is the decision of the engine that
//! releases, never a second opinion.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use hie_consent::decide::Decision;
use hie_consent::explain;
use hie_consent::request::RegionRules;
use hie_gateway::ports::{Answer, Caller, ConsentRow, Consents, PatientSelector};
use hie_node_core::ids::PatientKey;
use hie_node_core::locator::worker::Publisher;
use hie_node_core::policy::decide::{Asker, decide_for, rules};
use hie_node_core::policy::store::PatientPolicy;
use hie_node_core::ports::blocking;
use hie_node_core::record::entry::{Entry, Place};
use hie_protocol::claim::{BreakGlass, BreakGlassReason};
use hie_protocol::id::{DocumentId, Millis, OrgId};
use hie_protocol::message::DocumentMeta;
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};
use serde_json::{Value, json};

use super::caller::{Classed, actor, correlation, port_error, told};
use crate::assemble::Trade;

/// The patients' choices.
#[derive(Clone)]
pub struct ConsentDesk {
    trade: Trade,
    publisher: Option<Publisher>,
}

/// Somebody who might ask.
struct Seat {
    who: String,
    asker: Asker,
}

/// How many documents of a kind are decided in one way, and why.
type Judged = BTreeMap<(String, bool, String), usize>;

/// What a preview is judged by.
struct Court {
    policy: PatientPolicy,
    region: RegionRules,
    entries: Vec<Entry>,
    custodian: OrgId,
    now: Millis,
}

/// The patient that a selector names; none when this node knows no such one.
///
/// Errors: *Invalid* when more than one patient has the identifier; the store.
pub fn patient_of(trade: &Trade, selector: &PatientSelector) -> Answer<Option<PatientKey>> {
    let broken = |error| told(&*trade.random, &error);
    match selector {
        PatientSelector::Id(id) => {
            let Some(key) = PatientKey::from_hex(id) else {
                return Ok(None);
            };
            Ok(trade.patients.person(key).map_err(broken)?.map(|person| person.key))
        }
        PatientSelector::Identifier { system, value } => {
            match trade.patients.by_identifier(system, value).map_err(broken)?.as_slice() {
                [] => Ok(None),
                [only] => Ok(Some(*only)),
                _ => {
                    let words = "More than one patient has this identifier. Name the patient by id.";
                    Err(port_error(Class::Invalid, words))
                }
            }
        }
    }
}

impl ConsentDesk {
    /// Over the trade; the publisher is woken when a choice changed.
    #[must_use]
    pub const fn new(trade: Trade, publisher: Option<Publisher>) -> Self {
        Self { trade, publisher }
    }

    fn broken<E: Classed>(&self) -> impl Fn(E) -> hie_gateway::ports::PortError + '_ {
        |error| told(&*self.trade.random, &error)
    }

    fn record(&self, caller: &Caller, mut consent: Value) -> Answer<Value> {
        let named = patient_named(&consent).ok_or_else(|| {
            let words = "Consent.patient: name a patient of this organisation as Patient/[id], or by an identifier with \
                         system and value.";
            port_error(Class::Invalid, words)
        })?;
        let patient = patient_of(&self.trade, &named)?.ok_or_else(|| {
            let words = "Consent.patient: this organisation knows no such patient. Search the patient first.";
            port_error(Class::Invalid, words)
        })?;
        if let Some(reference) = consent.get_mut("patient").and_then(Value::as_object_mut) {
            reference.insert("reference".to_owned(), json!(format!("Patient/{}", patient.to_hex())));
        }
        let question = correlation(&*self.trade.random)?;
        let (by, now) = (actor(&self.trade, caller), self.trade.clock.now());
        let recorded = self
            .trade
            .policies
            .accept(patient, &consent, by, question, now)
            .map_err(self.broken())?;
        if let Some(publisher) = &self.publisher {
            publisher.wake();
        }
        Ok(recorded)
    }

    fn find(&self, patient: Option<&PatientSelector>, status: Option<&str>, id: Option<&str>) -> Answer<Vec<Value>> {
        let wanted = patient.map(|selector| patient_of(&self.trade, selector)).transpose()?;
        let found = match (wanted, id) {
            // A patient that is not known here has no choices here.
            (Some(None), _) | (None, None) => Vec::new(),
            (Some(Some(patient)), None) => self.trade.policies.consents(patient).map_err(self.broken())?,
            (wanted, Some(id)) => {
                let found = self.trade.policies.consent(id).map_err(self.broken())?;
                let whose = wanted.flatten();
                let found = found.filter(|(patient, _)| whose.is_none_or(|wanted| wanted == *patient));
                found.into_iter().map(|(_, consent)| consent).collect()
            }
        };
        let is = |consent: &Value, status| consent.get("status").and_then(Value::as_str) == Some(status);
        let has = |consent: &Value| status.is_none_or(|status| is(consent, status));
        Ok(found.into_iter().filter(has).collect())
    }

    fn rows(&self, patient: &PatientSelector, draft: Option<Value>) -> Answer<Vec<ConsentRow>> {
        let trade = &self.trade;
        let Some(patient) = patient_of(trade, patient)? else {
            let words = "This organisation knows no such patient. Search the patient first.";
            return Err(port_error(Class::Invalid, words));
        };
        let stored = trade.policies.of(patient).map_err(self.broken())?;
        let directives = match draft {
            Some(draft) => trade
                .policies
                .with_draft(patient, &in_force(draft))
                .map_err(self.broken())?,
            None => stored.directives.clone(),
        };
        let registry = Arc::clone(&trade.registry.borrow());
        let mut entries = trade.records.of_patient(patient).map_err(self.broken())?;
        let now = trade.clock.now();
        if entries.is_empty() {
            entries.push(ordinary(patient, now));
        }
        let court = Court {
            policy: PatientPolicy {
                epoch: stored.epoch,
                directives,
            },
            region: rules(&registry.policy),
            entries,
            custodian: trade.me.clone(),
            now,
        };
        let mut seats = vec![(trade.me.clone(), format!("Clinicians of {}", trade.name))];
        let others = registry.active().filter(|member| member.org != trade.me);
        seats.extend(others.map(|member| (member.org.clone(), member.name.clone())));
        let seat = |(org, who): &(OrgId, String)| Seat {
            who: who.clone(),
            asker: clinician(org, None),
        };
        let mut rows: Vec<ConsentRow> = seats.iter().map(seat).flat_map(|seat| court.rows(&seat)).collect();
        rows.extend(court.emergency_rows(&seats));
        Ok(rows)
    }
}

impl Court {
    fn judge(&self, asker: &Asker) -> Judged {
        let mut judged = Judged::new();
        for entry in &self.entries {
            let decision = decide_for(&self.policy, &self.region, asker, entry, &self.custodian, self.now);
            let permitted = matches!(decision, Decision::Permitted(_));
            let why = third_person(&explain::decision(&decision).join(" "));
            let count = judged.entry((kind_words(&entry.meta), permitted, why)).or_default();
            *count = count.saturating_add(1);
        }
        judged
    }

    fn rows(&self, seat: &Seat) -> Vec<ConsentRow> {
        rows_of(&seat.who, &self.judge(&seat.asker))
    }

    /// One line for all when a declared emergency opens the same for everybody, else one for each organisation.
    fn emergency_rows(&self, seats: &[(OrgId, String)]) -> Vec<ConsentRow> {
        let declared = BreakGlass {
            reason: BreakGlassReason::LifeAtRisk,
            words: String::new(),
            declared: self.now,
        };
        let judge = |(org, who): &(OrgId, String)| (who.clone(), self.judge(&clinician(org, Some(declared.clone()))));
        let judged: Vec<(String, Judged)> = seats.iter().map(judge).collect();
        let Some((_, first)) = judged.first() else {
            return Vec::new();
        };
        if judged.iter().all(|(_, other)| other == first) {
            return rows_of("Anybody of the region who declares an emergency", first);
        }
        judged
            .iter()
            .flat_map(|(who, judged)| rows_of(&format!("{who}, declaring an emergency"), judged))
            .collect()
    }
}

fn rows_of(who: &str, judged: &Judged) -> Vec<ConsentRow> {
    let row = |((kind, permitted, why), count): (&(String, bool, String), &usize)| ConsentRow {
        who: who.to_owned(),
        what: format!("{kind}: {count}"),
        permitted: *permitted,
        why: why.clone(),
    };
    judged.iter().map(row).collect()
}

/// A physician of an organisation who treats the patient.
fn clinician(org: &OrgId, declared: Option<BreakGlass>) -> Asker {
    let purpose = if declared.is_some() {
        Purpose::BreakGlass
    } else {
        Purpose::Treatment
    };
    Asker {
        org: org.clone(),
        user: String::new(),
        user_name: String::new(),
        role: Role::Physician,
        purpose,
        break_glass: declared,
        evidence: true,
        is_patient: false,
    }
}

/// A draft as it would count once it is saved.
fn in_force(mut draft: Value) -> Value {
    if let Some(fields) = draft.as_object_mut() {
        fields.insert("status".to_owned(), json!("active"));
    }
    draft
}

/// The patient that a Consent names.
fn patient_named(consent: &Value) -> Option<PatientSelector> {
    let patient = consent.get("patient")?;
    if let Some(reference) = patient.get("reference").and_then(Value::as_str) {
        let (_, id) = reference.rsplit_once("Patient/")?;
        return Some(PatientSelector::Id(id.split('/').next().unwrap_or_default().to_owned()));
    }
    let identifier = patient.get("identifier")?;
    let part = |name: &str| identifier.get(name).and_then(Value::as_str);
    Some(PatientSelector::Identifier {
        system: part("system")?.to_owned(),
        value: part("value")?.to_owned(),
    })
}

/// An ordinary document, to judge the choices of a patient who has none yet.
fn ordinary(patient: PatientKey, now: Millis) -> Entry {
    let meta = DocumentMeta {
        id: DocumentId::new([0; 16]),
        class: DocumentClass::Other,
        kind: None,
        category: None,
        format: None,
        title: String::new(),
        author: None,
        content_type: String::new(),
        created: Some(now),
        period: None,
        size: None,
        hash: None,
        confidentiality: Confidentiality::Normal,
        sensitivity: Vec::new(),
        imaging: None,
    };
    Entry {
        patient,
        meta,
        place: Place::OnDemand,
        superseded: false,
        unknown_labels: false,
        author_org: None,
        authors: Vec::new(),
        source: String::new(),
        stored: now,
    }
}

/// The kind of a document with its labels, for example `Reports (HIV)`.
fn kind_words(meta: &DocumentMeta) -> String {
    let kind = match meta.class {
        DocumentClass::Summary => "Summaries",
        DocumentClass::Note => "Notes and letters",
        DocumentClass::Report => "Reports",
        DocumentClass::Imaging => "Imaging studies",
        DocumentClass::Other | DocumentClass::Unknown => "Other documents",
    };
    let mut labels: Vec<&str> = meta.sensitivity.iter().map(|label| sensitivity_words(*label)).collect();
    labels.sort_unstable();
    labels.dedup();
    match meta.confidentiality {
        Confidentiality::Restricted => labels.push("restricted"),
        Confidentiality::VeryRestricted => labels.push("very restricted"),
        Confidentiality::Unknown => labels.push("confidentiality not known"),
        _ => {}
    }
    if labels.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} ({})", labels.join(", "))
    }
}

const fn sensitivity_words(label: Sensitivity) -> &'static str {
    match label {
        Sensitivity::SubstanceUse => "substance use",
        Sensitivity::AlcoholUse => "alcohol use",
        Sensitivity::OpioidUse => "opioid use",
        Sensitivity::Psychiatry => "psychiatry",
        Sensitivity::PsychotherapyNote => "psychotherapy notes",
        Sensitivity::MentalHealth => "mental health",
        Sensitivity::SexualHealth => "sexual health",
        Sensitivity::ReproductiveHealth => "reproductive health",
        Sensitivity::SexuallyTransmitted => "sexually transmitted disease",
        Sensitivity::Hiv => "HIV",
        Sensitivity::SexualDomesticViolence => "sexual or domestic violence",
        Sensitivity::DomesticViolence => "domestic violence",
        Sensitivity::Genetic => "genetic",
        Sensitivity::SickleCell => "sickle cell",
        Sensitivity::Vip => "known person",
        Sensitivity::Unknown => "a label not known here",
    }
}

/// The judge speaks to the asker; a preview speaks about the asker.
fn third_person(words: &str) -> String {
    let words = words.replace("your organisation", "this organisation");
    let words = words.replace("Your organisation", "This organisation");
    let words = words
        .replace("your role", "this role")
        .replace("Your role", "This role");
    words
        .replace("excluded you.", "excluded this person.")
        .replace("You must not", "The receiver must not")
}

impl Consents for ConsentDesk {
    fn create<'a>(&'a self, caller: &'a Caller, consent: Value) -> BoxFuture<'a, Answer<Value>> {
        let (this, caller) = (self.clone(), caller.clone());
        blocking(move || this.record(&caller, consent)).boxed()
    }

    fn search<'a>(
        &'a self,
        _caller: &'a Caller,
        patient: Option<PatientSelector>,
        status: Option<String>,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>> {
        let this = self.clone();
        blocking(move || this.find(patient.as_ref(), status.as_deref(), id.as_deref())).boxed()
    }

    fn preview<'a>(
        &'a self,
        _caller: &'a Caller,
        patient: PatientSelector,
        draft: Option<Value>,
    ) -> BoxFuture<'a, Answer<Vec<ConsentRow>>> {
        let this = self.clone();
        blocking(move || this.rows(&patient, draft)).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use hie_consent::decide::{Basis, Reason};
    use hie_consent::explain;
    use hie_consent::request::RegionRules;
    use hie_gateway::ports::PatientSelector;
    use hie_node_core::ids::PatientKey;
    use hie_node_core::policy::store::PatientPolicy;
    use hie_protocol::id::{ConsentEpoch, Millis, OrgId};
    use hie_protocol::message::Obligation;
    use hie_protocol::registry::{BreakGlassRules, ConsentModel};
    use serde_json::json;

    use super::{Court, in_force, ordinary, patient_named, third_person};

    #[test]
    fn the_patient_is_named_by_reference_or_identifier() {
        let by = |patient| patient_named(&json!({ "patient": patient }));
        for reference in [
            "Patient/ab12",
            "https://here/fhir/Patient/ab12",
            "Patient/ab12/_history/3",
        ] {
            assert!(matches!(by(json!({ "reference": reference })), Some(PatientSelector::Id(id)) if id == "ab12"));
        }
        let identifier = by(json!({ "identifier": { "system": "urn:oid:2.999.1", "value": "4711" } }));
        assert!(matches!(identifier, Some(PatientSelector::Identifier { value, .. }) if value == "4711"));
        assert!(by(json!({ "display": "Maria" })).is_none() && patient_named(&json!({})).is_none());
    }

    #[test]
    fn a_preview_speaks_about_the_asker() {
        let reasons = Reason::ALL.iter().map(|reason| explain::reason(*reason));
        let others = [
            explain::basis(&Basis::OwnRecord),
            explain::obligation(Obligation::NoRedisclosure),
        ];
        for words in reasons.chain(others) {
            let words = third_person(words).to_lowercase();
            assert!(
                !words.split([' ', '.']).any(|word| matches!(word, "you" | "your")),
                "{words}"
            );
        }
    }

    #[test]
    fn an_emergency_that_opens_the_same_for_all_is_one_row() {
        let org = |arc: u8| OrgId::parse(&format!("urn:oid:2.999.{arc}")).unwrap();
        let glass = BreakGlassRules {
            allowed: true,
            minutes: 240,
            tell_withheld: true,
        };
        let coded = |system: &str, code: &str| json!({ "coding": [{ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code }] });
        let deny = json!({
            "resourceType": "Consent", "status": "draft", "patient": { "reference": "Patient/1" },
            "scope": coded("consentscope", "patient-privacy"), "policyRule": coded("v3-ActCode", "OPTOUT"),
        });
        let directive = hie_consent::fhir::read(&in_force(deny), &|_| None).unwrap();
        let court = Court {
            policy: PatientPolicy {
                epoch: ConsentEpoch(1),
                directives: vec![directive],
            },
            region: RegionRules::new(ConsentModel::OptOut, glass),
            entries: vec![ordinary(PatientKey([1; 16]), Millis(1000))],
            custodian: org(1),
            now: Millis(1000),
        };
        let seats = [(org(2), "Lakeside".to_owned()), (org(3), "Hillside".to_owned())];
        let rows = court.emergency_rows(&seats);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].permitted, "{}", rows[0].why);
        let seat = super::Seat {
            who: "Lakeside".to_owned(),
            asker: super::clinician(&org(2), None),
        };
        let rows = court.rows(&seat);
        assert!(!rows[0].permitted, "{}", rows[0].why);
        assert_eq!(rows[0].what, "Other documents: 1");
    }
}
