//! Random states that instructions can run in: addresses valid, values that rules are sensitive to.

use iced_x86::{Instruction, Mnemonic as M, OpKind};
use memcheck_semantics::regs::ARITH;
use memcheck_semantics::{Complaint, Machine, Segment, ShadowRegs, Wide};

use super::forms::{BASE, INDEX};
use super::native::{Native, State};
use super::random::Random;

/// Bytes of data area that instructions may touch, half on either side of its middle.
pub const WINDOW: usize = 1024;

/// The state before the instruction, as the engine sees it.
#[derive(Clone)]
pub struct Before {
    pub state: State,
    pub window: Vec<u8>,
    pub window_v: Vec<u8>,
    pub start: u64,
    pub complaints: Vec<Complaint>,
}

impl Before {
    /// Registers and memory at random, addresses valid.
    pub fn random(insn: &Instruction, random: &mut Random, native: &Native) -> Before {
        let data = native.data();
        let mut state = State::new();
        for i in 0..32 {
            let words: [u64; 8] = std::array::from_fn(|_| random.value());
            let like = state.zmm[random.below(i)];
            state.zmm[i] = if i > 0 && random.one_in(2) { similar(random, like, words) } else { words };
            if native.vector < 64 {
                state.zmm[i][native.vector / 8..].fill(0);
                if i >= 16 {
                    state.zmm[i] = [0; 8];
                }
            }
        }
        for i in 0..8 {
            state.k[i] = if native.vector == 64 { random.value() } else { 0 };
        }
        for i in 0..16 {
            state.gpr[i] = if i > 0 && random.one_in(4) { state.gpr[random.below(i)] } else { random.value() };
        }
        state.rflags = 2 | random.word() & ARITH;
        state.set_top(random.below(8));
        for i in 0..8 {
            state.set_st(i, random_extended(random));
        }
        state.fx[4] = !(1 << ((state.top() + 7) & 7));
        let window = (0..WINDOW).map(|_| if random.one_in(3) { random.value() as u8 } else { random.word() as u8 }).collect();
        addresses(&mut state, insn, random, data);
        let start = data - WINDOW as u64 / 2;
        let mut before = Before { state, window, window_v: vec![0; WINDOW], start, complaints: Vec::new() };
        if random.one_in(2) {
            likeness(&mut before, insn, random);
        }
        before
    }

    fn range(&self, addr: u64, len: usize) -> std::ops::Range<usize> {
        let at = addr.wrapping_sub(self.start) as usize;
        assert!(at <= WINDOW && at + len <= WINDOW, "access outside the window: {addr:#x}+{len}");
        at..at + len
    }
}

impl Machine for Before {
    fn gpr(&self, index: usize) -> u64 {
        self.state.gpr[index]
    }
    fn rflags(&self) -> u64 {
        self.state.rflags
    }
    fn vec(&self, index: usize) -> Wide {
        Wide(self.state.zmm[index])
    }
    fn kmask(&self, index: usize) -> u64 {
        self.state.k[index]
    }
    fn mm(&self, index: usize) -> u64 {
        self.state.st(index)[0]
    }
    fn x87_top(&self) -> u8 {
        self.state.top() as u8
    }
    fn segment_base(&self, _: Segment) -> u64 {
        0
    }
    fn xstate_offset(&self, _: u32) -> u32 {
        576
    }
    fn xcr0(&self) -> u64 {
        0b111
    }
    fn load(&mut self, addr: u64, out: &mut [u8]) -> bool {
        out.copy_from_slice(&self.window[self.range(addr, out.len())]);
        true
    }
    fn load_v(&mut self, addr: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.window_v[self.range(addr, out.len())]);
    }
    fn store_v(&mut self, addr: u64, v: &[u8], _: u32) {
        let range = self.range(addr, v.len());
        self.window_v[range].copy_from_slice(v);
    }
    fn load_origin(&mut self, _: u64, _: usize) -> u32 {
        1
    }
    fn complain(&mut self, complaint: Complaint, _: &ShadowRegs) -> u64 {
        self.complaints.push(complaint);
        u64::MAX
    }
}

/// A copy with a few words replaced.
fn similar(random: &mut Random, mut like: [u64; 8], words: [u64; 8]) -> [u64; 8] {
    for _ in 0..random.below(3) {
        let i = random.below(8);
        like[i] = if random.one_in(2) { words[i] } else { like[i] ^ 1 << random.below(64) };
    }
    like
}

fn random_extended(random: &mut Random) -> [u64; 2] {
    match random.below(4) {
        0 => [0, 0],
        1 => [1 << 63, 0x3FFF],
        2 => [random.word() | 1 << 63, (0x3FF5 + random.below(20) as u64) | ((random.word() & 1) << 15)],
        _ => [random.word(), random.word() & 0xFFFF],
    }
}

/// Memory and the accumulator resemble registers, so that comparisons have something to find.
fn likeness(before: &mut Before, insn: &Instruction, random: &mut Random) {
    let at = WINDOW / 2;
    let words = if random.one_in(2) { before.state.zmm[random.below(8)] } else { [before.state.gpr[random.below(14)]; 8] };
    for (i, word) in words.iter().enumerate() {
        before.window[at + i * 8..at + i * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    let memory: [u8; 8] = before.window[at..at + 8].try_into().expect("eight bytes");
    if insn.mnemonic() == M::Cmpxchg {
        before.state.gpr[0] = match insn.op0_kind() {
            OpKind::Register => before.state.gpr[insn.op0_register().full_register().number()],
            _ => u64::from_le_bytes(memory),
        };
    }
    if insn.is_string_instruction() {
        let source: Vec<u8> = before.window[at - 64..at - 32].to_vec();
        before.window[at + 64..at + 96].copy_from_slice(&source);
    }
}

fn addresses(state: &mut State, insn: &Instruction, random: &mut Random, data: u64) {
    state.gpr[4] = data;
    state.gpr[BASE.number()] = data;
    state.gpr[INDEX.number()] = 0;
    if (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory) && insn.memory_index() == INDEX {
        // Base and index together hit the middle of the window.
        let index = random.below(16) as u64;
        state.gpr[INDEX.number()] = index;
        state.gpr[BASE.number()] = data - index * u64::from(insn.memory_index_scale());
    }
    if insn.is_vsib() {
        let n = insn.memory_index().number();
        for word in &mut state.zmm[n] {
            *word = if insn.is_vsib64() { random.below(16) as u64 } else { (random.below(16) | random.below(16) << 32) as u64 };
        }
    }
    if insn.is_string_instruction() {
        (state.gpr[6], state.gpr[7], state.gpr[1]) = (data - 64, data + 64, random.below(5) as u64);
        if random.one_in(3) {
            state.rflags |= 1 << 10;
        }
        if random.one_in(4) {
            state.gpr[7] = data - 64 + random.below(16) as u64;
        }
    }
    match insn.mnemonic() {
        M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu => state.gpr[7] = data,
        M::Xlatb => state.gpr[3] = data - 128,
        M::Leave => state.gpr[5] = data,
        M::Bt | M::Bts | M::Btr | M::Btc if insn.op0_kind() == OpKind::Memory && insn.op1_kind() == OpKind::Register => {
            // Sign-extended at the operand's own size, so small in every size.
            state.gpr[insn.op1_register().full_register().number()] = (random.below(512) as i64 - 256) as u64;
        }
        M::Div | M::Idiv => {
            state.gpr[2] = 0;
            if random.one_in(2) {
                state.gpr[0] &= 0x7F;
            }
        }
        _ => {}
    }
}
