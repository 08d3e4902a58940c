//! Raw substreams of the control channels: opens them to another node, and hands those that others open to the
//! doorman. It knows nothing of what travels on them.
//!
//! A node may have several connections. A substream goes over the newest direct one, else over the newest relayed one:
//! an old connection may be dead without anybody having noticed yet.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::{Ready, ready};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::UpgradeInfo;
use libp2p::swarm::derive_prelude::{ConnectionClosed, ConnectionEstablished, FromSwarm};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, NetworkBehaviour, NotifyHandler, Stream,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{InboundUpgrade, Multiaddr, OutboundUpgrade, PeerId, StreamProtocol};
use tokio::sync::oneshot;

use hie_protocol::id::NodeKey;
use hie_protocol::version::{PROTOCOL_BULK, PROTOCOL_REQUEST};

use crate::failure::PeerFailure;
use crate::trust::node_key;

/// What travels on a substream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One request and its answer.
    Request,
    /// Asks of the bulk lane.
    Bulk,
}

impl Kind {
    const fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Request => PROTOCOL_REQUEST,
            Self::Bulk => PROTOCOL_BULK,
        })
    }
}

/// Where an opened substream goes.
pub(crate) type OpenReply = oneshot::Sender<Result<Stream, PeerFailure>>;

/// Takes substreams that other nodes open.
pub(crate) trait Door: Send + Sync + 'static {
    /// A node opened a substream.
    fn opened(self: Arc<Self>, node: NodeKey, kind: Kind, stream: Stream);
}

/// A wish for a substream.
#[derive(Debug)]
pub(crate) struct Open {
    kind: Kind,
    reply: OpenReply,
}

#[derive(Debug, Clone, Copy)]
struct Route {
    connection: ConnectionId,
    relayed: bool,
}

/// The behaviour.
pub(crate) struct Streams {
    door: Arc<dyn Door>,
    routes: BTreeMap<PeerId, Vec<Route>>,
    queue: VecDeque<ToSwarm<Infallible, Open>>,
    waker: Option<Waker>,
}

impl Streams {
    pub(crate) fn new(door: Arc<dyn Door>) -> Self {
        Self {
            door,
            routes: BTreeMap::new(),
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a substream; a node without a connection answers [`PeerFailure::Closed`].
    pub(crate) fn open(&mut self, peer: PeerId, kind: Kind, reply: OpenReply) {
        let routes = self.routes.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let newest = routes.iter().rev();
        let Some(route) = newest.clone().find(|route| !route.relayed).or_else(|| routes.last()) else {
            // Whoever asked may have gone.
            let _gone = reply.send(Err(PeerFailure::Closed));
            return;
        };
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(route.connection),
            event: Open { kind, reply },
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            node: node_key(&peer),
            door: Arc::clone(&self.door),
            wishes: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => self.routes.entry(peer_id).or_default().push(Route {
                connection: connection_id,
                relayed: endpoint.is_relayed(),
            }),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id, connection_id, ..
            }) => {
                if let Some(routes) = self.routes.get_mut(&peer_id) {
                    routes.retain(|route| route.connection != connection_id);
                    if routes.is_empty() {
                        self.routes.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// One connection.
pub(crate) struct Handler {
    node: Option<NodeKey>,
    door: Arc<dyn Door>,
    wishes: VecDeque<Open>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offered;
    type OutboundProtocol = Wanted;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Offered> {
        SubstreamProtocol::new(Offered, ())
    }

    fn on_behaviour_event(&mut self, wish: Open) {
        self.wishes.push_back(wish);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Wanted, OpenReply, Infallible>> {
        // The swarm polls again after every event of the behaviour.
        while let Some(wish) = self.wishes.pop_front() {
            if !wish.reply.is_closed() {
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Wanted(wish.kind), wish.reply),
                });
            }
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offered, Wanted, (), OpenReply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (kind, stream),
                ..
            }) => {
                if let Some(node) = self.node {
                    Arc::clone(&self.door).opened(node, kind, stream);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                // Whoever asked may have gone; dropping the stream resets it.
                let _gone = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => PeerFailure::TimedOut,
                    StreamUpgradeError::NegotiationFailed => PeerFailure::Misbehaved("it does not take such requests"),
                    StreamUpgradeError::Io(_) => PeerFailure::Closed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _gone = info.send(Err(failure));
            }
            _ => {}
        }
    }
}

/// What this node takes on a substream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered;

impl UpgradeInfo for Offered {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [Kind::Request.name(), Kind::Bulk.name()]
    }
}

impl InboundUpgrade<Stream> for Offered {
    type Output = (Kind, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        let kind = if name == Kind::Bulk.name() {
            Kind::Bulk
        } else {
            Kind::Request
        };
        ready(Ok((kind, stream)))
    }
}

/// What this node wants on a substream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(Kind);

impl UpgradeInfo for Wanted {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];

    fn protocol_info(&self) -> Self::InfoIter {
        [self.0.name()]
    }
}

impl OutboundUpgrade<Stream> for Wanted {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
