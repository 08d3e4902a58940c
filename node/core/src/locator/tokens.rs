//! Token outputs: blind, ask the authorities, verify each proof, combine, unblind.
//!
//! An authority sees blinded points and a signed claim, nothing else. As many authorities as the registry's
//! threshold must answer; an answer counts only after its proof held against the share the registry names. An
//! authority whose own answer proves it wrong is named in the audit log and the watch, and the others complete the
//! question (SPEC X-LIAR). A question asks all of them at once and takes the first valid answers; a publication asks
//! as many as are needed, another for each that fails, so that no authority works in vain for a million patients.

use core::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{OrgId, PublicKey};
use hie_protocol::message::{EVALUATE_BATCH_V1_MAX, Request, Response};
use hie_protocol::oprf::client::{Blinding, Verified, combine};
use hie_protocol::oprf::key::PublicShare;
use hie_protocol::oprf::{BlindedElement, EVALUATE_BATCH_MAX, Evaluation, OprfError, QUESTION_BATCH_MAX};
use hie_protocol::refusal::{Class, Refusal};
use hie_protocol::registry::{Registry, TokenAuthority as AuthorityEntry};
use hie_protocol::vocabulary::{Purpose, Role};
use tokio::sync::watch;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::audit::AuditError;
use crate::audit::event::{Actor, AuditEvent, Counterpart, EventKind, Outcome};
use crate::audit::log::AuditLog;
use crate::exchange::authority::{Authority, authorities};
use crate::exchange::claim::{Asking, ClaimMaker, MakeError};
use crate::exchange::watch::Watch;
use crate::locator::driver::{Wire, WireFailure};
use crate::ports::{Clock, Random, blocking};

/// Batches of one publication under way at a time: enough to keep every core and the wire busy.
pub const BATCHES_AHEAD: usize = 4;

/// The registry in force, as it changes.
pub type RegistryView = watch::Receiver<Arc<Registry>>;

/// One output of the oblivious function.
pub type Output = Zeroizing<[u8; 64]>;

/// Why there are no outputs.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Fewer authorities answered than are needed.
    #[error("{answered} of {needed} token authorities answered (silent: {})", names(.silent))]
    TooFew {
        /// Answers whose proof held.
        answered: usize,
        /// Threshold.
        needed: u16,
        /// Who did not answer.
        silent: Vec<OrgId>,
    },
    /// The function itself.
    #[error("a token cannot be evaluated")]
    Function(#[from] OprfError),
    /// The claim cannot be made.
    #[error("no claim can be made for a token authority")]
    Claim(#[from] MakeError),
    /// The registry has no such key.
    #[error("the registry has no token key of epoch {0}")]
    Epoch(u32),
    /// The audit log does not take the evaluation.
    #[error("an evaluation cannot be recorded")]
    Audit(#[from] AuditError),
}

fn names(orgs: &[OrgId]) -> String {
    orgs.iter().map(OrgId::as_str).collect::<Vec<_>>().join(", ")
}

impl TokenError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::TooFew { .. } | Self::Epoch(_) => Class::Unavailable,
            Self::Audit(error) => error.class(),
            Self::Function(_) | Self::Claim(_) => Class::Broken,
        }
    }

    /// The authorities that did not answer.
    #[must_use]
    pub fn silent(&self) -> &[OrgId] {
        match self {
            Self::TooFew { silent, .. } => silent,
            Self::Function(_) | Self::Claim(_) | Self::Epoch(_) | Self::Audit(_) => &[],
        }
    }
}

/// Evaluates token inputs.
pub trait TokenAuthority: Send + Sync + 'static {
    /// The outputs under the key of `epoch` in the order of the inputs. Errors: [`TokenError`].
    fn evaluate<'a>(
        &'a self,
        asking: &'a Asking,
        epoch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>>;
}

/// What asking the authorities works with.
#[derive(Clone)]
pub struct TokenParts {
    /// This organisation.
    pub me: OrgId,
    /// Requests.
    pub wire: Arc<dyn Wire>,
    /// Registry.
    pub registry: RegistryView,
    /// Claims.
    pub claims: ClaimMaker,
    /// This node's own shares.
    pub own: Option<Arc<Authority>>,
    /// Audit log.
    pub audit: Arc<AuditLog>,
    /// Who lied.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Blinds.
    pub random: Arc<dyn Random>,
}

/// The authorities of the registry over the wire, and this node's own share when it holds one.
pub struct WireTokens {
    parts: TokenParts,
}

impl fmt::Debug for WireTokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WireTokens")
    }
}

/// What one authority gave.
enum Answer {
    Evaluated(Evaluation),
    /// Nothing that counts, for an honest reason.
    Silent,
    /// Bytes that no honest authority sends.
    Unreadable,
}

/// One batch on its way.
struct Question<'a> {
    asking: &'a Asking,
    registry: Arc<Registry>,
    epoch: u32,
    blinding: Arc<Blinding>,
    blinded: Vec<BlindedElement>,
}

/// Whether the node asks for its own publication.
fn is_publication(asking: &Asking) -> bool {
    asking.role == Role::System && asking.purpose == Purpose::Operations && asking.user.is_empty()
}

impl WireTokens {
    /// Authorities over the wire.
    #[must_use]
    pub const fn new(parts: TokenParts) -> Self {
        Self { parts }
    }

    /// A batch, in pieces when too few authorities take it whole: those that speak version 1 take small ones alone.
    async fn large(&self, asking: &Asking, epoch: u32, inputs: Vec<Vec<u8>>) -> Result<Vec<Output>, TokenError> {
        if inputs.len() <= EVALUATE_BATCH_V1_MAX {
            return self.batch(asking, epoch, inputs).await;
        }
        match self.batch(asking, epoch, inputs.clone()).await {
            Err(TokenError::TooFew { .. }) => {}
            other => return other,
        }
        let mut outputs = Vec::with_capacity(inputs.len());
        for piece in inputs.chunks(EVALUATE_BATCH_V1_MAX) {
            outputs.extend(self.batch(asking, epoch, piece.to_vec()).await?);
        }
        Ok(outputs)
    }

    async fn batch(&self, asking: &Asking, epoch: u32, inputs: Vec<Vec<u8>>) -> Result<Vec<Output>, TokenError> {
        let registry = Arc::clone(&self.parts.registry.borrow());
        let (needed, entries) = authorities(&registry, epoch).ok_or(TokenError::Epoch(epoch))?;
        let order = self.order(entries);
        let (count, random) = (inputs.len(), Arc::clone(&self.parts.random));
        let (blinding, blinded) = blocking(move || blind(&inputs, &*random)).await?;
        let question = Question {
            asking,
            registry,
            epoch,
            blinding: Arc::new(blinding),
            blinded,
        };
        let publication = is_publication(asking);
        let mut rest = order.into_iter();
        let at_once = if publication { usize::from(needed) } else { rest.len() };
        let mut waiting: FuturesUnordered<_> = rest
            .by_ref()
            .take(at_once)
            .map(|entry| self.one(&question, entry))
            .collect();
        let mut verified: Vec<Verified> = Vec::new();
        let mut silent = Vec::new();
        while let Some((org, answer)) = waiting.next().await {
            match answer? {
                Some(answer) => verified.push(answer),
                None => {
                    silent.push(org);
                    waiting.extend(rest.next().map(|entry| self.one(&question, entry)));
                }
            }
            if verified.len() >= usize::from(needed) {
                drop(waiting);
                if publication {
                    self.record(asking, count, epoch).await?;
                }
                let blinding = Arc::clone(&question.blinding);
                let outputs = blocking(move || {
                    let combined = combine(needed, &verified)?;
                    blinding.finalize(&combined)
                });
                return Ok(outputs.await?);
            }
        }
        silent.sort();
        Err(TokenError::TooFew {
            answered: verified.len(),
            needed,
            silent,
        })
    }

    /// The authorities in the order in which they are asked: the own one first, those that failed just now last, the
    /// others from a random place on, so that their work is shared evenly.
    fn order(&self, entries: &[AuthorityEntry]) -> Vec<AuthorityEntry> {
        let now = self.parts.clock.now();
        let mut order = entries.to_vec();
        let mut turn = [0_u8; 1];
        if !order.is_empty() && self.parts.random.fill(&mut turn).is_ok() {
            let places = order.len();
            order.rotate_left(usize::from(turn[0]) % places);
        }
        order.sort_by_key(|entry| {
            let failing = self.parts.watch.is_failing(&entry.org, now);
            (failing, entry.org != self.parts.me)
        });
        order
    }

    async fn one(
        &self,
        question: &Question<'_>,
        entry: AuthorityEntry,
    ) -> (OrgId, Result<Option<Verified>, TokenError>) {
        let org = entry.org.clone();
        let answer = match self.ask(question, &entry).await {
            Err(error) => Err(error),
            Ok(Answer::Silent) => {
                self.parts.watch.failed(&org, self.parts.clock.now());
                Ok(None)
            }
            Ok(Answer::Unreadable) => {
                self.name_liar(question.asking, &org, "its answer cannot be read").await;
                Ok(None)
            }
            Ok(Answer::Evaluated(evaluation)) => self.verify(question, &entry, evaluation).await,
        };
        (org, answer)
    }

    async fn verify(
        &self,
        question: &Question<'_>,
        entry: &AuthorityEntry,
        evaluation: Evaluation,
    ) -> Result<Option<Verified>, TokenError> {
        let share = PublicShare::new(entry.index, entry.point.as_bytes())?;
        let blinding = Arc::clone(&question.blinding);
        match blocking(move || blinding.verify(&share, &evaluation)).await {
            Ok(verified) => {
                self.parts.watch.answered(&entry.org);
                Ok(Some(verified))
            }
            Err(error) => {
                self.name_liar(question.asking, &entry.org, &error.to_string()).await;
                Ok(None)
            }
        }
    }

    async fn ask(&self, question: &Question<'_>, entry: &AuthorityEntry) -> Result<Answer, TokenError> {
        let own = self.parts.own.as_ref().filter(|_| entry.org == self.parts.me);
        if let Some(own) = own {
            let (own, epoch, entry) = (Arc::clone(own), question.epoch, entry.clone());
            let blinded = question.blinded.clone();
            let evaluated = blocking(move || own.evaluate_own(epoch, &entry, &blinded)).await;
            return Ok(evaluated.map_or(Answer::Silent, Answer::Evaluated));
        }
        let tokens = &question.registry.policy.tokens;
        let two_sharings = tokens.resharing.is_some() && tokens.epoch == question.epoch;
        let claim = self.parts.claims.make(question.asking, &entry.org)?;
        let request = Request::Evaluate {
            claim: Bytes(claim),
            epoch: question.epoch,
            blinded: question
                .blinded
                .iter()
                .map(|element| PublicKey::new(element.0))
                .collect(),
            share: two_sharings.then_some(entry.index),
        };
        match self.parts.wire.send(entry.org.clone(), request).await {
            // Another share than the one asked for: one of the two registries is older.
            Ok(Response::Evaluated { index, .. }) if index != entry.index => Ok(Answer::Silent),
            Ok(Response::Evaluated { elements, proof, .. }) => {
                let Ok(proof) = proof.0.as_slice().try_into() else {
                    return Ok(Answer::Unreadable);
                };
                Ok(Answer::Evaluated(Evaluation {
                    elements: elements.iter().map(|element| *element.as_bytes()).collect(),
                    proof,
                }))
            }
            Ok(Response::Refused(Refusal::Budget)) => {
                warn!(org = %entry.org, "the token budget of this organisation is used up");
                Ok(Answer::Silent)
            }
            Ok(Response::Refused(refusal)) => {
                debug!(org = %entry.org, %refusal, "a token authority refuses");
                Ok(Answer::Silent)
            }
            Ok(_) | Err(WireFailure::Misbehaved) => Ok(Answer::Unreadable),
            Err(WireFailure::Unreachable | WireFailure::TimedOut) => Ok(Answer::Silent),
        }
    }

    /// Names an authority whose answer proves it wrong: log, watch, audit log.
    async fn name_liar(&self, asking: &Asking, org: &OrgId, why: &str) {
        warn!(%org, %why, "a token authority misbehaves");
        let now = self.parts.clock.now();
        if !self.parts.watch.misbehaved(org, why, now) {
            return;
        }
        let actor = Actor::system(self.parts.me.clone(), "match tokens");
        let mut event = AuditEvent::new(EventKind::PeerMisbehaved, now, asking.correlation, actor);
        event.outcome = Outcome::Failed;
        event.counterpart = Some(Counterpart {
            org: org.clone(),
            entry: None,
        });
        event.detail = Some(why.to_owned());
        let audit = Arc::clone(&self.parts.audit);
        if let Err(error) = blocking(move || audit.append_one(event)).await {
            warn!(%error, "a lying token authority cannot be recorded");
        }
    }

    /// One entry for a batch of a publication; a question stands in the log before it is asked.
    async fn record(&self, asking: &Asking, count: usize, epoch: u32) -> Result<(), TokenError> {
        let now = self.parts.clock.now();
        let actor = Actor::system(self.parts.me.clone(), "publication");
        let mut event = AuditEvent::new(EventKind::TokensEvaluated, now, asking.correlation, actor);
        event.purpose = Some(asking.purpose);
        event.detail = Some(format!("{count} tokens of epoch {epoch} for publication"));
        let audit = Arc::clone(&self.parts.audit);
        let _receipt = blocking(move || audit.append_one(event)).await?;
        Ok(())
    }
}

fn blind(inputs: &[Vec<u8>], random: &dyn Random) -> Result<(Blinding, Vec<BlindedElement>), OprfError> {
    let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut fill = |out: &mut [u8]| {
        // A failed generator leaves zeros, and zeros are refused as no randomness.
        if random.fill(out).is_err() {
            out.fill(0);
        }
    };
    Blinding::new(&slices, &mut fill)
}

impl TokenAuthority for WireTokens {
    fn evaluate<'a>(
        &'a self,
        asking: &'a Asking,
        epoch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>> {
        Box::pin(async move {
            let size = if is_publication(asking) {
                EVALUATE_BATCH_MAX
            } else {
                QUESTION_BATCH_MAX
            };
            let batches: Vec<Vec<Vec<u8>>> = inputs.chunks(size).map(<[_]>::to_vec).collect();
            let outputs: Vec<Vec<Output>> = stream::iter(batches)
                .map(|batch| self.large(asking, epoch, batch))
                .buffered(BATCHES_AHEAD)
                .try_collect()
                .await?;
            Ok(outputs.into_iter().flatten().collect())
        })
    }
}
