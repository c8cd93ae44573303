//! Control flow: blocks of instructions, branches over them, loops, indirect jumps.
//!
//! Every block leaves the stack pointer where it found it, and branches only to labels of its own level, so any mixture of blocks is a
//! program that ends. Loops count a register that their body keeps; functions call only functions written before them ([`crate::calls`]).

use crate::assemble::Op;
use crate::calls::{call, frame, function, ret, stack_unit};
use crate::prepared::prepared;
use crate::random::Random;
use crate::world::LOW;
use crate::writer::{ARITHMETIC, Forms, Need, RCX, Taste, Writer, r32, r64};
use iced_x86::{Code, Instruction, MemoryOperand, Register};
use memcheck_translate::{DEAD_OVER_CALL, DEAD_OVER_RETURN};

/// A program: operations, number of labels, label of its first instruction.
#[derive(Clone)]
pub struct Program {
    pub ops: Vec<Op>,
    pub labels: usize,
    pub entry: usize,
    /// Flags without a defined value at the end.
    pub undefined: u32,
    /// Registers that a call or return need not keep count of: whether they count as defined behind it is up to the translation.
    pub forgotten: u64,
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
    Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry, forgotten: 0 }
}

/// Whether `translate::loops` may take it into a loop: most of what it has rules for.
pub fn may_go_round(code: Code) -> bool {
    use iced_x86::Mnemonic as M;
    #[rustfmt::skip]
    const INTEGER: &[M] = &[
        M::Mov, M::Movzx, M::Movsx, M::Movsxd, M::Add, M::Sub, M::And, M::Or, M::Xor, M::Cmp, M::Test, M::Lea, M::Shl, M::Shr, M::Sar, M::Rol,
        M::Ror, M::Inc, M::Dec, M::Neg, M::Not, M::Imul, M::Bswap, M::Cdqe, M::Cdq, M::Cqo, M::Cwde, M::Cmove, M::Cmovne, M::Cmovb, M::Cmovs,
        M::Cmovl, M::Cmovle, M::Sete, M::Setb, M::Setg, M::Setne, M::Xchg, M::Shlx, M::Shrx, M::Sarx,
    ];
    #[rustfmt::skip]
    const VECTORS: &[M] = &[
        M::Pxor, M::Pand, M::Por, M::Pandn, M::Paddb, M::Paddw, M::Paddd, M::Paddq, M::Psubb, M::Psubd, M::Pcmpeqb, M::Pcmpeqd, M::Addps, M::Mulpd,
        M::Addss, M::Addsd, M::Pshufd, M::Shufps, M::Palignr, M::Punpcklbw, M::Punpckhdq, M::Unpcklps, M::Pmovzxbw, M::Pmovsxwd, M::Pmovmskb,
        M::Movaps, M::Movups, M::Movdqa, M::Movdqu, M::Movd, M::Movq, M::Movss, M::Movsd, M::Movhps, M::Movlps, M::Pslld, M::Psrlq, M::Psraw,
    ];
    match crate::forms::family(code) {
        crate::forms::Family::Integer => INTEGER.contains(&code.mnemonic()),
        crate::forms::Family::Sse => VECTORS.contains(&code.mnemonic()),
        _ => matches!(code.mnemonic(), M::Shlx | M::Shrx | M::Sarx),
    }
}

/// A loop over straight code, perhaps with a call of a function without a frame and branches out of it.
pub fn cycle(random: &mut Random, forms: &Forms, taste: Taste, size: i32) -> Program {
    const COUNTER: usize = 3;
    let mut w = Writer::new(random, forms, taste);
    let (entry, head, end) = (w.new_label(), w.new_label(), w.new_label());
    w.keep |= 1 << COUNTER;
    let leaf = w.random.one_in(3).then(|| w.new_label());
    if let Some(leaf) = leaf {
        w.undefined = ARITHMETIC;
        w.room = 0;
        w.place(leaf);
        (0..=size / 2).for_each(|_| w.generic());
        w.put(Instruction::with(Code::Retnq));
    }
    let behind = w.undefined;
    w.undefined = 0;
    w.room = 600;
    w.place(entry);
    (0..3).for_each(|_| w.generic());
    let rounds = w.random.pick(&[2, 3, 5, 9, 70]);
    w.set(COUNTER, rounds);
    w.need_flags(ARITHMETIC);
    w.place(head);
    for _ in 0..size {
        match (w.random.below(12), leaf) {
            (0, Some(leaf)) => {
                w.ops.push(Op::Branch { code: Code::Call_rel32_64, label: leaf, short: false });
                (w.known, w.direction, w.undefined) = ([None; 16], None, behind);
            }
            (1, _) => {
                compare(&mut w);
                let code = w.random.pick(&CONDITIONS);
                w.branch(code, end);
            }
            _ => w.generic(),
        }
    }
    w.need_flags(ARITHMETIC);
    w.put2(Instruction::with1(Code::Dec_rm32, r32(COUNTER)));
    w.ops.push(Op::Branch { code: Code::Jne_rel32_64, label: head, short: false });
    w.place(end);
    let forgotten = if leaf.is_some() { DEAD_OVER_CALL | DEAD_OVER_RETURN } else { 0 };
    Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry, forgotten }
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
    Some(Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry, forgotten: 0 })
}

/// Some instructions, `size` at most or a little more.
pub fn block(w: &mut Writer, size: i32, depth: u32) {
    let mut left = size;
    while left > 0 {
        let before = w.ops.len();
        match w.random.below(100) {
            0..=55 => w.generic(),
            56..=61 => prepared(w),
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

pub fn copy_operand(from: &Instruction, to: &mut Instruction) {
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
