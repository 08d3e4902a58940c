//! `Hello` on every new channel: the version that both speak, and a look at the other clock.

use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::Stream;
use tokio::sync::oneshot;

use hie_protocol::id::NodeKey;
use hie_protocol::message::Response;
use hie_protocol::refusal::Refusal;
use hie_protocol::version::{ProtocolVersion, V1};

use crate::board::{Board, ClockSample, Greeting};
use crate::doorman::greeting;
use crate::exchange;
use crate::failure::PeerFailure;
use crate::trust::Trust;

/// Longest wait for the answer to a `Hello`.
pub const GREET_MS_MAX: u64 = 5_000;

/// Who greets.
#[derive(Clone)]
pub(crate) struct Greeter {
    pub trust: Arc<Trust>,
    pub board: Arc<Board>,
    pub versions: Arc<[ProtocolVersion]>,
}

impl Greeter {
    /// Greets a node on a substream that is being opened. A node that gives no answer of this protocol is taken to
    /// speak the first version.
    pub(crate) async fn greet(self, node: NodeKey, stream: oneshot::Receiver<Result<Stream, PeerFailure>>) -> Greeting {
        let limit = Duration::from_millis(GREET_MS_MAX);
        let heard = tokio::time::timeout(limit, self.heard(node, stream)).await;
        let greeting = heard.unwrap_or(Err(PeerFailure::TimedOut)).unwrap_or_else(|failure| {
            tracing::info!(%node, %failure, "a greeting was not answered");
            Greeting::Speaks(V1)
        });
        match greeting {
            Greeting::Speaks(version) if !self.versions.contains(&version) => Greeting::Nothing,
            other => other,
        }
    }

    async fn heard(
        &self,
        node: NodeKey,
        stream: oneshot::Receiver<Result<Stream, PeerFailure>>,
    ) -> Result<Greeting, PeerFailure> {
        let stream = stream.await.unwrap_or(Err(PeerFailure::Closed))?;
        let asked = self.trust.now();
        let frame = greeting(&self.versions, self.trust.membership().version(), asked).ok_or(PeerFailure::TooLarge)?;
        let answer = exchange::ask(stream, &frame).await?;
        match Response::decode(&answer) {
            Ok(Response::Hello { version, clock, .. }) => {
                let sample = ClockSample {
                    theirs: clock,
                    asked,
                    answered: self.trust.now(),
                };
                self.board.clock(node, sample);
                Ok(Greeting::Speaks(version))
            }
            Ok(Response::Refused(Refusal::Version)) => Ok(Greeting::Nothing),
            Ok(_) => Err(PeerFailure::Misbehaved("it does not answer a greeting")),
            Err(_) => Err(PeerFailure::Misbehaved("its answer to a greeting is malformed")),
        }
    }
}
