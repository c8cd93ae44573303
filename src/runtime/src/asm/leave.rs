//! Leaving a region of dirty code without saving the registers; see `crate::dirty` for what it decides, the module above for
//! conventions and slots.
#![allow(unsafe_code, reason = "a naked assembly routine")]

use super::{S0, S1, S3, S4, S5, S8, S9, S10};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// The registers used here and the flags are the program's again.
macro_rules! back {
    () => {
        concat!(
            "mov r8, fs:[{s8}]
         mov rdx, fs:[{s9}]
         mov rbx, fs:[{s10}]
         ",
            flags_back!(),
            "mov rax, fs:[{s1}]"
        )
    };
}

/// rcx = the mask of dirty registers; to 90 if bit 63 is set.
macro_rules! dirty_registers {
    () => {
        "mov ecx, fs:[{dirty}]
         mov eax, fs:[{dirty}+4]
         shl rax, 32
         or rcx, rax
         bt rcx, 63
         jc 90f
"
    };
}

/// rbx = the target's entry in `dirty::TARGETS`, rdx = vector registers that may be stale there; to 20 if the target was not met before.
macro_rules! find_target {
    () => {
        "mov rax, fs:[{target}]
         mov rdx, rax
         shr rdx, 12
         xor edx, eax
         and edx, {known} - 1
         lea rbx, [rip+{targets}]
         lea rbx, [rbx+rdx*8]
         cmp [rbx], rax
         jne 20f
         mov rdx, [rbx+{stale}]
"
    };
}

/// rcx = what is kept of it on a way of kind r8. Uses rax.
macro_rules! keep_on_this_way {
    () => {
        "lea rax, [rip+{keeps}]
         and rcx, [rax+r8*8]
"
    };
}

/// `dirty::stale`: take those registers from rcx that are in rdx, too, and hold no undefined number (the low four bytes or eight, and no
/// others). Uses rax, rdx, r8.
macro_rules! forget_stale {
    () => {
        "and rdx, rcx
         shr rdx, {vec0}
         shl rdx, {vec0}
         jz 5f
         3: bsf rax, rdx
         btr rdx, rax
         mov r8, rax
         shl r8, 6
         add r8, fs:[0]
         cmp qword ptr [r8+{vec}+8], 0
         jne 4f
         cmp qword ptr [r8+{vec}+16], 0
         jne 4f
         cmp qword ptr [r8+{vec}+24], 0
         jne 4f
         cmp qword ptr [r8+{vec}], -1
         je 6f
         cmp dword ptr [r8+{vec}], -1
         jne 4f
         cmp dword ptr [r8+{vec}+4], 0
         je 6f
         4: btr rcx, rax
         6: test rdx, rdx
         jnz 3b
         5:
"
    };
}

/// `dirty::leave` for targets that were met before, without saving the registers; rcx = the mask of dirty registers. Forgets what is
/// dead or stale at the target and goes on there (8 if nothing is left: in clean code). What is not simple (90) is left to the Rust part,
/// untouched. A return that takes nothing along needs no such knowledge, nor does one, or a call, that takes along only what copies have left
/// behind in vector registers (20). Slot 4 has the kind of the way in its low byte, and the vector registers that the region wrote above.
#[unsafe(naked)]
pub extern "C" fn leave_known() {
    naked_asm!(
        "mov fs:[{s1}], rax
         mov fs:[{s8}], r8
         mov fs:[{s9}], rdx
         mov fs:[{s10}], rbx
         ",
        keep_flags!(),
        dirty_registers!(),
        "mov eax, fs:[{s4}]
         movzx r8d, al
         cmp r8d, {leave_return}
         jne 9f
         ",
        keep_on_this_way!(),
        "jz 8f
         9:
         ",
        find_target!(),
        "mov eax, fs:[{s4}]
         movzx r8d, al
         test r8d, r8d
         jz 2f
         shr eax, 8
         movzx eax, ax
         shl rax, {vec0}
         not rax
         or rdx, rax
         2:
         ",
        keep_on_this_way!(),
        "mov rax, [rbx+{dead}]
         not rax
         and rcx, rax
         22:
         ",
        forget_stale!(),
        "test rcx, rcx
         jz 8f
         test rbx, rbx
         jz 90f
         mov rdx, [rbx+{bodies}]
         mov rax, fs:[{target}]
         cmp [rbx], rax
         jne 90f
         mov fs:[{dirty}], rcx
         mov fs:[{s3}], rdx
         ",
        back!(),
        "mov rcx, fs:[{s0}]
         jmp fs:[{s3}]
         8: mov qword ptr fs:[{dirty}], 0
         ",
        back!(),
        "jmp {branch}
         20: test r8d, r8d
         jz 90f
         xor ebx, ebx
         mov edx, fs:[{s4}]
         shr edx, 8
         movzx edx, dx
         shl rdx, {vec0}
         not rdx
         ",
        keep_on_this_way!(),
        "jmp 22b
         90:
         ",
        back!(),
        "jmp {leave}",
        s0 = const S0, s1 = const S1, s3 = const S3, s4 = const S4, s5 = const S5, s8 = const S8, s9 = const S9, s10 = const S10,
        target = const offset::TARGET, known = const crate::dirty::KNOWN, targets = sym crate::dirty::TARGETS,
        bodies = const crate::dirty::KNOWN * 8, dead = const crate::dirty::KNOWN * 16, stale = const crate::dirty::KNOWN * 24,
        keeps = sym crate::dirty::KEEPS, vec0 = const memcheck_translate::shadow_layout::VEC0,
        vec = const memcheck_translate::SHADOW_REGS + memcheck_translate::shadow_layout::VEC - 64 * memcheck_translate::shadow_layout::VEC0 as i32,
        leave_return = const memcheck_translate::LEAVE_RETURN,
        dirty = const memcheck_translate::SHADOW_REGS, branch = sym super::dirty_branch, leave = sym super::leave_dirty,
    )
}
