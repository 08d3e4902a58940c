//! Patients made by program, for the demonstration and for tests. No real person is meant.
//!
//! [`generate`] makes one patient of one organisation from a seed; [`region_population`] tells the stories that the
//! demonstration needs: people known at several of four organisations, with facts that agree, differ and contradict.
//! The same arguments give the same Bundles. Organisation ids are in the example arc `urn:oid:2.999` (ITU-T X.660).

use serde_json::{Value, json};

use crate::dicom::fixture::CtSeries;
use crate::fhir::fixture::chart::{Chart, Drug, Note};
use crate::fhir::resource::hide;

mod chart;

/// Identifier system shared by the region.
pub const REGIONAL_SYSTEM: &str = "urn:oid:2.999.7.1";

/// One of the four organisations of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// A hospital.
    CityGeneral,
    /// A hospital.
    StAnne,
    /// A clinic.
    HarbourGp,
    /// An imaging centre.
    NorthImaging,
}

impl Site {
    /// All four.
    pub const ALL: [Self; 4] = [Self::CityGeneral, Self::StAnne, Self::HarbourGp, Self::NorthImaging];

    /// Short name for folders and addresses.
    pub fn slug(self) -> &'static str {
        match self {
            Self::CityGeneral => "city-general",
            Self::StAnne => "st-anne",
            Self::HarbourGp => "harbour-gp",
            Self::NorthImaging => "north-imaging",
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::CityGeneral => "City General Hospital",
            Self::StAnne => "St Anne Hospital",
            Self::HarbourGp => "Harbour GP Clinic",
            Self::NorthImaging => "North Imaging Centre",
        }
    }

    /// `hospital`, `clinic` or `imaging-centre`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::CityGeneral | Self::StAnne => "hospital",
            Self::HarbourGp => "clinic",
            Self::NorthImaging => "imaging-centre",
        }
    }

    /// Organisation id.
    pub fn urn(self) -> &'static str {
        match self {
            Self::CityGeneral => "urn:oid:2.999.7.11",
            Self::StAnne => "urn:oid:2.999.7.12",
            Self::HarbourGp => "urn:oid:2.999.7.13",
            Self::NorthImaging => "urn:oid:2.999.7.14",
        }
    }

    /// System of its medical record numbers.
    pub fn mrn_system(self) -> String {
        format!("{}.1", self.urn())
    }
}

/// Demographics of a person as one organisation has them.
#[derive(Clone)]
pub struct Person {
    /// Family name.
    pub family: &'static str,
    /// Given names.
    pub given: Vec<&'static str>,
    /// `YYYY-MM-DD`.
    pub born: &'static str,
    /// FHIR gender.
    pub sex: &'static str,
    /// Street line.
    pub street: &'static str,
    /// City.
    pub city: &'static str,
    /// Postal code.
    pub postal_code: &'static str,
    /// Phone.
    pub phone: Option<&'static str>,
    /// Regional identifier, where this organisation knows it.
    pub regional_id: Option<&'static str>,
}

/// What one organisation holds about a fixture patient.
#[derive(Clone)]
pub struct FixtureRecord {
    /// The organisation.
    pub site: Site,
    /// Medical record number there.
    pub mrn: String,
    /// A transaction Bundle to import there.
    pub bundle: Value,
    /// A CT series to store there, if the organisation has images; the Bundle's ImagingStudy describes it.
    pub series: Option<CtSeries>,
}

/// One person of the region.
#[derive(Clone)]
pub struct FixturePatient {
    /// Demographics as most organisations have them.
    pub person: Person,
    /// One record per organisation that knows the person.
    pub records: Vec<FixtureRecord>,
}

hide!(Person, FixtureRecord, FixturePatient);

/// One patient of one organisation, all facts chosen by `seed`.
pub fn generate(seed: u64, site: Site) -> FixtureRecord {
    let mut dice = Dice(seed.wrapping_mul(2).wrapping_add(1));
    let person = somebody(&mut dice);
    let mut chart = Chart::new(site, &format!("S{seed:06}"), &person);
    let visit = chart.visit("2025-03-04", "AMB", "185349003", "Encounter for check up");
    if dice.pick(3) == 0 {
        chart.allergy(
            "2019-05-02",
            ("91936005", "Allergy to penicillin"),
            "high",
            Some(("271807003", "Eruption of skin", "moderate")),
        );
    } else {
        chart.no_known_allergies("2024-11-20");
    }
    chart.problem(
        "2016-02-01",
        ("59621000", "Essential hypertension"),
        "active",
        Some(&visit),
    );
    chart.drug("2024-02-10", &LISINOPRIL, "10 mg once daily", "active");
    if dice.pick(2) == 0 {
        chart.problem("2018-07-15", ("44054006", "Diabetes mellitus type 2"), "active", None);
        chart.drug(
            "2023-08-01",
            &METFORMIN_ER,
            "500 mg once daily with the evening meal",
            "active",
        );
        chart.result(
            "2025-03-04",
            ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"),
            7.1,
            "%",
        );
    }
    chart.result("2025-03-04", CREATININE, 0.9, "mg/dL");
    chart.vaccine("2024-10-12");
    chart.note(&Note::text(
        "2025-03-04",
        ("11506-3", "Progress note"),
        "Clinic visit",
        "Routine check. Blood pressure 128/78. No change.",
    ));
    chart.note(&Note::pdf(
        "2025-03-05",
        ("34133-9", "Summary of episode note"),
        "Visit summary",
        "Routine check, no change of treatment.",
    ));
    chart.finish()
}

/// A small linear congruential generator: variety, not randomness.
struct Dice(u64);

impl Dice {
    fn pick(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 40).unwrap_or_default() % count.max(1)
    }
}

fn somebody(dice: &mut Dice) -> Person {
    const FAMILIES: [&str; 8] = [
        "Ashdown",
        "Birkeland",
        "Castellano",
        "Dimitrov",
        "Eriksen",
        "Fontaine",
        "Grady",
        "Hollis",
    ];
    const WOMEN: [&str; 6] = ["Amelia", "Beatriz", "Chloe", "Dagny", "Elif", "Freya"];
    const MEN: [&str; 6] = ["Anton", "Bruno", "Caleb", "Dario", "Emil", "Felix"];
    const BORN: [&str; 8] = [
        "1938-02-11",
        "1947-09-30",
        "1955-06-04",
        "1963-12-19",
        "1971-04-27",
        "1984-08-08",
        "1992-01-15",
        "2003-10-22",
    ];
    let woman = dice.pick(2) == 0;
    let names = if woman { WOMEN } else { MEN };
    Person {
        family: FAMILIES.get(dice.pick(8)).copied().unwrap_or("Ashdown"),
        given: vec![names.get(dice.pick(6)).copied().unwrap_or("Amelia")],
        born: BORN.get(dice.pick(8)).copied().unwrap_or("1955-06-04"),
        sex: if woman { "female" } else { "male" },
        street: "4 Mill Row",
        city: "Harbourton",
        postal_code: "55012",
        phone: None,
        regional_id: None,
    }
}

/// The people of the demonstration.
pub fn region_population() -> Vec<FixturePatient> {
    vec![
        okafor(),
        halvorsen(),
        marquez(),
        abernathy(),
        nguyen(),
        kowalski(),
        lindqvist(),
    ]
}

const WARFARIN: Drug = Drug {
    code: "855332",
    name: "Warfarin Sodium 5 MG Oral Tablet",
};
const CLARITHROMYCIN: Drug = Drug {
    code: "21212",
    name: "Clarithromycin",
};
const METFORMIN: Drug = Drug {
    code: "6809",
    name: "Metformin",
};
const METFORMIN_ER: Drug = Drug {
    code: "860975",
    name: "24 HR Metformin hydrochloride 500 MG Extended Release Oral Tablet",
};
const LISINOPRIL: Drug = Drug {
    code: "314076",
    name: "lisinopril 10 MG Oral Tablet",
};
const SIMVASTATIN_10: Drug = Drug {
    code: "314231",
    name: "Simvastatin 10 MG Oral Tablet",
};
const SIMVASTATIN_20: Drug = Drug {
    code: "312961",
    name: "Simvastatin 20 MG Oral Tablet",
};
const PENICILLIN: (&str, &str) = ("764146007", "Substance with penicillin structure");
const ANAPHYLAXIS: (&str, &str, &str) = ("39579001", "Anaphylaxis", "severe");
const FIBRILLATION: (&str, &str) = ("49436004", "Atrial fibrillation");
const DIABETES: (&str, &str) = ("44054006", "Diabetes mellitus type 2");
const HYPERTENSION: (&str, &str) = ("59621000", "Essential hypertension");
const ASTHMA: (&str, &str) = ("195967001", "Asthma");
const PNEUMONIA: (&str, &str) = ("233604007", "Pneumonia");
const INR: (&str, &str) = ("6301-6", "INR in Platelet poor plasma by Coagulation assay");
const CREATININE: (&str, &str) = ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma");
const A1C: (&str, &str) = ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood");
const DISCHARGE: (&str, &str) = ("18842-5", "Discharge summary");
const PROGRESS: (&str, &str) = ("11506-3", "Progress note");
const HISTORY: (&str, &str) = ("34117-2", "History and physical note");
const IMAGING_REPORT: (&str, &str) = ("18748-4", "Diagnostic imaging study");

fn of(person: Person, records: Vec<FixtureRecord>) -> FixturePatient {
    FixturePatient { person, records }
}

fn okafor() -> FixturePatient {
    let person = Person {
        family: "Okafor",
        given: vec!["Grace"],
        born: "1961-03-14",
        sex: "female",
        street: "18 Quay Street",
        city: "Harbourton",
        postal_code: "55010",
        phone: Some("+1-555-0100"),
        regional_id: Some("R-4471-0093"),
    };
    let mut city = Chart::new(Site::CityGeneral, "CG-204417", &person);
    let stay = city.visit("2025-11-02", "IMP", "32485007", "Hospital admission");
    city.allergy("2019-06-14", PENICILLIN, "high", Some(ANAPHYLAXIS));
    city.problem("2021-09-20", FIBRILLATION, "active", Some(&stay));
    city.problem("2014-04-02", DIABETES, "active", None);
    city.drug("2025-11-05", &WARFARIN, "5 mg once daily in the evening", "active");
    city.drug("2025-11-05", &METFORMIN, "500 mg twice daily", "active");
    city.result("2025-11-04", INR, 2.4, "1");
    city.result("2025-11-04", CREATININE, 1.1, "mg/dL");
    city.note(&Note::pdf(
        "2025-11-06",
        DISCHARGE,
        "Discharge summary",
        "Atrial fibrillation, rate controlled. Warfarin 5 mg, INR target 2 to 3.",
    ));
    let unregistered = Person {
        regional_id: None,
        ..person.clone()
    };
    let mut harbour = Chart::new(Site::HarbourGp, "H3391", &unregistered);
    harbour.visit("2025-08-22", "AMB", "185349003", "Encounter for check up");
    harbour.no_known_allergies("2017-03-01");
    harbour.problem("2014-04-02", DIABETES, "active", None);
    harbour.problem("2012-10-30", HYPERTENSION, "active", None);
    harbour.drug("2025-08-22", &METFORMIN, "1000 mg twice daily", "active");
    harbour.drug("2025-08-22", &LISINOPRIL, "10 mg once daily", "active");
    harbour.result("2025-08-22", A1C, 7.4, "%");
    harbour.vaccine("2025-10-02");
    harbour.note(&Note::text(
        "2025-08-22",
        PROGRESS,
        "Clinic visit",
        "Diabetes review. Metformin raised to 1000 mg twice daily.",
    ));
    harbour.note(
        &Note::text("2024-02-27", PROGRESS, "Psychotherapy session note", "Session content.")
            .sensitive(&["R"], &["PSYTHPN"]),
    );
    let records = vec![
        city.finish(),
        okafor_at_st_anne(&person),
        harbour.finish(),
        okafor_at_north_imaging(&person),
    ];
    of(person, records)
}

fn okafor_at_st_anne(person: &Person) -> FixtureRecord {
    let older = Person {
        given: vec!["Grace", "N"],
        street: "3 Orchard Lane",
        postal_code: "55022",
        phone: None,
        ..person.clone()
    };
    let mut anne = Chart::new(Site::StAnne, "SA-0088123", &older);
    let emergency = anne.visit("2026-01-19", "EMER", "50849002", "Emergency room admission");
    anne.allergy("2023-02-08", PENICILLIN, "high", Some(ANAPHYLAXIS));
    anne.problem("2026-01-19", PNEUMONIA, "active", Some(&emergency));
    anne.drug("2026-01-19", &CLARITHROMYCIN, "500 mg twice daily for 7 days", "active");
    anne.note(&Note::text("2026-01-20", DISCHARGE, "Emergency department summary", "Community-acquired pneumonia. Clarithromycin because of penicillin anaphylaxis. Seen alone, medication list not available."));
    anne.note(
        &Note::text(
            "2022-05-11",
            HISTORY,
            "Substance use treatment summary",
            "Completed a 12-week outpatient programme.",
        )
        .sensitive(&["R"], &["ETH", "42CFRPart2"]),
    );
    anne.finish()
}

fn okafor_at_north_imaging(person: &Person) -> FixtureRecord {
    let mut north = Chart::new(Site::NorthImaging, "NI-55120", person);
    north.visit("2025-11-03", "AMB", "308335008", "Patient encounter procedure");
    north.study("2025-11-03", "CT head without contrast", 600, 512);
    north.note(&Note::pdf(
        "2025-11-03",
        IMAGING_REPORT,
        "CT head report",
        "No haemorrhage. Age-appropriate ventricles.",
    ));
    north.finish()
}

fn halvorsen() -> FixturePatient {
    let person = Person {
        family: "Halvorsen",
        given: vec!["Erik", "Johan"],
        born: "1954-11-02",
        sex: "male",
        street: "77 Pine Hill",
        city: "Northwick",
        postal_code: "55101",
        phone: Some("+1-555-0134"),
        regional_id: Some("R-1180-2254"),
    };
    let mut city = Chart::new(Site::CityGeneral, "CG-118220", &person);
    city.visit("2025-05-14", "IMP", "32485007", "Hospital admission");
    city.no_known_allergies("2025-05-14");
    city.problem("2010-01-12", HYPERTENSION, "active", None);
    city.problem("2025-05-14", PNEUMONIA, "resolved", None);
    city.drug("2025-05-16", &SIMVASTATIN_20, "20 mg at night", "active");
    city.drug("2024-01-10", &LISINOPRIL, "10 mg once daily", "stopped");
    city.result("2025-05-15", CREATININE, 1.4, "mg/dL");
    city.note(&Note::pdf(
        "2025-05-18",
        DISCHARGE,
        "Discharge summary",
        "Pneumonia, recovered. Lisinopril stopped.",
    ));
    let short = Person {
        given: vec!["Erik"],
        phone: None,
        ..person.clone()
    };
    let mut harbour = Chart::new(Site::HarbourGp, "H0172", &short);
    harbour.visit("2025-01-09", "AMB", "185349003", "Encounter for check up");
    harbour.problem("2010-01-12", HYPERTENSION, "active", None);
    harbour.drug("2025-01-09", &LISINOPRIL, "10 mg once daily", "active");
    harbour.drug("2025-01-09", &SIMVASTATIN_10, "10 mg at night", "active");
    harbour.vaccine("2024-10-20");
    harbour.note(&Note::text(
        "2025-01-09",
        PROGRESS,
        "Clinic visit",
        "Blood pressure 142/84. Continue lisinopril.",
    ));
    of(person, vec![city.finish(), harbour.finish()])
}

fn marquez() -> FixturePatient {
    let person = Person {
        family: "Marquez",
        given: vec!["Lucia"],
        born: "1988-07-21",
        sex: "female",
        street: "9 Station Road",
        city: "Harbourton",
        postal_code: "55010",
        phone: Some("+1-555-0171"),
        regional_id: Some("R-7719-4402"),
    };
    let married = Person {
        family: "Marquez Doyle",
        ..person.clone()
    };
    let mut anne = Chart::new(Site::StAnne, "SA-0091455", &married);
    anne.visit("2025-09-30", "EMER", "50849002", "Emergency room admission");
    anne.allergy("2025-09-30", ("91934008", "Allergy to nut"), "high", Some(ANAPHYLAXIS));
    anne.problem("1996-05-01", ASTHMA, "active", None);
    anne.note(&Note::text(
        "2025-09-30",
        DISCHARGE,
        "Emergency department summary",
        "Anaphylaxis after walnuts. Observed for six hours.",
    ));
    let mut harbour = Chart::new(Site::HarbourGp, "H2210", &person);
    harbour.visit("2025-10-07", "AMB", "185349003", "Encounter for check up");
    harbour.allergy("2025-10-07", ("91934008", "Allergy to nut"), "high", Some(ANAPHYLAXIS));
    harbour.problem("1996-05-01", ASTHMA, "active", None);
    harbour.vaccine("2025-10-07");
    harbour.note(&Note::text(
        "2025-10-07",
        PROGRESS,
        "Clinic visit",
        "Action plan for anaphylaxis explained.",
    ));
    let mut north = Chart::new(Site::NorthImaging, "NI-60233", &person);
    north.study("2024-06-18", "CT head after fall", 24, 256);
    north.note(&Note::text(
        "2024-06-18",
        IMAGING_REPORT,
        "CT head report",
        "Normal study.",
    ));
    of(person, vec![anne.finish(), harbour.finish(), north.finish()])
}

fn abernathy() -> FixturePatient {
    let person = Person {
        family: "Abernathy",
        given: vec!["Samuel", "T"],
        born: "1972-01-30",
        sex: "male",
        street: "210 Lakeview",
        city: "Northwick",
        postal_code: "55104",
        phone: None,
        regional_id: None,
    };
    let mut city = Chart::new(Site::CityGeneral, "CG-300871", &person);
    city.visit("2025-12-11", "AMB", "185349003", "Encounter for check up");
    city.allergy(
        "2011-08-19",
        PENICILLIN,
        "low",
        Some(("271807003", "Eruption of skin", "mild")),
    );
    city.problem("2020-03-03", DIABETES, "active", None);
    city.drug(
        "2025-12-11",
        &METFORMIN_ER,
        "500 mg once daily with the evening meal",
        "active",
    );
    city.result("2025-12-11", A1C, 6.8, "%");
    city.note(&Note::text(
        "2025-12-11",
        PROGRESS,
        "Diabetes clinic letter",
        "Stable on metformin.",
    ));
    let mut north = Chart::new(Site::NorthImaging, "NI-60871", &person);
    north.study("2025-12-15", "CT head, headache", 24, 256);
    north.note(&Note::pdf(
        "2025-12-15",
        IMAGING_REPORT,
        "CT head report",
        "No acute finding.",
    ));
    of(person, vec![city.finish(), north.finish()])
}

fn nguyen() -> FixturePatient {
    let person = Person {
        family: "Nguyen",
        given: vec!["Mai"],
        born: "1995-05-09",
        sex: "female",
        street: "41 Canal Walk",
        city: "Harbourton",
        postal_code: "55011",
        phone: Some("+1-555-0188"),
        regional_id: Some("R-2036-8817"),
    };
    let mut harbour = Chart::new(Site::HarbourGp, "H4102", &person);
    harbour.visit("2025-06-16", "AMB", "185349003", "Encounter for check up");
    harbour.no_known_allergies("2025-06-16");
    harbour.vaccine("2025-06-16");
    harbour.note(&Note::text(
        "2025-06-16",
        PROGRESS,
        "Clinic visit",
        "Well. Advice on sleep.",
    ));
    let mut anne = Chart::new(Site::StAnne, "SA-0102277", &person);
    anne.visit("2025-02-03", "EMER", "50849002", "Emergency room admission");
    anne.no_known_allergies("2025-02-03");
    anne.note(
        &Note::text(
            "2025-02-04",
            HISTORY,
            "Substance use consultation",
            "Consultation notes.",
        )
        .sensitive(&["R"], &["ETH", "42CFRPart2"]),
    );
    anne.note(&Note::text(
        "2025-02-03",
        DISCHARGE,
        "Emergency department summary",
        "Syncope, recovered, discharged home.",
    ));
    of(person, vec![harbour.finish(), anne.finish()])
}

fn kowalski() -> FixturePatient {
    let person = Person {
        family: "Kowalski",
        given: vec!["Zofia"],
        born: "1943-12-18",
        sex: "female",
        street: "5 Chapel Court",
        city: "Northwick",
        postal_code: "55103",
        phone: None,
        regional_id: Some("R-0094-6610"),
    };
    let mut city = Chart::new(Site::CityGeneral, "CG-087112", &person);
    city.visit("2024-09-12", "IMP", "32485007", "Hospital admission");
    city.problem("2019-01-20", FIBRILLATION, "active", None);
    city.drug("2024-09-15", &WARFARIN, "2.5 mg once daily", "active");
    city.result("2024-09-14", INR, 2.9, "1");
    city.note(&Note::pdf(
        "2024-09-16",
        DISCHARGE,
        "Discharge summary",
        "Fall without fracture. Warfarin continued.",
    ));
    let moved = Person {
        street: "12 Rosewood Home",
        postal_code: "55107",
        ..person.clone()
    };
    let mut anne = Chart::new(Site::StAnne, "SA-0033019", &moved);
    anne.visit("2025-12-27", "IMP", "32485007", "Hospital admission");
    anne.allergy(
        "2025-12-27",
        ("91936005", "Allergy to penicillin"),
        "unable-to-assess",
        None,
    );
    anne.problem("2019-01-20", FIBRILLATION, "active", None);
    anne.drug("2025-12-28", &WARFARIN, "5 mg once daily", "active");
    anne.result("2025-12-28", INR, 4.1, "1");
    anne.note(&Note::text(
        "2026-01-02",
        DISCHARGE,
        "Discharge summary",
        "INR above range on admission. Dose to be checked by the clinic.",
    ));
    let mut north = Chart::new(Site::NorthImaging, "NI-41190", &moved);
    north.study("2025-12-28", "CT head on anticoagulant", 32, 256);
    north.note(&Note::text(
        "2025-12-28",
        IMAGING_REPORT,
        "CT head report",
        "No haemorrhage.",
    ));
    of(person, vec![city.finish(), anne.finish(), north.finish()])
}

fn lindqvist() -> FixturePatient {
    let person = Person {
        family: "Lindqvist",
        given: vec!["Oskar"],
        born: "2001-08-25",
        sex: "male",
        street: "66 College Green",
        city: "Harbourton",
        postal_code: "55013",
        phone: Some("+1-555-0162"),
        regional_id: None,
    };
    let mut harbour = Chart::new(Site::HarbourGp, "H5540", &person);
    harbour.visit("2025-03-19", "AMB", "185349003", "Encounter for check up");
    harbour.problem("2009-06-01", ASTHMA, "active", None);
    harbour.vaccine("2025-03-19");
    harbour.note(&Note::text(
        "2025-03-19",
        PROGRESS,
        "Clinic visit",
        "Asthma well controlled.",
    ));
    let mut city = Chart::new(Site::CityGeneral, "CG-311204", &person);
    city.visit("2025-07-01", "EMER", "50849002", "Emergency room admission");
    city.no_known_allergies("2025-07-01");
    city.problem("2009-06-01", ASTHMA, "active", None);
    city.note(&Note::text(
        "2025-07-01",
        DISCHARGE,
        "Emergency department summary",
        "Ankle sprain.",
    ));
    of(person, vec![harbour.finish(), city.finish()])
}

/// A UUID-shaped name (RFC 9562 version 8) over `text`.
fn uuid(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut name = hex::encode(Sha256::digest(text.as_bytes()));
    name.truncate(32);
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

fn concept(system: &str, (code, display): (&str, &str)) -> Value {
    json!({"coding": [{"system": system, "code": code, "display": display}], "text": display})
}

#[cfg(test)]
mod tests;
