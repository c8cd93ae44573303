//! The routines that translated code jumps to, and the ways back. All assembly of the runtime is here and in `leave`.
//!
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
pub(crate) const S0: i32 = offset::SCRATCH;
pub(crate) const S1: i32 = offset::SCRATCH + 8;
pub(crate) const S2: i32 = offset::SCRATCH + 16;
pub(crate) const S3: i32 = offset::SCRATCH + 24;
pub(crate) const S4: i32 = offset::SCRATCH + 32;
pub(crate) const S5: i32 = offset::SCRATCH + 40;
pub(crate) const S8: i32 = offset::SCRATCH + 64;
pub(crate) const S9: i32 = offset::SCRATCH + 72;
pub(crate) const S10: i32 = offset::SCRATCH + 80;

/// Save everything; rax comes from slot 1, rdi = what rax held on entry. Clobbers all caller-saved registers afterwards.
macro_rules! save {
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
         mov fs:[{regs}+88], r11
         mov fs:[{regs}+96], r12
         mov fs:[{regs}+104], r13
         mov fs:[{regs}+112], r14
         mov fs:[{regs}+120], r15
         mov fs:[{guest_rsp}], rsp
         mov rsp, fs:[{runtime_rsp}]
         pushfq
         pop fs:[{regs}+136]
         cld
         mov rdi, rax
         mov rax, fs:[{s1}]
         mov fs:[{regs}], rax
         mov rbx, fs:[0]
         movups [rbx+{xsave}], xmm0
         movups [rbx+{xsave}+16], xmm1
         movups [rbx+{xsave}+32], xmm2
         movups [rbx+{xsave}+48], xmm3
         movups [rbx+{xsave}+64], xmm4
         movups [rbx+{xsave}+80], xmm5
         movups [rbx+{xsave}+96], xmm6
         movups [rbx+{xsave}+112], xmm7
         movups [rbx+{xsave}+128], xmm8
         movups [rbx+{xsave}+144], xmm9
         movups [rbx+{xsave}+160], xmm10
         movups [rbx+{xsave}+176], xmm11
         movups [rbx+{xsave}+192], xmm12
         movups [rbx+{xsave}+208], xmm13
         movups [rbx+{xsave}+224], xmm14
         movups [rbx+{xsave}+240], xmm15
         "
    };
}

/// Restore everything from `ctx.regs`; rbx is still the context. Comes to a safe point first if a signal waits. popfq is slow, and needed
/// only for the direction flag.
macro_rules! restore {
    () => {
        "cmp dword ptr fs:[{pending}], 0
         jne 99f
         98:
         movups xmm0, [rbx+{xsave}]
         movups xmm1, [rbx+{xsave}+16]
         movups xmm2, [rbx+{xsave}+32]
         movups xmm3, [rbx+{xsave}+48]
         movups xmm4, [rbx+{xsave}+64]
         movups xmm5, [rbx+{xsave}+80]
         movups xmm6, [rbx+{xsave}+96]
         movups xmm7, [rbx+{xsave}+112]
         movups xmm8, [rbx+{xsave}+128]
         movups xmm9, [rbx+{xsave}+144]
         movups xmm10, [rbx+{xsave}+160]
         movups xmm11, [rbx+{xsave}+176]
         movups xmm12, [rbx+{xsave}+192]
         movups xmm13, [rbx+{xsave}+208]
         movups xmm14, [rbx+{xsave}+224]
         movups xmm15, [rbx+{xsave}+240]
         mov rax, fs:[{regs}+136]
         test eax, 0x400
         jnz 97f
         mov ecx, eax
         shr ecx, 11
         and ecx, 1
         mov ah, al
         add cl, 0x7f
         sahf
         96:
         mov rax, fs:[{regs}]
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
         mov rsp, fs:[{regs}+32]
         jmp fs:[{s3}]
         97:
         push fs:[{regs}+136]
         popfq
         jmp 96b
         99:
         call {safe_point}
         jmp 98b
         "
    };
}

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
routine!(stack_slow, "mov fs:[{s1}], rax\n mov rcx, fs:[{s0}]\n", crate::stackmove::moved, "");
// Program registers all in place, ctx.target set: a signal handler begins.
routine!(signal_entry, "mov fs:[{s1}], rax\n", crate::safepoint::handler_begins, "mov fs:[{s3}], rax\n");
// Program registers all in place, ctx.target set: go on there, the stack may have changed.
routine!(resume, "mov fs:[{s1}], rax\n", crate::safepoint::resumed, "mov fs:[{s3}], rax\n");

/// The check's slow side, first part (16 bytes at most; A bits of 16 addresses fit the 4 bytes that are read): accesses that are fine by A bits or stack pointer need no more than this.
/// A store makes its bytes defined; a load of undefined bytes goes on.
#[unsafe(naked)]
pub extern "C" fn check() {
    naked_asm!(
        "lahf
         seto al
         mov fs:[{s5}], rax
         mov fs:[{s8}], rcx
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
         jb 5f
         2: movzx eax, dx
         cmp eax, 16
         ja 90f
         mov fs:[{s10}], rax
         mov rax, rcx
         shr rax, 3
         bts rax, 45
         bts rax, 46
         mov eax, dword ptr [rax]
         and ecx, 7
         shr eax, cl
         mov rcx, fs:[{s10}]
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
         28: mov qword ptr gs:[rcx], 0
         80:
         mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         mov rax, fs:[{s1}]
         jmp fs:[{s3}]
         90:
         mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         jmp {slow}
         70: mov rcx, fs:[{s2}]
         and rcx, -8
         cmp dword ptr gs:[rcx], {mark}
         je 80b
         mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         cmp dword ptr [rip+{undef}], 0
         je 80b
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
         jmp 80b
         75: mov rcx, fs:[{s8}]
         mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         jmp {enter}
        ",
        entries = sym crate::dirty::ENTRIES, bodies = const crate::dirty::KNOWN * 8, known = const crate::dirty::KNOWN, dirty = const memcheck_translate::SHADOW_REGS,
        undef = sym crate::startup::UNDEF, mark = const memcheck_abi::layout::RETURN_MARK, enter = sym enter_dirty,
        s1 = const S1, s2 = const S2, s3 = const S3, s4 = const S4, s5 = const S5, s8 = const S8, s9 = const S9, s10 = const S10,
        stack_high = const offset::STACK_HIGH, store = const memcheck_translate::STORE, slow = sym check_slow,
    )
}

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
         lahf
         seto al
         mov fs:[{s5}], rax
         mov rax, fs:[{target}]
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
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         mov rax, fs:[{s1}]
         jmp rcx
         7: mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         mov rax, fs:[{s1}]
         jmp {slow}",
        s1 = const S1, s5 = const S5, s9 = const S9, target = const offset::TARGET, pending = const offset::PENDING,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, cache_start = const memcheck_abi::layout::CACHE_START,
        far = sym crate::far::TABLE, slow = sym dispatch_slow,
    )
}

/// End of a dirty region: to clean code if no register is dirty. rcx in slot 0, ctx.target.
#[unsafe(naked)]
pub extern "C" fn dirty_branch() {
    naked_asm!(
        "mov rcx, fs:[{dirty}]
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
        dirty = const memcheck_translate::SHADOW_REGS, known = sym crate::leave::leave_known, target = const offset::TARGET,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, dispatch = sym dispatch,
    )
}

/// From this size on a released frame is painted together with what a leaf may have left in its red zone below; for less it would be
/// half of the work, and leaves with frames are rare.
const LONG_FRAME: u64 = 256;

/// Paint released stack as no longer accessible: [slot 2 - shift, rsp + extra - shift), rcx in slot 0. Long frames by
/// 64 bytes at a time; the vector register meanwhile lies in slots 10 and 11.
#[unsafe(naked)]
pub extern "C" fn release() {
    naked_asm!(
        "mov fs:[{s1}], rax
         lahf
         seto al
         mov fs:[{s5}], rax
         mov fs:[{s9}], rdx
         mov rcx, fs:[{s2}]
         mov rdx, fs:[{s4}]
         mov eax, edx
         shr edx, 8
         add rdx, rsp
         test al, 1
         jnz 6f
         add rcx, -128
         add rdx, -128
         jmp 7f
         6: mov rax, rdx
         sub rax, rcx
         cmp rax, {long_frame}
         jb 7f
         add rcx, -128
         7: cmp rcx, rdx
         jae 80f
         mov rax, rdx
         sub rax, rcx
         cmp rax, 0x100000
         ja 90f
         cmp rdx, fs:[{stack_high}]
         ja 90f
         cmp rcx, fs:[{stack_low}]
         jb 90f
         cmp rax, 128
         jb 2f
         movups fs:[{s10}], xmm0
         pcmpeqd xmm0, xmm0
         add rdx, -64
         5: movups gs:[rcx], xmm0
         movups gs:[rcx+16], xmm0
         movups gs:[rcx+32], xmm0
         movups gs:[rcx+48], xmm0
         add rcx, 64
         cmp rcx, rdx
         jbe 5b
         add rdx, 64
         movups xmm0, fs:[{s10}]
         2: add rcx, 8
         cmp rcx, rdx
         ja 3f
         mov qword ptr gs:[rcx-8], -1
         jmp 2b
         3: add rcx, -8
         4: cmp rcx, rdx
         jae 80f
         mov byte ptr gs:[rcx], -1
         inc rcx
         jmp 4b
         80: mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         mov rax, fs:[{s1}]
         mov rcx, fs:[{s0}]
         jmp fs:[{s3}]
         90: mov rdx, fs:[{s9}]
         mov rax, fs:[{s5}]
         add al, 0x7f
         sahf
         mov rax, fs:[{s1}]
         jmp {slow}
        ",
        s0 = const S0, s1 = const S1, s2 = const S2, s3 = const S3, s4 = const S4, s5 = const S5, s9 = const S9, s10 = const S10,
        stack_high = const offset::STACK_HIGH, stack_low = const offset::STACK_LOW, slow = sym stack_slow, long_frame = const LONG_FRAME,
    )
}

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

/// A replaced function of the program was called: slot 4 = its number (bit 16: IFUNC resolver), regs.rip = its entry.
/// Arguments are in the registers of the C convention and stay there; the program's registers are kept for a fault. On return the others
/// are cleared: pointers that the runtime left there would hide leaks.
#[unsafe(naked)]
pub extern "C" fn replace() {
    naked_asm!(
        "mov fs:[{regs}], rax
         mov fs:[{regs}+8], rcx
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
         mov eax, fs:[{s4}]
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
         mov qword ptr gs:[rsp-8], -1
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
         9: call {null}
         test rax, rax
         jz 2b
         mov fs:[{s3}], rax
         jmp {again}
         ",
        dirty = const memcheck_translate::SHADOW_REGS, dirty_branch = sym dirty_branch, leave_return = const memcheck_translate::LEAVE_RETURN, s3 = const S3, null = sym crate::replaced::null_result, again = sym restore_arguments,
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, runtime_rsp = const offset::RUNTIME_RSP,
        s0 = const S0, s4 = const S4, pending = const offset::PENDING, target = const offset::TARGET,
        branch_table = const memcheck_abi::layout::TABLE_DISPLACEMENT, magic = const memcheck_abi::layout::MAGIC_BASE,
        code_end = const memcheck_abi::layout::CODE_END, table = sym crate::replaced::TABLE, dispatch = sym dispatch, leave = sym crate::safepoint::after_replaced,
    )
}

/// Go to slot 3 with the general registers that `replace` kept; vector registers and flags mean nothing at a function's entry.
#[unsafe(naked)]
extern "C" fn restore_arguments() {
    naked_asm!(
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
         mov r12, fs:[{regs}+96]
         mov r13, fs:[{regs}+104]
         mov r14, fs:[{regs}+112]
         mov r15, fs:[{regs}+120]
         mov rsp, fs:[{guest_rsp}]
         jmp fs:[{s3}]",
        regs = const offset::REGS, guest_rsp = const offset::GUEST_RSP, s3 = const S3,
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

/// The tracer saw a fault or stop request: rdi = record, rsp = the runtime's stack.
/// The vector registers are saved first, since the program may go on where it was.
#[unsafe(naked)]
pub extern "C" fn fault_entry() {
    naked_asm!(
        "cld
         mov rbx, fs:[0]
         movups [rbx+{xsave}], xmm0
         movups [rbx+{xsave}+16], xmm1
         movups [rbx+{xsave}+32], xmm2
         movups [rbx+{xsave}+48], xmm3
         movups [rbx+{xsave}+64], xmm4
         movups [rbx+{xsave}+80], xmm5
         movups [rbx+{xsave}+96], xmm6
         movups [rbx+{xsave}+112], xmm7
         movups [rbx+{xsave}+128], xmm8
         movups [rbx+{xsave}+144], xmm9
         movups [rbx+{xsave}+160], xmm10
         movups [rbx+{xsave}+176], xmm11
         movups [rbx+{xsave}+192], xmm12
         movups [rbx+{xsave}+208], xmm13
         movups [rbx+{xsave}+224], xmm14
         movups [rbx+{xsave}+240], xmm15
         call {f}
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
         movups xmm0, [rax+{xsave}]
         movups xmm1, [rax+{xsave}+16]
         movups xmm2, [rax+{xsave}+32]
         movups xmm3, [rax+{xsave}+48]
         movups xmm4, [rax+{xsave}+64]
         movups xmm5, [rax+{xsave}+80]
         movups xmm6, [rax+{xsave}+96]
         movups xmm7, [rax+{xsave}+112]
         movups xmm8, [rax+{xsave}+128]
         movups xmm9, [rax+{xsave}+144]
         movups xmm10, [rax+{xsave}+160]
         movups xmm11, [rax+{xsave}+176]
         movups xmm12, [rax+{xsave}+192]
         movups xmm13, [rax+{xsave}+208]
         movups xmm14, [rax+{xsave}+224]
         movups xmm15, [rax+{xsave}+240]
         mov eax, {code}
         jmp {trap}",
        xsave = const offset::XSAVE, code = const memcheck_abi::event::Trap::SafePoint as u32, trap = sym memcheck_rt::report::trap_stub,
    )
}

/// Store the program's vector state at rsi (64-byte aligned): the components in rdx, or what fxsave knows if there are none. The low halves
/// that the runtime may have changed come from the context at rdi.
#[unsafe(naked)]
pub extern "C" fn store_vectors(_ctx: *const memcheck_abi::context::ThreadContext, _to: *mut u8, _components: u64) {
    naked_asm!(
        "movups xmm0, [rdi+{xsave}]
         movups xmm1, [rdi+{xsave}+16]
         movups xmm2, [rdi+{xsave}+32]
         movups xmm3, [rdi+{xsave}+48]
         movups xmm4, [rdi+{xsave}+64]
         movups xmm5, [rdi+{xsave}+80]
         movups xmm6, [rdi+{xsave}+96]
         movups xmm7, [rdi+{xsave}+112]
         movups xmm8, [rdi+{xsave}+128]
         movups xmm9, [rdi+{xsave}+144]
         movups xmm10, [rdi+{xsave}+160]
         movups xmm11, [rdi+{xsave}+176]
         movups xmm12, [rdi+{xsave}+192]
         movups xmm13, [rdi+{xsave}+208]
         movups xmm14, [rdi+{xsave}+224]
         movups xmm15, [rdi+{xsave}+240]
         mov eax, edx
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
