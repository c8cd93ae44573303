//! Gathers and scatters in clean code: is there a lane whose memory is not plainly defined? Then the instruction's rule is applied.

use crate::cache::CACHE;
use crate::{fault, startup, vectors};
use core::sync::atomic::Ordering;
use iced_x86::Register;
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::layout::in_program;
use memcheck_rt::{access, shadow};
use memcheck_translate::slot;

/// Asked in front of the instruction at slot 3. Lanes that its guard leaves out are looked at, too: the rule sorts them out.
pub fn needs_its_rule(ctx: &ThreadContext) -> bool {
    let Some(pc) = CACHE.lock().position(ctx.scratch[slot::CONTINUE as usize]).map(|p| p.pc) else { return true };
    let insn = fault::instruction_at(pc);
    let index = insn.memory_index();
    let data = (0..insn.op_count()).map(|i| insn.op_register(i)).find(|r| r.is_vector_register()).unwrap_or(index);
    let width = if insn.vsib() == Some(true) { 8 } else { 4 };
    let size = insn.memory_size().size();
    let lanes = (index.size() / width).min(data.size() / size.max(1));
    let indexes = vectors::register(ctx, index.number());
    let start = start(ctx, &insn);
    (0..lanes).any(|i| {
        let lane = indexes.lane(width, i);
        let lane = if width == 4 { lane as i32 as u64 } else { lane };
        is_doubtful(ctx, start.wrapping_add(lane.wrapping_mul(u64::from(insn.memory_index_scale()))), size as u64)
    })
}

fn is_doubtful(ctx: &ThreadContext, addr: u64, size: u64) -> bool {
    if !in_program(addr, size) {
        return true;
    }
    if startup::UNDEF.load(Ordering::Relaxed) != 0 {
        return shadow::first_nonzero_v(addr, size).is_some();
    }
    access::first_unaddressable(ctx, ctx.regs.gpr[RSP], addr, size).is_some()
}

/// The operand's address without its index.
fn start(ctx: &ThreadContext, insn: &iced_x86::Instruction) -> u64 {
    let base = insn.memory_base();
    let base = if base.is_gpr() { ctx.regs.gpr[base.number()] } else { 0 };
    let segment = match insn.segment_prefix() {
        Register::FS => ctx.guest_fs,
        Register::GS => ctx.guest_gs,
        _ => 0,
    };
    base.wrapping_add(insn.memory_displacement64()).wrapping_add(segment)
}
