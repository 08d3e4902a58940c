//! This node as a token authority: evaluates blinded points with its share, within a budget for each member.
//!
//! Slow, visible and attributable: every evaluation for another member carries a signed claim, counts against
//! that member's day, and stands in the audit log before the answer leaves (SPEC X-BUDGET).

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hie_protocol::bytes::Bytes;
use hie_protocol::claim::Claim;
use hie_protocol::id::{Millis, OrgId, PublicKey};
use hie_protocol::message::Response;
use hie_protocol::oprf::key::KeyShare;
use hie_protocol::oprf::{BlindedElement, Evaluation, server};
use hie_protocol::refusal::Refusal;
use hie_protocol::vocabulary::Role;
use tracing::warn;

use crate::audit::event::{Actor, AuditEvent, Counterpart, EventKind};
use crate::audit::log::AuditLog;
use crate::ports::{Clock, Random};

/// Evaluations for the questions of one member in a day.
pub const QUESTION_EVALUATIONS_PER_DAY_MAX: u64 = 50_000;
/// Evaluations for the publications of one member in a day.
pub const PUBLISH_EVALUATIONS_PER_DAY_MAX: u64 = 5_000_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The share and its budgets.
pub struct Authority {
    share: KeyShare,
    epoch: u32,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Evaluations of the running day, for questions and for publications.
    used: Mutex<HashMap<(OrgId, bool), (u64, u64)>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authority(share {})", self.share.index())
    }
}

impl Authority {
    /// Holds the share of a key epoch.
    #[must_use]
    pub fn new(
        share: KeyShare,
        epoch: u32,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            share,
            epoch,
            audit,
            clock,
            random,
            used: Mutex::default(),
        }
    }

    /// Index of the share.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.share.index()
    }

    /// Evaluates for this node itself; none for another epoch or malformed points.
    #[must_use]
    pub fn evaluate_own(&self, epoch: u32, blinded: &[BlindedElement]) -> Option<Evaluation> {
        let mut fill = |out: &mut [u8]| {
            // A failed generator leaves zeros, and zeros are refused as no randomness.
            if self.random.fill(out).is_err() {
                out.fill(0);
            }
        };
        (epoch == self.epoch)
            .then(|| server::evaluate(&self.share, blinded, &mut fill).ok())
            .flatten()
    }

    /// Answers a member whose claim was taken. Blocks for one sync.
    #[must_use]
    pub fn serve(&self, claim: &Claim, epoch: u32, blinded: &[PublicKey]) -> Response {
        if epoch != self.epoch {
            return Response::Refused(Refusal::NotOffered);
        }
        let now = self.clock.now();
        if !self.spend(claim, blinded.len() as u64, now) {
            warn!(org = %claim.org, "the token budget of a member is used up");
            return Response::Refused(Refusal::Budget);
        }
        let elements: Vec<BlindedElement> = blinded.iter().map(|point| BlindedElement(*point.as_bytes())).collect();
        let Some(evaluation) = self.evaluate_own(epoch, &elements) else {
            return Response::Refused(Refusal::Malformed);
        };
        let mut event = AuditEvent::new(
            EventKind::TokensEvaluated,
            now,
            claim.correlation,
            Actor::of_claim(claim),
        );
        event.purpose = Some(claim.purpose);
        event.counterpart = Some(Counterpart {
            org: claim.org.clone(),
            entry: None,
        });
        event.detail = Some(format!("{} blinded tokens", blinded.len()));
        if let Err(error) = self.audit.append_one(event) {
            warn!(%error, "an evaluation cannot be recorded and is not answered");
            return Response::Refused(Refusal::Failed);
        }
        Response::Evaluated {
            index: self.share.index(),
            elements: evaluation.elements.iter().map(|point| PublicKey::new(*point)).collect(),
            proof: Bytes(evaluation.proof.to_vec()),
        }
    }

    /// Counts against the member's day; false when the day is used up.
    fn spend(&self, claim: &Claim, count: u64, now: Millis) -> bool {
        let publishing = claim.role == Role::System;
        let limit = if publishing {
            PUBLISH_EVALUATIONS_PER_DAY_MAX
        } else {
            QUESTION_EVALUATIONS_PER_DAY_MAX
        };
        let day = now.0 / DAY_MS;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, (of_day, _)| *of_day == day);
        let (_, spent) = used.entry((claim.org.clone(), publishing)).or_insert((day, 0));
        let after = spent.saturating_add(count);
        if after > limit {
            return false;
        }
        *spent = after;
        true
    }
}
