//! FHIR JSON: what the guard reads is written to a text that reads the same; what is imported makes a summary that the
//! reader of summaries takes.
#![no_main]

use hie_fuzz::same::same;
use hie_gateway_dialect::fhir::clinical;
use hie_gateway_dialect::fhir::guard::{Limits, parse};
use hie_gateway_dialect::fhir::import::import;
use hie_gateway_dialect::fhir::ips::{SummaryInput, assemble};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        bytes: 1 << 22,
        ..Limits::default()
    };
    if let Ok(value) = parse(data, &limits) {
        let text = value.to_string();
        let again = parse(text.as_bytes(), &limits).expect("what was written can be read");
        assert!(same(&value, &again), "the text reads otherwise");
    }
    let Ok(intake) = import(data, &limits) else { return };
    for patient in &intake.patients {
        let summary = assemble(&SummaryInput {
            organisation_name: "City General",
            organisation_urn: "urn:oid:2.999.7.1",
            patient: &patient.patient,
            resources: &patient.resources,
            now: "2026-11-23T12:00:00Z",
            bundle_id: "6f1d2c5e-0000-4000-8000-000000000001",
        });
        assert!(clinical::read_value(&summary).is_ok(), "our own summary is refused");
    }
});
