//! Loops of clean mode: several rounds are checked at once.
//!
//! A region that branches back to its own beginning is emitted twice, first as a few rounds in a row, whose accesses off registers that stay
//! or that move by a constant are all checked at the top:
//!
//! ```text
//! top:   V bytes of rounds 1..4 all zero?  ; jne plain     one look for what moves on, one for what stays
//!        round 1, without these checks     ; leaves the loop? exit
//!        round 2 ..  4                     ; jcc top
//! plain: one round, every access with its own check ; jcc top
//! ```
//! The look ahead may meet what the program never touches, the red zone behind an array; then the plain round decides, which is no more than
//! what the loop would have been. What was seen at the top holds to the end of the last round: nothing in such a loop calls, moves the stack
//! pointer or enters the kernel, and its stores only make bytes defined. A signal between two rounds comes back by a region of its own.
//! (Another thread may free what is read: it is noticed some rounds later.)

use crate::decode::Item;
use crate::emit::{CC_NE, Mem, RCX, RSP};
use crate::emitter::{Emitter, spill};
use crate::kinds::{Kinds, mark};
use crate::rules::Probe;
use crate::{Place, Program, Region, STORE, Translator, clean, control, gpr, merge, slot};
use alloc::vec::Vec;
use iced_x86::{Code, FlowControl, Instruction, OpKind};

/// Longest loop, in instructions, and most instructions of all its rounds.
const LONGEST: usize = 24;
const ROOM: usize = 48;
/// Most bytes that a round may move on, and most that are looked at in one place.
const STRIDE: i64 = 64;
const MOST: i64 = 256;
/// Most tests at the top.
const TESTS: usize = 6;

/// A loop to be emitted in rounds.
pub struct Rounds {
    count: usize,
    /// Operands whose V bytes are looked at at the top, and their sizes.
    spans: Vec<(Mem, u32)>,
    /// Items whose accesses lie in there.
    covered: Vec<bool>,
}

/// What an item does, as far as it matters here.
struct Fact {
    access: Option<(Mem, u32, u32)>,
    /// The general register that it moves by a constant.
    moves: Option<(u8, i64)>,
    writes: u32,
}

/// How an access goes on from round to round: where it lies in the first, and the step.
#[derive(Clone, Copy)]
struct Walk {
    item: usize,
    mem: Mem,
    size: u32,
    step: i64,
    /// What checking it costs each round, in halves of a test.
    cost: i64,
}

/// The item that closes the loop that the region begins, if it is one.
pub fn closing(items: &[Item]) -> Option<usize> {
    let start = items.first()?.pc;
    let closes = |item: &Item| {
        let direct = item.marks & mark::BRANCH != 0 && control::condition(item.insn.condition_code()).is_some()
            || item.insn.flow_control() == FlowControl::UnconditionalBranch && item.insn.op0_kind() == OpKind::NearBranch64;
        item.marks & mark::STRAIGHT == 0 && direct && item.insn.near_branch_target() == start
    };
    let last = items.iter().take(LONGEST).rposition(closes)?;
    let inside = |item: &Item| item.plain || item.marks & mark::BRANCH != 0 && control::condition(item.insn.condition_code()).is_some();
    let quiet = |item: &Item| !item.client_request && item.insn.stack_pointer_increment() == 0;
    items[..last].iter().all(|item| inside(item) && quiet(item)).then_some(last)
}

/// How to emit this loop in rounds, if that is worth it.
pub fn find(t: &mut Translator, program: &dyn Program, items: &[Item]) -> Option<Rounds> {
    let first = items.first()?;
    if first.flags_live || program.is_writable(first.pc) {
        return None;
    }
    let facts: Vec<Fact> = items.iter().map(|item| fact(&mut t.kinds, item)).collect();
    let walks = walks(&facts, t.options.private_vectors, |mem| {
        mem.base.is_none() && mem.index.is_none() && program.is_constant(mem.disp as i64 as u64)
    });
    if walks.is_empty() {
        return None;
    }
    let wide = t.options.private_vectors;
    [4, 2].into_iter().filter(|count| count * items.len() <= ROOM).find_map(|count| plan(&walks, items.len(), count, wide))
}

fn fact(kinds: &mut Kinds, item: &Item) -> Fact {
    let insn = &item.insn;
    let size = insn.memory_size().size() as u32;
    let access = match kinds.access(insn) {
        Some(Some(kind)) if (1..=64).contains(&size) && !clean::is_masked_move(insn) => merge::operand(insn).map(|mem| (mem, size, kind)),
        _ => None,
    };
    Fact { access, moves: moves(insn), writes: kinds.written(insn) }
}

/// The register that the instruction moves by a constant, and how far.
fn moves(insn: &Instruction) -> Option<(u8, i64)> {
    let register = || gpr(insn.op0_register());
    match insn.code() {
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 if insn.op0_kind() == OpKind::Register => {
            Some((register()?, insn.immediate(1) as i64))
        }
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 if insn.op0_kind() == OpKind::Register => {
            Some((register()?, (insn.immediate(1) as i64).wrapping_neg()))
        }
        Code::Inc_rm64 if insn.op0_kind() == OpKind::Register => Some((register()?, 1)),
        Code::Dec_rm64 if insn.op0_kind() == OpKind::Register => Some((register()?, -1)),
        Code::Lea_r64_m if insn.memory_base() == insn.op0_register() && gpr(insn.memory_index()).is_none() => {
            Some((register()?, insn.memory_displacement64() as i64))
        }
        _ => None,
    }
    .filter(|(_, by)| by.unsigned_abs() <= STRIDE as u64)
}

/// Accesses off registers that stay the same in a round, or move by a constant, once.
fn walks(facts: &[Fact], wide: bool, constant: impl Fn(&Mem) -> bool) -> Vec<Walk> {
    // Where a register changes: the only item that does, and by how much.
    let change = |r: u8| {
        let mut writers = facts.iter().enumerate().filter(|(_, f)| f.writes >> r & 1 != 0);
        match (writers.next(), writers.next()) {
            (None, _) => Some((0, 0)),
            (Some((at, f)), None) => f.moves.filter(|(moved, _)| *moved == r).map(|(_, by)| (at, by)),
            _ => None,
        }
    };
    let walk = |(item, fact): (usize, &Fact)| {
        let (mem, size, kind) = fact.access.filter(|(mem, ..)| !constant(mem))?;
        let (mut step, mut ahead) = (0, 0);
        for (r, scale) in mem.base.map(|r| (r, 0)).into_iter().chain(mem.index) {
            let (at, by) = change(r)?;
            step += by << scale;
            // An instruction that moves the register of its own operand reads it first.
            ahead += if at < item { by << scale } else { 0 };
        }
        let disp = i32::try_from(i64::from(mem.disp) + ahead).ok().filter(|d| d.unsigned_abs() < 1 << 30)?;
        let on_stack = kind == STORE && mem.base == Some(RSP) && mem.index.is_none();
        let cost = if on_stack { 1 } else { i64::from(merge::tests(size, wide)) };
        (step.abs() <= STRIDE).then_some(Walk { item, mem: Mem { disp, ..mem }, size, step, cost })
    };
    facts.iter().enumerate().filter_map(walk).collect()
}

/// What to look at for so many rounds. None: nothing, or it costs as much as it saves.
fn plan(walks: &[Walk], items: usize, count: usize, wide: bool) -> Option<Rounds> {
    let mut rounds = Rounds { count, spans: Vec::new(), covered: alloc::vec![false; items] };
    let mut left: Vec<Walk> = walks.to_vec();
    while let Some(first) = left.first().copied() {
        let same = |w: &Walk| w.mem.base == first.mem.base && w.mem.index == first.mem.index;
        let group: Vec<Walk> = left.iter().copied().filter(same).collect();
        left.retain(|w| !same(w));
        let spans = spans(&group, count);
        let cost: i64 = spans.iter().map(|&(_, size)| i64::from(looks(size, wide))).sum();
        let saved = group.iter().map(|w| w.cost).sum::<i64>() * count as i64;
        if 2 * cost <= saved && spans.iter().all(|&(_, size)| i64::from(size) <= MOST) {
            rounds.spans.extend(spans);
            for walk in group {
                rounds.covered[walk.item] = true;
            }
        }
    }
    (!rounds.spans.is_empty() && rounds.spans.len() <= TESTS).then_some(rounds)
}

/// What a look at so many bytes costs, in halves of a test.
fn looks(size: u32, wide: bool) -> u32 {
    match size {
        1 | 2 | 4 | 8 => 2,
        0..16 => 4,
        _ if wide => 3 * cut(size).count() as u32,
        _ => 2 * size.div_ceil(8),
    }
}

/// The bytes that accesses off the same registers touch in so many rounds, without the gaps.
fn spans(group: &[Walk], count: usize) -> Vec<(Mem, u32)> {
    let mut pieces: Vec<(i64, i64)> = group
        .iter()
        .flat_map(|w| (0..count as i64).map(move |k| i64::from(w.mem.disp) + k * w.step).map(move |at| (at, at + i64::from(w.size))))
        .collect();
    pieces.sort_unstable();
    let mut out: Vec<(i64, i64)> = Vec::new();
    for (from, to) in pieces {
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out.into_iter().map(|(from, to)| (Mem { disp: from as i32, ..group[0].mem }, (to - from) as u32)).collect()
}

/// Emit the loop that `items` are, and go on at `behind` when it ends.
pub fn emit(t: &mut Translator, program: &dyn Program, items: &[Item], behind: u64, rounds: &Rounds, at: Place) -> Region {
    let start = items[0].pc;
    t.probes.clear();
    let mut e = Emitter::alone(t, program, None, at.hot, Item::none(start));
    e.cold.base = at.cold;
    e.asm.load(RCX, &spill(slot::RCX));
    let body = e.asm.offset();
    e.begin(&items[0], start);
    let (patches, looks) = e.look(&rounds.spans);
    let mut end = start + 1;
    for round in 0..rounds.count {
        for (i, item) in items.iter().enumerate() {
            if round + i > 0 {
                e.begin(item, start);
            }
            e.covered = rounds.covered[i];
            if i + 1 == items.len() && round + 1 < rounds.count {
                e.stay(behind)
            } else {
                e.instruction()
            }
            e.forget();
            end = end.max(item.pc + u64::from(item.len));
        }
    }
    e.covered = false;
    e.end_rounds(items, start, behind);
    let plain = e.asm.here();
    for patch in patches {
        e.asm.patch_here(patch);
    }
    e.t.probes.extend(looks.into_iter().map(|host| Probe { host, resume: plain }));
    e.known.clear();
    for item in items {
        e.begin(item, start);
        e.instruction();
        e.forget();
    }
    e.end_rounds(items, start, behind);
    e.finish(body, start, end)
}

impl Emitter<'_> {
    /// Go to the plain round unless all these V bytes are zero. The branches there, and where memory is read.
    fn look(&mut self, spans: &[(Mem, u32)]) -> (Vec<usize>, Vec<u64>) {
        let (mut patches, mut looks) = (Vec::new(), Vec::new());
        let mut vectors: Vec<(Mem, u32)> = Vec::new();
        for &(mem, size) in spans {
            if self.t.options.private_vectors && size >= 16 {
                vectors.extend(cut(size).map(|(at, n)| (mem.shadow(at), n)));
                continue;
            }
            for (at, n) in words(size) {
                looks.push(self.asm.here());
                self.asm.cmp_zero(&mem.shadow(at), n);
                patches.push(self.asm.jcc_forward(CC_NE));
            }
        }
        // A short vector clears what is above it: the longest comes last.
        vectors.sort_by_key(|v| v.1);
        if let [(mem, size)] = vectors[..] {
            looks.push(self.asm.here());
            self.asm.test_wide(&mem, size);
            patches.push(self.asm.jcc_forward(CC_NE));
        } else if let Some((_, widest)) = vectors.last().copied() {
            for (i, (mem, size)) in vectors.iter().enumerate() {
                looks.push(self.asm.here());
                self.asm.gather_wide(mem, *size, i == 0);
            }
            self.asm.test_gathered(widest);
            patches.push(self.asm.jcc_forward(CC_NE));
        }
        (patches, looks)
    }

    /// The closing branch of a round that another one follows.
    fn stay(&mut self, behind: u64) {
        self.mark_own();
        if let Some(cc) = control::condition(self.item.insn.condition_code()) {
            self.exit_jcc(cc ^ 1, behind);
        }
    }

    /// Behind the last round.
    fn end_rounds(&mut self, items: &[Item], start: u64, behind: u64) {
        if items.last().is_some_and(|last| last.marks & mark::BRANCH != 0) {
            let last = Item { pc: behind, len: 0, ..self.item };
            self.begin(&last, start);
            self.exit_jmp(behind);
        }
    }
}

/// At least 16 bytes as vectors of 64, 32 or 16 bytes, the last of which may overlap.
fn cut(size: u32) -> impl Iterator<Item = (i32, u32)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let left = size - at;
        let whole = [16, 32, 64].into_iter().find(|&n| n >= left && n <= size).filter(|_| left > 0);
        let n = whole.or_else(|| [64, 32, 16].into_iter().find(|&n| n <= left))?;
        let from = if whole.is_some() { size - n } else { at };
        at = from + n;
        Some((from as i32, n))
    })
}

/// The same as words.
fn words(size: u32) -> impl Iterator<Item = (i32, u32)> {
    let n = [8, 4, 2].into_iter().find(|&n| n <= size).unwrap_or(1);
    (0..size.div_ceil(n)).map(move |i| ((i * n).min(size - n) as i32, n))
}
