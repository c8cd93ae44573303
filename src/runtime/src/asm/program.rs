//! Into translated code and out of it: the first instruction, calls of program functions, new threads. See the module above for
//! conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::S3;
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// First instruction of the runtime: the tracer jumps here at the exec stop, on the program's start stack.
#[unsafe(naked)]
pub extern "C" fn entry() {
    naked_asm!(
        "mov rdi, rsp
         lea rsp, [rip+{stack}+{size}]
         and rsp, -16
         call {f}
         ud2",
        stack = sym crate::startup::BOOT_STACK, size = const crate::startup::BOOT_STACK_SIZE, f = sym crate::startup::start,
    )
}

/// Continue in translated code with the state of ctx.regs: finds the translation of regs.rip. Never returns.
#[unsafe(naked)]
pub extern "C" fn enter() -> ! {
    naked_asm!(
        "mov rsp, fs:[{runtime_rsp}]
         mov rbx, fs:[0]
         call {f}
         mov fs:[{s3}], rax
         ",
        restore!(),
        regs = const offset::REGS, runtime_rsp = const offset::RUNTIME_RSP,
        s3 = const S3, xsave = const offset::XSAVE, pending = const offset::PENDING,
        f = sym crate::dispatch::entry_of_rip, safe_point = sym crate::safepoint::leave,
    )
}

/// Run the program from the state in ctx.regs until it returns to `inner::RETURN_ADDRESS`; gives rax. Meanwhile the runtime's stack begins
/// below what is pushed here, so `program_returned` finds it by the same pointer. (The context is an argument only so that the compiler
/// knows that it is read and written.)
#[unsafe(naked)]
pub extern "C" fn call_program(_ctx: *mut memcheck_abi::context::ThreadContext) -> u64 {
    naked_asm!(
        "push rbx
         push rbp
         push r12
         push r13
         push r14
         push r15
         push fs:[{runtime_rsp}]
         mov fs:[{runtime_rsp}], rsp
         jmp {enter}",
        runtime_rsp = const offset::RUNTIME_RSP, enter = sym enter,
    )
}

/// The pseudo function at `inner::RETURN_ADDRESS`: called by `replace`, ends the `call_program` that is going on.
#[unsafe(naked)]
pub extern "C" fn program_returned() {
    naked_asm!(
        "mov rsp, fs:[{runtime_rsp}]
         pop fs:[{runtime_rsp}]
         pop r15
         pop r14
         pop r13
         pop r12
         pop rbp
         pop rbx
         mov rax, fs:[{regs}]
         ret",
        runtime_rsp = const offset::RUNTIME_RSP, regs = const offset::REGS,
    )
}

/// End the `call_program` that is going on from wherever it came to.
pub fn abandon_program() -> ! {
    // SAFETY: only called while a `call_program` is going on; its frame is at the runtime's stack pointer of the context, and all below it is
    // given up.
    unsafe { core::arch::asm!("jmp {returned}", returned = sym program_returned, options(noreturn)) }
}

/// Create a thread: clone(flags, stack = its runtime stack, ...) whose child goes on in `thread_start` with its own context.
/// rdi flags, rsi child stack, rdx parent tid, rcx child tid, r8 new context. Returns the kernel's answer in the parent.
#[unsafe(naked)]
pub extern "C" fn clone_thread(_flags: u64, _stack: u64, _ptid: u64, _ctid: u64, _ctx: u64) -> i64 {
    naked_asm!(
        "mov r10, rcx
         mov r9, r8
         xor r8d, r8d
         mov eax, 56
         syscall
         test rax, rax
         jz 5f
         ret
         5: wrfsbase r9
         xor ebp, ebp
         mov rsp, fs:[{runtime_rsp}]
         mov rdi, r9
         call {f}
         jmp {enter}",
        runtime_rsp = const offset::RUNTIME_RSP, f = sym crate::threads::started, enter = sym enter,
    )
}
