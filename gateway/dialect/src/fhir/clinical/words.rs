//! How doses, values, ranges and notes of a resource read as words. Numbers and units stay as the source writes them.

use serde_json::Value;

use crate::fhir::resource::{self, Concept, Period};

pub fn contained<'v>(value: &'v Value, link: &Value) -> Option<&'v Value> {
    let local = resource::text(link, "reference")?.strip_prefix('#')?;
    resource::list(value, "contained")
        .iter()
        .find(|one| resource::text(one, "id") == Some(local))
}

pub fn first_code(value: &Value, key: &str) -> Option<String> {
    resource::codings(value, key)
        .into_iter()
        .next()
        .map(|coding| coding.code)
}

pub fn first_words(value: &Value, key: &str) -> Option<String> {
    resource::list(value, key)
        .iter()
        .find_map(|one| Concept::read(one).words().map(str::to_owned))
}

pub fn notes(value: &Value) -> Vec<String> {
    resource::list(value, "note")
        .iter()
        .take(resource::ITEMS_MAX)
        .filter_map(|note| resource::text(note, "text"))
        .map(str::to_owned)
        .collect()
}

pub fn taken(value: &Value) -> Period {
    let period = resource::period(value, "effectivePeriod");
    let start = period
        .start
        .or_else(|| resource::text(value, "effectiveDateTime").map(str::to_owned));
    Period { start, end: period.end }
}

pub fn dose(dosage: &[Value]) -> Option<String> {
    let one = |dosage: &Value| {
        if let Some(text) = resource::text(dosage, "text").or_else(|| resource::text(dosage, "patientInstruction")) {
            return Some(text.to_owned());
        }
        let amount = resource::list(dosage, "doseAndRate")
            .iter()
            .find_map(|rate| quantity(resource::at(rate, "doseQuantity")));
        let timing = resource::at(dosage, "timing");
        let words = resource::concept(timing, "code")
            .words()
            .map(str::to_owned)
            .or_else(|| repeat(resource::at(timing, "repeat")));
        let parts: Vec<String> = [amount, words].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let lines: Vec<String> = dosage.iter().take(resource::ITEMS_MAX).filter_map(one).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

pub fn repeat(repeat: &Value) -> Option<String> {
    let number = |key: &str| repeat.get(key).map(Value::to_string);
    let unit = match resource::text(repeat, "periodUnit")? {
        "s" => "seconds",
        "min" => "minutes",
        "h" => "hours",
        "d" => "days",
        "wk" => "weeks",
        "mo" => "months",
        "a" => "years",
        _ => return None,
    };
    Some(format!(
        "{} times every {} {unit}",
        number("frequency")?,
        number("period")?
    ))
}

pub fn quantity(value: &Value) -> Option<String> {
    let number = value.get("value").filter(|number| number.is_number())?;
    let unit = resource::text(value, "unit")
        .or_else(|| resource::text(value, "code"))
        .unwrap_or_default();
    let sign = resource::text(value, "comparator").unwrap_or_default();
    Some(format!("{sign}{number} {unit}").trim().to_owned())
}

pub fn value_words(value: &Value) -> Option<String> {
    let flag = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_bool)
            .map(|flag| if flag { "yes" } else { "no" }.to_owned())
    };
    quantity(resource::at(value, "valueQuantity"))
        .or_else(|| {
            resource::concept(value, "valueCodeableConcept")
                .words()
                .map(str::to_owned)
        })
        .or_else(|| resource::text(value, "valueString").map(str::to_owned))
        .or_else(|| {
            value
                .get("valueInteger")
                .filter(|number| number.is_number())
                .map(Value::to_string)
        })
        .or_else(|| resource::text(value, "valueDateTime").map(str::to_owned))
        .or_else(|| flag("valueBoolean"))
        .or_else(|| {
            let range = resource::at(value, "valueRange");
            Some(format!(
                "{} to {}",
                quantity(resource::at(range, "low"))?,
                quantity(resource::at(range, "high"))?
            ))
        })
}

pub fn range_words(range: &Value) -> Option<String> {
    if let Some(text) = resource::text(range, "text") {
        return Some(text.to_owned());
    }
    match (
        quantity(resource::at(range, "low")),
        quantity(resource::at(range, "high")),
    ) {
        (Some(low), Some(high)) => Some(format!("{low} to {high}")),
        (Some(low), None) => Some(format!("from {low}")),
        (None, Some(high)) => Some(format!("up to {high}")),
        (None, None) => None,
    }
}
