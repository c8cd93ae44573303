//! Every instruction form the decoder library knows that may stand in straight-line code, with random operands.
//!
//! Memory operands are left open: who asks for an instruction decides where it may point. Left out are forms whose result is no function
//! of the program's state (time stamps, x87 instruction pointers), that only the kernel may use, and those with needs of their own
//! (stack, strings, scattered stores), which `shapes` writes by hand.

use crate::random::Random;
use iced_x86::{Code, CodeSize, EncodingKind, FlowControl, Instruction, Mnemonic as M, OpCodeOperandKind as K, OpKind, Register};

/// Families, so that a few hundred AVX-512 forms do not crowd out the integer ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Integer,
    X87,
    Mmx,
    Sse,
    Avx,
    Evex,
}

#[rustfmt::skip] // a list of names
const EXCLUDED: &[M] = &[
    M::INVALID, M::Db, M::Dw, M::Dd, M::Dq, M::Zero_bytes, M::Cpuid, M::Rdtsc, M::Rdtscp, M::Rdrand, M::Rdseed, M::Rdpid, M::Rdpru, M::Rdpmc,
    M::Xgetbv, M::Cld, M::Std, M::Wrpkru, M::Rdpkru, M::Ldmxcsr, M::Vldmxcsr, M::Fldcw, M::Fldenv, M::Frstor, M::Fnsave, M::Fsave,
    M::Fnstenv, M::Fstenv, M::Fxrstor, M::Fxrstor64, M::Fxsave, M::Fxsave64, M::Xsave, M::Xsave64, M::Xsavec, M::Xsavec64, M::Xsaveopt,
    M::Xsaveopt64, M::Xrstor, M::Xrstor64, M::Xsaves, M::Xrstors, M::Xsaves64, M::Xrstors64, M::Clzero, M::Lfs, M::Lgs, M::Lss,
    M::Monitor, M::Mwait, M::Monitorx, M::Mwaitx, M::Umonitor, M::Umwait, M::Tpause,
    M::Xbegin, M::Xend, M::Xabort, M::Xtest, M::Llwpcb, M::Slwpcb, M::Lwpins, M::Lwpval, M::Vmcall, M::Vmmcall, M::Vmfunc, M::Clgi, M::Stgi,
    M::Enclu, M::Enclv, M::Getsec, M::Rdsspd, M::Rdsspq, M::Incsspd, M::Incsspq, M::Wrssd, M::Wrssq, M::Setssbsy, M::Saveprevssp, M::Rstorssp,
    M::Ptwrite, M::Serialize, M::Invlpgb, M::Tlbsync, M::Mcommit, M::Enqcmd, M::Enqcmds, M::Senduipi, M::Uiret, M::Testui, M::Clui, M::Stui,
    M::Hreset, M::Pconfig, M::Ldtilecfg, M::Sttilecfg, M::Tilerelease, M::Stac, M::Clac, M::Sti, M::Cli, M::Pvalidate, M::Rmpadjust, M::Psmash,
    M::Rmpupdate, M::Rmpquery, M::Movdir64b, M::Loadall, M::Undoc, M::Rdudbg, M::Wrudbg, M::Bound, M::Montmul, M::Xlatb, M::Maskmovq,
    M::Maskmovdqu, M::Vmaskmovdqu, M::Div, M::Idiv, M::Rdfsbase, M::Rdgsbase, M::Wrfsbase, M::Wrgsbase,
    M::Fstdw, M::Fnstdw, M::Fstsg, M::Fnstsg, M::Vpscatterdd, M::Vpscatterdq, M::Vpscatterqd, M::Vpscatterqq, M::Vscatterdpd,
    M::Vscatterdps, M::Vscatterqpd, M::Vscatterqps, M::Aesenc128kl, M::Aesenc256kl, M::Aesdec128kl, M::Aesdec256kl, M::Encodekey128,
    M::Encodekey256, M::Loadiwkey, M::Aesencwide128kl, M::Aesencwide256kl, M::Aesdecwide128kl, M::Aesdecwide256kl,
    M::Ud0, M::Ud1, M::Ud2, M::Int1, M::Into, M::Leave, M::Enter, M::Sysenter, M::Syscall,
];

/// All forms worth trying; the processor may still refuse some.
pub fn candidates() -> Vec<Code> {
    Code::values().filter(|&code| is_candidate(code)).collect()
}

/// Forms for the kernel only. Not those that ask a hypervisor, which may answer.
pub fn privileged() -> Vec<Code> {
    const ASKING: &[M] = &[M::Vmcall, M::Vmmcall, M::Vmgexit, M::Vmfunc, M::Tdcall, M::Seamcall, M::Getsec];
    let fine = |code: Code| {
        let info = code.op_code();
        info.is_instruction()
            && info.mode64()
            && !info.fwait()
            && (info.is_privileged() || info.must_be_cpl0() || info.is_input_output())
            && !ASKING.contains(&code.mnemonic())
    };
    Code::values().filter(|&code| fine(code)).collect()
}

/// Gathers and scatters.
pub fn spread() -> Vec<Code> {
    let is_spread = |code: Code| {
        let info = code.op_code();
        let vsib = |k: &K| matches!(k, K::mem_vsib32x | K::mem_vsib64x | K::mem_vsib32y | K::mem_vsib64y | K::mem_vsib32z | K::mem_vsib64z);
        info.op_count() > 1
            && info.mode64()
            && matches!(info.encoding(), EncodingKind::VEX | EncodingKind::EVEX)
            && info.op_kinds().iter().any(vsib)
    };
    Code::values().filter(|&code| is_spread(code)).collect()
}

fn is_candidate(code: Code) -> bool {
    let info = code.op_code();
    let fine = info.is_instruction()
        && info.mode64()
        && info.cpl3()
        && !info.is_privileged()
        && !info.must_be_cpl0()
        && !info.is_input_output()
        && !info.fwait()
        && code.flow_control() == FlowControl::Next
        && !code.is_stack_instruction()
        && !EXCLUDED.contains(&code.mnemonic());
    let loads_segment = info.op_count() > 0 && matches!(info.op0_kind(), K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs);
    fine && !loads_segment && !info.op_kinds().iter().any(|&kind| is_strange(kind))
}

fn is_strange(kind: K) -> bool {
    matches!(
        kind,
        K::cr_reg
            | K::dr_reg
            | K::tr_reg
            | K::bnd_reg
            | K::bnd_or_mem_mpx
            | K::mem_mpx
            | K::mem_mib
            | K::r32_or_mem_mpx
            | K::r64_or_mem_mpx
            | K::sibmem
            | K::tmm_reg
            | K::tmm_rm
            | K::tmm_vvvv
            | K::xmmp3_vvvv
            | K::zmmp3_vvvv
            | K::farbr2_2
            | K::farbr4_2
            | K::seg_rSI
            | K::es_rDI
            | K::seg_rDI
            | K::seg_rBX_al
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y
            | K::mem_vsib32z
            | K::mem_vsib64z
    )
}

pub fn family(code: Code) -> Family {
    let info = code.op_code();
    let has = |kinds: &[K]| info.op_kinds().iter().any(|k| kinds.contains(k));
    match info.encoding() {
        EncodingKind::EVEX => Family::Evex,
        EncodingKind::VEX if has(&[K::k_reg, K::k_rm, K::k_vvvv, K::k_or_mem]) => Family::Evex,
        EncodingKind::VEX
            if has(&[K::r32_reg, K::r64_reg, K::r32_vvvv, K::r64_vvvv])
                && !has(&[K::xmm_rm, K::ymm_rm, K::xmm_reg, K::xmm_or_mem, K::ymm_or_mem]) =>
        {
            Family::Integer
        }
        EncodingKind::Legacy if has(&[K::xmm_reg, K::xmm_or_mem, K::xmm_rm]) => Family::Sse,
        EncodingKind::Legacy if has(&[K::mm_reg, K::mm_or_mem, K::mm_rm]) => Family::Mmx,
        EncodingKind::Legacy if code.mnemonic() == M::Emms || format!("{:?}", code.mnemonic()).starts_with('F') => Family::X87,
        EncodingKind::Legacy => Family::Integer,
        _ => Family::Avx,
    }
}

/// Can this form's operand be in memory?
pub fn can_use_memory(code: Code) -> bool {
    code.op_code().op_kinds().iter().any(|&k| is_memory(k) || register_class(k, true).is_none() && register_class(k, false).is_some())
}

/// ... and must it?
pub fn needs_memory(code: Code) -> bool {
    code.op_code().op_kinds().iter().any(|&k| is_memory(k))
}

/// `mov` between the accumulator and a 64-bit absolute address.
pub fn is_offset(code: Code) -> bool {
    code.op_code().op_kinds().contains(&K::mem_offs)
}

fn is_memory(kind: K) -> bool {
    matches!(kind, K::mem | K::mem_offs)
}

/// One instruction of that form; its memory operand, if any, has no address yet. `None` if the dice gave something impossible.
pub fn instruction(code: Code, random: &mut Random, memory: bool) -> Option<Instruction> {
    let info = code.op_code();
    let mut insn = Instruction::new();
    insn.set_code(code);
    insn.set_code_size(CodeSize::Code64);
    let evex = info.encoding() == EncodingKind::EVEX;
    let same = random.one_in(6);
    let mut chosen: Vec<Register> = Vec::new();
    for i in 0..info.op_count() {
        let kind = info.op_kind(i);
        match register_class(kind, memory) {
            Some(class) => {
                let mut register = pick(class, random, evex);
                if let (true, Some(&other)) = (same, chosen.iter().find(|r| r.size() == register.size() && r.is_gpr() == register.is_gpr()))
                {
                    register = other;
                }
                insn.set_op_kind(i, OpKind::Register);
                insn.set_op_register(i, register);
                chosen.push(register);
            }
            None => other_operand(&mut insn, i, kind, random)?,
        }
    }
    decorate(&mut insn, random);
    Some(insn)
}

/// Masks, broadcasts, rounding, lock.
fn decorate(insn: &mut Instruction, random: &mut Random) {
    let info = insn.op_code();
    let to_memory = insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory;
    let has_memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    if info.can_use_op_mask_register() && (info.require_op_mask_register() || random.one_in(2)) {
        insn.set_op_mask(Register::K1 + random.below(7) as u32);
        insn.set_zeroing_masking(info.can_use_zeroing_masking() && !to_memory && random.one_in(2));
    }
    insn.set_is_broadcast(has_memory && info.can_broadcast() && random.one_in(3));
    if to_memory && info.can_use_lock_prefix() && random.one_in(3) {
        insn.set_has_lock_prefix(true);
    }
}

/// First register of the class that an operand of this kind takes; `memory`: operands that may be either are in memory.
fn register_class(kind: K, memory: bool) -> Option<Register> {
    Some(match kind {
        K::r8_or_mem if !memory => Register::AL,
        K::r16_or_mem if !memory => Register::AX,
        K::r32_or_mem if !memory => Register::EAX,
        K::r64_or_mem if !memory => Register::RAX,
        K::mm_or_mem if !memory => Register::MM0,
        K::xmm_or_mem if !memory => Register::XMM0,
        K::ymm_or_mem if !memory => Register::YMM0,
        K::zmm_or_mem if !memory => Register::ZMM0,
        K::k_or_mem if !memory => Register::K0,
        K::r8_reg | K::r8_opcode => Register::AL,
        K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => Register::AX,
        K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => Register::EAX,
        K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => Register::RAX,
        K::k_reg | K::k_rm | K::k_vvvv | K::kp1_reg => Register::K0,
        K::mm_reg | K::mm_rm => Register::MM0,
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => Register::XMM0,
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => Register::YMM0,
        K::zmm_reg | K::zmm_rm | K::zmm_vvvv => Register::ZMM0,
        _ => return None,
    })
}

/// Any register of the class but the stack pointer.
fn pick(class: Register, random: &mut Random, evex: bool) -> Register {
    const BYTES: [Register; 12] = [
        Register::AL,
        Register::CL,
        Register::DL,
        Register::BL,
        Register::AH,
        Register::CH,
        Register::DH,
        Register::BH,
        Register::SIL,
        Register::DIL,
        Register::BPL,
        Register::R8L,
    ];
    match class {
        Register::AL if random.one_in(4) => Register::R8L + random.below(8) as u32,
        Register::AL => random.pick(&BYTES),
        Register::AX | Register::EAX | Register::RAX => class + random.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        Register::K0 | Register::MM0 => class + random.below(8) as u32,
        _ => class + random.below(if evex { 32 } else { 16 }) as u32,
    }
}

fn other_operand(insn: &mut Instruction, i: u32, kind: K, random: &mut Random) -> Option<()> {
    let fixed = match kind {
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::dx => Register::DX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        K::st0 => Register::ST0,
        K::sti_opcode => Register::ST0 + random.below(8) as u32,
        K::cr_reg => random.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4, Register::CR8]),
        K::dr_reg => Register::DR0 + random.pick(&[0, 1, 2, 3, 6, 7]),
        K::seg_reg => random.pick(&[Register::FS, Register::GS, Register::DS, Register::SS]),
        _ => Register::None,
    };
    if fixed != Register::None {
        insn.set_op_kind(i, OpKind::Register);
        insn.set_op_register(i, fixed);
        return Some(());
    }
    let value = random.value();
    match kind {
        K::imm8 | K::imm4_m2z | K::imm8_const_1 => {
            let value = match kind {
                K::imm8_const_1 => 1,
                K::imm4_m2z => value as u8 & 3,
                _ => value as u8,
            };
            if (0..i).any(|j| insn.op_kind(j) == OpKind::Immediate8) {
                set(insn, i, OpKind::Immediate8_2nd, |insn| insn.set_immediate8_2nd(value));
            } else {
                set(insn, i, OpKind::Immediate8, |insn| insn.set_immediate8(value));
            }
        }
        K::imm8sex16 => set(insn, i, OpKind::Immediate8to16, |insn| insn.set_immediate8to16(i16::from(value as i8))),
        K::imm8sex32 => set(insn, i, OpKind::Immediate8to32, |insn| insn.set_immediate8to32(i32::from(value as i8))),
        K::imm8sex64 => set(insn, i, OpKind::Immediate8to64, |insn| insn.set_immediate8to64(i64::from(value as i8))),
        K::imm16 => set(insn, i, OpKind::Immediate16, |insn| insn.set_immediate16(value as u16)),
        K::imm32 => set(insn, i, OpKind::Immediate32, |insn| insn.set_immediate32(value as u32)),
        K::imm32sex64 => set(insn, i, OpKind::Immediate32to64, |insn| insn.set_immediate32to64(i64::from(value as i32))),
        K::imm64 => set(insn, i, OpKind::Immediate64, |insn| insn.set_immediate64(value)),
        K::mem | K::mem_offs => insn.set_op_kind(i, OpKind::Memory),
        K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::zmm_or_mem
        | K::k_or_mem => {
            insn.set_op_kind(i, OpKind::Memory);
        }
        _ => return None,
    }
    Some(())
}

fn set(insn: &mut Instruction, i: u32, kind: OpKind, value: impl Fn(&mut Instruction)) {
    insn.set_op_kind(i, kind);
    value(insn);
}
