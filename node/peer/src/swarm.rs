//! The network task: it owns the libp2p swarm and nothing else does. Commands in, requests of others out.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::{self, InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{
    self, Event as Exchange, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ProtocolSupport,
    ResponseChannel,
};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot};

use hie_protocol::id::NodeKey;
use hie_protocol::message::Response;
use hie_protocol::refusal::Refusal;
use hie_protocol::version::PROTOCOL_REQUEST;

use crate::budget::{Budgets, InFlight, STREAMS_MAX};
use crate::codec::FrameCodec;
use crate::failure::PeerFailure;
use crate::handle::{DEADLINE_MS_MAX, InboundRequest, PeerConfig, PeerStatus, StartError};
use crate::link::{Link, Reply, Step, Waiting};
use crate::trust::{Trust, node_key, peer_id};
use crate::upgrade::{NodeUpgrade, UpgradeError};

/// Most handshakes of strangers at the same time.
const PENDING_INCOMING_MAX: u32 = 64;
/// Most dials at the same time.
const PENDING_OUTGOING_MAX: u32 = 64;
/// Most connections.
const ESTABLISHED_MAX: u32 = 2048;
/// Most connections with one node: one each way, and one each way that is not yet known to be dead.
const ESTABLISHED_PER_PEER_MAX: u32 = 4;
/// Most substreams of one connection, both ways.
const SUBSTREAMS_MAX: usize = 4 * STREAMS_MAX;
/// Pause between pings.
const PING_MS: u64 = 15_000;
/// Longest wait for a ping.
const PING_TIMEOUT_MS: u64 = 10_000;
/// Pause between two judgements of the live channels.
const RECHECK_MS: u64 = 2_000;
/// A channel stays open while nothing is said: a node that dials out only is reached through it.
const IDLE_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;

/// What the handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send a frame.
    Request {
        node: NodeKey,
        frame: Vec<u8>,
        reply: Reply,
    },
    /// Addresses of a node were looked up.
    Resolved { node: NodeKey, addresses: Vec<Multiaddr> },
    /// A membership came in force.
    Updated,
    /// Tell what is known.
    Status { reply: oneshot::Sender<Vec<PeerStatus>> },
    /// Stop.
    Shutdown { reply: oneshot::Sender<()> },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    exchange: request_response::Behaviour<FrameCodec>,
    ping: ping::Behaviour,
}

/// Why a connection did not come up, as the transport reports it.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error(transparent)]
    Tcp(std::io::Error),
    #[error(transparent)]
    Upgrade(UpgradeError),
}

type Answered = (InboundRequestId, ResponseChannel<Vec<u8>>, Option<Vec<u8>>, InFlight);

struct Task {
    trust: Arc<Trust>,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Sender<Command>,
    inbound: mpsc::Sender<InboundRequest>,
    keep_connected: bool,
    budgets: Budgets,
    links: BTreeMap<NodeKey, Link>,
    outbound: HashMap<OutboundRequestId, Reply>,
    answering: FuturesUnordered<BoxFuture<'static, Answered>>,
    sending: HashMap<InboundRequestId, InFlight>,
}

/// Builds the swarm, binds, and spawns the task. Gives the address bound.
pub(crate) async fn start(
    config: PeerConfig,
    commands: mpsc::Sender<Command>,
    inbox: mpsc::Receiver<Command>,
    inbound: mpsc::Sender<InboundRequest>,
) -> Result<Option<SocketAddr>, StartError> {
    let trust = config.trust;
    let local = peer_id(&trust.node()).ok_or(StartError::Name)?;
    let transport = transport(NodeUpgrade::new(Arc::clone(&trust))?);
    // Lazy: there is one protocol to choose from, so its name travels with the request and costs no round trip.
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
        .with_idle_connection_timeout(Duration::from_millis(IDLE_MS_MAX))
        .with_max_negotiating_inbound_streams(STREAMS_MAX);
    let mut swarm = Swarm::new(transport, behaviour(), local, swarm_config);
    let bound = match config.listen {
        Some(address) => Some(listen(&mut swarm, address).await?),
        None => None,
    };
    let task = Task {
        trust,
        swarm,
        commands,
        inbound,
        keep_connected: config.keep_connected,
        budgets: Budgets::default(),
        links: BTreeMap::new(),
        outbound: HashMap::new(),
        answering: FuturesUnordered::new(),
        sending: HashMap::new(),
    };
    tokio::spawn(task.run(inbox));
    Ok(bound)
}

/// TCP, the security upgrade, then yamux: nothing is negotiated before TLS or between TLS and yamux.
fn transport(upgrade: NodeUpgrade) -> Boxed<(PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, point| async move {
            let remote = point.get_remote_address().to_string();
            let yamux = yamux::Config::default();
            let (peer, muxer) = if point.is_dialer() {
                let (peer, stream) = upgrade.dial(socket, &remote).await?;
                (peer, yamux.upgrade_outbound(stream, "").await)
            } else {
                let (peer, stream) = upgrade.accept(socket, &remote).await?;
                (peer, yamux.upgrade_inbound(stream, "").await)
            };
            let muxer = StreamMuxerBox::new(muxer.map_err(UpgradeError::Handshake)?);
            let name = peer_id(&peer.node()).ok_or(UpgradeError::TimedOut)?;
            Ok::<_, UpgradeError>((name, muxer))
        })
        .map_err(|error| error.either(ChannelError::Tcp, ChannelError::Upgrade))
        .boxed()
}

fn behaviour() -> Behaviour {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established(Some(ESTABLISHED_MAX))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
    let exchange = request_response::Config::default()
        .with_request_timeout(Duration::from_millis(DEADLINE_MS_MAX))
        .with_max_concurrent_streams(SUBSTREAMS_MAX);
    let protocols = [(StreamProtocol::new(PROTOCOL_REQUEST), ProtocolSupport::Full)];
    let ping = ping::Config::new()
        .with_interval(Duration::from_millis(PING_MS))
        .with_timeout(Duration::from_millis(PING_TIMEOUT_MS));
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        exchange: request_response::Behaviour::with_codec(FrameCodec, protocols, exchange),
        ping: ping::Behaviour::new(ping),
    }
}

/// Binds and waits for the port.
async fn listen(swarm: &mut Swarm<Behaviour>, address: SocketAddr) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::Listen { address, reason };
    swarm
        .listen_on(multiaddr(address))
        .map_err(|error| failed(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address: bound, .. } => {
                let port = bound.iter().find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    _ => None,
                });
                return Ok(SocketAddr::new(address.ip(), port.unwrap_or_default()));
            }
            SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
            SwarmEvent::ListenerClosed { reason, .. } => {
                let reason = reason
                    .err()
                    .map_or_else(|| "the listener closed".to_owned(), |error| error.to_string());
                return Err(failed(reason));
            }
            _ => {}
        }
    }
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut recheck = tokio::time::interval(Duration::from_millis(RECHECK_MS));
        let mut stop = None;
        while stop.is_none() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(answered) = self.answering.next(), if !self.answering.is_empty() => self.on_answered(answered),
                command = inbox.recv() => match command {
                    Some(Command::Shutdown { reply }) => stop = Some(reply),
                    Some(command) => self.on_command(command),
                    // INVARIANT: the task holds a sender itself, so the inbox never ends.
                    None => break,
                },
                _ = recheck.tick() => self.on_tick(),
            }
        }
        self.trust.live().cut_all();
        drop(self);
        drop(stop);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Request { node, frame, reply } => self.request(node, Waiting { frame, reply }),
            Command::Resolved { node, addresses } => self.dial(node, addresses),
            Command::Updated => self.forget(),
            Command::Status { reply } => {
                // Whoever asked may have gone.
                let _gone = reply.send(self.status());
            }
            Command::Shutdown { .. } => {}
        }
    }

    fn request(&mut self, node: NodeKey, waiting: Waiting) {
        if waiting.reply.is_closed() {
            return;
        }
        let membership = self.trust.membership();
        let known = membership.node(&node);
        let refused = match known {
            None => Some(hie_node_pki::refusal::CertificateRefusal::NotInRegistry),
            Some(known) if !known.active => Some(hie_node_pki::refusal::CertificateRefusal::Suspended),
            Some(_) => None,
        };
        if let Some(refusal) = refused {
            let _gone = waiting.reply.send(Err(PeerFailure::Refused(refusal)));
            return;
        }
        let link = self.links.entry(node).or_default();
        match link.step(Instant::now()) {
            Step::Send => self.send(node, waiting),
            Step::Wait => link.wait(waiting),
            Step::Dial => {
                link.wait(waiting);
                self.resolve(node);
            }
            Step::Fail(failure) => {
                let _gone = waiting.reply.send(Err(failure));
            }
        }
    }

    fn send(&mut self, node: NodeKey, waiting: Waiting) {
        let Some(peer) = peer_id(&node) else { return };
        let id = self.swarm.behaviour_mut().exchange.send_request(&peer, waiting.frame);
        self.outbound.insert(id, waiting.reply);
    }

    /// Looks the address of a node up, off the task.
    fn resolve(&self, node: NodeKey) {
        let address = self
            .trust
            .membership()
            .node(&node)
            .and_then(|known| known.control.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let addresses = match address {
                Some(address) => match tokio::net::lookup_host(&address).await {
                    Ok(found) => found.map(multiaddr).collect(),
                    Err(error) => {
                        tracing::info!(%node, address, %error, "the address of a node cannot be looked up");
                        Vec::new()
                    }
                },
                None => Vec::new(),
            };
            // A stopped task needs no addresses.
            let _stopped = commands.send(Command::Resolved { node, addresses }).await;
        });
    }

    fn dial(&mut self, node: NodeKey, addresses: Vec<Multiaddr>) {
        let own = node == self.trust.node();
        let dialled = match peer_id(&node) {
            Some(peer) if !addresses.is_empty() && !own => {
                // From a port of its own: from the listening one, a dial after a break meets the remains of the last.
                let options = DialOpts::peer_id(peer).addresses(addresses).allocate_new_port();
                self.swarm.dial(options.build())
            }
            _ => Err(DialError::NoAddresses),
        };
        match dialled {
            // A connection came in while the address was looked up: its event has flushed or will flush the queue.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dial_failed(node, &error),
        }
    }

    fn dial_failed(&mut self, node: NodeKey, error: &DialError) {
        let at = self.trust.now();
        self.links
            .entry(node)
            .or_default()
            .failed(failure(error), at, Instant::now());
    }

    /// Drops what is known of nodes that are out.
    fn forget(&mut self) {
        let membership = self.trust.membership();
        self.links
            .retain(|node, link| link.connections > 0 || membership.node(node).is_some_and(|known| known.active));
    }

    fn on_tick(&mut self) {
        // Each cut is logged where it happens; the connection's own error then arrives as an event.
        let _cut = self.trust.recheck();
        if !self.keep_connected {
            return;
        }
        let (membership, own) = (self.trust.membership(), self.trust.node());
        for (node, known) in membership.active() {
            let due =
                *node != own && known.control.is_some() && self.links.entry(*node).or_default().due(Instant::now());
            if due {
                self.resolve(*node);
            }
        }
    }

    fn status(&self) -> Vec<PeerStatus> {
        let own = self.trust.node();
        let unknown = Link::default();
        let membership = self.trust.membership();
        let others = membership.active().filter(|(node, _)| **node != own);
        others
            .map(|(node, known)| {
                let link = self.links.get(node).unwrap_or(&unknown);
                PeerStatus {
                    node: *node,
                    org: known.org.clone(),
                    connected: link.connections > 0,
                    since: link.since,
                    last_error: link.last_error,
                    rtt_ms: link.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
                }
            })
            .collect()
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let at = self.trust.now();
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                let Some(node) = node_key(&peer_id) else { return };
                tracing::info!(%node, "channel up");
                for waiting in self.links.entry(node).or_default().up(at) {
                    self.send(node, waiting);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established,
                ..
            } => {
                let Some(node) = node_key(&peer_id) else { return };
                tracing::info!(%node, left = num_established, "channel closed");
                self.links.entry(node).or_default().down(num_established, at);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                if let Some(node) = node_key(&peer) {
                    tracing::info!(%node, %error, "dial failed");
                    self.dial_failed(node, &error);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Exchange(event)) => self.on_exchange(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => match event.result {
                Ok(rtt) => {
                    if let Some(link) = node_key(&event.peer).and_then(|node| self.links.get_mut(&node)) {
                        link.rtt = Some(rtt);
                    }
                }
                // A connection that does not answer pings is dead, whatever TCP says.
                Err(ping::Failure::Timeout) => {
                    self.swarm.close_connection(event.connection);
                }
                Err(_) => {}
            },
            _ => {}
        }
    }

    fn on_exchange(&mut self, event: Exchange<Vec<u8>, Vec<u8>>) {
        match event {
            Exchange::Message {
                peer,
                message:
                    Message::Request {
                        request_id,
                        request,
                        channel,
                    },
                ..
            } => {
                self.on_request(peer, request_id, request, channel);
            }
            Exchange::Message {
                message: Message::Response { request_id, response },
                ..
            } => {
                self.settle(request_id, Ok(response));
            }
            Exchange::OutboundFailure { request_id, error, .. } => {
                let failure = match error {
                    OutboundFailure::Timeout => PeerFailure::TimedOut,
                    OutboundFailure::DialFailure => PeerFailure::Unreachable { since: None },
                    OutboundFailure::ConnectionClosed => PeerFailure::Closed,
                    OutboundFailure::UnsupportedProtocols => PeerFailure::Misbehaved("it does not take requests"),
                    OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                        PeerFailure::Misbehaved("its frame is larger than allowed")
                    }
                    OutboundFailure::Io(_) => PeerFailure::Closed,
                };
                self.settle(request_id, Err(failure));
            }
            Exchange::InboundFailure {
                request_id,
                peer,
                error,
                ..
            } => {
                tracing::info!(%peer, %error, "a request of another node failed");
                self.sending.remove(&request_id);
            }
            Exchange::ResponseSent { request_id, .. } => {
                self.sending.remove(&request_id);
            }
        }
    }

    fn settle(&mut self, id: OutboundRequestId, outcome: Result<Vec<u8>, PeerFailure>) {
        if let Some(reply) = self.outbound.remove(&id) {
            // The caller's deadline may have passed.
            let _gone = reply.send(outcome);
        }
    }

    fn on_request(&mut self, peer: PeerId, id: InboundRequestId, frame: Vec<u8>, channel: ResponseChannel<Vec<u8>>) {
        let membership = self.trust.membership();
        let known = node_key(&peer).and_then(|node| membership.node(&node).map(|known| (node, known)));
        let Some((node, known)) = known.filter(|(_, known)| known.active) else {
            // Its channel is being cut; dropping the response channel resets the substream.
            return;
        };
        let Some(in_flight) = self.budgets.take(&known.org, frame.len()) else {
            tracing::warn!(%node, org = %known.org, "the budget of a member is used up");
            return self.refuse(channel, Refusal::Budget);
        };
        let (reply, answer) = oneshot::channel();
        let request = InboundRequest {
            from: node,
            org: known.org.clone(),
            frame,
            reply,
        };
        if self.inbound.try_send(request).is_err() {
            return self.refuse(channel, Refusal::Busy);
        }
        let limit = Duration::from_millis(DEADLINE_MS_MAX);
        self.answering.push(Box::pin(async move {
            let frame = tokio::time::timeout(limit, answer).await.ok().and_then(Result::ok);
            (id, channel, frame, in_flight)
        }));
    }

    fn on_answered(&mut self, (id, channel, frame, mut in_flight): Answered) {
        let Some(frame) = frame else {
            return self.refuse(channel, Refusal::Failed);
        };
        in_flight.answer(frame.len());
        if self
            .swarm
            .behaviour_mut()
            .exchange
            .send_response(channel, frame)
            .is_ok()
        {
            self.sending.insert(id, in_flight);
        }
    }

    fn refuse(&mut self, channel: ResponseChannel<Vec<u8>>, refusal: Refusal) {
        if let Ok(frame) = Response::Refused(refusal).encode() {
            // The other side may have gone.
            let _gone = self.swarm.behaviour_mut().exchange.send_response(channel, frame);
        }
    }
}

/// The failure behind a failed dial.
fn failure(error: &DialError) -> PeerFailure {
    let DialError::Transport(attempts) = error else {
        return match error {
            DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. } => {
                PeerFailure::Misbehaved("another node answers at its address")
            }
            _ => PeerFailure::Unreachable { since: None },
        };
    };
    let refusal = attempts.iter().find_map(|(_, attempt)| {
        let libp2p::TransportError::Other(cause) = attempt else {
            return None;
        };
        match cause.get_ref()?.downcast_ref::<ChannelError>()? {
            ChannelError::Upgrade(UpgradeError::Refused(refused)) => Some(refused.reason()),
            _ => None,
        }
    });
    refusal.map_or(PeerFailure::Unreachable { since: None }, PeerFailure::Refused)
}
