//! Frames of the control channel: whatever is read is written again byte for byte (SPEC P-CBOR, P-MSG).
#![no_main]

use hie_protocol::message::{Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::decode(data) {
        assert_eq!(request.encode().as_deref(), Ok(data));
    }
    if let Ok(response) = Response::decode(data) {
        assert_eq!(response.encode().as_deref(), Ok(data));
    }
});
