//! The way into generated code and back, with every register.
//!
//! ```text
//! CACHE_START   state of the program's registers (rip-relative for all routines here)
//!      +0x4000  routines: enter, exit, fault, and the stubs that translated code jumps to
//!     +0x10000  code cache, and from the middle on its cold parts
//! THREADS_START thread context, shadow registers
//! ```
//! `enter` loads all registers of the program, fs and gs bases included, and jumps; everything that leaves, be it a stub, the jump at
//! the native program's end or the signal handler, comes to `exit`, which stores them and returns to Rust. In between the thread's fs
//! base is not libc's: the signal handler touches statics and its own arguments, nothing else.
#![allow(unsafe_code, reason = "generated routines, signal handler, and registers that are shared with both")]

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use memcheck_abi::context::{ThreadContext, offset};
use memcheck_abi::layout::{CACHE_START, SLOT_RUNTIME_STACK, THREADS_START, V_DISTANCE};
use memcheck_translate::{SHADOW_REGS, Stubs, slot};
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const ROUTINES: u64 = CACHE_START + 0x4000;
pub const CACHE: u64 = CACHE_START + 0x1_0000;
pub const CACHE_SIZE: u64 = 0x10_0000;
pub const COLD: u64 = CACHE + CACHE_SIZE;
const BOTH: u64 = 2 * CACHE_SIZE;

/// Why the program came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// The native program reached its end.
    End,
    Fault,
    Dispatch,
    Link,
    Check,
    Helper,
    Syscall,
    Replace,
    Release,
    StackMoved,
    DirtyBranch,
    Copies,
}

const REASONS: [Reason; 12] = [
    Reason::End,
    Reason::Fault,
    Reason::Dispatch,
    Reason::Link,
    Reason::Check,
    Reason::Helper,
    Reason::Syscall,
    Reason::Replace,
    Reason::Release,
    Reason::StackMoved,
    Reason::DirtyBranch,
    Reason::Copies,
];

/// Registers of the program, and what the routines need to find their way home.
#[repr(C, align(64))]
pub struct State {
    pub xsave: [u8; 0x2000],
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub fs: u64,
    pub gs: u64,
    /// Where `enter` jumps to.
    entry: u64,
    /// Address of the link data that the link stub was given.
    pub link_data: u64,
    reason: u64,
    host_rsp: u64,
    host_fs: u64,
    host_gs: u64,
    host_mxcsr: u64,
    host_fcw: u64,
}

/// What the signal handler saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub signal: i32,
    pub code: i32,
    pub rip: u64,
    pub addr: u64,
}

/// The timer of the thread that is attached; [`Gate::limit`] sets it.
static TIMER: AtomicUsize = AtomicUsize::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);
static RUNS: AtomicU64 = AtomicU64::new(0);
static LAST_RUN: AtomicU64 = AtomicU64::new(0);
static FAULT_ROUTINE: AtomicU64 = AtomicU64::new(0);
static FAULT_SIGNAL: AtomicU32 = AtomicU32::new(0);
static FAULT_CODE: AtomicU32 = AtomicU32::new(0);
static FAULT_RIP: AtomicU64 = AtomicU64::new(0);
static FAULT_ADDR: AtomicU64 = AtomicU64::new(0);
static FAULT_FLAGS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !RUNNING.load(Ordering::Relaxed) {
        if signal != libc::SIGALRM {
            // SAFETY: the default action makes a genuine crash of the test visible.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        return;
    }
    // SAFETY: the kernel passes a valid context to a SA_SIGINFO handler.
    let gregs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = gregs[libc::REG_RIP as usize] as u64;
    if signal == libc::SIGALRM {
        let run = RUNS.load(Ordering::Relaxed);
        if LAST_RUN.swap(run, Ordering::Relaxed) != run {
            return;
        }
    }
    let fault_routine = FAULT_ROUTINE.load(Ordering::Relaxed);
    FAULT_SIGNAL.store(signal as u32, Ordering::Relaxed);
    FAULT_RIP.store(rip, Ordering::Relaxed);
    // SAFETY: siginfo is valid; for signals without an address the field has some value, which nobody looks at.
    let (code, addr) = unsafe { ((*info).si_code, (*info).si_addr()) };
    FAULT_CODE.store(code as u32, Ordering::Relaxed);
    FAULT_ADDR.store(addr as u64, Ordering::Relaxed);
    FAULT_FLAGS.store(gregs[libc::REG_EFL as usize] as u64, Ordering::Relaxed);
    gregs[libc::REG_RIP as usize] = fault_routine as i64;
    gregs[libc::REG_EFL as usize] = 2;
}

/// Assembles the routines.
struct Routines {
    encoder: Encoder,
    bytes: Vec<u8>,
}

/// A field of the state, reachable from the routines.
fn field(at: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, (CACHE_START + at as u64) as i64)
}

fn context(at: i32) -> MemoryOperand {
    MemoryOperand::new(Register::None, Register::None, 1, i64::from(at), 8, false, Register::FS)
}

fn scratch(k: i32) -> MemoryOperand {
    context(offset::SCRATCH + 8 * k)
}

impl Routines {
    fn here(&self) -> u64 {
        ROUTINES + self.bytes.len() as u64
    }

    fn put(&mut self, insn: Result<Instruction, iced_x86::IcedError>) {
        let insn = insn.expect("operands fit the code");
        self.encoder.encode(&insn, self.here()).expect("encodable");
        self.bytes.extend(self.encoder.take_buffer());
    }

    fn load(&mut self, register: Register, from: MemoryOperand) {
        self.put(Instruction::with2(Code::Mov_r64_rm64, register, from));
    }

    fn store(&mut self, to: MemoryOperand, register: Register) {
        self.put(Instruction::with2(Code::Mov_rm64_r64, to, register));
    }

    fn one(&mut self, code: Code, operand: MemoryOperand) {
        self.put(Instruction::with1(code, operand));
    }

    fn mask(&mut self, components: u64) {
        self.put(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, components as u32));
        self.put(Instruction::with2(Code::Mov_r32_imm32, Register::EDX, (components >> 32) as u32));
    }
}

const CALLEE_SAVED: [Register; 6] = [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

fn gpr(i: usize) -> Register {
    Register::RAX + i as u32
}

impl Routines {
    fn enter(&mut self, components: u64) {
        for r in CALLEE_SAVED {
            self.put(Instruction::with1(Code::Push_r64, r));
        }
        self.one(Code::Stmxcsr_m32, field(offset_of!(State, host_mxcsr)));
        self.one(Code::Fnstcw_m2byte, field(offset_of!(State, host_fcw)));
        self.store(field(offset_of!(State, host_rsp)), Register::RSP);
        self.put(Instruction::with1(Code::Rdfsbase_r64, Register::RAX));
        self.store(field(offset_of!(State, host_fs)), Register::RAX);
        self.put(Instruction::with1(Code::Rdgsbase_r64, Register::RAX));
        self.store(field(offset_of!(State, host_gs)), Register::RAX);
        self.mask(components);
        self.one(Code::Xrstor64_mem, field(offset_of!(State, xsave)));
        self.load(Register::RAX, field(offset_of!(State, fs)));
        self.put(Instruction::with1(Code::Wrfsbase_r64, Register::RAX));
        self.load(Register::RAX, field(offset_of!(State, gs)));
        self.put(Instruction::with1(Code::Wrgsbase_r64, Register::RAX));
        self.one(Code::Push_rm64, field(offset_of!(State, rflags)));
        self.put(Ok(Instruction::with(Code::Popfq)));
        for i in (0..16).filter(|&i| i != 4).chain([4]) {
            self.load(gpr(i), field(offset_of!(State, gpr) + 8 * i));
        }
        self.one(Code::Jmp_rm64, field(offset_of!(State, entry)));
    }

    /// Everything ends here, with the reason stored and the program's registers in place.
    fn exit(&mut self, components: u64) {
        for i in 0..16 {
            self.store(field(offset_of!(State, gpr) + 8 * i), gpr(i));
        }
        self.load(Register::RSP, field(offset_of!(State, host_rsp)));
        self.put(Ok(Instruction::with(Code::Pushfq)));
        self.one(Code::Pop_rm64, field(offset_of!(State, rflags)));
        self.put(Ok(Instruction::with(Code::Cld)));
        self.mask(components);
        self.one(Code::Xsave64_mem, field(offset_of!(State, xsave)));
        self.load(Register::RAX, field(offset_of!(State, host_fs)));
        self.put(Instruction::with1(Code::Wrfsbase_r64, Register::RAX));
        self.load(Register::RAX, field(offset_of!(State, host_gs)));
        self.put(Instruction::with1(Code::Wrgsbase_r64, Register::RAX));
        self.put(Ok(Instruction::with(Code::Fninit)));
        self.one(Code::Fldcw_m2byte, field(offset_of!(State, host_fcw)));
        self.one(Code::Ldmxcsr_m32, field(offset_of!(State, host_mxcsr)));
        self.put(Instruction::with1(Code::Pushq_imm8, 2i32));
        self.put(Ok(Instruction::with(Code::Popfq)));
        for r in CALLEE_SAVED.into_iter().rev() {
            self.put(Instruction::with1(Code::Pop_r64, r));
        }
        self.put(Ok(Instruction::with(Code::Retnq)));
    }

    /// A stub: bring a spilled register home, note the reason, leave. Returns its address.
    fn stub(&mut self, reason: Reason, spilled: Option<(Register, i32)>, exit: u64) -> u64 {
        let at = self.here();
        if reason == Reason::Link {
            self.store(field(offset_of!(State, link_data)), Register::RAX);
        }
        if let Some((register, k)) = spilled {
            self.load(register, scratch(k));
        }
        self.put(Instruction::with2(Code::Mov_rm64_imm32, field(offset_of!(State, reason)), reason as i32));
        self.put(Instruction::with_branch(Code::Jmp_rel32_64, exit));
        at
    }
}

impl Routines {
    /// Every question about a frame has an answer.
    fn answer(&mut self) -> u64 {
        let at = self.here();
        for (field, value) in [(offset::FRAME_TAG, 6), (offset::FRAME_PLACE, 0), (offset::FRAME_KNOWN, 1)] {
            self.put(Instruction::with2(Code::Mov_rm64_imm32, context(field), value));
        }
        self.one(Code::Jmp_rm64, context(offset::FRAME_BACK));
        at
    }
}

/// The one gate of this process.
pub struct Gate {
    pub stubs: Stubs,
    /// Where native code jumps to at its end.
    pub native_exit: u64,
    components: u64,
}

impl Gate {
    /// None if the processor or kernel lacks the instructions that set segment bases.
    pub fn new() -> Option<Gate> {
        // SAFETY: reads the auxiliary vector.
        let fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 != 0;
        if !fsgsbase || !is_x86_feature_detected!("avx2") {
            return None;
        }
        crate::world::map_private(CACHE_START, CACHE - CACHE_START + BOTH, true);
        crate::world::map_private(THREADS_START, SLOT_RUNTIME_STACK, false);
        let components = if is_x86_feature_detected!("avx512f") { 0xe7 } else { 0x7 };
        let mut r = Routines { encoder: Encoder::new(64), bytes: Vec::new() };
        r.enter(components);
        let fault = r.here();
        FAULT_ROUTINE.store(fault, Ordering::Relaxed);
        r.put(Instruction::with2(Code::Mov_rm64_imm32, field(offset_of!(State, reason)), Reason::Fault as i32));
        let exit = r.here();
        r.exit(components);
        let (rax, rcx) = (Some((Register::RAX, slot::RAX)), Some((Register::RCX, slot::RCX)));
        let native_exit = r.stub(Reason::End, None, exit);
        let stubs = Stubs {
            dispatch: r.stub(Reason::Dispatch, rcx, exit),
            link: r.stub(Reason::Link, rax, exit),
            check: r.stub(Reason::Check, rax, exit),
            helper: r.stub(Reason::Helper, rax, exit),
            syscall: r.stub(Reason::Syscall, None, exit),
            replace: r.stub(Reason::Replace, None, exit),
            release: r.stub(Reason::Release, rcx, exit),
            stack_moved: r.stub(Reason::StackMoved, rcx, exit),
            dirty_branch: r.stub(Reason::DirtyBranch, rcx, exit),
            dirty_link: r.stub(Reason::DirtyBranch, rcx, exit),
            frame_origin: r.answer(),
            frame_note: r.answer(),
            copies: r.stub(Reason::Copies, rax, exit),
        };
        assert!(size_of::<State>() as u64 <= ROUTINES - CACHE_START && r.here() < CACHE, "the gate's parts fit their places");
        // SAFETY: the mapping was made above and nothing runs in it yet.
        unsafe { std::ptr::copy_nonoverlapping(r.bytes.as_ptr(), ROUTINES as *mut u8, r.bytes.len()) };
        listen();
        Some(Gate { stubs, native_exit, components })
    }

    pub fn state(&mut self) -> &mut State {
        // SAFETY: mapped and zeroed in `new`; plain integers; the program does not run now, and `self` is borrowed.
        unsafe { &mut *(CACHE_START as *mut State) }
    }

    pub fn state_ref(&self) -> &State {
        // SAFETY: as for `state`.
        unsafe { &*(CACHE_START as *const State) }
    }

    pub fn context(&mut self) -> &mut ThreadContext {
        // SAFETY: as for `state`.
        unsafe { &mut *(THREADS_START as *mut ThreadContext) }
    }

    /// Fresh context: bases, no dirty registers.
    pub fn reset_context(&mut self, fs: u64, gs: u64) {
        let ctx = self.context();
        ctx.self_ptr = THREADS_START;
        ctx.scratch = [0x5c5c_5c5c_5c5c_5c5c; 16];
        ctx.scratch[slot::ALIGNMENT_CHECK as usize] = 0;
        (ctx.guest_fs, ctx.guest_gs) = (fs, gs);
        self.set_dirty(0);
    }

    pub fn set_dirty(&mut self, mask: u64) {
        // SAFETY: behind the context in the same mapping.
        unsafe { *((THREADS_START as i64 + i64::from(SHADOW_REGS)) as *mut u64) = mask };
    }

    /// Bases as translated code expects them.
    pub fn translated_bases(&mut self) {
        let state = self.state();
        (state.fs, state.gs) = (THREADS_START, V_DISTANCE);
    }

    /// From now on a run that takes once or twice this time of the processor hangs.
    pub fn limit(&mut self, nanoseconds: i64) {
        let period = libc::timespec { tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000 };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer of the thread that is attached.
        let done =
            unsafe { libc::timer_settime(TIMER.load(Ordering::Relaxed) as libc::timer_t, 0, &raw const setting, std::ptr::null_mut()) };
        assert_eq!(done, 0, "a timer");
    }

    /// Run at `entry` with the registers in `state` until something comes back.
    pub fn run(&mut self, entry: u64) -> Reason {
        self.state().entry = entry;
        RUNS.fetch_add(1, Ordering::Relaxed);
        RUNNING.store(true, Ordering::SeqCst);
        // SAFETY: the routine keeps what the C convention asks for; the program's code works on its own memory, and faults come back
        // through the handler.
        unsafe {
            let enter: extern "C" fn() = std::mem::transmute(ROUTINES);
            enter();
        }
        RUNNING.store(false, Ordering::SeqCst);
        let reason = REASONS[self.state().reason as usize % REASONS.len()];
        if reason == Reason::Fault {
            self.state().rflags = FAULT_FLAGS.load(Ordering::Relaxed);
        }
        reason
    }

    pub fn fault(&self) -> Fault {
        Fault {
            signal: FAULT_SIGNAL.load(Ordering::Relaxed) as i32,
            code: FAULT_CODE.load(Ordering::Relaxed) as i32,
            rip: FAULT_RIP.load(Ordering::Relaxed),
            addr: FAULT_ADDR.load(Ordering::Relaxed),
        }
    }

    /// Components of the vector state that are saved.
    pub fn components(&self) -> u64 {
        self.components
    }

    /// Put translated code at `at`.
    pub fn write_cache(&mut self, at: u64, code: &[u8]) {
        assert!(at >= CACHE && at + code.len() as u64 <= CACHE + BOTH, "the cache is full");
        // SAFETY: inside our executable mapping; it does not run now.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) }
    }

    /// The two words behind a link stub: program target, address of the rel32 to patch.
    pub fn link_data(&mut self) -> (u64, u64) {
        let at = self.state().link_data;
        assert!(at >= CACHE && at + 16 <= CACHE + BOTH, "link data at {at:#x}");
        // SAFETY: inside our mapping, as just checked.
        let [target, patch] = unsafe { (at as *const [u64; 2]).read_unaligned() };
        (target, patch)
    }

    /// What a run of copies asks for: its dirty region; displacements and sizes.
    pub fn copies_data(&self, at: u64) -> (u64, Vec<(i32, u32)>) {
        let bytes = |at: u64, n: u64| {
            assert!(at >= CACHE && at + n <= CACHE + BOTH, "data of copies at {at:#x}");
            at as *const u8
        };
        // SAFETY: inside our mapping, as just checked; plain integers, which the translator put there.
        unsafe {
            let (region, count) = (bytes(at, 12).cast::<u64>().read_unaligned(), (at as *const u8).add(8).cast::<u32>().read_unaligned());
            let range = |i| bytes(at + 12 + 8 * i, 8).cast::<(i32, u32)>().read_unaligned();
            (region, (0..u64::from(count)).map(range).collect())
        }
    }

    /// Entry of the branch table for low code.
    pub fn set_table(&mut self, pc: u64, host: u64) {
        assert!(crate::world::CODE.contains(pc), "table entry of {pc:#x}");
        let at = V_DISTANCE + memcheck_abi::layout::TABLE_DISPLACEMENT + 8 * pc;
        // SAFETY: the table's part for low code is mapped.
        unsafe { (at as *mut u64).write_unaligned(host) }
    }
}

/// Install the signal handler.
fn listen() {
    // SAFETY: the handler touches statics and its arguments only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
        for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGFPE, libc::SIGBUS, libc::SIGTRAP, libc::SIGALRM] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// What a thread needs to use the gate: a stack for the handler, and a timer that ends runs which hang.
pub struct Attached {
    timer: libc::timer_t,
    _stack: Box<[u8]>,
}

impl Attached {
    pub fn new() -> Attached {
        let mut stack = vec![0u8; 0x2_0000].into_boxed_slice();
        // SAFETY: plain system interface; the stack lives as long as the guard.
        unsafe {
            let signals = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
            libc::sigaltstack(&raw const signals, std::ptr::null_mut());
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::syscall(libc::SYS_gettid) as i32;
            let mut timer: libc::timer_t = std::mem::zeroed();
            assert_eq!(libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer), 0, "a timer");
            Attached { timer, _stack: stack }
        }
    }

    /// From now on it is this thread that runs programs.
    pub fn use_timer(&self) {
        TIMER.store(self.timer as usize, Ordering::Relaxed);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let off = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: the timer is ours; the signal stack is not in use.
        unsafe {
            libc::timer_delete(self.timer);
            libc::sigaltstack(&raw const off, std::ptr::null_mut());
        }
    }
}
