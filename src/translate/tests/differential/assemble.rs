//! A program as a list of operations with labels, and its bytes.

use iced_x86::{Code, Encoder, Instruction, OpKind, Register};

/// One operation of a generated program.
#[derive(Clone, Debug)]
pub enum Op {
    Insn(Instruction),
    /// A direct branch; `short` asks for the 8-bit form where it reaches.
    Branch {
        code: Code,
        label: usize,
        short: bool,
    },
    Label(usize),
    /// `mov register, address of the label`
    Address {
        register: Register,
        label: usize,
    },
    /// Bytes that the encoder would not choose.
    Raw(Vec<u8>),
}

pub struct Assembled {
    pub bytes: Vec<u8>,
    /// Address of each operation, and at the end that behind the last one.
    pub at: Vec<u64>,
}

fn only_short(code: Code) -> bool {
    matches!(code.op_code().op0_kind(), iced_x86::OpCodeOperandKind::br64_1) && code.as_near_branch() == code
}

fn branch(code: Code, target: u64) -> Option<Instruction> {
    Instruction::with_branch(code, target).ok()
}

fn encode(encoder: &mut Encoder, insn: &Instruction, ip: u64) -> Option<Vec<u8>> {
    let done = encoder.encode(insn, ip).is_ok();
    let bytes = encoder.take_buffer();
    done.then_some(bytes)
}

/// Bytes of one branch: short if wanted and within reach, near, or for those that are only short around a jump.
fn encode_branch(encoder: &mut Encoder, code: Code, short: bool, target: u64, ip: u64) -> Option<Vec<u8>> {
    if only_short(code) {
        if short && let Some(bytes) = encode(encoder, &branch(code, target)?, ip) {
            return Some(bytes);
        }
        let mut bytes = encode(encoder, &branch(code, ip + 16)?, ip)?;
        let n = bytes.len() as u64;
        bytes[n as usize - 1] = 2;
        bytes.extend([0xeb, 5]);
        bytes.extend(encode(encoder, &branch(Code::Jmp_rel32_64, target)?, ip + n + 2)?);
        return Some(bytes);
    }
    if short && let Some(bytes) = encode(encoder, &branch(code.as_short_branch(), target)?, ip) {
        return Some(bytes);
    }
    encode(encoder, &branch(code.as_near_branch(), target)?, ip)
}

/// Assemble at `base`. None if some operation cannot be encoded there.
pub fn assemble(ops: &[Op], labels: usize, base: u64) -> Option<Assembled> {
    let mut encoder = Encoder::new(64);
    // Whether each branch may still be short; sizes only grow, so this ends.
    let mut short: Vec<bool> = ops.iter().map(|op| matches!(op, Op::Branch { short: true, .. })).collect();
    let mut parts: Vec<Vec<u8>> = vec![Vec::new(); ops.len()];
    let mut place = vec![base; labels];
    let mut first = true;
    loop {
        let mut at = base;
        let mut again = first;
        for (i, op) in ops.iter().enumerate() {
            let bytes = match op {
                Op::Label(label) => {
                    again |= place[*label] != at;
                    place[*label] = at;
                    continue;
                }
                Op::Raw(bytes) if first => bytes.clone(),
                Op::Insn(insn) if first || insn.is_ip_rel_memory_operand() => encode(&mut encoder, insn, at)?,
                Op::Address { register, label } => {
                    encode(&mut encoder, &Instruction::with2(Code::Mov_r64_imm64, *register, place[*label]).ok()?, at)?
                }
                // The first round only measures: any target within reach will do.
                Op::Branch { code, label, .. } => {
                    let target = if first { at } else { place[*label] };
                    let bytes = encode_branch(&mut encoder, *code, short[i], target, at)?;
                    if bytes.len() > parts[i].len() && !first {
                        short[i] = false;
                    }
                    bytes
                }
                _ => {
                    at += parts[i].len() as u64;
                    continue;
                }
            };
            parts[i] = bytes;
            at += parts[i].len() as u64;
        }
        if !again {
            break;
        }
        first = false;
    }
    let mut at = Vec::with_capacity(ops.len() + 1);
    let mut here = base;
    for part in &parts {
        at.push(here);
        here += part.len() as u64;
    }
    at.push(here);
    Some(Assembled { bytes: parts.concat(), at })
}

/// Does the instruction have an explicit memory operand?
pub fn has_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}
