//! The answering side of the control channel: open a patient's record for another organisation.
//!
//! ```text
//! claim taken -> patient re-matched, identity to identity -> consent for each document -> audit entry durable
//!             -> tickets for what is granted -> answer
//! ```
//!
//! No record, no certain match and nothing granted look alike from outside: the same shape, the same audit
//! write before the answer (SPEC X-UNIFORM). A probable match says only that a human must confirm.

use core::fmt;
use std::sync::Arc;

use hie_consent::decide::{Basis as PermitBasis, Decision, Denial};
use hie_consent::explain::excluded_organisations;
use hie_protocol::bytes::Bytes;
use hie_protocol::claim::Claim;
use hie_protocol::id::{ConsentEpoch, Correlation, Millis, NodeKey, OrgId};
use hie_protocol::message::{Demographics, GRANTS_MAX, Grant, MatchGrade, Obligation, Open, Opened, Request, Response};
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::retrieval::TICKET_LIFE_MS;
use hie_protocol::vocabulary::Purpose;
use tracing::{error, warn};

use crate::audit::event::{Actor, AuditEvent, Basis, Counterpart, EventKind, Outcome};
use crate::audit::log::AuditLog;
use crate::audit::{AuditError, receipt};
use crate::exchange::authority::Authority;
use crate::exchange::claim::ClaimGate;
use crate::exchange::ticket::{Granted, Tickets};
use crate::ids::PatientKey;
use crate::locator::driver::IndexHandle;
use crate::locator::tokens::RegistryView;
use crate::patient::index::{Candidate, PatientError, PatientIndex};
use crate::policy::decide::{Asker, decide_for, rules};
use crate::policy::store::{Policies, PolicyError};
use crate::ports::{Clock, NoRandomness, NodeSigner, Random, blocking};
use crate::record::entry::{Entry, RecordError, Records};

/// Why an answer fails; the asker sees [`Refusal::Failed`] alone.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Patient.
    #[error("the patient index does not answer")]
    Patient(#[from] PatientError),
    /// Records.
    #[error("the records do not answer")]
    Record(#[from] RecordError),
    /// Choices.
    #[error("the patient's choices cannot be read")]
    Policy(#[from] PolicyError),
    /// Audit.
    #[error("the answer cannot be recorded")]
    Audit(#[from] AuditError),
    /// Receipt.
    #[error("the receipt cannot be signed")]
    Sign(#[from] hie_protocol::sign::SignError),
    /// No random bytes.
    #[error("no ticket can be made")]
    Random(#[from] NoRandomness),
}

impl ServeError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Patient(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::Policy(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::Sign(_) | Self::Random(_) => Class::Broken,
        }
    }
}

/// What the custodian's side works with.
#[derive(Clone)]
pub struct Custodian {
    /// This organisation.
    pub me: OrgId,
    /// Patients.
    pub patients: Arc<PatientIndex>,
    /// Documents.
    pub records: Records,
    /// Choices.
    pub policies: Arc<Policies>,
    /// Audit log.
    pub audit: Arc<AuditLog>,
    /// Signs receipts.
    pub signer: Arc<dyn NodeSigner>,
    /// Registry.
    pub registry: RegistryView,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tickets.
    pub random: Arc<dyn Random>,
    /// Tickets in force.
    pub tickets: Arc<Tickets>,
}

impl fmt::Debug for Custodian {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Custodian({})", self.me)
    }
}

/// Answers the requests of other members.
#[derive(Debug)]
pub struct Server {
    custodian: Custodian,
    gate: ClaimGate,
    authority: Option<Arc<Authority>>,
    index: IndexHandle,
}

impl Server {
    /// A server over the custodian's side.
    #[must_use]
    pub fn new(custodian: Custodian, gate: ClaimGate, authority: Option<Arc<Authority>>, index: IndexHandle) -> Self {
        Self {
            custodian,
            gate,
            authority,
            index,
        }
    }

    /// Answers a request that came over the channel of `node`. `Hello`, `Registry` and `RegistryPush` are the
    /// node's own and not offered here.
    pub async fn answer(self: &Arc<Self>, node: NodeKey, request: Request) -> Response {
        match request {
            Request::Index(message) => {
                let from = self.custodian.org_of(&node);
                match from.map(|org| self.index.received(org, message)) {
                    Some(Ok(())) => Response::Taken,
                    Some(Err(_)) => Response::Refused(Refusal::Busy),
                    None => Response::Refused(Refusal::Claim),
                }
            }
            Request::Evaluate {
                claim,
                epoch,
                blinded,
                share,
            } => {
                let Some(authority) = self.authority.clone() else {
                    return Response::Refused(Refusal::NotOffered);
                };
                let claim = match self.gate.take(&claim.0, &node) {
                    Ok(claim) => claim,
                    Err(refusal) => return Response::Refused(refusal),
                };
                blocking(move || authority.serve(&claim, epoch, share, &blinded)).await
            }
            Request::Reshare { epoch, generation } => {
                let Some(authority) = self.authority.clone() else {
                    return Response::Refused(Refusal::NotOffered);
                };
                blocking(move || authority.reshare(&node, epoch, generation)).await
            }
            Request::Open(open) => {
                let claim = match self.gate.take(&open.claim.0, &node) {
                    Ok(claim) => claim,
                    Err(refusal) => return Response::Refused(refusal),
                };
                let server = Arc::clone(self);
                blocking(move || server.custodian.open(node, &claim, &open)).await
            }
            Request::Hello { .. } | Request::Registry { .. } | Request::RegistryPush { .. } => {
                Response::Refused(Refusal::NotOffered)
            }
        }
    }
}

/// What a question opens at this custodian.
pub(super) struct Answer {
    matched: Option<MatchGrade>,
    patient: Option<PatientKey>,
    demographics: Option<Demographics>,
    granted: Vec<Entry>,
    obligations: Vec<Obligation>,
    basis: Option<Basis>,
    reasons: Vec<String>,
    more_on_emergency: bool,
    epoch: ConsentEpoch,
}

impl Answer {
    const fn nothing() -> Self {
        Self {
            matched: None,
            patient: None,
            demographics: None,
            granted: Vec::new(),
            obligations: Vec::new(),
            basis: None,
            reasons: Vec::new(),
            more_on_emergency: false,
            epoch: ConsentEpoch(0),
        }
    }
}

/// The ground of a permit in the words of the audit log.
pub(super) fn basis_of(basis: &PermitBasis) -> Basis {
    match basis {
        PermitBasis::Directive(id) => Basis::Directive(id.clone()),
        PermitBasis::BreakGlass => Basis::Emergency,
        PermitBasis::OwnRecord | PermitBasis::PatientAccess => Basis::OwnPatient,
        _ => Basis::Default,
    }
}

/// The reasons of a denial in the closed words of the judge.
pub(super) fn reasons_of(denial: &Denial) -> Vec<String> {
    denial.reasons.iter().map(|reason| reason.code().to_owned()).collect()
}

impl Custodian {
    /// The active member of a node.
    #[must_use]
    pub fn org_of(&self, node: &NodeKey) -> Option<OrgId> {
        let registry = self.registry.borrow();
        registry.active_key(node)?;
        registry.node(node).map(|(member, _)| member.org.clone())
    }

    /// Answers a member whose claim was taken. Blocks for one sync.
    fn open(&self, node: NodeKey, claim: &Claim, open: &Open) -> Response {
        let asker = Asker::of_claim(claim);
        let actor = Actor::of_claim(claim);
        let opened = self.answer(&asker, &open.demographics, |entry| {
            open.documents.is_empty() || open.documents.contains(&entry.id())
        });
        match opened.and_then(|answer| self.release(node, &asker, actor, claim.correlation, answer)) {
            Ok(opened) => Response::Opened(Box::new(opened)),
            Err(failed) => {
                error!(error = %failed, "a question of another organisation cannot be answered");
                Response::Refused(if failed.class() == Class::Unavailable {
                    Refusal::Busy
                } else {
                    Refusal::Failed
                })
            }
        }
    }

    /// The same answer for a user of this organisation. Blocks for one sync. Errors: [`ServeError`].
    pub fn open_own(
        &self,
        asker: &Asker,
        demographics: &Demographics,
        correlation: Correlation,
    ) -> Result<Opened, ServeError> {
        let answer = self.answer(asker, demographics, |_| true)?;
        let node = self.signer.node();
        let actor = self.own_actor(asker);
        self.release(node, asker, actor, correlation, answer)
    }

    /// A user of this organisation in the audit log.
    #[must_use]
    pub fn own_actor(&self, asker: &Asker) -> Actor {
        Actor {
            org: self.me.clone(),
            node: None,
            user: asker.user.clone(),
            user_name: asker.user_name.clone(),
            role: asker.role,
        }
    }

    fn answer(
        &self,
        asker: &Asker,
        demographics: &Demographics,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Answer, ServeError> {
        let now = self.clock.now();
        let candidates = self.patients.identify(demographics)?;
        let Some(best) = candidates.first() else {
            return Ok(Answer::nothing());
        };
        match best.verdict.grade {
            Some(MatchGrade::Certain) => self.certain(asker, best, wanted, now),
            Some(MatchGrade::Probable) => {
                for candidate in &candidates {
                    if self.may_hint(asker, candidate.person.key, now)? {
                        return Ok(Answer {
                            matched: Some(MatchGrade::Probable),
                            ..Answer::nothing()
                        });
                    }
                }
                Ok(Answer::nothing())
            }
            None => Ok(Answer::nothing()),
        }
    }

    /// A probable match is mentioned only when something of that person would be granted.
    fn may_hint(&self, asker: &Asker, patient: PatientKey, now: Millis) -> Result<bool, ServeError> {
        let policy = self.policies.of(patient)?;
        if excluded_organisations(&policy.directives, now).contains(&asker.org) {
            return Ok(false);
        }
        let region = rules(&self.registry.borrow().policy);
        let permitted = |entry: &Entry| {
            matches!(
                decide_for(&policy, &region, asker, entry, &self.me, now),
                Decision::Permitted(_)
            )
        };
        Ok(self.records.of_patient(patient)?.iter().any(permitted))
    }

    fn certain(
        &self,
        asker: &Asker,
        found: &Candidate,
        wanted: impl Fn(&Entry) -> bool,
        now: Millis,
    ) -> Result<Answer, ServeError> {
        let patient = found.person.key;
        let policy = self.policies.of(patient)?;
        let registry = Arc::clone(&self.registry.borrow());
        let region = rules(&registry.policy);
        let mut answer = Answer {
            patient: Some(patient),
            epoch: policy.epoch,
            ..Answer::nothing()
        };
        for entry in self
            .records
            .of_patient(patient)?
            .into_iter()
            .filter(wanted)
            .take(GRANTS_MAX)
        {
            match decide_for(&policy, &region, asker, &entry, &self.me, now) {
                Decision::Permitted(permit) => {
                    answer.obligations.extend_from_slice(permit.obligations());
                    answer.basis.get_or_insert(basis_of(permit.basis()));
                    answer.granted.push(entry);
                }
                Decision::Denied(denial) => {
                    answer.reasons.extend(reasons_of(&denial));
                    answer.more_on_emergency |=
                        registry.policy.break_glass.tell_withheld && denial.opened_by_break_glass;
                }
            }
        }
        answer.obligations.sort();
        answer.obligations.dedup();
        answer.reasons.sort();
        answer.reasons.dedup();
        if !answer.granted.is_empty() {
            answer.matched = Some(MatchGrade::Certain);
            answer.demographics = Some(found.person.demographics.clone());
        }
        Ok(answer)
    }

    /// Audit first, then tickets: nothing of the answer leaves before its entry is durable.
    fn release(
        &self,
        node: NodeKey,
        asker: &Asker,
        actor: Actor,
        correlation: Correlation,
        answer: Answer,
    ) -> Result<Opened, ServeError> {
        let now = self.clock.now();
        let receipt = self.record(asker, actor, correlation, &answer, now)?;
        let receipt = Bytes(receipt.sign(&asker.org, asker.purpose, &*self.signer)?);
        let mut grants = Vec::with_capacity(answer.granted.len());
        for entry in answer.granted {
            let granted = Granted {
                node,
                document: entry.id(),
                asker: asker.clone(),
                correlation,
                expires: now.plus(TICKET_LIFE_MS),
            };
            match self.tickets.mint(granted, now, &*self.random)? {
                Some(ticket) => grants.push(Grant {
                    document: entry.meta,
                    ticket,
                }),
                None => warn!("too many tickets are in force; a document is left out"),
            }
        }
        Ok(Opened {
            matched: answer.matched,
            demographics: answer.demographics,
            grants,
            more_on_emergency: answer.more_on_emergency,
            obligations: answer.obligations,
            epoch: if answer.matched.is_some() {
                answer.epoch
            } else {
                ConsentEpoch(0)
            },
            receipt,
        })
    }

    fn record(
        &self,
        asker: &Asker,
        actor: Actor,
        correlation: Correlation,
        answer: &Answer,
        now: Millis,
    ) -> Result<receipt::Receipt, ServeError> {
        let emergency = asker.purpose == Purpose::BreakGlass && !answer.granted.is_empty();
        let kind = if emergency {
            EventKind::EmergencyUsed
        } else {
            EventKind::QuestionAnswered
        };
        let mut event = AuditEvent::new(kind, now, correlation, actor);
        event.purpose = Some(asker.purpose);
        event.patient = answer.patient.map(|patient| self.audit.patient_ref(patient));
        event.documents = answer.granted.iter().map(Entry::id).collect();
        event.outcome = if answer.granted.is_empty() && answer.patient.is_some() {
            Outcome::Denied
        } else {
            Outcome::Success
        };
        event.counterpart = (asker.org != self.me).then(|| Counterpart {
            org: asker.org.clone(),
            entry: None,
        });
        event.basis = answer.basis.clone();
        event.reasons = answer.reasons.clone();
        event.emergency = asker.break_glass.clone();
        Ok(self.audit.append_one(event)?)
    }
}
