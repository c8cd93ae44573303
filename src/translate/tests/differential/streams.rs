//! Loops that walk through memory: what `translate::rounds` emits several rounds at a time.
//!
//! Some accesses move on by a constant, some stay, some go anywhere; walks may begin near the end of an area, or where no program could be,
//! behind a branch that always leaves.

use crate::random::Random;
use crate::shapes::Program;
use crate::world::{HIGH, LOW};
use crate::writer::{ARITHMETIC, Forms, Taste, Writer, r32, r64};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// Accesses, with the bytes that they touch. The other operand is a register, a number or none.
#[rustfmt::skip]
const ACCESSES: &[(Code, i64)] = &[
    (Code::Mov_r8_rm8, 1), (Code::Mov_rm8_r8, 1), (Code::Movzx_r32_rm16, 2), (Code::Mov_rm16_r16, 2), (Code::Mov_r32_rm32, 4),
    (Code::Mov_rm32_r32, 4), (Code::Mov_r64_rm64, 8), (Code::Mov_rm64_r64, 8), (Code::Add_r64_rm64, 8), (Code::Xor_rm32_r32, 4),
    (Code::Cmp_rm8_imm8, 1), (Code::Movups_xmm_xmmm128, 16), (Code::Movups_xmmm128_xmm, 16), (Code::VEX_Vmovups_ymm_ymmm256, 32),
    (Code::VEX_Vmovups_ymmm256_ymm, 32), (Code::Movsd_xmm_xmmm64, 8), (Code::Inc_rm64, 8), (Code::Movss_xmmm32_xmm, 4),
];

/// A pointer that walks.
#[derive(Clone, Copy)]
struct Stream {
    base: usize,
    index: Option<(usize, u32)>,
    step: i64,
}

pub fn program(random: &mut Random, forms: &Forms, taste: Taste, size: i32) -> Program {
    let mut w = Writer::new(random, forms, taste);
    let (entry, head, end) = (w.new_label(), w.new_label(), w.new_label());
    w.room = 600;
    w.place(entry);
    (0..2).for_each(|_| w.generic());
    let streams: Vec<Stream> = (0..1 + w.random.below(3)).map(|_| stream(&mut w)).collect();
    let counter = w.free_register(0);
    let rounds = w.random.pick(&[1, 2, 3, 4, 5, 7, 8, 9, 17, 40]);
    w.set(counter, rounds);
    w.keep |= 1 << counter;
    w.need_flags(ARITHMETIC);
    w.place(head);
    if w.random.one_in(10) {
        wild(&mut w, end);
    }
    let mut moved = vec![false; streams.len()];
    for _ in 0..size {
        let k = w.random.below(streams.len() as u64) as usize;
        match w.random.below(10) {
            0..=5 => access(&mut w, &streams[k]),
            6 if !moved[k] => {
                walk(&mut w, &streams[k]);
                moved[k] = true;
            }
            7 => leave(&mut w, counter, end),
            8 => {
                let r = w.free_register(0);
                w.put2(Instruction::with2(Code::Add_rm64_imm8, r64(r), 8));
            }
            _ => w.generic(),
        }
    }
    for (stream, _) in streams.iter().zip(&moved).filter(|(_, moved)| !**moved) {
        walk(&mut w, stream);
    }
    w.put2(Instruction::with2(Code::Sub_rm32_imm8, r32(counter), 1));
    w.ops.push(crate::assemble::Op::Branch { code: Code::Jne_rel32_64, label: head, short: false });
    w.place(end);
    Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry, forgotten: 0 }
}

fn stream(w: &mut Writer) -> Stream {
    let step = w.random.pick(&[0, 1, 2, 4, 8, 16, 32, -1, -4, -8, -16, 12, 24, 64, 100]);
    let area = if w.taste.high || w.random.one_in(2) { HIGH } else { LOW };
    // All its rounds stay inside, or the last ones do not.
    let near_end = w.taste.faults && w.random.one_in(3);
    let middle = area.start + area.size / 2;
    let at =
        if near_end { area.end() - w.random.below(300) } else { middle + w.random.below(area.size / 2 - 5000.min(area.size / 3)) % 200 };
    let base = w.free_register(0);
    w.keep |= 1 << base;
    let index = w.random.one_in(3).then(|| {
        let (index, scale) = (w.free_register(0), w.random.pick(&[1, 2, 4, 8]));
        w.keep |= 1 << index;
        (index, scale)
    });
    match index {
        Some((index, scale)) => {
            let n = w.random.below(20);
            w.set(index, n);
            w.set(base, at - n * u64::from(scale));
        }
        None => w.set(base, at),
    }
    Stream { base, index, step }
}

fn operand(w: &mut Writer, s: &Stream) -> MemoryOperand {
    let displacement = w.random.pick(&[0, 0, 0, 4, 8, 16, -8, 1, 31]);
    match s.index {
        Some((index, scale)) => MemoryOperand::with_base_index_scale_displ_size(r64(s.base), r64(index), scale, displacement, 1),
        None => MemoryOperand::with_base_displ(r64(s.base), displacement),
    }
}

fn access(w: &mut Writer, s: &Stream) {
    let memory = operand(w, s);
    let (code, _) = w.random.pick(ACCESSES);
    let data = w.free_register(0);
    let vector = w.random.below(8) as u32;
    let insn = match code {
        Code::Mov_r8_rm8 => Instruction::with2(code, Register::AL + 4 * u32::from(data & 1 != 0), memory),
        Code::Mov_rm8_r8 => Instruction::with2(code, memory, Register::CL),
        Code::Movzx_r32_rm16 | Code::Mov_r32_rm32 => Instruction::with2(code, r32(data), memory),
        Code::Mov_rm16_r16 => Instruction::with2(code, memory, Register::DX),
        Code::Mov_rm32_r32 | Code::Xor_rm32_r32 => Instruction::with2(code, memory, r32(data)),
        Code::Mov_r64_rm64 | Code::Add_r64_rm64 => Instruction::with2(code, r64(data), memory),
        Code::Mov_rm64_r64 => Instruction::with2(code, memory, r64(data)),
        Code::Cmp_rm8_imm8 => Instruction::with2(code, memory, 3),
        Code::Inc_rm64 => Instruction::with1(code, memory),
        Code::Movups_xmm_xmmm128 | Code::Movsd_xmm_xmmm64 => Instruction::with2(code, Register::XMM0 + vector, memory),
        Code::Movups_xmmm128_xmm | Code::Movss_xmmm32_xmm => Instruction::with2(code, memory, Register::XMM0 + vector),
        Code::VEX_Vmovups_ymm_ymmm256 => Instruction::with2(code, Register::YMM0 + vector, memory),
        _ => Instruction::with2(code, memory, Register::YMM0 + vector),
    }
    .expect("an access");
    if w.is_allowed(&insn) {
        w.put(insn);
    }
}

/// One step on.
fn walk(w: &mut Writer, s: &Stream) {
    let r = match s.index {
        Some((index, _)) if w.random.one_in(2) => index,
        _ => s.base,
    };
    let by = s.step as i32;
    let insn = match (s.step, w.random.below(4)) {
        (1, 0) => Instruction::with1(Code::Inc_rm64, r64(r)),
        (-1, 0) => Instruction::with1(Code::Dec_rm64, r64(r)),
        (_, 0) => Instruction::with2(Code::Lea_r64_m, r64(r), MemoryOperand::with_base_displ(r64(r), s.step)),
        (-64..=64, 1) => Instruction::with2(Code::Sub_rm64_imm8, r64(r), -by),
        (-64..=64, 2) => Instruction::with2(Code::Add_rm64_imm8, r64(r), by),
        _ => Instruction::with2(Code::Add_rm64_imm32, r64(r), by),
    };
    w.put2(insn);
}

/// A branch out of the loop that is taken in one of its rounds, or never.
fn leave(w: &mut Writer, counter: usize, end: usize) {
    let last = w.random.below(9) as i32;
    w.put2(Instruction::with2(Code::Cmp_rm32_imm8, r32(counter), last));
    w.branch(Code::Je_rel32_64, end);
}

/// An access where no memory can be, behind a branch that always leaves.
fn wild(w: &mut Writer, end: usize) {
    let base = w.free_register(0);
    w.put2(Instruction::with2(Code::Cmp_r32_rm32, r32(base), r32(base)));
    w.branch(Code::Je_rel32_64, end);
    let memory = w.random.pick(&[0x7fff_ffff, -8, -0x8000_0000]);
    let operand = MemoryOperand::with_base_index_scale_displ_size(r64(base), r64(base), 8, memory, 4);
    if base != 4 {
        w.put2(Instruction::with2(Code::Cmp_rm32_imm8, operand, 3));
    }
}
