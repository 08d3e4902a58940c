//! TCP or a circuit, the security upgrade, then yamux: nothing is negotiated before TLS or between TLS and yamux.

use std::net::SocketAddr;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport as _, relay, tcp, yamux};

use crate::gate::Gate;
use crate::trust::peer_id;
use crate::upgrade::{NodeUpgrade, UpgradeError};

/// Why a connection did not come up, as the transport reports it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("no connection")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Upgrade(UpgradeError),
}

pub(crate) fn transport(circuits: relay::client::Transport, upgrade: NodeUpgrade) -> Boxed<(PeerId, StreamMuxerBox)> {
    let gate = Gate::default();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    OrTransport::new(circuits, tcp)
        .and_then(move |socket, point| async move {
            let remote = point.get_remote_address().to_string();
            let yamux = yamux::Config::default();
            let (peer, muxer) = if point.is_dialer() {
                let (peer, stream) = upgrade.dial(socket, &remote).await?;
                (peer, yamux.upgrade_outbound(stream, "").await)
            } else {
                let _pass = gate.enter(point.get_remote_address()).ok_or(UpgradeError::Crowded)?;
                let (peer, stream) = upgrade.accept(socket, &remote).await?;
                (peer, yamux.upgrade_inbound(stream, "").await)
            };
            let muxer = StreamMuxerBox::new(muxer.map_err(UpgradeError::Handshake)?);
            let name = peer_id(&peer.node()).ok_or(UpgradeError::TimedOut)?;
            Ok::<_, UpgradeError>((name, muxer))
        })
        .map_err(|error| error.either(|error| ChannelError::Connection(Box::new(error)), ChannelError::Upgrade))
        .boxed()
}

pub(crate) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}
