//! Outputs remembered for a while, for who asks again about the same person.
//!
//! A user who opens a record twice within a quarter of an hour has no second evaluation: it would tell nobody
//! anything new, cost a round trip and use up the user's budget. Memory holds hashes and outputs, never an input; the
//! hash names the user, so that each user's first question is evaluated, and logged by the authorities, in her name.

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use hie_protocol::id::Millis;
use sha2::{Digest as _, Sha256};

use crate::exchange::claim::Asking;
use crate::locator::tokens::{Output, TokenAuthority, TokenError};
use crate::ports::Clock;

/// How long an output is remembered, in milliseconds.
pub const REMEMBERED_MS: u64 = 15 * 60_000;
/// Most outputs remembered.
pub const REMEMBERED_MAX: usize = 16_384;

type Name = [u8; 32];

/// Authorities whose outputs are remembered.
pub struct Remembered {
    authorities: Arc<dyn TokenAuthority>,
    clock: Arc<dyn Clock>,
    outputs: Mutex<HashMap<Name, (Output, Millis)>>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Remembered")
    }
}

impl Remembered {
    /// Remembers what the authorities gave.
    #[must_use]
    pub fn new(authorities: Arc<dyn TokenAuthority>, clock: Arc<dyn Clock>) -> Self {
        Self {
            authorities,
            clock,
            outputs: Mutex::default(),
        }
    }

    fn outputs(&self) -> MutexGuard<'_, HashMap<Name, (Output, Millis)>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every output, when all are remembered.
    fn known(&self, names: &[Name], now: Millis) -> Option<Vec<Output>> {
        let outputs = self.outputs();
        let known = names.iter().map(|name| {
            let (output, until) = outputs.get(name)?;
            (*until > now).then(|| output.clone())
        });
        known.collect()
    }

    fn keep(&self, names: Vec<Name>, given: &[Output], now: Millis) {
        let mut outputs = self.outputs();
        if outputs.len().saturating_add(names.len()) > REMEMBERED_MAX {
            outputs.retain(|_, (_, until)| *until > now);
        }
        if outputs.len().saturating_add(names.len()) > REMEMBERED_MAX {
            outputs.clear();
        }
        let until = now.plus(REMEMBERED_MS);
        let kept = names.into_iter().zip(given);
        outputs.extend(kept.map(|(name, output)| (name, (output.clone(), until))));
    }
}

fn name(asking: &Asking, epoch: u32, input: &[u8]) -> Name {
    let length = u64::try_from(asking.user.len()).unwrap_or(u64::MAX);
    Sha256::new()
        .chain_update(epoch.to_be_bytes())
        .chain_update(length.to_be_bytes())
        .chain_update(asking.user.as_bytes())
        .chain_update(input)
        .finalize()
        .into()
}

impl TokenAuthority for Remembered {
    fn evaluate<'a>(
        &'a self,
        asking: &'a Asking,
        epoch: u32,
        inputs: Vec<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>> {
        Box::pin(async move {
            let names: Vec<Name> = inputs.iter().map(|input| name(asking, epoch, input)).collect();
            let now = self.clock.now();
            if let Some(known) = self.known(&names, now) {
                return Ok(known);
            }
            // All or nothing: a question about a person is one evaluation.
            let given = self.authorities.evaluate(asking, epoch, inputs).await?;
            self.keep(names, &given, now);
            Ok(given)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::BoxFuture;
    use hie_protocol::id::{Correlation, Millis};
    use hie_protocol::vocabulary::{Purpose, Role};

    use super::{REMEMBERED_MAX, REMEMBERED_MS, Remembered};
    use crate::exchange::claim::Asking;
    use crate::locator::tokens::{Output, TokenAuthority, TokenError};
    use crate::ports::ManualClock;

    #[derive(Default)]
    struct Counted(AtomicU64);

    impl TokenAuthority for Counted {
        fn evaluate<'a>(
            &'a self,
            _: &'a Asking,
            epoch: u32,
            inputs: Vec<Vec<u8>>,
        ) -> BoxFuture<'a, Result<Vec<Output>, TokenError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let byte = u8::try_from(epoch).unwrap();
            let outputs = inputs.iter().map(|input| Output::new([byte ^ input[0]; 64]));
            let outputs = outputs.collect();
            Box::pin(async move { Ok(outputs) })
        }
    }

    fn asking(user: &str) -> Asking {
        let mut asking = Asking::system(Purpose::Treatment, Role::Physician, Correlation::new([1; 16]));
        user.clone_into(&mut asking.user);
        asking
    }

    #[tokio::test]
    async fn who_asks_again_soon_is_answered_from_memory() {
        let (counted, clock) = (Arc::new(Counted::default()), Arc::new(ManualClock::new(Millis(1))));
        let remembered = Remembered::new(counted.clone(), clock.clone());
        let count = || counted.0.load(Ordering::SeqCst);
        let inputs = vec![vec![3], vec![4]];
        let first = remembered.evaluate(&asking("grey"), 1, inputs.clone()).await.unwrap();
        let again = remembered.evaluate(&asking("grey"), 1, inputs.clone()).await.unwrap();
        assert_eq!((first, count()), (again, 1));
        remembered.evaluate(&asking("brown"), 1, inputs.clone()).await.unwrap();
        assert_eq!(count(), 2, "another user is another question");
        remembered.evaluate(&asking("grey"), 2, inputs.clone()).await.unwrap();
        assert_eq!(count(), 3, "another key gives other outputs");
        clock.advance(REMEMBERED_MS);
        remembered.evaluate(&asking("grey"), 1, inputs).await.unwrap();
        assert_eq!(count(), 4);
        for number in 0..=u64::try_from(REMEMBERED_MAX).unwrap() {
            let input = number.to_be_bytes().to_vec();
            remembered.evaluate(&asking("grey"), 1, vec![input]).await.unwrap();
        }
        assert!(remembered.outputs().len() <= REMEMBERED_MAX);
    }
}
