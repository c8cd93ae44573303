//! The routines that translated code jumps to, and the ways back. All assembly of the runtime is below here.
//!
//! ```text
//! check    the slow side of a check: what needs no Rust         syscall  the program's system calls; the window the tracer knows
//! branch   dispatch to a program address, end of dirty regions  replace  replaced functions
//! leave    leaving a dirty region for a target met before       program  into translated code and out of it, threads
//! frame    painting released stack                              signal   faults, safe points, vector state
//! origin   whose frame undefined bytes lie in
//! ```
//! Convention on entry from translated code: the program's registers are in the processor, except those that the comment names
//! as spilled to `ctx.scratch` (fs-relative). Slots: 0 rcx, 1 rax, 2 address, 3 continue, 4 argument, 5 flags; 8.. are free for
//! the routines here.
//!
//! `save!` stores the program's registers to `ctx.regs` (rax from slot 1), its low vector halves to `ctx.xsave`, and switches to
//! the runtime's stack; `restore!` undoes it. The runtime is built for baseline SSE2, and legacy SSE instructions leave the upper
//! vector halves alone, so 16 times 16 bytes are all the vector state that must be kept.
#![allow(unsafe_code, reason = "naked assembly routines")]

use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// Where the slots are, fs-relative.
const S0: i32 = offset::SCRATCH;
const S1: i32 = offset::SCRATCH + 8;
const S2: i32 = offset::SCRATCH + 16;
const S3: i32 = offset::SCRATCH + 24;
const S4: i32 = offset::SCRATCH + 32;
const S5: i32 = offset::SCRATCH + 40;
const S8: i32 = offset::SCRATCH + 64;
const S9: i32 = offset::SCRATCH + 72;
const S10: i32 = offset::SCRATCH + 80;

/// The program's low vector halves to `ctx.xsave`; the register holds the context.
macro_rules! store_vectors {
    ($ctx:literal) => {
        concat!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nmovups [", $ctx, "+{xsave}+16*\\n], xmm\\n\n.endr\n")
    };
}

/// And back.
macro_rules! load_vectors {
    ($ctx:literal) => {
        concat!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\nmovups xmm\\n, [", $ctx, "+{xsave}+16*\\n]\n.endr\n")
    };
}

/// The program's general registers but rax and r11, and the runtime's stack in place of the program's.
macro_rules! store_general {
    () => {
        "mov fs:[{regs}+8], rcx
         mov fs:[{regs}+16], rdx
         mov fs:[{regs}+24], rbx
         mov fs:[{regs}+32], rsp
         mov fs:[{regs}+40], rbp
         mov fs:[{regs}+48], rsi
         mov fs:[{regs}+56], rdi
         mov fs:[{regs}+64], r8
         mov fs:[{regs}+72], r9
         mov fs:[{regs}+80], r10
         mov fs:[{regs}+96], r12
         mov fs:[{regs}+104], r13
         mov fs:[{regs}+112], r14
         mov fs:[{regs}+120], r15
         mov fs:[{guest_rsp}], rsp
         mov rsp, fs:[{runtime_rsp}]
"
    };
}

/// All of them back, but the stack pointer.
macro_rules! load_general {
    () => {
        "mov rax, fs:[{regs}]
         mov rcx, fs:[{regs}+8]
         mov rdx, fs:[{regs}+16]
         mov rbx, fs:[{regs}+24]
         mov rbp, fs:[{regs}+40]
         mov rsi, fs:[{regs}+48]
         mov rdi, fs:[{regs}+56]
         mov r8, fs:[{regs}+64]
         mov r9, fs:[{regs}+72]
         mov r10, fs:[{regs}+80]
         mov r11, fs:[{regs}+88]
         mov r12, fs:[{regs}+96]
         mov r13, fs:[{regs}+104]
         mov r14, fs:[{regs}+112]
         mov r15, fs:[{regs}+120]
"
    };
}

/// Flags to slot 5, by way of rax. (The direction flag is the program's all the time.)
macro_rules! keep_flags {
    () => {
        "lahf
         seto al
         mov fs:[{s5}], rax
"
    };
}

/// And back.
macro_rules! flags_back {
    () => {
        "mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
"
    };
}

/// Save everything; rax comes from slot 1, rdi = what rax held on entry. Clobbers all caller-saved registers afterwards.
macro_rules! save {
    () => {
        concat!(
            store_general!(),
            "mov fs:[{regs}+88], r11
         pushfq
         pop fs:[{regs}+136]
         cld
         mov rdi, rax
         mov rax, fs:[{s1}]
         mov fs:[{regs}], rax
         mov rbx, fs:[0]
         ",
            store_vectors!("rbx")
        )
    };
}

/// Restore everything from `ctx.regs`; rbx is still the context. Comes to a safe point first if a signal waits. popfq is slow, and needed
/// only for the direction flag.
macro_rules! restore {
    () => {
        concat!(
            "cmp dword ptr fs:[{pending}], 0
         jne 99f
         98:
         ",
            load_vectors!("rbx"),
            "mov rax, fs:[{regs}+136]
         test eax, 0x400
         jnz 97f
         mov ecx, eax
         shr ecx, 11
         and ecx, 1
         mov ah, al
         add cl, 0x7f
         sahf
         96:
         ",
            load_general!(),
            "         mov rsp, fs:[{regs}+32]
         jmp fs:[{s3}]
         97:
         push fs:[{regs}+136]
         popfq
         jmp 96b
         99:
         call {safe_point}
         jmp 98b
         "
        )
    };
}

mod branch;
mod check;
mod frame;
mod leave;
mod origin;
mod program;
mod replace;
mod signal;
mod syscall;

pub use branch::{dirty_branch, dispatch};
pub use check::check;
pub use frame::{release, stack_moved};
pub use origin::{frame_note, frame_origin};
pub use program::{abandon_program, call_program, clone_thread, enter, entry, program_returned};
pub use replace::replace;
pub use signal::{fault_entry, safe_trap, signal_return, store_vectors};
pub use syscall::{memcheck_syscall_insn, syscall, syscall_check};

/// A routine that saves, calls `$f` with rdi = rax on entry and restores; the host address it returns is where it goes on.
macro_rules! routine {
    ($name:ident, $before:expr, $f:path, $after:expr) => {
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            naked_asm!(
                "/* rcx may be spilled at {s0} */", $before, save!(), "call {f}", $after, restore!(),
                regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
                s0 = const S0, s1 = const S1, s3 = const S3, xsave = const offset::XSAVE, pending = const offset::PENDING,
                f = sym $f, safe_point = sym crate::safepoint::leave,
            )
        }
    };
}

// ctx.target = program address, rcx in slot 0.
routine!(dispatch_slow, "mov rcx, fs:[{s0}]\n mov fs:[{s1}], rax\n", crate::dispatch::dispatch, "mov fs:[{s3}], rax\n");
// rax = link data, the program's rax in slot 1.
routine!(link, "", crate::dispatch::link, "mov fs:[{s3}], rax\n");
// Slow check, Rust part: slots 1 to 4 as `Stubs::check` says.
routine!(check_slow, "", crate::check::slow, "");
// Helpers; slot 3 is where to go on.
routine!(helper, "", crate::helpers::helper, "");
// A clean check met undefined bytes: slots as for `check`.
routine!(enter_dirty, "", crate::dirty::enter, "mov fs:[{s3}], rax\n");
// End of a dirty region, some register dirty: rcx in slot 0, ctx.target.
routine!(leave_dirty, "mov rcx, fs:[{s0}]\n mov fs:[{s1}], rax\n", crate::dirty::leave, "mov fs:[{s3}], rax\n");
// The same; slot 2 is a cell for the address where it goes on.
routine!(link_dirty, "mov rcx, fs:[{s0}]\n mov fs:[{s1}], rax\n", crate::dirty::leave_and_link, "mov fs:[{s3}], rax\n");
// A run of copies begins: slots as `Stubs::copies` says.
routine!(copies, "", crate::copies::prepare, "mov fs:[{s3}], rax\n");
routine!(stack_slow, "mov fs:[{s1}], rax\n mov rcx, fs:[{s0}]\n", crate::stackmove::moved, "");
// Program registers all in place, ctx.target set: a signal handler begins.
routine!(signal_entry, "mov fs:[{s1}], rax\n", crate::safepoint::handler_begins, "mov fs:[{s3}], rax\n");
// Program registers all in place, ctx.target set: go on there, the stack may have changed.
routine!(resume, "mov fs:[{s1}], rax\n", crate::safepoint::resumed, "mov fs:[{s3}], rax\n");
