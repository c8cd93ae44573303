//! Calls that are answered here or handed to the glue.

use super::{Program, get_u64, v};
use crate::action::clone;
use crate::{Action, CloneArgs, Special, before};
use memcheck_abi::context::RAX;
use memcheck_rt::context;
use std::vec::Vec;

/// What `before` says, without executing anything.
fn ask(number: u64, args: [u64; 6]) -> Action {
    let ctx = context::current();
    ctx.regs.gpr[RAX] = number;
    for (r, x) in crate::call::ARGUMENTS.into_iter().zip(args) {
        ctx.regs.gpr[r] = x;
    }
    before(ctx)
}

#[test]
fn segment_bases_live_in_the_context() {
    let p = &mut Program::new();
    assert_eq!(p.call(158, &[0x1002, 0x1234_5000]), 0);
    assert_eq!(p.call(158, &[0x1001, 0x77_0000]), 0);
    assert_eq!((context::current().guest_fs, context::current().guest_gs), (0x1234_5000, 0x77_0000));
    let at = p.undefined(16);
    assert_eq!(p.call(158, &[0x1003, at]), 0);
    assert_eq!(p.call(158, &[0x1004, at + 8]), 0);
    assert_eq!((get_u64(at), get_u64(at + 8)), (0x1234_5000, 0x77_0000));
    assert_eq!(v(at, 16), [0; 16]);
    assert_eq!(p.call(158, &[0x1003, 0x10]), -14);
    assert_eq!(p.call(158, &[0x1002, 1 << 62]), -1);
    assert_eq!(p.call(158, &[0x3001, 0]), -22);
    assert_eq!(p.call(158, &[0x5001, 1]), -22);
}

#[test]
fn refused_calls() {
    let p = &mut Program::new();
    assert_eq!(p.call(334, &[0; 6]), -38, "rseq");
    assert_eq!(p.call(435, &[0; 6]), -22, "clone3 without arguments");
    assert_eq!(p.call(101, &[0, 0, 0, 0]), 0, "PTRACE_TRACEME");
    assert_eq!(p.call(101, &[0, 0, 0, 0]), -1, "PTRACE_TRACEME again");
}

#[test]
fn personality_hides_what_the_tool_set() {
    let p = &mut Program::new();
    crate::virtualise::set_personality(0);
    // SAFETY: asks only.
    let real = unsafe { memcheck_rt::sys::syscall3(135, 0xffff_ffff, 0, 0) };
    assert_eq!(p.call(135, &[0xffff_ffff]), 0);
    assert_eq!(p.call(135, &[0x4_0000]), 0);
    assert_eq!(p.call(135, &[0xffff_ffff]), 0x4_0000);
    assert_eq!(crate::personality(), 0x4_0000);
    p.call(135, &[real as u64]);
    crate::virtualise::set_personality(0);
}

#[test]
fn clone_is_decoded() {
    let p = &mut Program::new();
    let thread = clone::VM | clone::THREAD | clone::SETTLS;
    let expected =
        CloneArgs { flags: thread, stack: 1, parent_tid: 2, child_tid: 3, tls: 4, block: None, is_thread: true, is_vfork_like: false };
    assert_eq!(ask(56, [thread, 1, 2, 3, 4, 0]), Action::Special(Special::Clone(expected)));
    let Action::Special(Special::Clone(spawn)) = ask(56, [clone::VM | clone::VFORK | 17, 9, 0, 0, 0, 0]) else { panic!() };
    assert!(spawn.is_vfork_like && !spawn.is_thread);
    let Action::Special(Special::Clone(fork)) = ask(57, [0; 6]) else { panic!() };
    assert!(!fork.is_vfork_like && !fork.is_thread && fork.flags == 17);
    let block = p.words(&[0, 0, 5, 6, 17, 0x1000, 0x100, 7]);
    let Action::Special(Special::Clone(extended)) = ask(435, [block, 64, 0, 0, 0, 0]) else { panic!() };
    assert!((extended.stack, extended.parent_tid, extended.child_tid, extended.tls) == (0x1100, 6, 5, 7) && extended.block.is_some());
    let (untraced, traced) = (0x80_0000, 0x2000);
    let Action::Special(Special::Clone(seen)) = ask(56, [untraced | traced | 17, 0, 0, 0, 0, 0]) else { panic!() };
    assert_eq!(seen.flags, 17, "memcheck says who is traced");
    let block = p.words(&[untraced, 0, 0, 0, 17, 0, 0, 0]);
    let Action::Special(Special::Clone(seen)) = ask(435, [block, 64, 0, 0, 0, 0]) else { panic!() };
    assert_eq!((seen.flags, seen.block.unwrap().words[0]), (0, 0));
    let shared = p.words(&[clone::VM, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ask(435, [shared, 64, 0, 0, 0, 0]), Action::Done(-38), "as a kernel without it");
    let longer = p.words(&[0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(ask(435, [longer, 96, 0, 0, 0, 0]), Action::Done(-7), "a word that only a later kernel knows");
    let Action::Special(Special::Clone(vfork)) = ask(58, [0; 6]) else { panic!() };
    assert!(vfork.is_vfork_like);
}

#[test]
fn life_and_death_are_the_glues() {
    let _p = Program::new();
    assert_eq!(ask(60, [3, 0, 0, 0, 0, 0]), Action::Special(Special::Exit { status: 3 }));
    assert_eq!(ask(231, [4, 0, 0, 0, 0, 0]), Action::Special(Special::ExitGroup { status: 4 }));
    assert_eq!(ask(15, [0; 6]), Action::Special(Special::RtSigreturn));
    assert_eq!(ask(13, [10, 0, 0, 8, 0, 0]), Action::Native);
    assert_eq!(ask(13, [5, 0, 0, 8, 0, 0]), Action::Special(Special::RtSigaction { signal: 5, new: 0, old: 0 }));
    assert_eq!(ask(u64::MAX, [0; 6]), Action::Native);
    assert_eq!(ask(1 << 30, [0; 6]), Action::Native);
}

#[test]
fn sigtrap_is_only_seemingly_blocked() {
    const TRAP: u64 = 1 << 4;
    const USR1: u64 = 1 << 9;
    let really_blocked = || {
        let mut set = 0u64;
        // SAFETY: asks for the mask of this thread.
        unsafe { memcheck_rt::sys::syscall6(14, 0, 0, core::ptr::from_mut(&mut set) as u64, 8, 0, 0) };
        set & (TRAP | USR1)
    };
    // SAFETY: words of the test's program.
    let word = |at: u64| unsafe { *(at as *const u64) } & (TRAP | USR1);
    let p = &mut Program::new();
    let (set, old) = (p.words(&[TRAP | USR1]), p.undefined(8));
    assert_eq!(ask(14, [0, set, old, 8, 0, 0]), Action::Done(0));
    assert_eq!(really_blocked(), USR1);
    let (set, old) = (p.words(&[USR1]), p.undefined(8));
    assert_eq!(ask(14, [1, set, old, 8, 0, 0]), Action::Done(0));
    assert_eq!(word(old), TRAP | USR1, "what it was");
    let (none, old) = (p.words(&[0]), p.undefined(8));
    assert_eq!(ask(14, [2, none, old, 8, 0, 0]), Action::Done(0));
    assert_eq!(word(old), TRAP);
    assert_eq!(ask(14, [2, none, old, 8, 0, 0]), Action::Native, "not involved any more");
    assert_eq!(really_blocked(), 0);
}

#[test]
fn limits_of_memory_never_reach_the_kernel() {
    let p = &mut Program::new();
    const AS: u64 = 9;
    let (set, got) = (p.words(&[1 << 20, 1 << 30]), p.undefined(16));
    assert_eq!(p.call(97, &[AS, got]), 0, "the kernel's, before");
    assert_eq!(p.call(160, &[AS, set]), 0);
    assert_eq!(p.call(302, &[0, AS, 0, got]), 0);
    assert_eq!((get_u64(got), get_u64(got + 8), v(got, 16)), (1 << 20, 1 << 30, std::vec![0; 16]));
    let too_much = p.words(&[1, 1 << 31]);
    assert_eq!(p.call(160, &[AS, too_much]), -1, "a hard limit does not rise");
    let reversed = p.words(&[2, 1]);
    assert_eq!(p.call(160, &[AS, reversed]), -22);
    assert_eq!(crate::limits::pending().collect::<std::vec::Vec<_>>(), [(AS, 1 << 20, 1 << 30)]);
    assert_eq!(p.call(9, &[0, 1 << 31, 0, 0x22, u64::MAX, 0]), -12, "the program sees its own limit");
    assert!(Vec::<u8>::new().try_reserve(1 << 31).is_ok(), "the process can still map");
    let none = p.words(&[1 << 29, 1 << 30]);
    assert_eq!(p.call(160, &[AS, none]), 0);
    let mapped = p.call(9, &[0, 1 << 20, 0, 0x22, u64::MAX, 0]);
    assert!(mapped > 0, "below the limit");
    p.call(11, &[mapped as u64, 1 << 20]);
    memcheck_rt::limit::set(u64::MAX);
    assert_eq!(p.call(151, &[3]), 0, "mlockall does nothing");
    assert_eq!((p.call(151, &[0]), p.call(151, &[4]), p.call(151, &[9])), (-22, -22, -22), "but it looks at its flags");
}

#[test]
fn aio_rings_are_moved_and_still_work() {
    use memcheck_abi::layout::{MMAP_END, MMAP_START};
    let p = &mut Program::new();
    let place = p.words(&[0]);
    let result = p.call(206, &[100, place]);
    if result == -38 || result == -11 {
        return; // no AIO here, or too many contexts
    }
    assert_eq!(result, 0);
    let ring = get_u64(place);
    assert!((MMAP_START..MMAP_END).contains(&ring), "{ring:#x}");
    assert!(crate::space::mapping_of(ring).is_some());
    let path = p.string("/proc/self/exe");
    let fd = p.call(2, &[path, 0]) as u64;
    let buffer = p.undefined(16);
    let iocb = p.words(&[7, 0, fd << 32, buffer, 4, 0, 0, 0]);
    let list = p.words(&[iocb]);
    assert_eq!(p.call(209, &[ring, 1, list]), 1);
    let events = p.undefined(64);
    assert_eq!(p.call(208, &[ring, 1, 2, events, 0]), 1);
    assert_eq!((get_u64(events), get_u64(events + 8), get_u64(events + 16)), (7, iocb, 4));
    assert_eq!(super::get(buffer, 4), b"\x7fELF");
    assert_eq!((v(buffer, 5), v(events, 33)[32]), (std::vec![0, 0, 0, 0, 0xff], 0xff));
    assert_eq!(p.call(207, &[ring]), 0);
    assert_eq!(crate::space::mapping_of(ring), None);
    p.call(3, &[fd]);
    assert_eq!(p.reports(), []);
}

/// The words of a ring that a test has made, by the offsets in its parameters.
struct Ring {
    fd: u64,
    words: u64,
    entries: u64,
    tail: u64,
    array: u64,
}

impl Ring {
    /// `None`: the kernel has no io_uring for us.
    fn new(p: &mut Program) -> Option<Ring> {
        let params = p.words(&[0; 15]);
        let fd = p.call(425, &[4, params]);
        if fd < 0 {
            return None;
        }
        let map = |p: &mut Program, offset| p.call(9, &[0, 4096, 3, 0x8001, fd as u64, offset]) as u64;
        let (words, entries) = (map(p, 0), map(p, 0x1000_0000));
        let offset = |at| words + u64::from(super::get_i32(params + at) as u32);
        Some(Ring { fd: fd as u64, words, entries, tail: offset(44), array: offset(64) })
    }

    /// The only entry of the first submissions.
    fn submit(&self, p: &mut Program, [opcode, fd, second, address, len]: [u64; 5]) -> i64 {
        let tail = super::get_i32(self.tail);
        let entry = [opcode | fd << 32, second, address, len, 7, 0, 0, 0];
        super::put(self.entries, &entry.map(u64::to_ne_bytes).concat());
        super::put(self.array + 4 * (tail as u64 & 3), &0u32.to_ne_bytes());
        super::put(self.tail, &(tail + 1).to_ne_bytes());
        p.call(426, &[self.fd, 1, 1, 1, 0, 8])
    }
}

#[test]
fn entries_of_io_uring_are_looked_at() {
    const READ: u64 = 22;
    const WRITE: u64 = 23;
    const TIMEOUT: u64 = 11;
    let p = &mut Program::new();
    let Some(ring) = Ring::new(p) else { return };
    assert!(memcheck_abi::layout::in_program(ring.words, 4096) && memcheck_abi::layout::in_program(ring.entries, 4096));
    let path = p.string("/proc/self/exe");
    let file = p.call(2, &[path, 0]) as u64;
    let buffer = p.undefined(16);
    assert_eq!(ring.submit(p, [READ, file, 0, buffer, 4]), 1);
    assert_eq!(super::get(buffer, 4), b"\x7fELF");
    assert_eq!(v(buffer, 5), [0, 0, 0, 0, 0xff]);
    assert_eq!(p.reports(), []);
    assert_eq!(ring.submit(p, [WRITE, file, 0, buffer, 4]), 1, "refused by the file, and defined");
    assert_eq!(p.reports(), []);
    let time = p.undefined(16);
    assert_eq!(ring.submit(p, [TIMEOUT, u32::MAX.into(), 0, time, 1]), 1);
    assert_eq!(ring.submit(p, [WRITE, file, 0, buffer, 5]), 1);
    let names: Vec<_> = p.reports().into_iter().map(|r| (r.name, r.flag)).collect();
    assert_eq!(names, [("io_uring_enter(TIMEOUT)".into(), 0), ("io_uring_enter(WRITE)".into(), 0)]);
    let polled = p.words(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(p.call(425, &[4, polled]), -1, "entries would not be announced");
    p.call(3, &[file]);
    p.call(3, &[ring.fd]);
}
