//! The address-space plan of a traced process.
//!
//! ```text
//! 0x0000_0001_0000   code below 2 GiB: program, libraries, generated code
//! 0x0000_7ff0_0000   entry points of replaced IFUNC symbols (addresses only, nothing is mapped)
//! 0x0000_7fff_f000   never mapped: its V shadow holds the branch table
//! 0x0006_0000_0000   brk
//! 0x009d_6b00_0000   heap of the replacement allocator, 1 TiB
//! 0x01a0_0000_0000   other mappings of the program
//! 0x0ff0_0000_0000   main stack, growing down from MAIN_STACK_TOP
//! 0x1000_0000_0000   end of the program's space; nothing up to V
//! 0x2000_0000_5840   V shadow: byte at addr + V_DISTANCE, 0 = addressable and fully defined
//! 0x3000_0000_5840   nothing (the V shadow of V itself would lie at 0x4000...)
//! 0x5000_0000_9a80   origin words, 4 bytes per aligned 4 bytes
//! 0x6000_0000_0000   A shadow: one bit per byte, 1 = not addressable
//! 0x6800_0000_0000   runtime image, code cache, depot, arenas, thread contexts
//! 0x7000_0000_0000   nothing
//! ```
//!
//! The check of an access to `a` touches `a + V_DISTANCE`. For every tool address `a` that sum is unmapped or not canonical, so
//! a checked access can never reach the tool's own data: the check itself faults first.
//!
//! The heap begins at an odd place: two neighbouring numbers of 32 bits must not look like a pointer into it (8 and 255 are common,
//! 0x9d and 0x6b00_00ff are not), or the leak search would believe them.
//!
//! `V_DISTANCE` must not be round: the first-level cache of some processors predicts ways from a hash of the address in which
//! high bits collide, and a program byte and its shadow byte would then evict each other.

/// First address that the program may not use.
pub const PROGRAM_END: u64 = 0x1000_0000_0000;
/// Distance from a program byte to its V byte; the gs base of every thread.
pub const V_DISTANCE: u64 = 0x2000_0000_5840;
/// Distance from a program byte to its origin word (of the aligned 4 bytes).
pub const ORIGIN_DISTANCE: u64 = 0x5000_0000_9a80;
/// A shadow: bit `addr & 7` of byte `A_BASE + addr / 8`; 1 = not addressable.
pub const A_BASE: u64 = 0x6000_0000_0000;

/// Low area: everything executable goes here, so that code addresses fit a signed 32-bit displacement.
pub const LOW_START: u64 = 0x1000_0000;
pub const LOW_END: u64 = 0x7fe0_0000;
/// Where a position-independent program is moved to.
pub const EXE_BASE: u64 = 0x0400_0000;
/// Pseudo entry points of replaced functions: `MAGIC_BASE + 16 * Func`.
pub const MAGIC_BASE: u64 = 0x7ff0_0000;
pub const MAGIC_END: u64 = 0x7ff1_0000;
/// Code below this address has an entry in the branch table.
pub const CODE_END: u64 = 0x7fff_f000;
/// The branch table entry of code address c is the 8 bytes at `V_DISTANCE + TABLE_DISPLACEMENT + 8 * c` (gs-relative disp32).
pub const TABLE_DISPLACEMENT: u64 = 0x7fff_f000;
/// Program addresses whose V shadow is the branch table: never mapped.
pub const FORBIDDEN_START: u64 = 0x7fff_f000;
pub const FORBIDDEN_END: u64 = 0x5_0000_0000;

pub const BRK_START: u64 = 0x6_0000_0000;
pub const BRK_END: u64 = 0x8_0000_0000;
pub const HEAP_START: u64 = 0x9d_6b00_0000;
pub const HEAP_END: u64 = 0x19d_6b00_0000;
pub const MMAP_START: u64 = 0x1a0_0000_0000;
pub const MMAP_END: u64 = 0xff0_0000_0000;
pub const MAIN_STACK_TOP: u64 = 0xfff_f000_0000;

/// The runtime image is linked to this address.
pub const IMAGE_BASE: u64 = 0x6800_0000_0000;
/// Code cache: within reach of a rel32 from the image.
pub const CACHE_START: u64 = 0x6800_1000_0000;
pub const CACHE_END: u64 = 0x6800_5000_0000;
/// A bit for every byte of low code: see `runtime::starts`.
pub const STARTS: u64 = 0x6800_8000_0000;
pub const STARTS_END: u64 = STARTS + 0x1000_0000;
/// A word for every page of low code: see `runtime::pages`.
pub const PAGES: u64 = STARTS_END;
pub const PAGES_END: u64 = PAGES + 0x20_0000;
/// Stack depot: see `rt::depot`.
pub const DEPOT_START: u64 = 0x6900_0000_0000;
pub const DEPOT_END: u64 = 0x6910_0000_0000;
/// An entry for every stack in the depot: see `heap::tally`.
pub const TALLIES_START: u64 = 0x6940_0000_0000;
pub const TALLIES_END: u64 = TALLIES_START + (32 << 32);
/// The runtime's own allocations.
pub const ARENA_START: u64 = 0x6a00_0000_0000;
pub const ARENA_END: u64 = 0x6a80_0000_0000;
/// A byte for every 4 KiB of the program's space, taken modulo [`ORIGIN_PAGES`]: not 0 where origin words were ever written. See
/// `rt::origins`.
pub const ORIGIN_MAP: u64 = 0x6a80_0000_0000;
pub const ORIGIN_PAGES: u64 = 1 << 16;
/// Thread slots: `THREADS_START + n * THREAD_SLOT`, each a context and a runtime stack.
pub const THREADS_START: u64 = 0x6b00_0000_0000;
pub const THREAD_SLOT: u64 = 0x10_0000;
pub const THREADS_END: u64 = 0x6f00_0000_0000;
/// Inside a slot: context at 0, shadow registers, fault record, then the runtime stack below SLOT_RUNTIME_STACK_TOP.
pub const SLOT_RUNTIME_STACK: u64 = 0x1_0000;
pub const SLOT_RUNTIME_STACK_TOP: u64 = 0x8_0000;

/// The ABI's red zone below the stack pointer, bytes.
pub const RED_ZONE: u64 = 128;

/// V of a stack slot that holds the return address of a call in progress: these 8 bytes instead of zero. A call writes them where
/// it would write "defined", a return paints them over, so the stack can be walked without any other record. To everybody else
/// the slot counts as defined. (Bytes of V that are neither 0 nor FF are rare, four of them in this order do not happen.) The upper four
/// bytes are the walk's own, see `rt::callstack`.
pub const RETURN_MARK: u64 = 0x5ac3_965a;
/// The same for the saved instruction pointer in a signal frame: the walk goes on at the saved stack pointer, one word below.
pub const SIGNAL_MARK: u64 = 0x3ca5_69c3;

/// V byte of a program address.
#[inline(always)]
pub const fn v_of(addr: u64) -> u64 {
    addr.wrapping_add(V_DISTANCE)
}

/// Is `[addr, addr + len)` inside the program's space?
#[inline(always)]
pub const fn in_program(addr: u64, len: u64) -> bool {
    addr < PROGRAM_END && len <= PROGRAM_END - addr
}
