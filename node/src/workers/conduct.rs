//! What members did against the rules goes into the audit log, at most once a minute for each member and kind.

use std::sync::Arc;
use std::time::Duration;

use hie_node_core::audit::event::{Actor, AuditEvent, Counterpart, EventKind, Outcome};
use hie_node_core::ports::{blocking, random_bytes};
use hie_protocol::id::Correlation;

use crate::assemble::{Region, Trade};
use crate::fault::chain;

/// How often the counts are looked at.
pub const CONDUCT_EVERY: Duration = Duration::from_secs(1);

/// Writes what is due.
pub(super) async fn report(trade: Trade, region: Region) {
    let mut every = tokio::time::interval(CONDUCT_EVERY);
    loop {
        every.tick().await;
        let now = trade.clock.now();
        for count in region.peers.ledger().due(now) {
            tracing::warn!(org = %count.org, offence = count.offence.word(), times = count.times, "against the rules");
            let Ok(correlation) = random_bytes::<16>(&*trade.random) else {
                continue;
            };
            let actor = Actor::system(count.org.clone(), "node of another organisation");
            let mut event = AuditEvent::new(EventKind::PeerRefused, now, Correlation::new(correlation), actor);
            event.outcome = Outcome::Denied;
            event.detail = Some(format!("{}, {} times", count.offence.word(), count.times));
            event.counterpart = Some(Counterpart {
                org: count.org,
                entry: None,
            });
            let audit = Arc::clone(&trade.audit);
            if let Err(error) = blocking(move || audit.append_one(event)).await {
                // A store that fails is noticed by the checkpoint, which stops the node.
                tracing::error!(why = %chain(&error), "a count cannot be recorded");
            }
        }
    }
}
