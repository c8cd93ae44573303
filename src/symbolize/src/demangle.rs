//! Readable names: C++ (Itanium), Rust (both schemes), and safe to print.
//!
//! C++ functions keep their parameters, Rust names lose their hash. Anything else stays as it is. Symbol names are the
//! program's data: they may hold terminal escapes, or expand without bound when demangled; neither may reach the user.

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::{cplusplus, wrappers};

/// Names longer than this are not demangled, and demangled names stop here.
const MAX_NAME_BYTES: usize = 64 << 10;

/// The readable form of a mangled name, escaped for printing; the escaped name itself if it is not mangled.
pub(crate) fn demangle(raw: &str) -> String {
    if let Some(place) = wrappers::wrapped(raw) {
        return demangle(&place.function);
    }
    let readable = (raw.len() <= MAX_NAME_BYTES).then(|| rust(raw).or_else(|| cplusplus::demangle(raw))).flatten();
    match readable {
        Some(name) => escape(&name).into_owned(),
        None => escape(raw).into_owned(),
    }
}

/// Make a name or path from the program safe to print: control characters (C0, DEL, C1) and the characters that
/// reorder text become `\u{..}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Bytes of a name as text, invalid UTF-8 replaced, nothing escaped yet.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    let cut = bytes.get(..MAX_NAME_BYTES).unwrap_or(bytes);
    String::from_utf8_lossy(cut)
}

fn rust(raw: &str) -> Option<String> {
    if !raw.starts_with("_R") && !is_legacy_rust(raw) {
        return None;
    }
    let name = rustc_demangle::try_demangle(raw).ok()?;
    Bounded::render(|out| write!(out, "{name:#}"))
}

/// Legacy Rust names are C++ names whose last part is `h` and 16 hexadecimal digits; all others are taken for C++.
fn is_legacy_rust(raw: &str) -> bool {
    const HASH_DIGITS: usize = 16;
    let Some(at) = raw.rfind("17h").filter(|_| raw.starts_with("_ZN")) else {
        return false;
    };
    let hash = &raw.as_bytes()[at + 3..];
    let (Some(digits), Some(b'E')) = (hash.get(..HASH_DIGITS), hash.get(HASH_DIGITS)) else {
        return false;
    };
    // What follows is a suffix of the compiler's (`.llvm.123`).
    matches!(hash.get(HASH_DIGITS + 1), None | Some(b'.')) && digits.iter().all(u8::is_ascii_hexdigit)
}

/// A string that refuses to grow beyond the limit: substitutions let a short name double with every byte.
pub(crate) struct Bounded(String);

impl Bounded {
    pub fn render(print: impl FnOnce(&mut Bounded) -> fmt::Result) -> Option<String> {
        let mut out = Bounded(String::new());
        print(&mut out).ok()?;
        (!out.0.is_empty()).then_some(out.0)
    }
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.0.len() + piece.len() > MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_readable() {
        for (raw, readable) in [
            ("main", "main"),
            ("_ZN2ns1S1fEPi", "ns::S::f(int*)"),
            ("_Znwm", "operator new(unsigned long)"),
            ("_ZdlPvmSt11align_val_t", "operator delete(void*, unsigned long, std::align_val_t)"),
            ("_ZN2ns1S1fEPi.part.0", "ns::S::f(int*) [clone .part.0]"),
            ("_ZNSs4swapERSs@@GLIBCXX_3.4", "std::string::swap(std::string&)"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            (
                "_ZN4core3ptr48drop_in_place$LT$alloc..vec..Vec$LT$bool$GT$$GT$17h19186832f7d658e6E",
                "core::ptr::drop_in_place<alloc::vec::Vec<bool>>",
            ),
            ("_ZN4test17h0123456789abcdefE.llvm.77", "test"),
            ("_ZN3a17h0123456789abcdef3fooEv", "_ZN3a17h0123456789abcdef3fooEv"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Znonsense", "_Znonsense"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangle(raw), readable);
        }
    }

    #[test]
    fn hostile_names_are_tame() {
        assert_eq!(demangle("a\x1b[31m\u{9b}b\n"), "a\\u{1b}[31m\\u{9b}b\\u{a}");
        assert_eq!(demangle("\u{202e}x"), "\\u{202e}x");
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        // Each St6vectorI..E level mentions the previous one twice.
        let mut bomb = String::from("_Z1f");
        bomb.push_str("St4pairIii");
        for level in ["S_", "S0_", "S1_", "S2_", "S3_", "S4_", "S5_", "S6_", "S7_", "S8_", "S9_", "SA_", "SB_"] {
            bomb.push_str(&format!("ES_I{level}{level}"));
        }
        bomb.push('E');
        assert!(demangle(&bomb).len() <= MAX_NAME_BYTES);
        assert!(demangle(&format!("_Z{}i", "P".repeat(50_000))).len() <= MAX_NAME_BYTES);
    }
}
