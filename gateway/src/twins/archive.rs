//! The twin of an image archive: it reads what it stores, keeps it by SOP Instance UID and finds it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use hie_gateway_dialect::dicom::instance::{self, InstanceFacts};
use serde_json::{Value, json};

use super::{Twin, body, ready};
use crate::ports::{Answer, Archive, Caller, ImagingLevel, ImagingQuery, InstanceContent, StoredInstance};

/// An instance of the twin.
#[derive(Clone)]
pub struct HeldInstance {
    /// What it says of itself.
    pub facts: InstanceFacts,
    /// Part 10 file.
    pub bytes: Bytes,
}

impl Archive for Twin {
    fn store<'a>(
        &'a self,
        _caller: &'a Caller,
        study: Option<String>,
        bytes: Bytes,
    ) -> BoxFuture<'a, Answer<StoredInstance>> {
        let mut world = self.world();
        if let Err(error) = world.failing() {
            return ready(Err(error));
        }
        let stored = match instance::read(&bytes) {
            Err(error) => StoredInstance {
                sop_class: String::new(),
                sop_instance: String::new(),
                study: study.unwrap_or_default(),
                failure: Some((0xC000, error.to_string())),
            },
            Ok(facts) => {
                let elsewhere = study.is_some_and(|study| study != facts.study_uid);
                let failure = elsewhere.then(|| (0xA900, "the instance belongs to another study".to_owned()));
                let told = StoredInstance {
                    sop_class: facts.sop_class.clone(),
                    sop_instance: facts.sop_uid.clone(),
                    study: facts.study_uid.clone(),
                    failure,
                };
                if told.failure.is_none() {
                    world.archive.retain(|held| held.facts.sop_uid != facts.sop_uid);
                    world.archive.push(HeldInstance { facts, bytes });
                }
                told
            }
        };
        ready(Ok(stored))
    }

    fn query<'a>(
        &'a self,
        _caller: &'a Caller,
        level: ImagingLevel,
        query: ImagingQuery,
    ) -> BoxFuture<'a, Answer<(Vec<Value>, bool)>> {
        let world = self.world();
        if let Err(error) = world.failing() {
            return ready(Err(error));
        }
        let mut found = BTreeMap::new();
        for held in world
            .archive
            .iter()
            .filter(|held| within(held, &query) && matches(held, &query))
        {
            let (key, value) = row(&held.facts, level);
            found.entry(key).or_insert(value);
        }
        let more = found.len() > query.offset.saturating_add(query.limit);
        ready(Ok((
            found.into_values().skip(query.offset).take(query.limit).collect(),
            more,
        )))
    }

    fn retrieve<'a>(&'a self, _caller: &'a Caller, query: ImagingQuery) -> BoxFuture<'a, Answer<Vec<InstanceContent>>> {
        let world = self.world();
        if let Err(error) = world.failing() {
            return ready(Err(error));
        }
        ready(Ok(world
            .archive
            .iter()
            .filter(|held| within(held, &query))
            .take(query.limit)
            .map(content)
            .collect()))
    }
}

fn within(held: &HeldInstance, query: &ImagingQuery) -> bool {
    let is = |wanted: &Option<String>, uid: &str| wanted.as_deref().is_none_or(|wanted| wanted == uid);
    is(&query.study, &held.facts.study_uid)
        && is(&query.series, &held.facts.series_uid)
        && is(&query.instance, &held.facts.sop_uid)
}

/// The twin matches patient and modality, whole values only; any other attribute matches nothing.
fn matches(held: &HeldInstance, query: &ImagingQuery) -> bool {
    query.matching.iter().all(|(tag, value)| match tag.as_str() {
        "00100020" => held.facts.patient_id.as_deref() == Some(value),
        "00080060" | "00080061" => held.facts.modality.as_deref() == Some(value),
        _ => false,
    })
}

fn row(facts: &InstanceFacts, level: ImagingLevel) -> (String, Value) {
    let one = |vr: &str, value: &str| json!({ "vr": vr, "Value": [value] });
    let mut row = json!({ "0020000D": one("UI", &facts.study_uid), "00100020": one("LO", facts.patient_id.as_deref().unwrap_or_default()) });
    let mut key = facts.study_uid.clone();
    let mut add = |tag: &str, value: &str| {
        key = format!("{key} {value}");
        row.as_object_mut()
            .into_iter()
            .for_each(|map| drop(map.insert(tag.to_owned(), one("UI", value))));
    };
    if level != ImagingLevel::Study {
        add("0020000E", &facts.series_uid);
    }
    if level == ImagingLevel::Instance {
        add("00080018", &facts.sop_uid);
        add("00080016", &facts.sop_class);
    }
    (key, row)
}

fn content(held: &HeldInstance) -> InstanceContent {
    let (facts, bytes) = (&held.facts, held.bytes.clone());
    InstanceContent {
        study: facts.study_uid.clone(),
        series: facts.series_uid.clone(),
        instance: facts.sop_uid.clone(),
        sop_class: facts.sop_class.clone(),
        transfer_syntax: facts.transfer_syntax.clone(),
        size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        read: Arc::new(move || ready(Ok(body("application/dicom", bytes.clone(), 0)))),
    }
}
