//! The bulk lane on a substream of the control channel: the same frames and checks, for a custodian that cannot be
//! dialled. Slower than a lane of its own, which stays the first choice.

use std::sync::Arc;

use libp2p::swarm::Stream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use hie_protocol::id::{NodeKey, OrgId};

use crate::budget::Transfer;
use crate::doorman::Transfers;
use crate::failure::PeerFailure;
use crate::handle::Peers;
use crate::lane::LaneServer;
use crate::lane::server::serve;
use crate::streams::Kind;

/// A substream that carries frames of the lane.
pub(crate) type Substream = Compat<Stream>;

/// Opens a substream for one ask. Errors: every [`PeerFailure`].
pub(crate) async fn open(peers: &Peers, node: NodeKey) -> Result<Substream, PeerFailure> {
    Ok(peers.open(node, Kind::Bulk).await?.compat())
}

/// Serves asks that come over the control channels of a node.
pub fn start(peers: &Peers, server: Arc<dyn LaneServer>) {
    peers.take_transfers(Arc::new(Service(server)));
}

struct Service(Arc<dyn LaneServer>);

impl Transfers for Service {
    fn opened(&self, node: NodeKey, org: OrgId, stream: Stream, place: Transfer) {
        let server = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut stream = stream.compat();
            // The name of this protocol stands for version 1 of the lane.
            if let Err(error) = serve(&*server, node, &org, false, &mut stream).await {
                tracing::info!(%node, %error, "a transfer over the control channel ended");
            }
            drop(place);
        });
    }
}
