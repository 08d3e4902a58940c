//! Framing: round trips, every split, limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::{any, prop, proptest};

use super::{Event, HEADER_BYTES_MAX, Headers, MultipartError, MultipartType, Parts, Writer, parse};

fn body(parts: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new("B0.x").unwrap();
    let mut out = Vec::new();
    for part in parts {
        out.extend(writer.start(&[("Content-Type", "application/dicom")]));
        out.extend_from_slice(part);
    }
    out.extend(writer.finish());
    out
}

fn collect(events: Vec<Event>, parts: &mut Vec<(Headers, Vec<u8>, bool)>) {
    for event in events {
        match event {
            Event::PartStart(headers) => parts.push((headers, Vec::new(), false)),
            Event::Data(bytes) => parts.last_mut().unwrap().1.extend(bytes),
            Event::PartEnd => parts.last_mut().unwrap().2 = true,
        }
    }
}

const TRICKY: [&[u8]; 6] = [b"", b"\r\n", b"\r\n--B0.\r\n--", b"plain", b"x--B0.x", b"ends with\r\n"];

#[test]
fn a_body_split_anywhere_reads_alike() {
    let body = body(&TRICKY);
    for at in 0..=body.len() {
        let mut parser = Parts::new("B0.x", 10).unwrap();
        let mut parts = Vec::new();
        collect(parser.push(&body[..at]).unwrap(), &mut parts);
        collect(parser.push(&body[at..]).unwrap(), &mut parts);
        parser.finish().unwrap();
        assert_eq!(
            parts.iter().map(|part| part.1.as_slice()).collect::<Vec<_>>(),
            TRICKY,
            "split at {at}"
        );
        assert!(
            parts
                .iter()
                .all(|part| part.2 && part.0.content_type() == Some("application/dicom"))
        );
    }
    let mut parser = Parts::new("B0.x", 10).unwrap();
    let mut parts = Vec::new();
    body.iter()
        .for_each(|byte| collect(parser.push(&[*byte]).unwrap(), &mut parts));
    parser.finish().unwrap();
    assert_eq!(parts.len(), TRICKY.len());
}

#[test]
fn little_is_held_back_of_a_large_part() {
    let mut parser = Parts::new("B", 1).unwrap();
    parser.push(b"--B\r\n\r\n").unwrap();
    let chunk = vec![b'x'; 100_000];
    let mut seen = 0;
    for _ in 0..100 {
        for event in parser.push(&chunk).unwrap() {
            if let Event::Data(bytes) = event {
                seen += bytes.len();
            }
        }
        assert!(parser.held.len() <= 8, "{}", parser.held.len());
    }
    assert!(seen >= 9_999_990);
}

#[test]
fn truncated_and_oversized_bodies_are_refused() {
    let body = body(&TRICKY);
    for end in 0..body.len() - 4 {
        assert!(parse(&body[..end], "B0.x", 10).is_err(), "{end}");
    }
    assert_eq!(parse(&body, "B0.x", 5), Err(MultipartError::TooMany { limit: 5 }));
    assert_eq!(parse(&vec![b'x'; 40_000], "B", 5), Err(MultipartError::NoStart));
    let wide = format!("--B\r\nA: {}\r\n\r\n\r\n--B--", "x".repeat(HEADER_BYTES_MAX));
    assert!(matches!(
        parse(wide.as_bytes(), "B", 5),
        Err(MultipartError::Header { part: 1, .. })
    ));
    let many = format!("--B\r\n{}\r\n\r\n--B--", "A: b\r\n".repeat(65));
    assert!(matches!(
        parse(many.as_bytes(), "B", 5),
        Err(MultipartError::Header { .. })
    ));
    assert!(matches!(
        parse(b"--B\r\nno colon\r\n\r\n\r\n--B--", "B", 5),
        Err(MultipartError::Header { .. })
    ));
    assert_eq!(
        parse(b"--Bad\r\n\r\n\r\n--B--", "B", 5),
        Err(MultipartError::Delimiter { part: 0 })
    );
    let mut long = b"--B--".to_vec();
    long.extend(vec![b' '; 40_000]);
    let mut parser = Parts::new("B", 5).unwrap();
    assert!(
        parser
            .push(&long)
            .and_then(|_| parser.push(&vec![b' '; 40_000]))
            .is_err()
    );
}

#[test]
fn preamble_padding_and_epilogue_are_allowed() {
    let parts = parse(
        b"ignored\r\n--B \t\r\nContent-Type: a/b\r\nX:  y \r\n\r\ndata\r\n--B--\r\nignored",
        "B",
        5,
    )
    .unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(
        (parts[0].0.value("x"), parts[0].1.as_slice()),
        (Some("y"), &b"data"[..])
    );
}

#[test]
fn content_types_are_read() {
    let read = MultipartType::parse("Multipart/Related; type=\"application/dicom\"; BOUNDARY=\"a b:c\"").unwrap();
    assert_eq!(
        (read.boundary.as_str(), read.root.as_deref()),
        ("a b:c", Some("application/dicom"))
    );
    assert_eq!(
        MultipartType::parse(&Writer::new("q=1").unwrap().content_type("a/b"))
            .unwrap()
            .boundary,
        "q=1"
    );
    for bad in [
        "",
        "application/json",
        "multipart/related",
        "multipart/related; boundary=",
        "multipart/related; boundary=\"a\nb\"",
    ] {
        assert_eq!(MultipartType::parse(bad), Err(MultipartError::Boundary), "{bad}");
    }
    let long = format!("multipart/related; boundary={}", "x".repeat(71));
    assert!(MultipartType::parse(&long).is_err());
}

#[test]
fn header_values_cannot_break_the_framing() {
    let mut writer = Writer::new("B").unwrap();
    let mut body = writer.start(&[("Content-Location", "/a\r\nEvil: 1\r\n\r\n--B--")]);
    body.extend(b"data");
    body.extend(writer.finish());
    let parts = parse(&body, "B", 5).unwrap();
    assert!(parts.len() == 1 && parts[0].1 == b"data" && parts[0].0.value("evil").is_none());
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), cut in 1_usize..50) {
        let mut writer = Writer::new("b1e9f0c2d4a6").unwrap();
        let mut bytes = Vec::new();
        for part in &parts {
            bytes.extend(writer.start(&[("Content-Type", "a/b")]));
            bytes.extend_from_slice(part);
        }
        bytes.extend(writer.finish());
        let mut parser = Parts::new("b1e9f0c2d4a6", 10).unwrap();
        let mut found = Vec::new();
        for chunk in bytes.chunks(cut) {
            collect(parser.push(chunk).unwrap(), &mut found);
        }
        parser.finish().unwrap();
        assert_eq!(found.into_iter().map(|part| part.1).collect::<Vec<_>>(), parts);
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(prop::sample::select(b"-B\r\n:ax".to_vec()), 0..300)) {
        let whole = parse(&bytes, "B", 10);
        let mut parser = Parts::new("B", 10).unwrap();
        let mut failed = bytes.iter().any(|byte| parser.push(&[*byte]).is_err());
        failed = failed || parser.finish().is_err();
        assert_eq!(whole.is_err(), failed);
    }
}
