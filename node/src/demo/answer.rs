//! The answer of `hie find --json`, read back and shown with per-organisation times.

use serde_json::Value;

use crate::cli::output::Output;
use crate::fault::{Exit, Fault, Outcome};

/// An answer: one line per organisation, and the closing line.
#[derive(Debug)]
pub struct Answer {
    organisations: Vec<Value>,
    closing: Value,
}

impl Answer {
    /// Reads the lines of `hie find --json`.
    pub fn read(lines: &[Value]) -> Self {
        let organisations = lines
            .iter()
            .filter(|line| line.get("organisation").is_some())
            .cloned()
            .collect();
        let closing = lines
            .iter()
            .rev()
            .find(|line| line.get("complete").is_some())
            .cloned()
            .unwrap_or(Value::Null);
        Self { organisations, closing }
    }

    /// The lines, one an organisation.
    pub fn organisations(&self) -> &[Value] {
        &self.organisations
    }

    /// The closing line.
    pub const fn closing(&self) -> &Value {
        &self.closing
    }

    /// Whether nobody was silent.
    pub fn is_complete(&self) -> bool {
        self.closing.get("complete").and_then(Value::as_bool) == Some(true)
    }

    fn documents(line: &Value) -> &[Value] {
        line.get("documents")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// Organisations that answered with documents.
    pub fn answered(&self) -> usize {
        self.organisations
            .iter()
            .filter(|line| !Self::documents(line).is_empty())
            .count()
    }

    /// Reference and holder of the first study from another organisation.
    pub fn study(&self) -> Option<(String, String)> {
        self.organisations
            .iter()
            .filter(|line| line.get("here") != Some(&Value::Bool(true)))
            .find_map(|line| {
                let study = Self::documents(line)
                    .iter()
                    .find(|document| document.get("class").and_then(Value::as_str) == Some("imaging"))?;
                let holder = line.get("name").and_then(Value::as_str)?;
                Some((study.get("reference")?.as_str()?.to_owned(), holder.to_owned()))
            })
    }

    /// Shows the answer as `hie find` would.
    pub fn print(&self, output: &Output) {
        for line in &self.organisations {
            let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
            let elapsed = line.get("elapsed_ms").and_then(Value::as_u64);
            let time = elapsed.map_or_else(String::new, |elapsed| format!("{elapsed} ms"));
            output.data(
                format!(
                    "  {:<24} {:<34} {:>8}   {} document(s)",
                    text("name"),
                    text("state"),
                    time,
                    Self::documents(line).len()
                ),
                line,
            );
            for (key, shown) in [
                ("allergies", "allergies"),
                ("medications", "medications"),
                ("problems", "problems"),
            ] {
                let rows = line.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let words: Vec<&str> = rows.iter().filter_map(|row| row.get("display")?.as_str()).collect();
                if !words.is_empty() && !output.is_json() {
                    output.data(format!("      {shown:<12} {}", words.join("; ")), &Value::Null);
                }
            }
            for document in Self::documents(line) {
                let word = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
                if !output.is_json() {
                    output.data(
                        format!("      {:<9} {:<44} {}", word("class"), word("title"), word("created")),
                        &Value::Null,
                    );
                }
            }
        }
        let words = self
            .closing
            .get("words")
            .and_then(Value::as_str)
            .unwrap_or("The answer did not end.");
        output.data(words, &self.closing);
    }

    /// Demands documents from at least `count` other organisations and a study among them.
    pub fn demand_from_others(&self, count: usize) -> Outcome<()> {
        let others = self
            .organisations
            .iter()
            .filter(|line| line.get("here") != Some(&Value::Bool(true)));
        let answered = others.filter(|line| !Self::documents(line).is_empty()).count();
        if answered >= count && self.study().is_some() {
            return Ok(());
        }
        Err(Fault::new(
            Exit::Failed,
            "The question was not answered as it should be.",
            format!(
                "{answered} other organisations gave documents, {count} should; study: {}",
                self.study().is_some()
            ),
            "See the logs in the demonstration's folder.",
        ))
    }

    /// Demands that exactly that organisation is named as silent.
    pub fn demand_silent(&self, name: &str) -> Outcome<()> {
        let silent = self
            .closing
            .get("silent")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let names: Vec<&str> = silent
            .iter()
            .filter_map(|line| line.get("name").and_then(Value::as_str))
            .collect();
        if names == [name] {
            return Ok(());
        }
        let why = format!("{name} is stopped, but the silent are {names:?}");
        Err(Fault::new(
            Exit::Failed,
            "The gap was not named.",
            why,
            "See the logs in the demonstration's folder.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Answer;

    #[test]
    fn gaps_and_documents_are_demanded() {
        let lines = [
            json!({ "organisation": "a", "name": "A", "here": true, "documents": [{ "class": "note" }] }),
            json!({ "organisation": "b", "name": "B", "here": false, "documents": [{ "class": "imaging", "reference": "r" }] }),
            json!({ "complete": false, "silent": [{ "name": "C" }], "words": "C did not answer." }),
        ];
        let answer = Answer::read(&lines);
        assert!(!answer.is_complete());
        assert_eq!(answer.study(), Some(("r".to_owned(), "B".to_owned())));
        assert!(answer.demand_from_others(1).is_ok() && answer.demand_from_others(2).is_err());
        assert!(answer.demand_silent("C").is_ok() && answer.demand_silent("B").is_err());
    }
}
