//! In-memory twins of the ports: the gateway runs on them without a node, in tests and in examples.
//!
//! The law: a twin keeps the promises of its port (a wrong password and an unknown account look alike, an unknown
//! subject is none, consents are in force when `create` returns) and remembers what it was asked. The clock stands
//! still until it is moved.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use hie_gateway_dialect::dicom::render::render;
use hie_protocol::id::{ContentHash, Millis, OrgId};
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::sync::mpsc;

pub use crate::twins::archive::HeldInstance;

mod archive;

use crate::ports::{
    AccessEntry, AccessLog, AccessProof, AccessQuery, Accounts, Answer, Body, Caller, Completeness, ConsentRow,
    Consents, Credential, DocumentCard, DocumentFilter, DocumentRef, DocumentsAnswer, FrameRenderer, Health, NodeState,
    PatientSelector, People, PersonHit, PersonQuery, PortError, Ports, Principal, RecordEvent, Records, SubjectRef,
    Window,
};

pub mod region;

/// Most events waiting in a record that a test feeds by hand.
pub const FEED_EVENTS_MAX: usize = 64;

/// A document of the twin.
#[derive(Clone)]
pub struct HeldDocument {
    /// Card.
    pub card: DocumentCard,
    /// Content.
    pub content: Bytes,
    /// For a study.
    pub study: Option<StudyManifest>,
    /// Instances in manifest order; none when one cannot be read.
    pub instances: Vec<Option<Bytes>>,
}

/// Everything that the twin knows.
#[derive(Default)]
pub struct World {
    /// The time.
    pub now: Millis,
    /// Account, password, principal.
    pub accounts: Vec<(String, String, Principal)>,
    /// API tokens.
    pub tokens: BTreeMap<String, Principal>,
    /// People; `find` gives those whose family name contains a word of the question.
    pub people: Vec<PersonHit>,
    /// Whether a search is whole.
    pub search: Option<Completeness>,
    /// What opening a subject's record brings.
    pub records: BTreeMap<SubjectRef, Vec<RecordEvent>>,
    /// Records that are fed by hand; taken by the first `open`.
    pub feeds: BTreeMap<SubjectRef, VecDeque<mpsc::Receiver<RecordEvent>>>,
    /// Documents.
    pub documents: BTreeMap<DocumentRef, HeldDocument>,
    /// Images of this node's archive.
    pub archive: Vec<HeldInstance>,
    /// FHIR Patients.
    pub patients: Vec<Value>,
    /// FHIR Consents.
    pub consents: Vec<Value>,
    /// Rows of the consent preview.
    pub preview: Vec<ConsentRow>,
    /// Access log, newest first.
    pub accesses: Vec<AccessEntry>,
    /// Health.
    pub health: Health,
    /// The region's other organisations.
    pub organisations: Vec<(OrgId, String)>,
    /// Makes every call of `records` and `people` fail.
    pub failure: Option<PortError>,
    /// Makes `open` with a declaration of emergency access fail.
    pub emergency_failure: Option<PortError>,
    /// Who opened what, in order.
    pub opened: Vec<(Caller, SubjectRef)>,
    /// Questions to the access log.
    pub asked: Vec<AccessQuery>,
    random: u64,
}

/// The twin of a whole node.
#[derive(Default)]
pub struct Twin {
    world: Mutex<World>,
}

impl Twin {
    /// A twin of this world.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(world),
        })
    }

    /// The world, to look at or change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports.
    #[must_use]
    pub fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            people: self.clone(),
            records: self.clone(),
            archive: self.clone(),
            consents: self.clone(),
            access_log: self.clone(),
            accounts: self.clone(),
            node: self.clone(),
            frames: self.clone(),
        }
    }

    /// From now on the subject's record is fed by hand through the sender; it ends when the sender is dropped.
    #[must_use]
    pub fn feed(&self, subject: &SubjectRef) -> mpsc::Sender<RecordEvent> {
        let (sender, receiver) = mpsc::channel(FEED_EVENTS_MAX);
        self.world()
            .feeds
            .entry(subject.clone())
            .or_default()
            .push_back(receiver);
        sender
    }

    fn held(&self, document: &DocumentRef) -> Answer<HeldDocument> {
        let world = self.world();
        world.failing()?;
        world
            .documents
            .get(document)
            .cloned()
            .ok_or_else(|| error(Class::Refused, "no such document"))
    }

    fn completeness(&self) -> Completeness {
        let world = self.world();
        world
            .search
            .clone()
            .unwrap_or(Completeness::Complete { as_of: world.now })
    }
}

impl World {
    fn failing(&self) -> Answer<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

fn error(class: Class, what: &str) -> PortError {
    PortError {
        class,
        what: what.to_owned(),
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

/// Content as a body that streams.
#[must_use]
pub fn body(content_type: &str, content: Bytes, from: u64) -> Body {
    let hash = ContentHash::from_slice(digest(&SHA256, &content).as_ref()).unwrap_or(ContentHash::new([0; 32]));
    let size = content.len() as u64;
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(content.len());
    let rest = content.slice(start..);
    Body {
        content_type: content_type.to_owned(),
        size,
        hash,
        stream: stream::iter([Ok(rest)]).boxed(),
    }
}

impl People for Twin {
    fn find<'a>(
        &'a self,
        _caller: &'a Caller,
        query: PersonQuery,
    ) -> BoxFuture<'a, Answer<(Vec<PersonHit>, Completeness)>> {
        let completeness = self.completeness();
        let world = self.world();
        if let Err(error) = world.failing() {
            return ready(Err(error));
        }
        let mut words: Vec<String> = query
            .text
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        words.extend(query.demographics.names.iter().map(|name| name.family.to_lowercase()));
        let named = |hit: &&PersonHit| {
            let family = hit
                .demographics
                .names
                .first()
                .map(|name| name.family.to_lowercase())
                .unwrap_or_default();
            words
                .iter()
                .any(|word| !word.is_empty() && family.contains(word.as_str()))
        };
        let hits = world.people.iter().filter(named).cloned().collect();
        ready(Ok((hits, completeness)))
    }

    fn subject<'a>(&'a self, _caller: &'a Caller, subject: &'a SubjectRef) -> BoxFuture<'a, Answer<Option<PersonHit>>> {
        ready(Ok(self
            .world()
            .people
            .iter()
            .find(|hit| hit.subject == *subject)
            .cloned()))
    }

    fn patients<'a>(
        &'a self,
        _caller: &'a Caller,
        _query: PersonQuery,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>> {
        let world = self.world();
        let wanted = |patient: &&Value| id.is_none() || patient.get("id").and_then(Value::as_str) == id.as_deref();
        ready(
            world
                .failing()
                .map(|()| world.patients.iter().filter(wanted).cloned().collect()),
        )
    }
}

impl Records for Twin {
    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        subject: &'a SubjectRef,
    ) -> BoxFuture<'a, Answer<BoxStream<'static, RecordEvent>>> {
        let mut world = self.world();
        if let Err(error) = world.failing() {
            return ready(Err(error));
        }
        if let (Some(failure), true) = (world.emergency_failure.clone(), caller.break_glass.is_some()) {
            return ready(Err(failure));
        }
        world.opened.push((caller.clone(), subject.clone()));
        if let Some(feed) = world.feeds.get_mut(subject).and_then(VecDeque::pop_front) {
            return ready(Ok(tokio_stream::wrappers::ReceiverStream::new(feed).boxed()));
        }
        let events = world.records.get(subject).cloned();
        ready(
            events
                .map(|events| stream::iter(events).boxed())
                .ok_or_else(|| error(Class::Refused, "no such subject")),
        )
    }

    fn documents<'a>(
        &'a self,
        _caller: &'a Caller,
        patient: PatientSelector,
        _filter: DocumentFilter,
    ) -> BoxFuture<'a, Answer<DocumentsAnswer>> {
        let completeness = self.completeness();
        let world = self.world();
        let documents = world.documents.values().map(|held| held.card.clone()).collect();
        let patient = match patient {
            PatientSelector::Id(id) => Some(id),
            PatientSelector::Identifier { .. } => None,
        };
        ready(world.failing().map(|()| DocumentsAnswer {
            patient,
            documents,
            completeness,
        }))
    }

    fn card<'a>(&'a self, _caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<DocumentCard>> {
        ready(self.held(document).map(|held| held.card))
    }

    fn content<'a>(&'a self, _caller: &'a Caller, document: &'a DocumentRef, from: u64) -> BoxFuture<'a, Answer<Body>> {
        ready(
            self.held(document)
                .map(|held| body(&held.card.meta.content_type, held.content, from)),
        )
    }

    fn study<'a>(&'a self, _caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<StudyManifest>> {
        ready(
            self.held(document)
                .and_then(|held| held.study.ok_or_else(|| error(Class::Refused, "not a study"))),
        )
    }

    fn instance<'a>(
        &'a self,
        _caller: &'a Caller,
        document: &'a DocumentRef,
        index: u32,
    ) -> BoxFuture<'a, Answer<Body>> {
        let found = self.held(document).and_then(|held| {
            let instance = held.instances.get(index as usize).cloned().flatten();
            instance.ok_or_else(|| error(Class::Unavailable, "the picture did not arrive"))
        });
        ready(found.map(|bytes| body("application/dicom", bytes, 0)))
    }
}

impl Consents for Twin {
    fn create<'a>(&'a self, _caller: &'a Caller, mut consent: Value) -> BoxFuture<'a, Answer<Value>> {
        let mut world = self.world();
        let id = format!("consent-{}", world.consents.len().saturating_add(1));
        if let Some(map) = consent.as_object_mut() {
            map.insert("id".to_owned(), id.into());
        }
        world.consents.push(consent.clone());
        ready(Ok(consent))
    }

    fn search<'a>(
        &'a self,
        _caller: &'a Caller,
        _patient: Option<PatientSelector>,
        _status: Option<String>,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>> {
        let world = self.world();
        let wanted = |consent: &&Value| id.is_none() || consent.get("id").and_then(Value::as_str) == id.as_deref();
        ready(Ok(world.consents.iter().filter(wanted).cloned().collect()))
    }

    fn preview<'a>(
        &'a self,
        _caller: &'a Caller,
        _patient: PatientSelector,
        _draft: Option<Value>,
    ) -> BoxFuture<'a, Answer<Vec<ConsentRow>>> {
        ready(Ok(self.world().preview.clone()))
    }
}

impl AccessLog for Twin {
    fn search<'a>(
        &'a self,
        _caller: &'a Caller,
        query: AccessQuery,
    ) -> BoxFuture<'a, Answer<(Vec<AccessEntry>, AccessProof)>> {
        let mut world = self.world();
        let text = query.text.clone().unwrap_or_default().to_lowercase();
        let before = query.before.unwrap_or(u64::MAX);
        let wanted = |entry: &&AccessEntry| {
            entry.index < before
                && (!query.emergency_only || entry.emergency)
                && entry.sentence.to_lowercase().contains(&text)
        };
        let found: Vec<AccessEntry> = world
            .accesses
            .iter()
            .filter(wanted)
            .take(query.limit)
            .cloned()
            .collect();
        let size = world.accesses.first().map_or(0, |entry| entry.index.saturating_add(1));
        world.asked.push(query);
        ready(Ok((
            found,
            AccessProof {
                size,
                checkpoint: format!("twin\n{size}\n"),
                whole: true,
            },
        )))
    }
}

impl Accounts for Twin {
    fn authenticate(&self, credential: Credential) -> BoxFuture<'_, Answer<Principal>> {
        let world = self.world();
        let found = match &credential {
            Credential::Password { account, password } => world
                .accounts
                .iter()
                .find(|(name, secret, _)| name == account && secret == password)
                .map(|(_, _, principal)| principal.clone()),
            Credential::Token(token) => world.tokens.get(token).cloned(),
        };
        ready(found.ok_or_else(|| error(Class::Refused, "the credential does not hold")))
    }
}

impl NodeState for Twin {
    fn health(&self) -> BoxFuture<'_, Health> {
        ready(self.world().health.clone())
    }

    fn organisations(&self) -> BoxFuture<'_, Vec<(OrgId, String)>> {
        ready(self.world().organisations.clone())
    }

    fn now(&self) -> Millis {
        self.world().now
    }

    fn random(&self) -> [u8; 32] {
        // Not random at all, but never the same twice: good enough where nobody attacks.
        let mut world = self.world();
        world.random = world.random.saturating_add(1);
        let mut bytes = [0_u8; 32];
        for (to, from) in bytes
            .iter_mut()
            .zip(digest(&SHA256, &world.random.to_be_bytes()).as_ref())
        {
            *to = *from;
        }
        bytes
    }
}

impl FrameRenderer for Twin {
    fn render(&self, part10: Bytes, frame: u32, px_max: u32, window: Option<Window>) -> BoxFuture<'_, Answer<Bytes>> {
        // Shows its input when that is a PNG already.
        if part10.starts_with(&[0x89, b'P', b'N', b'G']) {
            return ready(Ok(part10));
        }
        let window = window.map(|window| (window.centre, window.width));
        let drawn = render(&part10, frame.saturating_add(1), px_max, window);
        ready(
            drawn
                .map(Bytes::from)
                .map_err(|_| error(Class::Invalid, "unreadable data")),
        )
    }
}
