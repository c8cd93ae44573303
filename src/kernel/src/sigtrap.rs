//! SIGTRAP belongs to the tool: the runtime talks to the tracer by a breakpoint.
//!
//! The kernel lets nobody block or ignore a breakpoint: it takes the signal out of the mask and sets its action back to the default, and a
//! handler that the program has for it would be lost. So it is never really blocked or ignored, and the program is told what it
//! believes:
//!
//! | the program | the kernel gets | remembered |
//! |---|---|---|
//! | blocks it | a mask without it | per thread |
//! | blocks it while another handler runs | a mask without it | per signal |
//! | ignores it | the default; the tracer drops it instead | for the process |
//! | handles it | SA_NODEFER | whether it asked for that |
//!
//! Absent on purpose: masks that only hold during a call (sigsuspend, ppoll ...) or a handler, and keeping the signal back while it is blocked.
#![allow(unsafe_code, reason = "the program's own calls, with other arguments")]

use crate::action::{Action, Special};
use crate::call::{Call, Phase};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memcheck_abi::context::{ThreadContext, local};
use memcheck_rt::sys;

pub const SIGTRAP: u64 = 5;
/// Its bit in a mask.
const BIT: u64 = 1 << (SIGTRAP - 1);
/// Bytes of the kernel's signal set.
const SET: u64 = 8;

const RT_SIGACTION: u64 = 13;
const RT_SIGPROCMASK: u64 = 14;
const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
const SIG_SETMASK: u64 = 2;
const SIG_DFL: u64 = 0;
/// Handler "ignore".
pub const SIG_IGN: u64 = 1;
const SA_NODEFER: u64 = 0x4000_0000;

/// Fields of the kernel's struct sigaction, 8 bytes each.
const HANDLER: usize = 0;
const FLAGS: usize = 1;
const MASK: usize = 3;
type SigAction = [u64; 4];

/// Signals during whose handlers the program wants it blocked.
static MASKED: AtomicU64 = AtomicU64::new(0);
static IGNORED: AtomicBool = AtomicBool::new(false);
static NODEFER: AtomicBool = AtomicBool::new(false);

fn is_blocked(ctx: &ThreadContext) -> bool {
    ctx.locals[local::TRAP_BLOCKED] != 0
}

fn set_blocked(ctx: &mut ThreadContext, blocked: bool) {
    ctx.locals[local::TRAP_BLOCKED] = blocked.into();
}

/// The mask of a thread changes. Nearly always without this signal.
pub(crate) fn sigprocmask(c: &mut Call) -> Action {
    let [how, set, old, size, ..] = c.args;
    let blocked = is_blocked(c.ctx);
    // An address that cannot be read is the kernel's to refuse.
    let Some(wanted) = (if set == 0 { Some(0) } else { c.peek::<u64>(set) }) else { return Action::Native };
    if size != SET || how > SIG_SETMASK || !blocked && wanted & BIT == 0 {
        return Action::Native;
    }
    let given = wanted & !BIT;
    let set_for_kernel = if set == 0 { 0 } else { core::ptr::from_ref(&given) as u64 };
    // SAFETY: the program's call; the set is ours.
    let result = unsafe { sys::syscall6(RT_SIGPROCMASK, how, set_for_kernel, old, SET, 0, 0) };
    if result != 0 {
        return Action::Done(result);
    }
    if set != 0 {
        let has = wanted & BIT != 0;
        let now = match how {
            SIG_BLOCK => blocked || has,
            SIG_UNBLOCK => blocked && !has,
            _ => has,
        };
        set_blocked(c.ctx, now);
    }
    c.mark(old, SET);
    if old != 0 && blocked {
        let value = c.peek_or_zero::<u64>(old);
        c.poke(old, value | BIT);
    }
    Action::Done(0)
}

pub(crate) fn sigaction(c: &mut Call) -> Action {
    let [signal, new, ..] = c.args;
    let signal = signal as u32;
    if u64::from(signal) == SIGTRAP {
        return Action::Special(Special::RtSigaction { signal, new, old: c.args[2] });
    }
    let masks = new != 0 && c.peek_or_zero::<u64>(new.wrapping_add(8 * MASK as u64)) & BIT != 0;
    let masked = MASKED.load(Relaxed) & mask_bit(signal) != 0;
    if masks || masked { Action::Done(change(c)) } else { Action::Native }
}

/// Execute rt_sigaction for the glue: the signal is SIGTRAP.
pub fn action(ctx: &mut ThreadContext) -> i64 {
    change(&mut Call::new(ctx, Phase::Mark, 0))
}

/// Does the program ignore SIGTRAP?
pub fn is_ignored() -> bool {
    IGNORED.load(Relaxed)
}

fn mask_bit(signal: u32) -> u64 {
    1u64.checked_shl(signal.wrapping_sub(1)).unwrap_or(0)
}

fn change(c: &mut Call) -> i64 {
    let [number, new, old, size, ..] = c.args;
    let signal = number as u32;
    let is_trap = u64::from(signal) == SIGTRAP;
    let wanted = if new == 0 { None } else { peek(c, new) };
    let mut given = wanted.unwrap_or_default();
    given[MASK] &= !BIT;
    if is_trap {
        given[FLAGS] |= SA_NODEFER;
        if given[HANDLER] == SIG_IGN {
            given[HANDLER] = SIG_DFL;
        }
    }
    // An address that cannot be read is the kernel's to refuse.
    let new_for_kernel = if wanted.is_some() { given.as_ptr() as u64 } else { new };
    // SAFETY: the program's call; the structure is ours.
    let result = unsafe { sys::syscall6(RT_SIGACTION, number, new_for_kernel, old, size, 0, 0) };
    if result != 0 {
        return result;
    }
    c.mark(old, size_of::<SigAction>() as u64);
    if old != 0 {
        restore(c, old, signal);
    }
    if let Some(action) = wanted {
        remember(signal, &action);
    }
    0
}

fn peek(c: &Call, addr: u64) -> Option<SigAction> {
    let [handler, flags] = c.peek::<[u64; 2]>(addr)?;
    let [restorer, mask] = c.peek::<[u64; 2]>(addr.wrapping_add(16))?;
    Some([handler, flags, restorer, mask])
}

/// The old action as the program set it.
fn restore(c: &mut Call, old: u64, signal: u32) {
    let Some(mut action) = peek(c, old) else { return };
    if MASKED.load(Relaxed) & mask_bit(signal) != 0 {
        action[MASK] |= BIT;
    }
    if u64::from(signal) == SIGTRAP {
        if IGNORED.load(Relaxed) {
            action[HANDLER] = SIG_IGN;
        }
        if !NODEFER.load(Relaxed) {
            action[FLAGS] &= !SA_NODEFER;
        }
    }
    for (i, word) in action.into_iter().enumerate() {
        c.poke(old.wrapping_add(8 * i as u64), word);
    }
}

fn remember(signal: u32, action: &SigAction) {
    if action[MASK] & BIT != 0 {
        MASKED.fetch_or(mask_bit(signal), Relaxed);
    } else {
        MASKED.fetch_and(!mask_bit(signal), Relaxed);
    }
    if u64::from(signal) == SIGTRAP {
        IGNORED.store(action[HANDLER] == SIG_IGN, Relaxed);
        NODEFER.store(action[FLAGS] & SA_NODEFER != 0, Relaxed);
    }
}

fn block(how: u64, old: &mut u64) {
    let set = BIT;
    // SAFETY: both sets are ours.
    unsafe { sys::syscall6(RT_SIGPROCMASK, how, core::ptr::from_ref(&set) as u64, core::ptr::from_mut(old) as u64, SET, 0, 0) };
}

fn set_handler(handler: u64) {
    let action: SigAction = [handler, 0, 0, 0];
    // SAFETY: "default" or "ignore", which run no code.
    unsafe { sys::syscall6(RT_SIGACTION, SIGTRAP, action.as_ptr() as u64, 0, SET, 0, 0) };
}

/// What the program inherited: take it over before the first breakpoint.
pub fn inherit(ctx: &mut ThreadContext) {
    let mut old = 0;
    block(SIG_UNBLOCK, &mut old);
    set_blocked(ctx, old & BIT != 0);
    let mut action: SigAction = [0; 4];
    // SAFETY: asks only.
    unsafe { sys::syscall6(RT_SIGACTION, SIGTRAP, 0, action.as_mut_ptr() as u64, SET, 0, 0) };
    if action[HANDLER] == SIG_IGN {
        IGNORED.store(true, Relaxed);
        set_handler(SIG_DFL);
    }
}

/// The next program is not followed and inherits what the program believes. No breakpoint from here on.
pub fn reveal(ctx: &ThreadContext) {
    if is_blocked(ctx) {
        block(SIG_BLOCK, &mut 0);
    }
    if is_ignored() {
        set_handler(SIG_IGN);
    }
}

/// The opposite of [`reveal`].
pub fn hide(ctx: &ThreadContext) {
    if is_blocked(ctx) {
        block(SIG_UNBLOCK, &mut 0);
    }
    if is_ignored() {
        set_handler(SIG_DFL);
    }
}
