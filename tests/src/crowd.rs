//! A region's patients, made by program for measuring: distinct people, each known at a few organisations chosen by
//! her number. The same number gives the same person. No real person is meant.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName};
use serde_json::{Value, json};

use crate::stage::{Outcome, Place};

/// Identifier system shared by the region.
pub const REGIONAL_SYSTEM: &str = "urn:oid:2.999.9.1";
/// Most organisations that know one person.
pub const HELD_AT_MAX: u64 = 4;

const GIVEN: [&str; 24] = [
    "Ada", "Bela", "Carla", "Dario", "Edith", "Farid", "Greta", "Hugo", "Irene", "Jamal", "Karin", "Luis", "Mona",
    "Nils", "Olga", "Pavel", "Rosa", "Samir", "Tilda", "Ugo", "Vera", "Walid", "Yara", "Zeno",
];
const CONSONANTS: &[u8; 16] = b"BDFGHKLMNPRSTVWZ";
const VOWELS: &[u8; 5] = b"AEIOU";

/// SplitMix64 over a number: one well-mixed word.
#[must_use]
pub fn mixed(number: u64) -> u64 {
    let word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// `count` organisations as `hie` needs them; the first `authorities` hold the shares of the token key.
#[must_use]
pub fn places(count: usize, authorities: usize) -> Vec<Place> {
    let place = |number: usize| Place {
        slug: format!("org-{number:02}"),
        name: format!("Organisation {number:02}"),
        urn: format!("urn:oid:2.999.9.{}", 100 + number),
        kind: if number.is_multiple_of(3) { "hospital" } else { "clinic" }.to_owned(),
        authority: number < authorities,
        holder: true,
    };
    (0..count).map(place).collect()
}

/// Which of `organisations` know person `number`: one to [`HELD_AT_MAX`] of them.
#[must_use]
pub fn held_at(number: u64, organisations: usize) -> BTreeSet<usize> {
    let many = 1 + mixed(number ^ 0x5eed) % HELD_AT_MAX;
    let among = u64::try_from(organisations).unwrap_or(1).max(1);
    let pick = |turn: u64| usize::try_from(mixed(number.wrapping_mul(31).wrapping_add(turn)) % among).unwrap_or(0);
    (0..many).map(pick).collect()
}

/// The medical record number of person `number` at any organisation.
#[must_use]
pub fn mrn(number: u64) -> String {
    format!("MRN{number:09}")
}

/// A family name of nine letters that hardly any other number has.
fn family(number: u64) -> String {
    let mut word = mixed(number ^ 0xfa_11e5);
    let mut letter = |set: &[u8]| {
        let many = u64::try_from(set.len()).unwrap_or(1);
        let at = usize::try_from(word % many).unwrap_or(0);
        word /= many;
        set.get(at).map_or('A', |byte| char::from(*byte))
    };
    let name: String = (0..9)
        .map(|at: u32| {
            if at.is_multiple_of(2) {
                letter(CONSONANTS)
            } else {
                letter(VOWELS)
            }
        })
        .collect();
    name.chars()
        .enumerate()
        .map(|(at, letter)| if at == 0 { letter } else { letter.to_ascii_lowercase() })
        .collect()
}

/// The Patient resource of person `number` at an organisation.
#[must_use]
pub fn patient(number: u64, at: &Place) -> Value {
    let dice = mixed(number);
    let given = usize::try_from(dice % 24)
        .ok()
        .and_then(|at| GIVEN.get(at))
        .copied()
        .unwrap_or("Ada");
    let born = format!(
        "{}-{:02}-{:02}",
        1930 + (dice >> 8) % 80,
        1 + (dice >> 16) % 12,
        1 + (dice >> 24) % 28
    );
    json!({
        "resourceType": "Patient", "id": format!("p{number}"), "active": true,
        "identifier": [
            { "system": at.mrn_system(), "value": mrn(number) },
            { "system": REGIONAL_SYSTEM, "value": format!("R{number:09}") },
        ],
        "name": [{ "family": family(number), "given": [given] }],
        "gender": if dice & 1 == 0 { "female" } else { "male" },
        "birthDate": born,
        "address": [{ "line": [format!("{} Harbour Street", 1 + (dice >> 32) % 400)], "city": "Port Example",
            "postalCode": format!("{:05}", (dice >> 40) % 90_000 + 10_000) }],
        "telecom": [{ "system": "phone", "value": format!("555-{:07}", (dice >> 20) % 10_000_000) }],
    })
}

/// A transaction Bundle of what an organisation holds about person `number`: `documents` short notes.
#[must_use]
pub fn bundle(number: u64, at: &Place, documents: u32) -> Value {
    let note = |one: u32| {
        let name = mixed(
            number
                ^ mixed(u64::from(one) ^ mixed(at.urn.bytes().map(u64::from).fold(7, |sum, byte| mixed(sum ^ byte)))),
        );
        let text = format!("Note {one} about person {number} at {}.", at.name);
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            name >> 32,
            (name >> 16) & 0xffff,
            name & 0xfff,
            one & 0xfff,
            number
        );
        json!({ "fullUrl": format!("urn:uuid:{uuid}"), "resource": {
            "resourceType": "DocumentReference", "status": "current", "docStatus": "final",
            "masterIdentifier": { "system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{uuid}") },
            "type": { "coding": [{ "system": "http://loinc.org", "code": "11506-3", "display": "Progress note" }] },
            "subject": { "reference": format!("Patient/p{number}") },
            "date": "2025-03-04T17:30:00Z", "description": format!("Note {one}"),
            "content": [{ "attachment": { "contentType": "text/plain", "title": format!("Note {one}"),
                "creation": "2025-03-04T17:30:00Z", "data": STANDARD.encode(text) } }],
        } })
    };
    let mut entries = vec![json!({ "fullUrl": format!("Patient/p{number}"), "resource": patient(number, at) })];
    entries.extend((1..=documents).map(note));
    json!({ "resourceType": "Bundle", "type": "collection", "entry": entries })
}

/// Writes people as one file of newline-delimited JSON, as a bulk export has them: each Patient, then her notes.
pub fn write_ndjson(path: &Path, numbers: impl Iterator<Item = u64>, at: &Place, documents: u32) -> Outcome<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut people = 0;
    for number in numbers {
        let entries = bundle(number, at, documents);
        for entry in entries.get("entry").and_then(Value::as_array).into_iter().flatten() {
            if let Some(resource) = entry.get("resource") {
                writeln!(file, "{resource}")?;
            }
        }
        people += 1;
    }
    file.flush()?;
    Ok(people)
}

/// Person `number` as a question describes her: what any organisation knows of her but its own record number.
pub fn demographics(number: u64) -> Outcome<Demographics> {
    let anywhere = Place {
        slug: String::new(),
        name: String::new(),
        urn: String::new(),
        kind: String::new(),
        authority: false,
        holder: false,
    };
    let value = patient(number, &anywhere);
    let text = |at: &str| value.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let missing = || "a made patient lacks a field";
    Ok(Demographics {
        names: vec![PersonName {
            family: text("/name/0/family").ok_or_else(missing)?,
            given: text("/name/0/given/0").into_iter().collect(),
            prefix: None,
            suffix: None,
        }],
        birth_date: text("/birthDate"),
        sex: text("/gender"),
        identifiers: vec![PersonIdentifier {
            system: REGIONAL_SYSTEM.to_owned(),
            value: text("/identifier/1/value").ok_or_else(missing)?,
        }],
        addresses: vec![PersonAddress {
            lines: text("/address/0/line/0").into_iter().collect(),
            city: text("/address/0/city"),
            state: None,
            postal_code: text("/address/0/postalCode"),
        }],
        telecoms: text("/telecom/0/value").into_iter().collect(),
    })
}
