//! The guard over public files, made-up structures, and damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::{DEPTH_MAX, DicomError, Pixels, scan};
use crate::corpus;

/// A file with a meta group for `syntax` and this data set.
pub fn file(syntax: &str, dataset: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut uid = syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    bytes.extend([2, 0, 0x10, 0, b'U', b'I', u8::try_from(uid.len()).unwrap(), 0]);
    bytes.extend(uid);
    bytes.extend_from_slice(dataset);
    bytes
}

const EXPLICIT: &str = super::EXPLICIT_LE;
const IMPLICIT: &str = super::IMPLICIT_LE;

fn reason(bytes: &[u8]) -> String {
    scan(bytes).unwrap_err().to_string()
}

#[test]
fn every_public_file_is_accepted_or_refused_with_a_place() {
    let Some(folder) = corpus::folder("05-dicom") else {
        return;
    };
    let (mut accepted, mut refused) = (0, Vec::new());
    for path in corpus::files(&folder) {
        match scan(&corpus::read(&path)) {
            Ok(_) => accepted += 1,
            Err(error) => refused.push(format!("{}: {error}", path.file_name().unwrap().to_string_lossy())),
        }
    }
    assert!(accepted > 170, "{accepted} {refused:#?}");
    let sound = refused
        .iter()
        .filter(|line| !line.contains("no DICOM part 10") && !line.contains("truncated") && !line.contains("badVR"));
    assert!(sound.clone().count() <= 6, "{:#?}", sound.collect::<Vec<_>>());
}

#[test]
fn zero_bytes_behind_the_data_set_are_no_part_of_it() {
    let Some(folder) = corpus::folder("05-dicom/series-mr-brain") else {
        return;
    };
    let bytes = corpus::read(&folder.join("brain_001.dcm"));
    let guarded = scan(&bytes).unwrap();
    assert!(
        bytes.len() > 2_490_000 && guarded.dataset().len() < 600_000,
        "{} {}",
        bytes.len(),
        guarded.dataset().len()
    );
    assert!(matches!(guarded.pixels(), Some(Pixels::Native(_))));
}

#[test]
fn lengths_are_held_against_the_bytes_present() {
    let cases: [(&str, &[u8]); 6] = [
        (EXPLICIT, &[8, 0, 5, 0, b'C', b'S', 9, 0, b'I']),
        (EXPLICIT, &[8, 0, 5, 0, b'O', b'B', 0, 0, 0xfe, 0xff, 0xff, 0xff, 1]),
        (IMPLICIT, &[8, 0, 5, 0, 0xff, 0xff, 0xff, 0x7f]),
        (EXPLICIT, &[8, 0, 5]),
        (EXPLICIT, &[8, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff]),
        // An item that claims more than its sequence.
        (
            EXPLICIT,
            &[
                8, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 8, 0, 0, 0, 0xfe, 0xff, 0, 0xe0, 8, 0, 0, 0, 8, 0, 5, 0, b'C',
                b'S', 0, 0,
            ],
        ),
    ];
    for (syntax, dataset) in cases {
        let words = reason(&file(syntax, dataset));
        assert!(words.contains("offset") && words.contains("send"), "{words}");
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| {
        let mut dataset = Vec::new();
        for _ in 0..depth {
            dataset.extend([8, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff]);
            dataset.extend([0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff]);
        }
        for _ in 0..depth {
            dataset.extend([0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0]);
            dataset.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
        }
        file(EXPLICIT, &dataset)
    };
    assert!(scan(&nested(DEPTH_MAX)).is_ok());
    assert!(reason(&nested(DEPTH_MAX + 1)).contains("deeper than 16"));
    assert!(reason(&nested(100_000)).contains("deeper than 16"));
}

#[test]
fn fragments_are_found_and_checked() {
    let mut dataset = vec![0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff];
    dataset.extend([0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0]);
    dataset.extend([0xfe, 0xff, 0, 0xe0, 2, 0, 0, 0, 1, 2]);
    let open = dataset.clone();
    dataset.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    let bytes = file("1.2.840.10008.1.2.4.50", &dataset);
    let guarded = scan(&bytes).unwrap();
    let Some(Pixels::Encapsulated(fragments)) = guarded.pixels() else {
        panic!()
    };
    assert_eq!(
        fragments
            .iter()
            .map(|place| guarded.slice(place.clone()))
            .collect::<Vec<_>>(),
        [&[][..], &[1, 2]]
    );
    assert!(guarded.attributes().is_empty());
    assert!(scan(&file("1.2.840.10008.1.2.4.50", &open)).is_err());
}

#[test]
fn a_deflate_bomb_is_refused() {
    use std::io::Write;
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=(super::INFLATED_BYTES_MAX >> 20) {
        packer.write_all(&zeros).unwrap();
    }
    assert!(reason(&file(super::DEFLATED_LE, &packer.finish().unwrap())).contains("more than 512 MiB"));
}

#[test]
fn no_dicom_is_said_to_be_none() {
    for bytes in [
        &b""[..],
        b"DICM",
        &[0; 200],
        b"%PDF-1.4",
        &file("1.2.3", &[]),
        &file("../../etc", &[]),
    ] {
        assert!(matches!(scan(bytes), Err(DicomError::NotDicom { .. })));
    }
}

#[test]
fn damage_anywhere_never_panics() {
    let Some(folder) = corpus::folder("05-dicom") else {
        return;
    };
    let mut dice = 1_u64;
    for path in corpus::files(&folder)
        .into_iter()
        .filter(|path| std::fs::metadata(path).unwrap().len() < 40_000)
    {
        let bytes = corpus::read(&path);
        for _ in 0..8 {
            let mut hurt = bytes.clone();
            for _ in 0..3 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if let Some(byte) = usize::try_from(dice >> 33).ok().and_then(|at| {
                    let length = hurt.len().max(1);
                    hurt.get_mut(at % length)
                }) {
                    *byte = dice.to_le_bytes()[3];
                }
            }
            hurt.truncate(usize::try_from(dice >> 20).unwrap() % (2 * bytes.len() + 1));
            if scan(&hurt).is_ok() {
                let _ = crate::dicom::instance::read(&hurt);
                let _ = crate::dicom::instance::metadata_json(&hurt, "bulk");
                let _ = crate::dicom::instance::frame(&hurt, 1);
            }
        }
    }
}
