//! Attention: nobody waits a whole deadline for a member that shows no sign of life.
//!
//! ```text
//! request, nothing heard for a while -> probe -> answered: the request keeps its whole deadline
//!                                             -> nothing:  the member is absent; what waits for it fails now,
//!                                                          what comes fails at once, probes go on until it answers
//! ```
//!
//! A member that is slow is not absent: any answer of its node, an answer to the probe included, is a sign of life, and
//! the probe asks for nothing that needs its disk. How long a probe may take follows from how quick the member was
//! before. Time during which this node itself was held up does not count against anybody.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hie_protocol::id::OrgId;
use hie_protocol::message::{Request, Response};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::locator::driver::{Wire, WireFailure};

/// Silence after which a member is probed, in milliseconds.
pub const QUIET_MS_MAX: u64 = 100;
/// Longest wait for a probe, beside the member's own round trips, in milliseconds.
pub const PROBE_MS_MAX: u64 = 250;
/// Round trips that a probe may take beside that.
pub const PROBE_TRIPS_MAX: u32 = 2;
/// What a member is taken for until it has answered once, as a round trip, in milliseconds.
pub const UNKNOWN_TRIP_MS: u64 = 500;
/// Pause between two looks at a member, in milliseconds.
pub const LOOK_MS: u64 = 20;
/// A look that comes later than this means that this node was held up, in milliseconds.
pub const LATE_MS_MAX: u64 = 40;
/// Pause between two probes of an absent member, in milliseconds.
pub const ABSENT_PROBE_MS: u64 = 1000;

/// What is known of a member.
struct Known {
    /// Requests that wait for it.
    waiting: usize,
    /// Last sign of life.
    heard: Option<Instant>,
    /// Its quickest answer; creeps up, so that a way that became longer is learned.
    trip: Option<Duration>,
    /// Whether somebody watches it.
    watched: bool,
    /// It shows no sign of life.
    absent: bool,
}

impl Known {
    const fn new() -> Self {
        Self {
            waiting: 0,
            heard: None,
            trip: None,
            watched: false,
            absent: false,
        }
    }
}

struct Shared {
    wire: Arc<dyn Wire>,
    /// Under this lock: everything known, for a moment, never across an await.
    known: Mutex<BTreeMap<OrgId, Known>>,
    absent: watch::Sender<Arc<BTreeSet<OrgId>>>,
}

/// A wire that gives up members without a sign of life. Cheap to clone.
#[derive(Clone)]
pub struct Attention(Arc<Shared>);

impl fmt::Debug for Attention {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Attention")
    }
}

impl Attention {
    /// Over the wire.
    #[must_use]
    pub fn new(wire: Arc<dyn Wire>) -> Self {
        Self(Arc::new(Shared {
            wire,
            known: Mutex::default(),
            absent: watch::Sender::new(Arc::default()),
        }))
    }

    /// The members that show no sign of life, as they change.
    #[must_use]
    pub fn absent(&self) -> watch::Receiver<Arc<BTreeSet<OrgId>>> {
        self.0.absent.subscribe()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, BTreeMap<OrgId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request in; whether somebody must begin to watch the member. None when it is absent.
    fn begin(&self, org: &OrgId) -> Option<bool> {
        let mut known = self.known();
        let member = known.entry(org.clone()).or_insert_with(Known::new);
        if member.absent {
            return None;
        }
        member.waiting = member.waiting.saturating_add(1);
        let watch = !member.watched;
        member.watched = true;
        Some(watch)
    }

    /// Counts a request out; `heard` is how long its answer took, if one came.
    fn end(&self, org: &OrgId, heard: Option<Duration>) {
        let mut known = self.known();
        let Some(member) = known.get_mut(org) else { return };
        member.waiting = member.waiting.saturating_sub(1);
        if let Some(took) = heard {
            member.heard = Some(Instant::now());
            let before = member.trip.map(|trip| trip.saturating_add(trip / 16));
            member.trip = Some(before.map_or(took, |before| before.min(took)));
        }
    }

    /// Tells everybody when a member turned absent, or present again.
    fn turn(&self, org: &OrgId, absent: bool) {
        if let Some(member) = self.known().get_mut(org) {
            member.absent = absent;
            member.watched = absent;
            member.heard = if absent { member.heard } else { Some(Instant::now()) };
        }
        info!(%org, absent, "sign of life");
        self.absent.send_modify(|all| {
            let mut next = BTreeSet::clone(all);
            if absent {
                next.insert(org.clone());
            } else {
                next.remove(org);
            }
            *all = Arc::new(next);
        });
    }

    /// Whether nothing waits any more; then nobody watches.
    fn at_rest(&self, org: &OrgId) -> bool {
        let mut known = self.known();
        let Some(member) = known.get_mut(org) else { return true };
        let rest = member.waiting == 0;
        member.watched = !rest;
        rest
    }

    fn heard_since(&self, org: &OrgId, since: Instant) -> bool {
        self.known()
            .get(org)
            .and_then(|member| member.heard)
            .is_some_and(|heard| heard >= since)
    }

    /// How long a probe may take.
    fn patience(&self, org: &OrgId) -> Duration {
        let trip = self.known().get(org).and_then(|member| member.trip);
        let trip = trip.unwrap_or(Duration::from_millis(UNKNOWN_TRIP_MS));
        Duration::from_millis(PROBE_MS_MAX).saturating_add(trip.saturating_mul(PROBE_TRIPS_MAX))
    }

    /// A question that needs nothing but a running node: a registry newer than any.
    async fn probe(&self, org: &OrgId) -> Result<(), WireFailure> {
        let started = Instant::now();
        let answer = self.wire.send(org.clone(), Request::Registry { have: u64::MAX }).await;
        if is_life(&answer) {
            self.end_probe(org, started.elapsed());
        }
        answer.map(|_| ())
    }

    fn end_probe(&self, org: &OrgId, took: Duration) {
        if let Some(member) = self.known().get_mut(org) {
            member.waiting = member.waiting.saturating_add(1);
        }
        self.end(org, Some(took));
    }
}

/// Whether an answer, or its failure, shows that the node runs.
const fn is_life(answer: &Result<Response, WireFailure>) -> bool {
    matches!(answer, Ok(_) | Err(WireFailure::Misbehaved))
}

/// Sleeps for `time` of this node's own: looks that come late do not count. Ends early when `ended` says so.
async fn own_time(time: Duration, ended: impl Fn() -> bool) {
    let look = Duration::from_millis(LOOK_MS);
    let mut left = time;
    while !left.is_zero() && !ended() {
        let before = Instant::now();
        tokio::time::sleep(look.min(left)).await;
        if before.elapsed() <= Duration::from_millis(LATE_MS_MAX) {
            left = left.saturating_sub(look);
        }
    }
}

/// Watches a member while something waits for it, and while it is absent.
async fn watch_member(shared: Arc<Shared>, org: OrgId) {
    loop {
        let since = Instant::now();
        own_time(Duration::from_millis(QUIET_MS_MAX), || false).await;
        if shared.at_rest(&org) {
            return;
        }
        if shared.heard_since(&org, since) {
            continue;
        }
        let asked = Instant::now();
        let alive = tokio::select! {
            answer = shared.probe(&org) => !matches!(answer, Err(WireFailure::TimedOut)),
            () = own_time(shared.patience(&org), || shared.heard_since(&org, asked)) => shared.heard_since(&org, asked),
        };
        if alive {
            continue;
        }
        shared.turn(&org, true);
        while shared.probe(&org).await.is_err() {
            tokio::time::sleep(Duration::from_millis(ABSENT_PROBE_MS)).await;
        }
        shared.turn(&org, false);
        return;
    }
}

impl Wire for Attention {
    fn send(&self, org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>> {
        let shared = Arc::clone(&self.0);
        async move {
            let Some(watch) = shared.begin(&org) else {
                return Err(WireFailure::Unreachable);
            };
            if watch {
                tokio::spawn(watch_member(Arc::clone(&shared), org.clone()));
            }
            let waiting = Waiting {
                shared: Arc::clone(&shared),
                org: &org,
                heard: None,
            };
            let mut absent = shared.absent.subscribe();
            let started = Instant::now();
            tokio::select! {
                answer = shared.wire.send(org.clone(), request) => {
                    waiting.done(is_life(&answer).then(|| started.elapsed()));
                    answer
                }
                _ = absent.wait_for(|absent| absent.contains(&org)) => Err(WireFailure::TimedOut),
            }
        }
        .boxed()
    }
}

/// A request that waits; counted out when it ends, also when its caller has gone.
struct Waiting<'o> {
    shared: Arc<Shared>,
    org: &'o OrgId,
    heard: Option<Duration>,
}

impl Waiting<'_> {
    fn done(mut self, heard: Option<Duration>) {
        self.heard = heard;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.end(self.org, self.heard);
    }
}
