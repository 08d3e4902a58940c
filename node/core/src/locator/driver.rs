//! The shell of the federated index: carries out what the machine says, and feeds back what happened.
//!
//! The driver runs on a thread of its own and blocks for its syncs; everything that came in meanwhile shares
//! the next one. Datagrams leave through the [`Wire`] port as tasks of the runtime; losing one is allowed.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use futures::future::BoxFuture;
use hie_node_federation::config::Config;
use hie_node_federation::machine::Federation;
use hie_node_federation::owner::renewal;
use hie_node_federation::port::{AskId, Effect, Input, Misbehaviour, Outcome, PersistId, PublishId, RequestId};
use hie_node_federation::table::Change;
use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::message::{IndexMessage, Request, Response};
use hie_protocol::record::{IndexRecord, VerifiedRecord};
use hie_protocol::refusal::Class;
use hie_protocol::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

use crate::kv::{Kv, KvError};
use crate::locator::kept::KvKept;
use crate::locator::sequence::Sequencer;
use crate::ports::{Clock, NoRandomness, NodeSigner, Random, random_bytes};

/// Inputs that wait at most.
pub const QUEUE_MAX: usize = 8192;
/// Inputs taken between two syncs.
pub const INPUTS_PER_SYNC_MAX: usize = 512;
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
            Self::Busy(_) => Class::Unavailable,
            Self::Stopped | Self::Random(_) => Class::Broken,
            Self::Store(error) => error.class(),
        }
    }
}

enum Command {
    Publish(Vec<VerifiedRecord>, oneshot::Sender<Result<(), IndexError>>),
    Lookup(Vec<IndexKey>, Millis, oneshot::Sender<Result<Outcome, IndexError>>),
    Input(Box<Input>),
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

    /// Publishes own records; resolves when a write quorum has synced all of them. Errors: [`IndexError`].
    pub async fn publish(&self, records: Vec<VerifiedRecord>) -> Result<(), IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Publish(records, done))?;
        wait.await.map_err(|_| IndexError::Stopped)?
    }

    /// Everything under some keys, by `deadline` at the latest. Errors: [`IndexError`].
    pub async fn lookup(&self, keys: Vec<IndexKey>, deadline: Millis) -> Result<Outcome, IndexError> {
        let (done, wait) = oneshot::channel();
        self.put(Command::Lookup(keys, deadline, done))?;
        wait.await.map_err(|_| IndexError::Stopped)?
    }

    /// A datagram came from a member. Errors: [`IndexError::Busy`] (the datagram is lost), [`IndexError::Stopped`].
    pub fn received(&self, from: OrgId, message: IndexMessage) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Received { from, message })))
    }

    /// A newer registry is in force, verified and durable. Errors: as [`Self::received`].
    pub fn registry(&self, registry: Registry) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Registry(Box::new(registry)))))
    }

    /// A channel to a member opened or closed. Errors: as [`Self::received`].
    pub fn link(&self, org: OrgId, up: bool) -> Result<(), IndexError> {
        self.put(Command::Input(Box::new(Input::Link { org, up })))
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

/// The driver: call [`Driver::run`] on a thread of its own.
pub struct Driver {
    machine: Federation,
    kept: KvKept,
    parts: Parts,
    commands: Receiver<Command>,
    publishes: BTreeMap<PublishId, oneshot::Sender<Result<(), IndexError>>>,
    asks: BTreeMap<AskId, oneshot::Sender<Result<Outcome, IndexError>>>,
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
                self.publishes.insert(id, done);
                self.step(Input::Publish { id, records })?;
            }
            Command::Lookup(keys, deadline, done) => {
                let id = AskId(self.next);
                self.asks.insert(id, done);
                self.step(Input::Ask { id, keys, deadline })?;
            }
            Command::Input(input) => self.step(*input)?,
            Command::Stop => return Ok(false),
        }
        Ok(true)
    }

    fn step(&mut self, input: Input) -> Result<(), IndexError> {
        let effects = self.machine.step(self.parts.clock.now(), input, &self.kept);
        self.kept.check()?;
        let mut renew = Vec::new();
        for effect in effects {
            self.perform(effect, &mut renew);
        }
        if renew.is_empty() { Ok(()) } else { self.renew(&renew) }
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
                if let Some(done) = self.publishes.remove(&id) {
                    let _gone = done.send(Ok(()));
                }
            }
            Effect::Declined {
                request: RequestId::Publish(id),
                why,
            } => {
                if let Some(done) = self.publishes.remove(&id) {
                    let _gone = done.send(Err(IndexError::Busy(why.to_string())));
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
