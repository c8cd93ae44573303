//! Calls that are answered here or handed to the glue.

use super::{Program, get_u64, v};
use crate::action::clone;
use crate::{Action, CloneArgs, Special, before};
use memcheck_abi::context::RAX;
use memcheck_rt::context;

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
    for number in [334, 435, 425, 206] {
        assert_eq!(p.call(number, &[0; 6]), -38, "{number}");
    }
    assert_eq!(p.call(101, &[0, 0, 0, 0]), -1, "PTRACE_TRACEME");
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
    let _p = Program::new();
    let thread = clone::VM | clone::THREAD | clone::SETTLS;
    let expected = CloneArgs { flags: thread, stack: 1, parent_tid: 2, child_tid: 3, tls: 4, is_thread: true, is_vfork_like: false };
    assert_eq!(ask(56, [thread, 1, 2, 3, 4, 0]), Action::Special(Special::Clone(expected)));
    let Action::Special(Special::Clone(spawn)) = ask(56, [clone::VM | clone::VFORK | 17, 9, 0, 0, 0, 0]) else { panic!() };
    assert!(spawn.is_vfork_like && !spawn.is_thread);
    let Action::Special(Special::Clone(fork)) = ask(57, [0; 6]) else { panic!() };
    assert!(!fork.is_vfork_like && !fork.is_thread && fork.flags == 17);
    let Action::Special(Special::Clone(vfork)) = ask(58, [0; 6]) else { panic!() };
    assert!(vfork.is_vfork_like);
}

#[test]
fn life_and_death_are_the_glues() {
    let _p = Program::new();
    assert_eq!(ask(60, [3, 0, 0, 0, 0, 0]), Action::Special(Special::Exit { status: 3 }));
    assert_eq!(ask(231, [4, 0, 0, 0, 0, 0]), Action::Special(Special::ExitGroup { status: 4 }));
    assert_eq!(ask(15, [0; 6]), Action::Special(Special::RtSigreturn));
    assert_eq!(ask(13, [10, 0, 0, 8, 0, 0]), Action::Special(Special::RtSigaction { signal: 10, new: 0, old: 0 }));
    assert_eq!(ask(u64::MAX, [0; 6]), Action::Native);
    assert_eq!(ask(1 << 30, [0; 6]), Action::Native);
}
