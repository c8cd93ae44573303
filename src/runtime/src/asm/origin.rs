//! Origins of undefined values in frames, for translated code, without saving the registers: what `origin::of_range` and `owner::note` do,
//! in the simple cases. The question lies in the context's `frame_origin`, and so does the answer.
#![allow(unsafe_code, reason = "naked assembly routines")]

use core::arch::naked_asm;
use memcheck_abi::context::offset;
use memcheck_abi::layout::{HEAP_END, HEAP_START};

/// Registers kept.
macro_rules! begin {
    () => {
        "mov fs:[{kept}], rax
         mov fs:[{kept}+8], rcx
         mov fs:[{kept}+16], rdx
         mov fs:[{kept}+24], rbx
         mov fs:[{kept}+32], r8
         mov fs:[{kept}+40], r9
"
    };
}

/// Back, with an answer (80) or without (90).
macro_rules! end {
    () => {
        "80: mov qword ptr fs:[{known}], 1
         jmp 91f
         90: mov qword ptr fs:[{known}], 0
         91: mov rax, fs:[{kept}]
         mov rcx, fs:[{kept}+8]
         mov rdx, fs:[{kept}+16]
         mov rbx, fs:[{kept}+24]
         mov r8, fs:[{kept}+32]
         mov r9, fs:[{kept}+40]
         jmp fs:[{back}]
"
    };
}

/// rcx = how far it is from the slot in r8 to the next marked one, as `callstack` remembers for the key in rax; to 90 if it does not, or if
/// there is no mark. Uses rdx.
macro_rules! remembered_distance {
    () => {
        "movabs rdx, 0x9e3779b97f4a7c15
         imul rdx, rax
         shr rdx, {size_shift}
         lea rcx, [rip+{sizes}]
         mov rcx, [rcx+rdx*8]
         mov rdx, rcx
         shr rdx, {size_bits}
         cmp rdx, rax
         jne 90f
         and ecx, (1 << {size_bits}) - 1
         jz 90f
         shl rcx, 3
         cmp dword ptr gs:[r8+rcx], {mark}
         jne 90f
"
    };
}

/// r8 = slot of the return address of the call whose frame the address in r9 lies in, rbx = where that call is; to 90 if that is not found
/// at once. Uses rax, rcx, rdx.
macro_rules! find_frame {
    () => {
        concat!(
            "mov r8, rsp
         mov rbx, fs:[{pc}]
         test r8b, 7
         jnz 90f
         mov rax, gs:[r8]
         cmp eax, {mark}
         je 60f
         cmp rax, {signal_mark}
         je 90f
         mov rax, rbx
         bts rax, {inside}
         ",
            remembered_distance!(),
            "add r8, rcx
         60: cmp r8, r9
         jae 62f
         mov rax, [r8]
         lea rbx, [rax-1]
         mov ecx, gs:[r8+4]
         cmp ecx, -1
         je 90f
         test ecx, ecx
         jnz 61f
         ",
            remembered_distance!(),
            "mov gs:[r8+4], ecx
         61: add r8, rcx
         cmp dword ptr gs:[r8], {mark}
         je 60b
         jmp 90f
         62:
"
        )
    };
}

/// rax = `owner::digest` of the call at r8. Uses rcx.
macro_rules! digest {
    () => {
        "mov rax, [r8]
         rol rax, 40
         xor rax, r8
         movabs rcx, 0x9e3779b97f4a7c15
         imul rax, rcx
         shr rax, 64 - {digest_bits}
"
    };
}

/// r9 = the first undefined byte from r9 on, in whole words up to 64 bytes; to 90 if there is none, or if it is in the heap. Uses rax, rcx, rdx.
macro_rules! first_undefined {
    () => {
        "movabs rax, {heap_start}
         mov rcx, r9
         sub rcx, rax
         movabs rax, {heap_size}
         cmp rcx, rax
         jb 90f
         lea rdx, [r9+64]
         1: mov rax, gs:[r9]
         bsf rcx, rax
         jnz 2f
         add r9, 8
         cmp r9, rdx
         jb 1b
         jmp 90f
         2: shr ecx, 3
         add r9, rcx
"
    };
}

/// The origin word of the byte at r9 becomes the answer's tag; to 5 if there is none, to 4 if nobody noted whose frame it lies in. rdx = what was
/// noted. Uses rax, rcx.
macro_rules! origin_word {
    () => {
        "mov rcx, r9
         and rcx, -4
         movabs rax, {origin_distance}
         mov eax, [rcx+rax]
         mov fs:[{tag}], rax
         test eax, eax
         jz 5f
         mov rcx, r9
         shr rcx, 2
         mov eax, ecx
         and eax, {owners} - 1
         lea rdx, [rip+{noted}]
         mov rdx, [rdx+rax*8]
         mov rax, rdx
         shr rax, {digest_bits}
         cmp rax, rcx
         jne 4f
"
    };
}

/// The tag is an answer, unless it points to another place: that becomes the answer's place, to 90 if it is in the stack.
macro_rules! follow_tag {
    () => {
        "mov rax, fs:[{tag}]
         test al, 3
         jnz 80f
         cdqe
         add rax, fs:[{address}]
         mov fs:[{place}], rax
         cmp rax, fs:[{stack_low}]
         jb 80f
         cmp rax, fs:[{stack_high}]
         jb 90f
         jmp 80f
"
    };
}

/// The tag of the frame at r8 of the call at rbx, for a byte at r9, becomes the answer's; to 90 if it was not asked for before.
macro_rules! frame_tag {
    () => {
        "mov rcx, rbx
         shr rcx, 31
         jnz 90f
         lea rcx, [r8-{near}]
         cmp r9, rcx
         jae 7f
         or ebx, {far}
         7: mov ecx, ebx
         shr ecx, 4
         xor ecx, ebx
         and ecx, {tags} - 1
         lea rdx, [rip+{frame_tags}]
         mov rax, [rdx+rcx*8]
         mov rcx, rax
         shr rcx, 32
         cmp ecx, ebx
         jne 90f
         mov eax, eax
         mov fs:[{tag}], rax
"
    };
}

/// Where do the first undefined bytes from `address` on come from? They lie in a frame, within 64 bytes. Their origin word says it if it is of
/// the same call as the frame they lie in (4), else what is said of that frame (6).
#[unsafe(naked)]
pub extern "C" fn frame_origin() {
    naked_asm!(
        begin!(),
        "mov r9, fs:[{address}]
         ",
        first_undefined!(),
        "mov qword ptr fs:[{place}], 0
         ",
        origin_word!(),
        "mov fs:[{words}], rdx
         ",
        find_frame!(),
        digest!(),
        "mov rcx, fs:[{words}]
         and ecx, (1 << {digest_bits}) - 1
         cmp eax, ecx
         jne 6f
         4:
         ",
        follow_tag!(),
        "5:
         ",
        find_frame!(),
        "6:
         ",
        frame_tag!(),
        end!(),
        address = const offset::FRAME_ADDRESS, words = const offset::FRAME_WORDS, pc = const offset::FRAME_PC, back = const offset::FRAME_BACK,
        known = const offset::FRAME_KNOWN, tag = const offset::FRAME_TAG, place = const offset::FRAME_PLACE, kept = const offset::FRAME_KEPT,
        stack_low = const offset::STACK_LOW, stack_high = const offset::STACK_HIGH,
        heap_start = const HEAP_START, heap_size = const HEAP_END - HEAP_START, origin_distance = const memcheck_abi::layout::ORIGIN_DISTANCE,
        mark = const memcheck_abi::layout::RETURN_MARK, signal_mark = const memcheck_abi::layout::SIGNAL_MARK,
        sizes = sym memcheck_rt::callstack::SIZES, size_bits = const memcheck_rt::callstack::SIZE_BITS,
        size_shift = const memcheck_rt::callstack::SIZE_SHIFT, inside = const memcheck_rt::callstack::INSIDE.trailing_zeros(),
        noted = sym crate::owner::NOTED, owners = const crate::owner::ENTRIES, digest_bits = const crate::owner::DIGEST_BITS,
        frame_tags = sym crate::origin::FRAME_TAGS, tags = const crate::origin::TAGS,
        far = const crate::owner::FAR as u32, near = const crate::owner::NEAR,
    )
}

/// The `words` words at `address`, which lie in a frame, will have origins: note whose frame it is.
#[unsafe(naked)]
pub extern "C" fn frame_note() {
    naked_asm!(
        begin!(),
        "mov r9, fs:[{address}]
         ",
        find_frame!(),
        digest!(),
        "mov rcx, r9
         shr rcx, 2
         mov rdx, rcx
         shl rdx, {digest_bits}
         or rax, rdx
         and ecx, {owners} - 1
         mov r8, fs:[{words}]
         lea rdx, [rcx+r8]
         cmp edx, {owners}
         ja 90f
         lea rdx, [rip+{noted}]
         lea rdx, [rdx+rcx*8]
         1: mov [rdx], rax
         add rax, 1 << {digest_bits}
         add rdx, 8
         dec r8
         jnz 1b
         ",
        end!(),
        address = const offset::FRAME_ADDRESS, words = const offset::FRAME_WORDS, pc = const offset::FRAME_PC, back = const offset::FRAME_BACK,
        known = const offset::FRAME_KNOWN, kept = const offset::FRAME_KEPT,
        mark = const memcheck_abi::layout::RETURN_MARK, signal_mark = const memcheck_abi::layout::SIGNAL_MARK,
        sizes = sym memcheck_rt::callstack::SIZES, size_bits = const memcheck_rt::callstack::SIZE_BITS,
        size_shift = const memcheck_rt::callstack::SIZE_SHIFT, inside = const memcheck_rt::callstack::INSIDE.trailing_zeros(),
        noted = sym crate::owner::NOTED, owners = const crate::owner::ENTRIES, digest_bits = const crate::owner::DIGEST_BITS,
    )
}
