//! Fan out: ask every custodian at once, a deadline each, and stream the typed answers as they come.
//!
//! Whoever does not answer in time is named. "Nothing known" and "did not answer" are different values: the
//! last event is `Complete`, or `Partial` with exactly the silent custodians and index members (law 5).

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use hie_node_federation::port::Why;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, Correlation, Millis, OrgId, Ticket};
use hie_protocol::message::{
    Demographics, DocumentMeta, MatchGrade, Obligation, Open, Opened, Receipt, Request, Response,
};
use hie_protocol::record::LocatorSecret;
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::TICKET_LIFE_MS;
use tracing::warn;

use crate::exchange::claim::{Asking, ClaimMaker};
use crate::exchange::find::{Finder, Found, Pointed};
use crate::exchange::serve::Custodian;
use crate::locator::driver::{Wire, WireFailure};
use crate::policy::decide::Asker;
use crate::ports::blocking;

/// Longest wait for one custodian, in milliseconds.
pub const CUSTODIAN_DEADLINE_MS: u64 = 5000;

/// A granted document of some custodian: what the asker needs to retrieve it.
#[derive(Clone)]
pub struct RemoteDocument {
    /// Custodian.
    pub org: OrgId,
    /// What it is.
    pub meta: DocumentMeta,
    /// Right to retrieve it.
    pub ticket: Ticket,
    /// When the ticket ends.
    pub expires: Millis,
    /// Question it was granted for.
    pub correlation: Correlation,
}

impl fmt::Debug for RemoteDocument {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RemoteDocument({}, {:?})", self.org, self.meta.id)
    }
}

/// What a custodian opened.
#[derive(Clone)]
pub struct Opening {
    /// The patient as the custodian knows her.
    pub demographics: Option<Demographics>,
    /// Granted documents.
    pub documents: Vec<RemoteDocument>,
    /// What the receiver must do.
    pub obligations: Vec<Obligation>,
    /// An emergency declaration would open more, where the region lets that be said.
    pub more_on_emergency: bool,
    /// Consent epoch there.
    pub epoch: ConsentEpoch,
    /// Its verified audit receipt.
    pub receipt: Receipt,
}

/// What one custodian said.
#[derive(Clone)]
pub enum Reply {
    /// It granted documents.
    Opened(Box<Opening>),
    /// No record of this patient, or none that may be mentioned.
    NoRecord {
        /// An emergency declaration would open something, where the region lets that be said.
        more_on_emergency: bool,
    },
    /// Probably this patient: a human must confirm.
    Probable,
    /// It refused the question.
    Refused(Refusal),
    /// It did not answer.
    Silent(Silence),
}

impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(opening) => write!(out, "Opened({} documents)", opening.documents.len()),
            Self::NoRecord { .. } => out.write_str("NoRecord"),
            Self::Probable => out.write_str("Probable"),
            Self::Refused(refusal) => write!(out, "Refused({refusal:?})"),
            Self::Silent(silence) => write!(out, "Silent({silence:?})"),
        }
    }
}

/// Why somebody is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No answer in time (milliseconds waited).
    TimedOut(u64),
    /// Not reachable.
    Unreachable,
    /// Its answer broke the protocol, or this node could not take it.
    Misbehaved,
    /// An index holder or token authority whose answer was needed.
    Index(Why),
}

/// Whether everybody answered; there is no third constructor (law 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every custodian asked, and every index member needed, answered.
    Complete {
        /// When the question was asked.
        as_of: Millis,
    },
    /// Some did not.
    Partial {
        /// Exactly those, in the order of their ids.
        silent: Vec<(OrgId, Silence)>,
        /// When the question was asked.
        as_of: Millis,
    },
}

/// What happens while a record opens.
#[derive(Clone)]
pub enum AskEvent {
    /// These will be asked.
    Asking(Vec<OrgId>),
    /// One answered, or did not.
    Organisation {
        /// Custodian.
        org: OrgId,
        /// Milliseconds from the question to the answer.
        elapsed_ms: u64,
        /// What it said.
        reply: Reply,
    },
    /// All answered or their deadline passed.
    Done {
        /// Whole or not.
        completeness: Completeness,
        /// What the locators say that silent custodians hold.
        held: BTreeMap<OrgId, Vec<LocatorSecret>>,
    },
}

impl fmt::Debug for AskEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking(orgs) => write!(out, "Asking({orgs:?})"),
            Self::Organisation { org, reply, .. } => write!(out, "Organisation({org}, {reply:?})"),
            Self::Done { completeness, .. } => write!(out, "Done({completeness:?})"),
        }
    }
}

/// Asks custodians.
#[derive(Clone)]
pub struct Fanout {
    finder: Finder,
    custodian: Custodian,
    wire: Arc<dyn Wire>,
    claims: ClaimMaker,
}

impl fmt::Debug for Fanout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Fanout")
    }
}

impl Fanout {
    /// Over the finder, this node's own custodian side and the wire.
    #[must_use]
    pub const fn new(finder: Finder, custodian: Custodian, wire: Arc<dyn Wire>, claims: ClaimMaker) -> Self {
        Self {
            finder,
            custodian,
            wire,
            claims,
        }
    }

    /// Asks everybody that was found; the events end with [`AskEvent::Done`].
    #[must_use]
    pub fn ask(&self, found: Found, asking: Asking, person: Demographics) -> BoxStream<'static, AskEvent> {
        let fanout = self.clone();
        async_stream::stream! {
            let started = tokio::time::Instant::now();
            yield AskEvent::Asking(found.custodians.keys().cloned().collect());
            let mut waiting: FuturesUnordered<_> = found
                .custodians
                .iter()
                .map(|(org, pointed)| fanout.timed(org, pointed, &asking, &person))
                .collect();
            let mut silent: BTreeMap<OrgId, Silence> = found.silent.iter().map(|(org, why)| (org.clone(), Silence::Index(*why))).collect();
            let mut gaps = Vec::new();
            while let Some((org, reply)) = waiting.next().await {
                if let Reply::Silent(silence) = &reply {
                    silent.insert(org.clone(), *silence);
                    gaps.push(org.clone());
                }
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                yield AskEvent::Organisation { org, elapsed_ms, reply };
            }
            let held = if gaps.is_empty() { BTreeMap::new() } else { fanout.finder.locators(&found, &gaps).await.unwrap_or_default() };
            let as_of = found.as_of;
            let completeness = if silent.is_empty() {
                Completeness::Complete { as_of }
            } else {
                Completeness::Partial { silent: silent.into_iter().collect(), as_of }
            };
            yield AskEvent::Done { completeness, held };
        }
        .boxed()
    }

    async fn timed(&self, org: &OrgId, pointed: &Pointed, asking: &Asking, person: &Demographics) -> (OrgId, Reply) {
        let deadline = Duration::from_millis(CUSTODIAN_DEADLINE_MS);
        let asked = tokio::time::Instant::now();
        let reply = tokio::time::timeout(deadline, self.one(org, pointed, asking, person)).await;
        let waited = || u64::try_from(asked.elapsed().as_millis()).unwrap_or(CUSTODIAN_DEADLINE_MS);
        let reply = match reply {
            Ok(Reply::Silent(Silence::TimedOut(_))) | Err(_) => Reply::Silent(Silence::TimedOut(waited())),
            Ok(reply) => reply,
        };
        (org.clone(), reply)
    }

    async fn one(&self, org: &OrgId, pointed: &Pointed, asking: &Asking, person: &Demographics) -> Reply {
        if *org == self.custodian.me {
            return self.own(asking, person).await;
        }
        let claim = match self.claims.make(asking, org) {
            Ok(claim) => claim,
            Err(error) => {
                warn!(%org, %error, "a custodian cannot be asked");
                return Reply::Silent(Silence::Misbehaved);
            }
        };
        let open = Open {
            claim: Bytes(claim),
            demographics: person.clone(),
            handles: pointed.handles.clone(),
            documents: Vec::new(),
        };
        match self.wire.send(org.clone(), Request::Open(Box::new(open))).await {
            Ok(Response::Opened(opened)) => self.read(org, *opened, asking),
            Ok(Response::Refused(refusal)) => Reply::Refused(refusal),
            Ok(_) | Err(WireFailure::Misbehaved) => Reply::Silent(Silence::Misbehaved),
            Err(WireFailure::Unreachable) => Reply::Silent(Silence::Unreachable),
            Err(WireFailure::TimedOut) => Reply::Silent(Silence::TimedOut(CUSTODIAN_DEADLINE_MS)),
        }
    }

    async fn own(&self, asking: &Asking, person: &Demographics) -> Reply {
        let asker = Asker {
            org: self.custodian.me.clone(),
            user: asking.user.clone(),
            user_name: asking.user_name.clone(),
            role: asking.role,
            purpose: asking.purpose,
            break_glass: asking.break_glass.clone(),
            evidence: asking.evidence.is_some(),
            is_patient: false,
        };
        let (custodian, person, correlation) = (self.custodian.clone(), person.clone(), asking.correlation);
        match blocking(move || custodian.open_own(&asker, &person, correlation)).await {
            Ok(opened) => self.read(&self.custodian.me, opened, asking),
            Err(error) => {
                tracing::error!(%error, "this organisation's own record does not open");
                Reply::Silent(Silence::Misbehaved)
            }
        }
    }

    /// Takes an answer only with a receipt that this custodian signed for this question and this asker.
    fn read(&self, org: &OrgId, opened: Opened, asking: &Asking) -> Reply {
        let registry = Arc::clone(&self.custodian.registry.borrow());
        let receipt = match Receipt::verify(&opened.receipt.0, &registry) {
            Ok(receipt)
                if receipt.log == *org
                    && receipt.correlation == asking.correlation
                    && receipt.audience == self.custodian.me =>
            {
                receipt
            }
            _ => {
                warn!(%org, "an answer without a receipt of its custodian is not taken");
                return Reply::Silent(Silence::Misbehaved);
            }
        };
        let more_on_emergency = opened.more_on_emergency;
        match opened.matched {
            Some(MatchGrade::Certain) => {
                let expires = self.custodian.clock.now().plus(TICKET_LIFE_MS);
                let document = |grant: hie_protocol::message::Grant| RemoteDocument {
                    org: org.clone(),
                    meta: grant.document,
                    ticket: grant.ticket,
                    expires,
                    correlation: asking.correlation,
                };
                Reply::Opened(Box::new(Opening {
                    demographics: opened.demographics,
                    documents: opened.grants.into_iter().map(document).collect(),
                    obligations: opened.obligations,
                    more_on_emergency,
                    epoch: opened.epoch,
                    receipt,
                }))
            }
            Some(MatchGrade::Probable) => Reply::Probable,
            None => Reply::NoRecord { more_on_emergency },
        }
    }
}
