//! Which instructions translated code has rules for, as operations on operands.

use super::encode::Turn;
use super::vector::{Carry, Vectors};
use crate::emit::RSP;
use crate::needs::Needs;
use crate::{control, gpr};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// Where an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    Register(u8),
    /// The memory operand that the filter checked.
    Memory,
    Constant(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    And,
    Or,
    Xor,
    Test,
    Add,
    Sub,
    Cmp,
    Neg,
    Not,
    /// The sum of a register with itself: no bit of it meets another.
    Double,
    /// x ^ x, x - x: zero.
    Nothing,
    /// x compared with itself.
    Equal,
}

/// `to` = `to` op `from`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binary {
    pub op: Operation,
    pub size: u32,
    pub to: Operand,
    pub from: Operand,
}

/// `to` = base + (index << scale) + displacement
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lea {
    pub to: u8,
    pub size: u32,
    pub base: Option<u8>,
    pub index: Option<(u8, u8)>,
    pub displacement: i32,
}

/// `to` = `from` shifted or rotated, by a constant or by a register (cl if it is also the target that is shifted).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turned {
    pub op: Turn,
    pub size: u32,
    pub to: u8,
    pub from: u8,
    pub by: By,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Constant(u8),
    Cl,
    /// shlx, shrx, sarx: no flags.
    Register(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extension {
    Zero,
    Signed,
    /// The sign alone, in every bit.
    Sign,
    Swap,
}

/// `to` (of `size` bytes) = `from` (of `from_size`) extended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extend {
    pub how: Extension,
    pub to: u8,
    pub size: u32,
    pub from: Operand,
    pub from_size: u32,
}

/// `to` = `a` * `b`, low half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Multiply {
    pub size: u32,
    pub to: u8,
    pub a: u8,
    pub b: Operand,
}

/// cmovcc between registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Select {
    pub code: u8,
    pub size: u32,
    pub to: u8,
    pub from: u8,
}

/// setcc of a register's low byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Set {
    pub code: u8,
    pub to: u8,
}

/// An instruction with a rule here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Binary(Binary),
    Lea(Lea),
    Turn(Turned),
    Extend(Extend),
    Multiply(Multiply),
    Select(Select),
    Set(Set),
    /// A conditional jump, by condition code.
    Branch(u8),
    Vectors(Vectors),
    Carry(Carry),
}

/// Conditions that logic leaves, and those that sums, differences and shifts are asked for here.
const OF_LOGIC: Needs = Needs::EQUAL
    .or(Needs::SIGN)
    .or(Needs::BELOW)
    .or(Needs::BELOW_EQUAL)
    .or(Needs::OVERFLOW)
    .or(Needs::LESS)
    .or(Needs::LESS_EQUAL)
    .or(Needs::PARITY);
const OF_SUM: Needs = Needs::EQUAL.or(Needs::SIGN).or(Needs::BELOW).or(Needs::PARITY);
const OF_DIFFERENCE: Needs = OF_SUM.or(Needs::BELOW_EQUAL).or(Needs::LESS).or(Needs::LESS_EQUAL);
const OF_SHIFT: Needs = Needs::EQUAL.or(Needs::SIGN).or(Needs::PARITY);
/// Where only the result is looked at.
const OF_RESULT: Needs = OF_SHIFT;

impl Form {
    /// Does its rule write to vector registers?
    pub fn uses_vectors(&self) -> bool {
        matches!(self, Form::Vectors(_) | Form::Carry(_))
    }

    /// The rule for an instruction whose flags will be asked for `needs`.
    pub fn of(insn: &Instruction, raw: &[u8; 16], needs: Needs) -> Option<Form> {
        if let Some(op) = Vectors::of(insn) {
            return Some(Form::Vectors(op));
        }
        if let Some(op) = Carry::of(insn, raw, insn.len() as u8) {
            return Some(Form::Carry(op));
        }
        if insn.has_lock_prefix() || insn.has_rep_prefix() || insn.has_repne_prefix() {
            return None;
        }
        if let Some(code) = control::condition(insn.condition_code()) {
            return conditional(insn, code);
        }
        match insn.mnemonic() {
            Mnemonic::Lea => lea(insn),
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => moved(insn),
            Mnemonic::Cwde => extended(Extension::Signed, 0, 4, 0, 2),
            Mnemonic::Cdqe => extended(Extension::Signed, 0, 8, 0, 4),
            Mnemonic::Cdq => extended(Extension::Sign, 2, 4, 0, 4),
            Mnemonic::Cqo => extended(Extension::Sign, 2, 8, 0, 8),
            Mnemonic::Bswap => {
                let (to, size) = register(insn, 0)?;
                (size >= 4).then_some(Form::Extend(Extend { how: Extension::Swap, to, size, from: Operand::Register(to), from_size: size }))
            }
            Mnemonic::Imul => multiply(insn, needs),
            _ => turn(insn, needs).or_else(|| binary(insn, needs)),
        }
    }

    /// Scratch registers that its emission takes.
    pub fn scratch(self, needs: Needs) -> usize {
        match self {
            Form::Binary(Binary { op: Operation::Nothing | Operation::Equal, .. }) => 2,
            Form::Binary(Binary { op: Operation::Not, to, .. }) => {
                if to == Operand::Memory {
                    4
                } else {
                    0
                }
            }
            Form::Binary(op) if op.to == Operand::Memory || op.from == Operand::Memory => 8,
            // Who asks for the flags may need one more.
            Form::Binary(Binary { from: Operand::Constant(_), .. }) if needs.within(OF_SHIFT) => 4,
            Form::Binary(Binary { from: Operand::Constant(_), .. }) => 5,
            Form::Binary(_) => 6,
            Form::Lea(_) | Form::Multiply(_) => 5,
            Form::Turn(_) => 3,
            Form::Extend(op) if op.from == Operand::Memory => 4,
            Form::Extend(_) => 2,
            Form::Select(_) => 3,
            Form::Set(_) => 3,
            Form::Branch(_) => 0,
            Form::Vectors(_) | Form::Carry(_) => 4,
        }
    }
}

/// A general register operand other than rsp and ah to dh: its number and size.
fn register(insn: &Instruction, i: u32) -> Option<(u8, u32)> {
    if insn.op_count() <= i || insn.op_kind(i) != OpKind::Register {
        return None;
    }
    let r = insn.op_register(i);
    let high = matches!(r, Register::AH | Register::BH | Register::CH | Register::DH);
    let n = gpr(r).filter(|&n| n != RSP && !high)?;
    Some((n, r.size() as u32))
}

fn operand(insn: &Instruction, i: u32) -> Option<(Operand, u32)> {
    if insn.op_count() <= i {
        return None;
    }
    match insn.op_kind(i) {
        OpKind::Register => register(insn, i).map(|(n, size)| (Operand::Register(n), size)),
        OpKind::Memory => {
            let size = insn.memory_size().size() as u32;
            matches!(size, 1 | 2 | 4 | 8).then_some((Operand::Memory, size))
        }
        _ => {
            let value = insn.try_immediate(i).ok()? as i64;
            // Immediates of narrow operands come zero-extended.
            let narrow = i64::from(value as i32) == value || value as u64 <= u64::from(u32::MAX) && insn.op_count() > 0;
            narrow.then_some((Operand::Constant(value as i32), 0))
        }
    }
}

fn conditional(insn: &Instruction, code: u8) -> Option<Form> {
    if insn.is_jcc_short_or_near() {
        return Some(Form::Branch(code));
    }
    let (to, size) = register(insn, 0)?;
    if insn.op_count() == 1 {
        return (size == 1).then_some(Form::Set(Set { code, to }));
    }
    let (from, _) = register(insn, 1)?;
    (size >= 4).then_some(Form::Select(Select { code, size, to, from }))
}

fn lea(insn: &Instruction) -> Option<Form> {
    let (to, size) = register(insn, 0)?;
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let displacement = i32::try_from(insn.memory_displacement64() as i64).ok()?;
    let wide = |r: Register| r == Register::None || r.is_gpr64();
    if size < 4 || insn.is_ip_rel_memory_operand() || !wide(base) || !wide(index) {
        return None;
    }
    let number = |r: Register| (r != Register::None).then(|| gpr(r)).flatten();
    let scale = insn.memory_index_scale().trailing_zeros() as u8;
    Some(Form::Lea(Lea { to, size, base: number(base), index: number(index).map(|r| (r, scale)), displacement }))
}

fn extended(how: Extension, to: u8, size: u32, from: u8, from_size: u32) -> Option<Form> {
    Some(Form::Extend(Extend { how, to, size, from: Operand::Register(from), from_size }))
}

/// Moves and extensions to a register.
fn moved(insn: &Instruction) -> Option<Form> {
    let (to, size) = register(insn, 0)?;
    let (from, from_size) = operand(insn, 1)?;
    let how = match insn.mnemonic() {
        Mnemonic::Movsx | Mnemonic::Movsxd => Extension::Signed,
        _ => Extension::Zero,
    };
    (!matches!(from, Operand::Constant(_))).then_some(Form::Extend(Extend { how, to, size, from, from_size }))
}

fn multiply(insn: &Instruction, needs: Needs) -> Option<Form> {
    let (to, size) = register(insn, 0)?;
    let (a, b) = match insn.op_count() {
        2 => (to, operand(insn, 1)?.0),
        3 => (register(insn, 1)?.0, operand(insn, 2)?.0),
        _ => return None,
    };
    let fits = size == 4 && needs.is_none() && !matches!(b, Operand::Memory | Operand::Constant(0));
    fits.then_some(Form::Multiply(Multiply { size, to, a, b }))
}

fn turn(insn: &Instruction, needs: Needs) -> Option<Form> {
    let (op, flags, three) = match insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => (Turn::Shl, OF_SHIFT, false),
        Mnemonic::Shr => (Turn::Shr, OF_SHIFT, false),
        Mnemonic::Sar => (Turn::Sar, OF_SHIFT, false),
        Mnemonic::Rol => (Turn::Rol, Needs::NONE, false),
        Mnemonic::Ror => (Turn::Ror, Needs::NONE, false),
        Mnemonic::Shlx => (Turn::Shl, Needs::ALL, true),
        Mnemonic::Shrx => (Turn::Shr, Needs::ALL, true),
        Mnemonic::Sarx => (Turn::Sar, Needs::ALL, true),
        _ => return None,
    };
    let (to, size) = register(insn, 0)?;
    let (from, by) = if three {
        (register(insn, 1)?.0, By::Register(register(insn, 2)?.0))
    } else if insn.op1_kind() == OpKind::Register {
        (to, By::Cl)
    } else {
        let count = insn.immediate(1) as u8 & if size == 8 { 63 } else { 31 };
        (to, By::Constant(count))
    };
    let known = match by {
        By::Constant(n) => n != 0 && u32::from(n) < size * 8 && needs.within(flags),
        // Shifts by nothing keep the flags: whoever asks for them asks two instructions.
        By::Cl => needs.is_none() && to != 1,
        By::Register(_) => true,
    };
    known.then_some(Form::Turn(Turned { op, size, to, from, by }))
}

fn binary(insn: &Instruction, needs: Needs) -> Option<Form> {
    let (op, flags) = match insn.mnemonic() {
        Mnemonic::And => (Operation::And, OF_LOGIC),
        Mnemonic::Or => (Operation::Or, OF_LOGIC),
        Mnemonic::Xor => (Operation::Xor, OF_LOGIC),
        Mnemonic::Test => (Operation::Test, OF_LOGIC),
        Mnemonic::Add => (Operation::Add, OF_SUM),
        Mnemonic::Sub => (Operation::Sub, OF_DIFFERENCE),
        Mnemonic::Cmp => (Operation::Cmp, OF_DIFFERENCE),
        // They keep the carry: who asks for it does not ask them.
        Mnemonic::Inc => (Operation::Add, OF_RESULT),
        Mnemonic::Dec => (Operation::Sub, OF_RESULT.or(Needs::LESS).or(Needs::LESS_EQUAL)),
        Mnemonic::Neg => (Operation::Neg, OF_RESULT),
        Mnemonic::Not => (Operation::Not, Needs::ALL),
        _ => return None,
    };
    let (to, size) = operand(insn, 0)?;
    let from = match insn.mnemonic() {
        Mnemonic::Inc | Mnemonic::Dec => Operand::Constant(1),
        Mnemonic::Neg | Mnemonic::Not => Operand::Constant(0),
        _ => operand(insn, 1)?.0,
    };
    // Signed order is told by its own condition only, not by exact flags.
    let order = Needs::LESS.or(Needs::LESS_EQUAL);
    let difference = matches!(op, Operation::Sub | Operation::Cmp);
    if !needs.within(flags) || difference && needs.has(order) && !needs.is_single() || matches!(to, Operand::Constant(_)) {
        return None;
    }
    if let (Operation::Not, Operand::Register(to), 4) = (op, to, size) {
        return extended(Extension::Zero, to, 4, to, 4);
    }
    let op = match op {
        Operation::Xor | Operation::Sub if to == from => Operation::Nothing,
        Operation::Cmp if to == from => Operation::Equal,
        Operation::Add if to == from && needs.is_none() => Operation::Double,
        Operation::Add if to == from => return None,
        op => op,
    };
    Some(Form::Binary(Binary { op, size, to, from }))
}
