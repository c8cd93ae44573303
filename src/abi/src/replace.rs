//! The functions of the program that the runtime replaces, by symbol name.
//!
//! A row is a symbol and the function that stands in for it. Allocation functions are replaced wherever they are defined
//! (libc, libstdc++, jemalloc, a static executable); string functions in libc, ld.so and static executables.

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A replacement. The number is also its pseudo entry point: `layout::MAGIC_BASE + 16 * number`.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the names are the C symbols")]
        pub enum Func { None = 0, $($name),* }
        /// All of them, in order of their number (index 0 is `None`).
        pub const ALL: &[Func] = &[Func::None, $(Func::$name),*];
        const NAMES: &[&str] = &["", $(stringify!($name)),*];
    };
}

functions! {
    // allocation, C
    malloc, calloc, realloc, reallocarray, free, cfree, memalign, posix_memalign, aligned_alloc, valloc, pvalloc,
    free_sized, free_aligned_sized,
    malloc_usable_size, mallinfo, mallinfo2, mallopt, malloc_trim, malloc_stats, malloc_info,
    // allocation, C++ (the names are the mangled symbols)
    _Znwm, _ZnwmRKSt9nothrow_t, _ZnwmSt11align_val_t, _ZnwmSt11align_val_tRKSt9nothrow_t,
    _Znam, _ZnamRKSt9nothrow_t, _ZnamSt11align_val_t, _ZnamSt11align_val_tRKSt9nothrow_t,
    _ZdlPv, _ZdlPvm, _ZdlPvRKSt9nothrow_t, _ZdlPvSt11align_val_t, _ZdlPvmSt11align_val_t, _ZdlPvSt11align_val_tRKSt9nothrow_t,
    _ZdaPv, _ZdaPvm, _ZdaPvRKSt9nothrow_t, _ZdaPvSt11align_val_t, _ZdaPvmSt11align_val_t, _ZdaPvSt11align_val_tRKSt9nothrow_t,
    // strings and memory
    strlen, strnlen, strchr, strrchr, strchrnul, strcmp, strncmp, strcasecmp, strncasecmp, strcasecmp_l, strncasecmp_l,
    strcpy, strncpy, strcat, strncat, strlcpy, strlcat, stpcpy, stpncpy, strstr, strcasestr, strpbrk, strspn, strcspn,
    memchr, memrchr, rawmemchr, memcmp, bcmp, memcpy, memmove, mempcpy, memccpy, memset, bcopy, bzero, memmem,
    wcslen, wcsnlen, wcscmp, wcsncmp, wcscpy, wcsncpy, wcpcpy, wcpncpy, wcschr, wcsrchr, wcscat, wmemchr, wmemcmp, wmemset,
    wmemcpy, wmemmove,
    __memcpy_chk, __memmove_chk, __mempcpy_chk, __memset_chk, __strcpy_chk, __stpcpy_chk, __strcat_chk, __strncpy_chk,
    // watched
    makecontext,
}

impl Func {
    /// The symbol this stands for.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    pub const fn from_number(n: u32) -> Option<Func> {
        if (n as usize) < ALL.len() { Some(ALL[n as usize]) } else { None }
    }

    /// An allocation function (replaced in every object), as opposed to a string function (libc and ld.so only).
    pub const fn is_allocator(self) -> bool {
        (self as u32) >= Func::malloc as u32 && (self as u32) <= Func::_ZdaPvSt11align_val_tRKSt9nothrow_t as u32
    }

    /// Its call is looked at; then the program's own function runs.
    pub const fn is_watched(self) -> bool {
        matches!(self, Func::makecontext)
    }

    /// A string or memory function: the library's own never runs.
    pub const fn is_string(self) -> bool {
        !self.is_allocator() && !self.is_watched() && self as u32 != Func::None as u32
    }

    /// Does it give or take a block?
    pub const fn is_traced(self) -> bool {
        self.is_allocator() && !(self as u32 >= Func::malloc_usable_size as u32 && self as u32 <= Func::malloc_info as u32)
    }

    /// What a call of it is called in stacks, innermost first: names that Valgrind shows, whose stand-ins serve several functions or call
    /// each other. Rules that hide findings are written with them.
    pub const fn shown(self) -> &'static [&'static str] {
        match self {
            Func::posix_memalign => &["memalign", "posix_memalign"],
            Func::valloc => &["memalign"],
            Func::memcmp => &["bcmp"],
            Func::memcpy => &["memmove"],
            Func::strchr => &["index"],
            Func::strrchr => &["rindex"],
            Func::bzero => &["memset"],
            other => NAMES.split_at(other as usize).1.split_at(1).0,
        }
    }

    /// Pseudo entry point.
    pub const fn magic(self) -> u64 {
        crate::layout::MAGIC_BASE + 16 * self as u64
    }
}

/// Where in a replaced function an error is, bytes from its entry: errors of one call are told apart by their places.
pub mod place {
    pub const FIRST_OPERAND: u64 = 0;
    /// The second operand of a comparison.
    pub const SECOND_OPERAND: u64 = 1;
    pub const WRITE: u64 = 2;
    pub const OVERLAP: u64 = 3;
    pub const END: u64 = 4;
}

/// Other symbols for the same functions.
pub const ALIASES: &[(&str, Func)] = &[
    ("index", Func::strchr),
    ("rindex", Func::strrchr),
    ("__strchrnul", Func::strchrnul),
    ("__rawmemchr", Func::rawmemchr),
    ("__mempcpy", Func::mempcpy),
    ("__stpcpy", Func::stpcpy),
    ("__stpncpy", Func::stpncpy),
    ("__strcasecmp", Func::strcasecmp),
    ("__strcasecmp_l", Func::strcasecmp_l),
    ("__strncasecmp_l", Func::strncasecmp_l),
    ("__memcmpeq", Func::bcmp),
    ("__memchr", Func::memchr),
    ("__memrchr", Func::memrchr),
    ("__strnlen", Func::strnlen),
    ("__strcasestr", Func::strcasestr),
    ("__wcslen", Func::wcslen),
    ("__wcsnlen", Func::wcsnlen),
    ("__wmemchr", Func::wmemchr),
    ("__wmemset", Func::wmemset),
    ("__bzero", Func::bzero),
    ("__builtin_new", Func::_Znwm),
    ("__builtin_vec_new", Func::_Znam),
    ("__builtin_delete", Func::_ZdlPv),
    ("__builtin_vec_delete", Func::_ZdaPv),
];

/// The replacement for a symbol, `None` if it is not replaced. A linear search: callers build a map.
pub fn by_name(symbol: &str) -> Option<Func> {
    ALL[1..].iter().copied().find(|f| f.name() == symbol).or_else(|| ALIASES.iter().find(|a| a.0 == symbol).map(|a| a.1))
}

#[cfg(test)]
mod tests {
    use super::{ALIASES, ALL, Func, by_name};

    #[test]
    fn names_and_aliases_are_distinct_and_found() {
        for (i, &func) in ALL.iter().enumerate().skip(1) {
            assert_eq!((func as usize, by_name(func.name()), Func::from_number(i as u32)), (i, Some(func), Some(func)));
        }
        for (i, &(alias, func)) in ALIASES.iter().enumerate() {
            assert_eq!(by_name(alias), Some(func), "{alias}");
            assert!(ALL.iter().all(|f| f.name() != alias) && ALIASES[..i].iter().all(|a| a.0 != alias), "{alias} twice");
        }
        assert_eq!((by_name(""), by_name("strdup")), (None, None));
    }
}
