//! `multipart/related`: the same parts however the body is cut, and parts that were read can be written and read.
#![no_main]

use hie_gateway_dialect::multipart::{Event, Headers, MultipartError, MultipartType, Parts, Writer, parse};
use libfuzzer_sys::fuzz_target;

const BOUNDARY: &str = "b";
const PARTS_MAX: usize = 64;
/// Bodies up to this size are written again: their headers stay within the limits with a space after each colon.
const REWRITE_BYTES_MAX: usize = 8 * 1024;

type Whole = Vec<(Headers, Vec<u8>)>;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, body) = input;
    if let Ok(kind) = core::str::from_utf8(body)
        .map_err(|_| ())
        .and_then(|text| MultipartType::parse(text).map_err(|_| ()))
    {
        let writer = Writer::new(&kind.boundary).expect("a boundary that was read");
        let again = MultipartType::parse(&writer.content_type("application/dicom")).expect("what was written");
        assert_eq!(again.boundary, kind.boundary);
    }
    let whole = parse(body, BOUNDARY, PARTS_MAX);
    let cut = in_pieces(body, &cuts);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert!(whole == cut, "the cuts change the parts"),
        (Err(_), Err(_)) => {}
        // What stands outside the parts is bounded only while it arrives: its limits need not bind a body in memory.
        (Ok(_), Err(MultipartError::NoStart | MultipartError::Epilogue | MultipartError::Delimiter { .. })) => {}
        (Ok(_), Err(error)) => panic!("only the pieces are refused: {error}"),
        (Err(error), Ok(_)) => panic!("only the whole is refused: {error}"),
    }
    if let Ok(parts) = whole
        && body.len() <= REWRITE_BYTES_MAX
    {
        rewrite(&parts, body);
    }
});

/// Parses the body in pieces whose lengths are `cuts`, over and over.
fn in_pieces(body: &[u8], cuts: &[u8]) -> Result<Whole, MultipartError> {
    let mut parser = Parts::new(BOUNDARY, PARTS_MAX)?;
    let mut parts: Whole = Vec::new();
    let mut rest = body;
    let mut lengths = cuts.iter().map(|cut| usize::from(*cut).max(1)).cycle();
    while !rest.is_empty() {
        let length = lengths.next().unwrap_or(1).min(rest.len());
        let (piece, tail) = rest.split_at(length);
        rest = tail;
        for event in parser.push(piece)? {
            match event {
                Event::PartStart(headers) => parts.push((headers, Vec::new())),
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    parts.last_mut().expect("data belongs to a part").1.extend(bytes);
                }
                Event::PartEnd => assert!(!parts.is_empty()),
            }
        }
    }
    parser.finish()?;
    Ok(parts)
}

/// Writes the parts under a boundary that none of them holds, and reads them.
fn rewrite(parts: &Whole, body: &[u8]) {
    let boundary = (0..)
        .map(|n| format!("boundary-{n}"))
        .find(|text| !contains(body, text.as_bytes()))
        .expect("one is free");
    let mut writer = Writer::new(&boundary).expect("a boundary");
    let mut written = Vec::new();
    let mut expected: Whole = Vec::new();
    for (headers, data) in parts {
        let lines: Vec<(&str, &str)> = headers
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        written.extend(writer.start(&lines));
        written.extend(data);
        // The writer replaces control characters in values by spaces.
        let clean = |value: &str| value.replace(char::is_control, " ").trim().to_owned();
        expected.push((
            Headers(
                headers
                    .0
                    .iter()
                    .map(|(name, value)| (name.clone(), clean(value)))
                    .collect(),
            ),
            data.clone(),
        ));
    }
    written.extend(writer.finish());
    assert!(
        parse(&written, &boundary, PARTS_MAX).as_ref() == Ok(&expected),
        "the written body reads otherwise"
    );
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}
