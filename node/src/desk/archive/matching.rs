//! Attribute matching of QIDO-RS over DICOM JSON (PS3.4 section C.2.2.2; PS3.18 section 8.3.4).
//!
//! Single value, list of UIDs, wildcards `*` and `?`, ranges of dates and times, attributes inside sequences. An
//! attribute that is not there matches nothing but `*`. Names match without regard to case; all else is literal.

use serde_json::{Map, Value};

/// Deepest path into sequences.
const DEPTH_MAX: usize = 8;

/// A DICOM JSON object.
pub type Attributes = Map<String, Value>;

/// Whether the attribute at `path` (`ggggeeee`, joined by dots into sequences) has a value that fits `wanted`.
#[must_use]
pub fn matches(object: &Attributes, path: &str, wanted: &str) -> bool {
    at_depth(object, path, wanted, 0)
}

fn at_depth(object: &Attributes, path: &str, wanted: &str, depth: usize) -> bool {
    if depth >= DEPTH_MAX {
        return false;
    }
    let (tag, rest) = path
        .split_once('.')
        .map_or((path, None), |(tag, rest)| (tag, Some(rest)));
    let values = object
        .get(tag)
        .and_then(|element| element.get("Value"))
        .and_then(Value::as_array);
    let values = values.map(Vec::as_slice).unwrap_or_default();
    if let Some(rest) = rest {
        let mut items = values.iter().filter_map(Value::as_object);
        return items.any(|item| at_depth(item, rest, wanted, depth.saturating_add(1)));
    }
    let everything = !wanted.is_empty() && wanted.chars().all(|letter| letter == '*');
    let vr = object
        .get(tag)
        .and_then(|element| element.get("vr"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    everything || values.iter().any(|value| value_fits(vr, value, wanted))
}

fn value_fits(vr: &str, value: &Value, wanted: &str) -> bool {
    match vr {
        "PN" => names(value).any(|name| wildcard(&name_form(wanted), &name_form(name))),
        "UI" => value
            .as_str()
            .is_some_and(|uid| uids(wanted).any(|one| one == uid.trim_end_matches('\0'))),
        "DA" => value.as_str().is_some_and(|date| in_range(wanted, date, 8)),
        "TM" => value.as_str().is_some_and(|time| in_range(wanted, time, 12)),
        "DT" => value.as_str() == Some(wanted),
        _ => match value {
            Value::String(text) => wildcard(wanted.trim(), text.trim()),
            Value::Number(number) => {
                let same = |(left, right): (f64, f64)| (left - right).abs() < f64::EPSILON;
                number.as_f64().zip(wanted.trim().parse().ok()).is_some_and(same)
            }
            _ => false,
        },
    }
}

/// The UIDs of a list, joined by backslash (DICOM) or comma (PS3.18 section 8.3.4.1).
pub fn uids(list: &str) -> impl Iterator<Item = &str> {
    list.split(['\\', ',']).map(str::trim).filter(|uid| !uid.is_empty())
}

/// The representations of a name.
fn names(value: &Value) -> impl Iterator<Item = &str> {
    let object = value.as_object().into_iter().flat_map(|groups| groups.values());
    object.filter_map(Value::as_str).chain(value.as_str())
}

/// A name for comparing: small letters, empty components at the end left out.
fn name_form(name: &str) -> String {
    name.trim().trim_end_matches('^').to_lowercase()
}

/// Whether `text` fits `pattern`, where `*` stands for any letters and `?` for one.
#[must_use]
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0_usize, 0_usize);
    // Where to go on when a letter does not fit: behind the last `*`, which then takes one letter more.
    let mut again: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(read) {
        match (pattern.get(at), again) {
            (Some('*'), _) => {
                again = Some((at.saturating_add(1), read));
                at = at.saturating_add(1);
            }
            (Some(wanted), _) if *wanted == '?' || wanted == letter => {
                at = at.saturating_add(1);
                read = read.saturating_add(1);
            }
            (_, Some((behind, taken))) => {
                again = Some((behind, taken.saturating_add(1)));
                at = behind;
                read = taken.saturating_add(1);
            }
            _ => return false,
        }
    }
    pattern
        .get(at..)
        .unwrap_or_default()
        .iter()
        .all(|letter| *letter == '*')
}

/// Whether a date or time lies in `from-to`, `from-`, `-to`, or within a single value that may be less precise.
/// `digits` is the length of the full form; a part that is left out is open.
fn in_range(wanted: &str, value: &str, digits: usize) -> bool {
    let plain = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let padded = |text: &str, fill: char| {
        let mut text = plain(text);
        while text.len() < digits {
            text.push(fill);
        }
        text
    };
    let well_formed = wanted
        .chars()
        .all(|letter| letter.is_ascii_digit() || matches!(letter, '-' | '.' | ':'));
    if !well_formed || plain(value).is_empty() {
        return false;
    }
    let (from, to) = wanted.split_once('-').unwrap_or((wanted, wanted));
    if plain(from).is_empty() && plain(to).is_empty() {
        return false;
    }
    let value = padded(value, '0');
    (plain(from).is_empty() || padded(from, '0') <= value) && (plain(to).is_empty() || value <= padded(to, '9'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::{matches, uids, wildcard};

    fn fits(path: &str, wanted: &str) -> bool {
        let object: Value = json!({
            "00080020": { "vr": "DA", "Value": ["20240315"] },
            "00080030": { "vr": "TM", "Value": ["1432"] },
            "00080050": { "vr": "SH", "Value": ["A-100"] },
            "00080061": { "vr": "CS", "Value": ["CT", "SR"] },
            "00081030": { "vr": "LO" },
            "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Lopez^Maria^^" }] },
            "0020000D": { "vr": "UI", "Value": ["1.2.3"] },
            "00200011": { "vr": "IS", "Value": [4] },
            "00400275": { "vr": "SQ", "Value": [{ "00400009": { "vr": "SH", "Value": ["S1"] } }] },
        });
        matches(object.as_object().unwrap(), path, wanted)
    }

    #[test]
    fn wildcards_stand_for_any_letters_or_one() {
        let fitting = [
            ("", ""),
            ("*", ""),
            ("a*c", "abbc"),
            ("a*b*c", "axbxbc"),
            ("?b", "ab"),
            ("*ab", "aab"),
        ];
        for (pattern, text) in fitting {
            assert!(wildcard(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("?", ""),
            ("a*c", "abcd"),
            ("ab", "abc"),
            ("a?", "a"),
            ("*ab", "aba"),
        ] {
            assert!(!wildcard(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn names_match_without_case_and_others_literally() {
        assert!(fits("00100010", "lopez^*"));
        assert!(fits("00100010", "LOPEZ^MARIA"));
        assert!(!fits("00100010", "Lopez"));
        assert!(fits("00080050", "A-?00"));
        assert!(!fits("00080050", "a-100"));
        assert!(fits("00080061", "SR") && !fits("00080061", "MR"));
    }

    #[test]
    fn dates_and_times_match_in_ranges() {
        for wanted in [
            "20240315",
            "20240301-20240331",
            "-20240315",
            "20240315-",
            "20240314-20240315",
        ] {
            assert!(fits("00080020", wanted), "{wanted}");
        }
        for wanted in [
            "20240316",
            "20240316-",
            "-20240314",
            "20230101-20231231",
            "-",
            "2024*",
            "x",
        ] {
            assert!(!fits("00080020", wanted), "{wanted}");
        }
        assert!(fits("00080030", "14-15") && fits("00080030", "143200") && fits("00080030", "1432"));
        assert!(!fits("00080030", "1433-") && !fits("00080030", "-1431"));
    }

    #[test]
    fn uids_match_as_a_list_and_never_in_part() {
        assert!(fits("0020000D", "1.2.3") && fits("0020000D", "9.9\\1.2.3") && fits("0020000D", "1.2.3,4.5"));
        assert!(!fits("0020000D", "1.2") && !fits("0020000D", "1.2.*"));
        assert_eq!(uids("1.2\\3.4, 5").collect::<Vec<_>>(), ["1.2", "3.4", "5"]);
    }

    #[test]
    fn what_is_not_there_matches_nothing_but_everything() {
        assert!(!fits("00081030", "x") && !fits("00089999", "?") && !fits("00081030", ""));
        assert!(fits("00081030", "*") && fits("00089999", "**"));
        assert!(fits("00200011", "4") && !fits("00200011", "5"));
        assert!(fits("00400275.00400009", "S*") && !fits("00400275.00400009", "T"));
        assert!(!fits(&vec!["00400275"; 20].join("."), "S1"));
    }
}
