//! What a command prints: words for people on stderr, data on stdout, `--json` as NDJSON.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::fault::Fault;

/// Where a command's results go.
pub struct Output {
    json: bool,
}

impl Output {
    /// Data as JSON, or as text.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether data is JSON.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// One result: the text for people, the value for programs.
    pub fn data(&self, text: impl AsRef<str>, value: &Value) {
        let mut out = std::io::stdout().lock();
        // A closed pipe is the reader's choice, not a failure of ours.
        let _closed = if self.json {
            writeln!(out, "{value}")
        } else {
            writeln!(out, "{}", text.as_ref())
        };
        let _closed = out.flush();
    }

    /// Words to a person, never data.
    pub fn say(&self, words: impl AsRef<str>) {
        let _closed = writeln!(std::io::stderr().lock(), "{}", words.as_ref());
    }

    /// A fault, in three parts or as one JSON object on stderr.
    pub fn fault(&self, fault: &Fault) {
        if self.json {
            let value = json!({ "error": fault.what, "why": fault.why, "fix": fault.fix, "exit": fault.exit as u8 });
            let _closed = writeln!(std::io::stderr().lock(), "{value}");
        } else {
            self.say(fault.to_string());
        }
    }

    /// A progress bar on a terminal; elsewhere silent.
    pub fn progress(&self, name: &str, total: u64) -> ProgressBar {
        if !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template("{prefix}  [{bar:24}]  {pos} / {len}  {per_sec}  {eta} left  {msg}");
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("##-"),
        );
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
