//! People: found here by text or demographics, and across the region by match tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use hie_gateway::ports::{
    Answer, Caller, Completeness, OrgAnswer, People, PersonHit, PersonQuery, PortError, SubjectRef,
};
use hie_node_core::audit::event::{Actor, AuditEvent, EventKind};
use hie_node_core::exchange::claim::Asking;
use hie_node_core::exchange::fanout::{AskEvent, Completeness as Whole, Reply};
use hie_node_core::ids::PatientKey;
use hie_node_core::patient::index::Person;
use hie_node_core::patient::search::{Query, Term};
use hie_node_core::ports::{blocking, random_bytes};
use hie_protocol::id::{Correlation, Millis};
use hie_protocol::message::{Demographics, MatchGrade, PersonName};
use hie_protocol::refusal::Class;
use serde_json::Value;

use super::{org_answer, organisation, port_error, silent_state};
use crate::assemble::{Region, Trade};

/// People shown at most; more asks for a finer question.
pub const HITS_MAX: usize = 21;
/// Subjects remembered at most.
pub const SUBJECTS_MAX: usize = 20_000;
/// How long a subject's handle works, in milliseconds.
pub const SUBJECT_LIFE_MS: u64 = 12 * 3_600_000;

/// Who a handle stands for.
#[derive(Clone)]
pub struct Subject {
    account: String,
    until: Millis,
    /// What was shown.
    pub hit: PersonHit,
}

/// Finds people and remembers their handles.
pub struct PeopleDesk {
    trade: Trade,
    region: Region,
    subjects: Mutex<HashMap<String, Subject>>,
}

/// Who asks, as the exchange wants it.
pub fn asking(trade: &Trade, caller: &Caller) -> Answer<Asking> {
    let correlation = random_bytes::<16>(&*trade.random)
        .map_err(|error| port_error(Class::Broken, "The node has no random numbers. Call IT.", &error))?;
    Ok(Asking {
        user: caller.principal.account.clone(),
        user_name: caller.principal.name.clone(),
        role: caller.role,
        purpose: caller.purpose,
        break_glass: caller.break_glass.clone(),
        evidence: None,
        correlation: Correlation::new(correlation),
    })
}

/// Everything known about the person: what was asked, filled up from this organisation's own record.
#[must_use]
pub fn joined(asked: &Demographics, known: &Demographics) -> Demographics {
    let mut all = known.clone();
    for name in &asked.names {
        if !all.names.contains(name) {
            all.names.push(name.clone());
        }
    }
    for identifier in &asked.identifiers {
        if !all.identifiers.contains(identifier) {
            all.identifiers.push(identifier.clone());
        }
    }
    for address in &asked.addresses {
        if !all.addresses.contains(address) {
            all.addresses.push(address.clone());
        }
    }
    for telecom in &asked.telecoms {
        if !all.telecoms.contains(telecom) {
            all.telecoms.push(telecom.clone());
        }
    }
    all.birth_date = all.birth_date.or_else(|| asked.birth_date.clone());
    all.sex = all.sex.or_else(|| asked.sex.clone());
    all
}

impl PeopleDesk {
    /// Over trade and region.
    #[must_use]
    pub fn new(trade: Trade, region: Region) -> Self {
        Self {
            trade,
            region,
            subjects: Mutex::default(),
        }
    }

    /// The subject behind a handle of this account.
    #[must_use]
    pub fn known(&self, account: &str, subject: &SubjectRef) -> Option<Subject> {
        let now = self.trade.clock.now();
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects
            .get(&subject.0)
            .filter(|known| known.account == account && known.until > now)
            .cloned()
    }

    fn remember(&self, account: &str, mut hit: PersonHit) -> Answer<PersonHit> {
        let name = random_bytes::<16>(&*self.trade.random)
            .map_err(|error| port_error(Class::Broken, "The node has no random numbers. Call IT.", &error))?;
        let now = self.trade.clock.now();
        hit.subject = SubjectRef(hex::encode(name));
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if subjects.len() >= SUBJECTS_MAX {
            subjects.retain(|_, known| known.until > now);
        }
        let known = Subject {
            account: account.to_owned(),
            until: now.plus(SUBJECT_LIFE_MS),
            hit: hit.clone(),
        };
        subjects.insert(hit.subject.0.clone(), known);
        Ok(hit)
    }

    fn audit(&self, asking: &Asking, found: usize) -> Answer<()> {
        let actor = Actor {
            org: self.trade.me.clone(),
            node: None,
            user: asking.user.clone(),
            user_name: asking.user_name.clone(),
            role: asking.role,
        };
        let mut event = AuditEvent::new(
            EventKind::PatientsSearched,
            self.trade.clock.now(),
            asking.correlation,
            actor,
        );
        event.purpose = Some(asking.purpose);
        event.detail = Some(format!("{found} people found here"));
        let stored = self.trade.audit.append_one(event);
        stored.map(|_| ()).map_err(|error| {
            port_error(
                Class::Broken,
                "The search could not be logged, so it was not made.",
                &error,
            )
        })
    }

    /// People of this organisation who fit.
    fn here(&self, query: &PersonQuery) -> Answer<Vec<(Person, MatchGrade, Vec<String>)>> {
        let failed = |error: hie_node_core::patient::index::PatientError| {
            port_error(
                error.class(),
                "The search could not be made. Check what you typed.",
                &error,
            )
        };
        let text = query.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
        if let Some(text) = text {
            let found = self.trade.patients.find_text(text, HITS_MAX).map_err(failed)?;
            return Ok(found
                .into_iter()
                .map(|person| (person, MatchGrade::Probable, Vec::new()))
                .collect());
        }
        let candidates = self.trade.patients.identify(&query.demographics).map_err(failed)?;
        let graded = candidates.into_iter().filter_map(|candidate| {
            let differs = candidate
                .verdict
                .differs
                .iter()
                .map(|word| (*word).to_owned())
                .collect();
            candidate.verdict.grade.map(|grade| (candidate.person, grade, differs))
        });
        Ok(graded.take(HITS_MAX).collect())
    }

    fn hit(&self, person: &Person, grade: MatchGrade, differs: Vec<String>) -> PersonHit {
        let number = person
            .demographics
            .identifiers
            .first()
            .map(|identifier| identifier.value.clone());
        PersonHit {
            subject: SubjectRef(String::new()),
            demographics: person.demographics.clone(),
            grade,
            differs,
            record_number: number,
            patient: Some(person.key.to_hex()),
            known_at: vec![self.trade.name.clone()],
        }
    }

    /// Asks the region who knows the person; gives their names, a certain record, and how whole the answer is.
    async fn elsewhere(
        &self,
        asking: &Asking,
        person: Demographics,
    ) -> Answer<(Vec<String>, Option<Demographics>, Completeness)> {
        let events = self.region.fanout.question(asking.clone(), person).await;
        let mut events = events.map_err(|error| {
            port_error(
                error.class(),
                "The region could not be asked. You can still see records held here.",
                &error,
            )
        })?;
        let (mut names, mut certain, mut whole) = (Vec::new(), None, None);
        while let Some(event) = events.next().await {
            match event {
                AskEvent::Organisation {
                    org,
                    reply: Reply::Opened(opening),
                    ..
                } => {
                    names.push(organisation(&self.trade.registry, &org).0);
                    certain = certain.or(opening.demographics);
                }
                AskEvent::Done { completeness, .. } => whole = Some(completeness),
                AskEvent::Asking(_) | AskEvent::Organisation { .. } => {}
            }
        }
        let now = self.trade.clock.now();
        Ok((names, certain, completeness(&self.trade, whole, now)))
    }

    async fn search(&self, caller: &Caller, query: PersonQuery) -> Answer<(Vec<PersonHit>, Completeness)> {
        let asking = asking(&self.trade, caller)?;
        let found = self.here(&query)?;
        self.audit(&asking, found.len())?;
        let mut hits: Vec<PersonHit> = found
            .iter()
            .map(|(person, grade, differs)| self.hit(person, *grade, differs.clone()))
            .collect();
        let mut whole = Completeness::Complete {
            as_of: self.trade.clock.now(),
        };
        if query.region {
            let person = match hits.as_slice() {
                [only] => Some(joined(&query.demographics, &only.demographics)),
                [] => from_text(&query),
                _ => None,
            };
            if let Some(person) = person {
                let (names, certain, answer) = self.elsewhere(&asking, person.clone()).await?;
                whole = answer;
                match hits.first_mut() {
                    Some(only) => {
                        only.known_at
                            .extend(names.into_iter().filter(|name| *name != self.trade.name));
                    }
                    None => {
                        if let Some(certain) = certain {
                            hits.push(PersonHit {
                                subject: SubjectRef(String::new()),
                                demographics: joined(&person, &certain),
                                grade: MatchGrade::Certain,
                                differs: Vec::new(),
                                record_number: None,
                                patient: None,
                                known_at: names,
                            });
                        }
                    }
                }
            }
        }
        let account = &caller.principal.account;
        let hits = hits
            .into_iter()
            .map(|hit| self.remember(account, hit))
            .collect::<Answer<Vec<_>>>()?;
        Ok((hits, whole))
    }
}

/// The fanout's completeness in the gateway's words.
#[must_use]
pub fn completeness(trade: &Trade, whole: Option<Whole>, now: Millis) -> Completeness {
    match whole {
        Some(Whole::Complete { as_of }) => Completeness::Complete { as_of },
        Some(Whole::Partial { silent, as_of }) => {
            let silent = silent
                .into_iter()
                .map(|(org, silence)| org_answer(&trade.registry, &org, silent_state(silence), None))
                .collect::<Vec<OrgAnswer>>();
            Completeness::Partial { silent, as_of }
        }
        None => Completeness::Partial {
            silent: Vec::new(),
            as_of: now,
        },
    }
}

/// Demographics of a question that nobody here fits: the fields, or the words of the one box.
fn from_text(query: &PersonQuery) -> Option<Demographics> {
    let asked = &query.demographics;
    if !asked.identifiers.is_empty() || (!asked.names.is_empty() && asked.birth_date.is_some()) {
        return Some(asked.clone());
    }
    let (mut born, mut words) = (None, Vec::new());
    for term in Query::parse(query.text.as_deref()?).terms() {
        match term {
            Term::Word(word) => words.push(word.clone()),
            Term::Date(readings) => {
                let [only] = readings.as_slice() else { return None };
                born = crate::moment::dicom_date(only);
            }
            Term::Number(_) => {}
        }
    }
    let [first, second, ..] = words.as_slice() else {
        return None;
    };
    let name = |family: &str, given: &str| PersonName {
        family: family.to_owned(),
        given: vec![given.to_owned()],
        ..PersonName::default()
    };
    let names = vec![name(first, second), name(second, first)];
    Some(Demographics {
        names,
        birth_date: Some(born?),
        ..asked.clone()
    })
}

impl People for PeopleDesk {
    fn find<'a>(
        &'a self,
        caller: &'a Caller,
        query: PersonQuery,
    ) -> BoxFuture<'a, Answer<(Vec<PersonHit>, Completeness)>> {
        Box::pin(self.search(caller, query))
    }

    fn subject<'a>(&'a self, caller: &'a Caller, subject: &'a SubjectRef) -> BoxFuture<'a, Answer<Option<PersonHit>>> {
        Box::pin(async move { Ok(self.known(&caller.principal.account, subject).map(|known| known.hit)) })
    }

    fn patients<'a>(
        &'a self,
        caller: &'a Caller,
        query: PersonQuery,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>> {
        Box::pin(async move {
            let asking = asking(&self.trade, caller)?;
            let patients = Arc::clone(&self.trade.patients);
            let found = blocking(move || local_patients(&patients, &query, id)).await;
            let found = found.map_err(|error: PortError| error)?;
            self.audit(&asking, found.len())?;
            Ok(found)
        })
    }
}

/// FHIR Patients of this organisation.
fn local_patients(
    patients: &hie_node_core::patient::index::PatientIndex,
    query: &PersonQuery,
    id: Option<String>,
) -> Answer<Vec<Value>> {
    let failed = |error: hie_node_core::patient::index::PatientError| {
        port_error(error.class(), "The patients could not be searched.", &error)
    };
    if let Some(id) = id {
        let Some(key) = PatientKey::from_hex(&id) else {
            return Ok(Vec::new());
        };
        return Ok(patients
            .person(key)
            .map_err(failed)?
            .map(|person| person.patient)
            .into_iter()
            .collect());
    }
    let asked = &query.demographics;
    let mut found: Vec<Person> = Vec::new();
    for identifier in &asked.identifiers {
        for key in patients
            .by_identifier(&identifier.system, &identifier.value)
            .map_err(failed)?
        {
            found.extend(patients.person(key).map_err(failed)?);
        }
    }
    if asked.identifiers.is_empty() {
        let mut words: Vec<String> = query.text.iter().cloned().collect();
        for name in &asked.names {
            words.push(name.family.clone());
            words.extend(name.given.iter().cloned());
        }
        words.extend(asked.birth_date.clone());
        words.extend(asked.telecoms.iter().cloned());
        words.extend(asked.addresses.iter().filter_map(|address| address.postal_code.clone()));
        found = patients.find_text(&words.join(" "), HITS_MAX * 4).map_err(failed)?;
    }
    Ok(found.into_iter().map(|person| person.patient).collect())
}
