//! The options of the heap, set once before the program's first instruction.
#![allow(unsafe_code, reason = "a global that is written once, before any reader")]

use core::cell::UnsafeCell;
use memcheck_abi::config::Config;

/// What a header takes in the allocator that reports are compared with: a red zone of 16 is felt as 24.
const EXTRA: u64 = 8;

#[derive(Clone, Copy)]
pub struct Settings {
    /// Bytes in front of a block, a multiple of 16.
    pub front: u64,
    /// These, and the least number of bytes behind a block.
    pub around: u64,
    /// Distance up to which an address is said to be before or after a block even if another block is nearer.
    pub reach: u64,
    /// Least alignment, a power of two, at least 16.
    pub alignment: u64,
    /// Bytes of freed blocks, with their red zones, that wait.
    pub volume: u64,
    /// Freed blocks of at least this size leave first.
    pub big: u64,
    /// Bytes after which a thread hands its freed blocks to the common queue.
    pub buffer: u64,
    pub malloc_fill: Option<u8>,
    pub free_fill: Option<u8>,
    pub mismatched: bool,
    /// realloc to size 0 does not free.
    pub zero_keeps: bool,
    pub zero_reported: bool,
    pub alignments_reported: bool,
    /// There is a fill or a tally: something that few runs ask for.
    pub extras: bool,
    /// Sum up what each place allocates and frees.
    pub tallies: bool,
    pub alloc_stacks: bool,
    pub free_stacks: bool,
}

struct Global(UnsafeCell<Settings>);

// SAFETY: written by `set` only, before other threads exist; read-only afterwards.
unsafe impl Sync for Global {}

static GLOBAL: Global = Global(UnsafeCell::new(Settings {
    front: 32,
    around: 48,
    reach: 24,
    alignment: 16,
    volume: 20_000_000,
    big: 1_000_000,
    buffer: 64 << 10,
    malloc_fill: None,
    free_fill: None,
    mismatched: true,
    zero_keeps: false,
    zero_reported: false,
    alignments_reported: false,
    extras: false,
    tallies: false,
    alloc_stacks: true,
    free_stacks: true,
}));

#[inline(always)]
pub fn get() -> &'static Settings {
    // SAFETY: see `Global`.
    unsafe { &*GLOBAL.0.get() }
}

/// Take over the configuration; while the process has one thread.
pub fn set(config: &Config) {
    let redzone = config.redzone.clamp(16, 4096);
    let front = (redzone + EXTRA).next_multiple_of(16);
    let byte = |value: i32| u8::try_from(value).ok();
    let settings = Settings {
        front,
        around: front + redzone,
        reach: redzone + EXTRA,
        alignment: config.alignment.clamp(16, 4096).next_power_of_two(),
        volume: config.freelist_volume,
        big: config.freelist_big_blocks,
        buffer: (config.freelist_volume / 256).min(64 << 10),
        malloc_fill: byte(config.malloc_fill),
        free_fill: byte(config.free_fill),
        mismatched: config.show_mismatched_frees != 0,
        zero_keeps: config.realloc_zero_keeps != 0,
        zero_reported: config.show_realloc_zero != 0,
        alignments_reported: config.show_bad_alignments != 0,
        extras: config.malloc_fill >= 0 || config.free_fill >= 0 || config.tally_places != 0,
        tallies: config.tally_places != 0,
        alloc_stacks: config.keep_stacks & 1 != 0,
        free_stacks: config.keep_stacks & 2 != 0,
    };
    // SAFETY: see `Global`.
    unsafe { *GLOBAL.0.get() = settings }
}
