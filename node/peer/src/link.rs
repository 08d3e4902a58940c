//! What is known of one other node: connections, back-off, waiting requests. No IO, time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use hie_protocol::id::Millis;

use crate::failure::PeerFailure;

/// First pause after a failed dial.
pub(crate) const BACK_OFF_MS_MIN: u64 = 250;
/// Longest pause after failed dials.
pub(crate) const BACK_OFF_MS_MAX: u64 = 30_000;
/// Most requests that wait for a connection to one node.
pub(crate) const WAITING_MAX: usize = 64;

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Vec<u8>, PeerFailure>>;

/// A request that waits for a connection.
pub(crate) struct Waiting {
    pub frame: Vec<u8>,
    pub reply: Reply,
}

/// What to do with a request.
pub(crate) enum Step {
    /// A connection is up: send it.
    Send,
    /// It waits; a dial is under way already.
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
    dialling: bool,
    failures: u32,
    not_before: Option<Instant>,
    waiting: VecDeque<Waiting>,
}

impl Link {
    /// What to do with a new request.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.connections > 0 {
            return Step::Send;
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

    /// Whether a dial is due without a request.
    pub fn due(&mut self, now: Instant) -> bool {
        let due = self.connections == 0 && !self.dialling && self.not_before.is_none_or(|not_before| now >= not_before);
        self.dialling |= due;
        due
    }

    /// Keeps a request until a connection is up.
    pub fn wait(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// A connection came up; gives the requests that waited for it.
    pub fn up(&mut self, at: Millis) -> VecDeque<Waiting> {
        if self.connections == 0 {
            self.since = Some(at);
        }
        self.connections = self.connections.saturating_add(1);
        self.dialling = false;
        self.failures = 0;
        self.not_before = None;
        self.last_error = None;
        core::mem::take(&mut self.waiting)
    }

    /// `left` connections are left.
    pub fn down(&mut self, left: u32, at: Millis) {
        self.connections = left;
        if left == 0 {
            self.since = Some(at);
            self.rtt = None;
            self.last_error = Some(PeerFailure::Closed);
        }
    }

    /// A dial failed; every waiting request fails with it.
    pub fn failed(&mut self, failure: PeerFailure, at: Millis, now: Instant) {
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

    use super::{Link, Step, Waiting};
    use crate::failure::PeerFailure;

    const UNREACHABLE: PeerFailure = PeerFailure::Unreachable { since: None };

    #[test]
    fn a_failed_dial_fails_who_waits_and_pauses() {
        let (mut link, start) = (Link::default(), Instant::now());
        assert!(matches!(link.step(start), Step::Dial));
        assert!(matches!(link.step(start), Step::Wait));
        let (reply, mut answer) = oneshot::channel();
        link.wait(Waiting {
            frame: Vec::new(),
            reply,
        });
        link.failed(UNREACHABLE, Millis(5), start);
        let since = PeerFailure::Unreachable { since: Some(Millis(5)) };
        assert_eq!(answer.try_recv().unwrap(), Err(since));
        assert!(matches!(link.step(start), Step::Fail(failure) if failure == since));
        let later = start + Duration::from_millis(260);
        assert!(matches!(link.step(later), Step::Dial));
        link.failed(UNREACHABLE, Millis(9), later);
        // The pause doubles, the time since which it fails stays.
        assert!(matches!(link.step(later + Duration::from_millis(260)), Step::Fail(failure) if failure == since));
        assert!(matches!(link.step(later + Duration::from_millis(510)), Step::Dial));
    }

    #[test]
    fn a_connection_ends_the_pause() {
        let (mut link, start) = (Link::default(), Instant::now());
        assert!(link.due(start) && !link.due(start));
        link.failed(PeerFailure::Refused(CertificateRefusal::Revoked), Millis(5), start);
        assert!(matches!(
            link.step(start),
            Step::Fail(PeerFailure::Refused(CertificateRefusal::Revoked))
        ));
        link.up(Millis(7));
        assert!(matches!(link.step(start), Step::Send));
        link.down(0, Millis(8));
        assert_eq!(link.since, Some(Millis(8)));
        assert!(matches!(link.step(start), Step::Dial));
    }
}
