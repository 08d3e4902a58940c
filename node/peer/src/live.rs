//! Live channels by certificate, so that revocation and expiry end them while they are open.
//!
//! A revocation list is read at the handshake only. Each channel therefore registers its certificate here before it is
//! judged for the last time; cutting it makes every further read and write fail at once, whatever the other side does.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use hie_node_pki::refusal::CertificateRefusal;
use hie_node_pki::verify::{Judge, Side};
use hie_protocol::id::NodeKey;

/// Live channels of a node.
#[derive(Debug, Default)]
pub struct LiveTable {
    channels: Mutex<Channels>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct Channels {
    next: u64,
    open: BTreeMap<u64, Channel>,
}

#[derive(Debug)]
struct Channel {
    node: NodeKey,
    chain: Vec<CertificateDer<'static>>,
    side: Side,
    cut: CancellationToken,
}

impl LiveTable {
    /// Registers a channel by the chain that the other side showed.
    pub(crate) fn register(
        self: &Arc<Self>,
        node: NodeKey,
        chain: Vec<CertificateDer<'static>>,
        side: Side,
    ) -> LiveChannel {
        let cut = CancellationToken::new();
        let mut channels = self.lock();
        let id = channels.next;
        channels.next = id.wrapping_add(1);
        channels.open.insert(
            id,
            Channel {
                node,
                chain,
                side,
                cut: cut.clone(),
            },
        );
        LiveChannel {
            table: Arc::clone(self),
            id,
            cut,
        }
    }

    /// Judges every channel again and cuts those that no longer hold.
    pub(crate) fn recheck(&self, judge: &Judge) -> Vec<(NodeKey, CertificateRefusal)> {
        let mut cut = Vec::new();
        for channel in self.lock().open.values().filter(|channel| !channel.cut.is_cancelled()) {
            if let Err(refusal) = judge.judge(&channel.chain, channel.side) {
                tracing::warn!(node = %channel.node, reason = refusal.word(), "live channel cut");
                channel.cut.cancel();
                cut.push((channel.node, refusal));
            }
        }
        cut
    }

    /// Cuts every channel: the node stops.
    pub(crate) fn cut_all(&self) {
        for channel in self.lock().open.values() {
            channel.cut.cancel();
        }
    }

    /// Waits until no channel of these nodes is left.
    pub(crate) async fn gone(&self, nodes: &[NodeKey]) {
        loop {
            let closed = self.closed.notified();
            let left = self
                .lock()
                .open
                .values()
                .any(|one| one.cut.is_cancelled() && nodes.contains(&one.node));
            if !left {
                return;
            }
            closed.await;
        }
    }

    /// Number of live channels with a node.
    #[must_use]
    pub fn count(&self, node: &NodeKey) -> usize {
        self.lock()
            .open
            .values()
            .filter(|channel| channel.node == *node)
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered channel; dropping it takes it off the table.
#[derive(Debug)]
pub(crate) struct LiveChannel {
    table: Arc<LiveTable>,
    id: u64,
    cut: CancellationToken,
}

impl LiveChannel {
    /// Wraps the stream of this channel.
    pub(crate) fn guard<S>(self, stream: S) -> Guarded<S> {
        let wait = Box::pin(self.cut.clone().cancelled_owned());
        Guarded {
            stream,
            wait,
            channel: self,
        }
    }
}

impl Drop for LiveChannel {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.id);
        self.table.closed.notify_waiters();
    }
}

/// A stream that fails from the instant its channel is cut.
///
/// INVARIANT: one task reads and writes; the cut wakes the task that polled last.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    channel: LiveChannel,
}

impl<S> Guarded<S> {
    /// Whether the channel has been cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.channel.cut.is_cancelled()
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.wait.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the channel was cut")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: futures::AsyncRead + Unpin> futures::AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: futures::AsyncWrite + Unpin> futures::AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_close(context)
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
