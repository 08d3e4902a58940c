//! The security upgrade: mutual TLS 1.3 with judged certificates, then the acceptor's verdict.
//!
//! In TLS 1.3 the dialler is done before the acceptor has judged it. A channel is therefore up on either side only
//! after the acceptor has written its verdict byte: 0, or the code of a [`CertificateRefusal`] (SPEC P-TLS). TLS starts
//! with the first byte of the connection; nothing is negotiated in the clear.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;

use hie_node_pki::config::Channel;
use hie_node_pki::refusal::{ACCEPTED, CertificateRefusal, Refused};
use hie_node_pki::verify::{Peer, Side};

use crate::live::{Guarded, LiveChannel};
use crate::trust::Trust;

/// Longest time from the TCP connection to the verdict.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

/// Why no channel came up.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// A certificate was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// TLS failed for another reason.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The acceptor hung up before its verdict.
    #[error("the other side closed before its verdict")]
    NoVerdict(#[source] io::Error),
    /// A verdict byte outside the protocol.
    #[error("the verdict byte {0} is not of this protocol")]
    Verdict(u8),
    /// Too slow.
    #[error("the handshake took longer than {HANDSHAKE_MS_MAX} ms")]
    TimedOut,
    /// Too many handshakes of one address.
    #[error("too many handshakes of this address are under way")]
    Crowded,
    /// TLS cannot be configured.
    #[error("TLS cannot be configured")]
    Config(#[from] rustls::Error),
}

/// The security upgrade of the control channel.
#[derive(Clone)]
pub struct NodeUpgrade {
    trust: Arc<Trust>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl NodeUpgrade {
    /// Prepares both directions. Errors: [`UpgradeError::Config`].
    pub fn new(trust: Arc<Trust>) -> Result<Self, UpgradeError> {
        let server: Arc<ServerConfig> = trust.server(Channel::Control)?;
        let client: Arc<ClientConfig> = trust.client(Channel::Control)?;
        Ok(Self {
            trust,
            acceptor: TlsAcceptor::from(server),
            connector: TlsConnector::from(client),
        })
    }

    /// Accepts a connection from `remote` and sends the verdict. Errors: every [`UpgradeError`], logged with its reason.
    pub async fn accept<S>(&self, socket: S, remote: &str) -> Result<(Peer, Guarded<TlsStream<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        logged(remote, "accepting", limited(self.accepted(socket)).await)
    }

    /// Upgrades a connection that was dialled to `remote` and waits for the verdict. Errors: every [`UpgradeError`],
    /// logged with its reason.
    pub async fn dial<S>(&self, socket: S, remote: &str) -> Result<(Peer, Guarded<TlsStream<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        logged(remote, "dialling", limited(self.dialled(socket)).await)
    }

    async fn accepted<S>(&self, socket: S) -> Result<(Peer, Guarded<TlsStream<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = self
            .acceptor
            .accept(socket)
            .await
            .map_err(|error| self.trust.failed(error))?;
        match self.trust.settle(stream.get_ref().1, Side::Client) {
            Ok((peer, channel)) => {
                stream.write_all(&[ACCEPTED]).await.map_err(UpgradeError::Handshake)?;
                stream.flush().await.map_err(UpgradeError::Handshake)?;
                Ok((peer, channel.guard(stream.into())))
            }
            Err(refusal) => {
                stream
                    .write_all(&[refusal.code()])
                    .await
                    .map_err(UpgradeError::Handshake)?;
                stream.close().await.map_err(UpgradeError::Handshake)?;
                Err(Refused::Theirs(refusal).into())
            }
        }
    }

    async fn dialled<S>(&self, socket: S) -> Result<(Peer, Guarded<TlsStream<S>>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = self
            .connector
            .connect(nameless(), socket)
            .await
            .map_err(|error| self.trust.failed(error))?;
        let mut verdict = [0_u8; 1];
        stream
            .read_exact(&mut verdict)
            .await
            .map_err(|error| self.trust.no_verdict(error))?;
        heard(verdict)?;
        let (peer, channel) = self
            .trust
            .settle(stream.get_ref().1, Side::Server)
            .map_err(Refused::Theirs)?;
        Ok((peer, channel.guard(stream.into())))
    }
}

impl Trust {
    /// Registers a channel after its handshake, then judges its certificate by the membership in force now: a registry
    /// that arrived during the handshake counts.
    pub(crate) fn settle(&self, tls: &CommonState, side: Side) -> Result<(Peer, LiveChannel), CertificateRefusal> {
        let chain: Vec<_> = tls.peer_certificates().unwrap_or_default().to_vec();
        let first = self.judge().judge(&chain, side)?;
        let channel = self.live().register(first.node(), chain.clone(), side);
        let peer = self.judge().judge(&chain, side)?;
        Ok((peer, channel))
    }

    /// Sorts a failed handshake.
    pub(crate) fn failed(&self, error: io::Error) -> UpgradeError {
        match Refused::read_io(&error, self.identity().load().facts(), self.now()) {
            Some(refused) => UpgradeError::Refused(refused),
            None => UpgradeError::Handshake(error),
        }
    }

    /// Sorts a failure to read the verdict: a refusal arrives here, as an alert.
    pub(crate) fn no_verdict(&self, error: io::Error) -> UpgradeError {
        match self.failed(error) {
            UpgradeError::Handshake(error) => UpgradeError::NoVerdict(error),
            refused => refused,
        }
    }
}

/// Reads the verdict.
pub(crate) fn heard([verdict]: [u8; 1]) -> Result<(), UpgradeError> {
    match verdict {
        ACCEPTED => Ok(()),
        code => Err(match CertificateRefusal::from_code(code) {
            Some(refusal) => Refused::Ours(refusal).into(),
            None => UpgradeError::Verdict(code),
        }),
    }
}

/// No name is sent: a node is its key.
pub(crate) fn nameless() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}

pub(crate) async fn limited<T>(upgrade: impl Future<Output = Result<T, UpgradeError>>) -> Result<T, UpgradeError> {
    let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
    tokio::time::timeout(limit, upgrade)
        .await
        .unwrap_or(Err(UpgradeError::TimedOut))
}

/// Logs why a channel did not come up, on whichever side this is.
pub(crate) fn logged<T>(
    remote: &str,
    direction: &'static str,
    outcome: Result<T, UpgradeError>,
) -> Result<T, UpgradeError> {
    match &outcome {
        Ok(_) => {}
        Err(UpgradeError::Refused(refused)) => {
            let by = match refused {
                Refused::Theirs(_) => "this-node",
                Refused::Ours(_) => "other-node",
            };
            tracing::warn!(
                remote,
                direction,
                by,
                reason = refused.reason().word(),
                "channel refused"
            );
        }
        Err(error) => {
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::info!(remote, direction, %error, cause, "no channel");
        }
    }
    outcome
}
