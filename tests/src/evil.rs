//! A hostile member: a peer with a valid certificate of the region that says what no honest node would say.
//!
//! It speaks the wire by hand (TLS of the real thing, then yamux, protocol names and frames made here), so that
//! nothing of the node's own code stands between a script and the bytes. Scripts live in the modules below, each with
//! the threat it tries and what must come of it: a closed refusal, a count against the member, nothing changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use hie::assemble::identity;
use hie::clock::{self, System};
use hie::home::Home;
use hie_node_pki::config::{Channel, node_client};
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::key::Key;
use hie_node_pki::membership::{Membership, MembershipCell};
use hie_node_pki::verify::Judge;
use hie_protocol::claim::Claim;
use hie_protocol::id::{Correlation, Millis, Nonce, OrgId};
use hie_protocol::message::{IndexMessage, Request, Response, StoreOutcome};
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::Registry;
use hie_protocol::sign::Signer as _;
use hie_protocol::version::{PROTOCOL_REQUEST, SPOKEN, V2};
use hie_protocol::vocabulary::{Purpose, Role};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::upgrade::OutboundConnectionUpgrade as _;
use libp2p::yamux;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

mod claims;
mod frames;
mod index;
mod lanes;
pub mod stage;
mod transport;

/// Longest wait for an answer; longer than any limit of the node that a script runs into.
pub const ANSWER_MS_MAX: u64 = 20_000;

/// A substream.
pub type Pipe = Compat<SubstreamBox>;
/// What a script found: nothing succeeded, or what did.
pub type Found = Result<(), String>;

/// One attack.
pub struct Script {
    /// Name.
    pub name: &'static str,
    /// Threat of the security model.
    pub threat: &'static str,
    /// Kind of offence under which the node counts it, if it can be told from an honest mistake.
    pub counted: Option<&'static str>,
    /// Does it.
    pub act: fn(Arc<Evil>) -> BoxFuture<'static, Found>,
}

/// Every script; those that use up connections come last.
#[must_use]
pub fn scripts() -> Vec<Script> {
    let all = [
        frames::scripts(),
        claims::scripts(),
        index::scripts(),
        lanes::scripts(),
        transport::scripts(),
    ];
    all.into_iter().flatten().collect()
}

/// The hostile member.
pub struct Evil {
    /// Its organisation.
    pub org: OrgId,
    /// Its key.
    pub key: Key,
    /// The registry in force.
    pub registry: Registry,
    /// An older registry, as signed.
    pub older: Vec<u8>,
    /// Whom it attacks.
    pub target: OrgId,
    /// Another honest member.
    pub other: OrgId,
    pub control: SocketAddr,
    pub bulk: SocketAddr,
    identity: NodeIdentity,
    line: tokio::sync::Mutex<Option<Line>>,
    heard: Arc<Mutex<Vec<Request>>>,
    next: AtomicU64,
}

/// A channel that is up.
#[derive(Clone)]
pub struct Line {
    opens: mpsc::Sender<oneshot::Sender<Pipe>>,
}

/// What came of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Said(Box<Response>),
    Closed,
    Silent,
}

impl Evil {
    /// Takes over the identity of a member whose node is stopped. `older` is a registry that it kept.
    pub fn new(home: &Home, registry: Registry, older: Vec<u8>, target: &OrgId, other: &OrgId) -> Self {
        let key = Key::load(&home.node_key()).unwrap();
        let identity = identity(home, &key).unwrap();
        let org = registry.node(&key.node_key()).unwrap().0.org.clone();
        let entry = registry.member(target).unwrap().nodes[0].clone();
        Self {
            org,
            key,
            older,
            target: target.clone(),
            other: other.clone(),
            control: entry.control.unwrap().parse().unwrap(),
            bulk: entry.bulk.unwrap().parse().unwrap(),
            registry,
            identity,
            line: tokio::sync::Mutex::default(),
            heard: Arc::default(),
            next: AtomicU64::new(clock::now().0),
        }
    }

    /// A number that was not used before.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// 16 or 32 bytes that were not used before.
    pub fn fresh<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0xe7; N];
        bytes[..8].copy_from_slice(&self.number().to_be_bytes());
        bytes
    }

    /// TLS with the member's certificate, up to the verdict.
    pub async fn tls(&self, to: SocketAddr, channel: Channel) -> io::Result<TlsStream<TcpStream>> {
        let members = Membership::from_registry(&self.registry).map_err(io::Error::other)?;
        let judge = Arc::new(Judge::new(Arc::new(MembershipCell::new(members)), Arc::new(System)));
        let identity = Arc::new(IdentityCell::new(self.identity.clone()));
        let config = node_client(channel, identity, judge).map_err(io::Error::other)?;
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let mut stream = TlsConnector::from(config)
            .connect(name, TcpStream::connect(to).await?)
            .await?;
        match stream.read_u8().await? {
            0 => Ok(stream),
            verdict => Err(io::Error::other(format!("verdict {verdict}"))),
        }
    }

    /// A channel of its own, without a word said on it.
    pub async fn dial(&self) -> io::Result<Line> {
        let tls = self.tls(self.control, Channel::Control).await?.compat();
        let muxer = yamux::Config::default().upgrade_outbound(tls, "").await?;
        let (opens, inbox) = mpsc::channel(2048);
        tokio::spawn(drive(StreamMuxerBox::new(muxer), inbox, Arc::clone(&self.heard)));
        Ok(Line { opens })
    }

    /// The channel that scripts share, greeted as a member does.
    pub async fn line(&self) -> Result<Line, String> {
        let mut kept = self.line.lock().await;
        if let Some(line) = kept.as_ref().filter(|line| !line.opens.is_closed()) {
            return Ok(line.clone());
        }
        let line = self.dial().await.map_err(|error| error.to_string())?;
        let hello = Request::Hello {
            versions: SPOKEN.to_vec(),
            registry: self.registry.version,
            clock: clock::now(),
        };
        let answer = line.ask(&hello.encode().unwrap()).await;
        if !matches!(&answer, Answer::Said(said) if matches!(**said, Response::Hello { .. })) {
            return Err(format!("no greeting: {answer:?}"));
        }
        // As every member does, so that its silence does not make the index less whole.
        let announce = IndexMessage::Store {
            id: self.registry.version,
            records: Vec::new(),
        };
        line.ask(&Request::Index(announce).encode().unwrap()).await;
        *kept = Some(line.clone());
        Ok(line)
    }

    /// Sends a frame and demands this refusal.
    pub async fn refused(&self, frame: impl AsRef<[u8]>, refusal: Refusal) -> Found {
        expect(self.line().await?.ask(frame.as_ref()).await, refusal)
    }

    /// Sends bytes as they are, closes, and demands this refusal.
    pub async fn bytes_refused(&self, bytes: &[u8], refusal: Refusal) -> Found {
        expect(self.line().await?.raw(bytes, true).await, refusal)
    }

    /// Sends a request that is taken.
    pub async fn taken(&self, message: IndexMessage) -> Found {
        let frame = Request::Index(message).encode().unwrap();
        match self.line().await?.ask(&frame).await {
            Answer::Said(said) if *said == Response::Taken => Ok(()),
            other => Err(format!("not taken: {other:?}")),
        }
    }

    /// What the target answered to a store, as a datagram of its own.
    pub async fn stored(&self, id: u64) -> Result<Vec<StoreOutcome>, String> {
        let found = || {
            let heard = self.heard.lock().unwrap();
            heard.iter().find_map(|request| match request {
                Request::Index(IndexMessage::Stored { id: of, outcomes }) if *of == id => Some(outcomes.clone()),
                _ => None,
            })
        };
        self.until(found).await
    }

    /// What the target answered to a lookup.
    pub async fn found(&self, id: u64) -> Result<(Vec<Vec<Vec<u8>>>, bool), String> {
        let found = || {
            let heard = self.heard.lock().unwrap();
            heard.iter().find_map(|request| match request {
                Request::Index(IndexMessage::Found {
                    id: of, records, whole, ..
                }) if *of == id => {
                    let bytes = records
                        .iter()
                        .map(|of_key| of_key.iter().map(|one| one.0.clone()).collect());
                    Some((bytes.collect(), *whole))
                }
                _ => None,
            })
        };
        self.until(found).await
    }

    /// Whether the target said anything about this question.
    pub fn heard_of(&self, id: u64) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.iter().any(|request| match request {
            Request::Index(IndexMessage::Stored { id: of, .. } | IndexMessage::Found { id: of, .. }) => *of == id,
            _ => false,
        })
    }

    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> Result<T, String> {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let waiting = async {
            loop {
                every.tick().await;
                if let Some(found) = look() {
                    return found;
                }
            }
        };
        let limit = Duration::from_millis(ANSWER_MS_MAX);
        let found = tokio::time::timeout(limit, waiting).await;
        found.map_err(|_| "no answer to the datagram".to_owned())
    }

    /// A claim that holds.
    pub fn claim(&self) -> Claim {
        let issued = clock::now();
        Claim {
            org: self.org.clone(),
            node: self.key.node(),
            user: "mallory".to_owned(),
            user_name: "M. Allory".to_owned(),
            role: Role::Physician,
            purpose: Purpose::Treatment,
            evidence: None,
            break_glass: None,
            audience: self.target.clone(),
            correlation: Correlation::new(self.fresh()),
            nonce: Nonce::new(self.fresh()),
            issued,
            expires: issued.plus(60_000),
        }
    }

    /// An expiry in the middle of what a record may have.
    pub fn soon(&self) -> Millis {
        clock::now().plus(self.registry.policy.record_life_ms / 2)
    }
}

/// Demands a refusal.
pub fn expect(answer: Answer, refusal: Refusal) -> Found {
    if answer == Answer::Said(Box::new(Response::Refused(refusal))) {
        Ok(())
    } else {
        Err(format!("expected {refusal:?}, got {answer:?}"))
    }
}

impl Line {
    /// Opens a substream without a word on it.
    pub async fn pipe(&self) -> io::Result<Pipe> {
        let (reply, opened) = oneshot::channel();
        let closed = || io::Error::from(io::ErrorKind::NotConnected);
        self.opens.send(reply).await.map_err(|_| closed())?;
        opened.await.map_err(|_| closed())
    }

    /// Opens a substream for a protocol; none when the other side does not speak it.
    pub async fn open(&self, protocol: &str) -> io::Result<Option<Pipe>> {
        let mut pipe = self.pipe().await?;
        for line in ["/multistream/1.0.0", protocol] {
            say(&mut pipe, line).await?;
        }
        pipe.flush().await?;
        hear(&mut pipe).await?;
        let answer = hear(&mut pipe).await?;
        Ok((answer == protocol).then_some(pipe))
    }

    /// One frame, one answer.
    pub async fn ask(&self, frame: &[u8]) -> Answer {
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.raw(&bytes, true).await
    }

    /// Bytes as they are, head and all; then the answer. `close`: nothing more comes from here.
    pub async fn raw(&self, bytes: &[u8], close: bool) -> Answer {
        let talk = async {
            let Some(mut pipe) = self.open(PROTOCOL_REQUEST).await? else {
                return Err(io::Error::from(io::ErrorKind::Unsupported));
            };
            pipe.write_all(bytes).await?;
            pipe.flush().await?;
            if close {
                pipe.shutdown().await?;
            }
            answer_on(&mut pipe).await
        };
        match tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), talk).await {
            Ok(Ok(response)) => Answer::Said(Box::new(response)),
            Ok(Err(_)) => Answer::Closed,
            Err(_) => Answer::Silent,
        }
    }
}

/// Reads one answer.
pub async fn answer_on(pipe: &mut Pipe) -> io::Result<Response> {
    let length = pipe.read_u32().await?;
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    pipe.read_exact(&mut frame).await?;
    Response::decode(&frame).map_err(io::Error::other)
}

/// A line of the protocol negotiation: its length, the text, a line feed.
async fn say(pipe: &mut Pipe, text: &str) -> io::Result<()> {
    let mut line = vec![u8::try_from(text.len() + 1).unwrap()];
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    pipe.write_all(&line).await
}

async fn hear(pipe: &mut Pipe) -> io::Result<String> {
    let length = pipe.read_u8().await?;
    let mut line = vec![0; usize::from(length)];
    pipe.read_exact(&mut line).await?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Keeps a channel going: opens substreams on demand and answers those of the other side.
async fn drive(
    mut muxer: StreamMuxerBox,
    mut opens: mpsc::Receiver<oneshot::Sender<Pipe>>,
    heard: Arc<Mutex<Vec<Request>>>,
) {
    let mut waiting: VecDeque<oneshot::Sender<Pipe>> = VecDeque::new();
    poll_fn(move |context| {
        loop {
            let mut moved = false;
            while let Poll::Ready(wish) = opens.poll_recv(context) {
                match wish {
                    Some(wish) => waiting.push_back(wish),
                    None => return Poll::Ready(()),
                }
            }
            if !waiting.is_empty()
                && let Poll::Ready(opened) = muxer.poll_outbound_unpin(context)
            {
                let Ok(stream) = opened else { return Poll::Ready(()) };
                if let Some(wish) = waiting.pop_front() {
                    let _gone = wish.send(stream.compat());
                }
                moved = true;
            }
            match muxer.poll_inbound_unpin(context) {
                Poll::Ready(Ok(stream)) => {
                    tokio::spawn(listen(stream.compat(), Arc::clone(&heard)));
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(_)) = muxer.poll_unpin(context) {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// Answers a substream of the other side like a member, and keeps what it said.
async fn listen(mut pipe: Pipe, heard: Arc<Mutex<Vec<Request>>>) -> io::Result<()> {
    loop {
        match hear(&mut pipe).await?.as_str() {
            "/multistream/1.0.0" => say(&mut pipe, "/multistream/1.0.0").await?,
            PROTOCOL_REQUEST => {
                say(&mut pipe, PROTOCOL_REQUEST).await?;
                break;
            }
            _ => say(&mut pipe, "na").await?,
        }
        pipe.flush().await?;
    }
    pipe.flush().await?;
    let length = pipe.read_u32().await?;
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    pipe.read_exact(&mut frame).await?;
    let request = Request::decode(&frame).map_err(io::Error::other)?;
    let answer = match &request {
        Request::Hello { registry, .. } => Response::Hello {
            version: V2,
            registry: *registry,
            clock: clock::now(),
        },
        _ => Response::Taken,
    };
    heard.lock().unwrap().push(request);
    let answer = answer.encode().unwrap();
    pipe.write_u32(u32::try_from(answer.len()).unwrap()).await?;
    pipe.write_all(&answer).await?;
    pipe.shutdown().await
}
