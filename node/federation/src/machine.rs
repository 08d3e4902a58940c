//! The machine: one state, one `step`, the roles in their own modules.

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::id::{Millis, OrgId};
use hie_protocol::message::IndexMessage;
use hie_protocol::record::{RecordError, SignedRecord, VerifiedRecord};
use hie_protocol::registry::{Registry, Standing};
use hie_protocol::sign::SignError;

use crate::asker::Asker;
use crate::beat::Beats;
use crate::config::{CHORE_PERIOD_MS, Config, Planted, VERIFIED_RECORDS_MAX};
use crate::holder::Shown;
use crate::membership::Membership;
use crate::owner::Owner;
use crate::port::{Effect, Input};
use crate::table::{After, Kept, Ledger};

/// The federated index of one node: outbox, held part and questions.
#[derive(Debug)]
pub struct Federation {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) members: Membership,
    pub(crate) ledger: Ledger,
    pub(crate) owner: Owner,
    pub(crate) asker: Asker,
    pub(crate) beats: Beats,
    pub(crate) cut: BTreeSet<OrgId>,
    /// Records verified under the registry in force: copies of other holders cost no signature check.
    verified: BTreeMap<SignedRecord, VerifiedRecord>,
    clocks: Clocks,
    next_question: u64,
    next_chore: Option<Millis>,
    wake: Option<Millis>,
}

/// One call of `step`: its time, its view of the disk, its effects.
pub(crate) struct Turn<'a> {
    /// The calendar time of the shell: it may step.
    pub(crate) now: Millis,
    /// Time since the start of the machine: never less than has passed, save one chore's period.
    pub(crate) mono: Millis,
    /// Time since the start of the machine: never more than has passed.
    pub(crate) slow: Millis,
    pub(crate) kept: &'a dyn Kept,
    pub(crate) effects: Vec<Effect>,
}

/// Two clocks made of calendar readings: a reading that goes back moves neither back, one that leaps ahead moves
/// only the first.
#[derive(Debug)]
struct Clocks {
    last: Option<Millis>,
    mono: Millis,
    slow: Millis,
}

/// Where the clocks of a machine start: later than anything of an earlier life.
pub(crate) const CLOCKS_START: Millis = Millis(1_000_000_000);

impl Default for Clocks {
    fn default() -> Self {
        Self {
            last: None,
            mono: CLOCKS_START,
            slow: CLOCKS_START,
        }
    }
}

impl Clocks {
    fn advance(&mut self, now: Millis) -> (Millis, Millis) {
        if let Some(last) = self.last {
            if now < last {
                // How much has passed is not known, but a chore is due each period.
                self.mono = self.mono.plus(CHORE_PERIOD_MS);
            } else {
                self.mono = self.mono.plus(now.since(last));
                self.slow = self.slow.plus(now.since(last).min(CHORE_PERIOD_MS));
            }
        }
        self.last = Some(now);
        (self.mono, self.slow)
    }
}

impl Turn<'_> {
    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, to: &OrgId, message: IndexMessage) {
        self.effects.push(Effect::Send {
            to: to.clone(),
            message,
        });
    }
}

impl Federation {
    /// Starts from what was kept, empty or not. Call `step` with `Tick` next: it carries out what the
    /// restart requires (a registry newer than the one kept, an outbox to deliver).
    #[must_use]
    pub fn restore(config: Config, registry: Registry, kept: &dyn Kept) -> Self {
        let members = Membership::restore(kept);
        let owner = Owner::restore(&config, &registry, kept);
        let next_question = config.first_question;
        Self {
            config,
            registry,
            members,
            ledger: Ledger::default(),
            owner,
            asker: Asker::default(),
            beats: Beats::restore(kept),
            cut: BTreeSet::new(),
            verified: BTreeMap::new(),
            clocks: Clocks::default(),
            next_question,
            next_chore: None,
            wake: None,
        }
    }

    /// Takes one input at local time `now` and says what must be done, in order.
    #[must_use]
    pub fn step(&mut self, now: Millis, input: Input, kept: &dyn Kept) -> Vec<Effect> {
        let (mono, slow) = self.clocks.advance(now);
        let mut turn = Turn {
            now,
            mono,
            slow,
            kept,
            effects: Vec::new(),
        };
        if self.members.version() < self.registry.version {
            // The version kept was an earlier one: who returned since then is not known here.
            self.take_registry(&mut turn, true);
        }
        match input {
            Input::Tick => {}
            Input::Publish { id, records } => self.publish(&mut turn, id, &records),
            Input::Renewed { records } => self.renewed(&mut turn, &records),
            Input::Ask { id, keys, deadline } => self.ask(&mut turn, id, keys, deadline),
            Input::Received { from, message } => self.receive(&mut turn, &from, message),
            Input::Persisted(id) => {
                for after in self.ledger.persisted(id) {
                    self.perform(&mut turn, after);
                }
            }
            Input::Registry(registry) => {
                if registry.version > self.registry.version {
                    let returned = returns(&self.registry, &registry);
                    self.registry = *registry;
                    self.take_registry(&mut turn, returned);
                }
            }
            Input::Link { org, up } => self.link(&mut turn, org, up),
            Input::Speaks { org, version } => self.greet(&mut turn, org, version),
            Input::Abandon(id) => self.abandon(id),
        }
        if self
            .next_chore
            .is_none_or(|due| due <= now || due.since(now) > CHORE_PERIOD_MS)
        {
            self.next_chore = Some(now.plus(CHORE_PERIOD_MS));
            self.members.review(&self.registry, now, &mut self.ledger);
            self.purge(&mut turn);
            self.own_chores(&mut turn);
        }
        self.pump_lanes(&mut turn);
        self.pump_beats(&mut turn);
        self.pump_questions(&mut turn);
        self.finish(turn)
    }

    /// The machine's clock.
    pub(crate) const fn mono(&self) -> Millis {
        self.clocks.mono
    }

    /// The machine's slow clock.
    pub(crate) const fn slow(&self) -> Millis {
        self.clocks.slow
    }

    /// For how long the machine runs, in milliseconds.
    pub(crate) const fn uptime_ms(&self) -> u64 {
        self.clocks.mono.since(CLOCKS_START)
    }

    /// The version of the registry in force.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    fn finish(&mut self, mut turn: Turn<'_>) -> Vec<Effect> {
        if let Some(persist) = self.ledger.close() {
            turn.effects.insert(0, persist);
        }
        let timers = [
            self.next_chore,
            self.owner.next_timer(),
            self.asker.next_timer(turn.now, turn.mono),
            self.beats.next_timer(),
        ];
        if let Some(next) = timers.into_iter().flatten().min() {
            let next = next.max(turn.now.plus(1));
            if self.wake != Some(next) {
                self.wake = Some(next);
                turn.emit(Effect::WakeAt(next));
            }
        }
        turn.effects
    }

    fn take_registry(&mut self, turn: &mut Turn<'_>, returned: bool) {
        self.verified.clear();
        let returned = returned && !self.config.has(Planted::ReturnIgnored);
        self.members.take(&self.registry, returned, turn.now, &mut self.ledger);
        self.next_chore = None;
        self.owner_registry_changed(turn);
    }

    fn link(&mut self, turn: &mut Turn<'_>, org: OrgId, up: bool) {
        if up {
            self.cut.remove(&org);
            self.owner.hurry(&org, turn.now);
            self.asker.hurry(&org, turn.mono);
        } else if !self.config.has(Planted::LinkDownIgnored) {
            self.cut.insert(org);
        }
    }

    fn receive(&mut self, turn: &mut Turn<'_>, from: &OrgId, message: IndexMessage) {
        let active = self
            .registry
            .member(from)
            .is_some_and(|member| member.standing == Standing::Active);
        if (!active && !self.config.has(Planted::RemovedServed)) || *from == self.config.me {
            return;
        }
        match message {
            IndexMessage::Store { id, records } => self.store(turn, from, id, &records),
            IndexMessage::Stored { id, outcomes } => {
                self.handed_over(from, id, &outcomes);
                self.stored(turn, from, id, &outcomes);
            }
            IndexMessage::Lookup { id, keys, after } => {
                let Shown { records, whole, next } = self.look_up(turn, &keys, after.as_ref(), from);
                turn.send(
                    from,
                    IndexMessage::Found {
                        id,
                        records,
                        whole,
                        next,
                    },
                );
            }
            IndexMessage::Found {
                id,
                records,
                whole,
                next,
            } => self.found(turn, from, id, Shown { records, whole, next }),
            message @ IndexMessage::Beat { .. } => self.hear_beat(turn, from, message),
            // Repair rests on the owner: a member may leave these unanswered (SPEC Part I, between members of version 2).
            IndexMessage::Compare { .. }
            | IndexMessage::Compared { .. }
            | IndexMessage::Digest { .. }
            | IndexMessage::Pull { .. }
            | IndexMessage::Pulled { .. } => {}
        }
    }

    fn perform(&mut self, turn: &mut Turn<'_>, after: After) {
        match after {
            After::Emit(effect) => turn.emit(*effect),
            After::Publish(records) => self.dispatch(turn, records),
        }
    }

    /// Runs `after` once everything written so far is durable.
    pub(crate) fn after_sync(&mut self, turn: &mut Turn<'_>, after: After) {
        if let Some(now) = self.ledger.defer(after) {
            self.perform(turn, now);
        }
    }

    /// The next question id, not yet given out.
    pub(crate) const fn peek_question(&self) -> u64 {
        self.next_question
    }

    /// A question id that no earlier question had.
    pub(crate) const fn question(&mut self) -> u64 {
        let id = self.next_question;
        self.next_question = self.next_question.wrapping_add(1);
        id
    }

    /// Verifies a record that came over the wire.
    pub(crate) fn verify(&mut self, signed: &SignedRecord) -> Result<VerifiedRecord, RecordError> {
        if let Some(known) = self.verified.get(signed) {
            return Ok(known.clone());
        }
        let verified = match VerifiedRecord::verify(signed, &self.registry) {
            Err(RecordError::NotOwner { signer, owner }) if self.config.has(Planted::ForgedOwnerAccepted) => {
                VerifiedRecord::verify(signed, &confused(&self.registry, &signer, &owner))
            }
            Err(RecordError::Signed(SignError::Signature)) if self.config.has(Planted::WrongKeyAccepted) => {
                let mut members = self.registry.members.iter();
                let other = members.find_map(|member| {
                    let keys = exchanged(&self.registry, &member.org)?;
                    VerifiedRecord::verify(signed, &keys).ok()
                });
                other.ok_or(RecordError::Signed(SignError::Signature))
            }
            verdict => verdict,
        }?;
        if self.verified.len() >= VERIFIED_RECORDS_MAX {
            self.verified.clear();
        }
        self.verified.insert(signed.clone(), verified.clone());
        Ok(verified)
    }
}

/// Whether somebody takes part in `next` who was known, and out, in `last`.
fn returns(last: &Registry, next: &Registry) -> bool {
    let out = |org: &OrgId| {
        last.member(org)
            .is_some_and(|member| member.standing != Standing::Active)
    };
    next.active().any(|member| out(&member.org))
}

/// The planted confusion of who owns a key: the signer's nodes are taken for the owner's.
fn confused(registry: &Registry, signer: &OrgId, owner: &OrgId) -> Registry {
    let mut registry = registry.clone();
    let nodes = registry
        .member(signer)
        .map(|member| member.nodes.clone())
        .unwrap_or_default();
    for member in &mut registry.members {
        if member.org == *signer {
            member.nodes.clear();
        } else if member.org == *owner {
            member.nodes.extend(nodes.iter().cloned());
        }
    }
    registry
}

/// The planted disregard of keys: every node counts as the holder of one member's key.
fn exchanged(registry: &Registry, org: &OrgId) -> Option<Registry> {
    let public = registry.member(org)?.nodes.first()?.public;
    let mut registry = registry.clone();
    let nodes = registry.members.iter_mut().flat_map(|member| &mut member.nodes);
    nodes.for_each(|node| node.public = public);
    Some(registry)
}

#[cfg(test)]
mod tests;
