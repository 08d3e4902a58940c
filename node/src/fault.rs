//! Errors of the command line: what happened, why, what to do; each with its exit code (SPEC H-CLI).

use std::fmt;

/// Exit codes; fields are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Bad configuration.
    Config = 3,
    /// Could not reach.
    Unreachable = 4,
    /// Not trusted or refused.
    Refused = 5,
    /// Integrity broken: log, backup or store.
    Integrity = 6,
    /// Partly done.
    Partial = 7,
    /// Busy or locked.
    Busy = 8,
    /// Stopped by the user.
    Stopped = 130,
}

/// A fault in three parts.
#[derive(Debug)]
pub struct Fault {
    /// Exit code.
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// Why, as far as known.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// Result of a command.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A fault with its three parts.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            why: why.to_string(),
            fix: fix.into(),
        }
    }

    /// For `map_err`: a failure of that kind with its cause chain as the reason.
    pub fn because<E: std::error::Error>(exit: Exit, what: &str, fix: &str) -> impl FnOnce(E) -> Self + use<E> {
        let (what, fix) = (what.to_owned(), fix.to_owned());
        move |error| Self {
            exit,
            what,
            why: chain(&error),
            fix,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.what)?;
        writeln!(out, "  Why: {}", self.why)?;
        write!(out, "  Fix: {}", self.fix)
    }
}

impl std::error::Error for Fault {}

/// The whole chain of causes in one line; the only place that prints one.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Exit, Fault};

    #[test]
    fn a_fault_has_three_parts() {
        let fault = Fault::new(
            Exit::Busy,
            "The store is in use.",
            "pid 7 holds it",
            "Stop that process.",
        );
        assert_eq!(
            fault.to_string(),
            "The store is in use.\n  Why: pid 7 holds it\n  Fix: Stop that process."
        );
    }
}
