//! Frames of the bulk lane and sealed contents: whatever is read is written again byte for byte (SPEC P-CBOR, P-BULK).
#![no_main]

use hie_protocol::cbor;
use hie_protocol::record::{LocatorSecret, PointerSecret};
use hie_protocol::retrieval::{Ask, FrameKind, Header, LANE_FRAME_BYTES_MAX, Refused};
use libfuzzer_sys::fuzz_target;

macro_rules! round_trip {
    ($data:expr, $($kind:ty),+) => {
        $(if let Ok(value) = cbor::decode::<$kind>($data, LANE_FRAME_BYTES_MAX) {
            assert_eq!(cbor::encode(&value).as_deref(), Ok($data));
        })+
    };
}

fuzz_target!(|data: &[u8]| {
    round_trip!(data, Ask, Header, Refused, PointerSecret, LocatorSecret);
    if let Some(kind) = data.first().copied().and_then(FrameKind::from_byte) {
        assert!(kind.body_max() <= LANE_FRAME_BYTES_MAX);
    }
});
