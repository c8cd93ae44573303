//! The translator: program code in, annotated code out. Bytes to bytes; no unsafe code, no process.
//!
//! ```text
//! decode   a region: straight-line code from one entry, past not-taken branches           decode.rs
//! plan     which flags live at each instruction, what the stack pointer does               plan.rs
//! emit     the region and its cold stubs (emitter.rs); each instruction                    clean.rs stack.rs control.rs
//!          its memory operand, its checks, one for a run of them, of bits              operand.rs check.rs merge.rs bits.rs
//!          what precedes it in dirty mode, what no operand names                       dirty.rs moves.rs spread.rs
//! rounds   loops of clean mode, checked several rounds at a time                               rounds.rs
//! copies   clean mode's second translation, of copies of undefined bytes                  copies.rs
//! loops    dirty mode's second translation, of loops that are dirty round after round      loops.rs
//! ```
//! The program's instructions run in their own registers. A check of an n-byte access is one compare of its n shadow bytes,
//! addressed through gs with the program's own operand, and a branch that is not taken:
//!
//! ```text
//!     cmp dword gs:[rdi+8], 0     ; V bytes
//!     jne stub                    ; cold: address, size, where to go on; then the runtime's slow check
//!     mov eax, [rdi+8]            ; the program's own instruction
//! ```
//! Where arithmetic flags are live the compare is replaced by a load to rcx and `jrcxz` (rcx spilled to the thread context).
//!
//! A region has two entries: the *indirect* one restores rcx from its spill slot and falls into the *body*, which is the target
//! of linked direct branches. Direct branches leave through a patchable rel32 that first points at a cold link stub.
#![no_std]
extern crate alloc;

pub mod bits;
pub mod changing;
pub mod check;
pub mod clean;
pub mod control;
pub mod copies;
pub mod decode;
pub mod dirty;
pub mod emit;
pub mod emitter;
pub mod frames;
pub(crate) mod kinds;
pub mod leaf;
pub mod loops;
pub mod merge;
pub mod moves;
pub mod needs;
pub mod operand;
pub mod origins;
pub mod plan;
pub mod relocate;
pub mod rounds;
pub mod rules;
pub mod spread;
pub mod stack;

use alloc::vec::Vec;
use plan::Who;

/// Addresses of the runtime's routines that translated code jumps to. All within a rel32 of the code cache.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stubs {
    /// ctx.target = program address, rcx spilled in slot 0: find or make the translation and go there.
    pub dispatch: u64,
    /// rax spilled in slot 1, rax = address of a `LinkData`: translate, patch, go.
    pub link: u64,
    /// Slow check: rax in slot 1, address in 2, host address to continue at in 3, descriptor ([`check_descriptor`]) in 4.
    pub check: u64,
    /// Call runtime helper number slot 4: rax in slot 1, continue address in slot 3, regs.rip = program address.
    pub helper: u64,
    /// System call: regs.rip = address after it; rcx = host address to continue at.
    pub syscall: u64,
    /// Replaced function: regs.rip = its entry, eax... slot 4 = function number; returns to the program's caller.
    pub replace: u64,
    /// Paint released stack: rcx spilled in slot 0; slot 2 = old stack pointer; continue address in slot 3.
    pub release: u64,
    /// The stack pointer was changed in an unusual way: as `release`.
    pub stack_moved: u64,
    /// Dirty mode: go to ctx.target (rcx spilled in slot 0), to its clean code if all registers are defined. Slot 4: [`LEAVE_JUMP`]..
    pub dirty_branch: u64,
    /// The same, and slot 2 is the address of a cell that may be given the host address of the target's dirty code: the next time the
    /// region's end jumps there.
    pub dirty_link: u64,
    /// Undefined bytes of a frame are loaded, or stored: see `frames`. The registers and slots are left alone, but not the flags.
    pub frame_origin: u64,
    pub frame_note: u64,
    /// A run of copies begins, see `copies`: rax in slot 1, source and target in 2 and 8, where to go on in 3, in 4 the address of what to copy.
    pub copies: u64,
}

/// Helper numbers (slot 4 low 8 bits; the rest is an argument).
pub mod helper {
    /// Emulate the instruction at regs.rip (cpuid, fs/gs base instructions, ...).
    pub const EMULATE: u32 = 1;
    /// Check and shadow a repeated string instruction before it runs. Argument: `string_argument`.
    pub const STRING: u32 = 2;
    /// A client request.
    pub const CLIENT_REQUEST: u32 = 3;
    /// Dirty mode: apply the rule of the plan at slot 2 to the instruction at regs.rip.
    pub const STEP: u32 = 5;
    /// Code in a writable page is no longer what was translated (argument 1), or could not be compared in place (0). Slot 3 = an
    /// address in the region.
    pub const CODE_CHECK: u32 = 4;
}

/// Spill slots of the thread context.
pub mod slot {
    pub const RCX: i32 = 0;
    pub const RAX: i32 = 1;
    pub const ADDRESS: i32 = 2;
    pub const CONTINUE: i32 = 3;
    pub const ARGUMENT: i32 = 4;
    pub const FLAGS: i32 = 5;
    /// The program's alignment check flag, at its place in EFLAGS; the processor's own is always clear.
    pub const ALIGNMENT_CHECK: i32 = 15;
}

/// Kinds of a checked access.
pub const LOAD: u32 = 0;
pub const STORE: u32 = 1;
pub const MODIFY: u32 = 2;
/// As the size: the vector registers in the memory of xsave (STORE) or xrstor (LOAD), which only their rule knows exactly.
pub const STATE_AREA: u32 = 256;
/// As the size, with STORE: a gather or scatter, whose lanes each have an address.
pub const SPREAD: u32 = 257;

/// What slot 4 holds for `Stubs::check`: size in bits 0..16, kind in 16..18.
pub const fn check_descriptor(size: u32, kind: u32) -> u32 {
    size | kind << 16
}

/// How dirty mode leaves a region (slot 4, low 8 bits): the ABI says which registers are dead then.
pub const LEAVE_JUMP: u32 = 0;
pub const LEAVE_CALL: u32 = 1;
pub const LEAVE_RETURN: u32 = 2;
/// In slot 4 as well: the end of the region goes back, perhaps to the beginning of a loop.
pub const LEAVE_BACK: u32 = 1 << 30;
/// Registers that carry nothing over a call: r11 and the flags.
pub const DEAD_OVER_CALL: u64 = 1 << 11 | 1 << 16;

/// And over a return: all but results, the frame's registers and those that functions keep.
pub const DEAD_OVER_RETURN: u64 = 1 << 1 | 0x3f << 6 | 1 << 16 | 0x3fff << (shadow_layout::VEC0 + 2);

/// Offset of the shadow registers in a thread's slot, from its context; their first word is the mask of dirty registers.
pub const SHADOW_REGS: i32 = 0x5000;

/// Offset in a thread's slot of room for vector registers that rules use. (Not in the context's vector state: a stop of the thread, at any
/// instruction, stores that.)
pub const VECTOR_SLOTS: i32 = 0x6000;
/// Bytes there.
pub const VECTOR_SLOTS_SIZE: usize = 256;

/// Offset in a thread's slot of what `loops` keeps: general registers, vector registers; and of its counters.
pub const KEPT_IN_LOOP: i32 = VECTOR_SLOTS + VECTOR_SLOTS_SIZE as i32;
pub const LOOP_COUNTERS: i32 = KEPT_IN_LOOP + 16 * 8 + 16 * 16;
/// Bytes there, of both.
pub const LOOP_SLOTS_SIZE: usize = 16 * 8 + 16 * 16 + 64 * 4;

/// What dirty mode knows about an instruction. Registers by their bits in the mask of dirty registers.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rule {
    /// Address of its plan, for `helper::STEP`.
    pub plan: u64,
    /// Registers that matter to it at all.
    pub mask: u64,
    /// Registers whose dirt can reach a result or the address.
    pub reads: u64,
    /// Those of them that form the address.
    pub address: u64,
    /// Registers that are defined afterwards if none of `reads` and no byte of what it loads is undefined.
    pub writes: u64,
    /// That last sentence is the whole rule for defined inputs.
    pub quick: bool,
    /// It reads memory.
    pub loads: bool,
    /// If it is a move, translated code may carry it out on the shadow itself.
    pub inline: bool,
}

/// Makes rules for dirty mode.
pub trait Shadow {
    fn rule(&mut self, insn: &iced_x86::Instruction) -> Rule;

    /// Registers that are dead at `pc`, and vector registers that may be. None: not known, leave it to `Stubs::dirty_branch`.
    fn dead_at(&mut self, _pc: u64) -> Option<(u64, u64)> {
        None
    }
}

/// Layout of the shadow registers, which translated code reads and writes.
pub mod shadow_layout {
    /// Registers whose origin is only known as a place.
    pub const FLAGS: i32 = 8;
    pub const LAZY: i32 = 24;
    /// How often a loop may still come round without undefined values before it is left for clean code.
    pub const PATIENCE: i32 = 32;
    pub const GPR: i32 = 64;
    pub const ORIGIN: i32 = 384;
    pub const VEC: i32 = 640;
    pub const PLACE: i32 = 2688;
    /// Bit of the first vector register.
    pub const VEC0: u32 = 26;
    /// Bits of the vector registers, and of things that only the runtime knows.
    pub const VECTORS: u64 = !0 << VEC0;
}

/// Data behind a link stub, read by the runtime: program target, host address of the rel32 to patch.
pub const LINK_DATA_SIZE: usize = 16;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Check definedness of loads (V), not only heap addressability.
    pub undef: bool,
    /// zmm31 (all ones), zmm30 (zeros), zmm29 and k7 are ours: the processor has AVX-512 and the program, which is told that it has not,
    /// does not use it. See [`uses_private_registers`].
    pub private_vectors: bool,
    /// Origins of undefined values are kept.
    pub origins: bool,
    /// The processor has BMI1 and BMI2: pext, which tests a mask without touching flags, and what `rules` is written with.
    pub pext: bool,
    /// Parts of stacks may be forbidden: stores to the stack ask, too.
    pub ask_on_stack: bool,
}

/// Does the program use registers that `Options::private_vectors` takes for its own?
pub fn uses_private_registers(insn: &iced_x86::Instruction) -> bool {
    (0..insn.op_count()).any(|i| {
        let r = insn.op_register(i);
        r.is_k() || r.is_vector_register() && r.number() >= 16
    }) || insn.op_mask() != iced_x86::Register::None
}

/// Does a mask say which parts of its memory operand the instruction touches? What it leaves out may have no address at all.
pub fn has_masked_memory(insn: &iced_x86::Instruction) -> bool {
    use iced_x86::{OpKind, Register};
    let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    memory && (clean::is_masked_move(insn) || insn.op_mask() != Register::None)
}

/// Does the instruction reach its memory through the stack segment? There an address that is not canonical raises SIGBUS, elsewhere
/// (and in the check, which goes through gs) SIGSEGV. Not those that the kernel carries out (user-mode instruction prevention).
pub fn uses_stack_segment(insn: &iced_x86::Instruction) -> bool {
    use iced_x86::{Mnemonic, OpKind, Register};
    if matches!(insn.mnemonic(), Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Sldt | Mnemonic::Str | Mnemonic::Smsw) {
        return false;
    }
    if (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory) {
        // Of the prefixes that name a segment only two mean something in 64-bit mode.
        let by_name = matches!(insn.segment_prefix(), Register::FS | Register::GS);
        return !by_name && matches!(insn.memory_base().full_register(), Register::RSP | Register::RBP);
    }
    insn.is_stack_instruction()
}

/// What the translator asks about the program.
pub trait Program {
    /// Bytes of code from `pc` on (up to the end of its mapping, at least one instruction if there is one), or none if it
    /// cannot be executed.
    fn code(&self, pc: u64) -> Option<&[u8]>;
    /// A replaced function starts here (number of the function), and whether it is an IFUNC resolver.
    fn redirect(&self, pc: u64) -> Option<(u32, bool)>;
    /// A translation or a replaced function begins at `pc`.
    fn begins(&self, pc: u64) -> bool;
    /// Data at `addr` cannot be written by the program: its V bytes stay zero.
    fn is_constant(&self, addr: u64) -> bool;
    /// The page of `pc` is writable, through this or another mapping: the code may change under us. Regions there end behind every
    /// store and begin with a comparison.
    fn is_writable(&self, pc: u64) -> bool;
    /// Is what this general register holds at `pc` overwritten there, or not read until the next call or return? `passed`: it may be an
    /// argument of that call, or a result.
    fn is_unread(&self, _pc: u64, _register: u8, _passed: bool) -> bool {
        false
    }
    /// May the `ret` at `pc` leave flags behind that the caller reads?
    fn returns_flags(&self, _pc: u64) -> bool {
        true
    }
    /// The indirect branch at `pc` is known to go to code that has no entry in the branch table.
    fn is_far(&self, _pc: u64) -> bool {
        false
    }
}

/// One program instruction in a region: enough to map a host address back to program state.
#[derive(Clone, Copy, Default, Debug)]
pub struct InsnInfo {
    /// Offset of its first host byte from the region's start.
    pub host: u32,
    /// Offset of the program instruction from the region's program address (may be negative after followed jumps).
    pub pc: i32,
    /// Register that is spilled while the host offset (from the region's start) is in `spill`: in slot 6, or with bit 7 in
    /// slot 0; 0xff = none.
    pub spilled: u8,
    pub len: u8,
    pub spill: (u32, u32),
    /// Offset of the copied program instruction itself; a fault there is the program's own.
    pub own: u32,
}

impl InsnInfo {
    /// Is a register spilled at this host offset?
    pub fn is_spilled(&self, host: u32) -> bool {
        self.spilled != 0xff && host >= self.spill.0 && host < self.spill.1
    }
}

/// A patchable exit.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Offset of the rel32 in the code.
    pub patch: u32,
    /// Address of the link stub it points to until linked.
    pub stub: u64,
    pub target: u64,
}

/// Where a region is going to be put. Both within a rel32 of each other and of the stubs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub hot: u64,
    pub cold: u64,
}

/// A translated region.
pub struct Region {
    pub code: Vec<u8>,
    /// Code that is seldom run, at `Place::cold`.
    pub cold: Vec<u8>,
    /// Offset of the body entry (the indirect entry is at 0).
    pub body: u32,
    pub info: Vec<InsnInfo>,
    pub exits: Vec<Exit>,
    /// Program address range translated: [start, end).
    pub start: u64,
    pub end: u64,
    /// It ends in a call: somebody will return to `end`.
    pub calls: bool,
}

/// What regions are made of, empty, but with room.
#[derive(Default)]
pub(crate) struct Spare {
    code: Vec<u8>,
    cold: Vec<u8>,
    info: Vec<InsnInfo>,
    exits: Vec<Exit>,
    known: Vec<(emit::Mem, u32)>,
}

/// Translates regions; keeps its working memory between calls.
pub struct Translator {
    /// The last region uses registers that `Options::private_vectors` counts on.
    pub conflict: bool,
    /// The last region ends in a call of this function (0: of any), behind which flags are read: see [`Program::returns_flags`].
    pub asks_flags_of: Option<u64>,
    /// A region since this was last set to false moves the stack pointer by what is only known when it runs: the frames of the function that it
    /// belongs to are not of one size.
    pub frames_vary: bool,
    pub(crate) items: Vec<decode::Item>,
    /// Dirty mode: for every item, which conditions on flags are asked for behind it.
    pub(crate) needs: Vec<needs::Needs>,
    pub(crate) kinds: kinds::Kinds,
    /// Lists of regions that are used again.
    pub(crate) spare: Spare,
    /// Memory accesses that may fault though the program's do not: in the cold code of the last dirty region, at the top of a loop in rounds.
    pub probes: Vec<rules::Probe>,
    /// Code that the cold parts of dirty regions share, and where it lies. It stays there as long as the translator.
    pub routines: Vec<(moves::Access, u64)>,
    pub stubs: Stubs,
    pub options: Options,
}

impl Translator {
    pub fn new(stubs: Stubs, options: Options) -> Translator {
        Translator {
            conflict: false,
            asks_flags_of: None,
            frames_vary: false,
            items: Vec::with_capacity(64),
            needs: Vec::new(),
            spare: Spare::default(),
            probes: Vec::new(),
            routines: Vec::new(),
            kinds: kinds::Kinds::new(),
            stubs,
            options,
        }
    }

    /// Translate the region at `pc`, to be placed at `at`. None if there is no executable code at `pc`.
    pub fn translate(&mut self, program: &dyn Program, pc: u64, at: Place) -> Option<Region> {
        if let Some((func, resolver)) = program.redirect(pc) {
            return Some(control::redirected(self, pc, at.hot, func, resolver));
        }
        let mut items = core::mem::take(&mut self.items);
        let tail = decode::region(&mut self.kinds, program, pc, &mut items);
        let conflicts = |i: &decode::Item| i.marks & kinds::mark::PUBLIC == 0 && uses_private_registers(&i.insn);
        self.conflict = self.options.private_vectors && items.iter().any(conflicts);
        self.asks_flags_of = items.last().and_then(|last| plan::returns_flags_to(program, last));
        let region = tail.map(|tail| match self.in_rounds(program, &mut items, at) {
            Some(region) => region,
            None => self.once(program, &mut items, tail, at),
        });
        self.items = items;
        region
    }

    /// Nobody needs the region any more; the next one is made of its memory.
    pub fn take_back(&mut self, region: Region) {
        let Region { code, cold, info, exits, .. } = region;
        self.spare = Spare { code, cold, info, exits, known: core::mem::take(&mut self.spare.known) };
    }

    fn once(&mut self, program: &dyn Program, items: &mut [decode::Item], tail: decode::Tail, at: Place) -> Region {
        // The comparison of code that may change keeps flags, too.
        let who = if items.first().is_some_and(|first| program.is_writable(first.pc)) { Who::All } else { Who::Checks };
        plan::plan(&mut self.kinds, program, items, tail, who);
        merge::find(&mut self.kinds, items, self.options.private_vectors);
        bits::find(&mut self.kinds, items);
        emitter::emit_region(self, program, items, tail, at, None, None)
    }

    /// The region as a loop, if it is one that is better checked several rounds at a time.
    fn in_rounds(&mut self, program: &dyn Program, items: &mut [decode::Item], at: Place) -> Option<Region> {
        let closing = rounds::closing(items)?;
        let items = &mut items[..=closing];
        let behind = items[closing].pc + u64::from(items[closing].len);
        // The look at the top comes before the first instruction, whatever that is.
        let tail = if items[closing].marks & kinds::mark::BRANCH != 0 { decode::Tail::Next(behind) } else { decode::Tail::Control };
        plan::plan(&mut self.kinds, program, items, tail, Who::All);
        let found = rounds::find(self, program, items)?;
        merge::find(&mut self.kinds, items, self.options.private_vectors);
        Some(rounds::emit(self, program, items, behind, &found, at))
    }

    /// Translate the code at `pc` for dirty mode. Regions are short: few instructions run in it at a time.
    pub fn translate_dirty(&mut self, program: &dyn Program, pc: u64, at: Place, shadow: &mut dyn Shadow) -> Option<Region> {
        let mut items = core::mem::take(&mut self.items);
        let tail = decode::region(&mut self.kinds, program, pc, &mut items).map(|tail| {
            let length = dirty::length(&items);
            decode::shorten(&mut items, tail, length)
        });
        self.asks_flags_of = items.last().and_then(|last| plan::returns_flags_to(program, last));
        let region = tail.map(|tail| {
            plan::plan(&mut self.kinds, program, &mut items, tail, Who::All);
            needs::find(program, &items, tail, &mut self.needs);
            self.probes.clear();
            emitter::emit_region(self, program, &items, tail, at, Some(shadow), None)
        });
        self.items = items;
        region
    }

    /// Translate the run of copies that begins at `pc`, for a check there that has found something undefined; `region`: the dirty code, for when
    /// it is not as simple as it looks. None: there is no such run.
    pub fn translate_copies(&mut self, program: &dyn Program, pc: u64, at: Place, shadow: &mut dyn Shadow, region: u64) -> Option<Region> {
        let mut items = core::mem::take(&mut self.items);
        let found = copies::find(self, program, pc, shadow, region, &mut items);
        self.asks_flags_of = items.last().and_then(|last| plan::returns_flags_to(program, last));
        let region = found.map(|(copies, tail)| {
            plan::plan(&mut self.kinds, program, &mut items, tail, Who::Checks);
            emitter::emit_region(self, program, &items, tail, at, None, Some(copies))
        });
        self.items = items;
        region
    }

    /// Translate the loop that `entry` is in, to be placed at `place`; see `loops`.
    pub fn translate_loop(
        &mut self,
        program: &dyn Program,
        entry: loops::Entry,
        place: u64,
        shadow: &mut dyn Shadow,
    ) -> Option<loops::Made> {
        self.probes.clear();
        let code = loops::translate(self, program, entry, place, shadow);
        if code.is_none() {
            self.probes.clear();
        }
        code
    }
}

/// Number of a 64-bit (or smaller) general register, None for others.
pub(crate) fn gpr(reg: iced_x86::Register) -> Option<u8> {
    let full = reg.full_register();
    full.is_gpr64().then(|| full.number() as u8)
}
