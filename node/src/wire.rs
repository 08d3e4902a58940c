//! The exchange's ports over the real channels: requests by control channel, frames by bulk lane.

use std::pin::Pin;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use hie_node_core::exchange::lane::{Frame, Frames, Lane, Lanes};
use hie_node_core::locator::driver::{Wire, WireFailure};
use hie_node_core::locator::tokens::RegistryView;
use hie_node_peer::failure::PeerFailure;
use hie_node_peer::handle::Peers;
use hie_node_peer::lane::client::{Lane as LaneClient, LaneStream};
use hie_node_peer::lane::{FRAMES_AHEAD_MAX, LaneFrame, LaneReply, LaneServer};
use hie_node_peer::ledger::{Ledger, Offence};
use hie_protocol::id::{NodeKey, OrgId};
use hie_protocol::message::{Request, Response};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::Ask;
use tokio::sync::mpsc;

/// Deadline of one request on the control channel.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline until the first frame of an ask.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);

fn failure(failure: &PeerFailure) -> WireFailure {
    match failure {
        PeerFailure::TimedOut => WireFailure::TimedOut,
        PeerFailure::Misbehaved(_) | PeerFailure::TooLarge => WireFailure::Misbehaved,
        PeerFailure::Unreachable { .. }
        | PeerFailure::Refused(_)
        | PeerFailure::Closed
        | PeerFailure::Version
        | PeerFailure::Crowded => WireFailure::Unreachable,
    }
}

/// Nodes of an organisation, in the order of the registry.
fn nodes(registry: &RegistryView, org: &OrgId) -> Vec<NodeKey> {
    let registry = registry.borrow();
    registry
        .member(org)
        .map(|member| member.nodes.iter().map(|node| node.key).collect())
        .unwrap_or_default()
}

/// Requests to organisations.
pub struct WirePort {
    peers: Peers,
    registry: RegistryView,
}

impl WirePort {
    /// Over the control channels.
    #[must_use]
    pub const fn new(peers: Peers, registry: RegistryView) -> Self {
        Self { peers, registry }
    }
}

impl Wire for WirePort {
    fn send(&self, org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>> {
        let (peers, nodes) = (self.peers.clone(), nodes(&self.registry, &org));
        async move {
            let (frame, since) = (request.encode().map_err(|_| WireFailure::Misbehaved)?, request.since());
            let mut last = WireFailure::Unreachable;
            for node in peers.preferred(nodes) {
                match peers.request_since(node, frame.clone(), since, REQUEST_DEADLINE).await {
                    Ok(bytes) => return Response::decode(&bytes).map_err(|_| WireFailure::Misbehaved),
                    Err(error) => {
                        tracing::debug!(%org, %error, "request failed");
                        last = failure(&error);
                    }
                }
            }
            Err(last)
        }
        .boxed()
    }
}

/// Asks to organisations over the bulk lane.
pub struct LanesPort {
    lane: LaneClient,
    peers: Peers,
    registry: RegistryView,
}

impl LanesPort {
    /// Over the bulk lane.
    #[must_use]
    pub const fn new(lane: LaneClient, peers: Peers, registry: RegistryView) -> Self {
        Self { lane, peers, registry }
    }
}

/// The frames of a lane as the exchange reads them; the first failure is the last item.
fn frames(lane: LaneStream) -> Frames {
    stream::unfold(Some(lane), |lane| async move {
        let mut lane = lane?;
        match lane.next().await {
            Ok(Some(frame)) => {
                let frame = match frame {
                    LaneFrame::Header(header) => Frame::Header(header),
                    LaneFrame::Chunk(bytes) => Frame::Chunk(bytes),
                    LaneFrame::End => Frame::End,
                    LaneFrame::Refused(refusal) => Frame::Refused(refusal),
                };
                Some((Ok(frame), Some(lane)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(failure(&error)), None)),
        }
    })
    .boxed()
}

impl Lanes for LanesPort {
    fn ask(&self, org: OrgId, ask: Ask) -> BoxFuture<'static, Result<Frames, WireFailure>> {
        let nodes = self.peers.preferred(nodes(&self.registry, &org));
        let lane = self.lane.clone();
        async move {
            let mut last = WireFailure::Unreachable;
            for node in nodes {
                match lane.fetch(node, ask.clone(), ASK_DEADLINE).await {
                    Ok(stream) => return Ok(frames(stream)),
                    Err(error) => {
                        tracing::debug!(%org, %error, "ask failed");
                        last = failure(&error);
                    }
                }
            }
            Err(last)
        }
        .boxed()
    }
}

/// Serves asks of other nodes.
pub struct LanePort {
    lane: Lane,
    ledger: Ledger,
}

impl LanePort {
    /// Over the custodian's side; tickets that do not hold are counted.
    #[must_use]
    pub const fn new(lane: Lane, ledger: Ledger) -> Self {
        Self { lane, ledger }
    }
}

impl LaneServer for LanePort {
    fn ask(&self, from: NodeKey, org: OrgId, ask: Ask) -> BoxFuture<'_, Result<LaneReply, Refusal>> {
        let (mut answer, ledger) = (self.lane.serve(from, ask).peekable(), self.ledger.clone());
        async move {
            // Nothing here at once: the ticket is unknown, over, or another node's.
            if let Some(Frame::Refused(Refusal::NothingHere)) = Pin::new(&mut answer).peek().await {
                tracing::warn!(node = %from, %org, "an ask with a ticket that does not hold");
                ledger.count(&org, Offence::Ticket, crate::clock::now());
            }
            let (sender, receiver) = mpsc::channel(FRAMES_AHEAD_MAX);
            tokio::spawn(forward(answer, sender));
            Ok(receiver)
        }
        .boxed()
    }
}

/// Passes frames on with back-pressure, until the reader has gone.
async fn forward(answer: impl Stream<Item = Frame> + Unpin, to: mpsc::Sender<LaneFrame>) {
    // What one read of the content store gave goes on together, so that the connection is woken once for it.
    let mut answer = answer.ready_chunks(FRAMES_AHEAD_MAX);
    while let Some(frames) = answer.next().await {
        for frame in frames {
            let frame = match frame {
                Frame::Header(header) => LaneFrame::Header(header),
                Frame::Chunk(bytes) => LaneFrame::Chunk(bytes),
                Frame::End => LaneFrame::End,
                Frame::Refused(refusal) => LaneFrame::Refused(refusal),
            };
            if to.send(frame).await.is_err() {
                return;
            }
        }
    }
}
