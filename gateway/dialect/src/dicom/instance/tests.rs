//! Facts, metadata and frames over public files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sha2::{Digest, Sha256};

use super::{frame, metadata_json, read};
use crate::corpus;
use crate::dicom::guard::{self, Pixels};

#[test]
fn facts_equal_the_expected_tags() {
    let Some(folder) = corpus::folder("05-dicom") else {
        return;
    };
    let (mut compared, mut unread) = (0, Vec::new());
    for row in corpus::csv(&folder.join("expected-dicom.csv")) {
        let path = folder.parent().unwrap().join(&row["file"]);
        if row["study_uid"].is_empty() || row["series_uid"].is_empty() || row["sop_uid"].is_empty() || !path.exists() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let facts = match read(&bytes) {
            Ok(facts) => facts,
            Err(error) => {
                unread.push(format!("{}: {error}", row["file"]));
                continue;
            }
        };
        compared += 1;
        assert_eq!(
            (
                facts.study_uid.as_str(),
                facts.series_uid.as_str(),
                facts.sop_uid.as_str()
            ),
            (&*row["study_uid"], &*row["series_uid"], &*row["sop_uid"]),
            "{}",
            row["file"]
        );
        assert_eq!(facts.transfer_syntax, row["transfer_syntax"], "{}", row["file"]);
        assert_eq!(
            facts.modality.as_deref().unwrap_or_default(),
            row["modality"],
            "{}",
            row["file"]
        );
        for (found, column) in [(facts.rows, "rows"), (facts.columns, "cols")] {
            if !row[column].is_empty() {
                assert_eq!(
                    found.map(|number| number.to_string()).as_deref(),
                    Some(row[column].as_str()),
                    "{} {column}",
                    row["file"]
                );
            }
        }
        metadata_json(&bytes, "bulk").unwrap();
    }
    assert!(compared > 120, "{compared} {unread:#?}");
    assert!(unread.len() <= 12, "{unread:#?}");
}

#[test]
fn native_frames_are_the_expected_pixels() {
    let Some(folder) = corpus::folder("05-dicom") else {
        return;
    };
    let mut compared = 0;
    for row in corpus::csv(&folder.join("expected-dicom.csv")) {
        let path = folder.parent().unwrap().join(&row["file"]);
        let Some((_, hash)) = row["decoded"].split_once("sha256=") else {
            continue;
        };
        let monochrome =
            row["photometric"].starts_with("MONOCHROME") && ["8", "16", "32"].contains(&row["bits"].as_str());
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(guarded) = guard::scan(&bytes) else { continue };
        if !monochrome || !matches!(guarded.pixels(), Some(Pixels::Native(_))) {
            continue;
        }
        let Ok(facts) = read(&bytes) else { continue };
        let mut digest = Sha256::new();
        (1..=facts.frames).for_each(|number| digest.update(&frame(&bytes, number).unwrap().bytes));
        assert!(hex::encode(digest.finalize()).starts_with(hash), "{}", row["file"]);
        assert!(frame(&bytes, 0).is_err() && frame(&bytes, facts.frames + 1).is_err());
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn compressed_frames_come_out_one_by_one() {
    let Some(folder) = corpus::folder("05-dicom/pydicom-data") else {
        return;
    };
    let bytes = corpus::read(&folder.join("emri_small_jpeg_2k_lossless.dcm"));
    let facts = read(&bytes).unwrap();
    assert_eq!(facts.frames, 10);
    for number in 1..=10 {
        let frame = frame(&bytes, number).unwrap();
        assert!(frame.bytes.starts_with(&[0xff, 0x4f, 0xff, 0x51]) && frame.transfer_syntax == facts.transfer_syntax);
    }
}

#[test]
fn names_come_out_in_their_own_script() {
    let Some(folder) = corpus::folder("05-dicom/charset") else {
        return;
    };
    for (file, name) in [
        ("chrArab.dcm", "قباني^لنزار"),
        ("chrFren.dcm", "Buc^Jérôme"),
        ("chrGerm.dcm", "Äneas^Rüdiger"),
        ("chrGreek.dcm", "Διονυσιος"),
        ("chrRuss.dcm", "Люкceмбypг"),
        ("chrX1.dcm", "Wang^XiaoDong=王^小東="),
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ] {
        let found = read(&corpus::read(&folder.join(file))).unwrap().patient_name;
        assert!(found.as_deref() == Some(name), "{file}: {}", found.unwrap_or_default());
    }
}

#[test]
fn metadata_has_links_in_place_of_bulk_data() {
    let Some(folder) = corpus::folder("05-dicom/pydicom") else {
        return;
    };
    let value = metadata_json(
        &corpus::read(&folder.join("CT_small.dcm")),
        "studies/1/instances/2/bulk/",
    )
    .unwrap();
    assert_eq!(value["7FE00010"]["BulkDataURI"], "studies/1/instances/2/bulk/pixeldata");
    assert_eq!(value["7FE00010"]["vr"], "OW");
    assert_eq!(value["00100020"]["Value"][0], "1CT1");
    assert_eq!(value["00100010"]["Value"][0]["Alphabetic"], "CompressedSamples^CT1");
    assert!(
        value
            .as_object()
            .unwrap()
            .keys()
            .all(|key| !key.starts_with("0002") && !key.ends_with("0000"))
    );
    assert!(value.to_string().len() < 60_000);
}
