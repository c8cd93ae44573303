//! The program's system calls: the kernel crate says how, this module does what touches threads and processes.
#![allow(unsafe_code, reason = "system calls on the program's behalf")]

use alloc::vec::Vec;

use crate::cache::CACHE;
use crate::{inner, kept, requests, safepoint, selfsignal, spread, statistics, threads};
use memcheck_abi::context::{RAX, RDI, RDX, RSI, RSP, ThreadContext};
use memcheck_abi::event::{ExitReport, Repeat, Trap};
use memcheck_kernel::action::{block, clone};
use memcheck_kernel::{Action, CloneArgs, Special, sigtrap};
use memcheck_rt::{arena, context, depot, report, sys};

const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;
const CLONE: u64 = 56;
const CLONE3: u64 = 435;

/// First half, from `asm::syscall`: 1 = execute it natively with the program's registers, 0 = done, the result is in place.
pub extern "C" fn before() -> u32 {
    let ctx = context::current();
    if let Some(answer) = inner::refused(ctx) {
        ctx.regs.gpr[RAX] = answer as u64;
        return 0;
    }
    debug_assert!(crate::stackmove::is_painted_below(ctx, ctx.regs.gpr[RSP]), "the shadow below the stack pointer");
    let action = memcheck_kernel::before(ctx);
    // Before the call is made: a signal may come amid it.
    crate::dirty::after_syscall(ctx);
    let result = match action {
        Action::Native if selfsignal::taken(ctx) => return 0,
        Action::Native => return 1,
        Action::NativeWith(a, nr) => {
            // SAFETY: the kernel crate's version of the program's own call.
            let r = unsafe { sys::syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]) };
            memcheck_kernel::after(ctx, r);
            r
        }
        Action::Done(r) => r,
        Action::Special(s) => special(ctx, s),
    };
    ctx.regs.gpr[RAX] = result as u64;
    0
}

/// Second half.
pub extern "C" fn after(result: i64) {
    let ctx = context::current();
    memcheck_kernel::after(ctx, result);
}

fn special(ctx: &mut ThreadContext, s: Special) -> i64 {
    match s {
        Special::Clone(args) => {
            let r = make_process(ctx, &args);
            memcheck_kernel::after(ctx, r);
            r
        }
        Special::Exit { status } => {
            let is_end = ctx.vfork_child == 0 && is_last_thread();
            let status = if is_end { finish(ctx, status, true) } else { status };
            threads::exit(status as u64)
        }
        Special::ExitGroup { status } => {
            let status = if ctx.vfork_child == 0 { finish(ctx, status, is_last_thread()) } else { status };
            loop {
                // SAFETY: ends the process.
                unsafe { sys::syscall3(sys::nr::EXIT_GROUP, status as u64, 0, 0) };
            }
        }
        Special::Execve { path, argv, envp } => exec(ctx, path, argv, EXECVE, [path, argv, envp, 0, 0]),
        Special::Execveat { dirfd, path, argv, envp, flags } => {
            exec(ctx, path, argv, EXECVEAT, [dirfd as u64, path, argv, envp, u64::from(flags)])
        }
        Special::RtSigreturn => {
            selfsignal::leave_handler(ctx);
            report::trap(Trap::SigReturn, 0, 0, 0, 0);
            report::internal("a signal return came back")
        }
        Special::KillSelf => {
            if ctx.vfork_child == 0 && report::trap(Trap::KillSelf, 0, 0, 0, 0) == safepoint::DYING {
                exit_report(0);
            }
            // SAFETY: the program's own call; reached if somebody else ends the process already.
            unsafe { sys::syscall3(ctx.regs.gpr[RAX], ctx.regs.gpr[RDI], ctx.regs.gpr[RSI], ctx.regs.gpr[RDX]) }
        }
        Special::RtSigaction { .. } => {
            let r = sigtrap::action(ctx);
            tell_about_sigtrap();
            r
        }
    }
}

fn is_last_thread() -> bool {
    let path = b"/proc/self/task\0";
    let mut stat = [0u64; 18];
    // SAFETY: stat on a constant path into our buffer of the kernel's size.
    let r = unsafe { sys::syscall3(4, path.as_ptr() as u64, stat.as_mut_ptr() as u64, 0) };
    // The number of links of the task directory is the number of threads plus two.
    r == 0 && stat[2] == 3
}

fn make_process(ctx: &mut ThreadContext, args: &CloneArgs) -> i64 {
    if args.flags & clone::VM != 0 {
        return threads::create(ctx, args);
    }
    // From the outermost lock to the innermost (a report describes heap blocks, everybody allocates); the child must not inherit one that
    // another thread holds.
    memcheck_kernel::before_fork();
    let reports = report::hold();
    memcheck_heap::before_fork();
    let slots = threads::hold();
    let kept = kept::hold();
    let mut cache = CACHE.lock();
    let tables = (requests::hold(), spread::hold());
    let stacks = depot::hold();
    let memory = arena::hold();
    let r = copy_process(args);
    drop(memory);
    drop(stacks);
    drop(tables);
    if r == 0 {
        cache.sharers = 0;
    }
    drop(cache);
    drop(kept);
    drop(slots);
    memcheck_heap::after_fork();
    drop(reports);
    memcheck_kernel::after_fork();
    if r == 0 {
        threads::keep_number(ctx.number);
        // SAFETY: no arguments.
        ctx.tid = unsafe { sys::syscall3(sys::nr::GETTID, 0, 0, 0) } as u32;
        if args.flags & clone::SETTLS != 0 {
            ctx.guest_fs = args.tls;
        }
        if args.stack != 0 {
            ctx.regs.gpr[RSP] = args.stack;
            crate::stackmove::settle(ctx, args.stack);
        }
    }
    r
}

/// A plain copy of the process, on the same stack and with the same thread area: the child goes on here with the same context.
fn copy_process(args: &CloneArgs) -> i64 {
    let flags = args.flags & !clone::SETTLS;
    let Some(mut given) = args.block else {
        // SAFETY: as said above.
        return unsafe { sys::syscall6(CLONE, flags, 0, args.parent_tid, args.child_tid, 0, 0) };
    };
    given.words[block::FLAGS] = flags;
    (given.words[block::STACK], given.words[block::STACK_SIZE], given.words[block::TLS]) = (0, 0, 0);
    // SAFETY: as said above; the block is ours and as long as its size says.
    unsafe { sys::syscall3(CLONE3, given.words.as_ptr() as u64, given.size, 0) }
}

/// The tracer drops SIGTRAP if the program ignores it.
pub fn tell_about_sigtrap() {
    let handler = if sigtrap::is_ignored() { sigtrap::SIG_IGN } else { 0 };
    report::trap(Trap::Action, sigtrap::SIGTRAP, handler, 0, 0);
}

fn exec(ctx: &mut ThreadContext, path: u64, argv: u64, nr: u64, a: [u64; 5]) -> i64 {
    let followed = report::trap(Trap::Exec, path, argv, 0, 0) != 0;
    let limits = if followed { Vec::new() } else { Vec::from_iter(memcheck_kernel::limits::pending()) };
    // A program that is not followed gets what this one believes to have.
    if !followed {
        sigtrap::reveal(ctx);
    }
    let before = Vec::from_iter(limits.iter().map(|&(resource, soft, _)| (resource, soft_limit(resource, soft))));
    // SAFETY: the program's own call; returns only on failure.
    let r = unsafe { sys::syscall6(nr, a[0], a[1], a[2], a[3], a[4], 0) };
    for (resource, soft) in before {
        soft_limit(resource, soft);
    }
    if !followed {
        sigtrap::hide(ctx);
    }
    report::trap(Trap::ExecFailed, 0, 0, 0, 0);
    memcheck_kernel::after(ctx, r);
    r
}

/// Set the soft limit of a resource; the old one. Hard limits stay: they could not be raised again if the exec fails.
fn soft_limit(resource: u64, soft: u64) -> u64 {
    const PRLIMIT64: u64 = 302;
    let mut limit = [0u64; 2];
    // SAFETY: reads and sets limits through structures of ours.
    unsafe {
        sys::syscall6(PRLIMIT64, 0, resource, 0, limit.as_mut_ptr() as u64, 0, 0);
        let wanted = [soft.min(limit[1]), limit[1]];
        sys::syscall6(PRLIMIT64, 0, resource, wanted.as_ptr() as u64, 0, 0, 0);
    }
    limit[0]
}

/// The process ends by itself. `alone`: there is no other thread. The status to end with.
fn finish(ctx: &mut ThreadContext, status: i32, alone: bool) -> i32 {
    inner::free_libraries(ctx, alone);
    exit_report(status)
}

/// Everything the tracer needs for the summaries. Its answer: the status to exit with.
pub fn exit_report(status: i32) -> i32 {
    threads::warn_if_reporting_is_off(context::current());
    let mut out = ExitReport::default();
    memcheck_heap::report(&mut out);
    statistics::fill(&mut out);
    let mut repeats = alloc::vec![Repeat::default(); 2048];
    out.repeat_count = report::take_repeats(&mut repeats) as u64;
    out.repeats = repeats.as_ptr() as u64;
    let descriptors = memcheck_kernel::descriptors::opened();
    (out.descriptors, out.descriptor_count) = (descriptors.as_ptr() as u64, descriptors.len() as u64);
    let ignored = crate::requests::ignored();
    (out.ignored, out.ignored_count) = (ignored.as_ptr() as u64, ignored.len() as u64);
    report::trap(Trap::Exit, status as u64, core::ptr::from_ref(&out) as u64, 0, 0) as i32
}
