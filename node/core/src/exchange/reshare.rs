//! This node as a seat of a resharing: collects its parts from the dealers and keeps the new share.
//!
//! The new share stands beside the old one until the registry publishes the new authorities and ends the resharing.
//! A dealer whose part does not fit is named: in the audit log, in the watch, and to the region office.

use core::fmt;
use std::sync::Arc;

use hie_protocol::id::{Correlation, OrgId, PublicKey};
use hie_protocol::message::{Request, Response};
use hie_protocol::oprf::OprfError;
use hie_protocol::oprf::key::PublicShare;
use hie_protocol::oprf::reshare::{Accepted, Part, Plan, accept, deal, take};
use hie_protocol::refusal::Class;
use hie_protocol::registry::{Registry, Resharing, TokenAuthority};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::audit::event::{Actor, AuditEvent, Counterpart, EventKind, Outcome};
use crate::exchange::authority::{Parts, authorities};
use crate::exchange::keyring::{KeyringError, ShareName};
use crate::locator::driver::Wire;
use crate::ports::{blocking, random_bytes};

/// Why a seat has no new share yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReshareError {
    /// The plan or a share.
    #[error("the resharing of the token key cannot be carried out")]
    Function(#[from] OprfError),
    /// The keyring.
    #[error("the new share cannot be kept")]
    Keyring(#[from] KeyringError),
    /// A dealer did not answer.
    #[error("{0} has not dealt its part yet")]
    Silent(OrgId),
    /// A dealer lied.
    #[error("{0} dealt a part that does not fit its published share")]
    Lied(OrgId),
    /// A dealer is no authority of the registry.
    #[error("dealer {0} is no authority in the registry")]
    Unknown(u16),
}

impl ReshareError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Function(_) | Self::Keyring(_) => Class::Broken,
            Self::Silent(_) => Class::Unavailable,
            Self::Lied(_) | Self::Unknown(_) => Class::Misbehaved,
        }
    }
}

/// What a seat tells the region office about its new share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated {
    /// Generation of the resharing.
    pub generation: u32,
    /// Index of the new share.
    pub index: u16,
    /// Its public point.
    pub point: PublicKey,
    /// Digest of what each dealer committed to: an office that compares them finds who dealt two polynomials.
    pub commitments: Vec<(u16, [u8; 32])>,
}

/// Takes part in resharings.
pub struct Seat {
    parts: Parts,
    wire: Arc<dyn Wire>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Seat({:?})", self.parts.keyring)
    }
}

impl Seat {
    /// A seat over the parts of the authority.
    #[must_use]
    pub fn new(parts: Parts, wire: Arc<dyn Wire>) -> Self {
        Self { parts, wire }
    }

    /// Destroys shares that the registry names no more, and collects the share of a resharing that has a seat for
    /// this organisation. Answers what the office needs to know, as often as it is called. Errors: [`ReshareError`].
    pub async fn step(&self) -> Result<Option<Seated>, ReshareError> {
        let registry = Arc::clone(&self.parts.registry.borrow());
        self.forget(&registry).await?;
        let tokens = &registry.policy.tokens;
        let Some(resharing) = tokens.resharing.clone() else {
            return Ok(None);
        };
        let Some(seat) = resharing.seats.iter().find(|seat| seat.org == self.parts.me) else {
            return Ok(None);
        };
        let (epoch, index) = (tokens.epoch, seat.index);
        let published = tokens
            .authorities
            .iter()
            .any(|authority| authority.index == index && authority.org == self.parts.me);
        if published {
            return Ok(None);
        }
        let plan = Plan::new(epoch, &resharing)?;
        let mut dealt = Vec::new();
        for dealer in plan.dealers() {
            dealt.push(self.part(&registry, epoch, &resharing, *dealer, &plan, index).await?);
        }
        let commitments = dealt.iter().map(|(dealer, digest, _)| (*dealer, *digest)).collect();
        let accepted: Vec<Accepted> = dealt.into_iter().map(|(_, _, part)| part).collect();
        let share = take(&plan, index, &accepted)?;
        let point = PublicKey::new(*share.public().point());
        let name = ShareName {
            epoch,
            generation: resharing.generation,
            index,
        };
        if self.parts.keyring.share(name).is_none() {
            let keyring = Arc::clone(&self.parts.keyring);
            blocking(move || keyring.add(epoch, name.generation, share)).await?;
            info!(epoch, generation = name.generation, index, "new share of the token key");
        }
        Ok(Some(Seated {
            generation: resharing.generation,
            index,
            point,
            commitments,
        }))
    }

    /// Destroys shares without a place in the registry; none while a resharing is under way.
    async fn forget(&self, registry: &Arc<Registry>) -> Result<(), ReshareError> {
        if registry.policy.tokens.resharing.is_some() {
            return Ok(());
        }
        let (keyring, registry, me) = (
            Arc::clone(&self.parts.keyring),
            Arc::clone(registry),
            self.parts.me.clone(),
        );
        let tokens = &registry.policy.tokens;
        let newest = tokens
            .beside
            .as_ref()
            .map_or(tokens.epoch, |beside| beside.epoch.max(tokens.epoch));
        let gone = blocking(move || {
            keyring.retain(|name, point| {
                // A share of a key that this registry does not know yet waits for the registry that does.
                let published = authorities(&registry, name.epoch).is_some_and(|(_, authorities)| {
                    authorities
                        .iter()
                        .any(|entry| entry.org == me && entry.index == name.index && entry.point == *point)
                });
                published || name.epoch > newest
            })
        })
        .await?;
        if gone > 0 {
            info!(gone, "old shares of the token key destroyed");
        }
        Ok(())
    }

    /// One dealer's part, checked.
    async fn part(
        &self,
        registry: &Registry,
        epoch: u32,
        resharing: &Resharing,
        dealer: u16,
        plan: &Plan,
        seat: u16,
    ) -> Result<(u16, [u8; 32], Accepted), ReshareError> {
        let entry = registry
            .policy
            .tokens
            .authorities
            .iter()
            .find(|authority| authority.index == dealer)
            .ok_or(ReshareError::Unknown(dealer))?;
        let part = if entry.org == self.parts.me {
            let share = self.parts.keyring.find(epoch, dealer, &entry.point);
            let share = share.ok_or_else(|| ReshareError::Silent(entry.org.clone()))?;
            deal(plan, &share, seat)?
        } else {
            self.asked(entry, epoch, resharing.generation).await?
        };
        let public = PublicShare::new(dealer, entry.point.as_bytes())?;
        match accept(plan, seat, &public, &part) {
            Ok(accepted) => {
                let mut digest = Sha256::new();
                for point in &part.commitments {
                    digest.update(point);
                }
                Ok((dealer, digest.finalize().into(), accepted))
            }
            Err(error) => {
                self.name_liar(&entry.org, &error).await;
                Err(ReshareError::Lied(entry.org.clone()))
            }
        }
    }

    async fn asked(&self, entry: &TokenAuthority, epoch: u32, generation: u32) -> Result<Part, ReshareError> {
        let request = Request::Reshare { epoch, generation };
        match self.wire.send(entry.org.clone(), request).await {
            Ok(Response::Reshared { commitments, share }) => {
                let value = share.0.as_slice().try_into();
                let value = value.map_err(|_| ReshareError::Lied(entry.org.clone()))?;
                Ok(Part {
                    commitments: commitments.iter().map(|point| *point.as_bytes()).collect(),
                    value,
                })
            }
            _ => Err(ReshareError::Silent(entry.org.clone())),
        }
    }

    async fn name_liar(&self, org: &OrgId, error: &OprfError) {
        warn!(%org, %error, "a dealer of the token key lied");
        let now = self.parts.clock.now();
        if !self.parts.watch.misbehaved(org, &error.to_string(), now) {
            return;
        }
        let Ok(correlation) = random_bytes(&*self.parts.random) else {
            return;
        };
        let actor = Actor::system(self.parts.me.clone(), "token authority");
        let mut event = AuditEvent::new(EventKind::PeerMisbehaved, now, Correlation::new(correlation), actor);
        event.outcome = Outcome::Failed;
        event.counterpart = Some(Counterpart {
            org: org.clone(),
            entry: None,
        });
        event.detail = Some(error.to_string());
        let audit = Arc::clone(&self.parts.audit);
        if let Err(error) = blocking(move || audit.append_one(event)).await {
            warn!(%error, "a lying dealer cannot be recorded");
        }
    }
}
