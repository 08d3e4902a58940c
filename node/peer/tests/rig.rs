//! What the tests of the channels share: a region, a log that can be read, a clock that can be moved.
#![allow(dead_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hie_node_peer::trust::Trust;
use hie_node_pki::clock::Clock;
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::membership::MembershipCell;
use hie_protocol::id::Millis;
use tracing::subscriber::DefaultGuard;

#[path = "../../pki/tests/region.rs"]
pub mod region;

pub const A: &str = "urn:oid:2.999.1";
pub const B: &str = "urn:oid:2.999.2";

/// Identity, membership and clock of a node of the region.
pub fn trust(region: &region::Region, identity: NodeIdentity) -> Arc<Trust> {
    trust_with(region, identity, Arc::new(region::TestClock(region::NOW)))
}

pub fn trust_with(region: &region::Region, identity: NodeIdentity, clock: Arc<dyn Clock>) -> Arc<Trust> {
    let membership = Arc::new(MembershipCell::new(region.membership()));
    Trust::new(Arc::new(IdentityCell::new(identity)), membership, clock)
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct MovableClock(AtomicU64);

impl MovableClock {
    pub fn new(at: Millis) -> Self {
        Self(AtomicU64::new(at.0))
    }

    pub fn set(&self, at: Millis) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// Everything logged on this thread while it lives.
pub struct Log {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries until it holds; fails when it does not within `limit`.
pub async fn until<T>(limit: Duration, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let tries = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            if let Some(value) = holds().await {
                return value;
            }
        }
    };
    tokio::time::timeout(limit, tries)
        .await
        .expect("the condition holds in time")
}
