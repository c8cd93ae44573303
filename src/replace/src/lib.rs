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
//! - [`call`], [`fault`]                   what one call reports; which access of a function faulted
//! - [`steps`]                            which accesses a copy stands for
//! - `unit`, [`vector`], [`raw`]           characters, vectors, loads and stores
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
pub mod fault;
pub mod memory;
pub mod raw;
pub mod scan;
pub mod search;
pub mod steps;
pub mod string;
pub mod unit;
pub mod vector;

pub use call::{init, set_origin_hooks};
use memcheck_abi::replace::Func;

macro_rules! entries {
    ($($func:ident($arguments:ident) = $path:path),* $(,)?) => {
        &[$(Entry { func: Func::$func, arguments: stringify!($arguments), code: $path as *const () }),*]
    };
}

/// A replacement: C signature, SysV ABI, integer arguments only.
#[derive(Debug)]
pub struct Entry {
    pub func: Func,
    /// One letter per argument: pointers to what is read `r`, written `w`, appended to `a`; count `n`, character to find `c`,
    /// value to store `v`, object size `o`, locale `l`.
    pub arguments: &'static str,
    pub code: *const (),
}

/// Every replacement of this crate.
pub const ENTRIES: &[Entry] = entries![
    strlen(r) = string::strlen,
    strnlen(rn) = string::strnlen,
    strchr(rc) = string::strchr,
    strrchr(rc) = string::strrchr,
    strchrnul(rc) = string::strchrnul,
    strcmp(rr) = string::strcmp,
    strncmp(rrn) = string::strncmp,
    strcasecmp(rr) = string::strcasecmp,
    strncasecmp(rrn) = string::strncasecmp,
    strcasecmp_l(rrl) = string::strcasecmp,
    strncasecmp_l(rrnl) = string::strncasecmp,
    strcpy(wr) = string::strcpy,
    strncpy(wrn) = string::strncpy,
    strcat(ar) = string::strcat,
    strncat(arn) = string::strncat,
    strlcpy(wrn) = string::strlcpy,
    strlcat(arn) = string::strlcat,
    stpcpy(wr) = string::stpcpy,
    stpncpy(wrn) = string::stpncpy,
    strstr(rr) = search::strstr,
    strcasestr(rr) = search::strcasestr,
    strpbrk(rr) = search::strpbrk,
    strspn(rr) = search::strspn,
    strcspn(rr) = search::strcspn,
    memchr(rcn) = memory::memchr,
    memrchr(rcn) = memory::memrchr,
    rawmemchr(rc) = memory::rawmemchr,
    memcmp(rrn) = memory::memcmp,
    bcmp(rrn) = memory::bcmp,
    memcpy(wrn) = memory::memcpy,
    memmove(wrn) = memory::memmove,
    mempcpy(wrn) = memory::mempcpy,
    memccpy(wrcn) = memory::memccpy,
    memset(wvn) = memory::memset,
    bcopy(rwn) = memory::bcopy,
    bzero(wn) = memory::bzero,
    memmem(rnrn) = search::memmem,
    wcslen(r) = string::wcslen,
    wcsnlen(rn) = string::wcsnlen,
    wcscmp(rr) = string::wcscmp,
    wcsncmp(rrn) = string::wcsncmp,
    wcscpy(wr) = string::wcscpy,
    wcsncpy(wrn) = string::wcsncpy,
    wcpcpy(wr) = string::wcpcpy,
    wcpncpy(wrn) = string::wcpncpy,
    wcschr(rc) = string::wcschr,
    wcsrchr(rc) = string::wcsrchr,
    wcscat(ar) = string::wcscat,
    wmemchr(rcn) = string::wmemchr,
    wmemcmp(rrn) = string::wmemcmp,
    wmemset(wvn) = string::wmemset,
    wmemcpy(wrn) = string::wmemcpy,
    wmemmove(wrn) = string::wmemmove,
    __memcpy_chk(wrno) = memory::memcpy_chk,
    __memmove_chk(wrno) = memory::memmove_chk,
    __mempcpy_chk(wrno) = memory::mempcpy_chk,
    __memset_chk(wvno) = memory::memset_chk,
    __strcpy_chk(wro) = string::strcpy_chk,
    __stpcpy_chk(wro) = string::stpcpy_chk,
    __strcat_chk(aro) = string::strcat_chk,
    __strncpy_chk(wrno) = string::strncpy_chk,
];

/// The replacement of `func`; `None` for functions of other crates.
pub fn find(func: Func) -> Option<&'static Entry> {
    ENTRIES.iter().find(|e| e.func == func)
}

/// Address of the replacement of `func`.
pub fn entry(func: Func) -> Option<u64> {
    find(func).map(|e| e.code as u64)
}

/// These return 0 without having done anything when there is no room for the result: the program's own function must run then, with the
/// arguments as they were; it ends the program with libc's own message. (They return 0 in no other case that matters: a null
/// destination.)
pub const FORTIFIED: &[Func] = &[
    Func::__memcpy_chk,
    Func::__memmove_chk,
    Func::__mempcpy_chk,
    Func::__memset_chk,
    Func::__strcpy_chk,
    Func::__stpcpy_chk,
    Func::__strcat_chk,
    Func::__strncpy_chk,
];

#[cfg(test)]
mod tests;
