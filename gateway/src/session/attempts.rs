//! The brake on sign-in: failures of one account, or of one address, cost growing waits.
//!
//! The law: an account is never locked for good (that would let a stranger lock a physician out); after
//! [`FREE_FAILURES`] failures each further try waits, twice as long each time, up to [`WAIT_MS_MAX`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hie_protocol::id::Millis;

/// Failures before the brake.
pub const FREE_FAILURES: u32 = 5;
/// First wait, in milliseconds.
pub const WAIT_MS_MIN: u64 = 2_000;
/// Longest wait, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// Time after which failures are forgotten, in milliseconds.
pub const FORGET_MS: u64 = 15 * 60 * 1000;
/// Most keys remembered; the one that failed longest ago makes room.
pub const KEYS_MAX: usize = 10_000;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Millis,
}

/// Failed sign-ins by account and by address.
#[derive(Default)]
pub struct Attempts {
    // INVARIANT: held only for map operations.
    table: Mutex<HashMap<String, Failures>>,
}

impl Attempts {
    /// Milliseconds that a key still has to wait; zero when it may try.
    #[must_use]
    pub fn wait_ms(&self, key: &str, now: Millis) -> u64 {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = table.get(key) else { return 0 };
        if failures.count < FREE_FAILURES || now.since(failures.last) > FORGET_MS {
            return 0;
        }
        let doubled = failures.count.saturating_sub(FREE_FAILURES).min(16);
        let wait = (WAIT_MS_MIN << doubled).min(WAIT_MS_MAX);
        wait.saturating_sub(now.since(failures.last))
    }

    /// Counts a failure.
    pub fn failed(&self, key: &str, now: Millis) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= KEYS_MAX && !table.contains_key(key) {
            table.retain(|_, failures| now.since(failures.last) <= FORGET_MS);
            let oldest = table
                .iter()
                .min_by_key(|(_, failures)| failures.last)
                .map(|(key, _)| key.clone());
            if let (true, Some(oldest)) = (table.len() >= KEYS_MAX, oldest) {
                table.remove(&oldest);
            }
        }
        let failures = table.entry(key.to_owned()).or_insert(Failures { count: 0, last: now });
        if now.since(failures.last) > FORGET_MS {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    /// Forgets a key that signed in.
    pub fn succeeded(&self, key: &str) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
