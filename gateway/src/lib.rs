//! hie-gateway

pub mod ports;
