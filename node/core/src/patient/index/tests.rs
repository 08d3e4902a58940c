#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use hie_protocol::message::{Demographics, MatchGrade, PersonIdentifier, PersonName};
use serde_json::json;

use super::{Outcome, PatientError, PatientIndex, Registered};
use crate::catalogue::Table;
use crate::kv::memory::MemoryKv;
use crate::kv::{Batch, Kv, KvRead, Scan};
use crate::ports::SeededRandom;
use crate::vault::{Kek, Vault};

struct World {
    kv: Arc<MemoryKv>,
    vault: Arc<Vault>,
    index: PatientIndex,
}

fn world() -> World {
    let random = Arc::new(SeededRandom::new(7));
    let kv = Arc::new(MemoryKv::new());
    let kek = Kek::generate(&*random).unwrap();
    let vault = Arc::new(Vault::open(&kek, kv.clone(), random.clone()).unwrap());
    World {
        kv: kv.clone(),
        vault: vault.clone(),
        index: PatientIndex::new(kv, vault, random),
    }
}

fn person(given: &str, mrn: &str, phone: Option<&str>) -> Demographics {
    Demographics {
        names: vec![PersonName {
            family: "Smith".into(),
            given: vec![given.into()],
            prefix: None,
            suffix: None,
        }],
        birth_date: Some("1961-03-14".into()),
        sex: Some("male".into()),
        identifiers: vec![PersonIdentifier {
            system: "urn:oid:2.999.1.1".into(),
            value: mrn.into(),
        }],
        addresses: Vec::new(),
        telecoms: phone.into_iter().map(Into::into).collect(),
    }
}

impl World {
    fn register(&self, source: &str, person: &Demographics) -> Registered {
        let mut batch = Batch::new();
        let patient = json!({"resourceType": "Patient", "id": source});
        let registered = self.index.register(source, &patient, person, &mut batch).unwrap();
        self.kv.commit(batch).unwrap();
        registered
    }

    fn rows(&self, table: Table) -> usize {
        self.kv.scan(&Scan::of(table, &[])).unwrap().len()
    }
}

#[test]
fn spec_m_link_taking_in_twice_changes_nothing_and_updates_replace() {
    let world = world();
    let first = world.register("mrn|1", &person("Robert", "MRN-1", Some("617-555-0123")));
    assert_eq!(first.outcome, Outcome::New);
    let again = world.register("mrn|1", &person("Robert", "MRN-1", Some("617-555-0123")));
    assert_eq!((again.patient, again.outcome), (first.patient, Outcome::Unchanged));
    let moved = world.register("mrn|1", &person("Robert", "MRN-1", Some("617-555-0999")));
    assert_eq!((moved.patient, moved.outcome), (first.patient, Outcome::Updated));
    assert_eq!(world.rows(Table::Patients), 1);
    assert!(
        world.index.find_text("6175550123", 9).unwrap().is_empty(),
        "the old number leads nowhere"
    );
    assert_eq!(world.index.find_text("6175550999", 9).unwrap().len(), 1);
    let known = world.index.person(first.patient).unwrap().unwrap();
    assert_eq!(known.patient["id"], json!(first.patient.to_hex()));
}

#[test]
fn spec_m_link_only_a_certain_match_joins() {
    let world = world();
    let first = world.register("a|1", &person("Robert", "MRN-1", Some("617-555-0123")));
    let linked = world.register("b|9", &person("Bob", "MRN-9", Some("617-555-0123")));
    assert_eq!((linked.patient, linked.outcome), (first.patient, Outcome::Linked));
    let twin = world.register("c|1", &person("Richard", "MRN-7", Some("617-555-0123")));
    assert_eq!(
        twin.outcome,
        Outcome::New,
        "another given name in one household is another person"
    );
    let namesake = world.register("d|1", &person("Robert", "MRN-8", None));
    assert_eq!(
        namesake.outcome,
        Outcome::New,
        "name, birth date and sex alone link nobody"
    );
    assert_eq!(
        world.index.by_identifier("urn:oid:2.999.1.1", "mrn 9").unwrap(),
        [first.patient]
    );
    assert_eq!(
        world
            .index
            .person(first.patient)
            .unwrap()
            .unwrap()
            .demographics
            .names
            .len(),
        2
    );
}

#[test]
fn a_line_of_text_finds_people() {
    let world = world();
    let robert = world
        .register("a|1", &person("Robert", "MRN-12345", Some("617-555-0123")))
        .patient;
    let other = world
        .register("a|2", &person("Ann", "MRN-7", Some("617-555-0999")))
        .patient;
    for text in [
        "smith robert",
        "ROB smi",
        "14 mar 1961 robert",
        "robert 14/03/1961",
        "MRN12345",
        "6175550123",
        "smith 1961-03-14 mrn-12345",
    ] {
        let found: Vec<_> = world
            .index
            .find_text(text, 9)
            .unwrap()
            .iter()
            .map(|person| person.key)
            .collect();
        assert_eq!(found, [robert], "{text}");
    }
    assert_eq!(world.index.find_text("smith", 9).unwrap().len(), 2);
    assert_eq!(world.index.find_text("smith", 1).unwrap().len(), 1);
    assert!(world.index.find_text("smith 1962-03-14", 9).unwrap().is_empty());
    assert!(world.index.find_text("", 9).unwrap().is_empty());
    assert_eq!(world.index.page(None, 9).unwrap().len(), 2);
    assert_eq!(
        world.index.page(Some(robert.min(other)), 9).unwrap(),
        [robert.max(other)]
    );
}

#[test]
fn spec_m_grade_identify_answers_one_certain_person() {
    let world = world();
    let robert = world
        .register("a|1", &person("Robert", "MRN-1", Some("617-555-0123")))
        .patient;
    let mut asked = person("Bob", "MRN-55", Some("617 555 0123"));
    let found = world.index.identify(&asked).unwrap();
    assert_eq!(
        (found[0].person.key, found[0].verdict.grade),
        (robert, Some(MatchGrade::Certain))
    );
    asked.telecoms.clear();
    asked.identifiers.clear();
    assert_eq!(
        world.index.identify(&asked).unwrap()[0].verdict.grade,
        Some(MatchGrade::Probable)
    );
    asked.birth_date = Some("1999-01-01".into());
    assert!(world.index.identify(&asked).unwrap().is_empty());
}

#[test]
fn nothing_personal_is_on_the_disk_and_erasure_ends_it() {
    let world = world();
    let key = world
        .register("a|1", &person("Robert", "MRN-1", Some("617-555-0123")))
        .patient;
    for table in Table::ALL {
        for (at, value) in world.kv.scan(&Scan::of(*table, &[])).unwrap() {
            for secret in [b"Smith".as_slice(), b"SMITH", b"6175550123", b"1961", b"MRN"] {
                let shows = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!shows(&at) && !shows(&value), "{}", table.name());
            }
        }
    }
    let mut batch = Batch::new();
    world.vault.erase(key, &mut batch);
    world.kv.commit(batch).unwrap();
    assert!(world.index.person(key).unwrap().is_none());
    assert!(world.index.find_text("smith", 9).unwrap().is_empty());
}

#[test]
fn a_patient_without_name_and_number_is_refused() {
    let world = world();
    let refused = world
        .index
        .register("a|1", &json!({}), &Demographics::default(), &mut Batch::new());
    assert_eq!(refused.unwrap_err(), PatientError::Nameless);
}
