//! DICOM part 10 files: guard, facts, metadata, frames and bulk values of hostile bytes.
#![no_main]

use hie_gateway_dialect::dicom::guard::{Pixels, scan};
use hie_gateway_dialect::dicom::{attribute, instance};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(guarded) = scan(data) {
        assert!(guarded.attributes().len() <= guarded.dataset().len());
        if let Some(Pixels::Native(place)) = guarded.pixels() {
            assert_eq!(
                guarded.slice(place.clone()).len(),
                place.len(),
                "pixels beyond the bytes present"
            );
        }
        if let Some(Pixels::Encapsulated(fragments)) = guarded.pixels() {
            for place in fragments {
                assert_eq!(
                    guarded.slice(place.clone()).len(),
                    place.len(),
                    "a fragment beyond the bytes present"
                );
            }
        }
    }
    if let Ok(facts) = instance::read(data) {
        for uid in [&facts.study_uid, &facts.series_uid, &facts.sop_uid, &facts.sop_class] {
            assert!(instance::is_uid(uid));
        }
        assert!(facts.frames <= instance::FRAMES_MAX);
        assert!(instance::frame(data, 0).is_err() && instance::frame(data, facts.frames + 1).is_err());
        let _ = instance::frame(data, 1);
        let _ = instance::frame(data, facts.frames);
    }
    if let Ok(metadata) = instance::metadata_json(data, "https://node.example/studies/1") {
        assert!(metadata.is_object());
    }
    let _ = attribute::bulk(data, &["00091002"]);
    let _ = attribute::bulk(data, &["00400275", "1", "00091002"]);
});
