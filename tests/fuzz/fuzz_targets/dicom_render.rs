//! Frames as pictures: a decoder of hostile pixels answers with a PNG or an error.
#![no_main]

use hie_gateway_dialect::dicom::render::render;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for window in [None, Some((40.0, 400.0)), Some((0.0, 0.0))] {
        if let Ok(picture) = render(data, 1, 64, window) {
            assert!(picture.starts_with(b"\x89PNG"));
        }
    }
});
