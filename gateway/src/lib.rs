//! hie-gateway
