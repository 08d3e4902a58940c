//! What one member may have in flight here, and how fast. It counts for the organisation, whatever the number of its
//! nodes, and it counts before anything is read: a place before the stream, bytes by the announced length of a frame.
//!
//! A member that is a little too fast waits; one that is much too fast is refused (SPEC P-BUDGET). While many members
//! are busy each gets its fair share of the places, so that none of them can take them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::OrgId;

/// Most requests of one member that are being answered at the same time.
pub const STREAMS_MAX: usize = 32;
/// Most requests of all members that are being answered at the same time.
pub const STREAMS_OF_ALL_MAX: usize = 256;
/// Places that every member has, however many others are busy.
pub const STREAMS_FAIR_MIN: usize = 4;
/// Most bytes of one member's requests and answers in flight.
pub const BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;
/// Most transfers of one member over substreams of its control channels.
pub const TRANSFERS_MAX: usize = 16;
/// Requests of one member a second, in the long run.
pub const REQUESTS_PER_SECOND: u32 = 500;
/// Requests of one member at once: the first publication of a large member comes in bursts.
pub const REQUESTS_BURST: u32 = 2_000;
/// Bytes of one member's requests a second, in the long run.
pub const BYTES_PER_SECOND: u32 = 16 * 1024 * 1024;
/// Bytes of one member's requests at once.
pub const BYTES_BURST: u32 = 64 * 1024 * 1024;
/// Connections of one member a second, in the long run.
pub const CONNECTIONS_PER_SECOND: u32 = 1;
/// Connections of one member at once.
pub const CONNECTIONS_BURST: u32 = 30;
/// Longest time that a member's request waits for its budget before it is refused.
pub const PAUSE_MS_MAX: u64 = 1_000;

/// Units by time. Counts in thousandths, so that a slow rate is exact over milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: i64,
    at: Instant,
    per_second: i64,
    burst: i64,
}

impl Bucket {
    fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = i64::from(burst).saturating_mul(1000);
        Self {
            level: burst,
            at: now,
            per_second: i64::from(per_second),
            burst,
        }
    }

    /// Takes `units`; gives how long to wait before they may be used, or none when that is longer than `longest`.
    fn take(&mut self, units: u32, longest: Duration, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let gained = i64::try_from(passed)
            .unwrap_or(i64::MAX)
            .saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.burst);
        self.at = self.at.max(now);
        let left = self.level.saturating_sub(i64::from(units).saturating_mul(1000));
        let wait = u64::try_from(left.min(0).saturating_neg() / self.per_second.max(1)).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(wait);
        if wait > longest {
            return None;
        }
        self.level = left;
        Some(wait)
    }
}

#[derive(Debug)]
struct Used {
    streams: usize,
    transfers: usize,
    bytes: usize,
    requests: Bucket,
    flow: Bucket,
    connections: Bucket,
}

impl Used {
    fn new(now: Instant) -> Self {
        Self {
            streams: 0,
            transfers: 0,
            bytes: 0,
            requests: Bucket::new(REQUESTS_PER_SECOND, REQUESTS_BURST, now),
            flow: Bucket::new(BYTES_PER_SECOND, BYTES_BURST, now),
            connections: Bucket::new(CONNECTIONS_PER_SECOND, CONNECTIONS_BURST, now),
        }
    }
}

/// Members are kept once seen: there are at most [`hie_protocol::registry::MEMBERS_MAX`] of them.
#[derive(Debug, Default)]
struct Book {
    streams: usize,
    busy: usize,
    members: BTreeMap<OrgId, Used>,
}

impl Book {
    fn used(&mut self, org: &OrgId, now: Instant) -> &mut Used {
        self.members.entry(org.clone()).or_insert_with(|| Used::new(now))
    }
}

/// What every member uses of this node.
#[derive(Debug, Default, Clone)]
pub struct Budgets(Arc<Mutex<Book>>);

impl Budgets {
    /// Takes a place for one request, or none when the member has its share already.
    #[must_use]
    pub fn enter(&self, org: &OrgId, now: Instant) -> Option<InFlight> {
        let mut book = self.lock();
        let (all, busy) = (book.streams, book.busy);
        let used = book.used(org, now);
        let first = used.streams == 0;
        // Half of the places are for whoever comes first; the rest is shared evenly.
        let share = if all < STREAMS_OF_ALL_MAX / 2 {
            STREAMS_MAX
        } else {
            let sharing = busy.saturating_add(usize::from(first)).max(1);
            (STREAMS_OF_ALL_MAX / sharing).clamp(STREAMS_FAIR_MIN, STREAMS_MAX)
        };
        if used.streams >= share {
            return None;
        }
        used.streams = used.streams.saturating_add(1);
        book.streams = all.saturating_add(1);
        book.busy = busy.saturating_add(usize::from(first));
        drop(book);
        Some(InFlight {
            budgets: self.clone(),
            org: org.clone(),
            bytes: 0,
        })
    }

    /// Takes a place for one transfer over a substream.
    #[must_use]
    pub fn transfer(&self, org: &OrgId, now: Instant) -> Option<Transfer> {
        let mut book = self.lock();
        let used = book.used(org, now);
        if used.transfers >= TRANSFERS_MAX {
            return None;
        }
        used.transfers = used.transfers.saturating_add(1);
        drop(book);
        Some(Transfer {
            budgets: self.clone(),
            org: org.clone(),
        })
    }

    /// Counts a new connection; false when the member opens them too fast.
    #[must_use]
    pub fn connection(&self, org: &OrgId, now: Instant) -> bool {
        let mut book = self.lock();
        book.used(org, now).connections.take(1, Duration::ZERO, now).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight; dropping it gives its place and bytes back.
#[derive(Debug)]
pub struct InFlight {
    budgets: Budgets,
    org: OrgId,
    bytes: usize,
}

impl InFlight {
    /// Counts a request whose length was announced, before it is read; gives how long to wait first, or none when the
    /// member's budget is used up.
    #[must_use]
    pub fn announce(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let mut book = self.budgets.lock();
        let used = book.used(&self.org, now);
        let total = used.bytes.saturating_add(bytes);
        if total > BYTES_MAX {
            return None;
        }
        let longest = Duration::from_millis(PAUSE_MS_MAX);
        let one = used.requests.take(1, longest, now)?;
        let flow = used.flow.take(u32::try_from(bytes).unwrap_or(u32::MAX), longest, now)?;
        used.bytes = total;
        drop(book);
        self.bytes = bytes;
        Some(one.max(flow))
    }

    /// Replaces the bytes of the request by those of its answer.
    pub fn answer(&mut self, bytes: usize) {
        if let Some(used) = self.budgets.lock().members.get_mut(&self.org) {
            used.bytes = used.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut book = self.budgets.lock();
        let Some(used) = book.members.get_mut(&self.org) else {
            return;
        };
        used.streams = used.streams.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(self.bytes);
        let idle = used.streams == 0;
        book.streams = book.streams.saturating_sub(1);
        book.busy = book.busy.saturating_sub(usize::from(idle));
    }
}

/// A transfer under way; dropping it gives its place back.
#[derive(Debug)]
pub struct Transfer {
    budgets: Budgets,
    org: OrgId,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(used) = self.budgets.lock().members.get_mut(&self.org) {
            used.transfers = used.transfers.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use hie_protocol::id::OrgId;

    use super::{
        BYTES_BURST, BYTES_MAX, Budgets, CONNECTIONS_BURST, PAUSE_MS_MAX, REQUESTS_BURST, REQUESTS_PER_SECOND,
        STREAMS_FAIR_MIN, STREAMS_MAX, STREAMS_OF_ALL_MAX,
    };

    fn org(number: usize) -> OrgId {
        OrgId::parse(&format!("urn:oid:2.999.{number}")).unwrap()
    }

    #[test]
    fn spec_p_budget_a_member_has_so_many_requests_and_bytes_and_no_more() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let mut held: Vec<_> = (0..STREAMS_MAX).map(|_| budgets.enter(&org(1), now).unwrap()).collect();
        assert!(budgets.enter(&org(1), now).is_none());
        assert!(
            budgets.enter(&org(2), now).is_some(),
            "another member's budget is its own"
        );
        held.pop();
        let mut last = budgets.enter(&org(1), now).unwrap();
        assert!(last.announce(BYTES_MAX + 1, now).is_none());
        assert!(last.announce(BYTES_MAX, now).is_some());
        let mut other = held.pop().unwrap();
        assert!(other.announce(1, now).is_none(), "its bytes are all in flight");
        last.answer(0);
        assert!(other.announce(1, now).is_some());
        drop((last, other, held));
        let book = budgets.lock();
        assert_eq!((book.streams, book.busy), (0, 0));
    }

    #[test]
    fn spec_p_budget_a_fast_member_waits_and_a_much_too_fast_one_is_refused() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let ask = |now| budgets.enter(&org(1), now).unwrap().announce(10, now);
        for _ in 0..REQUESTS_BURST {
            assert_eq!(ask(now), Some(Duration::ZERO));
        }
        let (mut waiting, mut longest) = (0, Duration::ZERO);
        while let Some(pause) = ask(now) {
            waiting += 1;
            longest = longest.max(pause);
        }
        assert_eq!(waiting, REQUESTS_PER_SECOND, "as many as one second brings");
        assert!(longest <= Duration::from_millis(PAUSE_MS_MAX));
        let later = now + Duration::from_secs(3);
        assert_eq!(ask(later), Some(Duration::ZERO));
        // Bytes are counted on their own.
        let part = BYTES_MAX;
        let big = (0..8).map_while(|_| budgets.enter(&org(2), now).unwrap().announce(part, now));
        let parts = usize::try_from(BYTES_BURST).unwrap() / part;
        assert!((parts..=parts + 1).contains(&big.count()));
    }

    #[test]
    fn spec_p_budget_busy_members_share_the_places() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let members = 100;
        let mut held = Vec::new();
        for _ in 0..STREAMS_MAX {
            held.extend((0..members).filter_map(|number| budgets.enter(&org(number), now)));
        }
        assert!(held.len() <= STREAMS_OF_ALL_MAX + members * STREAMS_FAIR_MIN);
        assert!(budgets.enter(&org(members), now).is_some(), "a newcomer has its share");
    }

    #[test]
    fn spec_p_budget_connections_are_counted() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let opened = (0..1000).filter(|_| budgets.connection(&org(1), now)).count();
        assert_eq!(opened, usize::try_from(CONNECTIONS_BURST).unwrap());
        assert!(budgets.connection(&org(2), now));
        assert!(budgets.connection(&org(1), now + Duration::from_secs(2)));
    }
}
