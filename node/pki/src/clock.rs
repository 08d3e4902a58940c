//! The clock as an argument: whoever builds the node owns it, a test moves it by hand.

use core::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use hie_protocol::id::Millis;

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now(&self) -> Millis;
}

/// A clock in the form rustls wants.
#[derive(Debug, Clone)]
pub(crate) struct TlsClock(pub Arc<dyn Clock>);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// The same instant in the form webpki wants.
pub(crate) fn unix_time(at: Millis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.0))
}
