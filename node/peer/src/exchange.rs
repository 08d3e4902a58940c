//! One request and its answer on a substream, from the asking side.

use futures::future::{Either, select};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::Stream;

use crate::codec::{self, FrameFault};
use crate::failure::PeerFailure;

impl From<FrameFault> for PeerFailure {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::Oversize(_) => Self::Misbehaved("its frame is larger than allowed"),
            FrameFault::Slow => Self::TimedOut,
            FrameFault::Short | FrameFault::Io(_) => Self::Closed,
        }
    }
}

/// Sends a frame and waits for the answer; the caller owns the deadline. A refusal may come before the frame was sent
/// whole: then it is the answer.
///
/// Errors: [`PeerFailure`] of the channel and of the answer's form.
pub(crate) async fn ask(stream: Stream, frame: &[u8]) -> Result<Vec<u8>, PeerFailure> {
    let (mut reader, mut writer) = stream.split();
    let writing = async {
        codec::write(&mut writer, frame).await?;
        writer.close().await
    };
    let reading = codec::answer(&mut reader);
    let answer = match select(Box::pin(writing), Box::pin(reading)).await {
        Either::Left((_, reading)) => reading.await,
        Either::Right((answer, _)) => answer,
    };
    Ok(answer?)
}
