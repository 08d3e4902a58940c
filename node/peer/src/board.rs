//! What is known of other nodes while they are connected: the version that both speak, when they answered last, their
//! clock. Written where it is learnt, read by whoever chooses a node.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hie_protocol::id::{Millis, NodeKey};
use hie_protocol::version::{ProtocolVersion, UNGREETED};

/// One look at another node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSample {
    /// What its clock showed.
    pub theirs: Millis,
    /// This node's clock when it asked.
    pub asked: Millis,
    /// This node's clock when the answer was there.
    pub answered: Millis,
}

/// What a channel speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Greeting {
    /// No `Hello` was answered yet.
    #[default]
    Open,
    /// This version.
    Speaks(ProtocolVersion),
    /// No version in common.
    Nothing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    connected: bool,
    greeting: Greeting,
    answered: Option<Instant>,
    clock: Option<ClockSample>,
}

/// The board of a node.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<NodeKey, Entry>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A first connection came up, or the last one went down: then what was greeted holds no longer. The other node's
    /// `Hello` may be here before its connection is reported.
    pub(crate) fn connected(&self, node: NodeKey, connected: bool) {
        let mut entries = self.lock();
        let entry = entries.entry(node).or_default();
        entry.connected = connected;
        if !connected {
            entry.greeting = Greeting::Open;
        }
    }

    pub(crate) fn greeted(&self, node: NodeKey, greeting: Greeting) {
        self.lock().entry(node).or_default().greeting = greeting;
    }

    pub(crate) fn greeting(&self, node: &NodeKey) -> Greeting {
        self.lock().get(node).copied().unwrap_or_default().greeting
    }

    pub(crate) fn answered(&self, node: NodeKey, at: Instant) {
        self.lock().entry(node).or_default().answered = Some(at);
    }

    pub(crate) fn clock(&self, node: NodeKey, sample: ClockSample) {
        self.lock().entry(node).or_default().clock = Some(sample);
    }

    pub(crate) fn clock_of(&self, node: &NodeKey) -> Option<ClockSample> {
        self.lock().get(node)?.clock
    }

    /// The version that a connected node speaks with this one; before its greeting the first.
    pub(crate) fn version(&self, node: &NodeKey) -> Option<ProtocolVersion> {
        let entry = self.lock().get(node).copied().filter(|entry| entry.connected)?;
        match entry.greeting {
            Greeting::Speaks(version) => Some(version),
            Greeting::Open => Some(UNGREETED),
            Greeting::Nothing => None,
        }
    }

    /// The same nodes, connected ones first, among them the one that answered last; otherwise in the order given.
    pub(crate) fn preferred(&self, mut nodes: Vec<NodeKey>) -> Vec<NodeKey> {
        let entries = self.lock();
        nodes.sort_by_key(|node| {
            let entry = entries.get(node).copied().unwrap_or_default();
            let usable = entry.connected && entry.greeting != Greeting::Nothing;
            core::cmp::Reverse((usable, entry.answered.filter(|_| usable)))
        });
        nodes
    }

    /// Drops what is known of nodes that are out.
    pub(crate) fn retain(&self, keep: impl Fn(&NodeKey) -> bool) {
        self.lock().retain(|node, entry| entry.connected || keep(node));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hie_protocol::id::NodeKey;
    use hie_protocol::version::{V1, V2};

    use super::{Board, Greeting};

    #[test]
    fn spec_p_nodes_the_node_that_answered_last_comes_first() {
        let (board, now) = (Board::default(), Instant::now());
        let [a, b, c] = [1, 2, 3].map(|byte| NodeKey::new([byte; 32]));
        assert_eq!(board.preferred(vec![a, b, c]), [a, b, c]);
        board.connected(b, true);
        board.connected(c, true);
        assert_eq!(board.preferred(vec![a, b, c]), [b, c, a]);
        board.answered(b, now);
        board.answered(c, now + Duration::from_millis(1));
        assert_eq!(board.preferred(vec![a, b, c]), [c, b, a]);
        board.connected(c, false);
        assert_eq!(board.preferred(vec![a, b, c]), [b, a, c]);
    }

    #[test]
    fn spec_p_version_a_new_channel_is_greeted_anew() {
        let board = Board::default();
        let a = NodeKey::new([1; 32]);
        assert_eq!(board.version(&a), None);
        board.connected(a, true);
        assert_eq!(board.version(&a), Some(V1), "before its greeting");
        board.greeted(a, Greeting::Speaks(V2));
        assert_eq!(board.version(&a), Some(V2));
        board.connected(a, false);
        assert_eq!(board.version(&a), None);
        board.connected(a, true);
        assert_eq!(board.version(&a), Some(V1), "greeted anew");
        board.greeted(a, Greeting::Nothing);
        assert_eq!(board.version(&a), None);
    }
}
