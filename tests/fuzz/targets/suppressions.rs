//! Suppression files: rules, or a failure that names a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memcheck_report::suppress::parse::parse;

fuzz_target!(|text: &str| {
    if let Err(failure) = parse("any.supp", text) {
        assert!(failure.lines().iter().all(|line| !line.is_empty()));
    }
});
