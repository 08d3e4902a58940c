//! What every handler is given: the ports, the sign-in sessions and this node's settings.

use std::sync::Arc;

use hie_protocol::id::Millis;

use crate::clinical::Clock;
use crate::console::opened::OpenedRecords;
use crate::ports::Ports;
use crate::session::{Attempts, Sessions};

/// Settings of the gateway; all of them come from the configuration or the region's policy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This organisation's name, shown on every page.
    pub organisation: String,
    /// True behind TLS: cookies are `__Host-`, HSTS is sent.
    pub secure: bool,
    /// Life of a declaration of emergency access, in minutes (region policy).
    pub emergency_minutes: u64,
    /// Offset of local time from UTC, in minutes, for times shown to people.
    pub utc_offset_minutes: i32,
    /// Base URL that FHIR answers name, without a slash at the end, for example `https://hie.example.org/fhir`.
    pub fhir_base: String,
    /// True where users without declared emergency access may be told that records are withheld (region policy).
    pub tell_withheld: bool,
}

/// Shared by all handlers.
#[derive(Clone)]
pub struct Gate {
    /// The node's ports.
    pub ports: Ports,
    /// Who is signed in.
    pub sessions: Arc<Sessions>,
    /// Failed sign-ins.
    pub attempts: Arc<Attempts>,
    /// Records that are open on somebody's screen.
    pub opened: Arc<OpenedRecords>,
    /// Settings.
    pub settings: Arc<Settings>,
}

impl Gate {
    /// A gate over these ports.
    #[must_use]
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self {
            ports,
            sessions: Arc::new(Sessions::default()),
            attempts: Arc::new(Attempts::default()),
            opened: Arc::new(OpenedRecords::default()),
            settings: Arc::new(settings),
        }
    }

    /// The time and the offset that times are shown in.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock {
            now: self.now(),
            offset_minutes: self.settings.utc_offset_minutes,
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.ports.node.now()
    }
}
