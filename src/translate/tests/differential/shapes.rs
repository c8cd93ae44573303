//! Control flow, the stack, and instructions with needs of their own.
//!
//! Every block leaves the stack pointer where it found it, and branches only to labels of its own level, so any mixture of blocks is a
//! program that ends. Loops count a register that their body keeps; functions call only functions written before them.

use crate::assemble::Op;
use crate::random::Random;
use crate::world::{ALTERNATE, CONSTANTS, FCW_AT, HIGH, INDEX_AT, LOW, MXCSR_AT};
use crate::writer::{ARITHMETIC, Forms, Function, Need, RSP, Taste, Writer, r32, r64};
use iced_x86::{Code, Instruction, MemoryOperand, Register, RepPrefixKind};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// A program: operations, number of labels, label of its first instruction.
#[derive(Clone)]
pub struct Program {
    pub ops: Vec<Op>,
    pub labels: usize,
    pub entry: usize,
    /// Flags without a defined value at the end.
    pub undefined: u32,
}

/// Functions first, then the main part, which runs into the program's end.
pub fn program(random: &mut Random, forms: &Forms, taste: Taste, size: i32) -> Program {
    let mut w = Writer::new(random, forms, taste);
    let entry = w.new_label();
    let count = w.random.below(4);
    for _ in 0..count {
        function(&mut w, size / 4);
    }
    w.undefined = 0;
    w.place(entry);
    w.direction = None;
    w.room = 600;
    block(&mut w, size, 0);
    Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry }
}

/// One instruction of a form, framed by others that need all its flags, or none.
pub fn single(random: &mut Random, forms: &Forms, taste: Taste, code: Code, memory: bool) -> Option<Program> {
    let mut w = Writer::new(random, forms, taste);
    let entry = w.new_label();
    w.place(entry);
    w.room = 600;
    if !w.form(code, Some(memory)) {
        return None;
    }
    match w.random.below(3) {
        0 => {}
        1 => w.put2(Instruction::with2(Code::Cmp_rm32_r32, Register::EDX, Register::ESI)),
        _ => w.put2(Instruction::with1(Code::Seto_rm8, Register::R9L)),
    }
    Some(Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry })
}

/// Some instructions, `size` at most or a little more.
fn block(w: &mut Writer, size: i32, depth: u32) {
    let mut left = size;
    while left > 0 {
        let before = w.ops.len();
        match w.random.below(100) {
            0..=55 => w.generic(),
            56..=61 => special(w),
            62..=66 => stack_unit(w, left / 3, depth),
            67..=74 if depth < 3 => skip(w, left / 3, depth),
            75..=78 if depth < 2 => repeat(w, (left / 4).min(12), depth),
            79..=83 if depth < 3 => indirect(w),
            84..=89 => call(w),
            90..=92 if depth < 2 => frame(w, left / 3, depth),
            _ => w.generic(),
        }
        left -= (w.ops.len() - before).max(1) as i32;
    }
}

const CONDITIONS: [Code; 16] = [
    Code::Jo_rel32_64,
    Code::Jno_rel32_64,
    Code::Jb_rel32_64,
    Code::Jae_rel32_64,
    Code::Je_rel32_64,
    Code::Jne_rel32_64,
    Code::Jbe_rel32_64,
    Code::Ja_rel32_64,
    Code::Js_rel32_64,
    Code::Jns_rel32_64,
    Code::Jp_rel32_64,
    Code::Jnp_rel32_64,
    Code::Jl_rel32_64,
    Code::Jge_rel32_64,
    Code::Jle_rel32_64,
    Code::Jg_rel32_64,
];

/// A branch over a block.
fn skip(w: &mut Writer, size: i32, depth: u32) {
    let over = w.new_label();
    if w.random.one_in(2) {
        compare(w);
    }
    let code = match w.random.below(12) {
        0 => Code::Jrcxz_rel8_64,
        1 => Code::Jecxz_rel8_64,
        2 if w.keep >> RCX & 1 == 0 => Code::Loop_rel8_64_RCX,
        3 if w.keep >> RCX & 1 == 0 => w.random.pick(&[Code::Loope_rel8_64_RCX, Code::Loopne_rel8_64_RCX, Code::Loop_rel8_64_ECX]),
        _ => w.random.pick(&CONDITIONS),
    };
    w.branch(code, over);
    w.known = [None; 16];
    if w.random.one_in(3) {
        // Two ways that meet again.
        let end = w.new_label();
        block(w, size / 2, depth + 1);
        w.branch(Code::Jmp_rel32_64, end);
        // Nobody comes here but through the label.
        w.undefined = 0;
        w.place(over);
        block(w, size / 2, depth + 1);
        w.place(end);
    } else {
        block(w, size, depth + 1);
        w.place(over);
    }
}

fn compare(w: &mut Writer) {
    let r = r64(w.random.pick(&[0, 1, 2, 3, 5, 6, 8, 12, 15]));
    let insn = match w.random.below(3) {
        0 => Instruction::with2(Code::Test_rm64_r64, r, r),
        1 => Instruction::with2(Code::Cmp_rm64_imm8, r, w.random.value() as i8 as i32),
        _ => {
            let mut insn = Instruction::with2(Code::Cmp_rm32_imm8, MemoryOperand::with_base(Register::RAX), 5).expect("cmp");
            w.point(&mut insn, Need { size: 4, aligned: true, forbid: 0 });
            Ok(insn)
        }
    };
    w.put2(insn);
}

/// A loop of a few rounds.
fn repeat(w: &mut Writer, size: i32, depth: u32) {
    let rounds = 1 + w.random.below(4);
    let by_loop = w.keep >> RCX & 1 == 0 && w.random.one_in(2);
    let counter = if by_loop { RCX } else { w.free_register(0) };
    w.set(counter, rounds);
    let head = w.new_label();
    w.place(head);
    let undefined = w.undefined;
    let keep = w.keep;
    w.keep |= 1 << counter;
    block(w, size, depth + 1);
    w.keep = keep;
    if w.undefined & !undefined != 0 {
        w.need_flags(ARITHMETIC);
    }
    let short = w.random.one_in(2);
    if by_loop {
        w.ops.push(Op::Branch { code: Code::Loop_rel8_64_RCX, label: head, short });
        w.known[RCX] = None;
    } else {
        let count = if w.random.one_in(2) {
            Instruction::with1(Code::Dec_rm32, r32(counter))
        } else {
            Instruction::with2(Code::Sub_rm64_imm8, r64(counter), 1)
        };
        w.put2(count);
        w.ops.push(Op::Branch { code: Code::Jne_rel32_64, label: head, short });
    }
}

/// An indirect jump over nothing or a trap.
fn indirect(w: &mut Writer) {
    let label = w.new_label();
    let r = w.free_register(0);
    w.ops.push(Op::Address { register: r64(r), label });
    w.known[r] = None;
    match w.random.below(5) {
        0 => w.put2(Instruction::with1(Code::Jmp_rm64, r64(r))),
        1 => {
            let mut store = Instruction::with2(Code::Mov_rm64_r64, MemoryOperand::with_base(Register::RAX), r64(r)).expect("mov");
            let need = Need { size: 8, aligned: false, forbid: 1 << r };
            w.point(&mut store, need);
            w.put(store);
            let mut jump = Instruction::with1(Code::Jmp_rm64, MemoryOperand::with_base(Register::RAX)).expect("jmp");
            copy_operand(&store, &mut jump);
            w.put(jump);
            if jump.is_ip_rel_memory_operand() {
                // As through a linkage table.
                w.undefined = ARITHMETIC;
            }
        }
        2 => table(w, r, label),
        3 => {
            // A return without a call.
            w.put2(Instruction::with1(Code::Push_r64, r64(r)));
            ret(w, 0);
        }
        _ => {
            let mut jump = Instruction::with1(Code::Jmp_rm64, MemoryOperand::with_base(Register::RSP)).expect("jmp");
            jump.set_memory_displacement64(0);
            w.put2(Instruction::with1(Code::Push_r64, r64(r)));
            w.put(jump);
            w.at_label[label] |= w.undefined;
            w.place(label);
            let drop = w.free_register(0);
            w.put2(Instruction::with1(Code::Pop_r64, r64(drop)));
            return;
        }
    }
    w.at_label[label] |= w.undefined;
    if w.random.one_in(3) {
        w.ops.push(Op::Raw(vec![0x0f, 0x0b]));
    }
    w.place(label);
}

fn copy_operand(from: &Instruction, to: &mut Instruction) {
    to.set_memory_base(from.memory_base());
    to.set_memory_index(from.memory_index());
    to.set_memory_index_scale(from.memory_index_scale());
    to.set_memory_displacement64(from.memory_displacement64());
    to.set_memory_displ_size(from.memory_displ_size());
    to.set_segment_prefix(from.segment_prefix());
}

/// A jump table with one entry in use.
fn table(w: &mut Writer, r: usize, label: usize) {
    let entry = w.random.below(4);
    let at = w.target(LOW, 64, true);
    let base = w.free_register(1 << r);
    w.set(base, at);
    let slot = MemoryOperand::with_base_displ(r64(base), 8 * entry as i64);
    w.put2(Instruction::with2(Code::Mov_rm64_r64, slot, r64(r)));
    let index = w.free_register(1 << base);
    w.set(index, entry);
    let operand = if w.taste.high || w.random.one_in(2) {
        MemoryOperand::with_base_index_scale(r64(base), r64(index), 8)
    } else {
        MemoryOperand::new(Register::None, r64(index), 8, at as i64, 8, false, Register::None)
    };
    w.put2(Instruction::with1(Code::Jmp_rm64, operand));
    w.at_label[label] |= w.undefined;
}

/// `ret`, with what it does to the writer's knowledge.
fn ret(w: &mut Writer, arguments: i32) {
    if arguments > 0 {
        w.put2(Instruction::with1(Code::Retnq_imm16, arguments));
    } else if w.random.one_in(8) {
        w.ops.push(Op::Raw(vec![0xf3, 0xc3]));
    } else {
        w.put(Instruction::with(Code::Retnq));
    }
}

/// Write a function and remember it.
fn function(w: &mut Writer, size: i32) {
    let label = w.new_label();
    let releases = w.releases;
    let arguments = if w.random.one_in(4) { 8 * w.random.between(1, 3) as i32 } else { 0 };
    // The convention of calls: flags mean nothing at a function's entry.
    w.undefined = ARITHMETIC;
    w.keep = 0;
    w.room = 0;
    w.place(label);
    let keep = w.keep;
    match w.random.below(4) {
        0 => block(w, size, 2),
        1 => with_rbp(w, size, 2),
        2 => with_saved(w, size),
        _ => with_space(w, size, 2),
    }
    w.keep = keep;
    match w.random.below(10) {
        0 if arguments == 0 => {
            // Return without `ret`.
            let r = w.free_register(0);
            w.put2(Instruction::with1(Code::Pop_r64, r64(r)));
            w.put2(Instruction::with1(Code::Jmp_rm64, r64(r)));
        }
        1 if arguments == 0 && w.functions.iter().any(|f| f.arguments == 0) => {
            let others: Vec<Function> = w.functions.iter().copied().filter(|f| f.arguments == 0).collect();
            let other = w.random.pick(&others);
            w.branch(Code::Jmp_rel32_64, other.label);
            w.undefined = ARITHMETIC;
        }
        _ => ret(w, arguments),
    }
    // Nor do they behind a function that takes down a frame.
    let undefined = if w.releases > releases { ARITHMETIC } else { w.undefined };
    w.functions.push(Function { label, undefined, arguments });
}

/// Call a function, keeping what must be kept; or the call that reads its own address.
fn call(w: &mut Writer) {
    if w.functions.is_empty() || !w.alternate_free || w.random.one_in(8) {
        let label = w.new_label();
        w.at_label[label] = ARITHMETIC;
        let short = false;
        w.ops.push(Op::Branch { code: Code::Call_rel32_64, label, short });
        w.place(label);
        let r = w.free_register(0);
        return w.put2(Instruction::with1(Code::Pop_r64, r64(r)));
    }
    let f = w.random.pick(&w.functions.clone());
    let kept: Vec<usize> = (0..16).filter(|&r| w.keep >> r & 1 != 0).collect();
    for &r in &kept {
        w.put2(Instruction::with1(Code::Push_r64, r64(r)));
    }
    for _ in 0..f.arguments / 8 {
        let value = w.random.value() as i32;
        w.put2(Instruction::with1(Code::Pushq_imm32, value));
    }
    call_function(w, f);
    for &r in kept.iter().rev() {
        w.put2(Instruction::with1(Code::Pop_r64, r64(r)));
    }
}

fn call_function(w: &mut Writer, f: Function) {
    let direct = w.random.percent(60);
    let r = w.free_register(0);
    let mut operand = None;
    if !direct {
        w.ops.push(Op::Address { register: r64(r), label: f.label });
        w.known[r] = None;
        if w.random.one_in(2) {
            let mut store = Instruction::with2(Code::Mov_rm64_r64, MemoryOperand::with_base(Register::RAX), r64(r)).expect("mov");
            w.point(&mut store, Need { size: 8, aligned: false, forbid: 1 << r });
            w.put(store);
            operand = Some(store);
        }
    }
    match operand {
        _ if direct => w.ops.push(Op::Branch { code: Code::Call_rel32_64, label: f.label, short: false }),
        Some(store) => {
            let mut insn = Instruction::with1(Code::Call_rm64, MemoryOperand::with_base(Register::RAX)).expect("call");
            copy_operand(&store, &mut insn);
            w.put(insn);
        }
        None => w.put2(Instruction::with1(Code::Call_rm64, r64(r))),
    }
    w.known = [None; 16];
    w.direction = None;
    w.undefined = f.undefined;
}

/// Push rbp, frame, leave.
fn with_rbp(w: &mut Writer, size: i32, depth: u32) {
    let (keep, room) = (w.keep, w.room);
    let space = w.random.pick(&[0, 16, 40, 128, 300]);
    if w.random.one_in(6) {
        w.put2(Instruction::with2(Code::Enterq_imm16_imm8, space, 0));
    } else {
        w.put2(Instruction::with1(Code::Push_r64, Register::RBP));
        w.put2(Instruction::with2(Code::Mov_r64_rm64, Register::RBP, Register::RSP));
        if w.random.one_in(6) {
            let mask = w.random.pick(&[-16, -32, -64]);
            w.put2(Instruction::with2(Code::And_rm64_imm8, Register::RSP, mask));
        }
        if space > 0 {
            w.put2(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, space));
        }
    }
    w.known[RBP] = None;
    w.keep |= 1 << RBP;
    w.room = space;
    block(w, size, depth + 1);
    match w.random.below(4) {
        0 => {
            w.put2(Instruction::with2(Code::Mov_r64_rm64, Register::RSP, Register::RBP));
            w.put2(Instruction::with1(Code::Pop_r64, Register::RBP));
        }
        1 => {
            w.put2(Instruction::with2(Code::Lea_r64_m, Register::RSP, MemoryOperand::with_base(Register::RBP)));
            w.put2(Instruction::with1(Code::Pop_r64, Register::RBP));
        }
        _ => w.put(Instruction::with(Code::Leaveq)),
    }
    (w.keep, w.room) = (keep, room);
}

/// Callee-saved registers around a block.
fn with_saved(w: &mut Writer, size: i32) {
    let room = w.room;
    let saved: Vec<usize> = [RBX, RBP, 12, 13, 14, 15].into_iter().take(1 + w.random.below(5) as usize).collect();
    for &r in &saved {
        w.put2(Instruction::with1(Code::Push_r64, r64(r)));
    }
    w.room = room + 8 * saved.len() as i32;
    block(w, size, 2);
    for &r in saved.iter().rev() {
        w.put2(Instruction::with1(Code::Pop_r64, r64(r)));
    }
    w.room = room;
}

/// Stack space by subtraction and addition, or by lea.
fn with_space(w: &mut Writer, size: i32, depth: u32) {
    let room = w.room;
    let spaces = [8, 24, 64, 120, 136, 400, 1000, 4096, 5000];
    // The alternate stack is small.
    let space = w.random.pick(if w.alternate_free { &spaces } else { &spaces[..6] });
    let lea = |n: i32| Instruction::with2(Code::Lea_r64_m, Register::RSP, MemoryOperand::with_base_displ(Register::RSP, i64::from(n)));
    let small = space < 128;
    match w.random.below(4) {
        0 => w.put2(lea(-space)),
        1 if small => w.put2(Instruction::with2(Code::Sub_rm64_imm8, Register::RSP, space)),
        2 => w.put2(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, -space)),
        _ => w.put2(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, space)),
    }
    w.room = space.min(600);
    block(w, size, depth + 1);
    match w.random.below(4) {
        0 => w.put2(lea(space)),
        1 if small => w.put2(Instruction::with2(Code::Add_rm64_imm8, Register::RSP, space)),
        2 => w.put2(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, -space)),
        _ => w.put2(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, space)),
    }
    w.room = room;
}

/// Some kind of frame in the middle of a block; also another stack.
fn frame(w: &mut Writer, size: i32, depth: u32) {
    match w.random.below(4) {
        0 if w.keep >> RBP & 1 == 0 => with_rbp(w, size, depth),
        1 if w.alternate_free => {
            let (keep, room) = (w.keep, w.room);
            w.alternate_free = false;
            let r = w.free_register(0);
            let top = ALTERNATE.end() - 0x200;
            if w.random.one_in(2) {
                w.put2(Instruction::with2(Code::Mov_r64_rm64, r64(r), Register::RSP));
                w.put2(Instruction::with2(Code::Mov_r64_imm64, Register::RSP, top));
            } else {
                w.set(r, top);
                w.put2(Instruction::with2(Code::Xchg_rm64_r64, r64(r), Register::RSP));
            }
            w.known[r] = None;
            w.keep |= 1 << r;
            w.room = 256;
            // No frames of kilobytes there.
            block(w, size.min(10), 3);
            w.keep = keep;
            w.put2(Instruction::with2(Code::Mov_r64_rm64, Register::RSP, r64(r)));
            w.room = room;
            w.alternate_free = true;
        }
        _ => with_space(w, size, depth),
    }
}

/// Pushes and pops, of all kinds.
fn stack_unit(w: &mut Writer, size: i32, depth: u32) {
    let memory = MemoryOperand::with_base(Register::RAX);
    let need = Need { size: 8, aligned: false, forbid: 0 };
    match w.random.below(10) {
        0..=3 if depth < 3 => {
            let push = r64(w.random.below(16) as usize);
            w.put2(Instruction::with1(Code::Push_r64, push));
            w.room += 8;
            block(w, size.min(8), depth + 1);
            w.room -= 8;
            let pop = w.free_register(0);
            w.put2(Instruction::with1(Code::Pop_r64, r64(pop)));
        }
        4 => {
            let mut insn = Instruction::with1(Code::Push_rm64, memory).expect("push");
            w.point(&mut insn, need);
            w.put(insn);
            let pop = w.free_register(0);
            w.put2(Instruction::with1(Code::Pop_r64, r64(pop)));
        }
        5 => {
            let value = w.random.value() as i32;
            w.put2(Instruction::with1(Code::Pushq_imm32, value));
            w.room += 8;
            let mut insn = Instruction::with1(Code::Pop_rm64, memory).expect("pop");
            w.point(&mut insn, need);
            if insn.memory_base() == Register::RSP {
                // The address counts from the stack pointer behind the pop.
                let d = insn.memory_displacement64().wrapping_sub(8);
                insn.set_memory_displacement64(d);
                insn.set_memory_displ_size(8);
            }
            w.room -= 8;
            w.put(insn);
        }
        6 => {
            let value = w.random.value() as i16;
            let register = Register::AX + w.random.below(4) as u32;
            w.put2(if value & 1 == 0 {
                Instruction::with1(Code::Push_imm16, i32::from(value))
            } else {
                Instruction::with1(Code::Push_r16, register)
            });
            let pop = w.free_register(0);
            if w.random.one_in(2) {
                w.put2(Instruction::with1(Code::Pop_r16, Register::AX + pop as u32));
            } else {
                let mut insn = Instruction::with1(Code::Pop_rm16, memory).expect("pop");
                let area = w.near_area();
                let at = w.target(area, 8, false);
                let displacement = if w.random.one_in(2) {
                    insn.set_memory_base(Register::RIP);
                    at
                } else {
                    w.set(pop, at);
                    insn.set_memory_base(r64(pop));
                    0
                };
                insn.set_memory_displacement64(displacement);
                insn.set_memory_displ_size(8);
                w.put(insn);
            }
        }
        7 if !w.taste.stepped => {
            w.put(Instruction::with(Code::Pushfq));
            let pop = w.free_register(0);
            w.put2(Instruction::with1(Code::Pop_r64, r64(pop)));
        }
        8 if !w.taste.stepped => flags_from_stack(w),
        _ => {
            let (code, register) =
                w.random.pick(&[(Code::Pushq_FS, Register::FS), (Code::Pushq_GS, Register::GS), (Code::Push_r64, Register::RSP)]);
            w.put2(Instruction::with1(code, register));
            let mut add = Instruction::with2(Code::Add_rm64_imm8, Register::RSP, 8).expect("add");
            if w.random.one_in(2) {
                add = Instruction::with2(Code::Lea_r64_m, Register::RSP, MemoryOperand::with_base_displ(Register::RSP, 8)).expect("lea");
            }
            w.put(add);
        }
    }
}

fn flags_from_stack(w: &mut Writer) {
    let value = (w.random.word() as u32 & 0xcd5) | 2;
    w.put2(Instruction::with1(Code::Pushq_imm32, value as i32));
    w.put(Instruction::with(Code::Popfq));
    w.undefined = 0;
    w.direction = Some(value & 0x400 != 0);
}

/// Instructions whose operands must be prepared.
fn special(w: &mut Writer) {
    match w.random.below(16) {
        0..=4 => string(w),
        5..=7 => division(w),
        8 => translate_byte(w),
        9 => gather(w),
        10 => control_words(w),
        11 => masked_store(w),
        12 => saved_state(w),
        13 => segment_bases(w),
        14 => padding(w),
        _ if w.taste.faults && w.random.one_in(6) => {
            // ud2, hlt, int3, int 0x7f, and bytes that are no instruction.
            let raw: &[u8] = w.random.pick(&[&[0x0f, 0x0b][..], &[0xf4], &[0xcc], &[0xcd, 0x7f], &[0x06], &[0x0f, 0x04]]);
            w.ops.push(Op::Raw(raw.to_vec()));
        }
        _ => {
            let r = w.free_register(0);
            let value = w.random.value();
            w.set(r, value);
        }
    }
}

fn direction(w: &mut Writer) -> bool {
    let now = match w.direction {
        Some(d) if w.random.one_in(2) => return d,
        _ => w.random.one_in(3),
    };
    w.put(Instruction::with(if now { Code::Std } else { Code::Cld }));
    w.direction = Some(now);
    now
}

type StringOp = fn(u32, Register, RepPrefixKind) -> Result<Instruction, iced_x86::IcedError>;

fn string(w: &mut Writer) {
    if w.keep & (1 << RCX | 1 << RSI | 1 << RDI | 1 << RAX) != 0 {
        return;
    }
    let stos: [StringOp; 4] = [
        |a, _, r| Instruction::with_stosb(a, r),
        |a, _, r| Instruction::with_stosw(a, r),
        |a, _, r| Instruction::with_stosd(a, r),
        |a, _, r| Instruction::with_stosq(a, r),
    ];
    let scas: [StringOp; 4] = [
        |a, _, r| Instruction::with_scasb(a, r),
        |a, _, r| Instruction::with_scasw(a, r),
        |a, _, r| Instruction::with_scasd(a, r),
        |a, _, r| Instruction::with_scasq(a, r),
    ];
    let movs: [StringOp; 4] = [Instruction::with_movsb, Instruction::with_movsw, Instruction::with_movsd, Instruction::with_movsq];
    let lods: [StringOp; 4] = [Instruction::with_lodsb, Instruction::with_lodsw, Instruction::with_lodsd, Instruction::with_lodsq];
    let cmps: [StringOp; 4] = [Instruction::with_cmpsb, Instruction::with_cmpsw, Instruction::with_cmpsd, Instruction::with_cmpsq];
    let compares = w.random.one_in(2);
    let family = if compares { w.random.pick(&[scas, cmps]) } else { w.random.pick(&[movs, stos, lods, movs, stos]) };
    let log = w.random.below(4) as usize;
    let rep = match w.random.below(3) {
        0 => RepPrefixKind::None,
        1 if compares => RepPrefixKind::Repne,
        _ => RepPrefixKind::Repe,
    };
    let narrow = w.random.one_in(6);
    let segment = if w.random.one_in(12) && !narrow { Register::FS } else { Register::None };
    let count = w.random.below(36);
    let len = 36u64 << log;
    let down = direction(w);
    let place = |w: &mut Writer| {
        let area = if narrow || w.random.one_in(2) { LOW } else { HIGH };
        let at = w.target(area, len, false);
        if down { at + len - (1 << log) } else { at }
    };
    let (source, mut target) = (place(w), place(w));
    if w.random.one_in(4) {
        // Overlapping.
        target = source.wrapping_add(w.random.between(-16, 16) as u64);
    }
    let garbage = if narrow { w.random.word() << 32 } else { 0 };
    w.set(RCX, count | garbage);
    w.set(RSI, (source | garbage).wrapping_sub(if segment == Register::FS { crate::writer::FS } else { 0 }));
    w.set(RDI, target | garbage);
    w.put2(family[log](if narrow { 32 } else { 64 }, segment, rep));
}

fn division(w: &mut Writer) {
    /// Divisors: those that have a byte register without a prefix.
    const OTHERS: u32 = 1 << RCX | 1 << RBX;
    if w.keep & (1 << RAX | 1 << RDX) != 0 || w.keep & OTHERS == OTHERS {
        return;
    }
    const CODES: [[Code; 4]; 2] = [
        [Code::Div_rm8, Code::Div_rm16, Code::Div_rm32, Code::Div_rm64],
        [Code::Idiv_rm8, Code::Idiv_rm16, Code::Idiv_rm32, Code::Idiv_rm64],
    ];
    let signed = w.random.below(2) as usize;
    let log = w.random.below(4) as usize;
    let bits = 8u32 << log;
    let top = if signed == 1 { bits - 1 } else { bits };
    let careless = w.taste.faults && w.random.one_in(20);
    let mask = if top == 64 { u64::MAX } else { (1 << top) - 1 };
    let dividend = w.random.value() & if careless { u64::MAX } else { mask };
    let divisor = w.random.value() & mask | u64::from(!careless);
    let r = w.free_register(!OTHERS);
    w.set(r, divisor);
    let memory = w.random.one_in(2);
    let mut insn = Instruction::with1(
        CODES[signed][log],
        if memory { Register::AL } else { [Register::AL, Register::AX, Register::EAX, Register::RAX][log] + r as u32 },
    )
    .expect("div");
    if memory {
        let mut store = Instruction::with2(Code::Mov_rm64_r64, MemoryOperand::with_base(Register::RAX), r64(r)).expect("mov");
        w.point(&mut store, Need { size: 8, aligned: false, forbid: 1 << r | 1 << RAX | 1 << RDX });
        w.put(store);
        insn = Instruction::with1(CODES[signed][log], MemoryOperand::with_base(Register::RAX)).expect("div");
        copy_operand(&store, &mut insn);
    }
    let upper = if careless { w.random.value() } else { 0 };
    w.set(RDX, upper);
    w.set(RAX, dividend);
    w.put(insn);
}

fn translate_byte(w: &mut Writer) {
    if w.keep & (1 << RAX | 1 << RBX) != 0 {
        return;
    }
    let area = if w.random.one_in(2) { LOW } else { HIGH };
    let at = w.target(area, 256, false);
    w.set(RBX, at);
    let mut insn = Instruction::with1(Code::Xlat_m8, MemoryOperand::with_base_index(Register::RBX, Register::AL)).expect("xlat");
    if area == LOW && w.random.one_in(4) {
        w.set(RBX, at.wrapping_sub(crate::writer::FS));
        insn.set_segment_prefix(Register::FS);
    }
    w.put(insn);
}

fn gather(w: &mut Writer) {
    const CODES: [Code; 8] = [
        Code::VEX_Vpgatherdd_xmm_vm32x_xmm,
        Code::VEX_Vpgatherdd_ymm_vm32y_ymm,
        Code::VEX_Vpgatherqq_ymm_vm64y_ymm,
        Code::VEX_Vgatherdpd_ymm_vm32x_ymm,
        Code::VEX_Vgatherqps_xmm_vm64y_xmm,
        Code::VEX_Vpgatherqd_xmm_vm64x_xmm,
        Code::VEX_Vgatherdps_ymm_vm32y_ymm,
        Code::VEX_Vgatherqpd_xmm_vm64x_xmm,
    ];
    let code = w.random.pick(&CODES);
    let kinds: Vec<iced_x86::OpCodeOperandKind> = code.op_code().op_kinds().to_vec();
    let ymm_index = matches!(kinds[1], iced_x86::OpCodeOperandKind::mem_vsib32y | iced_x86::OpCodeOperandKind::mem_vsib64y);
    let class = |kind| {
        if kind == iced_x86::OpCodeOperandKind::ymm_reg || kind == iced_x86::OpCodeOperandKind::ymm_vvvv {
            Register::YMM0
        } else {
            Register::XMM0
        }
    };
    let n = w.random.below(13) as u32;
    let index = if ymm_index { Register::YMM0 } else { Register::XMM0 } + n;
    let constants = MemoryOperand::with_base_displ(Register::RIP, (w.near_area().start + INDEX_AT) as i64);
    w.put2(Instruction::with2(if ymm_index { Code::VEX_Vmovdqu_ymm_ymmm256 } else { Code::VEX_Vmovdqu_xmm_xmmm128 }, index, constants));
    let area = w.random.pick(&[LOW, HIGH]);
    let at = w.target(area, 512, false);
    let base = w.free_register(0);
    w.set(base, at);
    let scale = w.random.pick(&[1u32, 2, 4, 8]);
    let operand = MemoryOperand::with_base_index_scale(r64(base), index, scale);
    let mut insn = Instruction::with3(code, class(kinds[0]) + n + 1, operand, class(kinds[2]) + n + 2).expect("gather");
    if area == LOW && w.random.one_in(6) {
        w.set(base, at.wrapping_sub(crate::writer::FS));
        insn.set_segment_prefix(Register::FS);
    }
    w.put(insn);
}

fn control_words(w: &mut Writer) {
    let (code, at, step) = match w.random.below(3) {
        0 => (Code::Ldmxcsr_m32, MXCSR_AT, 4),
        1 => (Code::VEX_Vldmxcsr_m32, MXCSR_AT, 4),
        _ => (Code::Fldcw_m2byte, FCW_AT, 2),
    };
    let at = w.near_area().start + at + step * w.random.below(16);
    let operand = if w.random.one_in(2) {
        MemoryOperand::with_base_displ(Register::RIP, at as i64)
    } else {
        let r = w.free_register(0);
        w.set(r, at);
        MemoryOperand::with_base(r64(r))
    };
    w.put2(Instruction::with1(code, operand));
}

fn masked_store(w: &mut Writer) {
    if w.keep >> RDI & 1 != 0 {
        return;
    }
    let at = w.target(HIGH, 16, false);
    w.set(RDI, at);
    let a = w.random.below(8) as u32;
    let b = w.random.below(8) as u32;
    let kind = w.random.below(3);
    w.put2(match kind {
        0 => Instruction::with_maskmovq(64, Register::MM0 + a, Register::MM0 + b, Register::None),
        1 => Instruction::with_maskmovdqu(64, Register::XMM0 + a, Register::XMM0 + b, Register::None),
        _ => Instruction::with_vmaskmovdqu(64, Register::XMM0 + a, Register::XMM0 + b, Register::None),
    });
}

/// fxsave and fxrstor; `fninit` first, since the image holds the address of the last x87 instruction.
fn saved_state(w: &mut Writer) {
    let at = w.target(HIGH, 512, true) & !63;
    let r = w.free_register(0);
    w.set(r, at);
    w.put(Instruction::with(Code::Fninit));
    let operand = MemoryOperand::with_base(r64(r));
    let wide = w.random.one_in(2);
    w.put2(Instruction::with1(if wide { Code::Fxsave64_m512byte } else { Code::Fxsave_m512byte }, operand));
    if w.random.one_in(2) {
        w.generic_keeping(r);
        w.put2(Instruction::with1(if wide { Code::Fxrstor64_m512byte } else { Code::Fxrstor_m512byte }, operand));
        w.put(Instruction::with(Code::Fninit));
    }
}

fn segment_bases(w: &mut Writer) {
    let r = r64(w.free_register(0));
    let code = w.random.pick(&[Code::Rdfsbase_r64, Code::Rdgsbase_r64, Code::Wrfsbase_r64, Code::Wrgsbase_r64]);
    if matches!(code, Code::Wrfsbase_r64 | Code::Wrgsbase_r64) {
        // To where it is already: later operands count on it.
        let value = if code == Code::Wrfsbase_r64 { crate::writer::FS } else { crate::writer::GS };
        let n = r.number();
        w.set(n, value);
    }
    w.put2(Instruction::with1(code, r));
}

/// Bytes that do nothing, as compilers write them.
fn padding(w: &mut Writer) {
    const PADDING: [&[u8]; 8] = [
        &[0xf3, 0x90],
        &[0x66, 0x90],
        &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x0f, 0x1f, 0x44, 0, 0],
        &[0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 2, 0, 0],
        &[0x0f, 0x0d, 0x0c, 0x24],
        &[0x48, 0x8d, 0x64, 0x24, 0],
    ];
    let raw = w.random.pick(&PADDING);
    w.ops.push(Op::Raw(raw.to_vec()));
}

const _: () = assert!(RSP == 4 && CONSTANTS > INDEX_AT);
