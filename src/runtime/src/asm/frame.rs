//! Painting released stack as no longer accessible. See the module above for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S0, S1, S2, S3, S4, S5, S9, S10};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

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
        stack_high = const offset::STACK_HIGH, stack_low = const offset::STACK_LOW, slow = sym super::stack_slow, long_frame = const LONG_FRAME,
    )
}
