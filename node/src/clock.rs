//! The system's clock: the only place that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use hie_protocol::id::Millis;

/// Now.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's clock where a port wants one.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl hie_node_pki::clock::Clock for System {
    fn now(&self) -> Millis {
        now()
    }
}

impl hie_node_core::ports::Clock for System {
    fn now(&self) -> Millis {
        now()
    }
}
