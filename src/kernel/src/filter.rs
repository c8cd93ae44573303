//! A seccomp filter of the program's must not refuse what memcheck asks of the kernel in the same process.
//!
//! The kernel tells a filter where a call is made: all are made in the runtime's image, the program's own by one instruction of it. So the
//! filter is installed with a few instructions in front:
//!
//! ```text
//! made by that instruction, or outside the image      -> the program's filter
//! one of OWN                                          -> allowed
//! one of ABOUT_MEMORY, and the memory is memcheck's   -> allowed
//! anything else (fork, exec, the program's mmap, ...) -> the program's filter
//! ```
//!
//! Deliberately absent: filters that were there before memcheck was.

use crate::action::Action;
use crate::call::Call;
use crate::hooks;
use alloc::vec::Vec;
use memcheck_abi::layout::{CACHE_START, HEAP_END, HEAP_START, IMAGE_BASE, PROGRAM_END};
use memcheck_rt::sys::nr;

/// What the runtime asks for itself only: of the process, of its memory, of the program's files.
#[rustfmt::skip] // one kind per line
const OWN: &[u64] = &[
    nr::GETPID, nr::GETTID, nr::GETUID, nr::TGKILL, nr::PRLIMIT64, nr::NANOSLEEP, nr::SIGALTSTACK,
    nr::PROCESS_VM_READV, nr::PROCESS_VM_WRITEV, nr::MINCORE, nr::MEMFD_CREATE, nr::FTRUNCATE,
    nr::STAT, nr::PREAD64,
];
/// Their first argument is the memory: the tables, or the heap that stands in for the program's.
const ABOUT_MEMORY: &[u64] = &[nr::MMAP, nr::MPROTECT, nr::MUNMAP, nr::MREMAP, nr::MADVISE, nr::FUTEX];

/// Instructions, by the code of struct sock_filter.
const LOAD: u16 = 0x20;
const LOAD_CONSTANT: u16 = 0;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 6;
const ALLOW: u32 = 0x7fff_0000;
/// Most of them in one filter.
const LONGEST: usize = 4096;

/// Places in struct seccomp_data. The instruction pointer is behind the instruction.
const NUMBER: u32 = 0;
const POINTER_LOW: u32 = 8;
const POINTER_HIGH: u32 = 12;
const ARGUMENT_HIGH: u32 = 20;

/// Where a comparison goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    Memory,
    Allow,
    Program,
}

/// Code, operand, and for comparisons where to go if so and if not.
type Line = (u16, u32, To, To);

const fn high(address: u64) -> u32 {
    (address >> 32) as u32
}

/// What stands in front, as the kernel has it.
fn prologue(program_call: u64) -> Vec<u64> {
    let who: [Line; 6] = [
        (LOAD, POINTER_HIGH, To::Next, To::Next),
        (IF_EQUAL, high(IMAGE_BASE), To::Next, To::Program),
        (LOAD, POINTER_LOW, To::Next, To::Next),
        (IF_NOT_BELOW, CACHE_START as u32, To::Program, To::Next),
        (IF_EQUAL, program_call as u32, To::Program, To::Next),
        (LOAD, NUMBER, To::Next, To::Next),
    ];
    let own = OWN.iter().map(|&call| (IF_EQUAL, call as u32, To::Allow, To::Next));
    let about = ABOUT_MEMORY.iter().map(|&call| (IF_EQUAL, call as u32, To::Memory, To::Next));
    let end: [Line; 7] = [
        // No call: to the program's.
        (IF_NOT_BELOW, 0, To::Program, To::Next),
        (LOAD, ARGUMENT_HIGH, To::Next, To::Next),
        (IF_NOT_BELOW, high(PROGRAM_END), To::Allow, To::Next),
        (IF_NOT_BELOW, high(HEAP_END) + 1, To::Program, To::Next),
        (IF_NOT_BELOW, high(HEAP_START), To::Next, To::Program),
        (RETURN, ALLOW, To::Next, To::Next),
        // A filter begins with zero.
        (LOAD_CONSTANT, 0, To::Next, To::Next),
    ];
    let lines = Vec::from_iter(who.into_iter().chain(own).chain(about).chain(end));
    let from_end = |at: usize, back: usize| (lines.len() - back - at - 1) as u64;
    let encode = |(at, &(code, operand, yes, no)): (usize, &Line)| {
        let [yes, no] = [yes, no].map(|to| match to {
            To::Next => 0,
            To::Memory => from_end(at, 6),
            To::Allow => from_end(at, 2),
            To::Program => from_end(at, 1),
        });
        u64::from(code) | yes << 16 | no << 24 | u64::from(operand) << 32
    };
    lines.iter().enumerate().map(encode).collect()
}

/// The call installs the filter whose struct sock_fprog is its third argument: length, pointer.
pub(crate) fn install(c: &mut Call, number: u64) -> Action {
    let count = usize::from(c.peek_or_zero::<u16>(c.args[2]));
    let from = c.peek_or_zero::<u64>(c.args[2].wrapping_add(8));
    let of_program = (0..count as u64).map_while(|i| c.peek::<u64>(from.wrapping_add(8 * i)));
    let mut all: Vec<u64> = [0, 0].into_iter().chain(prologue((hooks::get().program_call)())).collect();
    let in_front = all.len() - 2;
    all.extend(of_program);
    // What the kernel is going to refuse it refuses as it is.
    if count == 0 || all.len() - 2 != in_front + count || in_front + count > LONGEST {
        return Action::Native;
    }
    // The kernel is yet to read it. Filters are few, and stay.
    let all = Vec::leak(all);
    (all[0], all[1]) = ((all.len() - 2) as u64, all[2..].as_ptr() as u64);
    let mut args = c.args;
    args[2] = all.as_ptr() as u64;
    Action::NativeWith(args, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: u64 = IMAGE_BASE + 0x1234;
    const ELSEWHERE: u64 = IMAGE_BASE + 0x4321;

    /// Does what stands in front allow the call? Otherwise it is the program's filter's.
    fn allows(number: u64, argument: u64, pointer: u64) -> bool {
        let (code, mut at, mut a) = (prologue(CALL), 0, 0);
        while let Some(&line) = code.get(at) {
            let (operand, jump) = ((line >> 32) as u32, |holds: bool| (line >> if holds { 16 } else { 24 } & 0xff) as usize);
            at += 1;
            match line as u16 {
                LOAD => {
                    a = match operand {
                        NUMBER => number as u32,
                        POINTER_LOW => pointer as u32,
                        POINTER_HIGH => high(pointer),
                        _ => high(argument),
                    }
                }
                IF_EQUAL => at += jump(a == operand),
                IF_NOT_BELOW => at += jump(a >= operand),
                RETURN => return operand == ALLOW,
                _ => a = operand,
            }
        }
        assert_eq!((at, a), (code.len(), 0), "ends in front of the program's filter");
        false
    }

    #[test]
    fn only_memchecks_own_calls_pass() {
        assert!(allows(nr::GETPID, 0, ELSEWHERE) && allows(nr::PREAD64, 0, ELSEWHERE));
        assert!(!allows(nr::GETPID, 0, CALL) && !allows(nr::GETPID, 0, CACHE_START) && !allows(nr::GETPID, 0, 0x40_0000));
        let tables = [PROGRAM_END, IMAGE_BASE, HEAP_START, HEAP_END - 1];
        assert!(
            tables.iter().all(|&at| allows(nr::MMAP, at, ELSEWHERE) && allows(nr::FUTEX, at, ELSEWHERE) && !allows(nr::MMAP, at, CALL))
        );
        assert!([0, 0x40_0000, PROGRAM_END - 1].iter().all(|&at| !allows(nr::MMAP, at, ELSEWHERE)));
        assert!([nr::EXIT, nr::WRITE, 59].iter().all(|&number| !allows(number, IMAGE_BASE, ELSEWHERE)));
    }
}
