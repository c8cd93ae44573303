//! The signal frame that the kernel has built at a thread's stack pointer.
//!
//! ```text
//! rsp + 0    return address
//! rsp + 8    ucontext: flags, link, stack (24), mcontext: 23 words (184), pointer to the extended state
//!            the words: r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip | flags, segments, error, exception, old mask, cr2
//! ```
//! Source: arch/x86/include/uapi/asm/sigcontext.h.

use crate::process::Process;

const WORDS: u64 = 8 + 40;
const ERROR: u64 = WORDS + 19 * 8;
const EXCEPTION: u64 = WORDS + 20 * 8;
const CR2: u64 = WORDS + 22 * 8;
const STATE_POINTER: u64 = WORDS + 184;
const FIXED: u64 = 8 + 304 + 128;
const PAGE_FAULT: u64 = 14;

/// What the processor said about a fault. The kernel itself has seen the runtime's trap in the meantime, and would name that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    number: u64,
    error: u64,
    addr: u64,
}

impl Exception {
    pub fn new(number: u64, error: u64) -> Exception {
        Exception { number, error, addr: 0 }
    }

    /// From the second and third argument of the trap `SafePoint`.
    pub fn of(code: u64, addr: u64) -> Exception {
        Exception { number: code >> 48 & 0xff, error: code >> 32 & 0xffff, addr }
    }
}

/// Let the frame at `rsp` tell of this exception.
pub(crate) fn describe(process: &Process, rsp: u64, exception: &Exception) {
    process.memory.set(rsp + ERROR, exception.error);
    process.memory.set(rsp + EXCEPTION, exception.number);
    if exception.number == PAGE_FAULT {
        process.memory.set(rsp + CR2, exception.addr);
    }
}

/// End of the frame at `rsp`: of its extended state, which the kernel puts above the fixed part. The extended state says its own size in the
/// bytes that the processor leaves to software (offset 464).
pub(crate) fn end(process: &Process, rsp: u64) -> u64 {
    const MAGIC1: u32 = 0x4650_5853;
    const LEGACY: u64 = 512;
    let state = process.memory.value::<u64>(rsp + STATE_POINTER).unwrap_or(0);
    if state <= rsp {
        return rsp + FIXED;
    }
    let size = match (process.memory.value::<u32>(state + 464), process.memory.value::<u32>(state + 468)) {
        (Some(MAGIC1), Some(size)) => u64::from(size),
        _ => LEGACY,
    };
    state + size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_trap() {
        let code = u64::from(-6i32 as u32) | 7 << 32 | 14 << 48;
        assert_eq!(Exception::of(code, 5), Exception { number: 14, error: 7, addr: 5 });
        assert_eq!(code as i32, -6, "the code itself is the lower half");
    }
}
