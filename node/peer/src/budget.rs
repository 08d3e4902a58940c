//! What one member may have in flight here. It counts for the organisation, whatever the number of its nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::OrgId;

/// Most requests of one member that are being answered at the same time.
pub const STREAMS_MAX: usize = 32;
/// Most bytes of one member's requests and answers in flight.
pub const BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

/// Requests and bytes in flight, by member.
#[derive(Debug, Default, Clone)]
pub struct Budgets(Arc<Mutex<BTreeMap<OrgId, Used>>>);

#[derive(Debug, Default)]
struct Used {
    streams: usize,
    bytes: usize,
}

impl Budgets {
    /// Takes one request of `bytes`, or none when the member's budget is used up.
    #[must_use]
    pub fn take(&self, org: &OrgId, bytes: usize) -> Option<InFlight> {
        let mut members = self.lock();
        let used = members.entry(org.clone()).or_default();
        let total = used.bytes.saturating_add(bytes);
        if used.streams >= STREAMS_MAX || total > BYTES_MAX {
            return None;
        }
        used.streams = used.streams.saturating_add(1);
        used.bytes = total;
        drop(members);
        Some(InFlight {
            budgets: self.clone(),
            org: org.clone(),
            bytes,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<OrgId, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight; dropping it gives its share back.
#[derive(Debug)]
pub struct InFlight {
    budgets: Budgets,
    org: OrgId,
    bytes: usize,
}

impl InFlight {
    /// Replaces the bytes of the request by those of its answer.
    pub fn answer(&mut self, bytes: usize) {
        if let Some(used) = self.budgets.lock().get_mut(&self.org) {
            used.bytes = used.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut members = self.budgets.lock();
        if let Some(used) = members.get_mut(&self.org) {
            used.streams = used.streams.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(self.bytes);
            if used.streams == 0 {
                members.remove(&self.org);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::id::OrgId;

    use super::{BYTES_MAX, Budgets, STREAMS_MAX};

    #[test]
    fn a_member_has_so_many_requests_and_bytes_and_no_more() {
        let budgets = Budgets::default();
        let (one, two) = (
            OrgId::parse("urn:oid:2.999.1").unwrap(),
            OrgId::parse("urn:oid:2.999.2").unwrap(),
        );
        let mut held: Vec<_> = (0..STREAMS_MAX).map(|_| budgets.take(&one, 1).unwrap()).collect();
        assert!(budgets.take(&one, 1).is_none());
        assert!(budgets.take(&two, 1).is_some(), "another member's budget is its own");
        held.pop();
        assert!(budgets.take(&one, BYTES_MAX).is_none());
        let mut last = budgets.take(&one, 1).unwrap();
        last.answer(BYTES_MAX);
        held.pop();
        assert!(budgets.take(&one, 1).is_none());
        drop(last);
        assert!(budgets.take(&one, 1).is_some());
        drop(held);
        assert!(budgets.lock().is_empty());
    }
}
