//! The on-demand patient summary: assembled by the dialect when it is retrieved.

use hie_gateway_dialect::fhir::ips::{SummaryInput, assemble};
use hie_node_core::record::summary::{Summaries, SummaryError};
use hie_protocol::id::{Millis, OrgId};
use serde_json::Value;

use crate::authority::random;
use crate::moment::write_fhir;

/// Assembles summaries in the name of this organisation.
#[derive(Debug)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Its id.
    pub organisation: OrgId,
}

impl Summaries for Summary {
    fn assemble(&self, patient: &Value, resources: &[Value], now: Millis) -> Result<Vec<u8>, SummaryError> {
        let failed = |fault: crate::fault::Fault| SummaryError { what: fault.what };
        let mut bytes = random::<16>().map_err(failed)?;
        // A version 4 UUID (RFC 9562 §5.4).
        for (at, (keep, set)) in [(6, (0x0f, 0x40)), (8, (0x3f, 0x80))] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = (*byte & keep) | set;
            }
        }
        let text = hex::encode(bytes);
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let id = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
        let bundle = assemble(&SummaryInput {
            organisation_name: &self.name,
            organisation_urn: self.organisation.as_str(),
            patient,
            resources,
            now: &write_fhir(now),
            bundle_id: &id,
        });
        Ok(bundle.to_string().into_bytes())
    }
}
