//! Time, randomness and signatures as arguments: nothing in this crate reads a clock.
//!
//! `Signer` is the protocol's own port ([`hie_protocol::sign::Signer`]). The in-memory twins let a test own
//! the clock and repeat a run byte for byte.

use core::future::pending;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;
use hie_protocol::sign::Signer;
use ring::rand::{SecureRandom, SystemRandom};

/// The time of day.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Millis;
}

/// Unpredictable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `out`. Errors: [`NoRandomness`].
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness>;
}

/// A signer that threads share.
pub trait NodeSigner: Signer + Send + Sync + 'static {}

impl<T: Signer + Send + Sync + 'static> NodeSigner for T {}

/// Tells whether this node's clock is good enough to sign by.
pub trait SigningGate: Send + Sync + 'static {
    /// None when it is; else the difference from the other members' clocks, in milliseconds (SPEC P-CLOCK).
    fn off_ms(&self) -> Option<i64>;
}

/// The operating system gives no random bytes; nothing secret can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes; check the kernel's random device and start again")]
pub struct NoRandomness;

impl NoRandomness {
    /// Who must act.
    #[must_use]
    pub const fn class(self) -> Class {
        Class::Broken
    }
}

/// `N` random bytes. Errors: [`NoRandomness`].
pub fn random_bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// The operating system's generator.
pub struct OsRandom(SystemRandom);

impl OsRandom {
    /// Opens the generator.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        self.0.fill(out).map_err(|_| NoRandomness)
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves on by `milliseconds`.
    pub fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// A generator that repeats itself from its seed (SplitMix64): for tests and simulation, never for secrets.
#[derive(Debug)]
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        let mut state = self.0.lock().map_err(|_| NoRandomness)?;
        for chunk in out.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            for (to, from) in chunk.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// Runs synchronous work (store, audit, password hash) off the async threads: the one seam that does.
///
/// A panic inside goes on in the caller; when the runtime is shutting down the caller never resumes.
pub async fn blocking<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => pending().await,
        },
    }
}
