//! The thread context: what translated code and the runtime keep for each thread of the program.
//!
//! The fs base of every thread points at its context while it is under memcheck; the program's own fs and gs bases are the
//! fields `guest_fs` and `guest_gs`. Written by the thread itself, except `pending` (tracer) — the tracer reads everything,
//! with the thread stopped.

/// General registers in the processor's encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Registers {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
}

/// Names of the general registers, by number.
pub const GPR_NAMES: [&str; 16] =
    ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R8: usize = 8;
pub const R9: usize = 9;
pub const R10: usize = 10;
pub const R11: usize = 11;

/// Where a thread is; the tracer decides by it how to treat an asynchronous signal.
pub mod place {
    /// In translated code or a stub: the program's registers are in the processor's.
    pub const CODE: u32 = 0;
    /// In the runtime: the program's registers are in `regs` (as far as saved).
    pub const RUNTIME: u32 = 1;
    /// In a system call of the program: registers are the program's, `regs.rip` is the address after its `syscall`.
    pub const SYSCALL: u32 = 2;
}

/// An xsave area.
#[repr(C, align(64))]
pub struct VectorState(pub [u8; 4096]);

/// Spill slots of a thread.
pub const SPILL_SLOTS: usize = 16;
/// Registers that the routines for frames use.
pub const FRAME_REGISTERS: usize = 6;

/// What translated code asks the runtime's routines for frames, and their answer.
#[repr(C)]
pub struct FrameOrigin {
    /// An address on the stack, and how many aligned words of 4 bytes there are concerned.
    pub address: u64,
    pub words: u64,
    /// Address of the program's instruction; host address to go on at.
    pub pc: u64,
    pub back: u64,
    /// 0, or there is an answer.
    pub known: u64,
    /// A tag; or another place that is to be asked for the origin, if that is not 0.
    pub tag: u64,
    pub place: u64,
    /// The program's registers that the routines use.
    pub kept: [u64; FRAME_REGISTERS],
}

#[repr(C, align(64))]
pub struct ThreadContext {
    /// Address of this structure; fs:[0].
    pub self_ptr: u64,
    /// Spill slots of translated code; slot k at fs:[8 + 8 k].
    pub scratch: [u64; SPILL_SLOTS],
    /// The program's own segment bases.
    pub guest_fs: u64,
    pub guest_gs: u64,
    /// The stack pointer with which the thread began: nothing above it was called.
    pub first_sp: u64,
    /// The program's stack pointer while the runtime runs on its own stack.
    pub guest_rsp: u64,
    /// Top of the runtime's stack, 16-aligned.
    pub runtime_rsp: u64,
    /// Program address to continue at, for the dispatcher.
    pub target: u64,
    /// Written by the tracer: a signal waits, come to a safe point as soon as you leave the runtime.
    pub pending: u32,
    /// One of [`place`].
    pub place: u32,
    /// Kernel thread id, and memcheck's thread number (1 = main).
    pub tid: u32,
    pub number: u32,
    /// The stack that the thread runs on: [stack_low, stack_high) of the mapping or heap block around the stack pointer.
    pub stack_low: u64,
    pub stack_high: u64,
    /// 0, or what lies below this address in the same mapping may be anything: other stacks, the heap of a language's runtime.
    pub stack_floor: u64,
    /// V is FF from here up to the stack pointer's red zone, so frames that end above it need no painting. `u64::MAX`: not known.
    pub painted_low: u64,
    /// The program's registers, saved on the slow ways into the runtime.
    pub regs: Registers,
    /// Vector state saved on the slow ways (xsave area).
    pub xsave: VectorState,
    /// For the origins of undefined values in frames.
    pub frame_origin: FrameOrigin,
    /// Nesting of VALGRIND_DISABLE_ERROR_REPORTING.
    pub errors_disabled: u32,
    /// 1 while this thread lives in a child process that shares its parent's memory.
    pub vfork_child: u32,
    /// Words for the runtime's crates that have per-thread state (heap caches and so on), by [`local`].
    pub locals: [u64; 32],
}

/// Owners of `ThreadContext::locals`.
pub mod local {
    /// heap: pointer to the thread cache
    pub const HEAP: usize = 0;
    /// kernel: state between the two halves of a system call (4 words)
    pub const SYSCALL: usize = 2;
    /// heap: the fishy size that an operator new was just asked for, as long as it may run as the library has it
    pub const FISHY: usize = 7;
    /// runtime: the memset with an undefined value that is going on (5 words)
    pub const MEMSET: usize = 16;
    /// kernel: does the program believe that it blocks SIGTRAP?
    pub const TRAP_BLOCKED: usize = 24;
    /// kernel: the call that a signal came in front of, see `interrupted` there; 0: none
    pub const INTERRUPTED: usize = 29;
    /// runtime: were coroutines seen on the stack that the thread began on?
    pub const POOLED: usize = 25;
    /// runtime: the stack pointer with which the thread left the stack that it began on; 0: it is there
    pub const LEFT_AT: usize = 23;
    /// runtime: the slot of a call in progress whose return address was overwritten last
    pub const REDIRECTED: usize = 22;
    /// runtime: what `-v` tells about dirty mode (3 words, see `statistics`)
    pub const STATISTICS: usize = 26;
}

/// Byte offsets used by emitted code.
pub mod offset {
    use super::{FrameOrigin, ThreadContext};
    use core::mem::offset_of;
    pub const SCRATCH: i32 = offset_of!(ThreadContext, scratch) as i32;
    pub const GUEST_FS: i32 = offset_of!(ThreadContext, guest_fs) as i32;
    pub const GUEST_GS: i32 = offset_of!(ThreadContext, guest_gs) as i32;
    pub const GUEST_RSP: i32 = offset_of!(ThreadContext, guest_rsp) as i32;
    pub const RUNTIME_RSP: i32 = offset_of!(ThreadContext, runtime_rsp) as i32;
    pub const TARGET: i32 = offset_of!(ThreadContext, target) as i32;
    pub const PENDING: i32 = offset_of!(ThreadContext, pending) as i32;
    pub const PLACE: i32 = offset_of!(ThreadContext, place) as i32;
    pub const STACK_LOW: i32 = offset_of!(ThreadContext, stack_low) as i32;
    pub const STACK_HIGH: i32 = offset_of!(ThreadContext, stack_high) as i32;
    pub const STACK_FLOOR: i32 = offset_of!(ThreadContext, stack_floor) as i32;
    pub const PAINTED_LOW: i32 = offset_of!(ThreadContext, painted_low) as i32;
    pub const LOCALS: i32 = offset_of!(ThreadContext, locals) as i32;
    pub const REGS: i32 = offset_of!(ThreadContext, regs) as i32;
    pub const XSAVE: i32 = offset_of!(ThreadContext, xsave) as i32;
    const FRAME: i32 = offset_of!(ThreadContext, frame_origin) as i32;
    pub const FRAME_ADDRESS: i32 = FRAME + offset_of!(FrameOrigin, address) as i32;
    pub const FRAME_WORDS: i32 = FRAME + offset_of!(FrameOrigin, words) as i32;
    pub const FRAME_PC: i32 = FRAME + offset_of!(FrameOrigin, pc) as i32;
    pub const FRAME_BACK: i32 = FRAME + offset_of!(FrameOrigin, back) as i32;
    pub const FRAME_KNOWN: i32 = FRAME + offset_of!(FrameOrigin, known) as i32;
    pub const FRAME_TAG: i32 = FRAME + offset_of!(FrameOrigin, tag) as i32;
    pub const FRAME_PLACE: i32 = FRAME + offset_of!(FrameOrigin, place) as i32;
    pub const FRAME_KEPT: i32 = FRAME + offset_of!(FrameOrigin, kept) as i32;
}

const _: () = assert!(offset::XSAVE % 64 == 0, "xsave needs 64-byte alignment");
const _: () = assert!(core::mem::size_of::<ThreadContext>() <= 0x4000);
