//! What is this address? The heap's part of every report that names one.
//!
//! In order: memory that the client named or marked; a block of the heap that contains the address, or whose red zone does (inside first,
//! then the red zone behind a block, then the one before; live before freed); the current thread's stack.
//!
//! ```text
//!  [ block i ]      after i: up to 24 bytes        before i+1: up to 24 bytes      [ block i+1 ]
//!                   what is neither is said to be after or before the nearest one
//! ```

use crate::layout::{UNIT, address_of, owns, unit_of};
use crate::map::{self, Kind};
use crate::record::{self, Record, State};
use crate::{classes::CLASSES, client, settings, spans};
use memcheck_abi::event::{Block, ErrorEvent, Place};
use memcheck_abi::layout::{HEAP_START, RED_ZONE};
use memcheck_rt::context;

/// Fill place and block of an event from its address. For `report::init`.
pub fn describe(event: &mut ErrorEvent) {
    if client::describe(event) {
        return;
    }
    if let Some((place, block)) = find(event.addr) {
        event.place = place as u32;
        event.block = block;
        return;
    }
    let ctx = context::current();
    if event.addr >= ctx.stack_low && event.addr < ctx.stack_high {
        event.place_thread = ctx.number;
        if event.addr >= event.sp.wrapping_sub(RED_ZONE) {
            event.place = Place::Stack as u32;
        } else {
            event.place = Place::BelowStack as u32;
            event.place_distance = event.sp - event.addr;
        }
    }
}

/// How well a block fits an address; smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Inside(Age),
    /// In reach: 0 after or 1 before, distance.
    Zone(Age, u8, u64),
    Near(u64, Age),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Live,
    /// Still waiting, or freed so long ago that only luck keeps its memory out of use.
    Freed,
}

fn fit(addr: u64, record: &Record) -> Option<Fit> {
    let age = match record.head().state() {
        State::Live => Age::Live,
        State::Quarantined => Age::Freed,
        _ => return None,
    };
    let (start, size) = (record.head().address(), record.size());
    let reach = settings::get().reach;
    if addr < start {
        let distance = start - addr;
        return Some(if distance <= reach { Fit::Zone(age, 1, distance) } else { Fit::Near(distance, age) });
    }
    if addr - start < size {
        return Some(Fit::Inside(age));
    }
    let distance = addr - start - size;
    Some(if distance < reach { Fit::Zone(age, 0, distance) } else { Fit::Near(distance, age) })
}

/// The heap block that explains `addr` best.
pub fn find(addr: u64) -> Option<(Place, Block)> {
    if !owns(addr) {
        return None;
    }
    let mut best: Option<(Fit, &'static Record)> = None;
    neighbours(addr, |record| {
        if let Some(fit) = fit(addr, record)
            && best.is_none_or(|b| fit < b.0)
        {
            best = Some((fit, record));
        }
    });
    let (_, record) = best?;
    let place = if record.head().state() == State::Live { Place::LiveBlock } else { Place::FreedBlock };
    Some((place, record.block()))
}

/// The records of the slot around an address and of those beside it, across slabs if need be.
fn neighbours(addr: u64, mut visit: impl FnMut(&'static Record)) {
    let unit = unit_of(addr);
    let (first, kind) = map::run_of(unit);
    let start = address_of(first);
    let units = spans::run_len(first).max(1);
    let (mut at_low, mut at_high) = (true, true);
    match kind {
        Kind::Slab(class) => {
            let class = &CLASSES[class];
            let slots = units * UNIT / class.slot;
            let index = class.index(addr - start).min(slots - 1);
            let (low, high) = (index.saturating_sub(1), (index + 1).min(slots - 1));
            (low..=high).for_each(|i| visit(record::at(start - HEAP_START, i)));
            (at_low, at_high) = (index == 0, index == slots - 1);
        }
        Kind::Large => visit(record::at(start - HEAP_START, 0)),
        Kind::Nothing => {}
    }
    let (before, after) = if kind == Kind::Nothing { (unit, unit + 1) } else { (first, first + units) };
    if at_low && before > 0 {
        visit_edge(before - 1, true, &mut visit);
    }
    if at_high && after < spans::used_units() {
        visit_edge(after, false, &mut visit);
    }
}

/// The last (or first) record of the run that a unit belongs to.
fn visit_edge(unit: u64, last: bool, visit: &mut impl FnMut(&'static Record)) {
    let (first, kind) = map::run_of(unit);
    let offset = address_of(first) - HEAP_START;
    match kind {
        Kind::Slab(class) if last => visit(record::at(offset, (spans::run_len(first) * UNIT / CLASSES[class].slot).saturating_sub(1))),
        Kind::Slab(_) | Kind::Large => visit(record::at(offset, 0)),
        Kind::Nothing => {}
    }
}
