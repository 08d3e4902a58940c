//! Frames of the bulk lane on the wire: `length of the body (u32 BE) | kind (u8) | body`.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use hie_protocol::cbor;
use hie_protocol::retrieval::{Ask, FrameKind, Refused};

use crate::lane::LaneFrame;

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 5;
/// Bytes taken on trust before they have arrived; a whole chunk, which every content frame is.
const READ_AHEAD_BYTES: usize = 256 * 1024;

/// Why a frame cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// A frame against the rules.
    #[error("{0}")]
    Rule(&'static str),
    /// The body is malformed.
    #[error("the body of a frame is malformed")]
    Body(#[from] cbor::FrameError),
}

/// Reads an ask; none when the other side has closed between asks. Errors: every [`WireError`].
pub(crate) async fn read_ask<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<Ask>, WireError> {
    match read(stream).await? {
        None => Ok(None),
        Some((FrameKind::Ask, body)) => Ok(Some(cbor::decode(&body, FrameKind::Ask.body_max())?)),
        Some(_) => Err(WireError::Rule("a frame that is no ask")),
    }
}

/// Reads a frame of an answer. Errors: every [`WireError`]; an end of the connection is one.
pub(crate) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<LaneFrame, WireError> {
    let closed = || WireError::Io(io::ErrorKind::UnexpectedEof.into());
    let (kind, body) = read(stream).await?.ok_or_else(closed)?;
    Ok(match kind {
        FrameKind::Header => LaneFrame::Header(Box::new(cbor::decode(&body, kind.body_max())?)),
        FrameKind::Chunk => LaneFrame::Chunk(body),
        FrameKind::End => LaneFrame::End,
        FrameKind::Refused => LaneFrame::Refused(cbor::decode::<Refused>(&body, kind.body_max())?.refusal),
        FrameKind::Ask => return Err(WireError::Rule("an ask in place of an answer")),
    })
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<(FrameKind, Bytes)>, WireError> {
    let mut head = [0_u8; HEAD_BYTES];
    let mut filled = 0_usize;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => filled = filled.saturating_add(count),
        }
    }
    let [a, b, c, d, kind] = head;
    let kind = FrameKind::from_byte(kind).ok_or(WireError::Rule("a frame of unknown kind"))?;
    let wanted = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if wanted > kind.body_max() {
        return Err(WireError::Rule("a frame larger than its kind allows"));
    }
    let mut body = BytesMut::with_capacity(wanted.min(READ_AHEAD_BYTES));
    while body.len() < wanted {
        let left = u64::try_from(wanted.saturating_sub(body.len())).unwrap_or(u64::MAX);
        if (&mut *stream).take(left).read_buf(&mut body).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some((kind, body.freeze())))
}

/// Writes an ask and flushes it. Errors: every [`WireError`].
pub(crate) async fn write_ask<S: AsyncWrite + Unpin>(stream: &mut S, ask: &Ask) -> Result<(), WireError> {
    let mut parts = Parts::default();
    parts.push(FrameKind::Ask, cbor::encode(ask)?.into())?;
    stream.write_all_buf(&mut parts).await?;
    Ok(stream.flush().await?)
}

/// Writes frames of an answer in one vectored go, without flushing: no body is copied before it is encrypted.
/// Errors: every [`WireError`].
pub(crate) async fn write_answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frames: Vec<LaneFrame>,
) -> Result<(), WireError> {
    let mut parts = Parts::default();
    for frame in frames {
        match frame {
            LaneFrame::Header(header) => parts.push(FrameKind::Header, cbor::encode(&*header)?.into())?,
            LaneFrame::Chunk(bytes) => parts.push(FrameKind::Chunk, bytes)?,
            LaneFrame::End => parts.push(FrameKind::End, Bytes::new())?,
            LaneFrame::Refused(refusal) => {
                parts.push(FrameKind::Refused, cbor::encode(&Refused { refusal })?.into())?;
            }
        }
    }
    Ok(stream.write_all_buf(&mut parts).await?)
}

/// Heads and bodies one after the other.
#[derive(Default)]
struct Parts {
    left: VecDeque<Bytes>,
    bytes: usize,
}

impl Parts {
    fn push(&mut self, kind: FrameKind, body: Bytes) -> Result<(), WireError> {
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= kind.body_max())
            .ok_or(WireError::Rule("a frame to send that is larger than its kind allows"))?;
        let [a, b, c, d] = length.to_be_bytes();
        let head = Bytes::copy_from_slice(&[a, b, c, d, kind as u8]);
        self.bytes = self.bytes.saturating_add(head.len()).saturating_add(body.len());
        self.left
            .extend([head, body].into_iter().filter(|part| !part.is_empty()));
        Ok(())
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.left.front().map(|part| part.as_ref()).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [io::IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.left) {
            *slice = io::IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let mut count = count.min(self.bytes);
        self.bytes -= count;
        while let Some(front) = self.left.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.left.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use bytes::Bytes;

    use hie_protocol::id::Ticket;
    use hie_protocol::refusal::Refusal;
    use hie_protocol::retrieval::{Ask, CHUNK_BYTES_MAX, Item};

    use super::{read_answer, read_ask, write_answer, write_ask};
    use crate::lane::LaneFrame;

    #[tokio::test]
    async fn spec_p_bulk_what_is_written_is_read() {
        let ask = Ask {
            ticket: Ticket::new([3; 32]),
            item: Item::InstancesFrom(7),
            from: 99,
        };
        let mut wire = Vec::new();
        write_ask(&mut wire, &ask).await.unwrap();
        assert_eq!(wire[4], 1, "kind byte");
        assert_eq!(
            usize::try_from(u32::from_be_bytes([wire[0], wire[1], wire[2], wire[3]])).unwrap(),
            wire.len() - 5
        );
        let mut rest = wire.as_slice();
        assert_eq!(read_ask(&mut rest).await.unwrap(), Some(ask));
        assert_eq!(read_ask(&mut rest).await.unwrap(), None);
        let frames = [
            LaneFrame::Chunk(Bytes::from(vec![9; CHUNK_BYTES_MAX])),
            LaneFrame::Chunk(Bytes::new()),
            LaneFrame::End,
            LaneFrame::Refused(Refusal::NothingHere),
        ];
        for frame in frames {
            let mut wire = Vec::new();
            write_answer(&mut wire, vec![frame.clone()]).await.unwrap();
            assert_eq!(read_answer(&mut wire.as_slice()).await.unwrap(), frame);
            wire.pop();
            assert!(read_answer(&mut wire.as_slice()).await.is_err());
        }
    }

    #[tokio::test]
    async fn spec_p_bulk_frames_over_their_limit_are_refused_by_their_head() {
        for (length, kind) in [
            (CHUNK_BYTES_MAX + 1, 3),
            (1025, 1),
            (1, 4),
            (usize::MAX >> 32, 2),
            (1, 9),
            (0, 0),
        ] {
            let mut head = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            head.push(kind);
            let refused = read_answer(&mut head.as_slice()).await.unwrap_err().to_string();
            assert!(refused.contains("frame"), "{refused}");
        }
        let large = LaneFrame::Chunk(Bytes::from(vec![0; CHUNK_BYTES_MAX + 1]));
        assert!(write_answer(&mut Vec::new(), vec![large]).await.is_err());
    }
}
