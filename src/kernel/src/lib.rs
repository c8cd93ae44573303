//! System calls of the traced program: what each reads and writes, the address-space map, and the few calls that must not
//! reach the kernel as they are.
//!
//! The runtime's glue intercepts every `syscall` instruction and asks here twice:
//!
//! ```text
//! program registers -> ctx.regs -> before(ctx) -> Action
//!                                     Native        the glue executes `syscall` with the program's registers
//!                                     Done(x)       already done here, x is the result
//!                                     Special(..)   the glue's own business (threads, exec, exit, signals)
//! result ----------> after(ctx, result)             for everything that was really executed
//! ```
//!
//! `before` checks what the kernel will read (addressable and defined) and write (addressable); `after` marks what the kernel wrote
//! as defined. Knowledge is rows ([`row`], [`table`]), one for every number; calls that change mappings are executed by
//! [`space`], which also chooses addresses. Checks only report: the call always runs.
//!
//! Facts: the kernel's own headers and manual pages for sizes and directions; parameter names are those that Valgrind 3.19 prints,
//! because suppression files contain them.
//!
//! Deliberately absent: the kernel's behaviour. A wrong row gives a wrong report, never a wrong program.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod action;
pub mod call;
pub mod check;
pub mod descriptors;
mod filter;
pub mod hooks;
pub mod limits;
mod needed;
pub mod proc_files;
pub mod row;
pub mod signals;
pub mod sigtrap;
pub mod space;
pub mod table;
mod virtualise;
mod warn;

#[cfg(test)]
mod tests;

pub use action::{Action, CloneArgs, Special};
pub use hooks::{Hooks, install};
pub use virtualise::personality;

use call::{Call, Phase};
use memcheck_abi::config::Config;
use memcheck_abi::context::{RAX, RSP, ThreadContext, local};
use memcheck_rt::sys;

/// Take the options and the mappings of the exec stop. Once, before the program's first instruction.
pub fn init(config: &Config) {
    call::set_undef(config.undef_value_errors != 0);
    virtualise::set_personality(config.personality);
    virtualise::set_parent(config.tracer, config.parent);
    if config.track_fds != 0 {
        descriptors::init();
    }
    space::init(config);
}

/// Around a fork: no other thread may be editing the address-space map while the process is copied, or the child would inherit a
/// map in the middle of a change. Call before the fork and before taking locks of other crates (this is the outermost one);
/// afterwards call [`after_fork`] in the parent and in the child.
pub fn before_fork() {
    space::hold();
}

/// See [`before_fork`].
pub fn after_fork() {
    space::release();
}

const NO_ROW: u64 = u64::MAX;

/// First half: check the arguments, decide how the call is executed. `ctx.regs` holds the program's registers, rip is the address
/// after the `syscall` instruction.
#[inline]
pub fn before(ctx: &mut ThreadContext) -> Action {
    let number = ctx.regs.gpr[RAX];
    let Some(row) = table::find(number) else {
        ctx.locals[local::SYSCALL] = NO_ROW;
        return Action::Native;
    };
    ctx.locals[local::SYSCALL] = number;
    let dirty = (hooks::get().register_v)(ctx);
    let is_checked = ctx.locals[local::INTERRUPTED] != 0 && is_made_again(ctx);
    let mut call = Call::new(ctx, Phase::Check, 0);
    call.is_checked = is_checked;
    if let Some(v) = dirty.filter(|_| !is_checked) {
        row::check_registers(&mut call, row, &v);
    }
    row::run(&mut call, row.rules);
    match row.act {
        None => Action::Native,
        Some(act) => act(&mut call),
    }
}

/// Between `before` and the call a signal came. The call is made again, and will find its checks made.
pub fn interrupted(ctx: &mut ThreadContext) {
    ctx.locals[local::INTERRUPTED] = identity(ctx);
}

/// Handlers make calls of their own meanwhile.
#[cold]
fn is_made_again(ctx: &mut ThreadContext) -> bool {
    let again = ctx.locals[local::INTERRUPTED] == identity(ctx);
    if again {
        ctx.locals[local::INTERRUPTED] = 0;
    }
    again
}

/// Of a call that is about to be made: who makes it, from where, with what. Never 0.
fn identity(ctx: &ThreadContext) -> u64 {
    let g = &ctx.regs.gpr;
    let words = [ctx.regs.rip, g[RSP], g[RAX]].into_iter().chain(call::ARGUMENTS.map(|register| g[register]));
    words.fold(1, |all: u64, word| (all ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)) | 1
}

/// Second half, after the kernel answered: mark what it wrote. `ctx.regs` still holds the arguments (rax is not looked at).
#[inline]
pub fn after(ctx: &mut ThreadContext, result: i64) {
    let number = ctx.locals[local::SYSCALL] & call::NUMBER;
    let Some(row) = table::find(number) else { return };
    let phase = if sys::is_error(result) { Phase::Failed } else { Phase::Mark };
    let mut call = Call::new(ctx, phase, result);
    row::run(&mut call, row.rules);
    descriptors::note(&mut call, number);
    if phase == Phase::Failed && !PASSING.contains(&result) && (number != IOCTL || result == EFAULT) {
        find_out_why(&mut call, number, row);
    }
}

/// Memory that is not mapped at all has no shadow that tells: it is only looked for when the call failed.
#[cold]
fn find_out_why(call: &mut Call, number: u64, row: &row::Row) {
    warn::descriptor(call, number);
    call.phase = Phase::Fault;
    row::run(call, row.rules);
    if call.result == EFAULT && !call.has_reported() {
        // Nothing else explains it.
        needed::look_for_null(call, row);
    }
}

/// Errors that come and go, whatever the arguments are.
const PASSING: [i64; 3] = [EINTR, EAGAIN, ENOSYS];

/// Drivers may take a number where the request says that there is a pointer.
const IOCTL: u64 = 16;

/// Errors as the kernel returns them.
pub(crate) const EPERM: i64 = -1;
pub(crate) const EINTR: i64 = -4;
pub(crate) const EBADF: i64 = -9;
pub(crate) const EAGAIN: i64 = -11;
pub(crate) const ENOMEM: i64 = -12;
pub(crate) const E2BIG: i64 = -7;
pub(crate) const EFAULT: i64 = -14;
pub(crate) const EEXIST: i64 = -17;
pub(crate) const EINVAL: i64 = -22;
pub(crate) const ENOSYS: i64 = -38;
