//! Orders: what the command line asks of a running node over its socket, and what comes back, line by line.
//!
//! The socket lies in the node's private folder: whoever can open it is the node's own operator. Each order
//! is one JSON line; the answer is JSON lines until `done` or `fault`.

use std::path::PathBuf;

use hie_protocol::message::Demographics;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::{Exit, Fault};

/// Longest order line, in bytes.
pub const ORDER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// In whose name and why.
#[derive(Clone, Serialize, Deserialize)]
pub struct Asker {
    /// Account.
    pub account: String,
    /// Purpose of use code.
    pub purpose: String,
    /// Emergency access: reason and words.
    pub emergency: Option<(String, String)>,
}

/// An order.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Health.
    Status,
    /// Ask the region.
    Find {
        /// In whose name.
        asker: Asker,
        /// Who is meant.
        demographics: Demographics,
    },
    /// Fetch a document or study.
    Get {
        /// In whose name.
        asker: Asker,
        /// Reference.
        reference: String,
        /// Where to write.
        out: PathBuf,
    },
    /// Import FHIR.
    ImportFhir {
        /// File or folder.
        path: PathBuf,
        /// Check only.
        dry_run: bool,
    },
    /// Import DICOM.
    ImportDicom {
        /// File or folder.
        path: PathBuf,
        /// Check only.
        dry_run: bool,
    },
    /// Import one document.
    ImportDocument {
        /// File.
        path: PathBuf,
        /// `system|value`.
        patient: String,
        /// Title.
        title: String,
        /// MIME type.
        content_type: Option<String>,
        /// Sensitivity codes.
        sensitivity: Vec<String>,
    },
    /// Record consents.
    ConsentAdd {
        /// In whose name.
        asker: Asker,
        /// File.
        path: PathBuf,
    },
    /// List consents.
    ConsentList {
        /// In whose name.
        asker: Asker,
        /// `system|value` or patient id.
        patient: String,
    },
    /// Verify the audit log.
    AuditVerify,
    /// Search the audit log.
    AuditSearch {
        /// In whose name.
        asker: Asker,
        /// Text.
        text: Option<String>,
        /// Emergency access only.
        emergency: bool,
        /// Most entries.
        limit: usize,
    },
    /// Add an account.
    AccountAdd {
        /// Account.
        account: String,
        /// Name.
        name: String,
        /// Department.
        department: Option<String>,
        /// Roles.
        roles: Vec<String>,
        /// Password, or none to make one.
        password: Option<String>,
        /// An API client with a token.
        client: bool,
    },
    /// List accounts.
    AccountList,
}

/// A line of the answer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// How far.
    Progress {
        /// Done so far.
        done: u64,
        /// In all.
        total: u64,
        /// Words.
        words: String,
    },
    /// A result.
    Data {
        /// For people.
        text: String,
        /// For programs.
        value: Value,
    },
    /// Words.
    Say {
        /// Words.
        words: String,
    },
    /// Ended well, or partly.
    Done {
        /// Exit code.
        exit: u8,
    },
    /// Failed.
    Fault {
        /// Exit code.
        exit: u8,
        /// What happened.
        what: String,
        /// Why.
        why: String,
        /// What to do.
        fix: String,
    },
}

/// Exit code of a number.
#[must_use]
pub const fn exit_of(code: u8) -> Exit {
    match code {
        0 => Exit::Done,
        2 => Exit::Usage,
        3 => Exit::Config,
        4 => Exit::Unreachable,
        5 => Exit::Refused,
        6 => Exit::Integrity,
        7 => Exit::Partial,
        8 => Exit::Busy,
        130 => Exit::Stopped,
        _ => Exit::Failed,
    }
}

impl From<&Fault> for Line {
    fn from(fault: &Fault) -> Self {
        Self::Fault {
            exit: fault.exit as u8,
            what: fault.what.clone(),
            why: fault.why.clone(),
            fix: fault.fix.clone(),
        }
    }
}

/// Where an order's lines go.
#[derive(Clone)]
pub struct Lines(tokio::sync::mpsc::Sender<Line>);

impl Lines {
    /// A sink with its source.
    #[must_use]
    pub fn channel() -> (Self, tokio::sync::mpsc::Receiver<Line>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        (Self(sender), receiver)
    }

    /// Sends a result; a reader that has gone is no failure of the order.
    pub async fn data(&self, text: impl Into<String>, value: Value) {
        let _gone = self
            .0
            .send(Line::Data {
                text: text.into(),
                value,
            })
            .await;
    }

    /// Sends words.
    pub async fn say(&self, words: impl Into<String>) {
        let _gone = self.0.send(Line::Say { words: words.into() }).await;
    }

    /// Sends progress.
    pub async fn progress(&self, done: u64, total: u64, words: impl Into<String>) {
        let _gone = self
            .0
            .send(Line::Progress {
                done,
                total,
                words: words.into(),
            })
            .await;
    }

    /// Sends the end.
    pub async fn end(&self, outcome: &Result<Exit, Fault>) {
        let line = match outcome {
            Ok(exit) => Line::Done { exit: *exit as u8 },
            Err(fault) => Line::from(fault),
        };
        let _gone = self.0.send(line).await;
    }
}
