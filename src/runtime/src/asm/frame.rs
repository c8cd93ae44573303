//! Painting released stack as no longer accessible. See the module above for conventions and slots.
#![allow(unsafe_code, reason = "naked assembly routines")]

use super::{S0, S1, S2, S3, S4, S5, S9, S10};
use core::arch::naked_asm;
use memcheck_abi::context::offset;

/// From this size on a released frame is painted together with what a leaf may have left in its red zone below. For less it would be
/// half of the work: there three words below the frame are asked first (arrays are aligned to 16 bytes), which the return from a call has painted.
const LONG_FRAME: u64 = 256;

const _: () = assert!(memcheck_abi::layout::V_DISTANCE.is_multiple_of(64), "lines of the stack and lines of its V");

/// What to paint: rcx and rdx, its two ends; the flags are in slot 5, rdx in slot 9. To 80 if nothing is, to 90 if it is not on this stack,
/// or large. Uses rax, which then is the size.
macro_rules! released_range {
    () => {
        "mov rcx, fs:[{s2}]
         mov rdx, fs:[{s4}]
         mov eax, edx
         shr edx, 8
         add rdx, rsp
         test al, 1
         jnz 6f
         add rcx, -128
         add rdx, -128
         jmp 7f
         6: test al, {and_below}
         jnz 8f
         mov rax, rdx
         sub rax, rcx
         cmp rax, {long_frame}
         jae 8f
         mov rax, gs:[rcx-8]
         and rax, gs:[rcx-16]
         and rax, gs:[rcx-24]
         cmp rax, -1
         je 7f
         8: add rcx, -128
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
"
    };
}

/// Paint V from rcx to rdx: what is long by 64 bytes with a vector register of the program, the rest (from 2 on) by words and bytes.
macro_rules! paint {
    () => {
        "movups fs:[{s10}], xmm0
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
"
    };
}

/// Paint V from rcx to rdx, at least 128 bytes, with private registers, and go on at 80. In between (31) only what is not painted yet.
macro_rules! paint_with_private_registers {
    () => {
        "vmovdqu64 gs:[rcx], zmm31
         mov fs:[{s10}], rdx
         add rcx, 64
         and rcx, -64
         and rdx, -64
         lea rax, [rcx+256]
         cmp rax, rdx
         ja 33f
         jmp 35f
         31: vmovdqa64 zmm16, gs:[rcx]
         vpandq zmm16, zmm16, gs:[rcx+64]
         vpandq zmm16, zmm16, gs:[rcx+128]
         vpandq zmm16, zmm16, gs:[rcx+192]
         vpcmpud k7, zmm16, zmm31, 4
         kortestw k7, k7
         jz 32f
         35: vmovdqa64 gs:[rcx], zmm31
         vmovdqa64 gs:[rcx+64], zmm31
         vmovdqa64 gs:[rcx+128], zmm31
         vmovdqa64 gs:[rcx+192], zmm31
         32: mov rcx, rax
         add rax, 256
         cmp rax, rdx
         jbe 31b
         33: cmp rcx, rdx
         jae 34f
         vmovdqa64 gs:[rcx], zmm31
         add rcx, 64
         jmp 33b
         34: mov rdx, fs:[{s10}]
         vmovdqu64 gs:[rdx-64], zmm31
         jmp 80b
"
    };
}

/// Paint released stack as no longer accessible: [slot 2 - shift, rsp + extra - shift), rcx in slot 0. Long frames by
/// 64 bytes at a time; the vector register meanwhile lies in slots 10 and 11. Of frames this long most bytes were often never written, so
/// with private registers (zmm16 and above, see `translate::Options`) they are looked at first: reading is twice as fast as writing. The lower
/// end is painted unasked: what the frame's own calls have left there is often still on its way to the cache, and a look would wait for it.
/// So is the upper end, after all looks. What lies between goes in whole lines of the cache: V of a multiple of 64 lies at one.
#[unsafe(naked)]
pub extern "C" fn release() {
    naked_asm!(
        "mov fs:[{s1}], rax
         ",
        keep_flags!(),
        "mov fs:[{s9}], rdx
         ",
        released_range!(),
        "cmp rax, 128
         jb 2f
         cmp dword ptr [rip+{private}], 0
         jne 30f
         ",
        paint!(),
        "80: mov rdx, fs:[{s9}]
         ",
        flags_back!(),
        "mov rax, fs:[{s1}]
         mov rcx, fs:[{s0}]
         jmp fs:[{s3}]
         30:
         ",
        paint_with_private_registers!(),
        "90: mov rdx, fs:[{s9}]
         ",
        flags_back!(),
        "mov rax, fs:[{s1}]
         jmp {slow}
        ",
        s0 = const S0, s1 = const S1, s2 = const S2, s3 = const S3, s4 = const S4, s5 = const S5, s9 = const S9, s10 = const S10,
        stack_high = const offset::STACK_HIGH, stack_low = const offset::STACK_LOW, slow = sym super::stack_slow, long_frame = const LONG_FRAME,
        and_below = const memcheck_translate::stack::AND_BELOW,
        private = sym crate::vectors::PRIVATE,
    )
}

/// The stack pointer was moved by more than a small constant: slot 2 = its old value, rcx in slot 0. On one and the same stack a release is
/// painted by `release` (unless it may be a jump out of calls or a switch, see `stackmove`), and growth that is small or reaches no memory that was never painted needs nothing.
#[unsafe(naked)]
pub extern "C" fn stack_moved() {
    naked_asm!(
        "mov fs:[{s1}], rax
         ",
        keep_flags!(),
        "cmp qword ptr fs:[{floor}], 0
         jne 90f
         mov rcx, fs:[{s2}]
         cmp rcx, rsp
         jb 70f
         cmp rcx, fs:[{stack_high}]
         ja 90f
         cmp rsp, fs:[{painted_low}]
         jae 80f
         sub rcx, rsp
         cmp rcx, {large}
         jae 90f
         cmp rsp, fs:[{stack_low}]
         jb 90f
         80: ",
        flags_back!(),
        "mov rax, fs:[{s1}]
         mov rcx, fs:[{s0}]
         jmp fs:[{s3}]
         70: test byte ptr fs:[{s4}], {from_anywhere}
         jne 90f
         ",
        flags_back!(),
        "mov rax, fs:[{s1}]
         jmp {release}
         90: ",
        flags_back!(),
        "mov rax, fs:[{s1}]
         jmp {slow}
        ",
        s0 = const S0, s1 = const S1, s2 = const S2, s3 = const S3, s4 = const S4, s5 = const S5, stack_high = const offset::STACK_HIGH,
        from_anywhere = const memcheck_translate::stack::FROM_ANYWHERE, stack_low = const offset::STACK_LOW, floor = const offset::STACK_FLOOR, painted_low = const offset::PAINTED_LOW,
        large = const crate::stackmove::LARGE, release = sym release, slow = sym super::stack_slow,
    )
}
