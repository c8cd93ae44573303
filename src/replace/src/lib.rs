//! The string, memory and wide-character functions that stand in for libc's.
//!
//! Why replace them: vector versions read whole vectors beyond the end of the data and decide on masked garbage, and everything
//! translated costs more than it must here. A replacement works on data and shadow together at memory speed, knows the contract of
//! the function (where a missing terminator is found), and names it as frame 0 of its reports.
//!
//! ```text
//! dispatcher --SysV call, on the runtime's stack--> string, memory, search      the C functions
//!                                                     |        |
//!                                                scan, compare copy             kernels over data + V
//!                                                     |        |
//!                                           unit, vector, raw  call             bytes; reports and judgement of dirty bytes
//! ```
//!
//! - [`memory`], [`string`], [`search`]  the functions
//! - [`scan`], [`compare`], [`copy`]       the kernels
//! - [`call`]                              what one call reports
//! - [`unit`], [`vector`], [`raw`]         characters, vectors, loads and stores
//!
//! A fault on program memory inside these functions is the program's: as if its own function had touched that address. The program's
//! state is that of the function's entry; running the function again from there is always right (see [`copy`]).
//!
//! Deliberately absent: the allocator's functions (crate heap), locales (see [`string`]), and the plain C code of libc (strsep, strtok,
//! wcsstr, ...), which translated is exact already.
#![cfg_attr(not(test), no_std)]

pub mod call;
pub mod compare;
pub mod copy;
pub mod memory;
pub mod raw;
pub mod scan;
pub mod search;
pub mod string;
pub mod unit;
pub mod vector;

pub use call::{init, set_origin_hooks};
use memcheck_abi::replace::Func;

macro_rules! entries {
    ($($func:ident = $path:path),* $(,)?) => { &[$((Func::$func, $path as *const ())),*] };
}

/// Every replacement of this crate: C signature, SysV ABI, integer arguments only.
pub const ENTRIES: &[(Func, *const ())] = entries![
    strlen = string::strlen,
    strnlen = string::strnlen,
    strchr = string::strchr,
    strrchr = string::strrchr,
    strchrnul = string::strchrnul,
    strcmp = string::strcmp,
    strncmp = string::strncmp,
    strcasecmp = string::strcasecmp,
    strncasecmp = string::strncasecmp,
    strcasecmp_l = string::strcasecmp,
    strncasecmp_l = string::strncasecmp,
    strcpy = string::strcpy,
    strncpy = string::strncpy,
    strcat = string::strcat,
    strncat = string::strncat,
    strlcpy = string::strlcpy,
    strlcat = string::strlcat,
    stpcpy = string::stpcpy,
    stpncpy = string::stpncpy,
    strstr = search::strstr,
    strcasestr = search::strcasestr,
    strpbrk = search::strpbrk,
    strspn = search::strspn,
    strcspn = search::strcspn,
    memchr = memory::memchr,
    memrchr = memory::memrchr,
    rawmemchr = memory::rawmemchr,
    memcmp = memory::memcmp,
    bcmp = memory::bcmp,
    memcpy = memory::memcpy,
    memmove = memory::memmove,
    mempcpy = memory::mempcpy,
    memccpy = memory::memccpy,
    memset = memory::memset,
    bcopy = memory::bcopy,
    bzero = memory::bzero,
    memmem = search::memmem,
    wcslen = string::wcslen,
    wcsnlen = string::wcsnlen,
    wcscmp = string::wcscmp,
    wcsncmp = string::wcsncmp,
    wcscpy = string::wcscpy,
    wcsncpy = string::wcsncpy,
    wcpcpy = string::wcpcpy,
    wcpncpy = string::wcpncpy,
    wcschr = string::wcschr,
    wcsrchr = string::wcsrchr,
    wcscat = string::wcscat,
    wmemchr = string::wmemchr,
    wmemcmp = string::wmemcmp,
    wmemset = string::wmemset,
    wmemcpy = string::wmemcpy,
    wmemmove = string::wmemmove,
    __memcpy_chk = memory::memcpy_chk,
    __memmove_chk = memory::memmove,
    __mempcpy_chk = memory::mempcpy_chk,
    __memset_chk = memory::memset,
    __strcpy_chk = string::strcpy_chk,
    __stpcpy_chk = string::stpcpy_chk,
    __strcat_chk = string::strcat_chk,
    __strncpy_chk = string::strncpy,
];

/// Address of the replacement of `func`; `None` for functions of other crates.
pub fn entry(func: Func) -> Option<u64> {
    ENTRIES.iter().find(|e| e.0 == func).map(|e| e.1 as u64)
}

/// Must the program's own function run? Asked before a fortified function (`args` = the six integer arguments): true when it is
/// going to find that there is no room, and so end the program with libc's own message.
pub fn needs_original(func: Func, args: &[u64; 6]) -> bool {
    let [dst, src, n, room, ..] = *args;
    match func {
        Func::__memcpy_chk | Func::__memmove_chk | Func::__mempcpy_chk | Func::__memset_chk | Func::__strncpy_chk => n > room,
        Func::__strcpy_chk | Func::__stpcpy_chk => n != u64::MAX && scan::plain_length(src, n) >= n,
        Func::__strcat_chk => {
            let old = if n == u64::MAX { 0 } else { scan::plain_length(dst, n) };
            n != u64::MAX && (old >= n || scan::plain_length(src, n - old) >= n - old)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
