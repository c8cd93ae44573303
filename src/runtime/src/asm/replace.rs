//! Replaced functions of the program (malloc, strlen, ...): called like the program's own, return to its caller. See the module above
//! for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S0, S3, S4};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// A replaced function of the program was called: slot 4 = its number (bit 16: IFUNC resolver), regs.rip = its entry.
/// Arguments are in the registers of the C convention and stay there; the program's registers are kept for a fault. On return the others
/// are cleared: pointers that the runtime left there would hide leaks. So would those in the red zone under the return address: lazy binding
/// saves registers there, and what it replaces would have overwritten them. (Behind a call the stack pointer is a multiple of 16: none of
/// these stores crosses a page, which would cost as much as forty that do not.)
#[unsafe(naked)]
pub extern "C" fn replace() {
    naked_asm!(
        "mov fs:[{regs}], rax
         ",
        store_general!(),
        "         mov eax, fs:[{s4}]
         test eax, 0xffff0000
         jnz 5f
         lea r11, [rip+{table}]
         mov rax, [r11+rax*8]
         cld
         call rax
         test rax, rax
         jz 9f
         2: cmp dword ptr fs:[{pending}], 0
         jne 7f
         3: mov rsp, fs:[{guest_rsp}]
         xor edx, edx
         xor esi, esi
         xor edi, edi
         xor r8d, r8d
         xor r9d, r9d
         xor r10d, r10d
         xor r11d, r11d
         pop rcx
         pcmpeqd xmm0, xmm0
         movups gs:[rsp-16], xmm0
         movups gs:[rsp-32], xmm0
         movups gs:[rsp-48], xmm0
         movups gs:[rsp-64], xmm0
         movups gs:[rsp-80], xmm0
         movups gs:[rsp-96], xmm0
         movups gs:[rsp-112], xmm0
         movups gs:[rsp-128], xmm0
         mov qword ptr gs:[rsp-136], -1
         mov fs:[{target}], rcx
         mov fs:[{s0}], rcx
         cmp qword ptr fs:[{dirty}], 0
         jne 6f
         cmp rcx, {code_end}
         jae 4f
         mov rcx, gs:[rcx*8+{branch_table}]
         jrcxz 4f
         jmp rcx
         4: jmp {dispatch}
         6: mov dword ptr fs:[{s4}], {leave_return}
         jmp {dirty_branch}
         5: movzx eax, ax
         shl eax, 4
         add eax, {magic}
         jmp 2b
         7: mov fs:[{regs}], rax
         mov rdi, rax
         call {leave}
         mov rax, fs:[{regs}]
         jmp 3b
         9: mov eax, fs:[{s4}]
         lea r11, [rip+{null_matters}]
         cmp byte ptr [r11+rax], 0
         mov eax, 0
         je 2b
         call {null}
         test rax, rax
         jz 2b
         mov fs:[{s3}], rax
         jmp {again}
         ",
        dirty = const memcheck_translate::SHADOW_REGS, dirty_branch = sym super::dirty_branch, leave_return = const memcheck_translate::LEAVE_RETURN, s3 = const S3, null = sym crate::replaced::null_result, null_matters = sym crate::replaced::NULL_MATTERS, again = sym restore_arguments,
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
        s0 = const S0, s4 = const S4, pending = const offset::PENDING, target = const offset::TARGET,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, magic = const memcheck_abi::layout::MAGIC_BASE,
        code_end = const memcheck_abi::layout::CODE_END, table = sym crate::replaced::TABLE, dispatch = sym super::dispatch, leave = sym crate::safepoint::after_replaced,
    )
}

/// Go to slot 3 with the general registers that `replace` kept; vector registers and flags mean nothing at a function's entry.
#[unsafe(naked)]
extern "C" fn restore_arguments() {
    naked_asm!(
        load_general!(),
        "         mov rsp, fs:[{guest_rsp}]
         jmp fs:[{s3}]",
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, s3 = const S3,
    )
}
