//! Summaries of other organisations (IPS document Bundles): read within their limits, and the same twice.
#![no_main]

use hie_gateway_dialect::fhir::clinical::{ROWS_MAX, read};
use hie_gateway_dialect::fhir::guard::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        bytes: 1 << 22,
        ..Limits::default()
    };
    let Ok(summary) = read(data, &limits) else { return };
    let again = read(data, &limits).expect("read before");
    let counts = |summary: &hie_gateway_dialect::fhir::clinical::Summary| {
        [
            summary.allergies.len(),
            summary.refuted_allergies.len(),
            summary.medications.len(),
            summary.problems.len(),
            summary.results.len(),
            summary.visits.len(),
            summary.imaging.len(),
            summary.immunizations.len(),
            summary.procedures.len(),
        ]
    };
    assert_eq!(counts(&summary), counts(&again));
    assert!(counts(&summary).iter().all(|rows| *rows <= ROWS_MAX));
});
