//! Records across the region: opening streams, documents and studies fetched wherever they are held.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use hie_gateway::ports::{
    Answer, Body, Caller, Completeness, DocumentCard, DocumentFilter, DocumentRef, DocumentsAnswer, OrgState,
    PatientSelector, PortError, RecordEvent, Records, SubjectRef,
};
use hie_node_core::exchange::claim::Asking;
use hie_node_core::exchange::fanout::{AskEvent, Opening, RemoteDocument, Reply};
use hie_node_core::exchange::find::{Found, Pointed};
use hie_node_core::ids::PatientKey;
use hie_node_core::patient::index::Person;
use hie_node_core::policy::decide::Asker;
use hie_protocol::id::{Correlation, OrgId};
use hie_protocol::message::Demographics;
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use hie_protocol::vocabulary::DocumentClass;
use tokio::sync::mpsc;

use super::people::{PeopleDesk, asking, completeness, joined};
use super::references::{References, Row};
use super::{org_answer, organisation, port_error, silent_state};
use crate::assemble::{Region, Trade};

/// Largest summary taken, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait for one organisation's summary.
pub const SUMMARY_DEADLINE: Duration = Duration::from_secs(5);
/// Record events that wait for the reader.
pub const EVENTS_AHEAD: usize = 64;

/// Opens records and fetches documents.
#[derive(Clone)]
pub struct RecordsDesk {
    trade: Trade,
    region: Region,
    people: Arc<PeopleDesk>,
    references: Arc<References>,
}

/// What a question is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The list of documents alone.
    List,
    /// Each organisation's summary as well, which is one more way to each.
    Summaries,
}

/// Where a document's bytes come from.
pub enum Source {
    /// This organisation.
    Here(Row, Asker, Correlation),
    /// Another one, with a ticket.
    There(RemoteDocument, Asking),
}

const GONE: &str = "This document cannot be opened. It may be withheld, withdrawn, or not there any more.";
const SILENT: &str = "The organisation did not send this document. Try again, or call them.";

impl RecordsDesk {
    /// Over trade, region and people.
    #[must_use]
    pub fn new(trade: Trade, region: Region, people: Arc<PeopleDesk>) -> Self {
        let references = Arc::new(References::new(Arc::clone(&trade.kv), Arc::clone(&trade.vault)));
        Self {
            trade,
            region,
            people,
            references,
        }
    }

    /// Asks the region about a person; events as organisations answer, each with its summary. The question is in the
    /// log before this returns.
    pub async fn ask(&self, caller: &Caller, person: Demographics) -> Answer<BoxStream<'static, RecordEvent>> {
        self.question(caller, person, Wanted::Summaries).await
    }

    async fn question(
        &self,
        caller: &Caller,
        person: Demographics,
        wanted: Wanted,
    ) -> Answer<BoxStream<'static, RecordEvent>> {
        let asking = asking(&self.trade, caller)?;
        let found = self.region.finder.find(&asking, &person).await;
        let found = found.map_err(|error| {
            port_error(
                error.class(),
                "The region could not be asked. Nothing was opened. Try again.",
                &error,
            )
        })?;
        let mut events = self.region.fanout.ask(found, asking.clone(), person.clone());
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        let desk = self.clone();
        tokio::spawn(async move {
            let mut fetching = tokio::task::JoinSet::new();
            let mut whole = None;
            while let Some(event) = events.next().await {
                match event {
                    AskEvent::Asking(orgs) => {
                        let orgs = orgs
                            .iter()
                            .map(|org| org_answer(&desk.trade.registry, org, OrgState::Waiting, None));
                        let _gone = sender.send(RecordEvent::Asking(orgs.collect())).await;
                    }
                    AskEvent::Organisation { org, elapsed_ms, reply } => {
                        let (desk, asking, person, to) = (desk.clone(), asking.clone(), person.clone(), sender.clone());
                        fetching.spawn(async move {
                            let event = desk
                                .organisation(&org, elapsed_ms, reply, &asking, &person, wanted)
                                .await;
                            let silent = match &event {
                                RecordEvent::Organisation { answer, .. } if answer.state.is_silent() => {
                                    Some(answer.clone())
                                }
                                _ => None,
                            };
                            let _gone = to.send(event).await;
                            silent
                        });
                    }
                    AskEvent::Done { completeness, .. } => whole = Some(completeness),
                }
            }
            let mut silent = Vec::new();
            while let Some(done) = fetching.join_next().await {
                silent.extend(done.ok().flatten());
            }
            let whole = completeness(&desk.trade, whole, desk.trade.clock.now());
            let _gone = sender.send(RecordEvent::Done(with_silent(whole, silent))).await;
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
    }

    /// One organisation's answer, with its summary.
    async fn organisation(
        &self,
        org: &OrgId,
        elapsed_ms: u64,
        reply: Reply,
        asking: &Asking,
        person: &Demographics,
        wanted: Wanted,
    ) -> RecordEvent {
        let bare = |state: OrgState, more: bool| RecordEvent::Organisation {
            answer: org_answer(&self.trade.registry, org, state, Some(elapsed_ms)),
            documents: Vec::new(),
            demographics: None,
            summary: None,
            obligations: Vec::new(),
            more_on_emergency: more,
        };
        match reply {
            Reply::Opened(opening) => self.opened(org, elapsed_ms, *opening, asking, person, wanted).await,
            Reply::NoRecord { more_on_emergency } => bare(OrgState::NoRecord, more_on_emergency),
            Reply::Probable => bare(OrgState::IdentityNotAgreed, false),
            Reply::Refused(_) => bare(OrgState::Refused, false),
            Reply::Silent(silence) => bare(silent_state(silence), false),
        }
    }

    async fn opened(
        &self,
        org: &OrgId,
        elapsed_ms: u64,
        opening: Opening,
        asking: &Asking,
        person: &Demographics,
        wanted: Wanted,
    ) -> RecordEvent {
        let emergency = asking.break_glass.is_some();
        let known = opening
            .demographics
            .as_ref()
            .map_or_else(|| person.clone(), |theirs| joined(person, theirs));
        let (references, account, granted) = (
            Arc::clone(&self.references),
            asking.user.clone(),
            opening.documents.clone(),
        );
        let minted =
            hie_node_core::ports::blocking(move || references.mint(&account, &known, &granted, emergency)).await;
        let started = tokio::time::Instant::now();
        let summary = opening
            .documents
            .iter()
            .filter(|_| wanted == Wanted::Summaries)
            .find(|remote| remote.meta.class == DocumentClass::Summary);
        let fetched = match summary {
            Some(remote) => match tokio::time::timeout(SUMMARY_DEADLINE, self.summary(asking, remote)).await {
                Ok(fetched) => fetched.map(Some),
                Err(_) => Err(PortError {
                    class: Class::Unavailable,
                    what: SILENT.to_owned(),
                }),
            },
            None => Ok(None),
        };
        let waited = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let elapsed_ms = elapsed_ms.saturating_add(waited);
        let (references, summary, state) = match (minted, fetched) {
            (Ok(references), Ok(summary)) if opening.more_on_emergency => (references, summary, OrgState::SomeWithheld),
            (Ok(references), Ok(summary)) => (references, summary, OrgState::Answered),
            (Ok(references), Err(_)) => (references, None, OrgState::TimedOut(elapsed_ms)),
            (Err(_), _) => (Vec::new(), None, OrgState::Offline(None)),
        };
        let org_name = organisation(&self.trade.registry, org).0;
        let documents = references
            .into_iter()
            .zip(opening.documents)
            .map(|(reference, remote)| DocumentCard {
                reference,
                org: org.clone(),
                org_name: org_name.clone(),
                meta: remote.meta,
            })
            .collect();
        RecordEvent::Organisation {
            answer: org_answer(&self.trade.registry, org, state, Some(elapsed_ms)),
            documents,
            demographics: opening.demographics,
            summary,
            obligations: opening.obligations,
            more_on_emergency: opening.more_on_emergency,
        }
    }

    async fn summary(&self, asking: &Asking, remote: &RemoteDocument) -> Answer<Bytes> {
        let mut body = if remote.org == self.trade.me {
            let asker = own_asker(&self.trade, asking);
            self.here(&asker, remote.meta.id, asking.correlation, 0).await?
        } else {
            self.there(remote, asking, 0).await?
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = body.stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > SUMMARY_BYTES_MAX {
                return Err(PortError {
                    class: Class::Misbehaved,
                    what: "The summary is larger than a summary may be.".to_owned(),
                });
            }
        }
        Ok(Bytes::from(bytes))
    }

    async fn here(
        &self,
        asker: &Asker,
        document: hie_protocol::id::DocumentId,
        correlation: Correlation,
        from: u64,
    ) -> Answer<Body> {
        let released = self.trade.local.open(asker, document, correlation, from).await;
        let released = released.map_err(|error| port_error(error.class(), GONE, &error))?;
        let stream = released
            .stream
            .map(|chunk| chunk.map_err(|error| port_error(error.class(), GONE, &error)));
        Ok(Body {
            content_type: released.content_type,
            size: released.size,
            hash: released.hash,
            stream: stream.boxed(),
        })
    }

    async fn there(&self, remote: &RemoteDocument, asking: &Asking, from: u64) -> Answer<Body> {
        let fetched = self.region.retriever.document(asking, remote, from).await;
        Ok(body(
            fetched.map_err(|error| port_error(error.class(), SILENT, &error))?,
        ))
    }

    /// Where a referenced document comes from now: with a ticket that works, asked for anew when the old one ended.
    pub async fn source(&self, caller: &Caller, reference: &DocumentRef) -> Answer<Source> {
        let gone = || PortError {
            class: Class::Refused,
            what: GONE.to_owned(),
        };
        let account = &caller.principal.account;
        let row = self.references.row(account, reference)?.ok_or_else(gone)?;
        let mut asking = asking(&self.trade, caller)?;
        if row.org == self.trade.me {
            let asker = own_asker(&self.trade, &asking);
            return Ok(Source::Here(row, asker, asking.correlation));
        }
        let emergency = asking.break_glass.is_some();
        if let Some(remote) = self.references.ticket(reference, emergency, self.trade.clock.now()) {
            asking.correlation = remote.correlation;
            return Ok(Source::There(remote, asking));
        }
        let found = Found {
            custodians: [(row.org.clone(), Pointed::default())].into(),
            silent: Vec::new(),
            as_of: self.trade.clock.now(),
            correlation: asking.correlation,
        };
        let mut events = self.region.fanout.ask(found, asking.clone(), row.person.clone());
        while let Some(event) = events.next().await {
            match event {
                AskEvent::Organisation {
                    reply: Reply::Opened(opening),
                    ..
                } => {
                    self.references
                        .mint(account, &row.person, &opening.documents, emergency)?;
                    let again = opening
                        .documents
                        .into_iter()
                        .find(|remote| remote.meta.id == row.meta.id);
                    return again.map(|remote| Source::There(remote, asking)).ok_or_else(gone);
                }
                AskEvent::Organisation {
                    reply: Reply::Silent(_),
                    ..
                } => {
                    return Err(PortError {
                        class: Class::Unavailable,
                        what: SILENT.to_owned(),
                    });
                }
                AskEvent::Organisation { .. } => return Err(gone()),
                AskEvent::Asking(_) | AskEvent::Done { .. } => {}
            }
        }
        Err(gone())
    }

    /// The person a FHIR search is about; none when this node does not know the patient.
    fn selected(&self, patient: &PatientSelector) -> Answer<Option<Person>> {
        let failed = |error: hie_node_core::patient::index::PatientError| {
            port_error(error.class(), "The patient could not be read.", &error)
        };
        let key = match patient {
            PatientSelector::Id(id) => PatientKey::from_hex(id),
            PatientSelector::Identifier { system, value } => self
                .trade
                .patients
                .by_identifier(system, value)
                .map_err(failed)?
                .first()
                .copied(),
        };
        key.map_or(Ok(None), |key| self.trade.patients.person(key).map_err(failed))
    }

    /// Fetches a study's instances in order as one stream, for whoever wants all of them.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The trade behind the desk.
    #[must_use]
    pub fn trade(&self) -> &Trade {
        &self.trade
    }
}

/// This organisation's own user as the judge sees her.
#[must_use]
pub fn own_asker(trade: &Trade, asking: &Asking) -> Asker {
    Asker {
        org: trade.me.clone(),
        user: asking.user.clone(),
        user_name: asking.user_name.clone(),
        role: asking.role,
        purpose: asking.purpose,
        break_glass: asking.break_glass.clone(),
        evidence: asking.evidence.is_some(),
        is_patient: false,
    }
}

fn body(fetched: hie_node_core::exchange::retrieve::Fetched) -> Body {
    let stream = fetched
        .stream
        .map(|chunk| chunk.map_err(|error| port_error(error.class(), SILENT, &error)));
    Body {
        content_type: fetched.header.content_type,
        size: fetched.header.size,
        hash: fetched.header.hash,
        stream: stream.boxed(),
    }
}

/// Adds organisations whose summary did not arrive to the silent.
fn with_silent(whole: Completeness, more: Vec<hie_gateway::ports::OrgAnswer>) -> Completeness {
    let (mut silent, as_of) = match whole {
        Completeness::Complete { as_of } => (Vec::new(), as_of),
        Completeness::Partial { silent, as_of } => (silent, as_of),
    };
    let whole = silent.is_empty();
    for answer in more {
        if !silent.iter().any(|known| known.org == answer.org) {
            silent.push(answer);
        }
    }
    if whole && silent.is_empty() {
        Completeness::Complete { as_of }
    } else {
        Completeness::Partial { silent, as_of }
    }
}

impl Records for RecordsDesk {
    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        subject: &'a SubjectRef,
    ) -> BoxFuture<'a, Answer<BoxStream<'static, RecordEvent>>> {
        async move {
            let known = self.people.known(&caller.principal.account, subject);
            let known = known.ok_or_else(|| PortError {
                class: Class::Refused,
                what: "This record is not open any more. Find the patient again.".to_owned(),
            })?;
            self.ask(caller, known.hit.demographics).await
        }
        .boxed()
    }

    fn documents<'a>(
        &'a self,
        caller: &'a Caller,
        patient: PatientSelector,
        filter: DocumentFilter,
    ) -> BoxFuture<'a, Answer<DocumentsAnswer>> {
        async move {
            let now = self.trade.clock.now();
            let Some(person) = self.selected(&patient)? else {
                let completeness = Completeness::Complete { as_of: now };
                return Ok(DocumentsAnswer {
                    patient: None,
                    documents: Vec::new(),
                    completeness,
                });
            };
            let mut events = self.question(caller, person.demographics, Wanted::List).await?;
            let (mut documents, mut whole) = (
                Vec::new(),
                Completeness::Partial {
                    silent: Vec::new(),
                    as_of: now,
                },
            );
            while let Some(event) = events.next().await {
                match event {
                    RecordEvent::Organisation {
                        answer,
                        documents: cards,
                        ..
                    } => {
                        if filter.communities.is_empty() || filter.communities.contains(&answer.org) {
                            documents.extend(cards);
                        }
                    }
                    RecordEvent::Done(completeness) => whole = completeness,
                    RecordEvent::Asking(_) => {}
                }
            }
            Ok(DocumentsAnswer {
                patient: Some(person.key.to_hex()),
                documents,
                completeness: whole,
            })
        }
        .boxed()
    }

    fn card<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<DocumentCard>> {
        async move {
            let row = self.references.row(&caller.principal.account, document)?;
            let row = row.ok_or_else(|| PortError {
                class: Class::Refused,
                what: GONE.to_owned(),
            })?;
            let org_name = organisation(&self.trade.registry, &row.org).0;
            Ok(DocumentCard {
                reference: document.clone(),
                org: row.org,
                org_name,
                meta: row.meta,
            })
        }
        .boxed()
    }

    fn content<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef, from: u64) -> BoxFuture<'a, Answer<Body>> {
        async move {
            match self.source(caller, document).await? {
                Source::Here(row, asker, correlation) => self.here(&asker, row.meta.id, correlation, from).await,
                Source::There(remote, asking) => self.there(&remote, &asking, from).await,
            }
        }
        .boxed()
    }

    fn study<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<StudyManifest>> {
        async move {
            match self.source(caller, document).await? {
                Source::Here(row, asker, correlation) => {
                    let study = self.trade.local.study(&asker, row.meta.id, correlation).await;
                    Ok(study
                        .map_err(|error| port_error(error.class(), GONE, &error))?
                        .manifest()
                        .clone())
                }
                Source::There(remote, asking) => {
                    let manifest = self.region.retriever.manifest(&asking, &remote).await;
                    manifest.map_err(|error| port_error(error.class(), SILENT, &error))
                }
            }
        }
        .boxed()
    }

    fn instance<'a>(
        &'a self,
        caller: &'a Caller,
        document: &'a DocumentRef,
        index: u32,
    ) -> BoxFuture<'a, Answer<Body>> {
        async move {
            match self.source(caller, document).await? {
                Source::Here(row, asker, correlation) => {
                    let study = self.trade.local.study(&asker, row.meta.id, correlation).await;
                    let study = study.map_err(|error| port_error(error.class(), GONE, &error))?;
                    let released = study
                        .instance(index, 0)
                        .await
                        .map_err(|error| port_error(error.class(), GONE, &error))?;
                    let stream = released
                        .stream
                        .map(|chunk| chunk.map_err(|error| port_error(error.class(), GONE, &error)));
                    Ok(Body {
                        content_type: released.content_type,
                        size: released.size,
                        hash: released.hash,
                        stream: stream.boxed(),
                    })
                }
                Source::There(remote, asking) => {
                    let fetched = self.region.retriever.instance(&asking, &remote, index, 0).await;
                    Ok(body(
                        fetched.map_err(|error| port_error(error.class(), SILENT, &error))?,
                    ))
                }
            }
        }
        .boxed()
    }
}
