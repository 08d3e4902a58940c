//! Everything that was read, and which reference means what.
//!
//! A reference resolves first within its own Bundle or file, then over all inputs; two candidates are none.
//! Resolved references are rewritten to `Type/id`, so that what leaves the import needs no fullUrl any more.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::fhir::import::{Refusals, SUBJECTS};
use crate::fhir::resource;

/// One resource of an input.
pub struct Item {
    pub value: Value,
    pub kind: String,
    pub place: String,
    pub scope: usize,
    /// What its references resolve to.
    pub targets: Vec<usize>,
    /// What its subject resolves to.
    pub subject: Option<usize>,
    /// Whether it names a subject at all.
    pub has_subject: bool,
}

/// One document Bundle, kept whole.
pub struct BundleDocument {
    pub bundle: Value,
    pub url: Option<String>,
    pub bytes: Vec<u8>,
    /// The scope of its entries.
    pub scope: usize,
}

#[derive(Default)]
pub struct Pool {
    pub items: Vec<Item>,
    pub documents: Vec<BundleDocument>,
    local: HashMap<(usize, String), usize>,
    /// `usize::MAX` marks a key with more than one candidate.
    global: HashMap<String, usize>,
}

/// INVARIANT: no item has this number.
const AMBIGUOUS: usize = usize::MAX;

impl Pool {
    /// Adds a resource; refuses a second one of the same fullUrl or `Type/id` in the same Bundle.
    pub fn push(
        &mut self,
        mut value: Value,
        kind: String,
        url: Option<String>,
        place: String,
        scope: usize,
    ) -> Result<(), String> {
        let id = self.assign_id(&mut value, &kind, url.as_deref());
        if let Some(known) = self
            .local
            .get(&(scope, format!("{kind}/{id}")))
            .and_then(|at| self.items.get(*at))
        {
            return if known.value == value {
                Ok(())
            } else {
                Err(format!(
                    "a second, different {kind} of the same id in one input: keep one"
                ))
            };
        }
        if let Some(url) = &url
            && self.local.contains_key(&(scope, url.clone()))
        {
            return Err("a second resource of the same fullUrl in one Bundle: keep one".to_owned());
        }
        let at = self.items.len();
        self.index(at, scope, format!("{kind}/{id}"));
        if let Some(url) = &url {
            self.index(at, scope, url.clone());
        }
        for identifier in identifiers(&value) {
            self.index(at, scope, format!("{kind}?identifier={identifier}"));
        }
        let contained = contained_patient(&mut value, &kind, &id);
        self.items.push(Item {
            value,
            kind,
            place: place.clone(),
            scope,
            targets: Vec::new(),
            subject: None,
            has_subject: false,
        });
        if let Some(patient) = contained {
            self.push(patient, "Patient".to_owned(), None, place, scope)?;
        }
        Ok(())
    }

    /// Keeps a document Bundle whose entries follow in `scope`.
    pub fn open_document(&mut self, bundle: Value, url: Option<String>, bytes: Vec<u8>, scope: usize) {
        self.documents.push(BundleDocument {
            bundle,
            url,
            bytes,
            scope,
        });
    }

    /// The item that `reference`, written in `scope`, means.
    pub fn resolve(&self, scope: usize, reference: &str) -> Option<usize> {
        let mut keys = vec![reference.to_owned()];
        if let Some((kind, id)) = resource::relative(reference) {
            keys.push(format!("{kind}/{id}"));
        } else if let Some((head, query)) = reference.split_once('?') {
            let kind = head.rsplit('/').next().unwrap_or_default();
            keys.push(format!("{kind}?{}", query.replace("%7C", "|").replace("%7c", "|")));
        }
        let local = keys
            .iter()
            .find_map(|key| self.local.get(&(scope, key.clone())).copied());
        local
            .or_else(|| keys.iter().find_map(|key| self.global.get(key).copied()))
            .filter(|at| *at != AMBIGUOUS)
    }

    /// Resolves and rewrites every reference of every item.
    pub fn link(&mut self) {
        let names: Vec<String> = self.items.iter().map(|item| name_of(&item.value)).collect();
        for at in 0..self.items.len() {
            let Some(item) = self.items.get_mut(at) else { continue };
            let (mut value, scope) = (item.value.take(), item.scope);
            let mut targets = Vec::new();
            self.rewrite(&mut value, scope, &names, &mut targets);
            let subject = SUBJECTS
                .iter()
                .find_map(|key| value.get(*key))
                .filter(|subject| subject.is_object());
            let has_subject = subject.is_some();
            let subject = subject.and_then(|subject| resource::text(subject, "reference"));
            let subject = subject.and_then(|reference| {
                targets
                    .iter()
                    .copied()
                    .find(|target| names.get(*target).is_some_and(|name| name == reference))
            });
            targets.sort_unstable();
            targets.dedup();
            if let Some(item) = self.items.get_mut(at) {
                item.value = value;
                item.targets = targets;
                item.subject = subject;
                item.has_subject = has_subject;
            }
        }
    }

    /// The patients, one for each distinct Patient resource.
    pub fn patients(&self, refusals: &mut Refusals) -> Vec<usize> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut patients = Vec::new();
        for (at, item) in self.items.iter().enumerate().filter(|(_, item)| item.kind == "Patient") {
            let name = name_of(&item.value);
            if seen.insert(name, at).is_some() {
                let reason = "another Patient of the same id and another content is in the inputs: import them apart";
                refusals.reject(item.place.clone(), reason.to_owned());
            } else {
                patients.push(at);
            }
        }
        patients
    }

    fn rewrite(&self, value: &mut Value, scope: usize, names: &[String], targets: &mut Vec<usize>) {
        // The guard bounds the depth, so this recursion is bounded too.
        match value {
            Value::Array(items) => items
                .iter_mut()
                .for_each(|item| self.rewrite(item, scope, names, targets)),
            Value::Object(map) => {
                if let Some(target) = self.meaning(map, scope)
                    && let Some(name) = names.get(target)
                {
                    map.insert("reference".to_owned(), Value::String(name.clone()));
                    targets.push(target);
                }
                map.values_mut()
                    .for_each(|item| self.rewrite(item, scope, names, targets));
            }
            _ => {}
        }
    }

    fn meaning(&self, map: &Map<String, Value>, scope: usize) -> Option<usize> {
        match map.get("reference") {
            Some(Value::String(reference)) if !reference.starts_with('#') => self.resolve(scope, reference),
            None => {
                let kind = map
                    .get("type")
                    .and_then(Value::as_str)
                    .filter(|kind| resource::is_type(kind));
                let identifier = map.get("identifier").filter(|identifier| identifier.is_object())?;
                let pair = pair(identifier)?;
                let kinds = kind.map_or_else(
                    || vec!["Patient", "Practitioner", "Organization", "Location"],
                    |kind| vec![kind],
                );
                kinds
                    .iter()
                    .find_map(|kind| self.resolve(scope, &format!("{kind}?identifier={pair}")))
            }
            Some(_) => None,
        }
    }

    fn index(&mut self, at: usize, scope: usize, key: String) {
        self.global
            .entry(key.clone())
            .and_modify(|known| *known = AMBIGUOUS)
            .or_insert(at);
        self.local
            .entry((scope, key))
            .and_modify(|known| *known = AMBIGUOUS)
            .or_insert(at);
    }

    /// Keeps a valid id; else takes the fullUrl's UUID, else a digest of the resource. A taken id with another
    /// content (from another input) gets the digest behind it.
    fn assign_id(&self, value: &mut Value, kind: &str, url: Option<&str>) -> String {
        let own = resource::text(value, "id").map(str::to_owned);
        let uuid = || {
            url.and_then(|url| url.strip_prefix("urn:uuid:"))
                .filter(|id| resource::is_id(id))
                .map(str::to_owned)
        };
        let mut id = own.or_else(uuid).unwrap_or_else(|| format!("h-{}", digest(value)));
        if let Some(known) = self.global.get(&format!("{kind}/{id}")) {
            let same = self.items.get(*known).is_some_and(|item| item.value == *value);
            if !same && kind != "Patient" {
                let digest = digest(value);
                id = format!(
                    "{}-{}",
                    id.get(..40).unwrap_or(&id),
                    digest.get(..16).unwrap_or(&digest)
                );
            }
        }
        if let Some(map) = value.as_object_mut() {
            map.insert("id".to_owned(), Value::String(id.clone()));
        }
        id
    }
}

/// `Type/id` of a resource.
pub fn name_of(value: &Value) -> String {
    format!(
        "{}/{}",
        resource::kind(value).unwrap_or_default(),
        resource::text(value, "id").unwrap_or_default()
    )
}

fn digest(value: &Value) -> String {
    hex::encode(
        Sha256::digest(value.to_string().as_bytes())
            .get(..16)
            .unwrap_or_default(),
    )
}

fn pair(identifier: &Value) -> Option<String> {
    let value = resource::text(identifier, "value")?;
    Some(resource::text(identifier, "system").map_or_else(|| value.to_owned(), |system| format!("{system}|{value}")))
}

fn identifiers(value: &Value) -> Vec<String> {
    resource::list(value, "identifier")
        .iter()
        .take(resource::ITEMS_MAX)
        .filter_map(pair)
        .collect()
}

/// Lifts a contained Patient that is the subject out of its resource, so that it becomes a patient of its own.
fn contained_patient(value: &mut Value, kind: &str, id: &str) -> Option<Value> {
    let subject = SUBJECTS
        .iter()
        .find(|key| value.get(**key).is_some_and(Value::is_object))?;
    let local = resource::reference(value, subject)?.strip_prefix('#')?.to_owned();
    let mut patient = resource::list(value, "contained")
        .iter()
        .find(|item| resource::kind(item) == Some("Patient") && resource::text(item, "id") == Some(&local))?
        .clone();
    crate::fhir::import::check::shape(&patient).ok()?;
    let name = hex::encode(
        Sha256::digest(format!("{kind}/{id}#{local}").as_bytes())
            .get(..16)
            .unwrap_or_default(),
    );
    let name = format!("h-{name}");
    patient
        .as_object_mut()?
        .insert("id".to_owned(), Value::String(name.clone()));
    let link = value.get_mut(*subject)?.as_object_mut()?;
    link.insert("reference".to_owned(), Value::String(format!("Patient/{name}")));
    Some(patient)
}
