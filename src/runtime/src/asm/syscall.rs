//! The program's system calls: checks before, the call itself with the program's registers, what it changed after. See the module above
//! for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S1, S3, S8};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// A system call of the program. rcx = where to go on (rcx and r11 are the kernel's to destroy), regs.rip = address after it.
#[unsafe(naked)]
pub extern "C" fn syscall() {
    naked_asm!(
        "mov fs:[{s3}], rcx
         mov fs:[{s1}], rax
         mov rcx, fs:[{regs}+128]
         ",
        save!(),
        "call {before}
         test eax, eax
         jz {done}
         lea rax, [rip+{check}]
         mov rcx, fs:[{s3}]
         mov fs:[{s8}], rcx
         mov fs:[{s3}], rax
         ",
        restore!(),
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
        s1 = const S1, s3 = const S3, s8 = const S8, xsave = const offset::XSAVE, pending = const offset::PENDING,
        before = sym crate::syscalls::before, done = sym syscall_done, check = sym syscall_check,
        safe_point = sym crate::safepoint::before_syscall,
    )
}

// SAFETY: the label is defined in this file; only its address is taken.
unsafe extern "C" {
    /// The program's system calls are made by the instruction at this label.
    pub safe fn memcheck_syscall_insn();
}

/// The window that the tracer knows: not yet executed in [syscall_check, memcheck_syscall_insn], done behind it.
#[unsafe(naked)]
pub extern "C" fn syscall_check() {
    naked_asm!(
        "mov ecx, fs:[{pending}]
         jrcxz 5f
         jmp {safe}
         5:
         .globl memcheck_syscall_insn
         memcheck_syscall_insn:
         syscall
         jmp {after}",
        pending = const offset::PENDING, safe = sym safe_before_syscall, after = sym syscall_after,
    )
}

#[unsafe(naked)]
pub extern "C" fn syscall_after() {
    naked_asm!(
        "mov rcx, fs:[{s8}]
         mov fs:[{s3}], rcx
         mov fs:[{s1}], rax
         mov rcx, fs:[{regs}+128]
         ",
        save!(),
        "call {after}
         jmp {done}",
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
        s1 = const S1, s3 = const S3, s8 = const S8, xsave = const offset::XSAVE,
        after = sym crate::syscalls::after, done = sym syscall_done,
    )
}

#[unsafe(naked)]
extern "C" fn syscall_done() {
    naked_asm!(
        restore!(),
        regs = const offset::REGS, s3 = const S3, xsave = const offset::XSAVE, pending = const offset::PENDING,
        safe_point = sym crate::safepoint::after_syscall,
    )
}

/// A signal came between the checks and the system call: the call has not happened.
#[unsafe(naked)]
extern "C" fn safe_before_syscall() {
    naked_asm!(
        "mov fs:[{s1}], rax
         mov rcx, fs:[{s8}]
         mov fs:[{s3}], rcx
         mov rcx, fs:[{regs}+128]
         ",
        save!(),
        "call {f}
         ud2",
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
        s1 = const S1, s3 = const S3, s8 = const S8, xsave = const offset::XSAVE,
        f = sym crate::safepoint::before_syscall,
    )
}
