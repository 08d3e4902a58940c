//! The shell of the federated index: carries out what the machine says, and feeds back what happened.
//!
//! The driver runs on a thread of its own and blocks for its syncs; everything that came in meanwhile shares
//! the next one. Datagrams leave through the [`Wire`] port as tasks of the runtime; losing one is allowed.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hie_node_federation::config::Config;
use hie_node_federation::machine::Federation;
use hie_node_federation::owner::renewal;
use hie_node_federation::owner::visible::Visibility;
use hie_node_federation::port::{AskId, Effect, Input, Misbehaviour, Outcome, PersistId, PublishId, RequestId};
use hie_node_federation::table::Change;
use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::message::{IndexMessage, Request, Response};
use hie_protocol::record::{IndexRecord, VerifiedRecord};
use hie_protocol::refusal::Class;
use hie_protocol::registry::Registry;
use hie_protocol::version::ProtocolVersion;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::kv::{Kv, KvError};
use crate::locator::kept::KvKept;
use crate::locator::sequence::Sequencer;
use crate::ports::{Clock, NoRandomness, NodeSigner, Random, random_bytes};

/// Inputs that wait at most.
pub const QUEUE_MAX: usize = 8192;
/// Inputs taken between two syncs.
pub const INPUTS_PER_SYNC_MAX: usize = 512;
/// How long a caller waits for its publish; the outbox delivers it all the same. Longer than it takes until the region
/// knows that a holder is behind.
pub const PUBLISH_WAIT_MS_MAX: u64 = 90_000;
/// Longest wait without a look at the clock, in milliseconds.
pub const WAIT_MS_MAX: u64 = 250;

/// Why a message did not get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireFailure {
    /// There is no channel to the organisation, and none could be opened.
    #[error("not reachable")]
    Unreachable,
    /// No answer came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer broke the protocol.
    #[error("the answer broke the protocol")]
    Misbehaved,
}

impl WireFailure {
    /// Who must act.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Unreachable | Self::TimedOut => Class::Unavailable,
            Self::Misbehaved => Class::Misbehaved,
        }
    }
}

/// Messages to other organisations over their authenticated channels.
pub trait Wire: Send + Sync + 'static {
    /// Sends a request to an organisation and waits for its response.
    fn send(&self, org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>>;
}

/// Why the index does not take or answer something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Too much waits, or the machine declined.
    #[error("the index takes no more now: {0}; try again later")]
    Busy(String),
    /// The holders have not confirmed a publish in time.
    #[error(
        "the holders have not confirmed the records yet; they stay in the outbox and are delivered as soon as possible"
    )]
    Late,
    /// The driver has stopped.
    #[error("the index has stopped")]
    Stopped,
    /// The store: the program must stop.
    #[error("the index cannot be read or written")]
    Store(#[from] KvError),
    /// No random bytes.
    #[error("the index cannot start")]
    Random(#[from] NoRandomness),
}

impl IndexError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Busy(_) | Self::Late => Class::Unavailable,
            Self::Stopped | Self::Random(_) => Class::Broken,
            Self::Store(error) => error.class(),
        }
    }
}

/// Takes what is gathered for a question before its answer.
pub type Hints = mpsc::Sender<Vec<VerifiedRecord>>;

enum Command {
    Publish(Vec<VerifiedRecord>, oneshot::Sender<Result<(), IndexError>>),
    Lookup(
        Vec<IndexKey>,
        Millis,
        oneshot::Sender<Result<Outcome, IndexError>>,
        Option<Hints>,
    ),
    Input(Box<Input>),
    Visibility(oneshot::Sender<Visibility>),
    Passed(oneshot::Sender<()>),
    Stop,
}

/// How everybody else talks to the driver.
#[derive(Clone)]
pub struct IndexHandle(SyncSender<Command>);

impl fmt::Debug for IndexHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("IndexHandle")
    }
}

impl IndexHandle {
    fn put(&self, command: Command) -> Result<(), IndexError> {
        self.0.try_send(command).map_err(|failed| match failed {
            TrySendError::Full(_) => IndexError::Busy("its queue is full".to_owned()),
            TrySendError::Disconnected(_) => IndexError::Stopped,
        })
    }

    /// Publishes own records; resolves when a write quorum has synced all of them, and every other holder too or the
    /// region knows that it is behind. Errors: [`IndexError`]; [`IndexError::Late`] after [`PUBLISH_WAIT_MS_MAX`].
    pub async fn publish(&self, records: Vec<VerifiedRecord>) -> Result<(), IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Publish(records, done))?;
        wait.await.map_err(|_| IndexError::Stopped)?
    }

    /// Everything under some keys, by `deadline` at the latest. Errors: [`IndexError`].
    pub async fn lookup(&self, keys: Vec<IndexKey>, deadline: Millis) -> Result<Outcome, IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Lookup(keys, deadline, done, None))?;
        wait.await.map_err(|_| IndexError::Stopped)?
    }

    /// As [`Self::lookup`]; what is gathered on the way goes to `hints`, each time all of it. Errors: [`IndexError`].
    pub async fn lookup_hinted(
        &self,
        keys: Vec<IndexKey>,
        deadline: Millis,
        hints: Hints,
    ) -> Result<Outcome, IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Lookup(keys, deadline, done, Some(hints)))?;
        wait.await.map_err(|_| IndexError::Stopped)?
    }

    /// A datagram came from a member. Errors: [`IndexError::Busy`] (the datagram is lost), [`IndexError::Stopped`].
    pub fn received(&self, from: OrgId, message: IndexMessage) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Received { from, message })))
    }

    /// Resolves when the driver has come past everything that was put before. Errors: as [`Self::received`].
    pub async fn passed(&self) -> Result<(), IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Passed(done))?;
        wait.await.map_err(|_| IndexError::Stopped)
    }

    /// A newer registry is in force, verified and durable. Errors: as [`Self::received`].
    pub fn registry(&self, registry: Registry) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Registry(Box::new(registry)))))
    }

    /// A channel to a member opened or closed. Errors: as [`Self::received`].
    pub fn link(&self, org: OrgId, up: bool) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Link { org, up })))
    }

    /// How fast own records become visible at all their replicas. Errors: [`IndexError`].
    pub async fn visibility(&self) -> Result<Visibility, IndexError> {
        let (reply, wait) = oneshot::channel();
        self.put(Command::Visibility(reply))?;
        wait.await.map_err(|_| IndexError::Stopped)
    }

    /// A member speaks this version with us. Errors: as [`Self::received`].
    pub fn speaks(&self, org: OrgId, version: ProtocolVersion) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Speaks { org, version })))
    }

    /// Ends the driver behind everything that waits. Errors: as [`Self::received`].
    pub fn stop(&self) -> Result<(), IndexError> {
        self.put(Command::Stop)
    }
}

/// Takes the name of a member that broke the protocol of the index, and what it did.
pub type Notice = Arc<dyn Fn(&OrgId, &Misbehaviour) + Send + Sync>;

/// What the driver works with.
pub struct Parts {
    /// This organisation.
    pub me: OrgId,
    /// The registry in force.
    pub registry: Registry,
    /// Store.
    pub kv: Arc<dyn Kv>,
    /// Signs renewals.
    pub signer: Arc<dyn NodeSigner>,
    /// Sequences.
    pub sequencer: Arc<Sequencer>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Other organisations.
    pub wire: Arc<dyn Wire>,
    /// Where sends run.
    pub runtime: Handle,
    /// Told of members that break the protocol of the index.
    pub notice: Notice,
}

/// Who waits for a publish, and until when.
struct Waiting {
    done: oneshot::Sender<Result<(), IndexError>>,
    until: Instant,
}

/// The driver: call [`Driver::run`] on a thread of its own.
pub struct Driver {
    machine: Federation,
    kept: KvKept,
    parts: Parts,
    commands: Receiver<Command>,
    publishes: BTreeMap<PublishId, Waiting>,
    asks: BTreeMap<AskId, oneshot::Sender<Result<Outcome, IndexError>>>,
    /// Who takes hints, and how many records were gathered when they were last sent.
    hints: BTreeMap<AskId, (Hints, usize)>,
    next: u64,
    wake: Option<Millis>,
    unsynced: Vec<Change>,
    persist: Option<PersistId>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Driver")
    }
}

impl Driver {
    /// Restores the machine from the store. Errors: [`IndexError`].
    pub fn new(parts: Parts, random: &dyn Random) -> Result<(Self, IndexHandle), IndexError> {
        let kept = KvKept::new(Arc::clone(&parts.kv));
        let first = u64::from_be_bytes(random_bytes(random)?);
        let config = Config::new(parts.me.clone(), first);
        let machine = Federation::restore(config, parts.registry.clone(), &kept);
        kept.check()?;
        let (handle, commands) = sync_channel(QUEUE_MAX);
        let driver = Self {
            machine,
            kept,
            parts,
            commands,
            publishes: BTreeMap::new(),
            asks: BTreeMap::new(),
            hints: BTreeMap::new(),
            next: 0,
            wake: None,
            unsynced: Vec::new(),
            persist: None,
        };
        Ok((driver, IndexHandle(handle)))
    }

    /// Runs until [`IndexHandle::stop`], until every handle is gone, or until the store fails.
    ///
    /// Errors: [`IndexError::Store`]: the program must stop.
    pub fn run(mut self) -> Result<(), IndexError> {
        self.step(Input::Tick)?;
        self.sync()?;
        loop {
            let now = self.parts.clock.now();
            let wait = self.wake.map_or(WAIT_MS_MAX, |wake| wake.since(now)).min(WAIT_MS_MAX);
            let mut going = match self.commands.recv_timeout(Duration::from_millis(wait)) {
                Ok(command) => self.take(command)?,
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            for _ in 0..INPUTS_PER_SYNC_MAX {
                let Ok(command) = self.commands.try_recv() else { break };
                going &= self.take(command)?;
            }
            if self.wake.is_some_and(|wake| wake <= self.parts.clock.now()) {
                self.wake = None;
                self.step(Input::Tick)?;
            }
            self.abandon_late()?;
            self.sync()?;
            if !going {
                return Ok(());
            }
        }
    }

    fn take(&mut self, command: Command) -> Result<bool, IndexError> {
        self.next = self.next.saturating_add(1);
        match command {
            Command::Publish(records, done) => {
                let id = PublishId(self.next);
                let until = Instant::now() + Duration::from_millis(PUBLISH_WAIT_MS_MAX);
                self.publishes.insert(id, Waiting { done, until });
                self.step(Input::Publish { id, records })?;
            }
            Command::Lookup(keys, deadline, done, hints) => {
                let id = AskId(self.next);
                self.asks.insert(id, done);
                self.hints.extend(hints.map(|hints| (id, (hints, 0))));
                self.step(Input::Ask { id, keys, deadline })?;
            }
            Command::Input(input) => self.step(*input)?,
            Command::Visibility(reply) => {
                let _gone = reply.send(self.machine.visibility());
            }
            Command::Passed(done) => {
                let _gone = done.send(());
            }
            Command::Stop => return Ok(false),
        }
        Ok(true)
    }

    /// Tells callers that waited too long. Publishes are numbered in the order of their coming: the oldest come first.
    fn abandon_late(&mut self) -> Result<(), IndexError> {
        let now = Instant::now();
        while let Some(oldest) = self.publishes.first_entry().filter(|oldest| oldest.get().until <= now) {
            let (id, waiting) = oldest.remove_entry();
            let _gone = waiting.done.send(Err(IndexError::Late));
            self.step(Input::Abandon(id))?;
        }
        Ok(())
    }

    fn step(&mut self, input: Input) -> Result<(), IndexError> {
        let effects = self.machine.step(self.parts.clock.now(), input, &self.kept);
        self.kept.check()?;
        let mut renew = Vec::new();
        for effect in effects {
            self.perform(effect, &mut renew);
        }
        self.hint();
        if renew.is_empty() { Ok(()) } else { self.renew(&renew) }
    }

    /// Tells who takes hints what was gathered since.
    fn hint(&mut self) {
        let (machine, asks) = (&self.machine, &self.asks);
        self.hints.retain(|id, (hints, known)| {
            if let Some((count, gathered)) = machine.gathered(*id, *known) {
                *known = count;
                // Who has not taken the last ones yet waits for the answer.
                let _full = hints.try_send(gathered);
            }
            asks.contains_key(id) && !hints.is_closed()
        });
    }

    fn perform(&mut self, effect: Effect, renew: &mut Vec<IndexRecord>) {
        match effect {
            Effect::Persist { id, changes } => {
                self.unsynced.extend(changes);
                self.persist = Some(id);
            }
            Effect::Send { to, message } => {
                let sent = self.parts.wire.send(to, Request::Index(message));
                // A lost datagram is sent again by the machine.
                self.parts.runtime.spawn(async move { drop(sent.await) });
            }
            Effect::Published { id } => {
                if let Some(waiting) = self.publishes.remove(&id) {
                    let _gone = waiting.done.send(Ok(()));
                }
            }
            Effect::Declined {
                request: RequestId::Publish(id),
                why,
            } => {
                if let Some(waiting) = self.publishes.remove(&id) {
                    let _gone = waiting.done.send(Err(IndexError::Busy(why.to_string())));
                }
            }
            Effect::Declined {
                request: RequestId::Ask(id),
                why,
            } => {
                if let Some(done) = self.asks.remove(&id) {
                    let _gone = done.send(Err(IndexError::Busy(why.to_string())));
                }
            }
            Effect::Answer { id, outcome } => {
                if let Some(done) = self.asks.remove(&id) {
                    let _gone = done.send(Ok(outcome));
                }
            }
            Effect::Renew { records } => renew.extend(records),
            Effect::Misbehaved { org, what } => {
                warn!(%org, %what, "a member broke the protocol of the index");
                (self.parts.notice)(&org, &what);
            }
            Effect::WakeAt(at) => self.wake = Some(at),
        }
    }

    fn renew(&mut self, records: &[IndexRecord]) -> Result<(), IndexError> {
        let now = self.parts.clock.now();
        let policy = self.machine.registry().policy.clone();
        let mut renewed = Vec::with_capacity(records.len());
        for record in records {
            let next = renewal(record, self.parts.sequencer.next()?, now, &policy);
            match next.sign(&*self.parts.signer) {
                Ok(signed) => renewed.push((record.sequence, signed)),
                Err(error) => warn!(%error, "an index record cannot be renewed"),
            }
        }
        self.step(Input::Renewed { records: renewed })
    }

    /// One sync for everything written since the last; what it allows may write again.
    fn sync(&mut self) -> Result<(), IndexError> {
        while let Some(id) = self.persist.take() {
            self.kept.commit(core::mem::take(&mut self.unsynced))?;
            self.step(Input::Persisted(id))?;
        }
        Ok(())
    }
}
