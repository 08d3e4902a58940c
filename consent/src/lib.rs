//! hie-consent
