//! Every instruction form the decoder library knows that can run between two stubs, with random operands.

use iced_x86::{Code, CodeSize, FlowControl, Instruction, Mnemonic as M, OpCodeOperandKind as K, OpKind, Register};

use super::random::Random;

/// Base register of memory operands; never used for anything else.
pub const BASE: Register = Register::R15;
/// Index register of memory operands, when there is one.
pub const INDEX: Register = Register::R14;

/// Not to be run here: control leaves the stub, the stubs' own state is lost, or results are not a function of the inputs.
/// (smsw, sldt and str are answered by the kernel, which leaves more of the register than the processor would.)
#[rustfmt::skip]
const EXCLUDED: &[M] = &[
    M::Smsw, M::Sldt, M::Str,
    M::INVALID, M::Db, M::Dw, M::Dd, M::Dq, M::Zero_bytes, M::Cpuid, M::Rdtsc, M::Rdtscp, M::Rdrand, M::Rdseed, M::Rdpid, M::Rdpru, M::Rdpmc,
    M::Xgetbv, M::Syscall, M::Sysenter, M::Int, M::Int1, M::Int3, M::Into, M::Hlt, M::Std, M::Popf, M::Popfq, M::Popfd, M::Wrfsbase, M::Wrgsbase,
    M::Rdfsbase, M::Rdgsbase, M::Wrpkru, M::Rdpkru, M::Ldmxcsr, M::Vldmxcsr, M::Fldcw, M::Fldenv, M::Frstor, M::Fnsave, M::Fsave,
    M::Fnstenv, M::Fstenv, M::Fstcw, M::Fxrstor, M::Fxrstor64, M::Fxsave, M::Fxsave64, M::Xsave, M::Xsave64, M::Xsavec, M::Xsavec64, M::Xsaveopt,
    M::Xsaveopt64, M::Xrstor, M::Xrstor64, M::Xsaves, M::Xrstors, M::Xsaves64, M::Xrstors64, M::Clzero, M::Lfs, M::Lgs, M::Lss,
    M::Monitor, M::Mwait, M::Monitorx, M::Mwaitx, M::Umonitor, M::Umwait, M::Tpause,
    M::Xbegin, M::Xend, M::Xabort, M::Xtest, M::Ud0, M::Ud1, M::Ud2, M::Insb, M::Insw, M::Insd, M::Outsb, M::Outsw, M::Outsd, M::In, M::Out,
    M::Llwpcb, M::Slwpcb, M::Lwpins, M::Lwpval, M::Vmcall, M::Vmmcall, M::Vmfunc, M::Clgi, M::Stgi, M::Enclu, M::Getsec, M::Rdsspd, M::Rdsspq,
    M::Incsspd, M::Incsspq, M::Wrssd, M::Wrssq, M::Setssbsy, M::Saveprevssp, M::Rstorssp, M::Ptwrite, M::Serialize, M::Invlpgb, M::Tlbsync, M::Mcommit,
    M::Enqcmd, M::Enqcmds, M::Senduipi, M::Uiret, M::Testui, M::Clui, M::Stui, M::Hreset, M::Pconfig, M::Ldtilecfg, M::Sttilecfg, M::Tilerelease,
    M::Stac, M::Clac, M::Sti, M::Cli, M::Fninit, M::Finit, M::Wait, M::Pvalidate, M::Rmpadjust, M::Psmash, M::Rmpupdate, M::Rmpquery,
    M::Movdir64b, M::Loadall, M::Undoc, M::Rdudbg, M::Wrudbg, M::Bound, M::Montmul, M::Enter, M::Fstdw, M::Fnstdw, M::Fstsg, M::Fnstsg,
];

/// All codes worth trying; the processor may still refuse some.
pub fn codes() -> Vec<Code> {
    Code::values().filter(|&code| is_candidate(code)).collect()
}

fn is_candidate(code: Code) -> bool {
    let info = code.op_code();
    let fine = info.is_instruction()
        && info.mode64()
        && info.cpl3()
        && !info.is_privileged()
        && !info.must_be_cpl0()
        && !info.fwait()
        && code.flow_control() == FlowControl::Next
        && !EXCLUDED.contains(&code.mnemonic());
    fine && !info.op_kinds().iter().any(|kind| is_strange(*kind)) && !loads_segment(code)
}

fn loads_segment(code: Code) -> bool {
    let info = code.op_code();
    let segment = |kind: K| matches!(kind, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs);
    info.op_count() > 0 && segment(info.op0_kind()) && code.mnemonic() != M::Push
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
            | K::xbegin_2
            | K::xbegin_4
    )
}

/// One instruction of that form. `None` if the dice gave something that cannot be encoded.
pub fn instruction(code: Code, random: &mut Random, data: u64) -> Option<Instruction> {
    let info = code.op_code();
    let mut insn = Instruction::new();
    insn.set_code(code);
    insn.set_code_size(CodeSize::Code64);
    let evex = info.encoding() == iced_x86::EncodingKind::EVEX;
    let memory = random.one_in(3);
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
            None => other_operand(&mut insn, i, kind, random, data)?,
        }
    }
    if info.can_use_op_mask_register() && (info.require_op_mask_register() || random.one_in(2)) {
        insn.set_op_mask(Register::K1 + random.below(7) as u32);
        let to_memory = insn.op0_kind() == OpKind::Memory;
        insn.set_zeroing_masking(info.can_use_zeroing_masking() && !to_memory && random.one_in(2));
    }
    let has_memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    insn.set_is_broadcast(has_memory && info.can_broadcast() && random.one_in(3));
    if insn.is_string_instruction() {
        match code.mnemonic() {
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq => {
                insn.set_has_repe_prefix(random.one_in(3));
                insn.set_has_repne_prefix(!insn.has_repe_prefix() && random.one_in(2));
            }
            _ => insn.set_has_rep_prefix(random.one_in(2)),
        }
    }
    Some(insn)
}

/// First register of the class.
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

/// Any register of the class but the stack pointer and those that form addresses.
fn pick(class: Register, random: &mut Random, evex: bool) -> Register {
    let number = match class {
        Register::AL => {
            return random.pick(&[
                Register::AL,
                Register::CL,
                Register::DL,
                Register::BL,
                Register::AH,
                Register::CH,
                Register::SIL,
                Register::R8L,
            ]);
        }
        Register::AX | Register::EAX | Register::RAX => random.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Register::K0 | Register::MM0 => random.below(8) as u32,
        _ => random.below(if evex { 32 } else { 16 }) as u32,
    };
    class + number
}

fn other_operand(insn: &mut Instruction, i: u32, kind: K, random: &mut Random, data: u64) -> Option<()> {
    let fixed = match kind {
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::dx => Register::DX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        K::st0 => Register::ST0,
        K::sti_opcode => Register::ST0 + random.below(8) as u32,
        K::fs => Register::FS,
        K::gs => Register::GS,
        K::seg_reg => random.pick(&[Register::FS, Register::GS, Register::DS]),
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
            if insn.op_count() > 1 && (0..i).any(|j| insn.op_kind(j) == OpKind::Immediate8) {
                insn.set_op_kind(i, OpKind::Immediate8_2nd);
                insn.set_immediate8_2nd(value);
            } else {
                insn.set_op_kind(i, OpKind::Immediate8);
                insn.set_immediate8(value);
            }
        }
        K::imm8sex16 => set(insn, i, OpKind::Immediate8to16, |insn| insn.set_immediate8to16(i16::from(value as i8))),
        K::imm8sex32 => set(insn, i, OpKind::Immediate8to32, |insn| insn.set_immediate8to32(i32::from(value as i8))),
        K::imm8sex64 => set(insn, i, OpKind::Immediate8to64, |insn| insn.set_immediate8to64(i64::from(value as i8))),
        K::imm16 => set(insn, i, OpKind::Immediate16, |insn| insn.set_immediate16(value as u16)),
        K::imm32 => set(insn, i, OpKind::Immediate32, |insn| insn.set_immediate32(value as u32)),
        K::imm32sex64 => set(insn, i, OpKind::Immediate32to64, |insn| insn.set_immediate32to64(i64::from(value as i32))),
        K::imm64 => set(insn, i, OpKind::Immediate64, |insn| insn.set_immediate64(value)),
        K::seg_rBX_al => {
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_base(Register::RBX);
            insn.set_memory_index(Register::AL);
        }
        K::seg_rSI => insn.set_op_kind(i, OpKind::MemorySegRSI),
        K::es_rDI => insn.set_op_kind(i, OpKind::MemoryESRDI),
        K::seg_rDI => insn.set_op_kind(i, OpKind::MemorySegRDI),
        K::mem_offs => {
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_displ_size(8);
            insn.set_memory_displacement64(data);
        }
        _ => memory_operand(insn, i, kind, random)?,
    }
    Some(())
}

fn set(insn: &mut Instruction, i: u32, kind: OpKind, value: impl Fn(&mut Instruction)) {
    insn.set_op_kind(i, kind);
    value(insn);
}

fn memory_operand(insn: &mut Instruction, i: u32, kind: K, random: &mut Random) -> Option<()> {
    insn.set_op_kind(i, OpKind::Memory);
    insn.set_memory_base(BASE);
    let vector = match kind {
        K::mem_vsib32x | K::mem_vsib64x => Register::XMM0,
        K::mem_vsib32y | K::mem_vsib64y => Register::YMM0,
        K::mem_vsib32z | K::mem_vsib64z => Register::ZMM0,
        K::mem
        | K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::zmm_or_mem
        | K::k_or_mem => Register::None,
        _ => return None,
    };
    if vector != Register::None {
        insn.set_memory_index(vector + random.below(16) as u32);
        insn.set_memory_index_scale(random.pick(&[1, 2, 4, 8]));
    } else if random.one_in(3) {
        insn.set_memory_index(INDEX);
        insn.set_memory_index_scale(random.pick(&[1, 2, 4, 8]));
    }
    Some(())
}
