//! The alarm: raised when the store or the content store fails. Nothing more may be acknowledged then, so the node stops.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// An alarm that everybody who writes shares. The first reason counts.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    state: Arc<(Mutex<Option<String>>, Notify)>,
}

impl Alarm {
    /// Raises it.
    pub fn raise(&self, why: &str) {
        let mut reason = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_none() {
            tracing::error!(%why, "the store failed; the node stops");
            *reason = Some(why.to_owned());
        }
        drop(reason);
        self.state.1.notify_one();
    }

    /// Resolves with the reason when it is raised.
    pub async fn raised(&self) -> String {
        loop {
            if let Some(why) = self.state.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return why;
            }
            self.state.1.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Alarm;

    #[tokio::test]
    async fn the_first_reason_counts_whenever_one_listens() {
        let alarm = Alarm::default();
        alarm.raise("disk full");
        alarm.raise("later");
        assert_eq!(alarm.raised().await, "disk full");
        let waiting = tokio::spawn({
            let alarm = Alarm::default();
            let raiser = alarm.clone();
            async move {
                raiser.raise("fsync");
                alarm.raised().await
            }
        });
        assert_eq!(waiting.await.ok().as_deref(), Some("fsync"));
    }
}
