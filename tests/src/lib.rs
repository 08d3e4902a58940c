//! hie-tests
