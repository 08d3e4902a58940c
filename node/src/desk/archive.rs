//! This node's own archive for DICOMweb: store (RAD-108), query (RAD-129), retrieve (RAD-107).
//!
//! The law: an instance is acknowledged only when it is durable; a study that the caller may not see is not there;
//! one permit and one audit entry stand before every study that leaves. Queries are answered from the stored
//! attributes and open no file.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use hie_consent::decide::Decision;
use hie_gateway::ports::{
    Answer, Archive, Caller, ImagingLevel, ImagingQuery, InstanceContent, PortError, StoredInstance,
};
use hie_gateway_dialect::dicom::instance;
use hie_node_core::audit::event::{AuditEvent, EventKind};
use hie_node_core::exchange::local::LocalError;
use hie_node_core::kv::SCAN_LIMIT_MAX;
use hie_node_core::locator::worker::Publisher;
use hie_node_core::policy::decide::{Asker, decide_for, rules};
use hie_node_core::ports::blocking;
use hie_node_core::record::publish::Occasion;
use hie_node_core::record::release::ReleasedStudy;
use hie_node_core::record::study::StudyRecord;
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::{InstanceEntry, SeriesEntry};
use serde_json::{Value, json};

use super::caller::{actor, asker, body, correlation, port_error, told, told_as};
use crate::assemble::Trade;
use crate::intake::dicom::StoreFault;
use matching::Attributes;

pub mod matching;

/// Most people looked at for one Patient ID.
const PEOPLE_MAX: usize = 64;
/// Failure reasons (PS3.18 table I.2-2): processing failure, here an instance of another study.
const OTHER_STUDY: u16 = 0x0110;
/// Refused.
const REFUSED: u16 = 0x0124;
/// Not understood.
const NOT_UNDERSTOOD: u16 = 0xC000;
const STUDY_DATE: &str = "00080020";
const MODALITY: &str = "00080060";
const MODALITIES: &str = "00080061";
const AVAILABILITY: &str = "00080056";
const PATIENT_ID: &str = "00100020";
const STUDY_UID: &str = "0020000D";
const SERIES_UID: &str = "0020000E";
const SOP_CLASS: &str = "00080016";
const SOP_UID: &str = "00080018";
const STUDY_SERIES: &str = "00201206";
const STUDY_INSTANCES: &str = "00201208";
const SERIES_INSTANCES: &str = "00201209";

/// The archive.
#[derive(Clone)]
pub struct ArchiveDesk {
    trade: Trade,
    publisher: Publisher,
}

/// A study that fits, with its attributes.
struct Candidate {
    record: StudyRecord,
    object: Attributes,
}

impl ArchiveDesk {
    /// Over the trade; the publisher is woken when something was stored.
    #[must_use]
    pub const fn new(trade: Trade, publisher: Publisher) -> Self {
        Self { trade, publisher }
    }

    fn broken<E: super::caller::Classed>(&self) -> impl Fn(E) -> PortError + '_ {
        |error| told(&*self.trade.random, &error)
    }

    async fn take(&self, caller: &Caller, study: Option<String>, bytes: Bytes) -> Answer<StoredInstance> {
        let read = bytes.clone();
        let facts = match blocking(move || instance::read(&read)).await {
            Ok(facts) => facts,
            Err(error) => {
                let failure = Some((NOT_UNDERSTOOD, error.to_string()));
                let study = study.unwrap_or_default();
                return Ok(StoredInstance {
                    sop_class: String::new(),
                    sop_instance: String::new(),
                    study,
                    failure,
                });
            }
        };
        let mut stored = StoredInstance {
            sop_class: facts.sop_class,
            sop_instance: facts.sop_uid,
            study: facts.study_uid,
            failure: None,
        };
        if study.is_some_and(|study| study != stored.study) {
            let words = "the instance belongs to another study than the one addressed";
            stored.failure = Some((OTHER_STUDY, words.to_owned()));
            return Ok(stored);
        }
        let occasion = Occasion {
            actor: actor(&self.trade, caller),
            correlation: correlation(&*self.trade.random)?,
            now: self.trade.clock.now(),
        };
        match self.trade.dicom.store(bytes, &occasion).await {
            Ok(_) => self.publisher.wake(),
            Err(StoreFault::Unreadable(words)) => stored.failure = Some((NOT_UNDERSTOOD, words)),
            Err(StoreFault::Refused(words)) => stored.failure = Some((REFUSED, words)),
            Err(error @ StoreFault::Broken(_)) => return Err(told_as(&*self.trade.random, Class::Broken, &error)),
        }
        Ok(stored)
    }

    /// Studies that may fit, and whether there may be more than were looked at.
    fn candidates(&self, query: &ImagingQuery) -> Answer<(Vec<StudyRecord>, bool)> {
        let records = &self.trade.records;
        let listed = query
            .matching
            .iter()
            .find(|(tag, _)| tag == STUDY_UID)
            .map(|(_, list)| list.as_str());
        if let Some(list) = query.study.as_deref().or(listed) {
            let mut found = Vec::new();
            for uid in matching::uids(list) {
                found.extend(records.study(uid).map_err(self.broken())?);
            }
            return Ok((found, false));
        }
        let found = records.studies(SCAN_LIMIT_MAX).map_err(self.broken())?;
        if found.len() < SCAN_LIMIT_MAX {
            return Ok((found, false));
        }
        let patient = query
            .matching
            .iter()
            .find(|(tag, value)| tag == PATIENT_ID && !value.contains(['*', '?']));
        let Some((_, id)) = patient else {
            return Ok((found, true));
        };
        let mut found = Vec::new();
        for person in self.trade.patients.find_text(id, PEOPLE_MAX).map_err(self.broken())? {
            for entry in records.of_patient(person.key).map_err(self.broken())? {
                let Some(imaging) = &entry.meta.imaging else { continue };
                found.extend(records.study(&imaging.study_uid).map_err(self.broken())?);
            }
        }
        Ok((found, false))
    }

    /// Whether the caller may know of the study.
    fn visible(&self, asker: &Asker, study: &StudyRecord) -> Answer<bool> {
        let trade = &self.trade;
        let Some(entry) = trade.records.entry(&study.document).map_err(self.broken())? else {
            return Ok(false);
        };
        if entry.superseded {
            return Ok(false);
        }
        let policy = trade.policies.of(entry.patient).map_err(self.broken())?;
        let region = rules(&trade.registry.borrow().policy);
        let decision = decide_for(&policy, &region, asker, &entry, &trade.me, trade.clock.now());
        Ok(matches!(decision, Decision::Permitted(_)))
    }

    /// The rows of one level and whether more follow.
    fn search(&self, asker: &Asker, level: ImagingLevel, query: &ImagingQuery) -> Answer<(Vec<Value>, bool)> {
        let (found, cut) = self.candidates(query)?;
        let mut studies: Vec<Candidate> = found.into_iter().map(candidate).collect();
        studies.retain(|study| level != ImagingLevel::Study || fits(&study.object, query));
        // The newest first, and always in the same order, so that pages meet.
        studies.sort_by_cached_key(|study| {
            let date = study
                .object
                .get(STUDY_DATE)
                .and_then(|element| element.pointer("/Value/0"));
            let date = date.and_then(Value::as_str);
            (
                core::cmp::Reverse(date.unwrap_or_default().to_owned()),
                study.record.uid.clone(),
            )
        });
        let enough = query.offset.saturating_add(query.limit);
        let mut rows = Vec::new();
        for study in studies {
            if rows.len() > enough {
                break;
            }
            if self.holds(&study.record, level, query)? && self.visible(asker, &study.record)? {
                match level {
                    ImagingLevel::Study => rows.push(study.object),
                    ImagingLevel::Series => rows.extend(self.series_rows(&study, query)?),
                    ImagingLevel::Instance => rows.extend(self.instance_rows(&study, query)?),
                }
            }
        }
        let more = cut || rows.len() > enough;
        // DICOM JSON is in the order of the tags (PS3.18 section F.2.2).
        rows.iter_mut().for_each(Attributes::sort_keys);
        let page = rows.into_iter().skip(query.offset).take(query.limit).map(Value::Object);
        Ok((page.collect(), more))
    }

    /// Whether a study has the series and the instance that a query of the study level names.
    fn holds(&self, study: &StudyRecord, level: ImagingLevel, query: &ImagingQuery) -> Answer<bool> {
        if level != ImagingLevel::Study || (query.series.is_none() && query.instance.is_none()) {
            return Ok(true);
        }
        let instances = self.trade.records.instances(&study.uid).map_err(self.broken())?;
        Ok(instances.iter().any(|one| is_wanted(query, &one.series, &one.entry)))
    }

    fn series_rows(&self, study: &Candidate, query: &ImagingQuery) -> Answer<Vec<Attributes>> {
        let records = &self.trade.records;
        let instances = records.instances(&study.record.uid).map_err(self.broken())?;
        let mut series = records.series(&study.record.uid).map_err(self.broken())?;
        series.sort_by_cached_key(|(one, _)| (one.number.unwrap_or(i64::MAX), one.series_uid.clone()));
        let mut rows = Vec::new();
        for (one, attributes) in series {
            let below: Vec<_> = instances
                .iter()
                .filter(|held| held.series.series_uid == one.series_uid)
                .collect();
            if !below.iter().any(|held| is_wanted(query, &held.series, &held.entry)) {
                continue;
            }
            let own = series_object(&one, &attributes, below.len());
            let whole = joined(&study.object, &own);
            if fits(&whole, query) {
                rows.push(shown(&whole, &own, query, query.study.is_none()));
            }
        }
        Ok(rows)
    }

    fn instance_rows(&self, study: &Candidate, query: &ImagingQuery) -> Answer<Vec<Attributes>> {
        let records = &self.trade.records;
        let series = records.series(&study.record.uid).map_err(self.broken())?;
        let instances = records.instances(&study.record.uid).map_err(self.broken())?;
        let mut rows = Vec::new();
        for held in instances
            .iter()
            .filter(|held| is_wanted(query, &held.series, &held.entry))
        {
            let of_series = series.iter().find(|(one, _)| one.series_uid == held.series.series_uid);
            let above = of_series.map(|(one, attributes)| {
                let count = instances
                    .iter()
                    .filter(|other| other.series.series_uid == one.series_uid)
                    .count();
                series_object(one, attributes, count)
            });
            let above = joined(&study.object, &above.unwrap_or_default());
            let mut own = read(&held.attributes);
            put(&mut own, SOP_CLASS, "UI", json!(held.entry.sop_class));
            put(&mut own, SOP_UID, "UI", json!(held.entry.sop_uid));
            put(&mut own, SERIES_UID, "UI", json!(held.series.series_uid));
            put(&mut own, AVAILABILITY, "CS", json!("ONLINE"));
            let whole = joined(&above, &own);
            if fits(&whole, query) {
                rows.push(shown(&whole, &own, query, query.study.is_none()));
            }
        }
        Ok(rows)
    }

    async fn release(&self, caller: &Caller, query: ImagingQuery) -> Answer<Vec<InstanceContent>> {
        let Some(uid) = query.study.clone() else {
            return Err(port_error(Class::Invalid, "Name the study that is wanted."));
        };
        let this = self.clone();
        let wanted = query.clone();
        let found = blocking(move || {
            let Some(study) = this.trade.records.study(&uid).map_err(this.broken())? else {
                return Ok(None);
            };
            Ok(this.holds(&study, ImagingLevel::Study, &wanted)?.then_some(study))
        });
        let Some(study) = found.await? else {
            return Ok(Vec::new());
        };
        let question = correlation(&*self.trade.random)?;
        let released = self
            .trade
            .local
            .study(&asker(&self.trade, caller), study.document, question)
            .await;
        match released {
            Ok(released) => Ok(self.contents(Arc::new(released), &query)),
            Err(LocalError::NothingHere) => Ok(Vec::new()),
            Err(error) => Err(told(&*self.trade.random, &error)),
        }
    }

    /// The instances of a released study that are wanted, in viewing order.
    fn contents(&self, released: Arc<ReleasedStudy>, query: &ImagingQuery) -> Vec<InstanceContent> {
        let manifest = released.manifest();
        let in_order = manifest
            .series
            .iter()
            .flat_map(|series| series.instances.iter().map(move |one| (series, one)));
        let wanted = (0_u32..)
            .zip(in_order)
            .filter(|(_, (series, one))| is_wanted(query, series, one));
        let content = |(index, (series, one)): (u32, (&SeriesEntry, &InstanceEntry))| {
            let (released, random) = (Arc::clone(&released), Arc::clone(&self.trade.random));
            let read = move || {
                let (released, random) = (Arc::clone(&released), Arc::clone(&random));
                let opened = async move {
                    let opened = released.instance(index, 0).await;
                    opened
                        .map(|opened| body(&random, opened))
                        .map_err(|error| told(&*random, &error))
                };
                opened.boxed()
            };
            InstanceContent {
                study: manifest.study_uid.clone(),
                series: series.series_uid.clone(),
                instance: one.sop_uid.clone(),
                sop_class: one.sop_class.clone(),
                transfer_syntax: one.transfer_syntax.clone(),
                size: one.size,
                read: Arc::new(read),
            }
        };
        wanted.take(query.limit).map(content).collect()
    }
}

impl Archive for ArchiveDesk {
    fn store<'a>(
        &'a self,
        caller: &'a Caller,
        study: Option<String>,
        bytes: Bytes,
    ) -> BoxFuture<'a, Answer<StoredInstance>> {
        self.take(caller, study, bytes).boxed()
    }

    fn query<'a>(
        &'a self,
        caller: &'a Caller,
        level: ImagingLevel,
        query: ImagingQuery,
    ) -> BoxFuture<'a, Answer<(Vec<Value>, bool)>> {
        let (this, asker, actor) = (self.clone(), asker(&self.trade, caller), actor(&self.trade, caller));
        let work = move || {
            let found = this.search(&asker, level, &query)?;
            let question = correlation(&*this.trade.random)?;
            let mut event = AuditEvent::new(EventKind::PatientsSearched, this.trade.clock.now(), question, actor);
            event.purpose = Some(asker.purpose);
            event.detail = Some(format!("imaging query, {} answers", found.0.len()));
            let _receipt = this.trade.audit.append_one(event).map_err(this.broken())?;
            Ok(found)
        };
        blocking(work).boxed()
    }

    fn retrieve<'a>(&'a self, caller: &'a Caller, query: ImagingQuery) -> BoxFuture<'a, Answer<Vec<InstanceContent>>> {
        self.release(caller, query).boxed()
    }
}

/// Whether an instance lies below the series and is the instance that the query names.
fn is_wanted(query: &ImagingQuery, series: &SeriesEntry, one: &InstanceEntry) -> bool {
    query.series.as_ref().is_none_or(|uid| *uid == series.series_uid)
        && query.instance.as_ref().is_none_or(|uid| *uid == one.sop_uid)
}

/// Whether every matching attribute fits.
fn fits(object: &Attributes, query: &ImagingQuery) -> bool {
    query
        .matching
        .iter()
        .all(|(path, wanted)| matching::matches(object, path, wanted))
}

/// Attributes as they were stored; what cannot be read is empty and matches nothing.
fn read(stored: &[u8]) -> Attributes {
    serde_json::from_slice(stored).unwrap_or_default()
}

/// Sets an attribute; a list gives its values, anything else is the one value.
fn put(object: &mut Attributes, tag: &str, vr: &str, value: Value) {
    let values = if value.is_array() { value } else { json!([value]) };
    object.insert(tag.to_owned(), json!({ "vr": vr, "Value": values }));
}

fn candidate(record: StudyRecord) -> Candidate {
    let mut object = read(&record.attributes);
    put(&mut object, STUDY_UID, "UI", json!(record.uid));
    put(&mut object, MODALITIES, "CS", json!(record.modalities));
    put(&mut object, STUDY_SERIES, "IS", json!(record.series));
    put(&mut object, STUDY_INSTANCES, "IS", json!(record.instances));
    put(&mut object, AVAILABILITY, "CS", json!("ONLINE"));
    Candidate { record, object }
}

fn series_object(series: &SeriesEntry, attributes: &[u8], instances: usize) -> Attributes {
    let mut object = read(attributes);
    put(&mut object, SERIES_UID, "UI", json!(series.series_uid));
    put(&mut object, MODALITY, "CS", json!(series.modality));
    put(&mut object, SERIES_INSTANCES, "IS", json!(instances));
    object
}

/// Both levels in one object; the lower one wins.
fn joined(above: &Attributes, own: &Attributes) -> Attributes {
    let mut whole = above.clone();
    whole.extend(own.iter().map(|(tag, element)| (tag.clone(), element.clone())));
    whole
}

/// What a row shows: its own level and the study it lies in; the levels above when the query is relational or asks
/// for all (PS3.18 section 10.6.3.3); and what is asked for by name.
fn shown(whole: &Attributes, own: &Attributes, query: &ImagingQuery, relational: bool) -> Attributes {
    let all = relational || query.include.iter().any(|field| field == "all");
    let asked = |tag: &str| query.include.iter().any(|field| field == tag);
    let keep = |tag: &str| all || tag == STUDY_UID || own.contains_key(tag) || asked(tag);
    whole
        .iter()
        .filter(|(tag, _)| keep(tag))
        .map(|(tag, element)| (tag.clone(), element.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use hie_gateway::ports::ImagingQuery;
    use serde_json::json;

    use super::{Attributes, fits, joined, put, shown};

    fn object(pairs: &[(&str, &str, &str)]) -> Attributes {
        let mut object = Attributes::new();
        pairs
            .iter()
            .for_each(|(tag, vr, value)| put(&mut object, tag, vr, json!(value)));
        object
    }

    #[test]
    fn a_row_shows_its_level_and_what_was_asked_for() {
        let study = object(&[
            ("0020000D", "UI", "1.2"),
            ("00100020", "LO", "4711"),
            ("00081030", "LO", "CT head"),
        ]);
        let series = object(&[("0020000E", "UI", "1.2.1"), ("00080060", "CS", "CT")]);
        let whole = joined(&study, &series);
        let mut query = ImagingQuery {
            study: Some("1.2".to_owned()),
            ..ImagingQuery::default()
        };
        query.include.push("00081030".to_owned());
        let mut row = shown(&whole, &series, &query, false);
        row.sort_keys();
        assert_eq!(
            row.keys().collect::<Vec<_>>(),
            ["00080060", "00081030", "0020000D", "0020000E"]
        );
        assert_eq!(shown(&whole, &series, &query, true).len(), 5);
        query.matching = vec![
            ("00100020".to_owned(), "47*".to_owned()),
            ("00080060".to_owned(), "CT".to_owned()),
        ];
        assert!(fits(&whole, &query) && !fits(&series, &query));
    }
}
