//! Failed sign-ins slow an account down: kept in memory, bounded, by the caller's clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hie_protocol::id::Millis;

use super::AccountError;

/// Failures without consequence.
pub const FREE_FAILURES: u32 = 5;
/// Longest wait, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// Failures are forgotten after this time, in milliseconds.
pub const FORGET_MS: u64 = 15 * 60_000;
/// Most accounts remembered; the oldest failure gives way.
pub const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Slowdown(Mutex<HashMap<[u8; 16], (u32, Millis)>>);

impl Slowdown {
    /// Errors: [`AccountError::SlowDown`] while the account must wait.
    pub(super) fn check(&self, key: [u8; 16], now: Millis) -> Result<(), AccountError> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((count, last)) = failures.get(&key) else {
            return Ok(());
        };
        let until = last.plus(wait(*count));
        if now >= until {
            Ok(())
        } else {
            Err(AccountError::SlowDown {
                wait_ms: until.since(now),
            })
        }
    }

    pub(super) fn failed(&self, key: [u8; 16], now: Millis) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= REMEMBERED_MAX && !failures.contains_key(&key) {
            failures.retain(|_, (_, last)| now.since(*last) < FORGET_MS);
            let oldest = failures.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| *key);
            if failures.len() >= REMEMBERED_MAX
                && let Some(oldest) = oldest
            {
                failures.remove(&oldest);
            }
        }
        let entry = failures.entry(key).or_insert((0, now));
        if now.since(entry.1) >= FORGET_MS {
            entry.0 = 0;
        }
        *entry = (entry.0.saturating_add(1), now);
    }

    pub(super) fn forget(&self, key: [u8; 16]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// One second after the free failures, doubled with each further one.
fn wait(failures: u32) -> u64 {
    match failures.checked_sub(FREE_FAILURES) {
        None => 0,
        Some(more) => 1000_u64
            .checked_shl(more.min(16))
            .unwrap_or(WAIT_MS_MAX)
            .min(WAIT_MS_MAX),
    }
}
