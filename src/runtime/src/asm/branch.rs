//! Branches to program addresses that are not linked. See the module above for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S1, S5, S9};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// Go to ctx.target, rcx in slot 0: a low target by the branch table, a high one by the table of `far`. The latter comes here at
/// every branch, so a waiting signal must be noticed.
#[unsafe(naked)]
pub extern "C" fn dispatch() {
    naked_asm!(
        "mov ecx, fs:[{target}+4]
         jrcxz 5f
         jmp 8f
         5: mov rcx, fs:[{target}]
         mov rcx, gs:[rcx*8+{branch_table}]
         jrcxz 6f
         jmp rcx
         6: jmp {slow}
         8: mov fs:[{s1}], rax
         mov fs:[{s9}], rdx
         ",
        keep_flags!(),
        "         mov rax, fs:[{target}]
         mov rdx, rax
         shr rdx, 16
         mov ecx, edx
         xor ecx, eax
         movzx ecx, cx
         lea rax, [rip+{far}]
         mov rcx, [rax+rcx*8]
         mov rax, rcx
         shr rax, 32
         xor eax, edx
         or eax, fs:[{pending}]
         jnz 7f
         mov ecx, ecx
         movabs rax, {cache_start}
         add rcx, rax
         mov rdx, fs:[{s9}]
         ",
        flags_back!(),
        "         mov rax, fs:[{s1}]
         jmp rcx
         7: mov rdx, fs:[{s9}]
         ",
        flags_back!(),
        "         mov rax, fs:[{s1}]
         jmp {slow}",
        s1 = const S1, s5 = const S5, s9 = const S9, target = const offset::TARGET, pending = const offset::PENDING,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, cache_start = const memcheck_abi::layout::CACHE_START,
        far = sym crate::far::TABLE, slow = sym super::dispatch_slow,
    )
}

/// End of a dirty region: to clean code if no register is dirty. rcx in slot 0, ctx.target. The mask is read in halves, as translated code
/// writes it: a load of both would wait for the last store.
#[unsafe(naked)]
pub extern "C" fn dirty_branch() {
    naked_asm!(
        "mov ecx, fs:[{dirty}]
         jrcxz 4f
         jmp {known}
         4: mov ecx, fs:[{dirty}+4]
         jrcxz 5f
         jmp {known}
         5: mov ecx, fs:[{target}+4]
         jrcxz 7f
         jmp {dispatch}
         7: mov rcx, fs:[{target}]
         mov rcx, gs:[rcx*8+{branch_table}]
         jrcxz 6f
         jmp rcx
         6: jmp {dispatch}",
        dirty = const memcheck_translate::SHADOW_REGS, known = sym super::leave::leave_known, target = const offset::TARGET,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, dispatch = sym dispatch,
    )
}
