//! What the runtime tells the tracer.
//!
//! The runtime executes the `int3` at `Config::trap` with rax = [`Trap`], rdi and rsi = arguments, and waits. The tracer sees a
//! SIGTRAP stop with rip = trap + 1, does its part, may write rax as the answer, and lets the thread go on.

/// Trap codes. Arguments in parentheses: rdi, rsi, rdx.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// Start-up is complete: all of `Config` is valid. The program begins next. (Address of the word that holds the program break.)
    Ready = 1,
    /// An executable mapping appeared (start, end): the tracer looks at the mapping list, names the object and
    /// answers by [`Redirect`] entries written to (rdx = address of array, r10 = capacity); rax = their number.
    Mapped = 2,
    /// A range with code went away (start, end).
    Unmapped = 3,
    /// A new distinct error (address of an [`ErrorEvent`]); rax = its number, with [`FOR_DEBUGGER`] if the program is to stand still.
    Error = 4,
    /// The same error again, only counted (address of a [`Repeat`]); sent in batches at exit.
    Repeats = 5,
    /// A thread's registers are consistent and it waits for its pending signals, or for that of its own fault (signal, code, address; program
    /// state in ctx.regs). Above the 32 bits of the code: the processor's error word (16 bits) and number of the exception.
    SafePoint = 6,
    /// The program calls rt_sigreturn (program state in ctx.regs).
    SigReturn = 7,
    /// The process is about to end by exit_group (status, address of [`ExitReport`]): leak check and summaries, then go on with the status
    /// that is the answer.
    Exit = 8,
    /// execve is about to be called (address of path, argv).
    Exec = 9,
    /// execve failed: undo what `Exec` did.
    ExecFailed = 10,
    /// Client request text (address, length, flags: 1 = with backtrace).
    Print = 11,
    /// Client request: leak check now (mode, address of [`ExitReport`]).
    LeakCheck = 12,
    /// The runtime cannot go on (address of text, length; 1 if the system is to blame).
    Internal = 13,
    /// The program set the action of SIGTRAP, which the kernel does not know (signal, handler; 1 = ignored).
    Action = 14,
    /// Diagnostic text for -v (address, length).
    Note = 15,
    /// A thread was created and runs (ctx address); sent by the new thread.
    ThreadStart = 16,
    /// rax = errors reported so far
    CountErrors = 17,
    /// Client request: sums of the last leak check (0 bytes or 1 blocks, address of four words to fill: definite and indirect,
    /// possible, reachable, suppressed).
    LeakCounts = 18,
    /// Client request: "file:line" of a code address (address, where to write: 64 bytes, NUL-terminated; empty if unknown).
    SourceLine = 19,
    /// Stop all other threads for good, because the process ends; rax = 0 if that is not possible now.
    Freeze = 20,
    /// The program sends SIGKILL to itself: answered like `SafePoint` with a signal that kills.
    KillSelf = 21,
    /// Client request in words, or for the debugger (one of [`crate::errand::asked`]; address, length, r10 = address of
    /// [`crate::errand::Exchange`]); rax = one of [`crate::errand::answer`].
    Command = 22,
    /// Something that users should know and that is no error (one of [`Warning`], and its three words).
    Warning = 23,
    /// An allocation function was called ([`crate::replace::Func`], its first two arguments, the address that it gave).
    Traced = 24,
    /// Where are all threads (address of words, room for so many)? Every word that a thread holds, in registers, context or the runtime's
    /// stack, and that may be an address in the code cache is written there; rax = their number, `u64::MAX` if some thread cannot be asked.
    /// Every thread is looked at after the trap has begun.
    Whereabouts = 25,
    /// The process is to be traced by somebody else: nobody hears its traps if the answer is 0.
    LeaveTracer = 26,
}

/// With the number of an error: a debugger wants to look at it.
pub const FOR_DEBUGGER: u64 = 1 << 63;

/// What a warning is about, and its words.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warning {
    /// A descriptor that no process can have (descriptor; address and length of the call's name).
    Descriptor = 1,
    /// A handler for a signal that cannot be caught (signal).
    Uncatchable = 2,
    /// An action for a signal that does not exist (signal).
    NoSignal = 3,
    /// An unknown ioctl whose number does not say what is read and written (request).
    Ioctl = 4,
    /// A thread ends that has switched error reporting off.
    ReportingOff = 5,
}

/// Kinds of errors.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    InvalidRead = 1,
    InvalidWrite = 2,
    InvalidJump = 3,
    Cond = 4,
    Value = 5,
    /// Syscall argument register undefined; `name` is the parameter.
    ParamRegister = 6,
    /// Syscall memory; `flag` 0 = uninitialised, 1 = unaddressable.
    ParamMemory = 7,
    /// Client check; `flag` as above.
    User = 8,
    InvalidFree = 9,
    MismatchedFree = 10,
    /// `args` = destination, source, length; `flag` 1 = length is printed; `name` the function.
    Overlap = 11,
    /// `name` = "malloc(size)" form; `args[0]` the value.
    Fishy = 12,
    Mempool = 13,
    ReallocZero = 14,
    /// `args` = alignment, size; `name` the function.
    BadAlign = 15,
    /// Signal frame or the like; `name` says what.
    Core = 16,
}

/// How an address relates to what the runtime knows.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nothing known here; the tracer looks at mappings and symbols.
    Unknown = 0,
    /// `block` describes the heap block around or next to it.
    LiveBlock = 1,
    FreedBlock = 2,
    /// On the stack of thread `place_thread`.
    Stack = 3,
    /// `place_distance` bytes below the stack pointer of thread `place_thread`.
    BelowStack = 4,
    /// A block that the client named; `name2` has the name.
    ClientBlock = 5,
    /// A live block where a declared block was not long ago.
    ReusedBlock = 6,
}

/// Families of allocation functions, for mismatch checks.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Malloc = 1,
    New = 2,
    NewArray = 3,
    /// Marked by a client request.
    Custom = 4,
}

/// A heap block as the reports need it. Stacks are depot ids (0 = none).
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Block {
    pub addr: u64,
    pub size: u64,
    pub family: u32,
    pub alloc_stack: u32,
    pub free_stack: u32,
}

/// What was allocated and freed with one stack, so far.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct PlaceTally {
    pub allocated_bytes: u64,
    pub allocated_blocks: u64,
    pub freed_bytes: u64,
    pub freed_blocks: u64,
}

const _: () = assert!((size_of::<PlaceTally>() as u64) << 32 == crate::layout::TALLIES_END - crate::layout::TALLIES_START);

pub const MAX_FRAMES: usize = 512;
pub const NAME_LEN: usize = 96;

/// One error, complete. Lives in runtime memory; read by the tracer at the trap.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ErrorEvent {
    pub kind: u32,
    pub flag: u32,
    /// Access size in bytes.
    pub size: u64,
    /// The address in question (access, free, parameter memory); `has_addr` 0 = none.
    pub addr: u64,
    pub has_addr: u32,
    pub thread: u32,
    pub args: [u64; 4],
    pub place: u32,
    pub place_thread: u32,
    pub place_distance: u64,
    pub block: Block,
    /// Origin of the undefined value: depot id of its stack, and kind (0 none, 1 heap, 2 stack, 3 client, 4 unknown). Of a frame the stack
    /// is an address in its function, twice if the value is not near the frame's upper end.
    pub origin_stack: u32,
    pub origin_kind: u32,
    /// NUL-terminated.
    pub name: [u8; NAME_LEN],
    pub name2: [u8; NAME_LEN],
    /// stack[0] is the instruction itself, the others are return addresses.
    pub stack_len: u32,
    /// Stack pointer at the error.
    pub sp: u64,
    pub stack: [u64; MAX_FRAMES],
}

impl ErrorEvent {
    pub const fn new(kind: Kind) -> Self {
        ErrorEvent {
            kind: kind as u32,
            flag: 0,
            size: 0,
            addr: 0,
            has_addr: 0,
            thread: 0,
            args: [0; 4],
            place: 0,
            place_thread: 0,
            place_distance: 0,
            block: Block { addr: 0, size: 0, family: 0, alloc_stack: 0, free_stack: 0 },
            origin_stack: 0,
            origin_kind: 0,
            name: [0; NAME_LEN],
            name2: [0; NAME_LEN],
            stack_len: 0,
            sp: 0,
            stack: [0; MAX_FRAMES],
        }
    }

    /// Set `name` (cut to fit).
    pub fn set_name(&mut self, text: &str) {
        let n = text.len().min(NAME_LEN - 1);
        self.name[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.name[n] = 0;
    }
}

/// A repeat of an error that the tracer already knows by its serial number (answer of the `Error` trap).
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Repeat {
    pub serial: u64,
    pub count: u64,
}

/// One live heap block for the leak search.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct LiveBlock {
    pub addr: u64,
    pub size: u64,
    pub stack: u32,
    pub family: u32,
    /// How many blocks its thread had allocated before; 0 for declared blocks.
    pub age: u32,
    pub unused: u32,
}

/// What the tracer needs for summaries and the leak search. Blocks are sorted by address.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct ExitReport {
    pub blocks: u64,
    pub block_count: u64,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_in_use: u64,
    /// 0 when no allocator of the program was recognised.
    pub allocator_seen: u64,
    /// [`Repeat`] array.
    pub repeats: u64,
    pub repeat_count: u64,
    /// Blocks that are no chunks of the program's own pools; `bytes_in_use` is their sum.
    pub blocks_in_use: u64,
    /// [`OpenedFd`] array, with `--track-fds`.
    pub descriptors: u64,
    pub descriptor_count: u64,
    /// Pairs of start and end: where the program wants no invalid access to be reported.
    pub ignored: u64,
    pub ignored_count: u64,
    /// For `-v`: regions of code translated, of them for dirty mode; times it was entered; rules that the runtime applied, of them to
    /// instructions without a row of their own.
    pub regions: u64,
    pub dirty_regions: u64,
    pub dirty_entered: u64,
    pub dirty_rules: u64,
    pub dirty_without_row: u64,
    /// And how often all translations were given back.
    pub renewals: u64,
}

/// Where a descriptor was opened that may be open at the end.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct OpenedFd {
    pub fd: i32,
    /// Depot id.
    pub stack: u32,
}

/// The tracer's answer to `Mapped`: the function at `addr` is to be replaced.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Redirect {
    pub addr: u64,
    /// [`crate::replace::Func`] as u32, or one of [`needed`].
    pub func: u32,
    /// 1 = `addr` is an IFUNC resolver: it returns the magic address of `func`.
    pub resolver: u32,
    /// For [`needed::BY_PROGRAM`]: where the function is that takes the place of `addr`.
    pub target: u64,
}

/// Values of [`Redirect::func`] that are no replacements of ours.
pub mod needed {
    /// A function of the program takes the place of another.
    pub const BY_PROGRAM: u32 = 0xffef;
    /// At `addr` one function stands for an operator for single objects and one for arrays.
    pub const FOLDED: u32 = 0xffee;
    // Functions of the program's libraries that the runtime calls:
    /// `__libc_freeres`
    pub const LIBC_FREERES: u32 = 0xfff0;
    /// `__gnu_cxx::__freeres`
    pub const CXX_FREERES: u32 = 0xfff1;
    /// `__chk_fail`: where fortified functions end that have no room
    pub const CHK_FAIL: u32 = 0xfff2;
    /// `__errno_location`: where a replaced function stores why it failed
    pub const ERRNO_LOCATION: u32 = 0xfff3;
}

/// Header of a stack in the depot: at DEPOT_START + 8 * id. The first frame is an instruction, the others are return addresses.
///
/// ```text
/// this stack | own frames ... | shared ... |
/// base       | skipped . | shared ... |
/// ```
/// Its own frames follow; the others, of callers that it has in common with another stack, are that one's.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct DepotHeader {
    /// Next id in the hash chain.
    pub next: u32,
    /// Part of the hash.
    pub hash: u32,
    /// The stack that it shares frames with, or 0.
    pub base: u32,
    /// Numbers of frames, and [`DepotHeader::WIDE`]; 0 = no stack. See [`DepotHeader::shape`].
    pub shape: u32,
}

impl DepotHeader {
    /// In `shape`: frames take 8 bytes, not 4 (code lies low).
    pub const WIDE: u32 = 1 << 31;
    const BITS: u32 = 10;
    const MASK: usize = (1 << Self::BITS) - 1;

    /// So many frames of its own, and so many from the base, behind those that are skipped there.
    pub const fn shape(own: usize, shared: usize, skipped: usize) -> u32 {
        own as u32 | (shared as u32) << Self::BITS | (skipped as u32) << (2 * Self::BITS)
    }

    pub const fn own(&self) -> usize {
        self.shape as usize & Self::MASK
    }

    pub const fn shared(&self) -> usize {
        (self.shape >> Self::BITS) as usize & Self::MASK
    }

    pub const fn skipped(&self) -> usize {
        (self.shape >> (2 * Self::BITS)) as usize & Self::MASK
    }

    pub const fn is_wide(&self) -> bool {
        self.shape & Self::WIDE != 0
    }

    /// Words of 8 bytes that the entry takes, with the header.
    pub const fn words(&self) -> u64 {
        let own = self.own() as u64;
        core::mem::size_of::<DepotHeader>() as u64 / 8 + if self.is_wide() { own } else { own.div_ceil(2) }
    }
}

const _: () = assert!(MAX_FRAMES <= DepotHeader::MASK, "numbers of frames fit");
