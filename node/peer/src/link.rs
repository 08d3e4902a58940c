//! What is known of one other node: connections, greeting, back-off, waiting substreams. No IO, time and chance are
//! arguments.
//!
//! ```text
//! down --dial--> dialling --up--> greeting --greeted--> open --last connection gone--> down (redial after a hold)
//!                   \--failed--> back-off, doubled up to its limit, with jitter
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hie_protocol::id::Millis;

use crate::board::Greeting;
use crate::failure::PeerFailure;
use crate::streams::{Kind, OpenReply};

/// First pause after a failed dial.
pub(crate) const BACK_OFF_MS_MIN: u64 = 250;
/// Longest pause after failed dials.
pub(crate) const BACK_OFF_MS_MAX: u64 = 30_000;
/// Most substreams that wait for a connection to one node.
pub(crate) const WAITING_MAX: usize = 64;
/// Parts of a whole in a jitter.
pub(crate) const JITTER_MAX: u64 = 1000;

/// A substream that waits for a connection.
pub(crate) struct Waiting {
    pub kind: Kind,
    pub reply: OpenReply,
}

/// What to do with a wish for a substream.
pub(crate) enum Step {
    /// A connection is up and greeted: open it.
    Open,
    /// It waits; a dial or a greeting is under way already.
    Wait,
    /// It waits; dial now.
    Dial,
    /// It fails at once.
    Fail(PeerFailure),
}

/// One other node.
#[derive(Default)]
pub(crate) struct Link {
    /// Open connections.
    pub connections: u32,
    /// Since when the present state (connected or failing) holds.
    pub since: Option<Millis>,
    /// Last failure, until a connection comes up.
    pub last_error: Option<PeerFailure>,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// Grows with every first connection: a greeting of an earlier life counts no more.
    pub life: u64,
    /// When it was greeted last.
    pub greeted_at: Option<Instant>,
    greeting: Greeting,
    dialling: bool,
    failures: u32,
    not_before: Option<Instant>,
    hold_until: Option<Instant>,
    waiting: VecDeque<Waiting>,
}

impl Link {
    /// What to do with a new wish.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.connections > 0 {
            match self.greeting {
                Greeting::Speaks(_) => return Step::Open,
                Greeting::Nothing => return Step::Fail(PeerFailure::Version),
                Greeting::Open if self.waiting.len() < WAITING_MAX => return Step::Wait,
                Greeting::Open => return Step::Fail(PeerFailure::Crowded),
            }
        }
        if self.waiting.len() >= WAITING_MAX {
            return Step::Fail(PeerFailure::Crowded);
        }
        if self.dialling {
            return Step::Wait;
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Step::Fail(self.failing());
        }
        self.dialling = true;
        Step::Dial
    }

    /// Whether a dial is due without a wish.
    pub fn due(&mut self, now: Instant) -> bool {
        let rested = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        let due = self.connections == 0 && !self.dialling && rested(self.not_before) && rested(self.hold_until);
        self.dialling |= due;
        due
    }

    /// Leaves the next dial without a wish to the other side for a while, or spreads it over time.
    pub fn hold(&mut self, now: Instant, pause: Duration) {
        self.hold_until = now.checked_add(pause);
    }

    /// Keeps a wish until a connection is up and greeted.
    pub fn wait(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// A connection came up; it is to be greeted.
    pub fn up(&mut self, at: Millis) {
        if self.connections == 0 {
            self.since = Some(at);
            self.greeting = Greeting::Open;
            self.life = self.life.wrapping_add(1);
        }
        self.connections = self.connections.saturating_add(1);
        self.dialling = false;
        self.failures = 0;
        self.not_before = None;
        self.last_error = None;
    }

    /// The node was greeted; gives the wishes that waited, which are now to be taken again.
    pub fn greeted(&mut self, life: u64, greeting: Greeting, now: Instant) -> VecDeque<Waiting> {
        if life != self.life || self.connections == 0 {
            return VecDeque::new();
        }
        self.greeting = greeting;
        self.greeted_at = Some(now);
        if greeting == Greeting::Nothing {
            self.last_error = Some(PeerFailure::Version);
        }
        core::mem::take(&mut self.waiting)
    }

    /// `left` connections are left; gives the wishes that waited when none is, which are now to be taken again.
    pub fn down(&mut self, left: u32, at: Millis) -> VecDeque<Waiting> {
        self.connections = left;
        if left > 0 {
            return VecDeque::new();
        }
        self.since = Some(at);
        self.rtt = None;
        self.greeted_at = None;
        self.last_error = Some(PeerFailure::Closed);
        core::mem::take(&mut self.waiting)
    }

    /// A dial failed; every waiting wish fails with it. `jitter` shortens the pause by up to a half, in parts of
    /// [`JITTER_MAX`].
    pub fn failed(&mut self, failure: PeerFailure, at: Millis, now: Instant, jitter: u64) {
        self.dialling = false;
        if self.connections > 0 {
            return;
        }
        if self.failures == 0 {
            self.since = Some(at);
        }
        let pause = BACK_OFF_MS_MIN
            .saturating_mul(1 << self.failures.min(16))
            .min(BACK_OFF_MS_MAX);
        let pause = pause.saturating_sub((pause / 2).saturating_mul(jitter.min(JITTER_MAX)) / JITTER_MAX);
        self.not_before = now.checked_add(Duration::from_millis(pause));
        self.failures = self.failures.saturating_add(1);
        let failure = match failure {
            PeerFailure::Unreachable { .. } => PeerFailure::Unreachable { since: self.since },
            other => other,
        };
        self.last_error = Some(failure);
        for waiting in self.waiting.drain(..) {
            // A caller that has gone away needs no answer.
            let _gone = waiting.reply.send(Err(failure));
        }
    }

    fn failing(&self) -> PeerFailure {
        match self.last_error {
            Some(refused @ PeerFailure::Refused(_)) => refused,
            _ => PeerFailure::Unreachable { since: self.since },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::time::{Duration, Instant};

    use tokio::sync::oneshot;

    use hie_node_pki::refusal::CertificateRefusal;
    use hie_protocol::id::Millis;
    use hie_protocol::version::V1;

    use super::{BACK_OFF_MS_MAX, JITTER_MAX, Link, Step, Waiting};
    use crate::board::Greeting;
    use crate::failure::PeerFailure;
    use crate::streams::Kind;

    const UNREACHABLE: PeerFailure = PeerFailure::Unreachable { since: None };

    #[test]
    fn a_failed_dial_fails_who_waits_and_pauses() {
        let (mut link, start) = (Link::default(), Instant::now());
        assert!(matches!(link.step(start), Step::Dial));
        assert!(matches!(link.step(start), Step::Wait));
        let (reply, mut answer) = oneshot::channel();
        link.wait(Waiting {
            kind: Kind::Request,
            reply,
        });
        link.failed(UNREACHABLE, Millis(5), start, 0);
        let since = PeerFailure::Unreachable { since: Some(Millis(5)) };
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), since);
        assert!(matches!(link.step(start), Step::Fail(failure) if failure == since));
        let later = start + Duration::from_millis(260);
        assert!(matches!(link.step(later), Step::Dial));
        link.failed(UNREACHABLE, Millis(9), later, 0);
        // The pause doubles, the time since which it fails stays.
        assert!(matches!(link.step(later + Duration::from_millis(260)), Step::Fail(failure) if failure == since));
        assert!(matches!(link.step(later + Duration::from_millis(510)), Step::Dial));
    }

    #[test]
    fn a_connection_ends_the_pause() {
        let (mut link, start) = (Link::default(), Instant::now());
        assert!(link.due(start) && !link.due(start));
        link.failed(PeerFailure::Refused(CertificateRefusal::Revoked), Millis(5), start, 0);
        assert!(matches!(
            link.step(start),
            Step::Fail(PeerFailure::Refused(CertificateRefusal::Revoked))
        ));
        link.up(Millis(7));
        link.up(Millis(7));
        assert!(matches!(link.step(start), Step::Wait), "not before it is greeted");
        link.greeted(link.life, Greeting::Speaks(V1), start);
        assert!(matches!(link.step(start), Step::Open));
        link.down(1, Millis(8));
        assert!(matches!(link.step(start), Step::Open));
        link.down(0, Millis(8));
        assert_eq!(link.since, Some(Millis(8)));
        assert!(matches!(link.step(start), Step::Dial));
    }

    #[test]
    fn spec_p_outbound_redials_are_held_back_and_spread() {
        let (mut link, start) = (Link::default(), Instant::now());
        link.up(Millis(1));
        link.down(0, Millis(2));
        link.hold(start, Duration::from_millis(300));
        assert!(!link.due(start) && !link.due(start + Duration::from_millis(299)));
        let later = start + Duration::from_millis(300);
        assert!(link.due(later));
        let mut pauses = Vec::new();
        for (tries, jitter) in [(0, 0), (0, JITTER_MAX), (20, 0), (20, JITTER_MAX)] {
            let mut link = Link::default();
            (0..=tries).for_each(|_| link.failed(UNREACHABLE, Millis(1), start, jitter));
            pauses.push(
                (0..=BACK_OFF_MS_MAX)
                    .find(|ms| link.due(start + Duration::from_millis(*ms)))
                    .unwrap(),
            );
        }
        assert_eq!(pauses, [250, 125, BACK_OFF_MS_MAX, BACK_OFF_MS_MAX / 2]);
    }

    #[test]
    fn spec_p_version_a_greeting_of_an_earlier_connection_counts_no_more() {
        let (mut link, start) = (Link::default(), Instant::now());
        link.up(Millis(1));
        let before = link.life;
        link.down(0, Millis(2));
        link.up(Millis(3));
        link.greeted(before, Greeting::Speaks(V1), start);
        assert!(matches!(link.step(start), Step::Wait));
        link.greeted(link.life, Greeting::Nothing, start);
        assert!(matches!(link.step(start), Step::Fail(PeerFailure::Version)));
    }
}
