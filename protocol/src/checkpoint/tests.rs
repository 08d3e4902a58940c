#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{
    Checkpoint, CheckpointError, NoteSigner, SignedCheckpoint,
    note::{self, KeyKind, NoteError, NoteKey, SignatureLine},
};

const ORIGIN: &str = "hie/urn:oid:2.16.840.1.113883.3.72.5/audit";

struct Party {
    pair: Ed25519KeyPair,
    key: NoteKey,
}

impl Party {
    fn new(name: &str, kind: KeyKind, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Self {
            key: NoteKey::new(name, kind, public).unwrap(),
            pair,
        }
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().unwrap()
    }
}

fn log() -> Party {
    Party::new(ORIGIN, KeyKind::Log, 1)
}

fn witness(seed: u8) -> Party {
    Party::new(&format!("witness.example/w{seed}"), KeyKind::Witness, seed)
}

fn signed(log: &Party, size: u64, root: [u8; 32]) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(ORIGIN, size, root).unwrap();
    NoteSigner::new(&log.key, &|m| log.sign(m)).sign(&checkpoint).unwrap()
}

fn cosigned(log: &Party, witnesses: &[&Party]) -> SignedCheckpoint {
    let mut note = signed(log, 5, [7; 32]);
    let verified = note.verify(ORIGIN, &log.key, &[]).unwrap();
    for (place, witness) in witnesses.iter().enumerate() {
        let sign = |m: &[u8]| witness.sign(m);
        let signer = NoteSigner::new(&witness.key, &sign);
        note.add(signer.cosign(&verified, 1_700_000_000 + place as u64).unwrap())
            .unwrap();
    }
    note
}

/// The example of the note format's first implementation (golang.org/x/mod/sumdb/note).
#[test]
fn a_note_signed_elsewhere_verifies() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = NoteKey::parse(key).unwrap();
    assert_eq!(hex::encode(key.id()), "c74f20a3");
    let text = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg\
        KvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let (body, lines) = note::parse(text.as_bytes()).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].is_of(&key));
    key.check(body.as_bytes(), lines[0].bytes()).unwrap();
    assert_eq!(note::to_text(body, &lines), text);
}

/// The example of C2SP tlog-cosignature: its lines carry the sizes and the time it says.
#[test]
fn the_published_cosigned_checkpoint_reads() {
    let text = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5\
        /Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dl\
        rDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let read = SignedCheckpoint::parse(text.as_bytes()).unwrap();
    assert_eq!(read.claimed().origin(), "example.com/behind-the-sofa");
    assert_eq!(read.claimed().size(), 20_852_163);
    assert_eq!(read.to_text(), text);
    let (_, lines) = note::parse(text.as_bytes()).unwrap();
    assert_eq!(lines[0].bytes().len(), 64);
    assert_eq!(lines[1].bytes().len(), 72);
    assert_eq!(lines[1].bytes()[..8], 1_679_315_147u64.to_be_bytes());
}

#[test]
fn the_signed_text_is_frozen() {
    let text = signed(&log(), 58_931, [0xab; 32]).to_text();
    assert_eq!(text, FROZEN);
}

const FROZEN: &str = "hie/urn:oid:2.16.840.1.113883.3.72.5/audit\n58931\n\
    q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n\
    \u{2014} hie/urn:oid:2.16.840.1.113883.3.72.5/audit 5J8h8IZRl6hoecW6I6znL6qWYoYibv8ea/5ewI/xfRPIduCB\
    hLzybqhPof/EyDWZHsk0lSgQn3nwxG8nyKtt/rq4MwQ=\n";

#[test]
fn log_and_witnesses_verify() {
    let (log, one, two) = (log(), witness(2), witness(3));
    let text = cosigned(&log, &[&one, &two]).to_text();
    let read = SignedCheckpoint::parse(text.as_bytes()).unwrap();
    let keys = [one.key.clone(), two.key.clone()];
    let verified = read.verify(ORIGIN, &log.key, &keys).unwrap();
    assert_eq!(verified.checkpoint().size(), 5);
    assert_eq!(verified.witness_count(), 2);
    let times: Vec<u64> = verified.cosignatures().iter().map(|c| c.timestamp_s).collect();
    assert_eq!(times, [1_700_000_000, 1_700_000_001]);
    // An unknown witness is passed over, not counted.
    assert_eq!(read.verify(ORIGIN, &log.key, &keys[..1]).unwrap().witness_count(), 1);
    assert_eq!(read.verify(ORIGIN, &log.key, &[]).unwrap().witness_count(), 0);
    // The same witness twice is one witness.
    let again = [keys[0].clone(), keys[0].clone()];
    assert_eq!(read.verify(ORIGIN, &log.key, &again).unwrap().witness_count(), 1);
}

#[test]
fn forgeries_are_refused() {
    let (log, one, stranger) = (log(), witness(2), Party::new(ORIGIN, KeyKind::Log, 9));
    let note = cosigned(&log, &[&one]);
    let unsigned = CheckpointError::Unsigned {
        name: ORIGIN.to_owned(),
    };
    assert_eq!(note.verify(ORIGIN, &stranger.key, &[]).unwrap_err(), unsigned);
    let other = note.verify("hie/elsewhere", &log.key, &[]).unwrap_err();
    assert_eq!(other, CheckpointError::OtherLog);

    // A witness's line moved to another checkpoint of the same log is false, and refuses the whole.
    let mut moved = signed(&log, 6, [7; 32]);
    let (_, lines) = note::parse(note.to_text().as_bytes())
        .map(|(b, l)| (b.to_owned(), l))
        .unwrap();
    moved.add(lines[1].clone()).unwrap();
    let false_line = NoteError::Signature {
        name: one.key.name().to_owned(),
    };
    let refused = moved
        .verify(ORIGIN, &log.key, std::slice::from_ref(&one.key))
        .unwrap_err();
    assert_eq!(refused, CheckpointError::Note(false_line));
    assert!(moved.verify(ORIGIN, &log.key, &[]).is_ok());

    // Keys do not change their kind.
    let kind = |name: &str| CheckpointError::KeyKind { name: name.to_owned() };
    assert_eq!(note.verify(ORIGIN, &one.key, &[]).unwrap_err(), kind(one.key.name()));
    assert_eq!(
        note.verify(ORIGIN, &log.key, std::slice::from_ref(&log.key))
            .unwrap_err(),
        kind(ORIGIN)
    );
    let sign = |m: &[u8]| one.sign(m);
    let signer = NoteSigner::new(&one.key, &sign);
    assert_eq!(signer.sign(note.claimed()).unwrap_err(), kind(one.key.name()));
    let verified = note.verify(ORIGIN, &log.key, &[]).unwrap();
    assert_eq!(signer.cosign(&verified, u64::MAX).unwrap_err(), CheckpointError::Time);
}

#[test]
fn every_changed_byte_shows() {
    let (log, one) = (log(), witness(2));
    let text = cosigned(&log, &[&one]).to_text().into_bytes();
    let verify = |bytes: &[u8]| {
        let read = SignedCheckpoint::parse(bytes)?;
        read.verify(ORIGIN, &log.key, std::slice::from_ref(&one.key))
    };
    let whole = verify(&text).unwrap();
    assert_eq!(whole.witness_count(), 1);
    for place in 0..text.len() {
        for mask in [1u8, 2, 4, 0x20, 0x80] {
            let mut bad = text.clone();
            bad[place] ^= mask;
            // A changed name or key id makes a line unknown: then the witness no longer counts.
            let holds = verify(&bad).is_ok_and(|read| read == whole);
            assert!(!holds, "byte {place} xor {mask}");
        }
        assert!(!verify(&text[..place]).is_ok_and(|r| r == whole), "cut at {place}");
    }
}

#[test]
fn malformed_bodies_name_their_line() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let refused = |body: String| Checkpoint::parse(&body).unwrap_err();
    for size in ["", "01", "+1", "-1", "1 ", "18446744073709551616", "0x1"] {
        assert_eq!(refused(format!("a\n{size}\n{root}\n")), CheckpointError::Size, "{size}");
    }
    assert_eq!(Checkpoint::parse(&format!("a\n0\n{root}\n")).unwrap().size(), 0);
    for bad in ["", "AAAA", &root[..43], &root.replace('I', "J"), &format!("{root}=")] {
        assert_eq!(refused(format!("a\n1\n{bad}\n")), CheckpointError::Root, "{bad}");
    }
    assert_eq!(refused(format!("\n1\n{root}\n")), CheckpointError::Origin);
    assert_eq!(
        refused(format!("{}\n1\n{root}\n", "x".repeat(256))),
        CheckpointError::Origin
    );
    assert_eq!(refused(format!("a\tb\n1\n{root}\n")), CheckpointError::Origin);
    assert_eq!(refused(format!("a\n1\n{root}")), CheckpointError::Lines { lines: 2 });
    assert_eq!(
        refused(format!("a\n1\n{root}\nmore\n")),
        CheckpointError::Lines { lines: 4 }
    );
    assert_eq!(refused(String::new()), CheckpointError::Lines { lines: 0 });
}

#[test]
fn malformed_notes_are_refused() {
    let good = signed(&log(), 1, [0; 32]).to_text();
    let refused = |note: &[u8]| note::parse(note).unwrap_err();
    let long = vec![b'a'; note::NOTE_LEN_MAX + 1];
    assert_eq!(refused(&long), NoteError::TooLong { length: long.len() });
    assert_eq!(refused(b"\xff\n\n"), NoteError::Text);
    assert_eq!(refused(good.replace("\n1\n", "\r\n1\n").as_bytes()), NoteError::Text);
    for frame in ["", "a", "\n\n", "a\n\n", good.trim_end()] {
        assert!(matches!(
            refused(frame.as_bytes()),
            NoteError::Frame | NoteError::Line { .. }
        ));
    }
    let line = good.lines().last().unwrap();
    let with = |lines: &[String]| format!("a\n\n{}\n", lines.join("\n"));
    let many = |n: usize| {
        with(
            &(0..n)
                .map(|i| line.replace("hie/", &format!("{i}/")))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(note::parse(many(16).as_bytes()).unwrap().1.len(), 16);
    assert_eq!(refused(many(33).as_bytes()), NoteError::Signatures { count: 33 });
    for bad in [
        "- a AAAAAAA=",
        "\u{2014} a",
        "\u{2014} a AAAA",
        "\u{2014} a AAAAAA==",
        "\u{2014} a %%%%%%%%",
    ] {
        let bad = with(&[line.to_owned(), bad.to_owned()]);
        assert_eq!(refused(bad.as_bytes()), NoteError::Line { line: 2 }, "{bad}");
    }
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\u{7f}", &"n".repeat(256)] {
        assert_eq!(NoteKey::new(name, KeyKind::Log, [0; 32]).unwrap_err(), NoteError::Name);
    }
}

#[test]
fn a_note_holds_a_bounded_number_of_lines() {
    let log = log();
    let mut note = signed(&log, 1, [0; 32]);
    let verified = note.verify(ORIGIN, &log.key, &[]).unwrap();
    let line = |seed: u8| {
        let witness = witness(seed);
        let sign = |m: &[u8]| witness.sign(m);
        NoteSigner::new(&witness.key, &sign)
            .cosign(&verified, u64::from(seed))
            .unwrap()
    };
    for seed in 2..33 {
        note.add(line(seed)).unwrap();
        note.add(line(seed)).unwrap(); // replaces
    }
    let refused = note.add(line(33)).unwrap_err();
    assert_eq!(refused, CheckpointError::Note(NoteError::Signatures { count: 33 }));
    SignedCheckpoint::parse(note.to_text().as_bytes()).unwrap();
}

#[test]
fn keys_round_trip_and_mismatches_are_refused() {
    for key in [log().key, witness(2).key] {
        assert_eq!(NoteKey::parse(&key.to_text()).unwrap(), key);
        let other = key.to_text().replacen('/', "-", 1);
        assert!(matches!(NoteKey::parse(&other), Err(NoteError::Key { .. })));
    }
    for bad in ["", "a", "a+00000000", "a+00000000+", "a+00000000+AQ==", "a+00000000+%"] {
        assert!(matches!(NoteKey::parse(bad), Err(NoteError::Key { .. })), "{bad}");
    }
}

proptest! {
    #[test]
    fn checkpoints_round_trip(origin in "[a-z/.:0-9 ]{1,40}", size in any::<u64>(), root in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint::new(&origin, size, root).unwrap();
        prop_assert_eq!(Checkpoint::parse(&checkpoint.to_note_body()).unwrap(), checkpoint);
    }

    #[test]
    fn what_is_read_is_written_back(text in "(a|\u{2014}| |\n|[A-Za-z0-9+/=]{1,8}){0,30}") {
        if let Ok((body, lines)) = note::parse(text.as_bytes()) {
            prop_assert_eq!(note::to_text(body, &lines), text);
        }
    }

    #[test]
    fn hostile_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let read = SignedCheckpoint::parse(&bytes);
        prop_assert!(read.is_err() || read.unwrap().to_text().as_bytes() == bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let dash = text.starts_with('\u{2014}');
            prop_assert!(SignatureLine::parse(text).is_err() || dash);
        }
    }
}
