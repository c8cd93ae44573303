//! The block that the tracer writes into the runtime image before the runtime's first instruction.

pub const MAGIC: u64 = 0x6b63_6568_636d_656d;
pub const MAX_MAPPINGS: usize = 64;

/// Kinds of the mappings that exist at the exec stop.
pub mod mapping {
    pub const PROGRAM: u32 = 1;
    pub const INTERPRETER: u32 = 2;
    pub const STACK: u32 = 3;
    pub const VDSO: u32 = 4;
    pub const HEAP: u32 = 5;
    pub const OTHER: u32 = 6;
}

/// Frames that every stack keeps: as many decide whether two errors are the same.
pub const LEAST_CALLERS: u32 = 4;

/// One mapping at the exec stop. Written by the tracer.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// PROT_* bits.
    pub prot: u32,
    /// One of [`mapping`].
    pub kind: u32,
}

/// The image starts with this structure (linker: first section), so its address is IMAGE_BASE.
#[repr(C)]
pub struct Config {
    pub magic: u64,
    /// Address of the runtime's entry, filled by the build; read by the tracer.
    pub entry: u64,
    /// Address of the `int3` by which the runtime talks to the tracer (rip after the trap is this + 1).
    pub trap: u64,
    /// Code addresses the tracer must know; filled by the runtime before `Ready`.
    /// Jump here with ctx.target = program address and all program registers in place: continue in translated code.
    pub resume: u64,
    /// `[syscall_check, syscall_insn]`: a thread stopped in this range has not executed its system call yet.
    pub syscall_check: u64,
    pub syscall_insn: u64,
    /// The address after the program's `syscall` instruction in the runtime's stub.
    pub syscall_after: u64,
    /// Entry for "run the fault handler": ctx.regs = program state at the fault, rdi = fault record.
    pub fault_entry: u64,
    /// Entry for "a signal handler starts": like `resume`, but marks the frame [rsp, ctx.scratch[7]) defined first.
    pub signal_entry: u64,
    /// The program's entry point at the exec stop (before anything is moved).
    pub start_rip: u64,
    pub mapping_count: u32,
    /// Options, 0 or 1 unless stated.
    pub undef_value_errors: u32,
    pub track_origins: u32,
    /// Frames shown per stack, 1..=500; at least [`LEAST_CALLERS`] are kept.
    pub num_callers: u32,
    pub freelist_volume: u64,
    pub freelist_big_blocks: u64,
    /// Bytes of red zone on each side of a block, multiple of 16, at least 16.
    pub redzone: u64,
    pub alignment: u64,
    /// -1 or the byte.
    pub malloc_fill: i32,
    pub free_fill: i32,
    pub show_mismatched_frees: u32,
    pub partial_loads_ok: u32,
    /// 1 alloc, 2 free, 3 both, 0 none; see --keep-stacktraces.
    pub keep_stacks: u32,
    pub run_libc_freeres: u32,
    pub trace_children: u32,
    /// Soft RLIMIT_STACK of the program.
    pub stack_limit: u64,
    /// Bytes of translations after which they are given back.
    pub code_cache: u64,
    /// The personality flags to restore for the program.
    pub personality: u32,
    /// The tracer, whose child the program is, and the process that it believes to be a child of.
    pub tracer: u32,
    pub parent: u32,
    /// realloc to size 0 gives a block of size 0 instead of freeing.
    pub realloc_zero_keeps: u32,
    pub show_realloc_zero: u32,
    pub show_bad_alignments: u32,
    /// Remember where descriptors were opened.
    pub track_fds: u32,
    /// Sum up what each place allocates and frees.
    pub tally_places: u32,
    /// Tell every call of an allocation function.
    pub trace_malloc: u32,
    /// A debugger wants to look before the program begins.
    pub stop_at_start: u32,
    pub mappings: [Mapping; MAX_MAPPINGS],
    /// Path of the program, NUL-terminated: what /proc/self/exe must say.
    pub exe: [u8; 4096],
}
