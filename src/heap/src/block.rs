//! The three things that can happen to a block: it is born, it dies, it moves.

use crate::cache::{self, Cache};
use crate::classes::{self, MAX_SLOT};
use crate::layout::{UNIT, address_of};
use crate::map::Slot;
use crate::record::{self, Head, State};
use crate::{central, client, entries, fallow, map, paint, quarantine, settings, stacks, superseded, tally};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::{Family, Kind};
use memcheck_abi::layout::HEAP_START;
use memcheck_rt::{depot, origins, report};

/// A request that passed its checks.
#[derive(Clone, Copy)]
pub struct Ask {
    pub size: u64,
    /// A power of two.
    pub align: u64,
    pub family: Family,
    /// calloc: zeros, defined.
    pub zero: bool,
    /// Depot id of the allocation if it is known already.
    pub stack: Option<u32>,
    /// Of so many bytes the caller writes V itself.
    pub copied: u64,
}

/// What a new block's record says, and how it is filled.
#[derive(Clone, Copy)]
struct Granted {
    size: u64,
    family: Family,
    zero: bool,
    stack: u32,
    age: u32,
    copied: u64,
}

/// Allocate. 0 when memory is exhausted.
#[inline(always)]
pub fn allocate(ctx: &mut ThreadContext, ask: Ask) -> u64 {
    let Some(cache) = cache::current(ctx) else { return 0 };
    if quarantine::is_over() {
        quarantine::trim(cache);
    }
    let stack = ask.stack.unwrap_or_else(|| cache.stacks.at_alloc(ctx));
    let settings = settings::get();
    let align = ask.align.max(settings.alignment);
    let need = ask.size.saturating_add(settings.around + align - 16);
    let granted =
        || Granted { size: ask.size, family: ask.family, zero: ask.zero, stack, age: cache.allocs.get() as u32, copied: ask.copied };
    let p = if need <= MAX_SLOT { small(cache, granted(), align, need) } else { large(granted(), align, need) };
    if p != 0 {
        cache.allocs.add(1);
        cache.bytes.add(ask.size);
        debug_assert!(ask.size >= paint::HUGE || ask.copied != 0 || paint::is_born(p, ask.size, ask.zero), "shadow of a new block");
        if settings.extras {
            born(p, ask.size, ask.zero, stack);
        }
    }
    p
}

/// What few runs want of a new block.
#[cold]
#[inline(never)]
fn born(p: u64, size: u64, zero: bool, stack: u32) {
    if let (Some(byte), false) = (settings::get().malloc_fill, zero) {
        paint::fill_bytes(p, size, byte);
    }
    tally::allocated(stack, size);
}

/// The same for one that dies.
#[cold]
#[inline(never)]
fn died(p: u64, size: u64, stack: u32) {
    if let Some(byte) = settings::get().free_fill {
        paint::fill_bytes(p, size, byte);
    }
    tally::freed(stack, size);
}

#[inline(always)]
fn small(cache: &mut Cache, ask: Granted, align: u64, need: u64) -> u64 {
    let grows = ask.size > ask.copied && ask.copied >= superseded::FROM;
    let class = if grows { classes::roomy(need) } else { classes::of(need) };
    let Some(slot) = cache.pop(class) else { return 0 };
    let (record, usual) = (slot.record(), slot.block(class));
    let p = if align == 16 { usual } else { usual.next_multiple_of(align) };
    paint::open(p, ask.size);
    if ask.zero {
        paint::set_bytes(p, ask.size, 0);
        paint::define(p, ask.size);
    }
    origins::forget(p, ask.size);
    record.set_birth(ask.stack, ask.age);
    record.set_head(Head::new(p, State::Live, ask.family, 0).with_size(ask.size));
    p
}

#[cold]
#[inline(never)]
fn large(ask: Granted, align: u64, need: u64) -> u64 {
    if need > memcheck_abi::layout::HEAP_END - HEAP_START {
        return 0;
    }
    fallow::may_have_grown();
    let taken = central::lock().take_large(need.div_ceil(UNIT));
    let Some(run) = taken else { return 0 };
    fallow::forget(run.first, run.units);
    let start = address_of(run.first);
    let end = address_of(run.first + run.units);
    let p = (start + settings::get().front).next_multiple_of(align);
    let huge = ask.size >= paint::HUGE;
    // After this V of the block is FF in a painted run and 0 in another, A is 0.
    if run.painted {
        paint::open(p, ask.size);
    } else {
        paint::close_edges(start, end, p, ask.size);
    }
    if run.painted && (ask.zero || huge) {
        paint::define(p, ask.size);
    }
    if ask.zero && !run.zero {
        paint::set_bytes(p, ask.size, 0);
    }
    if !ask.zero && huge {
        paint::undefine(p, ask.size);
    } else if !ask.zero && !run.painted {
        // Where V is copied to it stays as it is in fresh memory: pages that are zero in both need not be there.
        paint::undefine(p + ask.copied, ask.size - ask.copied);
    }
    let record = record::at(start - HEAP_START, 0);
    origins::forget(p, ask.size);
    record.set_birth(ask.stack, ask.age);
    record.set_long_size(ask.size);
    record.set_head(Head::new(p, State::Live, ask.family, if huge { record::LONG | record::HUGE } else { record::LONG }));
    p
}

/// Free the block at `p`, or report why that is impossible. True if there was such a block.
#[inline(always)]
pub fn release(ctx: &mut ThreadContext, p: u64, family: Family) -> bool {
    let Some(cache) = cache::current(ctx) else { return false };
    cache.frees.add(1);
    let Some(slot) = map::slot_of(p) else { return client::free_marked(ctx, p, family, 0) };
    // While what will be read and painted comes from memory, the stack is looked at.
    slot.ask_for(p);
    let stack = cache.stacks.at_free(ctx);
    if !slot.is_live_at(p) {
        return client::free_marked(ctx, p, family, 0);
    }
    die(ctx, cache, slot, family, stack)
}

/// Free a live block by a client request; the caller counted it.
pub fn retire_at(ctx: &mut ThreadContext, p: u64, family: Family) {
    if let (Some(slot), Some(cache)) = (map::live_slot_at(p), cache::current(ctx)) {
        let stack = cache.stacks.at_free(ctx);
        die(ctx, cache, slot, family, stack);
    }
}

/// Live → quarantine.
#[inline(always)]
fn die(ctx: &ThreadContext, cache: &mut Cache, slot: Slot, family: Family, stack: u32) -> bool {
    let size = retire(ctx, slot, family, stack);
    if let Some(size) = size {
        quarantine::add(cache, slot.record, size);
    }
    size.is_some()
}

/// Live → quarantined; the size.
#[inline(always)]
fn retire(ctx: &ThreadContext, slot: Slot, family: Family, stack: u32) -> Option<u64> {
    let record = slot.record;
    let head = record.head();
    let (p, size) = (head.address(), record.size());
    if head.family() != family as u32 {
        mismatched(ctx, p, family);
    }
    if !record.retire(head, cache::is_alone()) {
        invalid(ctx, p);
        return None;
    }
    record.set_free_stack(stack);
    if settings::get().extras {
        died(p, size, stack);
    }
    if head.has(record::HUGE) {
        paint::seal(p, size);
        return Some(size);
    }
    match slot.room() {
        Some((at, len)) if len < paint::SHORT => paint::close(at, len),
        _ => paint::close(p, size),
    }
    debug_assert!(paint::is_dead(p, size), "shadow of a freed block");
    Some(size)
}

/// realloc: always a fresh block, so that stale pointers are always caught. 0 on failure, the old block stays then.
pub fn resize(ctx: &mut ThreadContext, p: u64, size: u64) -> u64 {
    let Some(slot) = map::live_slot_at(p) else {
        // It counts as both, though nothing comes of either.
        if let Some(cache) = cache::current(ctx) {
            cache.frees.add(1);
            cache.allocs.add(1);
            cache.bytes.add(size);
        }
        invalid(ctx, p);
        return 0;
    };
    // One stack serves both halves.
    let settings = settings::get();
    let alloc_stack = stacks::at_alloc(ctx);
    let free_stack = match (settings.alloc_stacks, settings.free_stacks) {
        (_, false) => 0,
        (true, true) => alloc_stack,
        (false, true) => stacks::at_free(ctx),
    };
    let old = slot.record;
    let old_size = old.size();
    let ask = Ask { size, align: 16, family: Family::Malloc, zero: false, stack: Some(alloc_stack), copied: size.min(old_size) };
    let fresh = allocate(ctx, ask);
    if fresh == 0 {
        return 0;
    }
    paint::copy(fresh, p, size.min(old_size));
    origins::carry(fresh, p, size.min(old_size));
    if let Some(cache) = cache::current(ctx) {
        cache.frees.add(1);
        if let Some(size) = retire(ctx, slot, Family::Malloc, free_stack) {
            superseded::add(cache, old, size);
        }
    }
    fresh
}

#[cold]
#[inline(never)]
pub fn invalid(ctx: &ThreadContext, p: u64) {
    report::raise(Kind::InvalidFree, ctx.regs.rip, ctx.guest_rsp, |e| {
        e.addr = p;
        e.has_addr = 1;
    });
}

#[cold]
#[inline(never)]
pub fn mismatched(ctx: &ThreadContext, p: u64, family: Family) {
    if settings::get().mismatched && !is_ambiguous(ctx, p, family) {
        report::raise(Kind::MismatchedFree, ctx.regs.rip, ctx.guest_rsp, |e| {
            e.addr = p;
            e.has_addr = 1;
        });
    }
}

/// Linkers make one function of two that have the same code: whether `new[]` or `new` was called there, nobody knows.
fn is_ambiguous(ctx: &ThreadContext, p: u64, family: Family) -> bool {
    let is_operator = |family: u32| family == Family::New as u32 || family == Family::NewArray as u32;
    let Some((_, block)) = crate::describe::find(p) else { return false };
    let allocated_by = || depot::get(block.alloc_stack).next().unwrap_or(0);
    is_operator(family as u32) && is_operator(block.family) && (entries::is_folded(ctx.regs.rip) || entries::is_folded(allocated_by()))
}
