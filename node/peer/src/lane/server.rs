//! The custodian's side of the bulk lane: a listener of its own, the same judge, one ask after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use hie_node_pki::config::Channel;
use hie_node_pki::refusal::{ACCEPTED, Refused};
use hie_node_pki::verify::{Peer, Side};
use hie_protocol::id::{NodeKey, OrgId};
use hie_protocol::refusal::Refusal;
use hie_protocol::retrieval::{CHUNK_BYTES_MAX, Item};
use hie_protocol::version::ALPN_BULK_2;

use crate::lane::wire::{self, WireError};
use crate::lane::{LaneFrame, LaneReply, LaneServer};
use crate::live::Guarded;
use crate::trust::Trust;
use crate::upgrade::{UpgradeError, limited, logged};

/// Most lane connections of one member.
pub const CONNECTIONS_PER_MEMBER_MAX: usize = 16;
/// Most lane connections, handshakes included.
pub const CONNECTIONS_MAX: usize = 512;
/// Longest pause between two asks.
pub const IDLE_MS_MAX: u64 = 120_000;
/// Longest time in which the asker takes no byte: it resumes by range.
pub const STALL_MS_MAX: u64 = 60_000;
/// Content bytes that are encrypted and handed to the socket in one go, when as many wait.
const BATCH_BYTES: usize = 2 * CHUNK_BYTES_MAX;
/// Bytes that TLS may hold between the frames and the socket: a batch with the heads of its frames, encrypted.
pub(crate) const TLS_BUFFER_BYTES: usize = BATCH_BYTES + CHUNK_BYTES_MAX;
/// Bytes read from the socket at once.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Pause after the system refused to accept a connection (no file descriptors left).
const ACCEPT_PAUSE_MS: u64 = 100;

type Accepted = Guarded<tokio_rustls::server::TlsStream<BufReader<TcpStream>>>;

/// Why the lane does not start.
#[derive(Debug, thiserror::Error)]
pub enum LaneStartError {
    /// TLS.
    #[error("the TLS of the bulk lane cannot be configured")]
    Tls(#[from] rustls::Error),
    /// Address.
    #[error("the bulk lane cannot listen on {address}")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// The listening side of the bulk lane. Dropping it stops listening and ends its connections.
#[derive(Debug)]
pub struct LaneListener {
    local: SocketAddr,
    stop: CancellationToken,
}

impl LaneListener {
    /// Listens and serves. Errors: every [`LaneStartError`].
    pub async fn start(
        listen: SocketAddr,
        trust: Arc<Trust>,
        server: Arc<dyn LaneServer>,
    ) -> Result<Self, LaneStartError> {
        let acceptor = TlsAcceptor::from(trust.server(Channel::Bulk)?);
        let failed = |source| LaneStartError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let service = Arc::new(Service {
            trust,
            acceptor,
            server,
            members: Members::default(),
            stop: stop.clone(),
        });
        tokio::spawn(accept(listener, service));
        Ok(Self { local, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops listening and ends every connection.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}

impl Drop for LaneListener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Service {
    trust: Arc<Trust>,
    acceptor: TlsAcceptor,
    server: Arc<dyn LaneServer>,
    members: Members,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, service: Arc<Service>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = service.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(%remote, "the bulk lane is full");
                    continue;
                };
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    tokio::select! {
                        () = service.stop.cancelled() => {}
                        () = service.connection(socket, remote) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the bulk lane cannot accept");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

impl Service {
    async fn connection(&self, socket: TcpStream, remote: SocketAddr) {
        let upgraded = logged(
            &remote.to_string(),
            "accepting the bulk lane",
            limited(self.upgrade(socket)).await,
        );
        let Ok((peer, second, mut stream)) = upgraded else {
            return;
        };
        let Some(_place) = self.members.enter(peer.org()) else {
            tracing::warn!(node = %peer.node(), org = %peer.org(), "a member has too many lane connections");
            let refusal = vec![LaneFrame::Refused(Refusal::Budget)];
            // It is told why if it still listens.
            let _told = wire::write_answer(&mut stream, refusal).await;
            let _flushed = stream.flush().await;
            return;
        };
        if let Err(error) = serve(&*self.server, peer.node(), peer.org(), second, &mut stream).await {
            let cut = stream.is_cut();
            tracing::info!(node = %peer.node(), %error, cut, "lane connection ended");
        }
    }

    /// The member, whether the lane is of version 2, and the channel.
    async fn upgrade(&self, socket: TcpStream) -> Result<(Peer, bool, Accepted), UpgradeError> {
        socket.set_nodelay(true).map_err(UpgradeError::Handshake)?;
        let socket = BufReader::with_capacity(READ_BUFFER_BYTES, socket);
        let mut stream = self
            .acceptor
            .accept(socket)
            .await
            .map_err(|error| self.trust.failed(error))?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let second = stream.get_ref().1.alpn_protocol() == Some(ALPN_BULK_2);
        let settled = self.trust.settle(stream.get_ref().1, Side::Client);
        let verdict = settled.as_ref().map_or_else(|refusal| refusal.code(), |_| ACCEPTED);
        stream.write_all(&[verdict]).await.map_err(UpgradeError::Handshake)?;
        stream.flush().await.map_err(UpgradeError::Handshake)?;
        let (peer, channel) = settled.map_err(Refused::Theirs)?;
        Ok((peer, second, channel.guard(stream)))
    }
}

/// One ask after the other, until the asker closes or rests too long. `second`: the lane is of version 2.
/// Errors: every [`WireError`].
pub(crate) async fn serve<S>(
    server: &dyn LaneServer,
    node: NodeKey,
    org: &OrgId,
    second: bool,
    stream: &mut S,
) -> Result<(), WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let idle = Duration::from_millis(IDLE_MS_MAX);
    while let Ok(read) = timeout(idle, wire::read_ask(stream)).await {
        let Some(ask) = read? else { break };
        let many = matches!(ask.item, Item::InstancesFrom(_));
        match server.ask(node, org.clone(), ask).await {
            Ok(reply) => answer(stream, Form { many, second }, reply).await?,
            Err(refusal) => write(stream, vec![LaneFrame::Refused(refusal)]).await?,
        }
        flush(stream).await?;
    }
    Ok(())
}

/// What an answer looks like.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// Items follow each other.
    pub(crate) many: bool,
    /// Headers may carry what version 2 added.
    pub(crate) second: bool,
}

/// Writes an answer as its producer makes it: what waits goes out together, and is flushed whenever the producer pauses.
pub(crate) async fn answer<S>(stream: &mut S, form: Form, mut reply: LaneReply) -> Result<(), WireError>
where
    S: AsyncWrite + Unpin,
{
    let mut open = false;
    loop {
        let first = match reply.try_recv() {
            Ok(frame) => Some(frame),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => {
                flush(stream).await?;
                reply.recv().await
            }
        };
        let Some(first) = first else { break };
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        let mut over = false;
        while let Some(mut frame) = next.take() {
            match &mut frame {
                LaneFrame::Header(header) => {
                    open = true;
                    if !form.second {
                        header.transfer = None;
                    }
                }
                LaneFrame::End => open = false,
                LaneFrame::Chunk(chunk) => bytes += chunk.len(),
                LaneFrame::Refused(_) => {
                    batch.push(frame);
                    return write(stream, batch).await;
                }
            }
            batch.push(frame);
            over = !open && !form.many;
            if !over && bytes < BATCH_BYTES {
                next = reply.try_recv().ok();
            }
        }
        write(stream, batch).await?;
        if over {
            return Ok(());
        }
    }
    if form.many && !open {
        write(stream, vec![LaneFrame::End]).await
    } else {
        Err(WireError::Rule("the source broke off in the middle of an item"))
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, frames: Vec<LaneFrame>) -> Result<(), WireError> {
    timeout(Duration::from_millis(STALL_MS_MAX), wire::write_answer(stream, frames))
        .await
        .unwrap_or_else(|_| stalled())
}

async fn flush<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), WireError> {
    match timeout(Duration::from_millis(STALL_MS_MAX), stream.flush()).await {
        Ok(flushed) => Ok(flushed?),
        Err(_) => stalled(),
    }
}

fn stalled() -> Result<(), WireError> {
    Err(WireError::Rule("the asker takes no bytes"))
}

/// Connections by member.
#[derive(Debug, Default, Clone)]
struct Members(Arc<Mutex<BTreeMap<OrgId, usize>>>);

impl Members {
    fn enter(&self, org: &OrgId) -> Option<Place> {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = members.entry(org.clone()).or_default();
        if *count >= CONNECTIONS_PER_MEMBER_MAX {
            return None;
        }
        *count = count.saturating_add(1);
        drop(members);
        Some(Place {
            members: self.clone(),
            org: org.clone(),
        })
    }
}

struct Place {
    members: Members,
    org: OrgId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut members = self.members.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = members.get_mut(&self.org) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                members.remove(&self.org);
            }
        }
    }
}
