//! Reads arbitrary text as a configuration of a merge; one that is accepted is written, and reads back equal.
#![no_main]

use std::path::Path;

use lathe_merge::config::MergeConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = MergeConfig::parse(text, Path::new("fuzz.yaml")) {
        let again = MergeConfig::parse(&config.to_yaml(), Path::new("again.yaml"));
        assert_eq!(again.as_ref(), Ok(&config));
    }
});
