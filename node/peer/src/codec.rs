//! One frame each way on a substream: `length (u32 BE) | bytes`, at most [`FRAME_BYTES_MAX`] (SPEC P-CHAN).
//!
//! Head and body are read apart, so that a budget can be asked in between. Every read and write has its time: a fixed
//! part and a part by its bytes.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use hie_protocol::cbor::FRAME_BYTES_MAX;

/// Bytes taken on trust before they have arrived.
const READ_AHEAD_BYTES: usize = 16 * 1024;
/// Longest time for the head of a frame, and the fixed part of the time for a body.
pub const FRAME_MS_BASE: u64 = 5_000;
/// Slowest rate at which a frame may come or be taken, in bytes a millisecond.
pub const BYTES_PER_MS_MIN: u64 = 64;

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameFault {
    /// The announced length is over the limit.
    #[error("a frame of {0} bytes was announced, the limit is {FRAME_BYTES_MAX}")]
    Oversize(u32),
    /// The stream ended early.
    #[error("the frame ends early")]
    Short,
    /// It did not come in time.
    #[error("the frame did not come in time")]
    Slow,
    /// The channel.
    #[error("the channel failed")]
    Io(#[from] io::Error),
}

/// Longest time that `bytes` may take.
pub(crate) fn allowance(bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_millis(FRAME_MS_BASE.saturating_add(bytes / BYTES_PER_MS_MIN))
}

/// Reads the length of the next frame. Errors: every [`FrameFault`].
pub(crate) async fn head<T: AsyncRead + Unpin>(io: &mut T) -> Result<usize, FrameFault> {
    let mut head = [0_u8; 4];
    let read = tokio::time::timeout(allowance(0), io.read_exact(&mut head));
    match read.await.map_err(|_| FrameFault::Slow)? {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameFault::Short),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_be_bytes(head);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted > FRAME_BYTES_MAX {
        return Err(FrameFault::Oversize(length));
    }
    Ok(wanted)
}

/// Reads a body of the length that its head announced. Memory follows the bytes that have arrived, not the length that
/// was announced. Errors: every [`FrameFault`] but the first.
pub(crate) async fn body<T: AsyncRead + Unpin>(io: &mut T, wanted: usize) -> Result<Vec<u8>, FrameFault> {
    let mut frame = Vec::with_capacity(wanted.min(READ_AHEAD_BYTES));
    let length = u64::try_from(wanted).unwrap_or(u64::MAX);
    let mut limited = io.take(length);
    let read = tokio::time::timeout(allowance(wanted), limited.read_to_end(&mut frame));
    read.await.map_err(|_| FrameFault::Slow)??;
    if frame.len() == wanted {
        Ok(frame)
    } else {
        Err(FrameFault::Short)
    }
}

/// Reads a whole frame, waiting for its head as long as the caller does. Errors: every [`FrameFault`].
pub(crate) async fn answer<T: AsyncRead + Unpin>(io: &mut T) -> Result<Vec<u8>, FrameFault> {
    let mut head = [0_u8; 4];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted > FRAME_BYTES_MAX {
        return Err(FrameFault::Oversize(length));
    }
    body(io, wanted).await
}

/// Writes a frame. Errors: the channel's, a frame over the limit, and [`io::ErrorKind::TimedOut`].
pub(crate) async fn write<T: AsyncWrite + Unpin>(io: &mut T, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len())
        .ok()
        .filter(|_| frame.len() <= FRAME_BYTES_MAX)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {} bytes cannot be sent", frame.len()),
            )
        })?;
    let writing = async {
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(frame).await?;
        io.flush().await
    };
    let limit = allowance(frame.len());
    tokio::time::timeout(limit, writing)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::io::Cursor;

    use hie_protocol::cbor::FRAME_BYTES_MAX;

    use super::{FRAME_MS_BASE, FrameFault, allowance, answer, head, write};

    #[tokio::test]
    async fn spec_p_chan_a_frame_has_a_length_and_a_limit() {
        for length in [0, 1, 70_000, FRAME_BYTES_MAX] {
            let frame = vec![5_u8; length];
            let mut wire = Vec::new();
            write(&mut wire, &frame).await.unwrap();
            assert_eq!(wire.len(), length + 4);
            assert_eq!(answer(&mut Cursor::new(&wire)).await.unwrap(), frame);
            wire.pop();
            assert!(answer(&mut Cursor::new(&wire)).await.is_err(), "cut short");
        }
        let large = vec![0_u8; FRAME_BYTES_MAX + 1];
        assert!(write(&mut Vec::new(), &large).await.is_err());
        let announced = u32::try_from(large.len()).unwrap().to_be_bytes();
        let refused = head(&mut Cursor::new(&announced)).await;
        assert!(matches!(refused, Err(FrameFault::Oversize(_))), "{refused:?}");
    }

    #[test]
    fn spec_p_budget_a_frame_has_a_time_that_its_bytes_determine() {
        assert_eq!(allowance(0).as_millis(), u128::from(FRAME_MS_BASE));
        assert!(allowance(FRAME_BYTES_MAX) < std::time::Duration::from_secs(30));
    }
}
