//! Find: who holds something about a person, without telling the index who she is.
//!
//! ```text
//! audit the question -> tokens -> outputs -> pointers (read quorum) -> custodians worth asking
//! ```
//!
//! The question stands in the audit log before the first token is evaluated (law 7). A custodian is asked when
//! a strong token or two weak ones lead to it; this organisation is always among them (SPEC X-FIND).

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hie_node_federation::port::{Outcome, Why};
use hie_protocol::id::{Correlation, IndexKey, Millis, OrgId, RecordHandle};
use hie_protocol::message::{Demographics, MatchGrade};
use hie_protocol::oprf::derive;
use hie_protocol::record::{LocatorSecret, VerifiedRecord};
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::{DocumentClass, Purpose};
use tokio::sync::mpsc;
use tracing::warn;

use crate::audit::AuditError;
use crate::audit::event::{Actor, AuditEvent, EventKind};
use crate::audit::log::AuditLog;
use crate::exchange::claim::Asking;
use crate::locator::build::{open_locator, open_pointer};
use crate::locator::driver::{IndexError, IndexHandle};
use crate::locator::tokens::{Output, RegistryView, TokenAuthority, TokenError};
use crate::patient::index::{PatientError, PatientIndex};
use crate::patient::normalise::normalise;
use crate::patient::tokens::{self, Token};
use crate::ports::{Clock, blocking};

/// Longest wait for the index, in milliseconds.
pub const INDEX_DEADLINE_MS: u64 = 3000;
/// Longest wait for the token authorities, in milliseconds.
pub const TOKENS_DEADLINE_MS: u64 = 4000;
/// Most record keys followed to locators in one question.
pub const RECORD_KEYS_MAX: usize = 64;
/// Most pointer handles named to one custodian.
pub const HANDLES_MAX: usize = 64;
/// Hints of the index that wait to be read.
pub const HINTS_MAX: usize = 64;

/// Why a question cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The audit log does not take the question: then it is not asked.
    #[error("the question cannot be recorded and is not asked")]
    Audit(#[from] AuditError),
    /// The patient index.
    #[error("the patient index does not answer")]
    Patient(#[from] PatientError),
    /// Purpose and declaration do not go together.
    #[error("emergency access needs a declaration, and a declaration needs purpose BTG")]
    Emergency,
    /// The index machine.
    #[error("the index does not answer")]
    Index(#[from] IndexError),
    /// The function.
    #[error("the tokens cannot be evaluated")]
    Tokens(#[from] TokenError),
}

impl FindError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Audit(error) => error.class(),
            Self::Patient(error) => error.class(),
            Self::Emergency => Class::Invalid,
            Self::Index(error) => error.class(),
            Self::Tokens(error) => error.class(),
        }
    }
}

/// What the index says about one custodian.
#[derive(Clone, Default)]
pub struct Pointed {
    /// Its pointers that were hit.
    pub handles: Vec<RecordHandle>,
    /// Kinds of documents it says it holds.
    pub classes: BTreeSet<DocumentClass>,
    /// First and last year of them.
    pub years: Option<(u16, u16)>,
    record_keys: BTreeSet<Vec<u8>>,
}

impl fmt::Debug for Pointed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Pointed({} handles)", self.handles.len())
    }
}

/// Who is to be asked, and what of the index is missing.
#[derive(Clone, Debug)]
pub struct Found {
    /// Custodians, this organisation included.
    pub custodians: BTreeMap<OrgId, Pointed>,
    /// Index holders and token authorities that did not answer where an answer was needed.
    pub silent: Vec<(OrgId, Why)>,
    /// When the question was asked.
    pub as_of: Millis,
    /// Question.
    pub correlation: Correlation,
}

/// Takes custodians that came to light before the index has answered.
pub(super) type Sighted = mpsc::Sender<BTreeMap<OrgId, Pointed>>;

/// What a question looks for in the index.
pub(super) struct Hunt {
    tokens: Vec<Token>,
    outputs: Vec<Output>,
}

impl Hunt {
    fn keys(&self) -> Vec<IndexKey> {
        let key = |output: &Output| IndexKey::new(derive::index_key(output));
        self.outputs.iter().map(key).collect()
    }

    fn end(&self, outcome: Outcome, found: &mut Found) {
        let records = match outcome {
            Outcome::Complete { records, .. } => records,
            Outcome::Partial { records, silent, .. } => {
                found.silent = silent;
                records
            }
        };
        found
            .custodians
            .extend(worth_asking(&self.tokens, &self.outputs, &records));
    }
}

/// What finding works with.
#[derive(Clone)]
pub struct Finder {
    /// This organisation.
    pub me: OrgId,
    /// Patients.
    pub patients: Arc<PatientIndex>,
    /// Audit log.
    pub audit: Arc<AuditLog>,
    /// Tokens.
    pub tokens: Arc<dyn TokenAuthority>,
    /// Index.
    pub index: IndexHandle,
    /// Registry.
    pub registry: RegistryView,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Finder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Finder({})", self.me)
    }
}

impl Finder {
    /// Asks the index who holds something about a person. Errors: [`FindError`].
    pub async fn find(&self, asking: &Asking, person: &Demographics) -> Result<Found, FindError> {
        let (mut found, hunt) = self.begin(asking, person).await?;
        if let Some(hunt) = hunt {
            let deadline = found.as_of.plus(INDEX_DEADLINE_MS);
            let outcome = self.index.lookup(hunt.keys(), deadline).await?;
            hunt.end(outcome, &mut found);
        }
        Ok(found)
    }

    /// As [`Self::find`] once [`Self::begin`] is done; custodians that come to light on the way go to `sighted`.
    /// Errors: [`FindError`].
    pub(super) async fn hunt(&self, hunt: &Hunt, found: &mut Found, sighted: Sighted) -> Result<(), FindError> {
        let (hints, mut gathered) = mpsc::channel(HINTS_MAX);
        let deadline = found.as_of.plus(INDEX_DEADLINE_MS);
        let mut lookup = core::pin::pin!(self.index.lookup_hinted(hunt.keys(), deadline, hints));
        let outcome = loop {
            tokio::select! {
                outcome = &mut lookup => break outcome?,
                Some(records) = gathered.recv() => {
                    // Whoever asked may have gone.
                    let _gone = sighted.send(worth_asking(&hunt.tokens, &hunt.outputs, &records)).await;
                }
            }
        };
        hunt.end(outcome, found);
        Ok(())
    }

    /// Records the question, evaluates its tokens, and names who is asked whatever the index says. Without tokens, or
    /// without enough token authorities, there is nothing to look up. Errors: [`FindError`].
    pub(super) async fn begin(
        &self,
        asking: &Asking,
        person: &Demographics,
    ) -> Result<(Found, Option<Hunt>), FindError> {
        if (asking.purpose == Purpose::BreakGlass) != asking.break_glass.is_some() {
            return Err(FindError::Emergency);
        }
        let as_of = self.clock.now();
        let epoch = self.registry.borrow().policy.tokens.epoch;
        let tokens = tokens::ask(&normalise(person), epoch);
        let (finder, asked, whom, count) = (self.clone(), asking.clone(), person.clone(), tokens.len());
        blocking(move || finder.record(&asked, &whom, count, as_of)).await?;
        let mut found = Found {
            custodians: BTreeMap::from([(self.me.clone(), Pointed::default())]),
            silent: Vec::new(),
            as_of,
            correlation: asking.correlation,
        };
        if asking.break_glass.is_some() {
            // Holders of the index hold back what a label excludes, emergencies included: a declared emergency
            // asks every member, and each custodian decides.
            let registry = self.registry.borrow();
            found
                .custodians
                .extend(registry.active().map(|member| (member.org.clone(), Pointed::default())));
        }
        if tokens.is_empty() {
            return Ok((found, None));
        }
        match self.outputs(asking, epoch, &tokens).await? {
            Ok(outputs) => Ok((found, Some(Hunt { tokens, outputs }))),
            Err(silent) => {
                found.silent = silent;
                Ok((found, None))
            }
        }
    }

    /// The outputs, or who of the authorities is silent.
    async fn outputs(
        &self,
        asking: &Asking,
        epoch: u32,
        tokens: &[Token],
    ) -> Result<Result<Vec<Output>, Vec<(OrgId, Why)>>, FindError> {
        let inputs = tokens.iter().map(|token| token.input.as_bytes().to_vec()).collect();
        let deadline = std::time::Duration::from_millis(TOKENS_DEADLINE_MS);
        match tokio::time::timeout(deadline, self.tokens.evaluate(asking, epoch, inputs)).await {
            Ok(Ok(outputs)) => Ok(Ok(outputs)),
            Ok(Err(TokenError::TooFew { silent, .. })) => {
                Ok(Err(silent.into_iter().map(|org| (org, Why::NoAnswer)).collect()))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let registry = self.registry.borrow();
                let others = registry
                    .policy
                    .tokens
                    .authorities
                    .iter()
                    .filter(|authority| authority.org != self.me);
                Ok(Err(others
                    .map(|authority| (authority.org.clone(), Why::NoAnswer))
                    .collect()))
            }
        }
    }

    /// What the locators of some custodians say, for the gaps of an answer: what a silent one holds.
    /// Errors: [`IndexError`].
    pub async fn locators(
        &self,
        found: &Found,
        orgs: &[OrgId],
    ) -> Result<BTreeMap<OrgId, Vec<LocatorSecret>>, IndexError> {
        let mut keys: BTreeMap<IndexKey, [u8; 32]> = BTreeMap::new();
        for pointed in found
            .custodians
            .iter()
            .filter(|(org, _)| orgs.contains(org))
            .map(|(_, pointed)| pointed)
        {
            let record_keys = pointed
                .record_keys
                .iter()
                .filter_map(|key| <[u8; 32]>::try_from(key.as_slice()).ok());
            keys.extend(
                record_keys
                    .take(RECORD_KEYS_MAX)
                    .map(|key| (IndexKey::new(derive::locator_key(&key)), key)),
            );
        }
        let mut held: BTreeMap<OrgId, Vec<LocatorSecret>> = BTreeMap::new();
        if keys.is_empty() {
            return Ok(held);
        }
        let deadline = self.clock.now().plus(INDEX_DEADLINE_MS);
        let records = match self.index.lookup(keys.keys().copied().collect(), deadline).await? {
            Outcome::Complete { records, .. } | Outcome::Partial { records, .. } => records,
        };
        for record in records.iter().map(hie_protocol::record::VerifiedRecord::record) {
            let secret = keys.get(&record.key).and_then(|key| open_locator(key, record));
            if orgs.contains(&record.owner) {
                held.entry(record.owner.clone()).or_default().extend(secret);
            }
        }
        Ok(held)
    }

    /// The question in the log, durable before anything is asked. Blocks for one sync.
    fn record(&self, asking: &Asking, person: &Demographics, tokens: usize, now: Millis) -> Result<(), FindError> {
        let candidates = self.patients.identify(person)?;
        let own = candidates
            .iter()
            .find(|candidate| candidate.verdict.grade == Some(MatchGrade::Certain));
        let actor = Actor {
            org: self.me.clone(),
            node: None,
            user: asking.user.clone(),
            user_name: asking.user_name.clone(),
            role: asking.role,
        };
        let kind = if asking.break_glass.is_some() {
            EventKind::EmergencyDeclared
        } else {
            EventKind::QuestionAsked
        };
        let mut event = AuditEvent::new(kind, now, asking.correlation, actor);
        event.purpose = Some(asking.purpose);
        event.patient = own.map(|candidate| self.audit.patient_ref(candidate.person.key));
        event.emergency = asking.break_glass.clone();
        event.detail = Some(format!("asked the region with {tokens} match tokens"));
        let _receipt = self.audit.append_one(event)?;
        Ok(())
    }
}

/// The custodians that a strong token or two weak ones lead to.
fn worth_asking(tokens: &[Token], outputs: &[Output], records: &[VerifiedRecord]) -> BTreeMap<OrgId, Pointed> {
    let mut hits: BTreeMap<OrgId, (Pointed, usize, bool)> = BTreeMap::new();
    for (token, output) in tokens.iter().zip(outputs) {
        let key = IndexKey::new(derive::index_key(output));
        for record in records
            .iter()
            .map(VerifiedRecord::record)
            .filter(|record| record.key == key)
        {
            let Some(secret) = open_pointer(output, record) else {
                warn!(owner = %record.owner, "a pointer does not open under its own token");
                continue;
            };
            let (pointed, count, strong) = hits.entry(record.owner.clone()).or_default();
            pointed.handles.push(record.handle);
            pointed.classes.extend(secret.classes);
            pointed.years = join(pointed.years, secret.years);
            pointed.record_keys.insert(secret.record_key);
            *count += 1;
            *strong |= token.kind.is_strong();
        }
    }
    hits.into_iter()
        .filter(|(_, (_, count, strong))| *strong || *count >= 2)
        .map(|(org, (mut pointed, _, _))| {
            pointed.handles.truncate(HANDLES_MAX);
            (org, pointed)
        })
        .collect()
}

fn join(one: Option<(u16, u16)>, other: Option<(u16, u16)>) -> Option<(u16, u16)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}
