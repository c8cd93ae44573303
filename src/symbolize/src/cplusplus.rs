//! C++ names as the GNU demangler (and so Valgrind, gdb and c++filt) writes them.
//!
//! cpp_demangle does the work. What differs from the familiar spelling is mended here, each difference found by
//! comparing all names of large libraries:
//!
//! | name | cpp_demangle 0.5 | GNU, and here |
//! |---|---|---|
//! | template constructor `_ZN1AC1IiEET_i` | `A::A<int>(int)`: takes the first parameter for a return type | `A::A<int>(int, int)` |
//! | thunk `_ZThn16_…` | `{virtual override thunk({offset(-16)}, X)}` | `non-virtual thunk to X` |
//! | tables `_ZTV…` | `{vtable(X)}` | `vtable for X` |
//! | literal `Lm0E` | `(unsigned long)0` | `0ul` |
//!
//! Deliberately different: `std::string` and `std::ostream` stay short in constructors too.

use std::borrow::Cow;

use cpp_demangle::{DemangleOptions, Symbol};

use crate::demangle::Bounded;

/// The readable form of a name that starts with `_Z`, parameters included.
pub(crate) fn demangle(raw: &str) -> Option<String> {
    if !raw.starts_with("_Z") {
        return None;
    }
    // A version is the linker's, not part of the name.
    let name = raw.split('@').next().unwrap_or(raw);
    let name = with_return_type(name);
    let symbol = Symbol::new(name.as_ref()).ok()?;
    let readable = Bounded::render(|out| symbol.structured_demangle(out, &DemangleOptions::new()))?;
    Some(shorten_literals(unwrap_special(readable)))
}

/// Constructor templates have no return type, but the library expects one after every template name: give it `void`,
/// which it then does not print.
fn with_return_type(name: &str) -> Cow<'_, str> {
    let bytes = name.as_bytes();
    let is_constructor = |at: usize| matches!(bytes.get(at..at + 3), Some([b'C', b'1'..=b'3', b'I']));
    let Some(constructor) = (0..bytes.len()).find(|&at| is_constructor(at)) else {
        return name.into();
    };
    if !name.starts_with("_ZN") {
        return name.into();
    }
    // The nested name ends at the first `E` up to which the text is a whole name. Names have few.
    const MOST_TRIES: usize = 64;
    let ends = (constructor..bytes.len()).filter(|&at| bytes[at] == b'E').map(|at| at + 1).take(MOST_TRIES);
    let is_name = |end: usize| name.get(..end).is_some_and(|part| Symbol::new(part).is_ok());
    match ends.into_iter().find(|&end| is_name(end)) {
        Some(end) if end < name.len() => format!("{}v{}", &name[..end], &name[end..]).into(),
        _ => name.into(),
    }
}

/// `{kind(…)}` around a whole name into words in front of it.
fn unwrap_special(readable: String) -> String {
    const KINDS: [(&str, &str, &str); 7] = [
        ("{virtual override thunk({offset(", ")}, ", "non-virtual thunk to "),
        ("{virtual override thunk({virtual offset(", ")}, ", "virtual thunk to "),
        ("{vtable(", "", "vtable for "),
        ("{vtt(", "", "VTT for "),
        ("{typeinfo(", "", "typeinfo for "),
        ("{typeinfo name(", "", "typeinfo name for "),
        ("{static initialization guard(", "", "guard variable for "),
    ];
    for (open, separator, words) in KINDS {
        let inner = readable.strip_prefix(open).and_then(|rest| rest.strip_suffix(")}"));
        if let Some(name) = inner.and_then(|inner| Some(&inner[inner.find(separator)? + separator.len()..])) {
            return format!("{words}{name}");
        }
    }
    readable
}

/// `(unsigned long)7` into `7ul`, and likewise for the other integer types that have a suffix.
fn shorten_literals(mut readable: String) -> String {
    const SUFFIXES: [(&str, &str); 6] = [
        ("(int)", ""),
        ("(unsigned int)", "u"),
        ("(long)", "l"),
        ("(unsigned long)", "ul"),
        ("(long long)", "ll"),
        ("(unsigned long long)", "ull"),
    ];
    for (cast, suffix) in SUFFIXES {
        let mut from = 0;
        while let Some(found) = readable[from..].find(cast) {
            let at = from + found;
            let number = at + cast.len();
            let digits = readable[number..].bytes().take_while(|b| b.is_ascii_digit() || *b == b'-').count();
            from = number;
            // `operator()(int)` and function types end in the same characters, but no digit follows those.
            if digits > 0 {
                readable.insert_str(number + digits, suffix);
                readable.replace_range(at..number, "");
                from = at;
            }
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_the_gnu_way() {
        for (raw, readable) in [
            ("_ZN3FooC1IiEET_i", "Foo::Foo<int>(int, int)"),
            ("_ZN3FooC2IPKcEET_i", "Foo::Foo<char const*>(char const*, int)"),
            ("_ZN3FooC1Ei", "Foo::Foo(int)"),
            ("_ZNSsC1IPKcEET_S2_RKSaIcE", "std::string::string<char const*>(char const*, char const*, std::allocator<char> const&)"),
            ("_ZThn16_N1A1fEv", "non-virtual thunk to A::f()"),
            ("_ZTv0_n24_N1A1fEv", "virtual thunk to A::f()"),
            ("_ZTV1A", "vtable for A"),
            ("_ZTT1A", "VTT for A"),
            ("_ZTI1A", "typeinfo for A"),
            ("_ZTS1A", "typeinfo name for A"),
            ("_ZGVZ1fvE1x", "guard variable for f()::x"),
            ("_Z1fILm12ELl3ELi5ELj6EEvv", "void f<12ul, 3l, 5, 6u>()"),
            ("_ZN1AclEi", "A::operator()(int)"),
            ("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()() const"),
        ] {
            assert_eq!(demangle(raw).as_deref(), Some(readable), "{raw}");
        }
        assert_eq!(demangle("main"), None);
        assert_eq!(demangle("_ZN3FooC1I"), None);
        assert_eq!(demangle(&format!("_ZN1AC1I{}", "E".repeat(1000))), None);
    }
}
