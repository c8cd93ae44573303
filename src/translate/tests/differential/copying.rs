//! Straight code that copies: what `translate::copies` translates as a run, and what comes near to it.
//!
//! Two objects, which may overlap or be one and the same; loads from the first, stores to the second, all at one distance or not quite; in
//! between whatever changes the pointers, the stack, or what has been loaded. And changes of bit-fields.

use crate::random::Random;
use crate::shapes::Program;
use crate::world::{HIGH, LOW};
use crate::writer::{Forms, RSP, Taste, Writer, r32, r64};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// Loads and the stores of the same register.
#[rustfmt::skip]
const MOVES: &[(Code, &[Code], u32)] = &[
    (Code::Mov_r32_rm32, &[Code::Mov_rm32_r32, Code::Mov_rm32_r32, Code::Mov_rm16_r16], 4),
    (Code::Mov_r64_rm64, &[Code::Mov_rm64_r64, Code::Mov_rm64_r64, Code::Mov_rm64_r64, Code::Mov_rm32_r32], 8),
    (Code::Movss_xmm_xmmm32, &[Code::Movss_xmmm32_xmm], 4),
    (Code::Movq_xmm_xmmm64, &[Code::Movq_xmmm64_xmm, Code::Movsd_xmmm64_xmm], 8),
    (Code::Movups_xmm_xmmm128, &[Code::Movups_xmmm128_xmm, Code::Movups_xmmm128_xmm, Code::Movq_xmmm64_xmm], 16),
    (Code::VEX_Vmovdqu_xmm_xmmm128, &[Code::VEX_Vmovdqu_xmmm128_xmm, Code::VEX_Vmovd_rm32_xmm], 16),
    (Code::VEX_Vmovdqu_ymm_ymmm256, &[Code::VEX_Vmovdqu_ymmm256_ymm, Code::VEX_Vmovdqu_ymmm256_ymm, Code::VEX_Vmovups_xmmm128_xmm], 32),
    (Code::Movzx_r32_rm8, &[Code::Mov_rm8_r8], 1),
];

/// A register that points to an object, by how much more than at the beginning.
#[derive(Clone, Copy)]
struct Object {
    base: usize,
    index: Option<usize>,
    moved: i64,
}

/// What was loaded and waits to be stored: the register, its stores, where it came from.
#[derive(Clone, Copy)]
struct Loaded {
    register: Register,
    stores: &'static [Code],
    at: i64,
}

struct Copying<'a, 'b> {
    w: &'a mut Writer<'b>,
    from: Object,
    to: Object,
    distance: i64,
    waiting: Vec<Loaded>,
    /// How much else there is, of 12.
    noise: u64,
}

pub fn program(random: &mut Random, forms: &Forms, taste: Taste, size: i32) -> Program {
    let mut w = Writer::new(random, forms, taste);
    let entry = w.new_label();
    w.room = 600;
    w.place(entry);
    (0..2).for_each(|_| w.generic());
    let (from, to) = objects(&mut w);
    let distance = w.random.pick(&[0, 0, 0, 4, 16, -8]);
    let noise = w.random.pick(&[0, 1, 1, 4, 12]);
    let mut copying = Copying { w: &mut w, from, to, distance, waiting: Vec::new(), noise };
    for _ in 0..size {
        copying.some();
    }
    while !copying.waiting.is_empty() {
        copying.store();
    }
    (0..copying.w.random.below(4)).for_each(|_| copying.w.generic());
    Program { undefined: w.undefined, ops: w.ops, labels: w.labels, entry, forgotten: 0 }
}

fn objects(w: &mut Writer) -> (Object, Object) {
    let object = |w: &mut Writer, at: u64| {
        let base = w.free_register(0);
        w.keep |= 1 << base;
        let index = w.random.one_in(6).then(|| w.free_register(0));
        if let Some(index) = index {
            w.keep |= 1 << index;
            w.set(index, 24);
        }
        w.set(base, at - if index.is_some() { 24 } else { 0 });
        Object { base, index, moved: 0 }
    };
    let place = |w: &mut Writer| {
        let area = w.random.pick(&[LOW, HIGH]);
        area.start + area.size / 2 + w.random.pick(&[0, 0, 0, 8, 4, 16, 1]) + 64 * w.random.below(8)
    };
    let at = place(w);
    let from = object(w, at);
    let to = match w.random.below(8) {
        0 => from,
        1 => object(w, at + 8),
        2 => object(w, at - 20),
        3 => Object { base: RSP, index: None, moved: -64 },
        _ => {
            let at = place(w);
            object(w, at)
        }
    };
    (from, to)
}

fn operand(object: &Object, at: i64) -> MemoryOperand {
    let displacement = at - object.moved;
    match object.index {
        Some(index) => MemoryOperand::with_base_index_scale_displ_size(r64(object.base), r64(index), 1, displacement, 4),
        None => MemoryOperand::with_base_displ(r64(object.base), displacement),
    }
}

impl Copying<'_, '_> {
    fn some(&mut self) {
        if self.w.random.below(12) >= self.noise {
            let store = !self.waiting.is_empty() && (self.waiting.len() > 3 || self.w.random.one_in(2));
            return if store { self.store() } else { self.load() };
        }
        match self.w.random.below(6) {
            0 => self.walk(),
            1 => self.stack(),
            2 | 3 => self.change(),
            4 => self.w.generic(),
            _ => self.other(),
        }
    }

    /// A displacement in an object of 64 bytes, most often a multiple of 4.
    fn somewhere(&mut self) -> i64 {
        4 * self.w.random.between(-4, 12) + self.w.random.pick(&[0, 0, 0, 0, 0, 0, 0, 1])
    }

    fn load(&mut self) {
        let (load, stores, size) = self.w.random.pick(MOVES);
        let register = match load {
            Code::Movzx_r32_rm8 | Code::Mov_r32_rm32 => r32(self.w.free_register(0)),
            Code::Mov_r64_rm64 => r64(self.w.free_register(0)),
            _ if size == 32 => Register::YMM0 + self.w.random.below(4) as u32,
            _ => Register::XMM0 + self.w.random.below(4) as u32,
        };
        if self.noise < 4 && self.waiting.iter().any(|l| l.register.full_register() == register.full_register()) {
            return;
        }
        let at = self.somewhere();
        self.w.put2(Instruction::with2(load, register, operand(&self.from, at)));
        self.waiting.push(Loaded { register, stores, at });
    }

    fn store(&mut self) {
        let k = if self.noise < 4 { 0 } else { self.w.random.below(self.waiting.len() as u64) as usize };
        let Loaded { register, stores, at } = self.waiting[k];
        if self.noise < 4 || self.w.random.below(8) > 0 {
            self.waiting.remove(k);
        }
        let code = self.w.random.pick(stores);
        let number = register.full_register().number() as u32;
        let register = match code {
            Code::Mov_rm8_r8 if number < 4 => Register::AL + number,
            Code::Mov_rm8_r8 => return,
            Code::Mov_rm16_r16 => Register::AX + number,
            Code::Mov_rm32_r32 => Register::EAX + number,
            Code::Mov_rm64_r64 => Register::RAX + number,
            Code::VEX_Vmovdqu_ymmm256_ymm => Register::YMM0 + number,
            _ => Register::XMM0 + number,
        };
        let astray = if self.noise > 0 && self.w.random.one_in(16) { 4 } else { 0 };
        self.w.put2(Instruction::with2(code, operand(&self.to, at + self.distance + astray), register));
    }

    /// A pointer goes on.
    fn walk(&mut self) {
        let by = self.w.random.pick(&[8, 16, -4]);
        let base = if self.w.random.one_in(2) { self.from.base } else { self.to.base };
        if base == RSP {
            return;
        }
        for object in [&mut self.from, &mut self.to].into_iter().filter(|object| object.base == base) {
            object.moved += by;
        }
        self.w.put2(Instruction::with2(Code::Add_rm64_imm8, r64(base), by as i32));
    }

    /// The stack grows.
    fn stack(&mut self) {
        let grown = if self.w.random.one_in(2) {
            let r = r64(self.w.random.below(16) as usize);
            self.w.put2(Instruction::with1(Code::Push_r64, r));
            8
        } else {
            self.w.put2(Instruction::with2(Code::Sub_rm64_imm8, Register::RSP, 24));
            24
        };
        self.w.room += grown;
        if self.to.base == RSP {
            self.to.moved -= i64::from(grown);
        }
    }

    /// Another load, or a store: of the same objects, or of others.
    fn other(&mut self) {
        let at = self.somewhere();
        let object = if self.w.random.one_in(2) { self.from } else { self.to };
        let insn = match self.w.random.below(4) {
            0 => Instruction::with2(Code::Mov_rm32_imm32, operand(&object, at), 7),
            1 => Instruction::with2(Code::Mov_r64_rm64, r64(self.w.free_register(0)), operand(&object, at)),
            2 => Instruction::with2(Code::Movups_xmmm128_xmm, operand(&object, at), Register::XMM0 + self.w.random.below(6) as u32),
            _ => Instruction::with2(Code::Cmp_rm32_imm8, operand(&object, at), 3),
        };
        self.w.put2(insn);
    }

    /// A bit-field is changed, in one of the low four registers.
    fn change(&mut self) {
        let r = [0, 1, 2, 3].into_iter().find(|r| self.w.keep >> r & 1 == 0);
        let Some(r) = r else { return };
        let (at, object) = (self.somewhere(), if self.w.random.one_in(2) { self.from } else { self.to });
        let (load, store, to) = self.w.random.pick(&[
            (Code::Movzx_r32_rm8, Code::Mov_rm8_r8, Register::AL),
            (Code::Movzx_r32_rm16, Code::Mov_rm16_r16, Register::AX),
            (Code::Mov_r32_rm32, Code::Mov_rm32_r32, Register::EAX),
            (Code::Mov_r64_rm64, Code::Mov_rm64_r64, Register::RAX),
        ]);
        let register = |of: Register| of + r as u32;
        let wide = if load == Code::Mov_r64_rm64 { Register::RAX } else { Register::EAX };
        self.w.put2(Instruction::with2(load, register(wide), operand(&object, at)));
        for _ in 0..1 + self.w.random.below(3) {
            self.logic(r);
        }
        self.w.put2(Instruction::with2(store, operand(&object, at), register(to)));
        if self.w.random.one_in(2) {
            self.w.put2(Instruction::with2(Code::Cmp_rm32_r32, Register::ESI, Register::EDI));
        }
    }

    fn logic(&mut self, r: usize) {
        let value = self.w.random.pick(&[-2, 1, 0x70, -0x71, 0]);
        let (low, high) = (Register::AL + r as u32, Register::AH + r as u32);
        let insn = match self.w.random.below(10) {
            0 => Instruction::with2(Code::And_rm32_imm8, r32(r), value),
            1 => Instruction::with2(Code::Or_rm32_imm8, r32(r), value),
            2 => Instruction::with2(Code::Xor_rm64_imm8, r64(r), value),
            3 => Instruction::with2(Code::And_rm8_imm8, low, value),
            4 => Instruction::with2(Code::Or_rm8_imm8, high, value),
            5 => Instruction::with2(Code::And_rm64_imm8, r64(r), value),
            6 => Instruction::with2(Code::And_rm32_r32, r32(r), r32(self.w.random.below(16) as usize)),
            7 => Instruction::with2(Code::Or_rm32_r32, r32(r), r32(self.w.random.below(16) as usize)),
            8 => Instruction::with2(Code::Xor_rm32_r32, r32(r), r32(self.w.random.below(16) as usize)),
            _ => Instruction::with2(Code::And_rm16_imm8, Register::AX + r as u32, value),
        };
        self.w.put2(insn);
    }
}
