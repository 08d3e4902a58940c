//! Signed notes, checkpoints and their keys: whatever is read is written again byte for byte (C2SP signed-note, tlog-checkpoint).
#![no_main]

use hie_protocol::checkpoint::note::{self, NoteKey, SignatureLine};
use hie_protocol::checkpoint::{Checkpoint, SignedCheckpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((body, lines)) = note::parse(data) {
        assert_eq!(note::to_text(body, &lines).as_bytes(), data);
    }
    if let Ok(checkpoint) = SignedCheckpoint::parse(data) {
        assert_eq!(checkpoint.to_text().as_bytes(), data);
    }
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_note_body(), text);
    }
    if let Ok(line) = SignatureLine::parse(text) {
        assert_eq!(line.to_text().trim_end_matches('\n'), text.trim_end_matches('\n'));
    }
    if let Ok(key) = NoteKey::parse(text) {
        assert_eq!(key.to_text(), text);
    }
});
