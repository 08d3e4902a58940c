//! hie-gateway-dialect
