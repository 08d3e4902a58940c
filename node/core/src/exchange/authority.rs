//! This node as a token authority: evaluates blinded points with its shares, within budgets.
//!
//! Slow, visible and attributable: every evaluation for another member carries a signed claim, counts against the
//! budgets of that member, its user and its purpose, and stands in the audit log before the answer leaves (SPEC
//! X-BUDGET). Which share answers is the registry's decision: the one behind the point that it publishes, or, while
//! a resharing is under way, the one that the asker names.

use core::fmt;
use std::sync::Arc;

use hie_protocol::bytes::Bytes;
use hie_protocol::claim::Claim;
use hie_protocol::id::{Correlation, Millis, NodeKey, OrgId, PublicKey};
use hie_protocol::message::{Response, SecretBytes};
use hie_protocol::oprf::key::KeyShare;
use hie_protocol::oprf::reshare::{self, Plan};
use hie_protocol::oprf::{BlindedElement, Evaluation, QUESTION_BATCH_MAX, server};
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::{Registry, TokenAuthority};
use hie_protocol::vocabulary::Purpose;
use tracing::{error, warn};

use crate::audit::event::{Actor, AuditEvent, Counterpart, EventKind, Outcome};
use crate::audit::log::AuditLog;
use crate::exchange::budget::{Alarm, Budgets, Spent, Use};
use crate::exchange::keyring::Keyring;
use crate::exchange::watch::{Notice, Watch};
use crate::kv::Batch;
use crate::locator::tokens::RegistryView;
use crate::ports::{Clock, Random, random_bytes};

/// The authorities of a key epoch, when the registry has that epoch.
#[must_use]
pub fn authorities(registry: &Registry, epoch: u32) -> Option<(u16, &[TokenAuthority])> {
    let tokens = &registry.policy.tokens;
    if tokens.epoch == epoch {
        return Some((tokens.threshold, &tokens.authorities));
    }
    let beside = tokens.beside.as_ref().filter(|beside| beside.epoch == epoch)?;
    Some((beside.threshold, &beside.authorities))
}

/// What the authority works with.
#[derive(Clone)]
pub struct Parts {
    /// This organisation.
    pub me: OrgId,
    /// Shares.
    pub keyring: Arc<Keyring>,
    /// Registry.
    pub registry: RegistryView,
    /// Audit log.
    pub audit: Arc<AuditLog>,
    /// Budgets.
    pub budgets: Arc<Budgets>,
    /// Alarms.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Proofs.
    pub random: Arc<dyn Random>,
}

/// The shares of this node and who may use them.
pub struct Authority {
    parts: Parts,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authority({:?})", self.parts.keyring)
    }
}

impl Authority {
    /// An authority over its parts; without a share it answers that it does not offer this.
    #[must_use]
    pub const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The shares.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.parts.keyring
    }

    /// The share for an epoch: the one published, or the one named while the key has two sharings.
    fn share(&self, epoch: u32, named: Option<u16>) -> Option<Arc<KeyShare>> {
        let registry = self.parts.registry.borrow();
        let (_, authorities) = authorities(&registry, epoch)?;
        let mut mine = authorities.iter().filter(|authority| authority.org == self.parts.me);
        let published = mine.find(|authority| named.is_none_or(|index| index == authority.index));
        if let Some(authority) = published {
            return self.parts.keyring.find(epoch, authority.index, &authority.point);
        }
        let tokens = &registry.policy.tokens;
        let two = tokens.epoch == epoch && tokens.resharing.is_some();
        named
            .filter(|_| two)
            .and_then(|index| self.parts.keyring.newest(epoch, index))
    }

    /// Evaluates with the share behind a published point, for this node itself; none when it is not held.
    #[must_use]
    pub fn evaluate_own(
        &self,
        epoch: u32,
        authority: &TokenAuthority,
        blinded: &[BlindedElement],
    ) -> Option<Evaluation> {
        let share = self.parts.keyring.find(epoch, authority.index, &authority.point)?;
        self.evaluate(&share, blinded)
    }

    fn evaluate(&self, share: &KeyShare, blinded: &[BlindedElement]) -> Option<Evaluation> {
        let mut fill = |out: &mut [u8]| {
            // A failed generator leaves zeros, and zeros are refused as no randomness.
            if self.parts.random.fill(out).is_err() {
                out.fill(0);
            }
        };
        server::evaluate(share, blinded, &mut fill).ok()
    }

    /// Answers a member whose claim was taken. Blocks for one sync.
    #[must_use]
    pub fn serve(&self, claim: &Claim, epoch: u32, named: Option<u16>, blinded: &[PublicKey]) -> Response {
        let Some(share) = self.share(epoch, named) else {
            return Response::Refused(Refusal::NotOffered);
        };
        let use_for = Use::of(claim);
        if blinded.is_empty() || (use_for != Use::Publication && blinded.len() > QUESTION_BATCH_MAX) {
            return Response::Refused(Refusal::Malformed);
        }
        let now = self.parts.clock.now();
        let registry = Arc::clone(&self.parts.registry.borrow());
        let spent = self.parts.budgets.spend(claim, blinded.len() as u64, &registry, now);
        let spent = match spent {
            Ok(spent) => spent,
            Err(error) => {
                error!(%error, "a token budget cannot be read");
                return Response::Refused(Refusal::Failed);
            }
        };
        if !spent.granted {
            return self.refuse(claim, spent, now);
        }
        let elements: Vec<BlindedElement> = blinded.iter().map(|point| BlindedElement(*point.as_bytes())).collect();
        let Some(evaluation) = self.evaluate(&share, &elements) else {
            return Response::Refused(Refusal::Malformed);
        };
        let mut event = event(EventKind::TokensEvaluated, claim, now);
        event.detail = Some(format!("{} blinded tokens for {}", blinded.len(), use_for.words()));
        let mut events = vec![event];
        events.extend(self.raise(claim, &spent.alarms, now));
        if let Err(error) = self.parts.audit.append(events, spent.counters) {
            warn!(%error, "an evaluation cannot be recorded and is not answered");
            return Response::Refused(Refusal::Failed);
        }
        Response::Evaluated {
            index: share.index(),
            elements: evaluation.elements.iter().map(|point| PublicKey::new(*point)).collect(),
            proof: Bytes(evaluation.proof.to_vec()),
        }
    }

    /// Refuses for a used-up budget; the first refusal of a bucket stands in the log, those behind it are counted.
    fn refuse(&self, claim: &Claim, spent: Spent, now: Millis) -> Response {
        let events = self.raise(claim, &spent.alarms, now);
        if !events.is_empty()
            && let Err(error) = self.parts.audit.append(events, spent.counters)
        {
            warn!(%error, "a budget alarm cannot be recorded");
            return Response::Refused(Refusal::Failed);
        }
        Response::Refused(Refusal::Budget)
    }

    fn raise(&self, claim: &Claim, alarms: &[Alarm], now: Millis) -> Vec<AuditEvent> {
        let raised = alarms.iter().map(|alarm| {
            let (what, whose) = (alarm.use_for.words(), alarm.whose.words());
            let words = if alarm.exhausted {
                format!("token budget {whose} for {what} used up: refused")
            } else {
                format!("more than half of the token budget {whose} for {what} used")
            };
            warn!(org = %claim.org, %words, "token budget alarm");
            self.parts.watch.alarm(Notice {
                at: now,
                org: claim.org.clone(),
                words: words.clone(),
            });
            let mut event = event(EventKind::BudgetAlarm, claim, now);
            event.detail = Some(words);
            if alarm.exhausted {
                event.outcome = Outcome::Denied;
            }
            event
        });
        raised.collect()
    }

    /// Deals a seat its part of a resharing; `node` is the channel's. Blocks for one sync.
    #[must_use]
    pub fn reshare(&self, node: &NodeKey, epoch: u32, generation: u32) -> Response {
        let registry = Arc::clone(&self.parts.registry.borrow());
        let tokens = &registry.policy.tokens;
        let offered = tokens.resharing.as_ref().filter(|resharing| {
            tokens.epoch == epoch && resharing.generation == generation && registry.active_key(node).is_some()
        });
        let seated = offered.zip(registry.node(node)).and_then(|(resharing, (member, _))| {
            let seat = resharing.seats.iter().find(|seat| seat.org == member.org)?;
            Some((resharing, seat))
        });
        let Some((resharing, seat)) = seated else {
            return Response::Refused(Refusal::NotOffered);
        };
        let dealer = tokens
            .authorities
            .iter()
            .find(|authority| authority.org == self.parts.me && resharing.dealers.contains(&authority.index));
        let share = dealer.and_then(|dealer| self.parts.keyring.find(epoch, dealer.index, &dealer.point));
        let part = share.and_then(|share| {
            let plan = Plan::new(epoch, resharing).ok()?;
            reshare::deal(&plan, &share, seat.index).ok()
        });
        let (Some(part), Ok(correlation)) = (part, random_bytes(&*self.parts.random)) else {
            return Response::Refused(Refusal::NotOffered);
        };
        let actor = Actor::system(self.parts.me.clone(), "token authority");
        let now = self.parts.clock.now();
        let mut event = AuditEvent::new(EventKind::TokensEvaluated, now, Correlation::new(correlation), actor);
        event.purpose = Some(Purpose::Operations);
        event.counterpart = Some(Counterpart {
            org: seat.org.clone(),
            entry: None,
        });
        event.detail = Some(format!(
            "dealt seat {} its part of resharing {generation} of epoch {epoch}",
            seat.index
        ));
        if let Err(error) = self.parts.audit.append(vec![event], Batch::new()) {
            warn!(%error, "a part of a resharing cannot be recorded and is not given");
            return Response::Refused(Refusal::Failed);
        }
        Response::Reshared {
            commitments: part.commitments.iter().map(|point| PublicKey::new(*point)).collect(),
            share: SecretBytes(part.value.to_vec()),
        }
    }
}

/// An entry about a claim.
fn event(kind: EventKind, claim: &Claim, now: Millis) -> AuditEvent {
    let mut event = AuditEvent::new(kind, now, claim.correlation, Actor::of_claim(claim));
    event.purpose = Some(claim.purpose);
    event.counterpart = Some(Counterpart {
        org: claim.org.clone(),
        entry: None,
    });
    event
}
