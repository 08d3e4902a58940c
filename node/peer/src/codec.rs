//! One frame each way on a substream: `length (u32 BE) | bytes`, at most [`FRAME_BYTES_MAX`] (SPEC P-CHAN).

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use hie_protocol::cbor::FRAME_BYTES_MAX;

/// Bytes taken on trust before they have arrived.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Reads and writes frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &frame).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &frame).await
    }
}

async fn read<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut head = [0_u8; 4];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted > FRAME_BYTES_MAX {
        let text = format!("a frame of {length} bytes, the limit is {FRAME_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // Memory follows the bytes that have arrived, not the length that was announced.
    let mut frame = Vec::with_capacity(wanted.min(READ_AHEAD_BYTES));
    io.take(u64::from(length)).read_to_end(&mut frame).await?;
    if frame.len() == wanted {
        Ok(frame)
    } else {
        let text = format!("the frame ends after {} of {wanted} bytes", frame.len());
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

async fn write<T: AsyncWrite + Unpin>(io: &mut T, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len())
        .ok()
        .filter(|_| frame.len() <= FRAME_BYTES_MAX)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {} bytes cannot be sent", frame.len()),
            )
        })?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(frame).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::executor::block_on;
    use futures::io::Cursor;

    use hie_protocol::cbor::FRAME_BYTES_MAX;

    use super::{read, write};

    #[test]
    fn spec_p_chan_a_frame_has_a_length_and_a_limit() {
        for length in [0, 1, 70_000, FRAME_BYTES_MAX] {
            let frame = vec![5_u8; length];
            let mut wire = Vec::new();
            block_on(write(&mut wire, &frame)).unwrap();
            assert_eq!(wire.len(), length + 4);
            assert_eq!(block_on(read(&mut Cursor::new(&wire))).unwrap(), frame);
            wire.pop();
            assert!(block_on(read(&mut Cursor::new(&wire))).is_err(), "cut short");
        }
        let large = vec![0_u8; FRAME_BYTES_MAX + 1];
        assert!(block_on(write(&mut Vec::new(), &large)).is_err());
        let announced = u32::try_from(large.len()).unwrap().to_be_bytes();
        assert!(block_on(read(&mut Cursor::new(&announced))).is_err());
    }
}
