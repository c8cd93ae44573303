//! From the exec stop to the first translated instruction.
//!
//! The kernel has mapped program, interpreter, stack and vdso where it likes. Everything is moved to where `abi::layout` wants it;
//! nothing of the program has run yet, so the only pointers to fix are those that the kernel put on the initial stack:
//!
//! ```text
//! rsp -> argc | argv[..] 0 | envp[..] 0 | auxv pairs .. AT_NULL | strings
//! ```
//! The initial stack is copied, not moved: the kernel goes on reading the command line and the environment (/proc) from the old
//! place, which stays mapped, unused, out of the program's way.
#![allow(unsafe_code, reason = "moves mappings and edits the initial stack")]

use crate::{asm, cache, inner, program, replaced, stackmove, syscalls, threads};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use memcheck_abi::config::{Config, Mapping, mapping};
use memcheck_abi::event::{Redirect, Trap, needed};
use memcheck_abi::layout::{EXE_BASE, LOW_END, MAIN_STACK_TOP, PROGRAM_END, RED_ZONE, V_DISTANCE};
use memcheck_kernel::hooks::exec;
use memcheck_rt::{depot, report, shadow, sys};
use memcheck_translate::{Options, Stubs};

pub const BOOT_STACK_SIZE: usize = 1 << 16;
/// Stack for start-up, before the first thread slot exists.
#[repr(C, align(64))]
pub struct BootStack([u8; BOOT_STACK_SIZE]);
pub static mut BOOT_STACK: BootStack = BootStack([0; BOOT_STACK_SIZE]);

static CONFIG: AtomicPtr<Config> = AtomicPtr::new(memcheck_abi::layout::IMAGE_BASE as *mut Config);

/// Is definedness checked? Read by `asm::check`.
pub static UNDEF: AtomicU32 = AtomicU32::new(1);

const MREMAP_MAYMOVE_FIXED: u64 = 3;
const MAP_GROWSDOWN: u64 = 0x100;
/// Bytes of the fresh stack below the copy that are mapped and painted at once.
const STACK_MARGIN: u64 = 64 << 10;

/// No more of the main stack is undefined from the start: deeper frames in memory never touched before read as defined.
const STACK_SHEET_MAX: u64 = 8 << 20;

pub fn config() -> &'static Config {
    // SAFETY: the image starts with the configuration; written by the tracer and by `start` before anyone else reads it.
    unsafe { &*CONFIG.load(Ordering::Relaxed) }
}

/// Called by `asm::start` on the boot stack; `rsp` is the program's initial stack pointer.
pub extern "C" fn start(rsp: u64) -> ! {
    // SAFETY: as `config`; nobody else runs yet.
    let config = unsafe { &mut *CONFIG.load(Ordering::Relaxed) };
    UNDEF.store(config.undef_value_errors, Ordering::Relaxed);
    let moves = Moves::decide(config);
    moves.carry_out(config);
    if !sys::read_guarded(rsp, &mut [0]) {
        fail("a process may not read its own memory (process_vm_readv is refused, as in some containers and sandboxes)");
    }
    if !shadow::reserve() || !depot::init() {
        fail("the address space for the shadow memory cannot be reserved (overcommit or ulimit -v)");
    }
    let stack = move_stack(config, rsp);
    memcheck_kernel::proc_files::keep_auxv(fix_auxv(config, &moves, rsp, stack));
    let rsp = rsp.wrapping_add(stack);
    let (undef, origins) = (config.undef_value_errors != 0, config.track_origins != 0);
    if !cache::init(
        stubs(),
        Options { undef, private_vectors: crate::vectors::acquire(), origins, pext: crate::vectors::has_bmi(), ask_on_stack: false },
    ) {
        fail("the code cache cannot be mapped");
    }
    memcheck_kernel::init(config);
    memcheck_kernel::install(&HOOKS);
    if !memcheck_heap::init(config) {
        fail("the heap's tables cannot be mapped");
    }
    memcheck_replace::init(config);
    memcheck_replace::set_origin_hooks(crate::origin::describe, crate::origin::of_place, crate::origin::moved);
    replaced::init();
    report::init(config.num_callers, memcheck_heap::describe);
    report::set_ignored(crate::requests::is_ignored);
    report::set_stand(crate::requests::stand);
    let Some(ctx) = threads::first(rsp, moves.address(config.start_rip)) else { fail("no memory for the first thread") };
    make_stack_undefined(rsp);
    stackmove::settle(ctx, rsp);
    // SAFETY: restores what the tracer changed.
    unsafe { sys::syscall3(sys::nr::PERSONALITY, u64::from(config.personality), 0, 0) };
    memcheck_kernel::sigtrap::inherit(ctx);
    report::trap(Trap::Ready, memcheck_kernel::space::program_break(), 0, 0, 0);
    if memcheck_kernel::sigtrap::is_ignored() {
        syscalls::tell_about_sigtrap();
    }
    for m in &config.mappings[..config.mapping_count as usize] {
        if m.prot & sys::PROT_EXEC as u32 != 0 && (m.kind == mapping::PROGRAM || m.kind == mapping::INTERPRETER) {
            announce(m.start, m.end);
        }
    }
    if config.stop_at_start != 0 {
        crate::requests::stand(ctx.regs.rip, rsp);
    }
    asm::enter()
}

/// The stack below `rsp`: what its first frames will lie in is painted, the rest is undefined without being there.
fn make_stack_undefined(rsp: u64) {
    shadow::fill_v(rsp - STACK_MARGIN, STACK_MARGIN - RED_ZONE, shadow::UNDEFINED);
    let Some((floor, top, ..)) = memcheck_kernel::space::mapping_of(rsp) else { return };
    let (end, most) = (rsp - STACK_MARGIN, top.saturating_sub(STACK_SHEET_MAX));
    let start = floor.max(most);
    if start < end && memcheck_heap::sheet::lay([(start + V_DISTANCE, end - start)]) {
        shadow::expect_stack_sheet(start, top);
    }
}

/// The runtime cannot start: one line for the user.
fn fail(text: &str) -> ! {
    report::refused(text)
}

pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    let mut text = Line { bytes: [0; 256], len: 0 };
    let _ = core::fmt::Write::write_fmt(&mut text, format_args!("{info}"));
    report::internal(core::str::from_utf8(&text.bytes[..text.len]).unwrap_or("panic"))
}

/// A line of text in place, cut when full.
pub struct Line {
    pub bytes: [u8; 256],
    pub len: usize,
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let n = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// How far each kind of mapping moves.
struct Moves {
    program: Range,
    interpreter: Range,
    vdso: Range,
}

#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
    delta: u64,
}

impl Range {
    fn of(config: &Config, kinds: &[u32]) -> Range {
        let mine = || config.mappings[..config.mapping_count as usize].iter().filter(|m| kinds.contains(&m.kind));
        let start = mine().map(|m| m.start).min().unwrap_or(0);
        Range { start, end: mine().map(|m| m.end).max().unwrap_or(start), delta: 0 }
    }

    fn moved_to(self, base: u64) -> Range {
        Range { delta: base.wrapping_sub(self.start), ..self }
    }

    fn len(&self) -> u64 {
        self.end - self.start
    }

    /// End of the place that it gets.
    fn new_end(&self) -> u64 {
        self.end.wrapping_add(self.delta)
    }

    fn apply(&self, addr: u64) -> u64 {
        if addr >= self.start && addr <= self.end && self.start != self.end { addr.wrapping_add(self.delta) } else { addr }
    }
}

/// Where a position-independent program goes whose data would leave no room for libraries in the low area. Its code runs from there, too,
/// though not as fast.
const LARGE_BASE: u64 = 0x10_0000_0000;
/// Of the low area, what libraries and generated code need beside the program.
const LIBRARIES: u64 = 256 << 20;

impl Moves {
    fn decide(config: &Config) -> Moves {
        let program = place_program(Range::of(config, &[mapping::PROGRAM, mapping::HEAP]));
        let interpreter = Range::of(config, &[mapping::INTERPRETER]);
        let stays = interpreter.end != 0 && interpreter.end <= LOW_END;
        let place = behind(if program.new_end() <= LOW_END { program.new_end().max(EXE_BASE) } else { EXE_BASE });
        let interpreter = if stays { interpreter } else { interpreter.moved_to(place) };
        let vdso = Range::of(config, &[mapping::VDSO]).moved_to(behind(place + interpreter.len()));
        Moves { program, interpreter, vdso }
    }

    fn range(&self, kind: u32) -> Range {
        match kind {
            mapping::PROGRAM | mapping::HEAP => self.program,
            mapping::INTERPRETER => self.interpreter,
            mapping::VDSO => self.vdso,
            _ => Range::default(),
        }
    }

    fn address(&self, addr: u64) -> u64 {
        let moved = self.program.apply(addr);
        if moved != addr { moved } else { self.interpreter.apply(addr) }
    }

    /// Move every mapping by the distance of its kind, and write the new addresses into the configuration.
    fn carry_out(&self, config: &mut Config) {
        let count = config.mapping_count as usize;
        for m in &mut config.mappings[..count] {
            let range = self.range(m.kind);
            if range.delta != 0 && relocate(m, range.delta) {
                m.start = m.start.wrapping_add(range.delta);
                m.end = m.end.wrapping_add(range.delta);
            }
        }
    }
}

/// The loader and the vDSO follow the program closely, so that the rest of the low area is as free as it is natively, where
/// programs put mappings at addresses of their own choice: 0x1000_0000 is popular.
fn behind(end: u64) -> u64 {
    const ROUND: u64 = 1 << 20;
    end.next_multiple_of(ROUND) + ROUND
}

/// A program that is linked to a place stays there.
fn place_program(program: Range) -> Range {
    /// In the file header: position-independent (or a library) and not linked to a place.
    const E_TYPE: u64 = 16;
    const ET_EXEC: u16 = 2;
    // SAFETY: the kernel has mapped the program's first page, with the file header, where its mappings begin.
    let is_fixed = program.end <= LOW_END || unsafe { *((program.start + E_TYPE) as *const u16) } == ET_EXEC;
    if is_fixed {
        if memcheck_kernel::space::forbidden(program.start, program.end) {
            fail("it is linked to addresses that memcheck needs (a position-independent build can be moved)");
        }
        return program;
    }
    let fits = EXE_BASE + program.len() <= LOW_END - LIBRARIES;
    program.moved_to(if fits { EXE_BASE } else { LARGE_BASE })
}

fn relocate(m: &Mapping, delta: u64) -> bool {
    let len = m.end - m.start;
    let to = m.start.wrapping_add(delta);
    // SAFETY: nothing of the program runs yet; the target range is unused (low addresses, chosen apart from each other).
    let r = unsafe { sys::syscall6(sys::nr::MREMAP, m.start, len, len, MREMAP_MAYMOVE_FIXED, to, 0) };
    if sys::is_error(r) && m.kind != mapping::VDSO {
        fail("its mappings cannot be moved (mremap is refused)");
    }
    !sys::is_error(r)
}

/// Where in its page the initial stack pointer is put. A load that follows a store to the same place in another page waits for it as if it
/// were to the same address, and the V bytes double loads and stores: a stack that lies badly makes programs half as fast (perl, jq, lua and
/// the bit-fields of the benchmark, over sixteen places: up to 1.5, 2.1, 1.6 and 1.6 times their best). Thread contexts have their slots in
/// the first 0x100 bytes of a page, large blocks begin at 0x20, their V at 0x860. With this, main's frame begins at 0xf70; down to 0xb40 no
/// frame meets those, nor do the V of frames, at 0x7b0 down to 0x380.
const STACK_COLOUR: u64 = 0x80;

/// Copy the initial stack to just below MAIN_STACK_TOP; returns the distance.
fn move_stack(config: &mut Config, rsp: u64) -> u64 {
    let count = config.mapping_count as usize;
    let Some(m) = config.mappings[..count].iter_mut().find(|m| rsp >= m.start && rsp < m.end) else {
        fail("the initial stack was not found")
    };
    let used = m.end - (rsp & !4095);
    let delta = (MAIN_STACK_TOP - 4096).wrapping_sub(m.end).wrapping_add(STACK_COLOUR.wrapping_sub(rsp) % 4096);
    let len = used + 4096 + 2 * STACK_MARGIN;
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_FIXED_NOREPLACE | MAP_GROWSDOWN;
    let prot = u64::from(m.prot);
    // SAFETY: a fresh mapping; NOREPLACE.
    let r = unsafe { sys::syscall6(sys::nr::MMAP, MAIN_STACK_TOP - len, len, prot, flags, u64::MAX, 0) };
    if sys::is_error(r) {
        fail("there is no memory for its stack");
    }
    // SAFETY: both ranges are mapped and apart.
    unsafe { core::ptr::copy_nonoverlapping((m.end - used) as *const u8, (m.end - used).wrapping_add(delta) as *mut u8, used as usize) };
    let old_end = m.end;
    fix_pointers(rsp, old_end, delta);
    (m.start, m.end, m.kind) = (MAIN_STACK_TOP - len, MAIN_STACK_TOP, mapping::STACK);
    delta
}

/// argv and envp: every word up to the second null that points into the old stack.
fn fix_pointers(rsp: u64, old_end: u64, delta: u64) {
    let mut at = rsp.wrapping_add(delta) + 8;
    let mut nulls = 0;
    while nulls < 2 {
        // SAFETY: the vectors lie in the copy and end with two nulls, as the kernel built them.
        let word = unsafe { &mut *(at as *mut u64) };
        if *word == 0 {
            nulls += 1;
        } else if *word >= rsp && *word < old_end {
            *word = word.wrapping_add(delta);
        }
        at += 8;
    }
}

mod at {
    pub const NULL: u64 = 0;
    pub const IGNORE: u64 = 1;
    pub const PHDR: u64 = 3;
    pub const BASE: u64 = 7;
    pub const ENTRY: u64 = 9;
    pub const PLATFORM: u64 = 15;
    pub const BASE_PLATFORM: u64 = 24;
    pub const RANDOM: u64 = 25;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
}

fn fix_auxv(config: &Config, moves: &Moves, rsp: u64, delta: u64) -> &'static [u8] {
    let vdso_moved =
        config.mappings[..config.mapping_count as usize].iter().filter(|m| m.kind == mapping::VDSO).all(|m| m.end <= PROGRAM_END);
    let mut at = rsp.wrapping_add(delta) + 8;
    for _ in 0..2 {
        // SAFETY: argv and envp end with a null each.
        while unsafe { *(at as *const u64) } != 0 {
            at += 8;
        }
        at += 8;
    }
    let start = at;
    loop {
        // SAFETY: the auxiliary vector follows and ends with AT_NULL.
        let pair = unsafe { &mut *(at as *mut [u64; 2]) };
        match pair[0] {
            // SAFETY: the vector from its start to here, in the program's stack, which stays.
            at::NULL => return unsafe { core::slice::from_raw_parts(start as *const u8, (at + 16 - start) as usize) },
            at::PHDR | at::ENTRY => pair[1] = moves.program.apply(pair[1]),
            at::BASE => pair[1] = moves.interpreter.apply(pair[1]),
            at::PLATFORM | at::BASE_PLATFORM | at::RANDOM | at::EXECFN => pair[1] = pair[1].wrapping_add(delta),
            at::SYSINFO_EHDR if vdso_moved => pair[1] = moves.vdso.apply(pair[1]),
            at::SYSINFO_EHDR | at::RSEQ_FEATURE_SIZE | at::RSEQ_ALIGN => pair[0] = at::IGNORE,
            _ => {}
        }
        at += 16;
    }
}

fn stubs() -> Stubs {
    let address = |f: extern "C" fn()| f as usize as u64;
    Stubs {
        dispatch: address(asm::dispatch),
        link: address(asm::link),
        check: address(asm::check),
        helper: address(asm::helper),
        syscall: address(asm::syscall),
        replace: address(asm::replace),
        release: address(asm::release),
        stack_moved: address(asm::stack_moved),
        dirty_branch: address(asm::dirty_branch),
        dirty_link: address(asm::link_dirty),
        frame_origin: address(asm::frame_origin),
        frame_note: address(asm::frame_note),
        copies: address(asm::copies),
    }
}

/// Bytes of the instruction.
const SYSCALL: u64 = 2;

static HOOKS: memcheck_kernel::Hooks = memcheck_kernel::Hooks {
    program_call: || asm::memcheck_syscall_insn as *const () as u64 + SYSCALL,
    register_v: crate::dirty::register_v,
    memory_origin: crate::origin::describe,
    register_origin: crate::dirty::register_origin,
    code_changed,
    exec_mapped,
};

fn code_changed(start: u64, len: u64) {
    cache::CACHE.lock().invalidate(start, len);
    program::remove_redirects(start, start.saturating_add(len));
    inner::forget(start, start.saturating_add(len));
    crate::spread::forget();
    report::trap(Trap::Unmapped, start, start.saturating_add(len), 0, 0);
}

fn exec_mapped(start: u64, end: u64, flags: u32) {
    if flags & exec::FILE != 0 {
        announce(start, end);
    }
}

/// An object's code appeared: the tracer names it and says which of its functions are replaced.
fn announce(start: u64, end: u64) {
    let mut redirects = alloc::vec![Redirect::default(); 2048];
    let n = report::trap(Trap::Mapped, start, end, redirects.as_mut_ptr() as u64, redirects.len() as u64);
    for r in redirects.iter().take(n as usize) {
        if r.func == needed::BY_PROGRAM {
            program::add_jump(r.addr, r.target);
            // It may be a function of an object that was there before, and has run.
            cache::CACHE.lock().invalidate(r.addr, 1);
        } else if r.func == needed::FOLDED {
            memcheck_heap::entries::add_folded(r.addr);
        } else if !inner::remember(r.func, r.addr) && replaced::has(r.func) {
            program::add_redirect(r.addr, r.func, r.resolver != 0);
        }
    }
}
