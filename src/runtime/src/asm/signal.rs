//! Faults and safe points: the program's exact state, as the tracer and signal frames want it. See the module above for conventions and
//! slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::S3;
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// The tracer saw a fault or stop request: rdi = record, rsp = the runtime's stack.
/// The vector registers are saved first, since the program may go on where it was.
#[unsafe(naked)]
pub extern "C" fn fault_entry() {
    naked_asm!(
        "cld
         mov rbx, fs:[0]
         ",
        store_vectors!("rbx"),
        "         call {f}
         mov fs:[{s3}], rax
         ",
        restore!(),
        regs = const offset::REGS, s3 = const S3, xsave = const offset::XSAVE, pending = const offset::PENDING,
        f = sym crate::fault::handle, safe_point = sym crate::safepoint::none,
    )
}

/// Trap `SafePoint` with the program's vector registers loaded; the tracer sets the general ones from ctx.regs, or answers.
#[unsafe(naked)]
pub extern "C" fn safe_trap(_signo: u64, _code: u64, _addr: u64) -> u64 {
    naked_asm!(
        "mov rax, fs:[0]
         ",
        load_vectors!("rax"),
        "         mov eax, {code}
         jmp {trap}",
        xsave = const offset::XSAVE, code = const memcheck_abi::event::Trap::SafePoint as u32, trap = sym memcheck_rt::report::trap_stub,
    )
}

/// Store the program's vector state at rsi (64-byte aligned): the components in rdx, or what fxsave knows if there are none. The low halves
/// that the runtime may have changed come from the context at rdi.
#[unsafe(naked)]
pub extern "C" fn store_vectors(_ctx: *const memcheck_abi::context::ThreadContext, _to: *mut u8, _components: u64) {
    naked_asm!(
        "",
        load_vectors!("rdi"),
        "         mov eax, edx
         xor edx, edx
         test eax, eax
         jz 5f
         xsave64 [rsi]
         ret
         5: fxsave64 [rsi]
         ret",
        xsave = const offset::XSAVE,
    )
}

/// rt_sigreturn with the frame whose context is at rdi. What it restores goes on at `resume`.
#[unsafe(naked)]
pub extern "C" fn signal_return(_context: u64) -> ! {
    naked_asm!(
        "mov rsp, rdi
         mov eax, 15
         syscall
         ud2"
    )
}
