//! A wide area between processes on one machine: a relay for each address that holds every byte back for a while in each
//! direction, without limiting how many are on their way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on their way in one direction of one connection at most: 64 MiB, beyond what a lane keeps in flight.
const CHUNKS_MAX: usize = 1024;

/// How long each direction holds bytes back; shared by all relays of a region.
#[derive(Clone, Debug, Default)]
pub struct Distance(Arc<AtomicU64>);

impl Distance {
    /// Sets the round trip that the relays add from now on.
    pub fn round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros() / 2).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn one_way(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Relays connections that arrive at `from` to `to`, until the runtime ends.
pub async fn relay(from: &str, to: String, distance: Distance) -> io::Result<()> {
    let listener = TcpListener::bind(from).await?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(join(near, to.clone(), distance.clone()));
        }
    });
    Ok(())
}

async fn join(near: TcpStream, to: String, distance: Distance) {
    // Whoever dials sees the end of a connection that has nobody behind it.
    let Ok(far) = TcpStream::connect(to).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::spawn(carry(near_in, far_out, distance.clone()));
    tokio::spawn(carry(far_in, near_out, distance));
}

/// Carries one direction: reading goes on while earlier bytes still travel.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, distance: Distance) {
    let (sender, mut travelling) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let writing = async move {
        while let Some((due, bytes)) = travelling.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The other side may have ended first.
        let _ended = to.shutdown().await;
    };
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + distance.one_way(), bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(writing, reading);
}
