//! Command lines, options files and variables: a run, a text to print, or lines that say what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memcheck_report::options::{self, Env, RcFile};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A world in which every variable and every file says the same.
struct Everywhere<'a>(&'a str);

impl Env for Everywhere<'_> {
    fn var(&self, _: &str) -> Option<OsString> {
        Some(self.0.into())
    }
    fn rc_file(&self, _: &Path, _: bool) -> RcFile {
        RcFile::Text(self.0.into())
    }
    fn is_current_dir(&self, _: &Path) -> bool {
        false
    }
}

fuzz_target!(|input: (Vec<&str>, &str, bool)| {
    let (words, elsewhere, valgrind) = input;
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let name = if valgrind { "valgrind" } else { "memcheck" };
    if let Err(error) = options::parse(OsStr::new(name), &words, &Everywhere(elsewhere)) {
        assert!(error.exit_code != 0 && !error.lines.is_empty());
    }
});
