//! The slow side of a memory check: V was not zero and the fast classification did not settle it.

use crate::cache::CACHE;
use core::sync::atomic::Ordering;
use memcheck_abi::config::mapping;
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::event::Kind;
use memcheck_abi::layout::in_program;
use memcheck_rt::{access, context, report, shadow};
use memcheck_translate::{LOAD, SPREAD, STATE_AREA, STORE, slot};

/// Entry from `asm::check`.
pub extern "C" fn slow() {
    let ctx = context::current();
    let addr = ctx.scratch[slot::ADDRESS as usize];
    let descriptor = ctx.scratch[slot::ARGUMENT as usize] as u32;
    let (size, kind) = (u64::from(descriptor & 0xffff), descriptor >> 16);
    if size == u64::from(SPREAD) {
        if crate::spread::needs_its_rule(ctx) {
            ctx.scratch[slot::CONTINUE as usize] = crate::dirty::enter();
        }
        return;
    }
    if !in_program(addr, size) {
        // The access itself faults.
        return;
    }
    if size == u64::from(STATE_AREA) {
        let needed = kind != LOAD || shadow::first_nonzero_v(addr, size).is_some();
        if needed && crate::startup::UNDEF.load(Ordering::Relaxed) != 0 {
            ctx.scratch[slot::CONTINUE as usize] = crate::dirty::enter();
        }
        return;
    }
    let sp = ctx.regs.gpr[RSP];
    let mut complained = false;
    if access::first_unaddressable(ctx, sp, addr, size).is_some() {
        let pc = CACHE.lock().position(ctx.scratch[slot::CONTINUE as usize]).map_or(0, |p| p.pc);
        if kind == LOAD && in_loader(ctx, sp, pc, addr, size) {
            return;
        }
        if !(kind == LOAD && partial(ctx, sp, addr, size)) {
            if !crate::cache::is_dirty_code(ctx.scratch[slot::CONTINUE as usize]) {
                // Clean code takes the rest of the region for checked. Dirty code asks at every access; it also reports this one.
                ctx.scratch[slot::CONTINUE as usize] = crate::dirty::enter();
                return;
            }
            complained = true;
            complain(ctx, kind, pc, (addr, size));
        }
    }
    if kind == STORE {
        define(ctx, sp, addr, size);
    } else if !complained && crate::startup::UNDEF.load(Ordering::Relaxed) != 0 && access::first_bad(ctx, sp, addr, size).is_some() {
        // Too wide for the fast classification, or partly addressable: what is undefined is followed as from there.
        ctx.scratch[slot::CONTINUE as usize] = crate::dirty::enter();
    }
}

/// A load that reaches unaddressable bytes and is nevertheless no error.
pub fn excused(ctx: &ThreadContext, sp: u64, pc: u64, addr: u64, size: u64) -> bool {
    partial(ctx, sp, addr, size) || in_loader(ctx, sp, pc, addr, size)
}

/// --partial-loads-ok: an aligned word or vector load with at least one addressable byte.
fn partial(ctx: &ThreadContext, sp: u64, addr: u64, size: u64) -> bool {
    crate::startup::config().partial_loads_ok != 0
        && size >= 4
        && size.is_power_of_two()
        && addr.is_multiple_of(size)
        && (addr..addr + size).any(|a| access::addressable(ctx, sp, a))
}

/// The dynamic loader has string functions of its own, without symbols in most systems. Their vector loads reach over the end of a
/// string, never over the end of a page: they are aligned (whole lines of four are read), or one of four that begin inside the string.
fn in_loader(ctx: &ThreadContext, sp: u64, pc: u64, addr: u64, size: u64) -> bool {
    const VECTOR: u64 = 16;
    let config = crate::startup::config();
    let loader = &config.mappings[..config.mapping_count as usize];
    let begins_inside = || (0..4).any(|before| access::addressable(ctx, sp, addr.saturating_sub(before * VECTOR)));
    size >= 8
        && (addr.is_multiple_of(VECTOR) || begins_inside())
        && loader.iter().any(|m| m.kind == mapping::INTERPRETER && pc >= m.start && pc < m.end)
}

fn complain(ctx: &ThreadContext, kind: u32, pc: u64, (addr, size): (u64, u64)) {
    let sp = ctx.regs.gpr[RSP];
    let invalid = |kind, addr, size| {
        report::raise(kind, pc, sp, |e| (e.addr, e.has_addr, e.size) = (addr, 1, size));
    };
    if kind != STORE {
        invalid(Kind::InvalidRead, addr, size);
    }
    if kind != LOAD {
        let bad = |at, n| access::first_unaddressable(ctx, sp, at, n).is_some();
        bad_words(addr, size, bad).for_each(|(at, n)| invalid(Kind::InvalidWrite, at, n));
    }
}

/// An invalid store of a vector is as many reports as it has bad words, which is how Valgrind counts them and what its sizes say: (address,
/// size) of each.
pub fn bad_words(addr: u64, size: u64, bad: impl Fn(u64, u64) -> bool) -> impl Iterator<Item = (u64, u64)> {
    let word = if matches!(size, 16 | 32 | 64) { 8 } else { size };
    (0..size / word).map(move |i| (addr + i * word, word)).filter(move |&(at, n)| n == size || bad(at, n))
}

/// A store defines the bytes that the program may touch; others keep their state.
fn define(ctx: &ThreadContext, sp: u64, addr: u64, size: u64) {
    for a in addr..addr + size {
        if access::addressable(ctx, sp, a) {
            shadow::set_v(a, 0);
        }
    }
}
