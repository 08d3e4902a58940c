//! Stored patient choices as directives.
