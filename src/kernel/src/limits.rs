//! RLIMIT_AS and RLIMIT_DATA, which the program may set and read but which never reach the kernel.
//!
//! The tool reserves terabytes of address space inside the process; a real limit would refuse its next mapping, and with it the
//! program's next malloc. So the two limits are remembered here; the limit of the address space is kept by those who hand out memory
//! (`rt::limit`), the other one by nobody. All other limits are the kernel's business.
#![allow(unsafe_code, reason = "asks for the process id")]

use crate::action::Action;
use crate::call::Call;
use crate::{EFAULT, EINVAL, EPERM};
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_rt::sys;

const RLIMIT_DATA: u64 = 2;
const RLIMIT_AS: u64 = 9;

/// A limit the program set; `UNTOUCHED` in `soft` = what the kernel says.
struct Limit {
    soft: AtomicU64,
    hard: AtomicU64,
}

/// No limit that anybody sets: infinity is all ones.
const UNTOUCHED: u64 = u64::MAX - 1;

impl Limit {
    const fn new() -> Self {
        Limit { soft: AtomicU64::new(UNTOUCHED), hard: AtomicU64::new(u64::MAX) }
    }

    fn get(&self) -> Option<[u64; 2]> {
        let soft = self.soft.load(Ordering::Acquire);
        (soft != UNTOUCHED).then(|| [soft, self.hard.load(Ordering::Relaxed)])
    }

    /// The kernel's rules: soft at most hard, and hard only ever falls.
    fn set(&self, [soft, hard]: [u64; 2]) -> i64 {
        if soft > hard {
            return EINVAL;
        }
        if hard > self.hard.load(Ordering::Relaxed) {
            return EPERM;
        }
        self.hard.store(hard, Ordering::Relaxed);
        self.soft.store(soft, Ordering::Release);
        0
    }
}

static DATA: Limit = Limit::new();
static ADDRESS_SPACE: Limit = Limit::new();

fn limit(resource: u64) -> Option<&'static Limit> {
    match resource & 0xffff_ffff {
        RLIMIT_DATA => Some(&DATA),
        RLIMIT_AS => Some(&ADDRESS_SPACE),
        _ => None,
    }
}

/// The limits that the program set for itself, (resource, soft, hard): an exec'ed program that is not followed must get them.
pub fn pending() -> impl Iterator<Item = (u64, u64, u64)> {
    [RLIMIT_DATA, RLIMIT_AS].into_iter().filter_map(|r| limit(r)?.get().map(|[soft, hard]| (r, soft, hard)))
}

pub(crate) fn getrlimit(c: &mut Call) -> Action {
    exchange(c, c.args[0], 0, c.args[1])
}

pub(crate) fn setrlimit(c: &mut Call) -> Action {
    exchange(c, c.args[0], c.args[1], 0)
}

pub(crate) fn prlimit(c: &mut Call) -> Action {
    let [pid, resource, new, old, ..] = c.args;
    if pid as u32 != 0 && pid as u32 != own_pid() { Action::Native } else { exchange(c, resource, new, old) }
}

pub(crate) fn own_pid() -> u32 {
    // SAFETY: asks only.
    unsafe { sys::syscall3(sys::nr::GETPID, 0, 0, 0) as u32 }
}

fn exchange(c: &mut Call, resource: u64, new: u64, old: u64) -> Action {
    let Some(limit) = limit(resource) else { return Action::Native };
    let before = limit.get();
    if new == 0 && before.is_none() {
        return Action::Native;
    }
    if new != 0 {
        let Some(wanted) = c.peek::<[u64; 2]>(new) else { return Action::Done(EFAULT) };
        let result = limit.set(wanted);
        if result != 0 {
            return Action::Done(result);
        }
        if core::ptr::eq(limit, &ADDRESS_SPACE) {
            memcheck_rt::limit::set(wanted[0]);
            crate::space::account();
        }
    }
    if old != 0 {
        let [soft, hard] = before.unwrap_or([u64::MAX, u64::MAX]);
        if !c.poke(old, soft) || !c.poke(old.wrapping_add(8), hard) {
            return Action::Done(EFAULT);
        }
    }
    Action::Done(0)
}
