//! Parts of an invitation, past its checksum: whatever can be made can be written and read.
#![no_main]

use hie_protocol::invitation::{Draft, Invitation};
use libfuzzer_sys::fuzz_target;

type Parts = (String, String, String, String, [u8; 32], [u8; 16], u64);

fuzz_target!(|parts: Parts| {
    let (region, address, organisation, organisation_name, root_fingerprint, secret, expires_at_s) = parts;
    let draft = Draft {
        region,
        root_fingerprint,
        address,
        secret,
        expires_at_s,
        organisation,
        organisation_name,
    };
    if let Ok(invitation) = Invitation::new(draft) {
        assert!(Invitation::parse(&invitation.to_text()) == Ok(invitation.clone()));
        assert!(Invitation::parse(&invitation.to_file_text()) == Ok(invitation));
    }
});
