//! One call of a replaced function: what it has reported so far, and the judgement of bytes whose shadow is not zero.
//!
//! A call reports every access to unaddressable memory that a loop over the units of its data would make (searches for more than one
//! character: the first read), at most one use of undefined bytes and one overlap. All of this is off the fast path: the kernels only
//! ask whether V is zero.
#![allow(unsafe_code, reason = "a hook is kept as a function pointer in an atomic")]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use memcheck_abi::config::Config;
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::{ErrorEvent, Kind};
use memcheck_abi::replace::place;
use memcheck_rt::{access, context, report, shadow};

static UNDEF_ERRORS: AtomicBool = AtomicBool::new(true);
static ORIGINS: AtomicBool = AtomicBool::new(false);
static ORIGIN_DESCRIBE: AtomicUsize = AtomicUsize::new(0);
static ORIGIN_OF: AtomicUsize = AtomicUsize::new(0);
static ORIGINS_MOVED: AtomicUsize = AtomicUsize::new(0);

/// Fills the origin fields of an event about the undefined byte at an address.
pub type DescribeOrigin = fn(&mut ErrorEvent, u64);
/// The origin word for the undefined byte at an address whose own word is 0: the block or frame it lies in.
pub type OriginOf = fn(u64) -> u32;
/// Origin words were written for a range (address, length).
pub type OriginsMoved = fn(u64, u64);

/// Take the options this crate knows. Before the program runs.
pub fn init(config: &Config) {
    UNDEF_ERRORS.store(config.undef_value_errors != 0, Ordering::Relaxed);
    ORIGINS.store(config.track_origins != 0, Ordering::Relaxed);
    crate::vector::detect(true);
}

/// Who knows about origins; called only when they are tracked.
pub fn set_origin_hooks(describe: DescribeOrigin, of: OriginOf, moved: OriginsMoved) {
    ORIGIN_DESCRIBE.store(describe as usize, Ordering::Release);
    ORIGIN_OF.store(of as usize, Ordering::Release);
    ORIGINS_MOVED.store(moved as usize, Ordering::Release);
}

/// Tell that origin words were written for a range.
pub fn origins_moved(addr: u64, len: u64) {
    let hook = ORIGINS_MOVED.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_origin_hooks` stores here, and it stores an `OriginsMoved`.
        let hook: OriginsMoved = unsafe { core::mem::transmute::<usize, OriginsMoved>(hook) };
        hook(addr, len);
    }
}

/// The origin word for undefined bytes that have not moved yet; 0 without a hook.
pub fn origin_of(addr: u64) -> u32 {
    let hook = ORIGIN_OF.load(Ordering::Acquire);
    if hook == 0 {
        return 0;
    }
    // SAFETY: only `set_origin_hooks` stores here, and it stores an `OriginOf`.
    let hook: OriginOf = unsafe { core::mem::transmute::<usize, OriginOf>(hook) };
    hook(addr)
}

/// Does undefined memory carry origin words?
#[inline]
pub fn tracks_origins() -> bool {
    ORIGINS.load(Ordering::Relaxed)
}

/// What one call reports.
#[derive(Default)]
pub struct Call {
    /// Only the first invalid read counts: bytes are looked at more than once.
    once: bool,
    /// What is still read has been judged.
    judged: bool,
    cond: bool,
    /// The second operand of a comparison is being read: another instruction of the function, and so another error.
    pub second: bool,
}

impl Call {
    #[inline(always)]
    pub fn new() -> Self {
        Call::default()
    }

    /// A call that reads bytes more than once, in no simple order.
    #[inline(always)]
    pub fn once() -> Self {
        Call { once: true, ..Call::default() }
    }

    /// What the call reads from now on it has read before.
    #[inline(always)]
    pub fn reads_again(&mut self) {
        self.judged = true;
    }

    /// Unaddressable memory at `addr` was read by an access of `size` bytes.
    #[cold]
    pub fn bad_read(&mut self, addr: u64, size: u64) {
        if !self.judged {
            self.judged = self.once;
            bad_access(Kind::InvalidRead, addr, size, if self.second { place::SECOND_OPERAND } else { place::FIRST_OPERAND });
        }
    }

    /// Unaddressable memory at `addr` was written by an access of `size` bytes.
    #[cold]
    pub fn bad_write(&mut self, addr: u64, size: u64) {
        bad_access(Kind::InvalidWrite, addr, size, place::WRITE);
    }

    /// The result depends on the undefined byte at `addr`.
    #[cold]
    pub fn undefined(&mut self, addr: u64) {
        if core::mem::replace(&mut self.cond, true) || !UNDEF_ERRORS.load(Ordering::Relaxed) {
            return;
        }
        raise(Kind::Cond, place::FIRST_OPERAND, |e| {
            let hook = ORIGIN_DESCRIBE.load(Ordering::Acquire);
            if hook != 0 && tracks_origins() {
                // SAFETY: only `set_origin_hooks` stores here, and it stores a `DescribeOrigin`.
                let hook: DescribeOrigin = unsafe { core::mem::transmute::<usize, DescribeOrigin>(hook) };
                hook(e, addr);
            }
        });
    }

    /// The undefined bits of the `size` (at most 8) bytes at `addr`, little endian. Unaddressable bytes are reported as an invalid
    /// read of the whole unit and count as defined.
    #[cold]
    #[inline(never)]
    pub fn judge(&mut self, addr: u64, size: u64) -> u64 {
        let (ctx, sp) = here();
        let (mut undefined, mut bad) = (0, false);
        for i in 0..size {
            let v = shadow::v(addr + i);
            if v == 0 {
                continue;
            }
            if access::addressable(ctx, sp, addr + i) {
                undefined |= u64::from(v) << (8 * i);
            } else {
                bad = true;
            }
        }
        if bad {
            self.bad_read(addr, size);
        }
        undefined
    }
}

/// Source and destination overlap. `len` is printed if given.
#[cold]
#[inline(never)]
pub fn overlap(name: &str, dst: u64, src: u64, len: Option<u64>) {
    raise(Kind::Overlap, place::OVERLAP, |e| {
        e.args = [dst, src, len.unwrap_or(0), 0];
        e.flag = u32::from(len.is_some());
        e.set_name(name);
    });
}

/// The current thread and the program's stack pointer at the entry of the replaced function.
#[inline]
pub fn here() -> (&'static ThreadContext, u64) {
    let ctx = context::current();
    (ctx, ctx.guest_rsp)
}

fn bad_access(kind: Kind, addr: u64, size: u64, at: u64) {
    raise(kind, at, |e| {
        e.size = size;
        e.addr = addr;
        e.has_addr = 1;
    });
}

fn raise(kind: Kind, at: u64, fill: impl FnOnce(&mut ErrorEvent)) {
    let (ctx, sp) = here();
    report::raise(kind, ctx.regs.rip + at, sp, fill);
}
