//! Records that are open on somebody's screen.
//!
//! The law: a record is asked for once and kept for its session; the page, its stream and a reconnect read the same
//! answers, so that nothing is asked or logged twice. It goes with the session, and a record opened under emergency
//! access goes when that ends. Each answer is one numbered step; a step is never renumbered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use hie_gateway_dialect::fhir::clinical as dialect;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_protocol::id::Millis;
use hie_protocol::message::MatchGrade;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::clinical::events::{self, DocumentLine};
use crate::clinical::{Clock, Source, View, view};
use crate::console::words;
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::ports::{DocumentCard, DocumentRef, OrgAnswer, OrgState, PersonHit, RecordEvent, SubjectRef};
use crate::respond::{Fault, Problem};
use crate::session::SessionId;

/// Most records open in one session; the one opened first makes room.
pub const RECORDS_PER_SESSION_MAX: usize = 6;
/// Most records open in all sessions.
pub const RECORDS_MAX: usize = 2_000;
/// Most organisations in one record.
pub const ORGANISATIONS_MAX: usize = 512;
/// Longest handle, in bytes.
pub const HANDLE_BYTES_MAX: usize = 128;

/// Whether a text can be a handle of a subject or document: letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_handle(text: &str) -> bool {
    (1..=HANDLE_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What has arrived so far.
#[derive(Default)]
struct Arrived {
    sources: Vec<Source>,
    /// One sentence for each step.
    said: Vec<String>,
    deadline_passed: bool,
    ended: bool,
}

/// A record that is open.
pub struct OpenedRecord {
    /// Whose.
    pub subject: SubjectRef,
    /// The patient of the banner.
    pub person: PersonHit,
    /// When it was opened.
    pub opened: Millis,
    /// End of the emergency access under which it was opened.
    pub emergency_ends: Option<Millis>,
    // INVARIANT: held only to apply an event or to read a view, never across an await.
    arrived: Mutex<Arrived>,
    steps: watch::Sender<usize>,
    pump: Mutex<Option<AbortHandle>>,
}

impl Drop for OpenedRecord {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How far a record has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps so far.
    pub steps: usize,
    /// Sentences of the steps after the one asked about.
    pub said: Vec<String>,
    /// Nothing more will come.
    pub ended: bool,
}

impl OpenedRecord {
    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        if let Some(pump) = self.pump.lock().unwrap_or_else(PoisonError::into_inner).take() {
            pump.abort();
        }
    }

    /// The view now.
    #[must_use]
    pub fn view(&self, clock: &Clock) -> View {
        view(&self.person.demographics, &self.arrived().sources, clock)
    }

    /// Steps after `seen`.
    #[must_use]
    pub fn progress(&self, seen: usize) -> Progress {
        let arrived = self.arrived();
        Progress {
            steps: arrived.said.len(),
            said: arrived.said.iter().skip(seen).cloned().collect(),
            ended: arrived.ended,
        }
    }

    /// A receiver that wakes at each step and at the end.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.steps.subscribe()
    }

    /// The view of one organisation alone, for the page that cannot merge: its name and state, and its rows.
    #[must_use]
    pub fn alone(&self, number: usize, clock: &Clock) -> Option<(String, String, View)> {
        let mut arrived = self.arrived();
        let at = arrived.sources.iter().position(|source| source.number == number)?;
        let source = arrived.sources.get_mut(at..at.saturating_add(1))?;
        let line = source
            .first()
            .map(|source| crate::clinical::organisations::line(source, clock))?;
        Some((line.name, line.words, view(&self.person.demographics, source, clock)))
    }

    /// The number of every organisation and whether it still is waited for.
    #[must_use]
    pub fn numbers(&self) -> Vec<(usize, bool)> {
        self.arrived()
            .sources
            .iter()
            .map(|source| (source.number, source.state == OrgState::Waiting))
            .collect()
    }

    /// The card of a document in this record.
    #[must_use]
    pub fn card(&self, document: &DocumentRef) -> Option<DocumentCard> {
        self.arrived()
            .sources
            .iter()
            .flat_map(|source| source.documents.iter())
            .find(|card| card.reference == *document)
            .cloned()
    }

    /// The documents of this record in the order of the list.
    #[must_use]
    pub fn documents(&self, clock: &Clock) -> Vec<DocumentLine> {
        events::documents(&self.arrived().sources, clock)
    }

    /// Phone of the organisation that holds a document.
    #[must_use]
    pub fn phone(&self, document: &DocumentRef) -> Option<String> {
        let arrived = self.arrived();
        let holds = |source: &&Source| source.documents.iter().any(|card| card.reference == *document);
        arrived
            .sources
            .iter()
            .find(holds)
            .and_then(|source| source.phone.clone())
    }

    fn apply(&self, event: RecordEvent, now: Millis, offset_minutes: i32) {
        {
            let mut arrived = self.arrived();
            let said = arrived.apply(event, now, offset_minutes);
            arrived.said.push(said);
        }
        self.steps.send_modify(|steps| *steps = steps.saturating_add(1));
    }

    fn end(&self) {
        self.arrived().ended = true;
        self.steps.send_modify(|steps| *steps = steps.saturating_add(1));
    }
}

impl Arrived {
    fn apply(&mut self, event: RecordEvent, now: Millis, offset_minutes: i32) -> String {
        match event {
            RecordEvent::Asking(asked) => {
                for answer in asked.into_iter().take(ORGANISATIONS_MAX) {
                    self.place(answer);
                }
                format!("Asking {}.", words::organisations(self.sources.len()))
            }
            RecordEvent::Organisation {
                answer,
                documents,
                demographics,
                summary,
                obligations,
                more_on_emergency,
            } => {
                let mark = self
                    .deadline_passed
                    .then(|| format!("New {}, {}", words::clock_seconds(now, offset_minutes), answer.name));
                let probable = answer.state == OrgState::IdentityNotAgreed;
                let read = summary.map(|bytes| dialect::read(&bytes, &Limits::default()));
                let Some(source) = self.place(answer) else {
                    return String::new();
                };
                source.grade = if probable {
                    MatchGrade::Probable
                } else {
                    MatchGrade::Certain
                };
                source.unreadable = matches!(read, Some(Err(_)));
                if let Some(Err(error)) = &read {
                    tracing::warn!(organisation = source.name, %error, "a summary could not be read");
                }
                source.summary = read.and_then(Result::ok);
                source.documents = documents;
                source.demographics = demographics;
                source.obligations = obligations;
                source.more_on_emergency = more_on_emergency;
                source.late = mark;
                said(source)
            }
            RecordEvent::Done(completeness) => {
                if let crate::ports::Completeness::Partial { silent, .. } = completeness {
                    for answer in silent {
                        self.place(answer);
                    }
                }
                self.deadline_passed = true;
                let silent = self.sources.iter().filter(|source| source.state.is_silent()).count();
                if silent == 0 {
                    "All organisations answered.".to_owned()
                } else {
                    format!("{} did not answer.", words::organisations(silent))
                }
            }
        }
    }

    /// The organisation's place, made when it is new, with this state.
    fn place(&mut self, answer: OrgAnswer) -> Option<&mut Source> {
        let number = self.sources.len();
        let at = self.sources.iter().position(|source| source.org == answer.org);
        if at.is_none() && number >= ORGANISATIONS_MAX {
            return None;
        }
        let at = at.unwrap_or_else(|| {
            self.sources
                .push(Source::waiting(number, answer.org.clone(), answer.name.clone()));
            number
        });
        let source = self.sources.get_mut(at)?;
        source.state = answer.state;
        source.elapsed_ms = answer.elapsed_ms;
        source.phone = answer.phone.or_else(|| source.phone.take());
        Some(source)
    }
}

/// The sentence of an organisation's answer; a late one names its allergies.
fn said(source: &Source) -> String {
    let line = format!("{} answered.", source.name);
    if source.late.is_none() {
        return line;
    }
    let names: Vec<String> = crate::clinical::allergies::lines(&[source])
        .iter()
        .map(|row| {
            if row.severe {
                format!("{}, severe", row.name)
            } else {
                row.name.clone()
            }
        })
        .collect();
    if names.is_empty() {
        line
    } else {
        format!("{line} Allergy added: {}.", names.join("; "))
    }
}

type Key = (SessionId, SubjectRef);

/// The open records of all sessions.
#[derive(Default)]
pub struct OpenedRecords {
    // INVARIANT: held only for map operations, never across an await.
    table: Mutex<HashMap<Key, Arc<OpenedRecord>>>,
}

impl OpenedRecords {
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Arc<OpenedRecord>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record, if it is open and its emergency access has not ended.
    #[must_use]
    pub fn find(&self, session: SessionId, subject: &SubjectRef, now: Millis) -> Option<Arc<OpenedRecord>> {
        let key = (session, subject.clone());
        let mut table = self.table();
        let record = table.get(&key)?.clone();
        if record.emergency_ends.is_some_and(|ends| now >= ends) {
            table.remove(&key);
            record.stop();
            return None;
        }
        Some(record)
    }

    /// Closes a record.
    pub fn close(&self, session: SessionId, subject: &SubjectRef) {
        if let Some(record) = self.table().remove(&(session, subject.clone())) {
            record.stop();
        }
    }

    /// Closes all records of a session.
    pub fn close_all(&self, session: SessionId) {
        self.table().retain(|(owner, _), record| {
            if *owner == session {
                record.stop();
            }
            *owner != session
        });
    }

    fn keep(&self, gate: &Gate, session: SessionId, record: Arc<OpenedRecord>) {
        let now = gate.now();
        let mut table = self.table();
        table.retain(|(owner, _), other| {
            let lives = gate.sessions.lives(*owner, now);
            if !lives {
                other.stop();
            }
            lives
        });
        let of_session = table.keys().filter(|(owner, _)| *owner == session).count();
        let full = table.len() >= RECORDS_MAX;
        if of_session >= RECORDS_PER_SESSION_MAX || full {
            let oldest = table
                .iter()
                .filter(|((owner, _), _)| full || *owner == session)
                .min_by_key(|(_, other)| other.opened);
            if let Some(key) = oldest.map(|(key, _)| key.clone())
                && let Some(other) = table.remove(&key)
            {
                other.stop();
            }
        }
        table.insert((session, record.subject.clone()), record);
    }
}

/// The record of a subject: the open one, or, when there is none or `again` is set, a new question to the region.
/// Errors: nothing here for this user, or the exchange's failure.
pub async fn open(
    gate: &Gate,
    signed_in: &SignedIn,
    subject: &SubjectRef,
    again: bool,
) -> Result<Arc<OpenedRecord>, Problem> {
    let now = gate.now();
    let session = signed_in.session.id;
    if !is_handle(&subject.0) {
        return Err(Problem::of(gate, Fault::Nothing));
    }
    if !again && let Some(record) = gate.opened.find(session, subject, now) {
        return Ok(record);
    }
    let fail = |error: crate::ports::PortError| Problem::from_port(gate, &error);
    let caller = signed_in.caller_about(subject);
    let person = gate.ports.people.subject(&caller, subject).await.map_err(fail)?;
    let person = person.ok_or_else(|| Problem::of(gate, Fault::Nothing))?;
    let events = gate.ports.records.open(&caller, subject).await.map_err(fail)?;
    let emergency_ends = caller.break_glass.as_ref().map(|declared| {
        declared
            .declared
            .plus(gate.settings.emergency_minutes.saturating_mul(60_000))
    });
    let record = Arc::new(OpenedRecord {
        subject: subject.clone(),
        person,
        opened: now,
        emergency_ends,
        arrived: Mutex::new(Arrived::default()),
        steps: watch::Sender::new(0),
        pump: Mutex::new(None),
    });
    let pump = tokio::spawn(pump(gate.clone(), Arc::downgrade(&record), events)).abort_handle();
    *record.pump.lock().unwrap_or_else(PoisonError::into_inner) = Some(pump);
    gate.opened.keep(gate, session, record.clone());
    Ok(record)
}

/// Moves answers into the record as they come, until they end or nobody looks any more.
async fn pump(gate: Gate, record: std::sync::Weak<OpenedRecord>, mut events: BoxStream<'static, RecordEvent>) {
    while let Some(event) = events.next().await {
        let Some(record) = record.upgrade() else { return };
        record.apply(event, gate.now(), gate.settings.utc_offset_minutes);
    }
    if let Some(record) = record.upgrade() {
        record.end();
    }
}
