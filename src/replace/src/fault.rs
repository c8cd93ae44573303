//! Which access of a replaced function faulted?
//!
//! The kernel gives an address; the program expects "read or write, at which byte". Kernels of this crate load aligned vectors, so the
//! address may lie up to 15 bytes before the string; and memory of the tool is never touched, but an address beside it (see
//! [`crate::scan::shadowed`]), which must be translated back.

use crate::scan::TOOL_END;
use crate::steps::Steps;
use memcheck_abi::event::Kind;
use memcheck_abi::layout::V_DISTANCE;
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
        let access = Access { kind: if writes { Kind::InvalidWrite } else { Kind::InvalidRead }, addr: at, size };
        if best.is_none_or(|b| distance < b.0) {
            best = Some((distance, access));
        }
    }
    let access = best.map_or(Access { kind: Kind::InvalidRead, addr, size }, |b| b.1);
    word(func, args, access).unwrap_or(access)
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
