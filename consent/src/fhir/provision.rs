//! One provision and its exceptions. Every key is either read or makes the provision unread.

use hie_protocol::id::{DocumentId, OrgId};
use hie_protocol::vocabulary::{Confidentiality, Purpose, Role, Sensitivity};
use serde_json::Value;

use super::{ACT_CODE, Fault, codes_of, coding, fault, list, text, time};
use crate::directive::{
    Action, Actor, Author, CRITERION_VALUES_MAX, Code, Effect, PROVISION_DEPTH_MAX, PROVISIONS_MAX, Part, Provision,
    Span,
};

/// The root provision, and whether it names its own effect.
pub(super) struct Root {
    pub rule: Provision,
    pub typed: bool,
}

pub(super) struct Reader<'a> {
    consent: &'a Value,
    org: &'a dyn Fn(&str) -> Option<OrgId>,
    seen: usize,
    pub faults: Vec<Fault>,
}

/// A value that was not understood.
struct Unread;

impl<'a> Reader<'a> {
    pub(super) fn new(consent: &'a Value, org: &'a dyn Fn(&str) -> Option<OrgId>) -> Self {
        Self {
            consent,
            org,
            seen: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn root(&mut self, value: &Value) -> Root {
        let typed = value.get("type").is_some();
        if !value.is_object() {
            self.faults.push(fault("Consent.provision", "not an object"));
        }
        Root {
            rule: self.provision(value, 1, !typed),
            typed,
        }
    }

    fn provision(&mut self, value: &Value, depth: usize, may_be_untyped: bool) -> Provision {
        let effect = match text(value, "type") {
            Some("permit") => Some(Effect::Permit),
            Some("deny") => Some(Effect::Deny),
            _ => None,
        };
        let mut rule = Provision::new(effect.unwrap_or(Effect::Deny));
        rule.unread = effect.is_none() && !may_be_untyped;
        self.seen = self.seen.saturating_add(1);
        if self.seen == PROVISIONS_MAX.saturating_add(1) {
            self.faults
                .push(fault("Consent.provision", "too many provisions: 512 at most"));
        }
        if depth > PROVISION_DEPTH_MAX || self.seen > PROVISIONS_MAX {
            rule.unread = true;
            return rule;
        }
        let known = |key: &String| KNOWN.contains(&key.as_str());
        rule.unread |= !value.as_object().is_some_and(|object| object.keys().all(known));
        rule.period = span(value.get("period"), &mut rule.unread);
        rule.data_period = span(value.get("dataPeriod"), &mut rule.unread);
        rule.actors = each(value, "actor", &mut rule.unread, |actor| self.actor(actor));
        rule.actions = each(value, "action", &mut rule.unread, action)
            .into_iter()
            .flatten()
            .collect();
        rule.purposes = each(value, "purpose", &mut rule.unread, purpose);
        rule.classes = each(value, "class", &mut rule.unread, |class| {
            code(class).map(|code| vec![code])
        })
        .concat();
        rule.codes = each(value, "code", &mut rule.unread, concept).concat();
        self.labels(value, &mut rule);
        self.data(value, &mut rule);
        for exception in list(value, "provision") {
            rule.exceptions
                .push(self.provision(exception, depth.saturating_add(1), false));
        }
        let listed = value.get("provision").is_none_or(Value::is_array);
        rule.unread |= !listed;
        rule
    }

    fn labels(&self, value: &Value, rule: &mut Provision) {
        enum Label {
            Confidentiality(Confidentiality),
            Sensitivity(Sensitivity),
        }
        let found = each(value, "securityLabel", &mut rule.unread, |label| {
            let (system, code) = coding(label).ok_or(Unread)?;
            let label = match system.as_str() {
                CONFIDENTIALITY => Label::Confidentiality(Confidentiality::from_code(&code)),
                ACT_CODE => Label::Sensitivity(Sensitivity::from_code(&code)),
                _ => return Err(Unread),
            };
            match label {
                Label::Confidentiality(Confidentiality::Unknown) | Label::Sensitivity(Sensitivity::Unknown) => {
                    Err(Unread)
                }
                known => Ok(known),
            }
        });
        for label in found {
            match label {
                Label::Confidentiality(label) => rule.confidentiality.push(label),
                Label::Sensitivity(label) => rule.sensitivity.push(label),
            }
        }
    }

    fn data(&self, value: &Value, rule: &mut Provision) {
        enum Data {
            Document(DocumentId),
            Author(Author),
        }
        let found = each(value, "data", &mut rule.unread, |data| {
            let reference = data.get("reference").ok_or(Unread)?;
            match text(data, "meaning") {
                Some("instance") => document(reference).map(Data::Document),
                Some("authoredby") => match self.reference(reference)? {
                    Who::Org(org) => Ok(Data::Author(Author::Org(org))),
                    Who::Person(_, person) => Ok(Data::Author(Author::Person(person))),
                    Who::Patient => Err(Unread),
                },
                _ => Err(Unread),
            }
        });
        for data in found {
            match data {
                Data::Document(document) => rule.documents.push(document),
                Data::Author(author) => rule.authors.push(author),
            }
        }
    }

    fn actor(&self, actor: &Value) -> Result<Actor, Unread> {
        let plain = actor.as_object().ok_or(Unread)?;
        if !plain
            .keys()
            .all(|key| ["id", "extension", "role", "reference"].contains(&key.as_str()))
        {
            return Err(Unread);
        }
        let mut part = None;
        let mut role = None;
        for (system, code) in codes_of(actor.get("role")) {
            match (system.as_str(), code.as_str()) {
                (PARTICIPATION, "IRCP" | "PRCP") => part = Some(Part::Recipient),
                (PARTICIPATION, "CST") => part = Some(Part::Custodian),
                (PARTICIPATION, "AUT") => part = Some(Part::Author),
                (PRACTITIONER_ROLE, "doctor") => role = Some(Role::Physician),
                (PRACTITIONER_ROLE, "nurse") => role = Some(Role::Nurse),
                (PRACTITIONER_ROLE, "pharmacist") => role = Some(Role::Pharmacist),
                _ => return Err(Unread),
            }
        }
        let part = part.or(role.map(|_| Part::Recipient)).ok_or(Unread)?;
        let mut found = Actor {
            part,
            org: None,
            user: None,
            role,
        };
        match (actor.get("reference").map(|reference| self.reference(reference)), role) {
            (Some(who), _) => match who? {
                Who::Org(org) => found.org = Some(org),
                Who::Person(org, person) => (found.org, found.user) = (org, Some(person)),
                Who::Patient if role.is_none() => found.role = Some(Role::Patient),
                Who::Patient => return Err(Unread),
            },
            (None, Some(_)) => {}
            (None, None) => return Err(Unread),
        }
        Ok(found)
    }

    /// Who a Reference means: by contained resource, literal reference, or identifier.
    fn reference(&self, reference: &Value) -> Result<Who, Unread> {
        let literal = text(reference, "reference");
        if let Some(local) = literal.and_then(|literal| literal.strip_prefix('#')) {
            let mut contained = list(self.consent, "contained").iter();
            let found = contained
                .find(|resource| text(resource, "id") == Some(local))
                .ok_or(Unread)?;
            let kind = text(found, "resourceType");
            return list(found, "identifier")
                .iter()
                .find_map(|id| self.identified(kind, id))
                .ok_or(Unread);
        }
        if let Some(literal) = literal {
            if literal.starts_with("urn:oid:") {
                return self.organisation(literal).map(Who::Org).ok_or(Unread);
            }
            let patient = self
                .consent
                .get("patient")
                .and_then(|patient| text(patient, "reference"));
            let mut parts = literal.rsplit('/');
            return match (parts.next(), parts.next()) {
                (Some(_), Some("Organization")) => self.organisation(literal).map(Who::Org).ok_or(Unread),
                (Some(_), Some("Patient")) if patient == Some(literal) => Ok(Who::Patient),
                // A person of another server has no name here.
                (Some(id), Some("Practitioner")) if parts.next().is_none() && !id.is_empty() => {
                    Ok(Who::Person(None, id.to_owned()))
                }
                _ => Err(Unread),
            };
        }
        let identifier = reference.get("identifier").ok_or(Unread)?;
        self.identified(text(reference, "type"), identifier).ok_or(Unread)
    }

    /// An identifier: an organisation's OID, or an account under the organisation's OID.
    fn identified(&self, kind: Option<&str>, identifier: &Value) -> Option<Who> {
        let value = text(identifier, "value")?;
        let system = text(identifier, "system");
        match kind {
            Some("Practitioner") => Some(Who::Person(Some(self.organisation(system?)?), value.to_owned())),
            Some("Organization") | None => {
                let dotted =
                    system == Some("urn:ietf:rfc:3986") && value.starts_with(|first: char| first.is_ascii_digit());
                let value = if dotted {
                    format!("urn:oid:{value}")
                } else {
                    value.to_owned()
                };
                self.organisation(&value).map(Who::Org)
            }
            Some(_) => None,
        }
    }

    fn organisation(&self, name: &str) -> Option<OrgId> {
        OrgId::parse(name).ok().or_else(|| (self.org)(name))
    }
}

enum Who {
    Org(OrgId),
    Person(Option<OrgId>, String),
    Patient,
}

/// Reads a list of alternatives. One unread value: none is kept and the provision is unread.
fn each<T>(value: &Value, key: &str, unread: &mut bool, read: impl Fn(&Value) -> Result<T, Unread>) -> Vec<T> {
    let Some(found) = value.get(key) else {
        return Vec::new();
    };
    let values = found
        .as_array()
        .filter(|values| !values.is_empty() && values.len() <= CRITERION_VALUES_MAX);
    let plain = |value: &Value| value.get("modifierExtension").is_none();
    let read_all = values
        .filter(|values| values.iter().all(plain))
        .map(|values| values.iter().map(read).collect());
    match read_all {
        Some(Ok(all)) => all,
        _ => {
            *unread = true;
            Vec::new()
        }
    }
}

fn purpose(value: &Value) -> Result<Purpose, Unread> {
    match coding(value) {
        Some((system, code)) if system == ACT_REASON && Purpose::from_code(&code) != Purpose::Unknown => {
            Ok(Purpose::from_code(&code))
        }
        _ => Err(Unread),
    }
}

fn action(value: &Value) -> Result<Vec<Action>, Unread> {
    let codes = codes_of(Some(value));
    let read = |(system, code): (String, String)| match (system == CONSENT_ACTION, code.as_str()) {
        (true, "collect") => Ok(Action::Collect),
        (true, "access") => Ok(Action::Access),
        (true, "use") => Ok(Action::Use),
        (true, "disclose") => Ok(Action::Disclose),
        (true, "correct") => Ok(Action::Correct),
        _ => Err(Unread),
    };
    if codes.is_empty() {
        Err(Unread)
    } else {
        codes.into_iter().map(read).collect()
    }
}

fn concept(value: &Value) -> Result<Vec<Code>, Unread> {
    let codings = list(value, "coding");
    if codings.is_empty() {
        Err(Unread)
    } else {
        codings.iter().map(code).collect()
    }
}

fn code(value: &Value) -> Result<Code, Unread> {
    coding(value).map(|(system, code)| Code { system, code }).ok_or(Unread)
}

/// A document or study of this custodian: `DocumentReference/<id>`, `ImagingStudy/<id>` or `urn:uuid:<id>`.
fn document(reference: &Value) -> Result<DocumentId, Unread> {
    let literal = text(reference, "reference").ok_or(Unread)?;
    let id = ["DocumentReference/", "ImagingStudy/", "urn:uuid:"]
        .iter()
        .find_map(|start| literal.strip_prefix(start));
    let hex: String = id.ok_or(Unread)?.chars().filter(|each| *each != '-').collect();
    DocumentId::from_hex(&hex).map_err(|_| Unread)
}

/// A Period; an end of a day, month or year includes all of it (UTC where no zone is given).
fn span(period: Option<&Value>, unread: &mut bool) -> Option<Span> {
    let period = period?;
    let end = |key: &str| match period.get(key) {
        None => Ok(None),
        Some(at) => at.as_str().and_then(time::instant_range).map(Some).ok_or(Unread),
    };
    let known = ["id", "extension", "start", "end"];
    let plain = period
        .as_object()
        .is_some_and(|object| object.keys().all(|key| known.contains(&key.as_str())));
    match (end("start"), end("end")) {
        (Ok(start), Ok(stop)) if plain && (start.is_some() || stop.is_some()) => Some(Span {
            from: start.map(|range| range.0),
            to: stop.map(|range| range.1),
        }),
        _ => {
            *unread = true;
            None
        }
    }
}

const KNOWN: [&str; 14] = [
    "id",
    "extension",
    "type",
    "period",
    "actor",
    "action",
    "securityLabel",
    "purpose",
    "class",
    "code",
    "dataPeriod",
    "data",
    "provision",
    "fhir_comments",
];
const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const PRACTITIONER_ROLE: &str = "http://terminology.hl7.org/CodeSystem/practitioner-role";
const CONSENT_ACTION: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
