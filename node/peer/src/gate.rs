//! Before anybody is known: how many handshakes one address may have under way, so that half-open ones of one stranger
//! leave room for others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Most handshakes under way from one address.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;

/// Handshakes under way, by address. The whole is bounded by the limit of pending connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

impl Gate {
    /// Lets a stranger begin, or not. An address without IP is a circuit, whose relay is a member.
    pub(crate) fn enter(&self, remote: &Multiaddr) -> Option<Pass> {
        let ip = remote.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        if let Some(ip) = ip {
            let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = pending.entry(ip).or_default();
            if *count >= HANDSHAKES_PER_ADDRESS_MAX {
                return None;
            }
            *count = count.saturating_add(1);
        }
        Some(Pass { gate: self.clone(), ip })
    }
}

/// A handshake under way; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    ip: Option<IpAddr>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut pending = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pending.get_mut(&ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                pending.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Gate, HANDSHAKES_PER_ADDRESS_MAX};

    #[test]
    fn spec_p_budget_one_address_leaves_room_for_others() {
        let gate = Gate::default();
        let (one, two) = (
            "/ip4/10.0.0.1/tcp/1".parse().unwrap(),
            "/ip4/10.0.0.2/tcp/1".parse().unwrap(),
        );
        let held: Vec<_> = (0..HANDSHAKES_PER_ADDRESS_MAX)
            .map(|_| gate.enter(&one).unwrap())
            .collect();
        assert!(gate.enter(&one).is_none());
        assert!(gate.enter(&two).is_some());
        drop(held);
        assert!(gate.enter(&one).is_some());
        assert!(gate.0.lock().unwrap().is_empty());
    }
}
