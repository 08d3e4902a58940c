//! CT series made by program, for the demonstration and for tests: valid CT Image Storage instances (PS3.3 A.3) of a
//! head phantom, made slice by slice so that a large study never stands in memory.
//!
//! The phantom: skin, skull, brain, two ventricles and one small bright lesion, all ellipses whose size follows the
//! slice, with smooth noise from a seeded generator. The same arguments give the same bytes.

use dicom_dictionary_std::uids;

const IMPLEMENTATION: &str = "1.2.826.0.1.3680043.10.1451.1";
/// Most slices of one series.
pub const SLICES_MAX: u32 = 5_000;
/// Largest number of rows or columns.
pub const SIDE_MAX: u16 = 2_048;

/// What a series is made of.
#[derive(Clone)]
pub struct CtSeries {
    /// Study Instance UID.
    pub study_uid: String,
    /// Series Instance UID; instance UIDs are this plus `.1`, `.2`, ...
    pub series_uid: String,
    /// Patient ID.
    pub patient_id: String,
    /// Issuer of Patient ID.
    pub patient_id_issuer: String,
    /// Patient's Name, `FAMILY^Given`.
    pub patient_name: String,
    /// `YYYYMMDD`.
    pub birth_date: String,
    /// `M`, `F` or `O`.
    pub sex: String,
    /// Accession Number.
    pub accession: String,
    /// Study Date, `YYYYMMDD`.
    pub study_date: String,
    /// Study Time, `HHMMSS`.
    pub study_time: String,
    /// Study Description.
    pub study_description: String,
    /// Series Description.
    pub series_description: String,
    /// Rows, 1 to [`SIDE_MAX`].
    pub rows: u16,
    /// Columns, 1 to [`SIDE_MAX`].
    pub columns: u16,
    /// Number of slices, at most [`SLICES_MAX`].
    pub slices: u32,
    /// Seed of the noise.
    pub seed: u64,
}

crate::fhir::resource::hide!(CtSeries);

impl CtSeries {
    /// The part 10 files in order, each made when asked for.
    pub fn files(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (1..=self.slices.min(SLICES_MAX)).map(|number| self.file(number))
    }

    /// The SOP Instance UID of slice `number`, from 1.
    pub fn sop_uid(&self, number: u32) -> String {
        format!("{}.{number}", self.series_uid)
    }

    /// The part 10 file of slice `number`, from 1.
    pub fn file(&self, number: u32) -> Vec<u8> {
        let sop = self.sop_uid(number);
        let mut meta = Vec::new();
        put(&mut meta, 0x0002, 0x0001, b"OB", &[0, 1]);
        put(&mut meta, 0x0002, 0x0002, b"UI", uids::CT_IMAGE_STORAGE.as_bytes());
        put(&mut meta, 0x0002, 0x0003, b"UI", sop.as_bytes());
        put(
            &mut meta,
            0x0002,
            0x0010,
            b"UI",
            uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes(),
        );
        put(&mut meta, 0x0002, 0x0012, b"UI", IMPLEMENTATION.as_bytes());
        put(&mut meta, 0x0002, 0x0013, b"SH", b"HIE_FIXTURE");
        let mut file = vec![0; 128];
        file.extend_from_slice(b"DICM");
        let length = u32::try_from(meta.len()).unwrap_or_default();
        put(&mut file, 0x0002, 0x0000, b"UL", &length.to_le_bytes());
        file.extend_from_slice(&meta);
        self.identity(&mut file, &sop);
        self.geometry(&mut file, number);
        let pixels = self.pixels(number);
        put(&mut file, 0x7fe0, 0x0010, b"OW", &pixels);
        file
    }

    /// Patient, study, series and equipment modules, in tag order up to group 0018.
    fn identity(&self, out: &mut Vec<u8>, sop: &str) {
        let mut text = |group, element, vr: &[u8; 2], text: &str| put(out, group, element, vr, text.as_bytes());
        text(0x0008, 0x0005, b"CS", "ISO_IR 192");
        text(0x0008, 0x0008, b"CS", "ORIGINAL\\PRIMARY\\AXIAL");
        text(0x0008, 0x0016, b"UI", uids::CT_IMAGE_STORAGE);
        text(0x0008, 0x0018, b"UI", sop);
        text(0x0008, 0x0020, b"DA", &self.study_date);
        text(0x0008, 0x0021, b"DA", &self.study_date);
        text(0x0008, 0x0023, b"DA", &self.study_date);
        text(0x0008, 0x0030, b"TM", &self.study_time);
        text(0x0008, 0x0031, b"TM", &self.study_time);
        text(0x0008, 0x0033, b"TM", &self.study_time);
        text(0x0008, 0x0050, b"SH", &self.accession);
        text(0x0008, 0x0060, b"CS", "CT");
        text(0x0008, 0x0070, b"LO", "hie fixture");
        text(0x0008, 0x0090, b"PN", "");
        text(0x0008, 0x1030, b"LO", &self.study_description);
        text(0x0008, 0x103e, b"LO", &self.series_description);
        text(0x0010, 0x0010, b"PN", &self.patient_name);
        text(0x0010, 0x0020, b"LO", &self.patient_id);
        text(0x0010, 0x0021, b"LO", &self.patient_id_issuer);
        text(0x0010, 0x0030, b"DA", &self.birth_date);
        text(0x0010, 0x0040, b"CS", &self.sex);
        text(0x0018, 0x0015, b"CS", "HEAD");
        text(0x0018, 0x0050, b"DS", "1.0");
        text(0x0018, 0x0060, b"DS", "120");
        text(0x0018, 0x5100, b"CS", "HFS");
    }

    /// Series, frame of reference, image plane and pixel modules.
    fn geometry(&self, out: &mut Vec<u8>, number: u32) {
        let spacing = format!("{:.4}", 240.0 / f64::from(self.rows.max(1)));
        let mut text = |group, element, vr: &[u8; 2], text: &str| put(out, group, element, vr, text.as_bytes());
        text(0x0020, 0x000d, b"UI", &self.study_uid);
        text(0x0020, 0x000e, b"UI", &self.series_uid);
        text(0x0020, 0x0010, b"SH", "1");
        text(0x0020, 0x0011, b"IS", "1");
        text(0x0020, 0x0013, b"IS", &number.to_string());
        text(
            0x0020,
            0x0032,
            b"DS",
            &format!("-120\\-120\\{}", number.saturating_sub(1)),
        );
        text(0x0020, 0x0037, b"DS", "1\\0\\0\\0\\1\\0");
        text(0x0020, 0x0052, b"UI", &format!("{}.0", self.series_uid));
        text(0x0020, 0x1040, b"LO", "");
        text(0x0020, 0x1041, b"DS", &number.saturating_sub(1).to_string());
        let mut word = |element: u16, value: u16| put(out, 0x0028, element, b"US", &value.to_le_bytes());
        word(0x0002, 1);
        put(out, 0x0028, 0x0004, b"CS", b"MONOCHROME2");
        let mut word = |element: u16, value: u16| put(out, 0x0028, element, b"US", &value.to_le_bytes());
        word(0x0010, self.rows);
        word(0x0011, self.columns);
        put(out, 0x0028, 0x0030, b"DS", format!("{spacing}\\{spacing}").as_bytes());
        let mut word = |element: u16, value: u16| put(out, 0x0028, element, b"US", &value.to_le_bytes());
        word(0x0100, 16);
        word(0x0101, 16);
        word(0x0102, 15);
        word(0x0103, 1);
        put(out, 0x0028, 0x1050, b"DS", b"40");
        put(out, 0x0028, 0x1051, b"DS", b"80");
        put(out, 0x0028, 0x1052, b"DS", b"0");
        put(out, 0x0028, 0x1053, b"DS", b"1");
        put(out, 0x0028, 0x1054, b"LO", b"HU");
    }

    /// Hounsfield units of one slice.
    fn pixels(&self, number: u32) -> Vec<u8> {
        let (rows, columns) = (self.rows.clamp(1, SIDE_MAX), self.columns.clamp(1, SIDE_MAX));
        // -1 at the first slice, 1 at the last; the head is widest in the middle.
        let level = 2.0 * (f64::from(number) - 0.5) / f64::from(self.slices.max(1)) - 1.0;
        let girth = (1.0 - 0.75 * level * level).max(0.05).sqrt();
        let phantom = Phantom { girth, level };
        let mut noise = Noise::new(self.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut out = Vec::with_capacity(usize::from(rows).saturating_mul(usize::from(columns)).saturating_mul(2));
        let mut row_noise = 0.0;
        for row in 0..rows {
            let y = 2.0 * (f64::from(row) + 0.5) / f64::from(rows) - 1.0;
            row_noise = 0.7 * row_noise + 0.3 * noise.next();
            let mut smooth = row_noise;
            for column in 0..columns {
                let x = 2.0 * (f64::from(column) + 0.5) / f64::from(columns) - 1.0;
                smooth = 0.6 * smooth + 0.4 * noise.next();
                let (units, grain) = phantom.units(x, y);
                #[expect(clippy::cast_possible_truncation, reason = "the phantom stays within -1024 and 1400")]
                let value = (units + grain * smooth).round() as i16;
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out
    }
}

struct Phantom {
    girth: f64,
    level: f64,
}

impl Phantom {
    /// Hounsfield units and noise amplitude at a point of the slice, both axes from -1 to 1.
    fn units(&self, x: f64, y: f64) -> (f64, f64) {
        let inside = |cx: f64, cy: f64, rx: f64, ry: f64| {
            let (dx, dy) = ((x - cx) / rx.max(1e-6), (y - cy) / ry.max(1e-6));
            dx * dx + dy * dy <= 1.0
        };
        let g = self.girth;
        if !inside(0.0, 0.0, 0.72 * g, 0.88 * g) {
            return (-1000.0, 4.0);
        }
        if !inside(0.0, 0.0, 0.68 * g, 0.84 * g) {
            return (30.0, 8.0);
        }
        if !inside(0.0, 0.0, 0.61 * g, 0.77 * g) {
            return (1000.0, 40.0);
        }
        let open = (1.0 - 4.0 * self.level * self.level).max(0.0).sqrt();
        if open > 0.0
            && (inside(-0.13, -0.05, 0.09 * open, 0.26 * open) || inside(0.13, -0.05, 0.09 * open, 0.26 * open))
        {
            return (6.0, 5.0);
        }
        let lesion = (1.0 - 25.0 * (self.level - 0.2) * (self.level - 0.2)).max(0.0).sqrt();
        if lesion > 0.0 && inside(0.3, 0.25, 0.07 * lesion, 0.07 * lesion) {
            return (68.0, 6.0);
        }
        // Grey matter outside, white matter inside.
        if inside(0.0, 0.0, 0.5 * g, 0.65 * g) {
            (28.0, 8.0)
        } else {
            (38.0, 8.0)
        }
    }
}

/// A 64-bit linear congruential generator (Knuth's constants); noise, not randomness.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next value, from -1 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = u32::try_from(self.0 >> 33).unwrap_or_default();
        f64::from(high) / f64::from(1_u32 << 30) - 1.0
    }
}

/// Writes one element in Explicit VR Little Endian, padded to even length (PS3.5 section 7.1.2).
fn put(out: &mut Vec<u8>, group: u16, element: u16, vr: &[u8; 2], value: &[u8]) {
    let padding: &[u8] = match (value.len() % 2, vr) {
        (0, _) => &[],
        (_, b"UI" | b"OB" | b"OW") => &[0],
        _ => b" ",
    };
    let length = value.len().saturating_add(padding.len());
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&element.to_le_bytes());
    out.extend_from_slice(vr);
    if matches!(vr, b"OB" | b"OW") {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
    } else {
        out.extend_from_slice(&u16::try_from(length).unwrap_or_default().to_le_bytes());
    }
    out.extend_from_slice(value);
    out.extend_from_slice(padding);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::CtSeries;
    use crate::dicom::{guard, instance, render};

    pub(crate) fn series() -> CtSeries {
        CtSeries {
            study_uid: "2.25.1".to_owned(),
            series_uid: "2.25.1.1".to_owned(),
            patient_id: "MRN1".to_owned(),
            patient_id_issuer: "City General".to_owned(),
            patient_name: "OKAFOR^Grace".to_owned(),
            birth_date: "19610314".to_owned(),
            sex: "F".to_owned(),
            accession: "A1".to_owned(),
            study_date: "20260102".to_owned(),
            study_time: "101500".to_owned(),
            study_description: "CT head".to_owned(),
            series_description: "Axial 1 mm".to_owned(),
            rows: 128,
            columns: 128,
            slices: 9,
            seed: 7,
        }
    }

    #[test]
    fn every_slice_is_a_valid_and_distinct_instance() {
        let series = series();
        let files: Vec<_> = series.files().collect();
        assert_eq!(files.len(), 9);
        assert_ne!(files[3], files[4]);
        assert_eq!(files[3], series.file(4));
        for (at, file) in files.iter().enumerate() {
            let facts = instance::read(file).unwrap();
            assert_eq!(facts.sop_uid, format!("2.25.1.1.{}", at + 1));
            assert_eq!(facts.patient_name.as_deref(), Some("OKAFOR^Grace"));
            assert_eq!((facts.rows, facts.columns, facts.frames), (Some(128), Some(128), 1));
            assert_eq!(guard::scan(file).unwrap().transfer_syntax(), guard::EXPLICIT_LE);
            assert_eq!(instance::frame(file, 1).unwrap().bytes.len(), 128 * 128 * 2);
        }
    }

    #[test]
    fn the_middle_slice_shows_bone_brain_and_air() {
        let pixels = instance::frame(&series().file(5), 1).unwrap().bytes;
        let at = |row: usize, column: usize| {
            let from = (row * 128 + column) * 2;
            i16::from_le_bytes([pixels[from], pixels[from + 1]])
        };
        assert!(at(0, 0) < -900, "air");
        assert!((0..128).any(|column| at(64, column) > 900), "skull");
        assert!((0..60).contains(&at(64, 64)), "brain");
        let png = render::render(&series().file(5), 1, 64, Some((40.0, 80.0))).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
    }
}
