//! Text of an invitation: whatever is read is written to a text, and to a file, that read the same.
#![no_main]

use hie_protocol::invitation::Invitation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(invitation) = Invitation::parse(text) {
        assert!(Invitation::parse(&invitation.to_text()) == Ok(invitation.clone()));
        assert!(Invitation::parse(&invitation.to_file_text()) == Ok(invitation));
    }
});
