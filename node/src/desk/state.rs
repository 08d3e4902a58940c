//! The state of this node in words: what needs somebody comes first, each with its fix.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use hie_gateway::ports::{Health, NodeState};
use hie_node_core::catalogue::Table;
use hie_node_core::kv::{Kv, KvError, SCAN_LIMIT_MAX, Scan};
use hie_node_core::locator::worker::MARKS_MAX;
use hie_node_core::ports::{blocking, random_bytes};
use hie_node_peer::failure::PeerFailure;
use hie_node_peer::handle::PeerStatus;
use hie_node_peer::ledger::Count;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::Registry;
use tracing::error;

use crate::assemble::{Region, Trade};
use crate::fault::chain;
use crate::moment::write_words;
use crate::renew::outlook;

/// How long counts stand before they are taken again, in milliseconds.
pub const COUNTS_MS_MAX: u64 = 60_000;
/// How long publications may wait before somebody should look, in patients.
const WAITING_MANY: u64 = 100;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Counts with the time at which they were taken.
type Counted = Option<(Millis, Vec<(String, u64)>)>;

/// The node itself.
#[derive(Clone)]
pub struct StateDesk {
    trade: Trade,
    region: Region,
    region_name: String,
    counted: Arc<Mutex<Counted>>,
}

impl StateDesk {
    /// Over the trade and the region.
    #[must_use]
    pub fn new(trade: Trade, region: Region, region_name: String) -> Self {
        Self {
            trade,
            region,
            region_name,
            counted: Arc::default(),
        }
    }

    /// Counts of what is stored, at most [`COUNTS_MS_MAX`] old; the log and the queue are counted every time.
    fn counts(&self, now: Millis) -> Result<(Vec<(String, u64)>, u64), KvError> {
        let known = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut counts = match known.filter(|(at, _)| now.since(*at) < COUNTS_MS_MAX) {
            Some((_, counts)) => counts,
            None => {
                let tables = [
                    ("patients", Table::Patients),
                    ("documents", Table::DocumentsByPatient),
                    ("studies", Table::StudiesByPatient),
                ];
                let mut counts = Vec::new();
                for (name, table) in tables {
                    counts.push((name.to_owned(), count(&*self.trade.kv, table)?));
                }
                *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, counts.clone()));
                counts
            }
        };
        let waiting = self.region.publisher.waiting()?;
        let waiting = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        counts.push(("audit entries".to_owned(), self.trade.audit.size()));
        counts.push(("publications waiting".to_owned(), waiting));
        Ok((counts, waiting))
    }

    async fn state(&self) -> Health {
        let now = self.trade.clock.now();
        let registry = Arc::clone(&self.trade.registry.borrow());
        let until = self.region.identity.load().facts().not_after;
        let peers = self.region.peers.status().await;
        let this = self.clone();
        let counted = blocking(move || this.counts(now)).await;
        let mut needs_you = Vec::new();
        let ready = counted.is_ok();
        let (counts, waiting) = counted.unwrap_or_else(|fault| {
            error!(story = chain(&fault), "the store cannot be read");
            needs_you.push("The store cannot be read. Check the disk; the log of the node tells more.".to_owned());
            (Vec::new(), 0)
        });
        needs_you.extend(outlook(self.region.identity.load().facts(), now));
        needs_you.extend(self.region.board.needs_you(now));
        needs_you.extend(peers_words(&peers, &registry));
        needs_you.extend(crate::tokens::words(&registry, &self.region.tokens.watch));
        let counts_of_conduct = self.region.peers.ledger().counts();
        needs_you.extend(conduct_words(&counts_of_conduct, &registry, now));
        if waiting >= WAITING_MANY {
            let more = if waiting >= u64::try_from(MARKS_MAX).unwrap_or(u64::MAX) {
                " or more"
            } else {
                ""
            };
            needs_you.push(format!(
                "The records of {waiting}{more} patients wait to be published; others cannot find them yet. It goes on \
                 by itself while enough of the region is reachable."
            ));
        }
        Health {
            name: self.trade.name.clone(),
            region: self.region_name.clone(),
            certificate_until: Some(until),
            needs_you,
            peers: peers.iter().map(|peer| peer_line(peer, &registry, now)).collect(),
            counts,
            ready,
        }
    }
}

/// Keys of a table.
fn count(kv: &dyn Kv, table: Table) -> Result<u64, KvError> {
    let mut total = 0_u64;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let scan = Scan::of(table, &[]).limit(SCAN_LIMIT_MAX);
        let mut pairs = match &after {
            Some(key) => kv.scan(&scan.after(key))?,
            None => kv.scan(&scan)?,
        };
        let read = pairs.len();
        total = total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        after = pairs.pop().map(|(key, _)| key);
        if read < SCAN_LIMIT_MAX {
            return Ok(total);
        }
    }
}

/// What to do about peers, if anything.
fn peers_words(peers: &[PeerStatus], registry: &Registry) -> Vec<String> {
    let mut words = Vec::new();
    if !peers.is_empty() && peers.iter().all(|peer| !peer.connected) {
        words.push(
            "No other organisation is reachable. Check this node's network, and that its addresses in the registry are \
             right."
                .to_owned(),
        );
    }
    for peer in peers {
        if let Some(PeerFailure::Refused(why)) = &peer.last_error
            && !peer.connected
        {
            let name = org_name(&peer.org, registry);
            words.push(format!(
                "{name} and this node do not accept each other ({why}). Ask the region office which certificate is right."
            ));
        }
    }
    words
}

/// Who broke the rules within the last day, with counts since the start.
fn conduct_words(counts: &[Count], registry: &Registry, now: Millis) -> Vec<String> {
    let recent = counts.iter().filter(|count| now.since(count.last) < DAY_MS);
    let words = recent.map(|count| {
        format!(
            "{} broke the rules of the region: {}, {} times, last at {}. Tell the region office if it goes on.",
            org_name(&count.org, registry),
            count.offence.word(),
            count.times,
            moment(count.last, now)
        )
    });
    words.collect()
}

fn org_name(org: &OrgId, registry: &Registry) -> String {
    registry
        .member(org)
        .map_or_else(|| org.to_string(), |member| member.name.clone())
}

/// A peer as the status page shows it: name, reachable, words.
fn peer_line(peer: &PeerStatus, registry: &Registry, now: Millis) -> (String, bool, String) {
    let since = peer
        .since
        .map(|at| format!(" since {}", moment(at, now)))
        .unwrap_or_default();
    let words = match (peer.connected, &peer.last_error, peer.rtt_ms) {
        (true, _, Some(ms)) => format!("connected{since}, answers in {ms} ms"),
        (true, _, None) => format!("connected{since}"),
        (false, Some(PeerFailure::Refused(_)), _) => format!("refused{since}"),
        (false, Some(PeerFailure::Misbehaved(_)), _) => format!("not understood{since}"),
        (false, _, _) if peer.since.is_none() => "not tried yet".to_owned(),
        (false, _, _) => format!("offline{since}"),
    };
    (org_name(&peer.org, registry), peer.connected, words)
}

/// `03:10 UTC`, with the date when it is not within the last day.
fn moment(at: Millis, now: Millis) -> String {
    let minutes = at.0 / 60_000 % (24 * 60);
    let clock = format!("{:02}:{:02} UTC", minutes / 60, minutes % 60);
    if now.since(at) < DAY_MS {
        clock
    } else {
        format!("{} {clock}", write_words(at))
    }
}

impl NodeState for StateDesk {
    fn health(&self) -> BoxFuture<'_, Health> {
        self.state().boxed()
    }

    fn organisations(&self) -> BoxFuture<'_, Vec<(OrgId, String)>> {
        async move {
            let registry = Arc::clone(&self.trade.registry.borrow());
            let others = registry.active().filter(|member| member.org != self.trade.me);
            let mut named: Vec<_> = others.map(|member| (member.org.clone(), member.name.clone())).collect();
            named.sort_by_cached_key(|(org, name)| (name.to_lowercase(), org.clone()));
            named
        }
        .boxed()
    }

    fn now(&self) -> Millis {
        self.trade.clock.now()
    }

    fn random(&self) -> [u8; 32] {
        random_bytes(&*self.trade.random).unwrap_or_else(|fault| {
            // A session made of known bytes would be open to anybody: better no node than that.
            error!(story = chain(&fault), "no random bytes; the node stops");
            std::process::abort()
        })
    }
}

#[cfg(test)]
mod tests {
    use hie_node_core::catalogue::Table;
    use hie_node_core::kv::memory::MemoryKv;
    use hie_node_core::kv::{Batch, Kv as _, SCAN_LIMIT_MAX};
    use hie_protocol::id::Millis;

    use super::{DAY_MS, count, moment};

    #[test]
    fn an_old_moment_has_its_date() {
        let at = Millis(1_795_436_523_456);
        assert_eq!(moment(at, at.plus(1000)), "12:22 UTC");
        assert_eq!(moment(at, at.plus(2 * DAY_MS)), "23-Nov-2026 12:22 UTC");
    }

    #[test]
    fn every_key_of_a_table_is_counted_once() {
        let kv = MemoryKv::default();
        assert_eq!(count(&kv, Table::Patients), Ok(0));
        for many in [SCAN_LIMIT_MAX, SCAN_LIMIT_MAX + 3] {
            let mut batch = Batch::new();
            (0..many as u64).for_each(|key| batch.put(Table::Patients, key.to_be_bytes(), [1]));
            assert!(kv.commit(batch).is_ok());
            assert_eq!(count(&kv, Table::Patients), Ok(many as u64));
        }
    }
}
