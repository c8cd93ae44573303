//! Which access of a replaced function faulted?
//!
//! The kernel gives an address; the program expects "read or write, at which byte". Kernels of this crate load aligned vectors, so the
//! address may lie up to 15 bytes before the string; and memory of the tool is never touched, but an address beside it (see
//! [`crate::scan::shadowed`]), which must be translated back.
#![allow(unsafe_code, reason = "reads strings that a function has read before")]

use crate::copy::{first_bad, is_partly_good};
use crate::raw::get;
use crate::scan::TOOL_END;
use crate::steps::{Steps, WORD};
use memcheck_abi::event::Kind;
use memcheck_abi::layout::{PROGRAM_END, V_DISTANCE};
use memcheck_abi::replace::Func;

/// The program's access that faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// InvalidRead or InvalidWrite.
    pub kind: Kind,
    pub addr: u64,
    /// 1, 4 for wide characters, 8 for words.
    pub size: u64,
}

/// What to blame for a fault at `addr` in `func`, called with these integer arguments: the pointer that lies nearest below.
/// `addr` is 0 if the processor gave none (a non-canonical address).
pub fn blame(func: Func, args: &[u64; 6], addr: u64) -> Access {
    let size = if func.name().starts_with("wcs") || func.name().starts_with("wcp") || func.name().starts_with("wmem") { 4 } else { 1 };
    let letters = crate::find(func).map_or("", |e| e.arguments).bytes();
    let pointers = letters.zip(args).filter(|(letter, _)| b"rwa".contains(letter));
    let mut best: Option<(u64, Access)> = None;
    for (letter, &pointer) in pointers {
        let at = candidate(pointer, addr);
        let distance = at.wrapping_sub(pointer);
        // An append first reads: only behind its start it may be a write.
        let writes = letter == b'w' || letter == b'a' && distance != 0;
        if !writes && has_ended(func, args, at) {
            continue;
        }
        let access = Access { kind: if writes { Kind::InvalidWrite } else { Kind::InvalidRead }, addr: at, size };
        if best.is_none_or(|b| distance < b.0) {
            best = Some((distance, access));
        }
    }
    let access = best.map_or(Access { kind: Kind::InvalidRead, addr, size }, |b| b.1);
    word(func, args, access).unwrap_or(access)
}

/// A function that copies a string reads it to its end first. Was that before `at`, so that only writing can have come there?
fn has_ended(func: Func, args: &[u64; 6], at: u64) -> bool {
    let [_, src, count, ..] = *args;
    let most = match func {
        Func::strcpy | Func::stpcpy | Func::__strcpy_chk | Func::__stpcpy_chk => u64::MAX,
        Func::strncpy | Func::stpncpy | Func::__strncpy_chk => count,
        _ => return false,
    };
    let distance = at.wrapping_sub(src);
    // SAFETY: the function has read these bytes up to the first terminator.
    distance < PROGRAM_END && (0..distance.min(most)).any(|i| unsafe { get::<u8>(src + i) } == 0)
}

/// Functions that touch the far end of overlapping ranges first: destination, source, bytes, access.
fn moved(func: Func, args: &[u64; 6]) -> Option<(u64, u64, u64, u64)> {
    let [first, second, n, ..] = *args;
    Some(match func {
        Func::memcpy | Func::memmove | Func::__memcpy_chk | Func::__memmove_chk => (first, second, n, WORD),
        Func::mempcpy | Func::__mempcpy_chk => (first, second, n, 1),
        Func::bcopy => (second, first, n, 1),
        Func::wmemcpy | Func::wmemmove => (first, second, n.saturating_mul(4), 4),
        _ => return None,
    })
}

/// Bytes from the start of a move in which its first mistakes are looked for.
const NEAR: u64 = 4096;

/// A move faulted before it did anything, for its length is absurd: the first invalid read and write that a loop from the start does
/// are what tells the user which blocks it is about.
pub fn before(func: Func, args: &[u64; 6]) -> [Option<Access>; 2] {
    let mut found = [None; 2];
    let Some((dst, src, n, unit)) = moved(func, args).filter(|&(dst, src, n, _)| n > dst.abs_diff(src)) else {
        return found;
    };
    for (at, size) in Steps::forward(dst, src, n.min(NEAR), unit) {
        let (to, from) = (dst.wrapping_add(at), src.wrapping_add(at));
        let reads = first_bad(from, size).is_some() && !(size == WORD && is_partly_good(from));
        for (kind, addr, is_bad) in [(Kind::InvalidRead, from, reads), (Kind::InvalidWrite, to, first_bad(to, size).is_some())] {
            if is_bad && !found.iter().flatten().any(|access: &Access| access.kind == kind) {
                found[usize::from(found[0].is_some())] = Some(Access { kind, addr, size });
            }
        }
        if found[1].is_some() {
            break;
        }
    }
    found
}

/// The functions that move words: the word that holds the byte.
fn word(func: Func, args: &[u64; 6], access: Access) -> Option<Access> {
    let (dst, src, n) = match func {
        Func::memcpy | Func::memmove | Func::__memcpy_chk | Func::__memmove_chk => (args[0], args[1], args[2]),
        Func::bcopy => (args[1], args[0], args[2]),
        Func::memset | Func::__memset_chk => (args[0], args[0], args[2]),
        Func::bzero => (args[0], args[0], args[1]),
        _ => return None,
    };
    let base = if access.kind == Kind::InvalidWrite { dst } else { src };
    let (at, size) = Steps::around(dst, src, n, access.addr.wrapping_sub(base));
    Some(Access { addr: base.wrapping_add(at), size, ..access })
}

/// The address that the program accessed through `pointer`, if it was that one.
fn candidate(pointer: u64, addr: u64) -> u64 {
    let non_canonical = pointer.wrapping_add(1 << 47) >> 48 != 0;
    let tool = (V_DISTANCE & !4095..TOOL_END).contains(&pointer);
    if addr == 0 && (non_canonical || tool) || tool && addr == pointer.wrapping_add(V_DISTANCE) {
        return pointer;
    }
    if addr >= pointer & !15 { addr.max(pointer) } else { addr }
}

#[cfg(test)]
mod tests {
    use super::{Access, blame};
    use memcheck_abi::event::Kind::{InvalidRead, InvalidWrite};
    use memcheck_abi::layout::V_DISTANCE;
    use memcheck_abi::replace::Func;

    #[track_caller]
    fn check(func: Func, args: [u64; 3], addr: u64, expected: (memcheck_abi::event::Kind, u64, u64)) {
        let (kind, at, size) = expected;
        assert_eq!(blame(func, &[args[0], args[1], args[2], 0, 0, 0], addr), Access { kind, addr: at, size });
    }

    #[test]
    fn the_nearest_pointer_below_is_to_blame() {
        check(Func::strlen, [0x1_0007, 0, 0], 0x1_0000, (InvalidRead, 0x1_0007, 1));
        check(Func::strlen, [0x1_0ff7, 0, 0], 0x1_1000, (InvalidRead, 0x1_1000, 1));
        check(Func::strlen, [0, 0, 0], 0, (InvalidRead, 0, 1));
        check(Func::memcpy, [0x9_0000, 0x1_0ff8, 64], 0x1_1000, (InvalidRead, 0x1_1000, 8));
        check(Func::memcpy, [0x9_0000, 0x1_0ff8, 64], 0x9_0010, (InvalidWrite, 0x9_0010, 8));
        check(Func::memcpy, [0x9_0000, 0x1_0ff9, 64], 0x9_0010, (InvalidWrite, 0x9_0010, 1));
        check(Func::bcopy, [0x1_0000, 0x9_0000, 64], 0x9_0014, (InvalidWrite, 0x9_0010, 8));
        check(Func::memset, [0, 7, 64], 0, (InvalidWrite, 0, 8));
        check(Func::strcat, [0x5_0000, 0x1_0000, 0], 0x5_0000, (InvalidRead, 0x5_0000, 1));
        check(Func::strcat, [0x5_0000, 0x1_0000, 0], 0x5_1000, (InvalidWrite, 0x5_1000, 1));
        check(Func::wcslen, [0x1_0004, 0, 0], 0x1_0000, (InvalidRead, 0x1_0004, 4));
        check(Func::memmem, [0x1_0000, 10, 0x8_0000], 0x8_0000, (InvalidRead, 0x8_0000, 1));
    }

    #[test]
    fn addresses_that_the_processor_does_not_name() {
        let wild = 0x7878_7878_7878_7878;
        check(Func::strlen, [wild, 0, 0], 0, (InvalidRead, wild, 1));
        check(Func::strcpy, [wild, 0x1_0000, 0], 0, (InvalidWrite, wild, 1));
        let tool = 0x6800_0000_1234;
        check(Func::strlen, [tool, 0, 0], 0, (InvalidRead, tool, 1));
        let shadow = V_DISTANCE + 0x1234;
        check(Func::strcpy, [0x1_0000, shadow, 0], shadow + V_DISTANCE, (InvalidRead, shadow, 1));
    }
}
