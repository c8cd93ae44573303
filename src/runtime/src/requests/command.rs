//! Commands of the debugger and options, in words that the session understands, and the errands that it sends the runtime on.

use super::memory;
use crate::{origin, statistics};
use alloc::vec::Vec;
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::errand::{Errand, Exchange, MOST_STATES, Task, answer, asked};
use memcheck_abi::event::{ErrorEvent, Kind, Trap};
use memcheck_rt::{access, callstack, context, report, shadow};

/// Longest text, bytes.
const LONGEST: usize = 4096;
/// Errands of one command.
const MOST: usize = 512;

/// A command or an option ([`asked`]), as text at `at`; was it understood?
pub fn execute(ctx: &mut ThreadContext, kind: u64, at: u64) -> bool {
    let mut text = Vec::new();
    memory::read_string(at, LONGEST, &mut text);
    ask(ctx, kind, &text, Exchange::default()) != answer::UNKNOWN
}

/// The program stands still for a debugger; for `rt::report`.
pub fn stand(pc: u64, sp: u64) {
    ask(context::current(), asked::DEBUGGER, &[], Exchange { pc, sp, ..Exchange::default() });
}

/// Ask, and go on the errands that it takes.
fn ask(ctx: &mut ThreadContext, kind: u64, text: &[u8], mut exchange: Exchange) -> u64 {
    super::tell_repeats();
    let mut errands = alloc::vec![Errand::new(Task::Describe, 0, 0); if kind == asked::OPTION { 0 } else { MOST }];
    (exchange.errands, exchange.capacity) = (errands.as_mut_ptr() as u64, errands.len() as u64);
    let descriptors = memcheck_kernel::descriptors::opened();
    memcheck_heap::report(&mut exchange.report);
    statistics::fill(&mut exchange.report);
    (exchange.report.descriptors, exchange.report.descriptor_count) = (descriptors.as_ptr() as u64, descriptors.len() as u64);
    let trap = |exchange: &mut Exchange| {
        report::trap(Trap::Command, kind, text.as_ptr() as u64, text.len() as u64, core::ptr::from_mut(exchange) as u64)
    };
    let mut said = trap(&mut exchange);
    // What the errands found, until it was read.
    let mut found = Vec::new();
    while said == answer::ERRANDS {
        found.clear();
        errands.iter_mut().take(exchange.count as usize).for_each(|errand| run(ctx, errand, &mut found));
        exchange.done = 1;
        said = trap(&mut exchange);
    }
    said
}

fn run(ctx: &mut ThreadContext, errand: &mut Errand, found: &mut Vec<Vec<u8>>) {
    let Errand { addr, len, .. } = *errand;
    let is = |task: Task| errand.task == task as u32;
    if is(Task::Describe) {
        describe(ctx, errand);
    } else if is(Task::States) {
        let states = states(ctx, addr, len.min(MOST_STATES));
        errand.result = states.as_ptr() as u64;
        found.push(states);
    } else if is(Task::Check) {
        check(ctx, errand);
    } else if is(Task::Forbid) {
        memory::forbid(addr, len);
    } else if is(Task::MakeUndefined) {
        memory::make_undefined(ctx, addr, len);
    } else if is(Task::MakeDefined) {
        memory::make_defined(addr, len);
    } else if is(Task::MakeDefinedIfAddressable) {
        memory::make_defined_if_addressable(ctx, addr, len);
    }
}

fn describe(ctx: &ThreadContext, errand: &mut Errand) {
    let mut event = ErrorEvent::new(Kind::User);
    (event.addr, event.has_addr, event.sp) = (errand.addr, 1, ctx.regs.gpr[RSP]);
    memcheck_heap::describe(&mut event);
    errand.take(&event);
}

/// V bytes, then as many bytes that say where the program may not go.
fn states(ctx: &ThreadContext, addr: u64, len: u64) -> Vec<u8> {
    let sp = ctx.regs.gpr[RSP];
    let mut states = alloc::vec![0; 2 * len as usize];
    let (bits, closed) = states.split_at_mut(len as usize);
    shadow::read_v(addr, bits);
    for (at, (v, closed)) in (addr..).zip(bits.iter_mut().zip(closed)) {
        if callstack::is_mark(at) {
            *v = 0;
        }
        let is_closed = *v != 0 && !access::addressable(ctx, sp, at) || memory::first_unaddressable(ctx, at, 1).is_some();
        *closed = is_closed.into();
    }
    states
}

fn check(ctx: &ThreadContext, errand: &mut Errand) {
    const NONE: u64 = u64::MAX;
    let (unaddressable, undefined) = memory::first_bad(ctx, errand.addr, errand.len);
    (errand.result, errand.other) = (unaddressable.unwrap_or(NONE), undefined.unwrap_or(NONE));
    if let Some(at) = undefined {
        let mut event = ErrorEvent::new(Kind::User);
        origin::describe(&mut event, at);
        (errand.origin_kind, errand.origin_stack) = (event.origin_kind, event.origin_stack);
    }
}
