//! Where a region begins and ends.
//!
//! A region starts at one address and runs straight on, past conditional branches that are not taken, until code flow surely goes
//! elsewhere, a limit is reached, or the next instruction already has a translation of its own.

use crate::Program;
use crate::kinds::{Kinds, mark};
use alloc::vec::Vec;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Longest region, in instructions and in conditional branches.
const MAX_INSTRUCTIONS: usize = 60;
const MAX_BRANCHES: usize = 4;

/// One instruction of the program with what `plan` finds out about it.
#[derive(Clone, Copy)]
pub struct Item {
    pub insn: Instruction,
    /// Its bytes, and some that follow.
    pub raw: [u8; 16],
    pub pc: u64,
    pub len: u8,
    /// Arithmetic flags that are live just before it.
    pub flags_live: bool,
    /// The stack release of this instruction is painted later, by the `ret` of the region.
    pub deferred: bool,
    /// For `ret`: bytes released by the region's tail, its own 8 included.
    pub released: u32,
    /// For `ret`: the flags were last written by plain stack arithmetic, so nobody waits for them.
    pub noise: bool,
    /// For `ret` and jumps: the function may have been a leaf that used the red zone below its frame. For what takes a frame down in
    /// front of them: something is left there for certain.
    pub looks_below: bool,
    /// For `pop` and `push`: how many of them from here on are checked (made defined) by this one; 0 = done by an earlier one.
    pub batch: u8,
    /// Where its check shall cover more than it loads itself: displacement and size; see `merge`.
    pub covers: Option<(i32, u32)>,
    /// For a load: which bits of it anybody will look at; 0 = all. See `bits`.
    pub bits: u32,
    /// For `pop`: what it pops is only taken off the stack; see `plan`.
    pub unread: bool,
    /// A client request preamble (19 bytes) starts here.
    pub client_request: bool,
    /// What its kind says: `kinds::mark`.
    pub marks: u16,
    /// Nothing of it needs care but a memory operand, if it has one.
    pub plain: bool,
    /// A conditional branch that is followed; others go on behind it.
    pub followed: bool,
}

/// How a region ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// The last instruction transfers control itself.
    Control,
    /// Go on at this address.
    Next(u64),
    /// The bytes at this address are no instruction: let the processor say so.
    Invalid(u64),
}

/// The preamble of a client request: rotations of rdi by 3, 13, 61, 51.
const PREAMBLE: [u8; 16] = [0x48, 0xc1, 0xc7, 0x03, 0x48, 0xc1, 0xc7, 0x0d, 0x48, 0xc1, 0xc7, 0x3d, 0x48, 0xc1, 0xc7, 0x33];
pub const REQUEST_LEN: usize = 19;
/// Where `Item::raw` keeps the last byte of a client request, which tells its kind (db request, c9 original function, d2 call).
pub const REQUEST_KIND: usize = 14;

fn is_request(code: &[u8]) -> bool {
    code.len() >= REQUEST_LEN && code[..16] == PREAMBLE && code[16] == 0x48 && code[17] == 0x87 && matches!(code[18], 0xdb | 0xc9 | 0xd2)
}

impl Item {
    fn new(insn: Instruction, code: &[u8], client_request: bool, marks: u16) -> Item {
        let mut item = Item::of(insn);
        item.describe(code, client_request, marks);
        item
    }

    /// All but what `describe` says.
    fn of(insn: Instruction) -> Item {
        Item {
            insn,
            raw: [0; 16],
            pc: 0,
            len: 0,
            flags_live: true,
            deferred: false,
            released: 0,
            noise: false,
            looks_below: false,
            batch: 1,
            covers: None,
            bits: 0,
            unread: false,
            client_request: false,
            marks: 0,
            plain: false,
            followed: false,
        }
    }

    /// What there is to say about the instruction, whose bytes begin `code`.
    fn describe(&mut self, code: &[u8], client_request: bool, marks: u16) {
        match code.first_chunk() {
            // What lies behind the instruction does no harm.
            Some(more) => self.raw = *more,
            None => self.raw[..code.len()].copy_from_slice(code),
        }
        (self.pc, self.len) = (self.insn.ip(), self.insn.len() as u8);
        (self.client_request, self.marks) = (client_request, marks);
        self.plain = marks & (mark::STRAIGHT | mark::SPECIAL) == mark::STRAIGHT && !names_stack_pointer(&self.insn);
    }

    /// No instruction, at `pc`.
    pub fn none(pc: u64) -> Item {
        let mut insn = Instruction::default();
        insn.set_ip(pc);
        Item::new(insn, &[], false, 0)
    }

    /// Where a conditional branch leads if the code emitted for it does not go on straight.
    pub fn aside(&self) -> u64 {
        if self.followed { self.pc + u64::from(self.len) } else { self.insn.near_branch_target() }
    }
}

/// May it write to the stack pointer that it names?
fn names_stack_pointer(insn: &Instruction) -> bool {
    let is_rsp = |r| matches!(r, Register::RSP | Register::ESP | Register::SP | Register::SPL);
    is_rsp(insn.op0_register()) || is_rsp(insn.op1_register()) && insn.mnemonic() == Mnemonic::Xchg
}

/// The instruction at `pc`, if it is an ordinary one.
pub fn one(kinds: &mut Kinds, program: &dyn Program, pc: u64) -> Option<Item> {
    let code = program.code(pc)?;
    let insn = Decoder::with_ip(64, code, pc, DecoderOptions::NONE).decode();
    (!insn.is_invalid() && !is_request(code)).then(|| Item::new(insn, code, false, kinds.marks(&insn)))
}

/// Decode the region at `pc` into `items`. None if nothing can be executed there.
pub fn region(kinds: &mut Kinds, program: &dyn Program, pc: u64, items: &mut Vec<Item>) -> Option<Tail> {
    items.clear();
    let code = program.code(pc)?;
    if code.is_empty() {
        return None;
    }
    let mut decoder = Decoder::with_ip(64, code, pc, DecoderOptions::NONE);
    let mut branches = 0;
    let changing = program.is_writable(pc);
    loop {
        let at = decoder.ip();
        let position = decoder.position();
        if !items.is_empty() && (items.len() >= MAX_INSTRUCTIONS || program.begins(at)) {
            return Some(Tail::Next(at));
        }
        if position >= code.len() {
            return Some(Tail::Next(at));
        }
        let request = code[position] == 0x48 && is_request(&code[position..]);
        // In its place at once: the decoder writes byte by byte, and a copy of that right away would wait for the bytes.
        items.push(Item::of(Instruction::default()));
        let index = items.len() - 1;
        let item = &mut items[index];
        decoder.decode_out(&mut item.insn);
        if item.insn.is_invalid() {
            items.pop();
            return Some(if decoder.position() >= code.len() && !items.is_empty() { Tail::Next(at) } else { Tail::Invalid(at) });
        }
        let marks = kinds.marks(&item.insn);
        item.describe(&code[position..], request, marks);
        if request {
            item.len = REQUEST_LEN as u8;
            item.raw[REQUEST_KIND] = code[position + REQUEST_LEN - 1];
            return Some(Tail::Next(at + REQUEST_LEN as u64));
        }
        if marks & mark::STRAIGHT != 0 {
            if changing && may_store(&item.insn) {
                return Some(Tail::Next(decoder.ip()));
            }
        } else if marks & mark::BRANCH != 0 {
            branches += 1;
            if branches >= MAX_BRANCHES {
                return Some(Tail::Next(decoder.ip()));
            }
        } else {
            return Some(Tail::Control);
        }
    }
}

/// What an instruction does to control flow, as far as regions care.
pub enum Flow {
    Straight,
    Branch,
    End,
}

pub fn flow(insn: &Instruction) -> Flow {
    match insn.flow_control() {
        FlowControl::ConditionalBranch => Flow::Branch,
        FlowControl::Next => Flow::Straight,
        // The processor raises its own fault there; nothing follows.
        FlowControl::Exception if insn.mnemonic() != Mnemonic::Into => Flow::End,
        FlowControl::Interrupt if insn.code() == Code::Int_imm8 => Flow::End,
        _ => Flow::End,
    }
}

/// Might this write to memory other than the frame? (Generous: some that only read are among them.)
fn may_store(insn: &Instruction) -> bool {
    let frame = insn.memory_base() == Register::RSP && insn.memory_index() == Register::None;
    insn.is_string_instruction()
        || insn.op_count() > 0
            && insn.op0_kind() == OpKind::Memory
            && !frame
            && !matches!(insn.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Nop)
}

/// Keep only the first `most` instructions of a region.
pub fn shorten(items: &mut Vec<Item>, tail: Tail, most: usize) -> Tail {
    let Some(first_left_out) = items.get(most).map(|i| i.pc) else { return tail };
    items.truncate(most);
    Tail::Next(first_left_out)
}
