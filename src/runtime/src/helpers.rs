//! What translated code asks the runtime to do for it: instructions that would show or change what is ours, the shadow of string
//! instructions, code that changes, client requests.
#![allow(unsafe_code, reason = "executes cpuid")]

use crate::exception::{self, Exception};
use crate::{dirty, renewal, requests, safepoint, stackmove};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memcheck_abi::context::{RAX, RBX, RCX, RDI, RDX, RSI, RSP, ThreadContext};
use memcheck_abi::event::Kind;
use memcheck_rt::{access, context, report, shadow, sys};
use memcheck_semantics::regs;
use memcheck_translate::stack::FROM_ANYWHERE;
use memcheck_translate::{helper as number, slot};

/// Entry from `asm::helper`: slot 4 says what, regs.rip where.
pub extern "C" fn helper() {
    let ctx = context::current();
    let argument = ctx.scratch[slot::ARGUMENT as usize] as u32;
    match argument & 0xff {
        number::EMULATE => emulate(ctx),
        number::STRING => string(ctx, argument >> 8),
        number::CLIENT_REQUEST => requests::request(ctx, (argument >> 8) as u8),
        number::STEP => dirty::step(ctx),
        number::CODE_CHECK => code_check(ctx, argument >> 8 != 0),
        _ => report::internal("unknown helper"),
    }
}

/// Code in a writable page: if it changed, the region is dropped and the new code translated. `surely`: it did.
fn code_check(ctx: &mut ThreadContext, surely: bool) {
    let here = ctx.scratch[slot::CONTINUE as usize];
    let mut cache = renewal::for_more();
    if cache.recheck(here, surely) {
        crate::spread::forget();
        let pc = ctx.regs.rip;
        let dirty = dirty::shadow_regs(ctx).dirty != 0;
        let body = if dirty { cache.find_dirty(pc).map(|(body, ..)| body) } else { cache.find_or_translate(pc) };
        drop(cache);
        ctx.scratch[slot::CONTINUE as usize] = body.unwrap_or_else(|| crate::fault::bad_jump(pc));
    }
}

/// The program's instruction at `pc`.
pub fn decode(pc: u64) -> Instruction {
    let mut code = [0u8; 15];
    let mut n = code.len();
    while n > 0 && !memcheck_rt::sys::read_guarded(pc, &mut code[..n]) {
        n -= 1;
    }
    Decoder::with_ip(64, &code[..n], pc, DecoderOptions::NONE).decode()
}

fn emulate(ctx: &mut ThreadContext) {
    let insn = decode(ctx.regs.rip);
    let reg = insn.op0_register();
    let value = |ctx: &ThreadContext| {
        let v = ctx.regs.gpr[reg.full_register().number()];
        if reg.is_gpr32() { v & 0xffff_ffff } else { v }
    };
    match insn.mnemonic() {
        Mnemonic::Cpuid => cpuid(ctx),
        Mnemonic::Rdfsbase => set(ctx, reg, ctx.guest_fs),
        Mnemonic::Rdgsbase => set(ctx, reg, ctx.guest_gs),
        Mnemonic::Wrfsbase => ctx.guest_fs = value(ctx),
        Mnemonic::Wrgsbase => ctx.guest_gs = value(ctx),
        Mnemonic::Iretq | Mnemonic::Retf => far_return(ctx, &insn),
        // mov to a segment register: selectors are 0 or flat in 64-bit programs; nothing to do.
        Mnemonic::Mov if insn.op0_kind() == OpKind::Register => {}
        _ => report::internal("an instruction that should be emulated is not known"),
    }
}

/// The words that a far return pops: target, code segment, and of `iretq` flags, stack pointer, stack segment.
fn far_return(ctx: &mut ThreadContext, insn: &Instruction) {
    /// Those flags that programs change by it: arithmetic and direction.
    const FLAGS: u64 = 0xcd5;
    const CODE: u64 = 0x33;
    const STACK: u64 = 0x2b;
    let old = ctx.regs.gpr[RSP];
    let count = if insn.mnemonic() == Mnemonic::Iretq { 5 } else { 2 };
    look(ctx, Kind::InvalidRead, old, 8 * count as u64, 8);
    let mut bytes = [[0u8; 8]; 5];
    let known = sys::read_guarded(old, bytes[..count].as_flattened_mut());
    let [target, code, flags, sp, stack] = bytes.map(u64::from_ne_bytes);
    if !known || code != CODE || count == 5 && stack != STACK {
        let refused = Exception { signo: exception::SIGSEGV, code: exception::SI_KERNEL, addr: 0 };
        exception::deliver(ctx, refused.of_access(insn, old, false));
    }
    let mut defined = 1 << RSP;
    ctx.regs.gpr[RSP] = if count == 5 {
        ctx.regs.rflags = ctx.regs.rflags & !FLAGS | flags & FLAGS;
        defined |= 1 << regs::FLAGS;
        sp
    } else {
        old.wrapping_add(16 + if insn.op_count() > 0 { u64::from(insn.immediate16()) } else { 0 })
    };
    dirty::shadow_regs(ctx).dirty &= !defined;
    (ctx.scratch[slot::ADDRESS as usize], ctx.scratch[slot::ARGUMENT as usize]) = (old, FROM_ANYWHERE.into());
    stackmove::moved();
    ctx.target = target;
    ctx.scratch[slot::CONTINUE as usize] = safepoint::go_on(ctx);
}

fn set(ctx: &mut ThreadContext, reg: Register, value: u64) {
    let full = reg.full_register();
    ctx.regs.gpr[full.number()] = if reg.is_gpr32() { value & 0xffff_ffff } else { value };
}

/// The processor's answer, without what is not supported here: AVX-512, transactions, protection keys, shadow stacks, APX and AMX.
fn cpuid(ctx: &mut ThreadContext) {
    let (leaf, sub) = (ctx.regs.gpr[RAX] as u32, ctx.regs.gpr[RCX] as u32);
    let mut r = core::arch::x86_64::__cpuid_count(leaf, sub);
    if leaf == 7 && sub == 0 {
        // rtm hle mpx, avx512 f dq ifma pf er cd bw vl
        r.ebx &= !(1 << 4 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31);
        // avx512 vbmi vbmi2 vnni bitalg vpopcntdq, pku, cet_ss
        r.ecx &= !(1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 14);
        // avx512 4vnniw 4fmaps vp2intersect fp16, amx, ibt
        r.edx &= !(1 << 2 | 1 << 3 | 1 << 8 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25);
    }
    if leaf == 7 && sub == 1 {
        // avx512 bf16, amx fp16, apx
        r.eax &= !(1 << 5 | 1 << 21);
        r.edx &= !(1 << 8 | 1 << 21);
    }
    ctx.regs.gpr[RAX] = u64::from(r.eax);
    ctx.regs.gpr[RBX] = u64::from(r.ebx);
    ctx.regs.gpr[RCX] = u64::from(r.ecx);
    ctx.regs.gpr[RDX] = u64::from(r.edx);
}

const DIRECTION: u64 = 1 << 10;

/// A string instruction is about to run: check its ranges and move the shadow. Bits of `argument` as in
/// `translate::control::string_argument`.
fn string(ctx: &mut ThreadContext, argument: u32) {
    let (operation, size) = (argument & 15, 1u64 << (argument >> 4 & 15));
    let repeated = argument >> 8 & 3 != 0;
    let mask = if argument >> 10 & 1 != 0 { 0xffff_ffff } else { u64::MAX };
    let count = if repeated { ctx.regs.gpr[RCX] & mask } else { 1 };
    // compare and scan stop early: only the first element is certain.
    let count = if operation >= 3 { count.min(1) } else { count };
    let Some(len) = count.checked_mul(size).filter(|&n| n != 0 && n < memcheck_abi::layout::PROGRAM_END) else { return };
    let first = |reg: usize| {
        let at = ctx.regs.gpr[reg] & mask;
        if ctx.regs.rflags & DIRECTION != 0 { at.wrapping_sub(len - size) } else { at }
    };
    let (source, target) = (first(RSI), first(RDI));
    if matches!(operation, 0 | 2 | 3) {
        look(ctx, Kind::InvalidRead, source, len, size);
    }
    if matches!(operation, 3 | 4) {
        look(ctx, Kind::InvalidRead, target, len, size);
    }
    match operation {
        0 => copy(ctx, source, target, len, size),
        1 => fill(ctx, target, len, size),
        _ => {}
    }
}

fn look(ctx: &ThreadContext, kind: Kind, at: u64, len: u64, size: u64) {
    let sp = ctx.regs.gpr[RSP];
    if shadow::first_nonzero_v(at, len).is_none() {
        return;
    }
    // The elements one after the other: a word at the edge of a block may be excused.
    let mut from = at;
    while let Some(bad) = access::first_unaddressable(ctx, sp, from, at + len - from) {
        let element = at + (bad - at) / size * size;
        if kind == Kind::InvalidWrite || !crate::check::excused(ctx, sp, ctx.regs.rip, element, size) {
            report::raise(kind, ctx.regs.rip, sp, |e| (e.addr, e.has_addr, e.size) = (element, 1, size));
            return;
        }
        from = element + size;
        if from >= at + len {
            return;
        }
    }
}

fn copy(ctx: &ThreadContext, source: u64, target: u64, len: u64, size: u64) {
    if shadow::first_nonzero_v(source, len).is_none() && shadow::first_nonzero_v(target, len).is_none() {
        return;
    }
    let (sp, down) = (ctx.regs.gpr[RSP], ctx.regs.rflags & DIRECTION != 0);
    let is_good = |at| access::first_unaddressable(ctx, sp, at, len).is_none();
    let ahead = if down { source.wrapping_sub(target) } else { target.wrapping_sub(source) };
    // What was written is read again, so that a pattern repeats?
    let repeats = ahead != 0 && ahead < len;
    if !repeats && is_good(target) && is_good(source) {
        memcheck_replace::copy::move_origins(target, source, len);
        return shadow::copy_v(target, source, len);
    }
    look(ctx, Kind::InvalidWrite, target, len, size);
    for at in (0..len).step_by(size as usize).map(|at| if down { len - size - at } else { at }) {
        copy_element(ctx, source + at, target + at, size);
    }
}

fn copy_element(ctx: &ThreadContext, source: u64, target: u64, size: u64) {
    let sp = ctx.regs.gpr[RSP];
    let mut v = [0; 8];
    for (v, from) in v.iter_mut().zip(source..source + size) {
        *v = if access::addressable(ctx, sp, from) { shadow::v(from) } else { 0 };
    }
    memcheck_replace::copy::move_origins(target, source, size);
    for (v, to) in v.into_iter().zip(target..target + size) {
        if access::addressable(ctx, sp, to) {
            shadow::set_v(to, v);
        }
    }
}

fn fill(ctx: &ThreadContext, target: u64, len: u64, size: u64) {
    if shadow::first_nonzero_v(target, len).is_none() {
        return;
    }
    let sp = ctx.regs.gpr[RSP];
    if access::first_unaddressable(ctx, sp, target, len).is_none() {
        return shadow::fill_v(target, len, 0);
    }
    look(ctx, Kind::InvalidWrite, target, len, size);
    for i in 0..len {
        if access::addressable(ctx, sp, target + i) {
            shadow::set_v(target + i, 0);
        }
    }
}
