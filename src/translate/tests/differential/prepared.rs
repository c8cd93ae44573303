//! Instructions whose operands must be prepared: string instructions, divisions, gathers, control words, saved state, segment bases.

use crate::assemble::Op;
use crate::shapes::copy_operand;
use crate::world::{CONSTANTS, FCW_AT, HIGH, INDEX_AT, LOW, MXCSR_AT};
use crate::writer::{Need, RAX, RBX, RCX, RDI, RDX, RSI, Writer, r32, r64};
use iced_x86::{Code, Instruction, MemoryOperand, OpCodeOperandKind as K, Register, RepPrefixKind};

/// One such instruction, or a register set.
pub fn prepared(w: &mut Writer) {
    match w.random.below(16) {
        0..=4 => string(w),
        5..=7 => division(w),
        8 => translate_byte(w),
        9 => spread(w),
        10 => control_words(w),
        11 => masked_store(w),
        12 if w.random.one_in(2) => environment(w),
        12 => saved_state(w),
        13 => segment_bases(w),
        14 => padding(w),
        _ if w.taste.faults && w.random.one_in(6) => {
            // ud2, hlt, int3, int1, int 0x7f, and bytes that are no instruction.
            let raw: &[u8] = w.random.pick(&[&[0x0f, 0x0b][..], &[0xf4], &[0xcc], &[0xf1], &[0xcd, 0x7f], &[0x06], &[0x0f, 0x04]]);
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

/// A gather or scatter, whose indices are constants.
fn spread(w: &mut Writer) {
    let codes = w.spread_codes();
    if codes.is_empty() {
        return;
    }
    let code = w.random.pick(&codes);
    let kinds = code.op_code().op_kinds();
    let n = w.random.below(13) as u32;
    let at = kinds.iter().position(|&k| !matches!(k, K::xmm_reg | K::ymm_reg | K::zmm_reg | K::xmm_vvvv | K::ymm_vvvv)).unwrap_or(0);
    let (index, load) = match kinds[at] {
        K::mem_vsib32z | K::mem_vsib64z => (Register::ZMM0, Code::EVEX_Vmovdqu64_zmm_k1z_zmmm512),
        K::mem_vsib32y | K::mem_vsib64y => (Register::YMM0, Code::VEX_Vmovdqu_ymm_ymmm256),
        _ => (Register::XMM0, Code::VEX_Vmovdqu_xmm_xmmm128),
    };
    let index = index + n;
    let constants = MemoryOperand::with_base_displ(Register::RIP, (w.near_area().start + INDEX_AT) as i64);
    w.put2(Instruction::with2(load, index, constants));
    let area = w.random.pick(&[LOW, HIGH]);
    let at = w.target(area, 512, false);
    let base = w.free_register(0);
    w.set(base, at);
    let scale = w.random.pick(&[1u32, 2, 4, 8]);
    let operand = MemoryOperand::with_base_index_scale(r64(base), index, scale);
    let data = |k: usize| match kinds[k] {
        K::zmm_reg => Register::ZMM1 + n,
        K::ymm_reg | K::ymm_vvvv => Register::YMM1 + n,
        _ => Register::XMM1 + n,
    };
    let masked = code.op_code().can_use_op_mask_register();
    let insn = match kinds.len() {
        3 => Instruction::with3(code, data(0), operand, data(2) + 1),
        _ if at == 0 => Instruction::with2(code, operand, data(1)),
        _ => Instruction::with2(code, data(0), operand),
    };
    let mut insn = insn.expect("gather or scatter");
    if masked {
        insn.set_op_mask(Register::K1 + w.random.below(7) as u32);
    }
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

/// fnstenv and fldenv, fnsave and frstor, behind `fninit` as above; xgetbv.
fn environment(w: &mut Writer) {
    if w.keep & (1 << RAX | 1 << RCX | 1 << RDX) == 0 && w.random.one_in(3) {
        w.set(RCX, 0);
        return w.put(Instruction::with(Code::Xgetbv));
    }
    let at = w.target(HIGH, 108, false);
    let r = w.free_register(0);
    w.set(r, at);
    w.put(Instruction::with(Code::Fninit));
    let operand = MemoryOperand::with_base(r64(r));
    let (save, load) = w.random.pick(&[
        (Code::Fnstenv_m28byte, Code::Fldenv_m28byte),
        (Code::Fnstenv_m14byte, Code::Fldenv_m14byte),
        (Code::Fnsave_m108byte, Code::Frstor_m108byte),
        (Code::Fnsave_m94byte, Code::Frstor_m94byte),
    ]);
    w.put2(Instruction::with1(save, operand));
    if w.random.one_in(2) {
        w.put2(Instruction::with1(load, operand));
        w.put(Instruction::with(Code::Fninit));
    }
}

fn segment_bases(w: &mut Writer) {
    let n = w.free_register(0);
    let (code, r) = w.random.pick(&[
        (Code::Rdfsbase_r64, r64(n)),
        (Code::Rdgsbase_r64, r64(n)),
        (Code::Wrfsbase_r64, r64(n)),
        (Code::Wrgsbase_r64, r64(n)),
        (Code::Rdfsbase_r32, r32(n)),
        (Code::Rdgsbase_r32, r32(n)),
        (Code::Wrfsbase_r32, r32(n)),
    ]);
    if matches!(code, Code::Wrfsbase_r64 | Code::Wrgsbase_r64 | Code::Wrfsbase_r32) {
        // To where it is already: later operands count on it.
        let value = if code == Code::Wrgsbase_r64 { crate::writer::GS } else { crate::writer::FS };
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

const _: () = assert!(CONSTANTS > INDEX_AT);
