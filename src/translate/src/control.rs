//! Control transfers, calls into the runtime, and instructions that it emulates.

use crate::decode::REQUEST_KIND;
use crate::emit::{Asm, Mem, RAX, RCX, RSP, Seg};
use crate::emitter::{Emitter, rip_slot, spill};
use crate::{InsnInfo, LEAVE_CALL, LEAVE_JUMP, LEAVE_RETURN, LOAD, Region, Translator, gpr, helper, slot, stack};
use alloc::vec::Vec;
use iced_x86::{Code, ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};
use memcheck_abi::context::offset;
use memcheck_abi::layout::{RETURN_MARK, TABLE_DISPLACEMENT};

/// Instructions that the runtime carries out itself: they would show or change what is ours.
pub fn is_emulated(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        Mnemonic::Cpuid | Mnemonic::Rdfsbase | Mnemonic::Rdgsbase | Mnemonic::Wrfsbase | Mnemonic::Wrgsbase | Mnemonic::Xbegin
    ) || is_far_return(insn)
        || insn.mnemonic() == Mnemonic::Mov && insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register()
}

/// `iretq` and `lretq`, whose targets are program addresses as those of any other branch.
fn is_far_return(insn: &Instruction) -> bool {
    matches!(insn.code(), Code::Iretq | Code::Retfq | Code::Retfq_imm16)
}

pub fn emulate(e: &mut Emitter) {
    let insn = e.item.insn;
    if insn.mnemonic() == Mnemonic::Xbegin {
        // Always the abort path: instrumentation would abort the transaction anyway. Status 0: no retry advised.
        e.asm.mov_const(RAX, 0);
        return e.exit_jmp(insn.near_branch_target());
    }
    e.mark_own();
    call_helper(e, helper::EMULATE);
    if is_far_return(&insn) {
        // Never: the helper goes on elsewhere.
        e.exit_jmp(insn.next_ip());
    }
}

pub fn client_request(e: &mut Emitter) {
    e.mark_own();
    call_helper(e, helper::CLIENT_REQUEST | u32::from(e.item.raw[REQUEST_KIND]) << 8);
}

/// Call runtime helper `argument`; all registers survive, except what the helper changes on purpose.
pub fn call_helper(e: &mut Emitter, argument: u32) {
    let pc = e.item.pc;
    e.asm.store_const(&rip_slot(), pc);
    e.asm.store_imm(&spill(slot::ARGUMENT), 8, argument as i32);
    e.asm.store(&spill(slot::RAX), RAX);
    let back = e.asm.lea_forward(RAX);
    e.asm.store(&spill(slot::CONTINUE), RAX);
    e.asm.jmp(e.t.stubs.helper);
    e.asm.patch_here(back);
}

/// What the STRING helper needs: bits 0-3 operation, 4-7 log2 size, 8 rep, 9 repne, 10 address size 32.
pub fn string_argument(insn: &Instruction) -> Option<u32> {
    let (operation, size) = match insn.mnemonic() {
        Mnemonic::Movsb => (0, 0),
        Mnemonic::Movsw => (0, 1),
        Mnemonic::Movsd => (0, 2),
        Mnemonic::Movsq => (0, 3),
        Mnemonic::Stosb => (1, 0),
        Mnemonic::Stosw => (1, 1),
        Mnemonic::Stosd => (1, 2),
        Mnemonic::Stosq => (1, 3),
        Mnemonic::Lodsb => (2, 0),
        Mnemonic::Lodsw => (2, 1),
        Mnemonic::Lodsd => (2, 2),
        Mnemonic::Lodsq => (2, 3),
        Mnemonic::Cmpsb => (3, 0),
        Mnemonic::Cmpsw => (3, 1),
        Mnemonic::Cmpsd => (3, 2),
        Mnemonic::Cmpsq => (3, 3),
        Mnemonic::Scasb => (4, 0),
        Mnemonic::Scasw => (4, 1),
        Mnemonic::Scasd => (4, 2),
        Mnemonic::Scasq => (4, 3),
        _ => return None,
    };
    let addr32 = matches!(insn.op0_kind(), OpKind::MemoryESEDI | OpKind::MemorySegESI)
        || matches!(insn.op1_kind(), OpKind::MemoryESEDI | OpKind::MemorySegESI);
    let rep = u32::from(insn.has_rep_prefix()) << 8;
    let repne = u32::from(insn.has_repne_prefix()) << 9;
    Some(operation | size << 4 | rep | repne | u32::from(addr32) << 10)
}

pub fn transfer(e: &mut Emitter) {
    let insn = e.item.insn;
    match insn.mnemonic() {
        Mnemonic::Syscall => return syscall(e),
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz => return short_branch(e),
        _ => {}
    }
    match insn.flow_control() {
        FlowControl::ConditionalBranch if let Some(cc) = condition(insn.condition_code()) => {
            e.mark_own();
            e.exit_jcc(cc, insn.near_branch_target());
        }
        FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => {
            stack::before_jump(e);
            e.exit_jmp(insn.near_branch_target());
        }
        FlowControl::IndirectBranch if insn.is_jmp_near_indirect() => {
            stack::before_jump(e);
            let (kept, _) = load_target(e);
            branch_to_target(e, LEAVE_JUMP, kept);
        }
        FlowControl::Call if insn.is_call_near() => call_direct(e, insn.near_branch_target()),
        FlowControl::IndirectCall if insn.is_call_near_indirect() => call_indirect(e),
        FlowControl::Return if insn.mnemonic() == Mnemonic::Ret => ret(e),
        // Faults, far transfers: the processor decides.
        _ => {
            e.copy_raw();
            let next = e.item.pc + u64::from(e.item.len);
            e.exit_jmp(next);
        }
    }
}

/// The processor's code of a condition.
pub fn condition(cc: ConditionCode) -> Option<u8> {
    Some(match cc {
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
        ConditionCode::None => return None,
    })
}

/// loop, loope, loopne, jrcxz, jecxz exist with 8-bit displacements only: branch around two jumps.
fn short_branch(e: &mut Emitter) {
    let target = e.item.insn.near_branch_target();
    let n = e.item.len as usize;
    let raw = e.item.raw;
    e.mark_own();
    e.asm.bytes(&raw[..n - 1]);
    e.asm.buf.push(2);
    let not_taken_short = e.asm.offset();
    e.asm.bytes(&[0xeb, 0]);
    e.exit_jmp(target);
    let distance = e.asm.offset() - (not_taken_short + 2);
    e.asm.buf[not_taken_short + 1] = distance as u8;
}

fn syscall(e: &mut Emitter) {
    let next = e.item.pc + u64::from(e.item.len);
    e.mark_own();
    e.asm.store_const(&rip_slot(), next);
    let back = e.asm.lea_forward(RCX);
    e.asm.jmp(e.t.stubs.syscall);
    e.asm.patch_here(back);
    e.asm.mov_const(RCX, next);
    e.exit_jmp(next);
}

const fn table(reg: u8) -> Mem {
    Mem { seg: Seg::Gs, base: None, index: Some((reg, 3)), disp: TABLE_DISPLACEMENT as i32, addr32: false }
}

/// Where the target of an indirect branch is found if the branch table does not know it. Nearly always it does: nothing is stored for that.
#[derive(Clone, Copy)]
enum Kept {
    /// ctx.target.
    Context,
    Register(u8),
    /// Below the stack pointer, where it was popped from.
    Popped,
}

/// The runtime's routines want to find it in ctx.target.
fn is_told(e: &Emitter) -> bool {
    e.shadow.is_some() || e.program.is_far(e.item.pc)
}

/// Evaluate the operand of an indirect branch into a register, or into ctx.target and rcx; rcx is spilled. False: another register was in use
/// for it.
fn load_target(e: &mut Emitter) -> (Kept, bool) {
    let insn = e.item.insn;
    if insn.op0_kind() == OpKind::Register {
        e.mark_own();
        e.asm.store(&spill(slot::RCX), RCX);
        let r = gpr(insn.op0_register()).unwrap_or(RCX);
        if !is_told(e) && !matches!(r, RCX | RSP) {
            return (Kept::Register(r), true);
        }
        e.asm.store(&Mem::ctx(offset::TARGET), r);
        if r != RCX {
            e.asm.mov(RCX, r);
        }
        return (Kept::Context, true);
    }
    let size = insn.memory_size().size() as u32;
    let mut alone = true;
    e.with_operand(|e, mem, _| {
        e.check(&mem, size, LOAD);
        e.place_step();
        e.asm.store(&spill(slot::RCX), RCX);
        e.mark_own();
        e.asm.load(RCX, &mem);
        e.asm.store(&Mem::ctx(offset::TARGET), RCX);
        alone = !e.passing;
    });
    if !alone {
        e.asm.load(RCX, &Mem::ctx(offset::TARGET));
    }
    (Kept::Context, alone)
}

/// Go to the translation of the program address in rcx, or where it is kept; the program's rcx is in its spill slot.
fn branch_to_target(e: &mut Emitter, leave: u32, kept: Kept) {
    if e.shadow.is_some() {
        let argument = e.leave_argument(leave);
        e.asm.store_imm(&spill(slot::ARGUMENT), 8, argument as i32);
        return e.asm.jmp(e.t.stubs.dirty_branch);
    }
    if e.program.is_far(e.item.pc) {
        return e.asm.jmp(e.t.stubs.dispatch);
    }
    let index = if let Kept::Register(r) = kept { r } else { RCX };
    e.asm.load(RCX, &table(index));
    let miss = e.asm.jrcxz_forward();
    e.asm.jmp_reg(RCX);
    e.asm.patch8_here(miss);
    let dispatch = e.t.stubs.dispatch;
    match kept {
        Kept::Context => return e.asm.jmp(dispatch),
        Kept::Register(r) => {
            e.asm.jmp(e.cold.here());
            e.cold.store(&Mem::ctx(offset::TARGET), r);
        }
        Kept::Popped => {
            e.asm.jmp(e.cold.here());
            e.cold.load(RCX, &Mem::base(RSP, -8));
            e.cold.store(&Mem::ctx(offset::TARGET), RCX);
        }
    }
    e.cold.jmp(dispatch);
}

/// If this code begins with the lookup of a branch target, `mov rcx, gs:[register*8+table]`, the number of the register.
pub fn looked_up(code: &[u8; LOOKUP]) -> Option<usize> {
    let [0x65, rex, 0x8b, 0x0c, sib, disp @ ..] = code else { return None };
    let register = usize::from(sib >> 3 & 7 | (rex & 2) << 2);
    let is_table = rex & !2 == 0x48 && sib & 0xc7 == 0xc5 && u64::from(u32::from_le_bytes(*disp)) == TABLE_DISPLACEMENT;
    is_table.then_some(register)
}

/// Bytes of a lookup.
pub const LOOKUP: usize = 9;

/// Push the return address on the program's stack, and mark its slot as that of a call in progress.
fn push_return(e: &mut Emitter, address: u64) {
    e.asm.store_imm(&Mem { seg: Seg::Gs, ..Mem::base(RSP, -8) }, 8, RETURN_MARK as i32);
    e.mark_own();
    e.asm.push_imm(address as i32);
    if i64::from(address as i32) as u64 != address {
        e.asm.store_imm(&Mem::base(RSP, 4), 4, (address >> 32) as i32);
    }
}

fn call_direct(e: &mut Emitter, target: u64) {
    let next = e.item.pc + u64::from(e.item.len);
    e.place_step();
    push_return(e, next);
    e.exit_jmp(target);
}

fn call_indirect(e: &mut Emitter) {
    let next = e.item.pc + u64::from(e.item.len);
    let (kept, alone) = load_target(e);
    if alone {
        // The push may fault: then rcx is found in its slot.
        spilled_from_here(e);
        push_return(e, next);
    } else {
        e.asm.load(RCX, &spill(slot::RCX));
        push_return(e, next);
        e.asm.load(RCX, &Mem::ctx(offset::TARGET));
    }
    branch_to_target(e, LEAVE_CALL, kept);
}

fn ret(e: &mut Emitter) {
    let insn = e.item.insn;
    let released = e.item.released.max(8);
    e.place_step();
    let painted = stack::before_ret(e, released);
    e.asm.store(&spill(slot::RCX), RCX);
    spilled_from_here(e);
    e.mark_own();
    e.asm.buf.push(0x58 | RCX);
    if !painted {
        stack::paint(e, -(released as i32), released);
    }
    if insn.op_count() > 0 {
        let extra = insn.immediate16() as i32;
        e.asm.lea(RSP, &Mem::base(RSP, extra));
    }
    let kept = if is_told(e) || insn.op_count() > 0 { Kept::Context } else { Kept::Popped };
    if let Kept::Context = kept {
        e.asm.store(&Mem::ctx(offset::TARGET), RCX);
    }
    branch_to_target(e, LEAVE_RETURN, kept);
}

/// From here to the end of the region rcx lives in slot 0.
fn spilled_from_here(e: &mut Emitter) {
    let here = e.asm.offset() as u32;
    if let Some(i) = e.info.last_mut() {
        (i.spilled, i.spill) = (0x80 | RCX, (here, u32::MAX));
    }
}

/// The region of a replaced function: call the replacement, return to the caller. For an IFUNC resolver: return the pseudo
/// entry point of the function instead.
pub fn redirected(t: &mut Translator, pc: u64, at: u64, func: u32, resolver: bool) -> Region {
    let mut asm = Asm::new(at, Vec::new());
    asm.load(RCX, &spill(slot::RCX));
    let body = asm.offset() as u32;
    let host = asm.offset() as u32;
    asm.store_const(&rip_slot(), pc);
    asm.store_imm(&spill(slot::ARGUMENT), 8, (func | u32::from(resolver) << 16) as i32);
    asm.jmp(t.stubs.replace);
    let info = alloc::vec![InsnInfo { host, pc: 0, spilled: 0xff, len: 1, spill: (0, 0), own: host }];
    Region { code: asm.buf, cold: Vec::new(), body, info, exits: Vec::new(), start: pc, end: pc + 1, calls: false }
}
