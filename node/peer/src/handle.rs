//! The handle on the control channels: ask another node, take what others ask, cut who is out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libp2p::swarm::Stream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use hie_node_pki::membership::Membership;
use hie_node_pki::refusal::CertificateRefusal;
use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::{Millis, NodeKey, OrgId};
use hie_protocol::version::{ProtocolVersion, UNGREETED};

use crate::board::{Board, ClockSample};
use crate::budget::STREAMS_OF_ALL_MAX;
use crate::doorman::{Doorman, Transfers};
use crate::exchange;
use crate::failure::PeerFailure;
use crate::ledger::Ledger;
use crate::streams::Kind;
use crate::swarm::{self, Command, Parts};
use crate::trust::Trust;
use crate::upgrade::UpgradeError;

/// Longest deadline of a request.
pub const DEADLINE_MS_MAX: u64 = 60_000;
/// Requests of others that wait to be taken; beyond it they are answered `Busy`.
pub const INBOUND_QUEUE_MAX: usize = STREAMS_OF_ALL_MAX;
/// Requests of this node under way at the same time to one other node; less than that one's budget, so that two nodes
/// of an organisation seldom exceed it together.
pub const OUTBOUND_MAX: usize = 24;
/// Commands that wait for the network task.
const COMMAND_QUEUE_MAX: usize = 1024;

/// How to start.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Where to listen (port 0 takes a free one); none for a node that only dials out.
    pub listen: Option<SocketAddr>,
    /// Identity, membership and clock.
    pub trust: Arc<Trust>,
    /// Whether to keep a connection to every active member with a control address, so that this node can be reached
    /// through it.
    pub keep_connected: bool,
    /// Protocol versions spoken; all of this program, but for a node that must meet an older one as its equal.
    pub versions: Vec<ProtocolVersion>,
}

/// Why the control channels do not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS.
    #[error("the channel upgrade cannot be prepared")]
    Upgrade(#[from] UpgradeError),
    /// The address.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Reason.
        reason: String,
    },
    /// The node key is no libp2p name.
    #[error("the node key cannot name a peer")]
    Name,
}

/// A request of another node.
#[derive(Debug)]
pub struct InboundRequest {
    /// The node: its certificate was judged when the channel came up and after every change of the registry.
    pub from: NodeKey,
    /// Its organisation, by the registry in force.
    pub org: OrgId,
    /// The version that the channel speaks: a message of a later one is not for it.
    pub version: ProtocolVersion,
    /// The frame as sent, at most [`FRAME_BYTES_MAX`].
    pub frame: Vec<u8>,
    /// Takes the frame of the answer. Dropping it answers `Failed`.
    pub reply: oneshot::Sender<Vec<u8>>,
}

/// What is known of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Node.
    pub node: NodeKey,
    /// Organisation.
    pub org: OrgId,
    /// Whether a channel is up.
    pub connected: bool,
    /// Since when it is connected, or has been failing.
    pub since: Option<Millis>,
    /// Last failure since it was connected.
    pub last_error: Option<PeerFailure>,
    /// Round trip of the last ping, in milliseconds.
    pub rtt_ms: Option<u64>,
    /// Version that both speak; none while no channel is up, or when there is none in common.
    pub version: Option<ProtocolVersion>,
}

/// The control channels of a node. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    trust: Arc<Trust>,
    commands: mpsc::Sender<Command>,
    local: Option<SocketAddr>,
    board: Arc<Board>,
    ledger: Ledger,
    versions: Arc<[ProtocolVersion]>,
    transfers: Arc<OnceLock<Arc<dyn Transfers>>>,
    turns: Turns,
}

impl core::fmt::Debug for Peers {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "Peers({})", self.trust.node())
    }
}

/// Requests of this node under way, by the node that they go to: no more than it would answer at once.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<BTreeMap<NodeKey, Arc<Semaphore>>>>);

impl Turns {
    fn of(&self, node: NodeKey) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns
            .entry(node)
            .or_insert_with(|| Arc::new(Semaphore::new(OUTBOUND_MAX)));
        Arc::clone(turn)
    }
}

impl Peers {
    /// Starts the network task; gives the handle and the requests of others. Errors: every [`StartError`].
    pub async fn start(config: PeerConfig) -> Result<(Self, mpsc::Receiver<InboundRequest>), StartError> {
        let trust = config.trust;
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE_MAX);
        let (inbound, requests) = mpsc::channel(INBOUND_QUEUE_MAX);
        let (board, ledger) = (Arc::<Board>::default(), Ledger::default());
        let doorman = Doorman::new(
            Arc::clone(&trust),
            Arc::clone(&board),
            ledger.clone(),
            config.versions.clone(),
            inbound,
        );
        let doorman = Arc::new(doorman);
        let transfers = Arc::clone(&doorman.transfers);
        let versions: Arc<[ProtocolVersion]> = config.versions.into();
        let parts = Parts {
            trust: Arc::clone(&trust),
            listen: config.listen,
            keep_connected: config.keep_connected,
            versions: Arc::clone(&versions),
            board: Arc::clone(&board),
            doorman,
        };
        let local = swarm::start(parts, commands.clone(), inbox).await?;
        let peers = Self {
            trust,
            commands,
            local,
            board,
            ledger,
            versions,
            transfers,
            turns: Turns::default(),
        };
        Ok((peers, requests))
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Versions that this node speaks.
    #[must_use]
    pub fn versions(&self) -> &[ProtocolVersion] {
        &self.versions
    }

    /// What members did against the rules.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The version that a connected node speaks with this one; none while it is not connected, or has none in common.
    #[must_use]
    pub fn version(&self, node: &NodeKey) -> Option<ProtocolVersion> {
        self.board.version(node)
    }

    /// The last look at the clocks of active nodes that were greeted.
    #[must_use]
    pub fn clocks(&self) -> Vec<(NodeKey, OrgId, ClockSample)> {
        let membership = self.trust.membership();
        let seen = membership
            .active()
            .filter_map(|(node, known)| Some((*node, known.org.clone(), self.board.clock_of(node)?)));
        seen.collect()
    }

    /// The same nodes in the order in which to ask them: connected ones first, among them the one that answered last.
    #[must_use]
    pub fn preferred(&self, nodes: Vec<NodeKey>) -> Vec<NodeKey> {
        self.board.preferred(nodes)
    }

    /// Sends a frame to a node and waits for its answer, dialling when needed. `deadline` counts from now and covers
    /// everything; it is cut to [`DEADLINE_MS_MAX`].
    ///
    /// Errors: every [`PeerFailure`]. While the node is backing off after failed dials this fails at once.
    pub async fn request(&self, node: NodeKey, frame: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, PeerFailure> {
        self.request_since(node, frame, UNGREETED, deadline).await
    }

    /// The same for a frame that `since` brought: it goes only to a node that speaks that version or a later one.
    ///
    /// Errors: as [`Self::request`]; [`PeerFailure::Version`] when the node speaks an older one.
    pub async fn request_since(
        &self,
        node: NodeKey,
        frame: Vec<u8>,
        since: ProtocolVersion,
        deadline: Duration,
    ) -> Result<Vec<u8>, PeerFailure> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(PeerFailure::TooLarge);
        }
        let deadline = deadline.min(Duration::from_millis(DEADLINE_MS_MAX));
        let exchange = async {
            let turns = self.turns.of(node);
            let _turn = turns.acquire().await.map_err(|_| PeerFailure::Closed)?;
            let stream = self.open(node, Kind::Request).await?;
            // INVARIANT: a substream is opened after the greeting, so that the version is settled.
            if since > UNGREETED && self.board.version(&node).is_none_or(|version| version < since) {
                return Err(PeerFailure::Version);
            }
            let answer = exchange::ask(stream, &frame).await?;
            self.board.answered(node, Instant::now());
            Ok(answer)
        };
        tokio::time::timeout(deadline, exchange)
            .await
            .unwrap_or(Err(PeerFailure::TimedOut))
    }

    /// Opens a substream, dialling when needed. A channel that turns out to be closed is tried once more.
    pub(crate) async fn open(&self, node: NodeKey, kind: Kind) -> Result<Stream, PeerFailure> {
        let mut opened = Err(PeerFailure::Closed);
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let command = Command::Open { node, kind, reply };
            self.commands.send(command).await.map_err(|_| PeerFailure::Closed)?;
            opened = answer.await.unwrap_or(Err(PeerFailure::Closed));
            if !matches!(opened, Err(PeerFailure::Closed)) {
                break;
            }
        }
        opened
    }

    /// Who takes transfers over substreams; the first to be named stays.
    pub(crate) fn take_transfers(&self, transfers: Arc<dyn Transfers>) {
        let _first_stays = self.transfers.set(transfers);
    }

    /// Puts a membership in force: channels of keys that are no longer active are cut before this returns (bounded by
    /// [`crate::trust::CUT_MS_MAX`]), control and bulk alike. Gives who was cut and why.
    pub async fn update(&self, membership: Membership) -> Vec<(NodeKey, CertificateRefusal)> {
        let cut = self.trust.update(membership).await;
        // A stopped node has nothing left to tell.
        let _stopped = self.commands.send(Command::Updated).await;
        cut
    }

    /// What is known of every active node but this one, in the order of their keys.
    pub async fn status(&self) -> Vec<PeerStatus> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Status { reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Stops: no new channels, live ones are closed. Returns when the task has ended.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown { reply }).await.is_ok() {
            // The task drops the sender when it has ended.
            let _ended = done.await;
        }
    }
}
