//! What must be known about a region before it is emitted: which flags live, and what its tail does to the stack pointer.

use crate::decode::{Item, Tail};
use crate::kinds::{Kinds, mark};
use crate::{Program, gpr, leaf};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};
use memcheck_abi::layout::RED_ZONE;

/// The arithmetic flags.
pub const ARITHMETIC: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// Longest run of pops that one check covers.
const MAX_BATCH: usize = 8;

/// Instructions looked at behind an exit to see whether flags are dead there.
const LOOKAHEAD: usize = 6;

/// `who`: in clean code only checks want to know whether flags live.
pub fn plan(kinds: &mut Kinds, program: &dyn Program, items: &mut [Item], tail: Tail, who: Who) {
    releases(program, items);
    flags(kinds, program, items, tail, who);
    batches(program, items);
}

/// For whom liveness of flags is found out: code ahead has to be read for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    All,
    /// The other items say that flags live.
    Checks,
}

/// Flags that may live at some point because code at `pc` may read them; what comes before may overwrite them.
struct Ahead {
    pc: u64,
    /// Only what is seen to be read counts.
    read_only: bool,
    alive: u32,
}

/// Flags that live at a point of a region, which is gone through backwards. What is ahead of an exit is read when somebody asks: most often
/// the comparison in front of a branch has overwritten all flags before.
struct Living<'a> {
    program: &'a dyn Program,
    surely: u32,
    ahead: [Ahead; Living::MOST],
    count: usize,
}

impl Living<'_> {
    const MOST: usize = 6;

    fn new(program: &dyn Program) -> Living<'_> {
        Living { program, surely: 0, ahead: [const { Ahead { pc: 0, read_only: false, alive: 0 } }; Living::MOST], count: 0 }
    }

    fn all(&mut self) {
        (self.surely, self.count) = (ARITHMETIC, 0);
    }

    fn add(&mut self, pc: u64, read_only: bool) {
        if self.count == Living::MOST {
            self.any();
        }
        self.ahead[self.count] = Ahead { pc, read_only, alive: ARITHMETIC };
        self.count += 1;
    }

    /// Back over an instruction.
    fn before(&mut self, (read, killed): (u32, u32)) {
        self.surely = self.surely & !killed | read;
        let mut kept = 0;
        for i in 0..self.count {
            self.ahead[i].alive &= !killed;
            if self.ahead[i].alive != 0 {
                self.ahead.swap(kept, i);
                kept += 1;
            }
        }
        self.count = kept;
    }

    fn any(&mut self) -> bool {
        for ahead in &self.ahead[..self.count] {
            if self.surely & ahead.alive == ahead.alive {
                continue;
            }
            let live = if ahead.read_only { read_at(self.program, ahead.pc) } else { live_at(self.program, ahead.pc) };
            self.surely |= live & ahead.alive;
        }
        self.count = 0;
        self.surely != 0
    }
}

/// Shifts and rotations: by a count of zero they leave the flags alone.
pub fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    matches!(mnemonic, Shl | Shr | Sar | Sal | Rol | Ror | Rcl | Rcr | Shld | Shrd)
}

/// Flags that the instruction surely overwrites.
pub fn killed(insn: &Instruction) -> u32 {
    let mut set = insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set() | insn.rflags_undefined() & RflagsBits::AF;
    if is_shift(insn.mnemonic()) {
        let last = insn.op_count() - 1;
        let by_register = insn.op_kind(last) == OpKind::Register;
        let mask =
            if insn.op0_kind() == OpKind::Register && insn.op0_register().is_gpr64() || insn.memory_size().size() == 8 { 63 } else { 31 };
        if by_register || insn.immediate8() & mask == 0 {
            set = 0;
        }
    }
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        set = 0;
    }
    set & ARITHMETIC
}

pub fn flags(kinds: &mut Kinds, program: &dyn Program, items: &mut [Item], tail: Tail, who: Who) {
    let mut live = Living::new(program);
    match tail {
        Tail::Next(pc) => live.add(pc, false),
        Tail::Invalid(_) => live.all(),
        Tail::Control => match items.last() {
            Some(last) if last.noise => {}
            Some(last) => live_after(&last.insn, &mut live),
            None => live.all(),
        },
    }
    for item in items.iter_mut().rev() {
        if item.marks & mark::BRANCH != 0 {
            live.add(item.aside(), false);
        }
        if item.client_request {
            live.all();
        }
        live.before(kinds.flags(&item.insn));
        let asks = who == Who::All || item.marks & mark::POP != 0 || item.looks_below || has_memory(&item.insn);
        item.flags_live = live.surely != 0 || !asks || live.any();
    }
}

/// Is there an explicit memory operand?
pub fn has_memory(insn: &Instruction) -> bool {
    let memory = OpKind::Memory;
    insn.op0_kind() == memory || insn.op1_kind() == memory || insn.op2_kind() == memory || insn.op3_kind() == memory
}

/// Flags live after the control transfer that ends a region.
fn live_after(insn: &Instruction, live: &mut Living) {
    match insn.flow_control() {
        FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => live.add(insn.near_branch_target(), false),
        // Only subroutines written by hand take flags, and those read them at once.
        FlowControl::Call if insn.op0_kind() == OpKind::NearBranch64 => live.add(insn.near_branch_target(), true),
        FlowControl::IndirectCall => {}
        // Through a linkage table to a function.
        FlowControl::IndirectBranch if insn.is_ip_rel_memory_operand() => {}
        _ => live.all(),
    }
}

/// Flags that may be read at `pc` before they are written: looks at a few instructions, and gives up with "all".
pub fn live_at(program: &dyn Program, pc: u64) -> u32 {
    let (read, dead) = look_ahead(program, pc);
    ARITHMETIC & !dead | read
}

/// Flags that are seen to be read.
pub fn read_at(program: &dyn Program, pc: u64) -> u32 {
    look_ahead(program, pc).0
}

/// The function that this instruction calls, 0 if that is not known, if the code behind the call is seen to read flags. Or it does not come
/// back, and other code begins there.
pub fn returns_flags_to(program: &dyn Program, call: &Item) -> Option<u64> {
    let target = match call.insn.flow_control() {
        FlowControl::Call if call.insn.op0_kind() == OpKind::NearBranch64 => call.insn.near_branch_target(),
        FlowControl::IndirectCall => 0,
        _ => return None,
    };
    (read_at(program, call.pc + u64::from(call.len)) != 0).then_some(target)
}

/// May the next few instructions change? Nobody compares what was seen there when it comes to be run.
pub fn may_change(program: &dyn Program, pc: u64, instructions: usize) -> bool {
    const LONGEST: u64 = 15;
    program.is_writable(pc) || program.is_writable(pc + LONGEST * instructions as u64)
}

/// Flags read, and flags written before they are read, by the next few instructions. Code that may change may come to read all of them.
fn look_ahead(program: &dyn Program, pc: u64) -> (u32, u32) {
    if may_change(program, pc, LOOKAHEAD) {
        return (ARITHMETIC, 0);
    }
    let Some(code) = program.code(pc) else { return (0, 0) };
    let mut decoder = Decoder::with_ip(64, code, pc, DecoderOptions::NONE);
    let (mut read, mut dead) = (0, 0);
    for _ in 0..LOOKAHEAD {
        let insn = decoder.decode();
        if insn.is_invalid() {
            break;
        }
        if insn.flow_control() != FlowControl::Next {
            read |= insn.rflags_read() & ARITHMETIC & !dead;
            break;
        }
        read |= insn.rflags_read() & ARITHMETIC & !dead;
        dead |= killed(&insn);
        if dead == ARITHMETIC {
            break;
        }
    }
    (read, dead)
}

/// Bytes that an instruction releases at the top of the stack, if that is a constant.
pub fn released(insn: &Instruction) -> Option<u32> {
    match insn.mnemonic() {
        Mnemonic::Pop | Mnemonic::Popfq if insn.op_count() == 0 || insn.op0_register() != Register::RSP => {
            Some(insn.stack_pointer_increment() as u32)
        }
        Mnemonic::Add
            if insn.op0_register() == Register::RSP && insn.op1_kind() != OpKind::Register && insn.op1_kind() != OpKind::Memory =>
        {
            u32::try_from(insn.immediate(1)).ok().filter(|&n| n < 1 << 20)
        }
        // 128 is shorter that way.
        Mnemonic::Sub if insn.op0_register() == Register::RSP && insn.op1_kind() == OpKind::Immediate8to64 => {
            u32::try_from((insn.immediate(1) as i64).wrapping_neg()).ok().filter(|&n| n != 0)
        }
        _ => None,
    }
}

/// In front of a `ret` or a jump, let that paint what pops and additions have released: one batch, and the caller's red zone is dead there.
fn releases(program: &dyn Program, items: &mut [Item]) {
    let Some((last, before)) = items.split_last_mut() else { return };
    let is_ret = last.insn.mnemonic() == Mnemonic::Ret;
    if !is_ret && !leaves_for_good(&last.insn) {
        return;
    }
    let mut total = if is_ret { 8 } else { 0 };
    let (mut only_registers, mut by_moves) = (true, false);
    let gives_array_back = before.iter().any(|i| takes_from_register(&i.insn));
    for item in before.iter_mut().rev() {
        let takes_frame_down = item.insn.mnemonic() == Mnemonic::Leave || takes_from_register(&item.insn) && only_registers;
        if takes_frame_down {
            // It paints what it releases itself, here up to the stack pointer: the lowest part of a frame is nobody's initial value.
            (item.deferred, by_moves) = (true, true);
            // What an array of variable length has left there may reach up to the frame.
            item.looks_below = gives_array_back;
        } else if by_moves {
            break;
        } else if let Some(n) = released(&item.insn) {
            total += n;
            item.deferred = true;
        } else if !harmless(&item.insn) {
            break;
        }
        only_registers &= !reaches_below(&item.insn);
    }
    if !is_ret {
        last.released = total;
        last.looks_below = ends_small_frame(before);
        return;
    }
    let pops_frame_pointer = total == 16 && before.last().is_some_and(|i| i.insn.op0_register() == Register::RBP);
    // A leaf: what it left in its red zone is nobody's initial value either.
    last.released = total + if pops_frame_pointer { RED_ZONE as u32 } else { leaf::reaches_below(program, last.pc) };
    last.looks_below = ends_small_frame(before);
    // A function that takes down a frame is compiled: its caller expects nothing in the flags. (Callers of leaves written by hand may, and
    // were seen to read them; and so may compilers that put their code into memory at run time: a carry says there that several values are
    // returned.)
    let compiled = before.iter().any(|i| i.deferred) || !program.returns_flags(last.pc);
    last.noise = compiled && !program.is_writable(last.pc);
}

/// `add rsp, n` and at most `pop rbp` in front of a `ret` or jump: what a leaf with a frame of its own may end with. (Others save more
/// registers, or align the stack pointer for calls.)
fn ends_small_frame(before: &[Item]) -> bool {
    const ALIGNS: u32 = 8;
    let mut down = before.iter().rev().filter(|i| i.deferred).peekable();
    down.next_if(|i| i.insn.mnemonic() == Mnemonic::Pop && i.insn.op0_register() == Register::RBP);
    down.next().is_some_and(|i| released(&i.insn).is_some_and(|n| n > ALIGNS))
}

/// A jump that may be the last that a function does.
fn leaves_for_good(insn: &Instruction) -> bool {
    match insn.flow_control() {
        FlowControl::UnconditionalBranch => insn.op0_kind() == OpKind::NearBranch64,
        FlowControl::IndirectBranch => insn.is_jmp_near_indirect() && !reaches_below(insn),
        _ => false,
    }
}

/// `mov rsp, register` and `lea rsp, [register + displacement]`: how frames of changing size end.
fn takes_from_register(insn: &Instruction) -> bool {
    insn.op_count() == 2
        && insn.op0_register() == Register::RSP
        && match insn.mnemonic() {
            Mnemonic::Mov => insn.op1_kind() == OpKind::Register,
            Mnemonic::Lea => insn.memory_base() != Register::RSP && insn.memory_index() == Register::None,
            _ => false,
        }
}

/// Might it touch what lies below the stack pointer? By another register than the stack pointer, too.
fn reaches_below(insn: &Instruction) -> bool {
    insn.mnemonic() != Mnemonic::Lea
        && (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
        && !insn.is_ip_rel_memory_operand()
        && !in_frame(insn)
}

/// Is its memory operand at the stack pointer or above?
fn in_frame(insn: &Instruction) -> bool {
    insn.memory_base() == Register::RSP && insn.memory_index() == Register::None && insn.memory_displacement64() as i64 >= 0
}

/// Runs of pops are checked, and runs of pushes made defined, at once, by the first. Prologues save a register between moves: what
/// does not touch the stack may stand between pushes.
fn batches(program: &dyn Program, items: &mut [Item]) {
    let is_pop = |i: &Item| {
        i.marks & mark::POP != 0
            && !i.unread
            && i.insn.op0_kind() == OpKind::Register
            && i.insn.op0_register().is_gpr64()
            && i.insn.op0_register() != Register::RSP
    };
    let marks = items.iter().fold(0, |all, item| all | item.marks);
    if marks & mark::PUSH != 0 {
        push_runs(items);
    }
    if marks & mark::POP == 0 {
        return;
    }
    for item in items.iter_mut().filter(|i| i.marks & mark::POP != 0) {
        item.unread = takes_off(program, item);
    }
    let mut at = 0;
    while at < items.len() {
        let run = items[at..].iter().take(MAX_BATCH).take_while(|i| is_pop(i)).count();
        if run > 1 {
            items[at].batch = run as u8;
            for i in &mut items[at + 1..at + run] {
                i.batch = 0;
            }
        }
        at += run.max(1);
    }
}

/// Does a pop only take something off the stack: an argument that was passed there, or padding? Compilers pop to a register that is of no use
/// then. If nobody reads it up to the next call or return, the register is no argument or result either.
fn takes_off(program: &dyn Program, item: &Item) -> bool {
    const KEPT_BY_CALLS: u32 = 1 << 3 | 1 << 4 | 1 << 5 | 0xf << 12;
    let register = if item.insn.op0_register().is_gpr64() { gpr(item.insn.op0_register()) } else { None };
    register.is_some_and(|r| KEPT_BY_CALLS >> r & 1 == 0 && program.is_unread(item.pc + u64::from(item.len), r, false))
}

fn push_runs(items: &mut [Item]) {
    let is_push = |i: &Item| i.marks & mark::PUSH != 0 && i.insn.op0_kind() == OpKind::Register && i.insn.op0_register().is_gpr64();
    let between = |i: &Item| harmless(&i.insn) && (0..i.insn.op_count()).all(|k| i.insn.op_kind(k) != OpKind::Memory);
    let mut at = 0;
    while at < items.len() {
        if !is_push(&items[at]) {
            at += 1;
            continue;
        }
        let (first, mut last, mut count) = (at, at, 1);
        for (next, item) in items.iter().enumerate().skip(at + 1) {
            if is_push(item) && count < MAX_BATCH {
                (last, count) = (next, count + 1);
            } else if !between(item) {
                break;
            }
        }
        for i in items[first..=last].iter_mut().filter(|i| is_push(i)) {
            i.batch = 0;
        }
        items[first].batch = count as u8;
        at = last + 1;
    }
}

/// May stand between a release and the end without mattering: neither changes the stack pointer, nor uses what lies below it, nor leaves.
fn harmless(insn: &Instruction) -> bool {
    insn.flow_control() == FlowControl::Next
        && insn.stack_pointer_increment() == 0
        && (0..insn.op_count()).all(|i| match insn.op_kind(i) {
            OpKind::Register => insn.op_register(i).full_register() != Register::RSP,
            OpKind::Memory => insn.memory_base() != Register::RSP || in_frame(insn),
            _ => true,
        })
}
