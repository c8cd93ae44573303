//! Root of the freestanding image: configuration block, allocator, panic handler, memory functions.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "freestanding: symbols that the compiler and the linker expect")]

use memcheck_abi::config::{Config, MAGIC, MAX_MAPPINGS, Mapping};
use memcheck_rt::arena::Arena;
use memcheck_rt::report::trap_stub;
use memcheck_runtime::asm;

#[global_allocator]
static ARENA: Arena = Arena;

/// First thing in the image; see the linker script.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".config")]
pub static mut MEMCHECK_CONFIG: Config = Config {
    magic: MAGIC,
    entry: 0,
    trap: 0,
    resume: 0,
    syscall_check: 0,
    syscall_insn: 0,
    syscall_after: 0,
    fault_entry: 0,
    signal_entry: 0,
    start_rip: 0,
    mapping_count: 0,
    undef_value_errors: 1,
    track_origins: 1,
    num_callers: 12,
    freelist_volume: 20_000_000,
    freelist_big_blocks: 1_000_000,
    redzone: 16,
    alignment: 16,
    malloc_fill: -1,
    free_fill: -1,
    show_mismatched_frees: 1,
    partial_loads_ok: 1,
    keep_stacks: 3,
    run_libc_freeres: 1,
    trace_children: 0,
    stack_limit: 8 << 20,
    code_cache: u64::MAX,
    personality: 0,
    tracer: 0,
    parent: 0,
    realloc_zero_keeps: 0,
    show_realloc_zero: 0,
    show_bad_alignments: 0,
    track_fds: 0,
    trace_malloc: 0,
    tally_places: 0,
    stop_at_start: 0,
    mappings: [Mapping { start: 0, end: 0, prot: 0, kind: 0 }; MAX_MAPPINGS],
    exe: [0; 4096],
};

/// Code addresses that the tracer must know, in the order of the configuration's fields from `entry` on. The build copies them there
/// (a constant cannot hold an address as a number) and keeps everything else alive through them.
#[unsafe(no_mangle)]
pub static MEMCHECK_START: [unsafe extern "C" fn(); 8] = [
    asm::entry,
    trap_stub,
    asm::resume,
    asm::syscall_check,
    asm::memcheck_syscall_insn,
    // syscall_after: the build adds the length of the instruction.
    asm::memcheck_syscall_insn,
    asm::fault_entry,
    asm::signal_entry,
];

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    memcheck_runtime::startup::panicked(info)
}

/// A word at any address.
#[repr(C, packed)]
struct Unaligned(u64);

/// Below this, `rep` costs more to start than it saves.
const LONG: usize = 512;

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the C contract; words are moved unaligned and only inside [0, n); forwards, and the last one was read before anything was
    // written (see `memmove`).
    unsafe {
        if n >= LONG {
            core::arch::asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
            return to;
        }
        match n {
            16.. => {
                let last = from.add(n - 16).cast::<u128>().read_unaligned();
                let mut i = 0;
                while i + 16 <= n {
                    to.add(i).cast::<u128>().write_unaligned(from.add(i).cast::<u128>().read_unaligned());
                    i += 16;
                }
                to.add(n - 16).cast::<u128>().write_unaligned(last);
            }
            8.. => both_ends::<u64>(to, from, n),
            4.. => both_ends::<u32>(to, from, n),
            2.. => both_ends::<u16>(to, from, n),
            1 => *to = *from,
            _ => {}
        }
    }
    to
}

/// Copy `n` bytes as two words that may overlap.
///
/// # Safety
/// As `memcpy`; a word is not longer than `n` bytes, two are not shorter.
unsafe fn both_ends<Word>(to: *mut u8, from: *const u8, n: usize) {
    let last = n - size_of::<Word>();
    // SAFETY: both words lie in [0, n); they are read before anything is written.
    unsafe {
        let words = (from.cast::<Word>().read_unaligned(), from.add(last).cast::<Word>().read_unaligned());
        to.cast::<Word>().write_unaligned(words.0);
        to.add(last).cast::<Word>().write_unaligned(words.1);
    }
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: copying forwards is right when the target does not start inside the source.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: the C contract; backwards, with the direction flag restored.
    unsafe {
        core::arch::asm!("std", "rep movsb", "cld", inout("rcx") n => _, inout("rdi") to.add(n).sub(1) => _, inout("rsi") from.add(n).sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    // SAFETY: the C contract; words are written unaligned and only inside [0, n).
    unsafe {
        if n >= LONG {
            core::arch::asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") value as u8, options(nostack, preserves_flags));
            return to;
        }
        let word = u64::from(value as u8) * 0x0101_0101_0101_0101;
        let mut i = 0;
        while i + 8 <= n {
            to.add(i).cast::<Unaligned>().write_volatile(Unaligned(word));
            i += 8;
        }
        while i < n {
            to.add(i).write_volatile(value as u8);
            i += 1;
        }
    }
    to
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: the C contract.
        let (x, y) = unsafe { (*a.add(i), *b.add(i)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: passed on.
    unsafe { memcmp(a, b, n) }
}

/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the C contract.
    while unsafe { *s.add(n) } != 0 {
        n += 1;
    }
    n
}
