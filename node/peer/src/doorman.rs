//! The answering side of substreams: budget first, then the head, then the bytes, then whoever answers.
//!
//! ```text
//! substream -> active member? -> place -> head -> bytes and rate -> body -> Hello: here
//!                                                                        -> else: the node, answer, slow reader's time
//! ```
//!
//! Every refusal leaves as a closed code and is counted against the member. `Hello` is answered here, so that the
//! version of a channel is settled before anything else is taken from it (SPEC P-VERSION).

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::{Millis, NodeKey, OrgId};
use hie_protocol::message::{Request, Response};
use hie_protocol::refusal::Refusal;
use hie_protocol::version::{ProtocolVersion, UNGREETED, negotiate};

use crate::board::{Board, Greeting};
use crate::budget::{Budgets, InFlight, Transfer};
use crate::codec::{self, FrameFault};
use crate::handle::{DEADLINE_MS_MAX, InboundRequest};
use crate::ledger::{Ledger, Offence};
use crate::streams::{Door, Kind};
use crate::trust::Trust;

/// Refusals of over-budget substreams that are written at the same time; beyond it a substream is reset unanswered.
const REFUSING_MAX: usize = 64;
/// Longest time in which a refused frame is read and thrown away, so that the refusal is heard.
const DRAIN_MS_MAX: u64 = 2_000;
/// How a frame begins that carries `Hello`: a map of one entry with that text as its key.
const HELLO_HEAD: &[u8] = b"\xa1\x65hello";

/// Takes transfers over substreams.
pub(crate) trait Transfers: Send + Sync + 'static {
    /// A member's node opened a substream for asks of the bulk lane.
    fn opened(&self, node: NodeKey, org: OrgId, stream: Stream, place: Transfer);
}

/// The doorman of a node.
pub(crate) struct Doorman {
    pub trust: Arc<Trust>,
    pub board: Arc<Board>,
    pub budgets: Budgets,
    pub ledger: Ledger,
    pub versions: Vec<ProtocolVersion>,
    pub inbound: mpsc::Sender<InboundRequest>,
    pub transfers: Arc<OnceLock<Arc<dyn Transfers>>>,
    refusing: Arc<Semaphore>,
}

/// Why a request is not answered by the node.
struct Stop {
    refusal: Refusal,
    offence: Option<Offence>,
}

impl Stop {
    const fn of(refusal: Refusal, offence: Offence) -> Self {
        Self {
            refusal,
            offence: Some(offence),
        }
    }
}

impl From<FrameFault> for Option<Stop> {
    /// None: the other side has gone and there is nobody to answer.
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::Oversize(_) => Some(Stop::of(Refusal::Malformed, Offence::Oversize)),
            FrameFault::Short => Some(Stop::of(Refusal::Malformed, Offence::Malformed)),
            FrameFault::Slow => Some(Stop::of(Refusal::Budget, Offence::Slow)),
            FrameFault::Io(_) => None,
        }
    }
}

impl Doorman {
    pub(crate) fn new(
        trust: Arc<Trust>,
        board: Arc<Board>,
        ledger: Ledger,
        versions: Vec<ProtocolVersion>,
        inbound: mpsc::Sender<InboundRequest>,
    ) -> Self {
        Self {
            trust,
            board,
            budgets: Budgets::default(),
            ledger,
            versions,
            inbound,
            transfers: Arc::default(),
            refusing: Arc::new(Semaphore::new(REFUSING_MAX)),
        }
    }

    fn count(&self, org: &OrgId, offence: Offence) {
        self.ledger.count(org, offence, self.trust.now());
    }

    async fn request(&self, node: NodeKey, org: OrgId, mut place: InFlight, mut stream: Stream) {
        let stop = match self.answered(node, &org, &mut place, &mut stream).await {
            Ok(()) => return,
            Err(None) => return,
            Err(Some(stop)) => stop,
        };
        if let Some(offence) = stop.offence {
            tracing::info!(%node, %org, offence = offence.word(), "a request is refused");
            self.count(&org, offence);
        }
        refuse(stream, stop.refusal).await;
    }

    /// From the first byte of a request to the last of its answer.
    async fn answered(
        &self,
        node: NodeKey,
        org: &OrgId,
        place: &mut InFlight,
        stream: &mut Stream,
    ) -> Result<(), Option<Stop>> {
        let over = || Some(Stop::of(Refusal::Budget, Offence::Budget));
        let wanted = codec::head(stream).await?;
        let pause = place.announce(wanted, Instant::now()).ok_or_else(over)?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let frame = codec::body(stream, wanted).await?;
        let answer = if frame.starts_with(HELLO_HEAD) {
            self.hello(node, &frame)?
        } else {
            self.asked(node, org, frame).await?
        };
        place.answer(answer.len());
        let written = async {
            codec::write(stream, &answer).await?;
            stream.close().await
        };
        if let Err(error) = written.await
            && error.kind() == std::io::ErrorKind::TimedOut
        {
            tracing::info!(%node, %org, "an answer is not taken in time");
            self.count(org, Offence::Slow);
        }
        Ok(())
    }

    /// Settles the version of a channel.
    fn hello(&self, node: NodeKey, frame: &[u8]) -> Result<Vec<u8>, Option<Stop>> {
        let malformed = || Some(Stop::of(Refusal::Malformed, Offence::Malformed));
        let Ok(Request::Hello { versions, .. }) = Request::decode(frame) else {
            return Err(malformed());
        };
        let Some(version) = negotiate(&self.versions, &versions) else {
            self.board.greeted(node, Greeting::Nothing);
            return Err(Some(Stop::of(Refusal::Version, Offence::Version)));
        };
        self.board.greeted(node, Greeting::Speaks(version));
        let answer = Response::Hello {
            version,
            registry: self.trust.membership().version(),
            clock: self.trust.now(),
        };
        answer.encode().map_err(|_| malformed())
    }

    /// Hands a request to the node and waits for its answer.
    async fn asked(&self, from: NodeKey, org: &OrgId, frame: Vec<u8>) -> Result<Vec<u8>, Option<Stop>> {
        let version = match self.board.greeting(&from) {
            Greeting::Speaks(version) => version,
            Greeting::Open => UNGREETED,
            Greeting::Nothing => return Err(Some(Stop::of(Refusal::Version, Offence::Version))),
        };
        let (reply, answer) = oneshot::channel();
        let request = InboundRequest {
            from,
            org: org.clone(),
            version,
            frame,
            reply,
        };
        let plain = |refusal| Some(Stop { refusal, offence: None });
        self.inbound.try_send(request).map_err(|_| plain(Refusal::Busy))?;
        let limit = Duration::from_millis(DEADLINE_MS_MAX);
        let answer = tokio::time::timeout(limit, answer).await;
        let frame = answer.ok().and_then(Result::ok).ok_or_else(|| plain(Refusal::Failed))?;
        if frame.len() > FRAME_BYTES_MAX {
            return Err(plain(Refusal::Failed));
        }
        Ok(frame)
    }

    /// Refuses a substream for which there is no place.
    fn crowded(&self, org: &OrgId, stream: Stream) {
        self.count(org, Offence::Budget);
        if let Ok(turn) = Arc::clone(&self.refusing).try_acquire_owned() {
            tokio::spawn(async move {
                refuse(stream, Refusal::Budget).await;
                drop(turn);
            });
        }
    }
}

impl Door for Doorman {
    fn opened(self: Arc<Self>, node: NodeKey, kind: Kind, stream: Stream) {
        let membership = self.trust.membership();
        // The channel of a node that is out is being cut; dropping the stream resets it.
        let Some(known) = membership.node(&node).filter(|known| known.active) else {
            return;
        };
        let org = known.org.clone();
        match kind {
            Kind::Request => match self.budgets.enter(&org, Instant::now()) {
                Some(place) => {
                    tokio::spawn(async move { self.request(node, org, place, stream).await });
                }
                None => self.crowded(&org, stream),
            },
            Kind::Bulk => {
                let place = self.budgets.transfer(&org, Instant::now());
                match (self.transfers.get(), place) {
                    (Some(transfers), Some(place)) => transfers.opened(node, org, stream, place),
                    (Some(_), None) => self.count(&org, Offence::Budget),
                    (None, _) => {}
                }
            }
        }
    }
}

/// Writes a refusal, then reads what the other side is still sending for a short while: a reset could overtake it.
async fn refuse(mut stream: Stream, refusal: Refusal) {
    let Ok(frame) = Response::Refused(refusal).encode() else {
        return;
    };
    let told = async {
        codec::write(&mut stream, &frame).await?;
        stream.close().await?;
        let (mut left, mut rest) = (FRAME_BYTES_MAX, [0_u8; 4096]);
        while left > 0 {
            match stream.read(&mut rest).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok::<(), std::io::Error>(())
    };
    // Who does not listen is not told.
    let _told = tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), told).await;
}

/// The `Hello` of this node.
pub(crate) fn greeting(versions: &[ProtocolVersion], registry: u64, clock: Millis) -> Option<Vec<u8>> {
    let hello = Request::Hello {
        versions: versions.to_vec(),
        registry,
        clock,
    };
    hello.encode().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::id::Millis;
    use hie_protocol::version::SPOKEN;

    use super::{HELLO_HEAD, greeting};

    #[test]
    fn a_hello_is_known_by_its_head() {
        assert!(greeting(&SPOKEN, 7, Millis(1)).unwrap().starts_with(HELLO_HEAD));
    }
}
