//! Who asks, in the words of the core, and how a failure of the core reads outside.
//!
//! The law: a caller is always of this organisation; no internal text crosses the edge for a failure of the node
//! itself: the story is logged under a reference, and the words carry the reference.

use std::error::Error;
use std::sync::Arc;

use futures::StreamExt as _;
use hie_gateway::ports::{Answer, Body, Caller, PortError};
use hie_node_core::account::AccountError;
use hie_node_core::audit::AuditError;
use hie_node_core::audit::event::Actor;
use hie_node_core::exchange::claim::Asking;
use hie_node_core::exchange::local::LocalError;
use hie_node_core::kv::KvError;
use hie_node_core::patient::index::PatientError;
use hie_node_core::policy::decide::Asker;
use hie_node_core::policy::store::PolicyError;
use hie_node_core::ports::{NoRandomness, Random, random_bytes};
use hie_node_core::record::entry::RecordError;
use hie_node_core::record::release::{ReleaseError, Released};
use hie_protocol::id::Correlation;
use hie_protocol::refusal::Class;
use tracing::{info, warn};

use crate::assemble::Trade;
use crate::fault::chain;

/// The caller as the judge sees it: a user of this organisation.
#[must_use]
pub fn asker(trade: &Trade, caller: &Caller) -> Asker {
    Asker {
        org: trade.me.clone(),
        user: caller.principal.account.clone(),
        user_name: caller.principal.name.clone(),
        role: caller.role,
        purpose: caller.purpose,
        break_glass: caller.break_glass.clone(),
        evidence: false,
        is_patient: false,
    }
}

/// The caller as a claim to other organisations names it.
#[must_use]
pub fn asking(caller: &Caller, correlation: Correlation) -> Asking {
    Asking {
        user: caller.principal.account.clone(),
        user_name: caller.principal.name.clone(),
        role: caller.role,
        purpose: caller.purpose,
        break_glass: caller.break_glass.clone(),
        evidence: None,
        correlation,
    }
}

/// The caller as the audit log names it.
#[must_use]
pub fn actor(trade: &Trade, caller: &Caller) -> Actor {
    Actor {
        org: trade.me.clone(),
        node: None,
        user: caller.principal.account.clone(),
        user_name: caller.principal.name.clone(),
        role: caller.role,
    }
}

/// A fresh name for a question. Errors: no random bytes.
pub fn correlation(random: &dyn Random) -> Answer<Correlation> {
    let bytes = random_bytes(random).map_err(|error| told(random, &error))?;
    Ok(Correlation::new(bytes))
}

/// A failure in words of one's own: safe to show, without personal data.
#[must_use]
pub fn port_error(class: Class, words: &str) -> PortError {
    PortError {
        class,
        what: words.to_owned(),
    }
}

/// An error that says who must act.
pub trait Classed: Error {
    /// Who must act.
    fn class(&self) -> Class;
}

macro_rules! classed {
    ($($error:ty),+) => {
        $(impl Classed for $error {
            fn class(&self) -> Class {
                <$error>::class(self)
            }
        })+
    };
}

classed!(
    AccountError,
    AuditError,
    KvError,
    LocalError,
    PatientError,
    PolicyError,
    RecordError,
    ReleaseError
);

impl Classed for NoRandomness {
    fn class(&self) -> Class {
        Self::class(*self)
    }
}

/// An error of the core as the edge takes it; its story goes to the log under the reference that the words name.
pub fn told<E: Classed>(random: &dyn Random, error: &E) -> PortError {
    told_as(random, error.class(), error)
}

/// The same for an error without a class of its own.
pub fn told_as(random: &dyn Random, class: Class, error: &dyn Error) -> PortError {
    // Without randomness there is no reference; the story is in the log all the same.
    let reference = random_bytes::<4>(random).map(hex::encode).unwrap_or_default();
    let story = chain(error);
    let what = match class {
        Class::Invalid => sentence(&story),
        Class::Unavailable => sentence(&error.to_string()),
        Class::Refused => "There is nothing here that you can see.".to_owned(),
        Class::Misbehaved => format!("An answer could not be used. Your IT team can find it by {reference}."),
        Class::Broken => format!("Something failed here. Your IT team can find it by {reference}."),
    };
    match class {
        Class::Broken | Class::Misbehaved => warn!(reference, ?class, story, "a call of the desk failed"),
        Class::Invalid | Class::Refused | Class::Unavailable => {
            info!(reference, ?class, story, "a call of the desk was refused");
        }
    }
    PortError { class, what }
}

/// Begins with a capital letter and ends with a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

/// What the door released, as the edge streams it.
#[must_use]
pub fn body(random: &Arc<dyn Random>, released: Released) -> Body {
    let random = Arc::clone(random);
    let stream = released
        .stream
        .map(move |piece| piece.map_err(|error| told(&*random, &error)))
        .boxed();
    Body {
        content_type: released.content_type,
        size: released.size,
        hash: released.hash,
        stream,
    }
}

#[cfg(test)]
mod tests {
    use hie_node_core::account::AccountError;
    use hie_node_core::kv::KvError;
    use hie_node_core::ports::SeededRandom;
    use hie_protocol::refusal::Class;

    use super::told;

    #[test]
    fn words_tell_the_caller_what_to_do_and_hide_the_inside() {
        let random = SeededRandom::new(1);
        let slow = told(&random, &AccountError::SlowDown { wait_ms: 1500 });
        assert_eq!(slow.class, Class::Unavailable);
        assert_eq!(slow.what, "Too many failed attempts; try again in 2 seconds.");
        let broken = told(
            &random,
            &KvError::Fatal {
                what: "sector 7 of /dev/sda".to_owned(),
            },
        );
        assert_eq!(broken.class, Class::Broken);
        assert!(!broken.what.contains("sector"), "{}", broken.what);
    }
}
