//! Functions, calls and the stack: frames of all kinds, pushes and pops, another stack.
//!
//! The writer's `room` says how many bytes above the stack pointer belong to the present frame.

use crate::assemble::Op;
use crate::shapes::{block, copy_operand};
use crate::world::ALTERNATE;
use crate::writer::{ARITHMETIC, Function, Need, RBP, RBX, Writer, r64};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// `ret`, with what it does to the writer's knowledge.
pub fn ret(w: &mut Writer, arguments: i32) {
    if arguments > 0 {
        w.put2(Instruction::with1(Code::Retnq_imm16, arguments));
    } else if w.random.one_in(8) {
        w.ops.push(Op::Raw(vec![0xf3, 0xc3]));
    } else {
        w.put(Instruction::with(Code::Retnq));
    }
}

/// Write a function and remember it.
pub fn function(w: &mut Writer, size: i32) {
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
pub fn call(w: &mut Writer) {
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
pub fn frame(w: &mut Writer, size: i32, depth: u32) {
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
pub fn stack_unit(w: &mut Writer, size: i32, depth: u32) {
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
