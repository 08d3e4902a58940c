//! Pictures of public files, and hostile dimensions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::render;
use crate::corpus;
use crate::dicom::guard::tests::file;
use crate::dicom::instance;

#[test]
fn what_is_decodable_becomes_a_picture_and_the_rest_a_reason() {
    let Some(folder) = corpus::folder("05-dicom") else {
        return;
    };
    let (mut shown, mut refused) = (0, Vec::new());
    for row in corpus::csv(&folder.join("expected-dicom.csv")) {
        let path = folder.parent().unwrap().join(&row["file"]);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if !row["decoded"].starts_with("ok") || instance::read(&bytes).is_err() {
            continue;
        }
        match render(&bytes, 1, 64, None) {
            Ok(png) => {
                let picture = image::load_from_memory(&png).unwrap();
                assert!(picture.width().max(picture.height()) <= 64, "{}", row["file"]);
                shown += 1;
            }
            Err(error) => refused.push(format!("{} {}: {error}", row["file"], row["transfer_syntax"])),
        }
    }
    assert!(shown > 70, "{shown} {refused:#?}");
    // Refused are the syntaxes without a decoder (JPEG 2000, HTJ2K, JPEG-LS) and ten odd ones: 12-bit JPEG, 32-bit
    // RLE and dose grids, native 4:2:2.
    let other = refused.iter().filter(|line| {
        !line.contains(" 1.2.840.10008.1.2.4.8")
            && !line.contains(" 1.2.840.10008.1.2.4.9")
            && !line.contains(" 1.2.840.10008.1.2.4.20")
    });
    assert!(other.clone().count() <= 10, "{:#?}", other.collect::<Vec<_>>());
}

#[test]
fn a_window_changes_the_picture() {
    let Some(folder) = corpus::folder("05-dicom/series-mr-brain") else {
        return;
    };
    let bytes = corpus::read(&folder.join("brain_010.dcm"));
    let plain = render(&bytes, 1, 256, None).unwrap();
    assert_ne!(plain, render(&bytes, 1, 256, Some((100.0, 50.0))).unwrap());
    assert_eq!(plain, render(&bytes, 1, 256, Some((f64::NAN, 0.0))).unwrap());
    assert!(render(&bytes, 2, 256, None).is_err());
}

#[test]
fn dimensions_beyond_the_bytes_or_the_limits_are_refused() {
    let image = |rows: u16, columns: u16, pixels: usize| {
        let mut set = Vec::new();
        let mut put = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
            set.extend(group.to_le_bytes());
            set.extend(element.to_le_bytes());
            set.extend(vr);
            if vr == b"OB" {
                set.extend([0, 0]);
                set.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            } else {
                set.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
            }
            set.extend(value);
        };
        put(8, 0x16, b"UI", b"1.2.");
        put(8, 0x18, b"UI", b"1.23");
        put(0x20, 0x0d, b"UI", b"1.24");
        put(0x20, 0x0e, b"UI", b"1.25");
        put(0x28, 2, b"US", &1_u16.to_le_bytes());
        put(0x28, 4, b"CS", b"MONOCHROME2 ");
        put(0x28, 0x10, b"US", &rows.to_le_bytes());
        put(0x28, 0x11, b"US", &columns.to_le_bytes());
        put(0x28, 0x100, b"US", &8_u16.to_le_bytes());
        put(0x28, 0x101, b"US", &8_u16.to_le_bytes());
        put(0x28, 0x102, b"US", &7_u16.to_le_bytes());
        put(0x28, 0x103, b"US", &0_u16.to_le_bytes());
        put(0x7fe0, 0x10, b"OB", &vec![9; pixels]);
        let text = String::from_utf8_lossy(b"1.2.").into_owned();
        let at = set.windows(4).position(|four| four == text.as_bytes()).unwrap();
        set[at + 3] = 0;
        file(crate::dicom::guard::EXPLICIT_LE, &set)
    };
    assert!(render(&image(4, 4, 16), 1, 64, None).is_ok());
    assert!(render(&image(4, 5, 16), 1, 64, None).is_err());
    assert!(render(&image(0, 4, 16), 1, 64, None).is_err());
    assert!(
        render(&image(65_535, 65_535, 16), 1, 64, None)
            .unwrap_err()
            .to_string()
            .contains("too large")
    );
}
