//! The network task: it owns the libp2p swarm and nothing else does. It dials, greets, opens substreams and keeps
//! reservations at relays; frames pass it by.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, ping, relay};
use tokio::sync::{mpsc, oneshot};

use hie_node_pki::membership::Membership;
use hie_protocol::id::NodeKey;
use hie_protocol::version::ProtocolVersion;

use crate::board::{Board, Greeting};
use crate::budget::STREAMS_MAX;
use crate::doorman::Doorman;
use crate::failure::PeerFailure;
use crate::greet::Greeter;
use crate::handle::{PeerStatus, StartError};
use crate::ledger::Offence;
use crate::link::{JITTER_MAX, Link, Step, Waiting};
use crate::relay::{budget, circuit, circuit_to, named, relays_of};
use crate::streams::{Door, Kind, Streams};
use crate::transport::{ChannelError, multiaddr, transport};
use crate::trust::{Trust, node_key, peer_id};
use crate::upgrade::{NodeUpgrade, UpgradeError};

/// Most handshakes of strangers at the same time.
const PENDING_INCOMING_MAX: u32 = 256;
/// Most dials at the same time.
const PENDING_OUTGOING_MAX: u32 = 64;
/// Most connections.
const ESTABLISHED_MAX: u32 = 2048;
/// Most connections with one node: one each way, and one each way that is not yet known to be dead.
const ESTABLISHED_PER_PEER_MAX: u32 = 4;
/// Pause between pings.
const PING_MS: u64 = 15_000;
/// Longest wait for a ping.
const PING_TIMEOUT_MS: u64 = 10_000;
/// Pause between two judgements of the live channels.
const RECHECK_MS: u64 = 2_000;
/// Pause between two looks at who is to be dialled.
const DIAL_MS: u64 = 100;
/// A channel stays open while nothing is said: a node that dials out only is reached through it.
const IDLE_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;
/// Redials after a channel closed are spread over this time: a node that restarts is not met by all at once.
const REDIAL_SPREAD_MS: u64 = 400;
/// How long the node with the higher key leaves the redial to the other one.
const REDIAL_ORDER_MS: u64 = 2_000;
/// Pause between greetings of one channel, for the look at the other clock.
const GREET_AGAIN_MS: u64 = 10 * 60 * 1000;

/// What the handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a substream, dialling when needed.
    Open {
        node: NodeKey,
        kind: Kind,
        reply: crate::streams::OpenReply,
    },
    /// Addresses of a node were looked up.
    Resolved { node: NodeKey, addresses: Vec<Multiaddr> },
    /// A node was greeted.
    Greeted {
        node: NodeKey,
        life: u64,
        greeting: Greeting,
    },
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
    streams: Streams,
    relay: relay::Behaviour,
    circuits: relay::client::Behaviour,
    ping: ping::Behaviour,
}

/// What the task is made of.
pub(crate) struct Parts {
    pub trust: Arc<Trust>,
    pub listen: Option<SocketAddr>,
    pub keep_connected: bool,
    pub versions: Arc<[ProtocolVersion]>,
    pub board: Arc<Board>,
    pub doorman: Arc<Doorman>,
}

struct Task {
    trust: Arc<Trust>,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Sender<Command>,
    keep_connected: bool,
    board: Arc<Board>,
    greeter: Greeter,
    doorman: Arc<Doorman>,
    links: BTreeMap<NodeKey, Link>,
    /// Reservations of this node, by relay.
    reserved: BTreeMap<NodeKey, ListenerId>,
    /// Whether this node is a relay now.
    relaying: bool,
    chance: u64,
}

/// Builds the swarm, binds, and spawns the task. Gives the address bound.
pub(crate) async fn start(
    parts: Parts,
    commands: mpsc::Sender<Command>,
    inbox: mpsc::Receiver<Command>,
) -> Result<Option<SocketAddr>, StartError> {
    let trust = parts.trust;
    let local = peer_id(&trust.node()).ok_or(StartError::Name)?;
    let (circuits, client) = relay::client::new(local);
    let transport = transport(circuits, NodeUpgrade::new(Arc::clone(&trust))?);
    // Lazy: what travels is a node's choice alone, so its name travels with the request and costs no round trip.
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
        .with_idle_connection_timeout(Duration::from_millis(IDLE_MS_MAX))
        .with_max_negotiating_inbound_streams(STREAMS_MAX);
    let behaviour = behaviour(local, Arc::clone(&parts.doorman) as Arc<dyn Door>, client);
    let mut swarm = Swarm::new(transport, behaviour, local, swarm_config);
    let bound = match parts.listen {
        Some(address) => Some(listen(&mut swarm, address).await?),
        None => None,
    };
    let [a, b, c, d, e, f, g, h, ..] = *trust.node().as_bytes();
    let greeter = Greeter {
        trust: Arc::clone(&trust),
        board: Arc::clone(&parts.board),
        versions: parts.versions,
    };
    let task = Task {
        chance: u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ trust.now().0,
        trust,
        swarm,
        commands,
        keep_connected: parts.keep_connected,
        board: parts.board,
        greeter,
        doorman: parts.doorman,
        links: BTreeMap::new(),
        reserved: BTreeMap::new(),
        relaying: false,
    };
    tokio::spawn(task.run(inbox));
    Ok(bound)
}

fn behaviour(local: PeerId, door: Arc<dyn Door>, circuits: relay::client::Behaviour) -> Behaviour {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established(Some(ESTABLISHED_MAX))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
    let ping = ping::Config::new()
        .with_interval(Duration::from_millis(PING_MS))
        .with_timeout(Duration::from_millis(PING_TIMEOUT_MS));
    let mut relay = relay::Behaviour::new(local, budget());
    relay.set_status(Some(relay::Status::Disable));
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: Streams::new(door),
        relay,
        circuits,
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

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut recheck = tokio::time::interval(Duration::from_millis(RECHECK_MS));
        let mut dial = tokio::time::interval(Duration::from_millis(DIAL_MS));
        dial.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = None;
        while stop.is_none() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = inbox.recv() => match command {
                    Some(Command::Shutdown { reply }) => stop = Some(reply),
                    Some(command) => self.on_command(command),
                    // INVARIANT: the task holds a sender itself, so the inbox never ends.
                    None => break,
                },
                _ = dial.tick() => self.on_dial_tick(),
                // Each cut is logged where it happens; the connection's own error then arrives as an event.
                _ = recheck.tick() => { let _cut = self.trust.recheck(); }
            }
        }
        self.trust.live().cut_all();
        drop(self);
        drop(stop);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { node, kind, reply } => self.open(node, Waiting { kind, reply }),
            Command::Resolved { node, addresses } => self.dial(node, addresses),
            Command::Greeted { node, life, greeting } => {
                self.board.greeted(node, greeting);
                let waiting = self
                    .links
                    .entry(node)
                    .or_default()
                    .greeted(life, greeting, Instant::now());
                waiting.into_iter().for_each(|one| self.open(node, one));
            }
            Command::Updated => self.forget(),
            Command::Status { reply } => {
                // Whoever asked may have gone.
                let _gone = reply.send(self.status());
            }
            Command::Shutdown { .. } => {}
        }
    }

    fn open(&mut self, node: NodeKey, waiting: Waiting) {
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
            Step::Open => {
                if let Some(peer) = peer_id(&node) {
                    let streams = &mut self.swarm.behaviour_mut().streams;
                    streams.open(peer, waiting.kind, waiting.reply);
                }
            }
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

    /// Greets a node over its newest channel; the outcome comes back as a command.
    fn greet(&mut self, node: NodeKey) {
        let Some(peer) = peer_id(&node) else { return };
        let (reply, stream) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(peer, Kind::Request, reply);
        let life = self.links.get(&node).map(|link| link.life).unwrap_or_default();
        let (greeter, commands) = (self.greeter.clone(), self.commands.clone());
        tokio::spawn(async move {
            let greeting = greeter.greet(node, stream).await;
            // A stopped task needs no greeting.
            let _stopped = commands.send(Command::Greeted { node, life, greeting }).await;
        });
    }

    /// Looks the addresses of a node up, off the task: its own first, then circuits through its relays.
    fn resolve(&self, node: NodeKey) {
        let membership = self.trust.membership();
        let direct = membership.node(&node).and_then(|known| known.control.clone());
        let own = self.trust.node();
        let mut relays = relays_of(&membership, &node);
        relays.retain(|(relay, _)| *relay != own);
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let mut addresses = match direct {
                Some(address) => looked_up(node, &address).await,
                None => Vec::new(),
            };
            for (relay, address) in relays {
                let Some(peer) = peer_id(&node) else { continue };
                let found = looked_up(relay, &address).await;
                addresses.extend(found.into_iter().filter_map(|at| circuit_to(&relay, at, peer)));
            }
            // A stopped task needs no addresses.
            let _stopped = commands.send(Command::Resolved { node, addresses }).await;
        });
    }

    fn dial(&mut self, node: NodeKey, addresses: Vec<Multiaddr>) {
        let own = node == self.trust.node();
        let dialled = match peer_id(&node) {
            Some(peer) if !addresses.is_empty() && !own => {
                // From a port of its own: from the listening one, a dial after a break meets the remains of the last.
                let options = DialOpts::peer_id(peer)
                    .addresses(addresses)
                    .override_dial_concurrency_factor(NonZeroU8::MIN)
                    .allocate_new_port();
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
        let (at, jitter) = (self.trust.now(), self.jitter(JITTER_MAX));
        let link = self.links.entry(node).or_default();
        link.failed(failure(error), at, Instant::now(), jitter);
    }

    /// Drops what is known of nodes that are out.
    fn forget(&mut self) {
        let membership = self.trust.membership();
        let active = |node: &NodeKey| membership.node(node).is_some_and(|known| known.active);
        self.links.retain(|node, link| link.connections > 0 || active(node));
        self.board.retain(active);
    }

    /// A number below `limit` (splitmix64): spreads dials, keeps no secret.
    fn jitter(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    fn on_dial_tick(&mut self) {
        let (membership, own, now) = (self.trust.membership(), self.trust.node(), Instant::now());
        self.offer_relay(&membership, &own);
        self.reserve(&membership, &own);
        if !self.keep_connected {
            return;
        }
        let mut greet = Vec::new();
        for (node, known) in membership.active().filter(|(node, _)| **node != own) {
            let link = self.links.entry(*node).or_default();
            let again = Duration::from_millis(GREET_AGAIN_MS);
            if link
                .greeted_at
                .is_some_and(|at| now.saturating_duration_since(at) >= again)
            {
                link.greeted_at = Some(now);
                greet.push(*node);
            }
            let dialled = known.control.is_some() || !known.relays.is_empty();
            if dialled && link.due(now) {
                self.resolve(*node);
            }
        }
        greet.into_iter().for_each(|node| self.greet(node));
    }

    /// Relays while the registry says so.
    fn offer_relay(&mut self, membership: &Membership, own: &NodeKey) {
        let known = membership.node(own).filter(|known| known.active && known.relay);
        let address = known.and_then(|known| named(known.control.as_deref()?));
        if address.is_some() == self.relaying {
            return;
        }
        self.relaying = address.is_some();
        let status = match address {
            Some(address) => {
                self.swarm.add_external_address(address);
                relay::Status::Enable
            }
            None => relay::Status::Disable,
        };
        self.swarm.behaviour_mut().relay.set_status(Some(status));
    }

    /// Keeps a reservation at every relay of this node that has a channel.
    fn reserve(&mut self, membership: &Membership, own: &NodeKey) {
        for (relay, address) in relays_of(membership, own) {
            let connected = self.links.get(&relay).is_some_and(|link| link.connections > 0);
            if !connected || self.reserved.contains_key(&relay) {
                continue;
            }
            let Some(at) = named(&address).and_then(|at| circuit(&relay, at)) else {
                continue;
            };
            match self.swarm.listen_on(at) {
                Ok(listener) => {
                    self.reserved.insert(relay, listener);
                }
                Err(error) => tracing::warn!(%relay, %error, "a relay cannot be asked for a reservation"),
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
                    version: self.board.version(node),
                }
            })
            .collect()
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let at = self.trust.now();
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let Some(node) = node_key(&peer_id) else { return };
                let relayed = endpoint.is_relayed();
                tracing::info!(%node, relayed, "channel up");
                self.links.entry(node).or_default().up(at);
                self.board.connected(node, true);
                self.greet(node);
                if endpoint.is_listener() && !self.welcome(&node) {
                    self.swarm.close_connection(connection_id);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established,
                ..
            } => {
                let Some(node) = node_key(&peer_id) else { return };
                tracing::info!(%node, left = num_established, "channel closed");
                self.on_closed(node, num_established);
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
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                self.reserved.retain(|_, listener| *listener != listener_id);
            }
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
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => tracing::debug!(?event, "relay"),
            SwarmEvent::Behaviour(BehaviourEvent::Circuits(event)) => tracing::debug!(?event, "circuit"),
            _ => {}
        }
    }

    /// Whether a member may open one more connection now; who opens them too fast is counted.
    fn welcome(&self, node: &NodeKey) -> bool {
        let membership = self.trust.membership();
        let Some(known) = membership.node(node) else {
            return false;
        };
        let welcome = self.doorman.budgets.connection(&known.org, Instant::now());
        if !welcome {
            let offence = Offence::Connections;
            tracing::warn!(%node, org = %known.org, offence = offence.word(), "a connection is refused");
            self.doorman.ledger.count(&known.org, offence, self.trust.now());
        }
        welcome
    }

    fn on_closed(&mut self, node: NodeKey, left: u32) {
        let (at, now) = (self.trust.now(), Instant::now());
        let spread = self.jitter(REDIAL_SPREAD_MS);
        // Both sides see the end; the one with the lower key dials first, so that they do not dial each other.
        let membership = self.trust.membership();
        let (own, addressed) = (self.trust.node(), |key| {
            membership.node(&key).is_some_and(|known| known.control.is_some())
        });
        let order = if own > node && addressed(own) && addressed(node) {
            REDIAL_ORDER_MS
        } else {
            0
        };
        let link = self.links.entry(node).or_default();
        let waiting = link.down(left, at);
        if left == 0 {
            link.hold(now, Duration::from_millis(order.saturating_add(spread)));
            self.board.connected(node, false);
        }
        waiting.into_iter().for_each(|one| self.open(node, one));
    }
}

async fn looked_up(node: NodeKey, address: &str) -> Vec<Multiaddr> {
    match tokio::net::lookup_host(address).await {
        Ok(found) => found.map(multiaddr).collect(),
        Err(error) => {
            tracing::info!(%node, address, %error, "the address of a node cannot be looked up");
            Vec::new()
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
