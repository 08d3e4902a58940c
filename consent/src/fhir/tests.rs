//! Reading real and broken Consents.
