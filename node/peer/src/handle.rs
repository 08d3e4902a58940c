//! The handle on the control channels: ask another node, take what others ask, cut who is out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use hie_node_pki::membership::Membership;
use hie_node_pki::refusal::CertificateRefusal;
use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::{Millis, NodeKey, OrgId};

use crate::failure::PeerFailure;
use crate::swarm::{self, Command};
use crate::trust::Trust;
use crate::upgrade::UpgradeError;

/// Longest deadline of a request.
pub const DEADLINE_MS_MAX: u64 = 60_000;
/// Requests of others that wait to be taken; beyond it they are answered `Busy`.
pub const INBOUND_QUEUE_MAX: usize = 256;
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
}

/// The control channels of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    trust: Arc<Trust>,
    commands: mpsc::Sender<Command>,
    local: Option<SocketAddr>,
}

impl Peers {
    /// Starts the network task; gives the handle and the requests of others. Errors: every [`StartError`].
    pub async fn start(config: PeerConfig) -> Result<(Self, mpsc::Receiver<InboundRequest>), StartError> {
        let trust = Arc::clone(&config.trust);
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE_MAX);
        let (inbound, requests) = mpsc::channel(INBOUND_QUEUE_MAX);
        let local = swarm::start(config, commands.clone(), inbox, inbound).await?;
        Ok((Self { trust, commands, local }, requests))
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Sends a frame to a node and waits for its answer, dialling when needed. `deadline` counts from now and covers
    /// everything; it is cut to [`DEADLINE_MS_MAX`].
    ///
    /// Errors: every [`PeerFailure`]. While the node is backing off after failed dials this fails at once.
    pub async fn request(&self, node: NodeKey, frame: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, PeerFailure> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(PeerFailure::TooLarge);
        }
        let deadline = deadline.min(Duration::from_millis(DEADLINE_MS_MAX));
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands
                .send(Command::Request { node, frame, reply })
                .await
                .map_err(|_| PeerFailure::Closed)?;
            answer.await.unwrap_or(Err(PeerFailure::Closed))
        };
        tokio::time::timeout(deadline, exchange)
            .await
            .unwrap_or(Err(PeerFailure::TimedOut))
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
