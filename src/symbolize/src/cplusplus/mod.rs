//! C++ names as the GNU demangler (and so Valgrind, gdb and c++filt) writes them.
//!
//! ```text
//!   parse        name -> tree: the grammar of the Itanium C++ ABI
//!   ├ types      the parts of it for types
//!   └ expression and expressions
//!   tree         what lies between
//!   print        tree -> text, blanks and parentheses like GNU's: names
//!   ├ declarators, and arguments of templates
//!   └ operation  of expressions
//!   tables       builtin types, operators, abbreviations
//! ```
//!
//! Written from the ABI's grammar. Users grep reports and write suppressions with these spellings, so the measure is the text of `c++filt -i`:
//! none of the 79,000 names in LLVM, clang, libstdc++ and a program of many templates differs. (The library used before,
//! cpp_demangle, spelled 4% of LLVM's differently, and 19% of those of unoptimised programs with containers: empty packs, mostly.)
//!
//! Deliberately absent: names of other compilers, modules, and what no compiler writes yet. Those stay as they are.

mod expression;
mod operation;
mod parse;
mod print;
mod tables;
mod tree;
mod types;

/// The readable form of a name that starts with `_Z`, parameters included.
pub(crate) fn demangle(raw: &str) -> Option<String> {
    // A version is the linker's, not part of the name.
    let name = raw.split('@').next().unwrap_or(raw);
    let (tree, root) = parse::parse(name)?;
    print::print(&tree, root)
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_are_spelled_the_gnu_way() {
        for (raw, readable) in [
            ("_ZN3FooC1IiEET_i", "Foo::Foo<int>(int, int)"),
            ("_ZN3FooC2IPKcEET_i", "Foo::Foo<char const*>(char const*, int)"),
            ("_ZN3FooC1Ei", "Foo::Foo(int)"),
            ("_ZThn16_N1A1fEv", "non-virtual thunk to A::f()"),
            ("_ZTv0_n24_N1A1fEv", "virtual thunk to A::f()"),
            ("_ZTV1A", "vtable for A"),
            ("_ZTT1A", "VTT for A"),
            ("_ZTI1A", "typeinfo for A"),
            ("_ZTS1A", "typeinfo name for A"),
            ("_ZTC1D0_1B", "construction vtable for B-in-D"),
            ("_ZGVZ1fvE1x", "guard variable for f()::x"),
            ("_Z1fILm12ELl3ELi5ELj6EEvv", "void f<12ul, 3l, 5, 6u>()"),
            ("_ZN1AclEi", "A::operator()(int)"),
            ("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()() const"),
            ("_ZN12_GLOBAL__N_11fEv", "(anonymous namespace)::f()"),
            ("_Z1fv.part.0.constprop.1", "f() [clone .part.0] [clone .constprop.1]"),
            ("_Z6taggedB2zzv", "tagged[abi:zz]()"),
        ] {
            assert_eq!(demangle(raw).as_deref(), Some(readable), "{raw}");
        }
        for raw in ["main", "_ZN3FooC1I", "_Z", "_ZS_", "_ZT_", "_ZNE", &format!("_ZN1AC1I{}", "E".repeat(1000))] {
            assert_eq!(demangle(raw), None, "{raw}");
        }
    }

    #[test]
    fn declarators_are_written_around_names() {
        for (raw, readable) in [
            (
                "_Z3arrRA3_iPA4_iPFPiczEPFvPFvvEEM1SiMSA_KFviREPVKiOineDnCf",
                "arr(int (&) [3], int (*) [4], int* (*)(char, ...), void (*)(void (*)()), int S::*, void (S::*)(int) const &, \
                 int const volatile*, int&&, __int128, long double, decltype(nullptr), float _Complex)",
            ),
            ("_Z2mfIXadL_ZNKR1S1mEiEEEvv", "void mf<&(S::m(int) const &)>()"),
            ("_Z2apIXadL_Z5twiceiEEEiv", "int ap<&(twice(int))>()"),
            ("_Z1fRA2_A3_Ki", "f(int const (&) [2][3])"),
            ("_Z3getIiEPFvvET_", "void (*get<int>(int))()"),
        ] {
            assert_eq!(demangle(raw).as_deref(), Some(readable), "{raw}");
        }
    }

    #[test]
    fn empty_packs_take_their_comma_with_them() {
        for (raw, readable) in [
            ("_Z1fIiJEEvDpOT0_", "void f<int>()"),
            ("_Z1fI1AIiEJEEvT_DpOT0_", "void f<A<int>>(A<int>)"),
            ("_Z3sumIJidEEDaDpT_", "auto sum<int, double>(int, double)"),
            (
                "_ZSt11make_sharedI1SJEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES4_E4typeEEDpOT0_",
                "std::shared_ptr<std::enable_if<!std::is_array<S>::value, S>::type> std::make_shared<S>()",
            ),
        ] {
            assert_eq!(demangle(raw).as_deref(), Some(readable), "{raw}");
        }
    }

    #[test]
    fn abbreviations_are_long_only_for_constructors() {
        for (raw, readable) in [
            ("_ZNSs4swapERSs", "std::string::swap(std::string&)"),
            (
                "_ZNSsC1IPKcEET_S2_RKSaIcE",
                "std::basic_string<char, std::char_traits<char>, std::allocator<char> >::basic_string<char const*>(char const*, \
                 char const*, std::allocator<char> const&)",
            ),
        ] {
            assert_eq!(demangle(raw).as_deref(), Some(readable), "{raw}");
        }
    }
}
