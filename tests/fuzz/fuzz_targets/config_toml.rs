//! The configuration: what is taken is written to a text that reads the same; what is refused names at least one fault.
//!
//! The file is included as it stands: its package brings the whole node with it, which no sanitizer needs to see.
#![no_main]
#![allow(dead_code)]

#[path = "../../../node/src/config.rs"]
mod config;
#[path = "../../../node/src/fault.rs"]
mod fault;
#[path = "../../../node/src/home.rs"]
mod home;

use libfuzzer_sys::fuzz_target;

use config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, std::iter::empty()) {
        Ok(config) => {
            let written = config.to_toml().expect("a configuration that was read can be written");
            assert_eq!(Config::parse(&written, std::iter::empty()).as_ref(), Ok(&config));
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
});
