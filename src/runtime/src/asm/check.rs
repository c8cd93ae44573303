//! The check's slow side without Rust: what a look at the A bits or at the stack pointer settles, and the way into dirty code met
//! before. See the module above for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S1, S2, S3, S4, S5, S8, S9};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// The registers used here and the flags are the program's again, but for rax.
macro_rules! back {
    () => {
        concat!(
            "mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         ",
            flags_back!()
        )
    };
}

/// The access is settled.
macro_rules! go_on {
    () => {
        concat!(back!(), "mov rax, fs:[{s1}]\njmp fs:[{s3}]\n")
    };
}

/// The check's slow side, first part (16 bytes at most; A bits of 16 addresses fit the 4 bytes that are read): accesses that are fine
/// by A bits or stack pointer need no more than this.
/// A store makes its bytes defined; a load of undefined bytes goes on. What overwrites a return address is remembered: so unwinders send a
/// function elsewhere (see `stackmove`).
#[unsafe(naked)]
pub extern "C" fn check() {
    naked_asm!(
        keep_flags!(),
        "mov fs:[{s8}], rcx
         mov fs:[{s9}], rdx
         mov rcx, fs:[{s2}]
         mov rdx, fs:[{s4}]
         mov rax, rcx
         shr rax, 44
         jnz 90f
         lea rax, [rsp-128]
         cmp rcx, rax
         jb 2f
         cmp rcx, fs:[{stack_high}]
         jae 2f
         cmp byte ptr [rip + {stack_marks}], 0
         je 5f
         2: movzx eax, dx
         cmp eax, 16
         ja 90f
         mov rax, rcx
         shr rax, 3
         bts rax, 45
         bts rax, 46
         mov eax, dword ptr [rax]
         test eax, eax
         jz 5f
         and ecx, 7
         shr eax, cl
         movzx ecx, dx
         mov edx, -1
         shl edx, cl
         not edx
         test eax, edx
         mov rcx, fs:[{s2}]
         mov rdx, fs:[{s4}]
         jnz 90f
         5: mov eax, edx
         shr eax, 16
         cmp eax, {store}
         jne 70f
         movzx eax, dx
         cmp eax, 8
         je 28f
         cmp eax, 4
         je 24f
         cmp eax, 1
         je 21f
         cmp eax, 16
         je 26f
         cmp eax, 2
         jne 90f
         mov word ptr gs:[rcx], 0
         jmp 80f
         26: mov qword ptr gs:[rcx+8], 0
         jmp 28f
         21: mov byte ptr gs:[rcx], 0
         jmp 80f
         24: mov dword ptr gs:[rcx], 0
         jmp 80f
         28: cmp dword ptr gs:[rcx], {mark}
         je 29f
         mov qword ptr gs:[rcx], 0
         80:",
        go_on!(),
        "90:",
        back!(),
        "jmp {slow}
         29: mov qword ptr gs:[rcx], 0
         mov fs:[{redirected}], rcx
         jmp 80b
         70: jmp {undefined}",
        mark = const memcheck_abi::layout::RETURN_MARK, redirected = const offset::LOCALS + 8 * memcheck_abi::context::local::REDIRECTED as i32,
        s1 = const S1, s2 = const S2, s3 = const S3, s4 = const S4, s5 = const S5, s8 = const S8, s9 = const S9,
        stack_high = const offset::STACK_HIGH, store = const memcheck_translate::STORE,
        stack_marks = sym memcheck_rt::access::STACK_MARKS, slow = sym super::check_slow,
        undefined = sym undefined_load,
    )
}

/// A load of undefined bytes, registers as `check` spilled them: a slot of a return address is none; code that was entered here before is
/// entered again without asking.
#[unsafe(naked)]
extern "C" fn undefined_load() {
    naked_asm!(
        "mov rcx, fs:[{s2}]
         and rcx, -8
         cmp dword ptr gs:[rcx], {mark}
         je 80f
         mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         cmp dword ptr [rip+{undef}], 0
         je 80f
         mov rax, fs:[{s3}]
         mov rcx, rax
         shr rcx, 12
         xor ecx, eax
         and ecx, {known} - 1
         lea rdx, [rip+{entries}]
         cmp [rdx+rcx*8], rax
         jne 75f
         mov rdx, [rdx+rcx*8+{bodies}]
         lea rax, [rip+{entries}]
         mov rax, [rax+rcx*8]
         cmp rax, fs:[{s3}]
         jne 75f
         mov fs:[{s3}], rdx
         mov qword ptr fs:[{dirty}], 0
         inc qword ptr fs:[{entered}]
         jmp 80f
         75:",
        back!(),
        "jmp {enter}
         80:",
        go_on!(),
        entries = sym crate::dirty::ENTRIES, bodies = const crate::dirty::KNOWN * 8, known = const crate::dirty::KNOWN,
        dirty = const memcheck_translate::SHADOW_REGS, entered = const offset::LOCALS + 8 * crate::statistics::ENTERED as i32, undef = sym crate::startup::UNDEF,
        mark = const memcheck_abi::layout::RETURN_MARK, enter = sym super::enter_dirty,
        s1 = const S1, s2 = const S2, s3 = const S3, s5 = const S5, s8 = const S8, s9 = const S9,
    )
}
