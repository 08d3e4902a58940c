//! What every channel of a node shares: its identity, the judge, and the table of live channels.

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::multihash::Multihash;

use hie_node_pki::clock::Clock;
use hie_node_pki::config::{Channel, node_client, node_server};
use hie_node_pki::identity::IdentityCell;
use hie_node_pki::membership::{Membership, MembershipCell};
use hie_node_pki::refusal::CertificateRefusal;
use hie_node_pki::verify::Judge;
use hie_protocol::id::{Millis, NodeKey};
use hie_protocol::sign::Signer as _;
use rustls::{ClientConfig, ServerConfig};

use crate::live::LiveTable;

/// Longest time that cutting channels may take before [`Trust::update`] returns.
pub const CUT_MS_MAX: u64 = 1000;
/// Code of SHA-256 in a multihash.
const SHA2_256: u64 = 0x12;

/// Identity, judge and live channels of a node.
#[derive(Debug)]
pub struct Trust {
    identity: Arc<IdentityCell>,
    judge: Arc<Judge>,
    live: Arc<LiveTable>,
}

impl Trust {
    /// Joins the parts.
    #[must_use]
    pub fn new(identity: Arc<IdentityCell>, membership: Arc<MembershipCell>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let judge = Arc::new(Judge::new(membership, clock));
        Arc::new(Self {
            identity,
            judge,
            live: Arc::new(LiveTable::default()),
        })
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> NodeKey {
        self.identity.load().node()
    }

    /// The identity in force; renewal replaces it.
    #[must_use]
    pub fn identity(&self) -> &Arc<IdentityCell> {
        &self.identity
    }

    /// The membership in force.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.judge.membership().load()
    }

    /// Present time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.judge.clock().now()
    }

    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Live channels, control and bulk.
    #[must_use]
    pub fn live(&self) -> &Arc<LiveTable> {
        &self.live
    }

    pub(crate) fn server(&self, channel: Channel) -> Result<Arc<ServerConfig>, rustls::Error> {
        node_server(channel, Arc::clone(&self.identity), Arc::clone(&self.judge))
    }

    pub(crate) fn client(&self, channel: Channel) -> Result<Arc<ClientConfig>, rustls::Error> {
        node_client(channel, Arc::clone(&self.identity), Arc::clone(&self.judge))
    }

    /// Puts a membership in force and cuts every live channel that no longer holds, control and bulk alike. From the
    /// call on no byte of a cut channel is read or written; the call returns when they are closed, at the latest after
    /// [`CUT_MS_MAX`]. Gives the nodes cut and why.
    pub async fn update(&self, membership: Membership) -> Vec<(NodeKey, CertificateRefusal)> {
        self.judge.membership().replace(membership);
        let cut = self.recheck();
        if !cut.is_empty() {
            let nodes: Vec<NodeKey> = cut.iter().map(|(node, _)| *node).collect();
            let gone = self.live.gone(&nodes);
            if tokio::time::timeout(Duration::from_millis(CUT_MS_MAX), gone)
                .await
                .is_err()
            {
                tracing::warn!("cut channels did not close within {CUT_MS_MAX} ms; their bytes are discarded");
            }
        }
        cut
    }

    /// Judges every live channel again and cuts those that no longer hold: expiry needs no message from anybody.
    pub fn recheck(&self) -> Vec<(NodeKey, CertificateRefusal)> {
        self.live.recheck(&self.judge)
    }
}

/// The libp2p name of a node: the multihash of the same SHA-256.
pub(crate) fn peer_id(node: &NodeKey) -> Option<PeerId> {
    let hash = Multihash::<64>::wrap(SHA2_256, node.as_bytes()).ok()?;
    PeerId::from_multihash(hash).ok()
}

/// The node of a libp2p name that [`peer_id`] made.
pub(crate) fn node_key(peer: &PeerId) -> Option<NodeKey> {
    let hash: &Multihash<64> = peer.as_ref();
    (hash.code() == SHA2_256)
        .then(|| NodeKey::from_slice(hash.digest()).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use hie_protocol::id::NodeKey;

    use super::{node_key, peer_id};

    #[test]
    fn spec_p_chan_the_peer_id_is_the_node_key() {
        let node = NodeKey::new([0xab; 32]);
        let peer = peer_id(&node);
        assert_eq!(peer.and_then(|peer| node_key(&peer)), Some(node));
        assert_eq!(peer.map(|peer| peer.to_bytes().len()), Some(34));
    }
}
