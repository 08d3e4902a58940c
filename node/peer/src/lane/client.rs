//! The asker's side of the bulk lane: connections pooled by node, one ask at a time on each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

use hie_node_pki::config::Channel;
use hie_node_pki::refusal::{CertificateRefusal, Refused};
use hie_node_pki::verify::{Peer, Side};
use hie_protocol::id::NodeKey;
use hie_protocol::retrieval::{Ask, Item};

use crate::failure::PeerFailure;
use crate::handle::Peers;
use crate::lane::LaneFrame;
use crate::lane::server::{READ_BUFFER_BYTES, TLS_BUFFER_BYTES};
use crate::lane::substream::{self, Substream};
use crate::lane::wire::{self, WireError};
use crate::live::Guarded;
use crate::trust::Trust;
use crate::upgrade::{UpgradeError, heard, limited, logged, nameless};

/// Longest rest of a pooled connection; shorter than the custodian's.
pub const REST_MS_MAX: u64 = 60_000;
/// Most pooled connections of one node.
pub const POOLED_MAX: usize = 4;
/// Longest wait for the next frame of an answer.
pub const FRAME_MS_MAX: u64 = 60_000;

type Dialled = Guarded<tokio_rustls::client::TlsStream<BufReader<TcpStream>>>;

/// What carries the frames of an ask.
enum Carrier {
    /// A connection of the lane.
    Own(Box<Dialled>),
    /// A substream of the control channel.
    Substream(Substream),
}

impl Carrier {
    async fn write_ask(&mut self, ask: &Ask) -> Result<(), WireError> {
        match self {
            Self::Own(stream) => wire::write_ask(stream, ask).await,
            Self::Substream(stream) => wire::write_ask(stream, ask).await,
        }
    }

    async fn read_answer(&mut self) -> Result<LaneFrame, WireError> {
        match self {
            Self::Own(stream) => wire::read_answer(stream).await,
            Self::Substream(stream) => wire::read_answer(stream).await,
        }
    }
}

impl core::fmt::Debug for Carrier {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::Own(_) => "Own",
            Self::Substream(_) => "Substream",
        })
    }
}

/// The asking side of the bulk lane. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    trust: Arc<Trust>,
    connector: TlsConnector,
    pool: Mutex<BTreeMap<NodeKey, Vec<Resting>>>,
    peers: Option<Peers>,
}

struct Resting {
    stream: Dialled,
    since: Instant,
}

impl Lane {
    /// Prepares the lane; with `peers`, a custodian that cannot be dialled is asked over its control channel.
    /// Errors: rustls' own, when TLS cannot be configured.
    pub fn new(trust: Arc<Trust>, peers: Option<Peers>) -> Result<Self, rustls::Error> {
        let connector = TlsConnector::from(trust.client(Channel::Bulk)?);
        Ok(Self {
            inner: Arc::new(Inner {
                trust,
                connector,
                pool: Mutex::default(),
                peers,
            }),
        })
    }

    /// Asks a node and waits for the first frame of its answer until `deadline`, counted from now.
    ///
    /// Errors: every [`PeerFailure`]. A refusal of the ask is a frame, not an error.
    pub async fn fetch(&self, node: NodeKey, ask: Ask, deadline: Duration) -> Result<LaneStream, PeerFailure> {
        let until = tokio::time::Instant::now().checked_add(deadline);
        let asked = async {
            // A pooled connection may have been closed at the other end: an ask that got no answer is asked anew.
            while let Some(stream) = self.inner.resting(node) {
                if let Ok(begun) = self.begin(node, Carrier::Own(Box::new(stream)), &ask).await {
                    return Ok(begun);
                }
            }
            match (self.inner.connect(node).await, &self.inner.peers) {
                (Ok(stream), _) => self.begin(node, Carrier::Own(Box::new(stream)), &ask).await,
                // No address, or nobody there: it may have a control channel that is open.
                (Err(PeerFailure::Unreachable { .. }), Some(peers)) => {
                    let stream = substream::open(peers, node).await?;
                    self.begin(node, Carrier::Substream(stream), &ask).await
                }
                (Err(failure), _) => Err(failure),
            }
        };
        match until {
            Some(until) => timeout_at(until, asked).await.unwrap_or(Err(PeerFailure::TimedOut)),
            None => asked.await,
        }
    }

    async fn begin(&self, node: NodeKey, mut stream: Carrier, ask: &Ask) -> Result<LaneStream, PeerFailure> {
        stream.write_ask(ask).await.map_err(|error| failure(&error))?;
        let first = stream.read_answer().await.map_err(|error| failure(&error))?;
        let many = matches!(ask.item, Item::InstancesFrom(_));
        let state = State {
            open: false,
            many,
            done: false,
        };
        Ok(LaneStream {
            lane: self.clone(),
            node,
            stream: Some(stream),
            first: Some(first),
            state,
        })
    }
}

impl core::fmt::Debug for Lane {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("Lane")
    }
}

impl Inner {
    /// A pooled connection that still holds; connections that rested too long or were cut are closed.
    fn resting(&self, node: NodeKey) -> Option<Dialled> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Duration::from_millis(REST_MS_MAX);
        for streams in pool.values_mut() {
            streams.retain(|resting| !resting.stream.is_cut() && resting.since.elapsed() < limit);
        }
        pool.retain(|_, streams| !streams.is_empty());
        pool.get_mut(&node)?.pop().map(|resting| resting.stream)
    }

    fn rest(&self, node: NodeKey, stream: Dialled) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = pool.entry(node).or_default();
        if streams.len() < POOLED_MAX && !stream.is_cut() {
            streams.push(Resting {
                stream,
                since: Instant::now(),
            });
        }
    }

    async fn connect(&self, node: NodeKey) -> Result<Dialled, PeerFailure> {
        let membership = self.trust.membership();
        let known = membership
            .node(&node)
            .ok_or(PeerFailure::Refused(CertificateRefusal::NotInRegistry))?;
        if !known.active {
            return Err(PeerFailure::Refused(CertificateRefusal::Suspended));
        }
        let unreachable = PeerFailure::Unreachable { since: None };
        let address = known.bulk.clone().ok_or(unreachable)?;
        let upgraded = limited(self.upgrade(&address)).await;
        let (peer, stream) = logged(&address, "dialling the bulk lane", upgraded).map_err(|error| match error {
            UpgradeError::Refused(refused) => PeerFailure::Refused(refused.reason()),
            UpgradeError::TimedOut => PeerFailure::TimedOut,
            UpgradeError::Verdict(_) => PeerFailure::Misbehaved("its verdict is not of this protocol"),
            _ => unreachable,
        })?;
        if peer.node() == node {
            Ok(stream)
        } else {
            tracing::warn!(%node, answered = %peer.node(), "another node answers at the address of the bulk lane");
            Err(PeerFailure::Misbehaved("another node answers at its address"))
        }
    }

    async fn upgrade(&self, address: &str) -> Result<(Peer, Dialled), UpgradeError> {
        let socket = TcpStream::connect(address).await.map_err(UpgradeError::Handshake)?;
        socket.set_nodelay(true).map_err(UpgradeError::Handshake)?;
        let socket = BufReader::with_capacity(READ_BUFFER_BYTES, socket);
        let mut stream = self
            .connector
            .connect(nameless(), socket)
            .await
            .map_err(|error| self.trust.failed(error))?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let mut verdict = [0_u8; 1];
        stream
            .read_exact(&mut verdict)
            .await
            .map_err(|error| self.trust.no_verdict(error))?;
        heard(verdict)?;
        let (peer, channel) = self
            .trust
            .settle(stream.get_ref().1, Side::Server)
            .map_err(Refused::Theirs)?;
        Ok((peer, channel.guard(stream)))
    }
}

fn failure(error: &WireError) -> PeerFailure {
    match error {
        WireError::Io(_) => PeerFailure::Closed,
        WireError::Rule(rule) => PeerFailure::Misbehaved(rule),
        WireError::Body(_) => PeerFailure::Misbehaved("the body of a frame is malformed"),
    }
}

/// Where an answer stands.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Inside an item.
    open: bool,
    /// Whether items follow each other.
    many: bool,
    /// The answer is over.
    done: bool,
}

impl State {
    /// Takes the next frame into account; gives whether it is one for the caller.
    fn step(&mut self, frame: &LaneFrame) -> Result<bool, PeerFailure> {
        match (frame, self.open) {
            (LaneFrame::Header(_), false) => self.open = true,
            (LaneFrame::Chunk(_), true) => {}
            (LaneFrame::End, true) => {
                self.open = false;
                self.done = !self.many;
            }
            (LaneFrame::End, false) if self.many => {
                self.done = true;
                return Ok(false);
            }
            (LaneFrame::Refused(_), _) => {
                self.open = false;
                self.done = true;
            }
            _ => return Err(PeerFailure::Misbehaved("frames of an answer out of order")),
        }
        Ok(true)
    }
}

/// The frames of one answer. Reading slowly slows the custodian down; dropping it early closes the connection.
#[derive(Debug)]
pub struct LaneStream {
    lane: Lane,
    node: NodeKey,
    stream: Option<Carrier>,
    first: Option<LaneFrame>,
    state: State,
}

impl LaneStream {
    /// The next frame; none when the answer is over. Waits at most [`FRAME_MS_MAX`].
    ///
    /// Errors: every [`PeerFailure`]; after one, nothing more comes.
    pub async fn next(&mut self) -> Result<Option<LaneFrame>, PeerFailure> {
        if self.state.done {
            return Ok(None);
        }
        let outcome = self.frame().await;
        if outcome.is_err() {
            self.state.done = true;
            self.stream = None;
        }
        outcome
    }

    async fn frame(&mut self) -> Result<Option<LaneFrame>, PeerFailure> {
        let frame = match self.first.take() {
            Some(first) => first,
            None => {
                let stream = self.stream.as_mut().ok_or(PeerFailure::Closed)?;
                let limit = Duration::from_millis(FRAME_MS_MAX);
                let read = timeout(limit, stream.read_answer())
                    .await
                    .map_err(|_| PeerFailure::TimedOut)?;
                read.map_err(|error| failure(&error))?
            }
        };
        let shown = self.state.step(&frame)?;
        if self.state.done
            && let Some(Carrier::Own(stream)) = self.stream.take()
        {
            self.lane.inner.rest(self.node, *stream);
        }
        Ok(shown.then_some(frame))
    }
}
