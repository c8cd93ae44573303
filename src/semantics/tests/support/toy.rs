//! A thread of the mind: registers set by hand, a small memory, complaints collected. For scenarios of a few instructions whose
//! concrete values the test itself supplies.
#![allow(dead_code, reason = "several tests share this file, none uses all of it")]

use std::collections::BTreeMap;

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use memcheck_semantics::lookahead::Code;
use memcheck_semantics::{Complaint, ComplaintKind, Machine, Outcome, Planner, Segment, ShadowRegs, Wide, run};

/// Where test code lies.
pub const CODE: u64 = 0x1000;

#[derive(Default)]
pub struct Toy {
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub vec: BTreeMap<usize, Wide>,
    pub memory: BTreeMap<u64, u8>,
    pub memory_v: BTreeMap<u64, u8>,
    pub origins: BTreeMap<u64, u32>,
    pub complaints: Vec<Complaint>,
}

impl Toy {
    pub fn poke(&mut self, addr: u64, bytes: &[u8]) {
        self.memory.extend(bytes.iter().enumerate().map(|(i, &byte)| (addr.wrapping_add(i as u64), byte)));
    }

    pub fn poke_v(&mut self, addr: u64, v: &[u8]) {
        self.memory_v.extend(v.iter().enumerate().map(|(i, &byte)| (addr.wrapping_add(i as u64), byte)));
    }

    pub fn v(&self, addr: u64, len: u64) -> Vec<u8> {
        (0..len).map(|i| self.memory_v.get(&addr.wrapping_add(i)).copied().unwrap_or(0)).collect()
    }

    pub fn kinds(&self) -> Vec<ComplaintKind> {
        self.complaints.iter().map(|complaint| complaint.kind).collect()
    }
}

impl Machine for Toy {
    fn gpr(&self, index: usize) -> u64 {
        self.gpr[index]
    }
    fn rflags(&self) -> u64 {
        self.rflags
    }
    fn vec(&self, index: usize) -> Wide {
        self.vec.get(&index).copied().unwrap_or(Wide::ZERO)
    }
    fn kmask(&self, _: usize) -> u64 {
        0
    }
    fn mm(&self, _: usize) -> u64 {
        0
    }
    fn x87_top(&self) -> u8 {
        0
    }
    fn segment_base(&self, _: Segment) -> u64 {
        0
    }
    fn xstate_offset(&self, component: u32) -> u32 {
        // As on machines without the bounds registers.
        [0, 160, 576, 0, 0, 832, 896, 1408][component as usize & 7]
    }
    fn xcr0(&self) -> u64 {
        0b1110_0111
    }
    fn load(&mut self, addr: u64, out: &mut [u8]) -> bool {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.memory.get(&(addr.wrapping_add(i as u64))).copied().unwrap_or(0);
        }
        true
    }
    fn load_v(&mut self, addr: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.v(addr, out.len() as u64));
    }
    fn store_v(&mut self, addr: u64, v: &[u8], origin: u32) {
        self.poke_v(addr, v);
        self.origins.insert(addr, origin);
    }
    fn load_origin(&mut self, addr: u64, _: usize) -> u32 {
        self.origins.get(&addr).copied().unwrap_or(0)
    }
    fn complain(&mut self, complaint: Complaint, _: &ShadowRegs) -> u64 {
        self.complaints.push(complaint);
        u64::MAX
    }
}

/// Assembled instructions.
pub struct Listing(pub Vec<Instruction>);

impl Code for Listing {
    fn instruction(&self, addr: u64) -> Option<Instruction> {
        self.0.iter().find(|insn| insn.ip() == addr).copied()
    }
}

pub fn assemble(write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Listing {
    let mut assembler = CodeAssembler::new(64).expect("64 bits");
    write(&mut assembler).expect("valid instructions");
    let bytes = assembler.assemble(CODE).expect("encodable");
    let decoder = Decoder::with_ip(64, &bytes, CODE, DecoderOptions::NONE);
    Listing(decoder.into_iter().collect())
}

/// Runs the shadows of a listing in order, without looking at branches.
pub fn straight(listing: &Listing, regs: &mut ShadowRegs, toy: &mut Toy) -> Vec<Outcome> {
    let mut planner = Planner::new();
    listing.0.iter().map(|insn| run(&planner.plan(insn), regs, toy)).collect()
}
