//! Circuits through a member that offers them: for nodes that cannot be dialled (SPEC P-RELAY).
//!
//! The relay is libp2p's circuit relay v2. Inside a circuit the two ends run the same security upgrade as on TCP, so
//! the relay carries ciphertext between two keys that it cannot pass for; who is cut off a direct channel is cut off a
//! relayed one by the same judge. A relay serves whoever has a channel with it, and that is active members alone.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, relay};

use hie_node_pki::membership::Membership;
use hie_protocol::id::{NodeKey, OrgId};

use crate::trust::peer_id;

/// Most members' nodes with a reservation.
pub const RESERVATIONS_MAX: usize = 512;
/// Most reservations of one node.
pub const RESERVATIONS_PER_NODE_MAX: usize = 4;
/// Life of a reservation; it is renewed before it ends.
pub const RESERVATION_MS: u64 = 60 * 60 * 1000;
/// Most circuits.
pub const CIRCUITS_MAX: usize = 512;
/// Most circuits that begin at one node.
pub const CIRCUITS_PER_NODE_MAX: usize = 64;
/// Longest life of a circuit; its ends make a new one.
pub const CIRCUIT_MS_MAX: u64 = 6 * 60 * 60 * 1000;
/// Most bytes of a circuit in each direction.
pub const CIRCUIT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Reservations, and circuits, that one node may ask for in a minute.
const ASKED_PER_MINUTE: NonZeroU32 = match NonZeroU32::new(60) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};

/// What a relay gives.
pub(crate) fn budget() -> relay::Config {
    let minute = Duration::from_secs(60);
    let config = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: RESERVATIONS_PER_NODE_MAX,
        reservation_duration: Duration::from_millis(RESERVATION_MS),
        reservation_rate_limiters: Vec::new(),
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_NODE_MAX,
        max_circuit_duration: Duration::from_millis(CIRCUIT_MS_MAX),
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        circuit_src_rate_limiters: Vec::new(),
    };
    config
        .reservation_rate_per_peer(ASKED_PER_MINUTE, minute)
        .circuit_src_per_peer(ASKED_PER_MINUTE, minute)
}

/// The nodes through which a node is reached, with their control addresses: nodes of active members that have the role
/// and can be dialled themselves.
pub(crate) fn relays_of(membership: &Membership, node: &NodeKey) -> Vec<(NodeKey, String)> {
    let Some(wanted) = membership.node(node).map(|known| known.relays.as_slice()) else {
        return Vec::new();
    };
    let serves = |org: &OrgId| wanted.contains(org);
    membership
        .active()
        .filter(|(key, known)| *key != node && known.relay && serves(&known.org))
        .filter_map(|(key, known)| Some((*key, known.control.clone()?)))
        .collect()
}

/// `host:port` as a dialled address.
pub(crate) fn named(address: &str) -> Option<Multiaddr> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let first = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Protocol::Ip4(ip),
        Ok(IpAddr::V6(ip)) => Protocol::Ip6(ip),
        Err(_) => Protocol::Dns(host.to_owned().into()),
    };
    Some(Multiaddr::empty().with(first).with(Protocol::Tcp(port.parse().ok()?)))
}

/// Where a relay's circuits begin.
pub(crate) fn circuit(relay: &NodeKey, at: Multiaddr) -> Option<Multiaddr> {
    Some(at.with(Protocol::P2p(peer_id(relay)?)).with(Protocol::P2pCircuit))
}

/// A circuit to a node.
pub(crate) fn circuit_to(relay: &NodeKey, at: Multiaddr, to: PeerId) -> Option<Multiaddr> {
    Some(circuit(relay, at)?.with(Protocol::P2p(to)))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn an_address_is_read_with_its_host() {
        let shown = |address| named(address).map(|address| address.to_string());
        assert_eq!(shown("10.0.0.1:8443").as_deref(), Some("/ip4/10.0.0.1/tcp/8443"));
        assert_eq!(shown("[::1]:1").as_deref(), Some("/ip6/::1/tcp/1"));
        assert_eq!(
            shown("relay.example:8443").as_deref(),
            Some("/dns/relay.example/tcp/8443")
        );
        assert_eq!(shown("relay.example"), None);
        assert_eq!(shown("relay.example:x"), None);
    }
}
