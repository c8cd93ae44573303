//! The functions that stand in for the program's, as the C library declares them.
//!
//! Translated code calls them on the runtime's own stack with the program's arguments; `ctx.regs.rip` is the address of the replaced
//! function and `ctx.guest_rsp` the program's stack pointer at its entry, so allocation stacks begin with a frame of its name.
//!
//! Two things are left to the caller, which knows the program: storing ENOMEM in its errno when [`fails_with_errno`] functions return 0,
//! and taking the throwing path when [`throws`] functions return 0.
#![allow(unsafe_code, reason = "two functions write results through the program's pointers")]

use crate::block::{self, Ask};
use crate::settings;
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_abi::context::{ThreadContext, local};
use memcheck_abi::event::{Family, Kind};
use memcheck_abi::layout::in_program;
use memcheck_abi::replace::Func;
use memcheck_rt::{access, context, report, shadow, sys};

const EINVAL: u64 = 22;
const ENOMEM: u64 = 12;
const PAGE: u64 = 4096;
/// What functions without a result return: not 0, which the caller would have to look into.
const NO_RESULT: u64 = 1;
/// Alignment of blocks for which none was asked.
const USUAL: u64 = 16;

/// Address of the function that replaces `func`, `None` if it is not an allocation function.
pub fn entry(func: Func) -> Option<usize> {
    type F1 = extern "C" fn(u64) -> u64;
    type F2 = extern "C" fn(u64, u64) -> u64;
    type F3 = extern "C" fn(u64, u64, u64) -> u64;
    Some(match func {
        Func::malloc => malloc as F1 as usize,
        Func::calloc => calloc as F2 as usize,
        Func::realloc => realloc as F2 as usize,
        Func::reallocarray => reallocarray as F3 as usize,
        Func::free | Func::cfree | Func::free_sized | Func::free_aligned_sized => free as F1 as usize,
        Func::memalign => memalign as F2 as usize,
        Func::aligned_alloc => aligned_alloc as F2 as usize,
        Func::posix_memalign => posix_memalign as F3 as usize,
        Func::valloc => valloc as F1 as usize,
        Func::pvalloc => pvalloc as F1 as usize,
        Func::malloc_usable_size => malloc_usable_size as F1 as usize,
        Func::mallinfo => mallinfo as F1 as usize,
        Func::mallinfo2 => mallinfo2 as F1 as usize,
        Func::mallopt => mallopt as F2 as usize,
        Func::malloc_trim | Func::malloc_stats | Func::malloc_info => nothing as F1 as usize,
        Func::_Znwm | Func::_ZnwmRKSt9nothrow_t => new as F1 as usize,
        Func::_Znam | Func::_ZnamRKSt9nothrow_t => new_array as F1 as usize,
        Func::_ZnwmSt11align_val_t | Func::_ZnwmSt11align_val_tRKSt9nothrow_t => new_aligned as F2 as usize,
        Func::_ZnamSt11align_val_t | Func::_ZnamSt11align_val_tRKSt9nothrow_t => new_array_aligned as F2 as usize,
        Func::_ZdlPv
        | Func::_ZdlPvm
        | Func::_ZdlPvRKSt9nothrow_t
        | Func::_ZdlPvSt11align_val_t
        | Func::_ZdlPvmSt11align_val_t
        | Func::_ZdlPvSt11align_val_tRKSt9nothrow_t => delete as F1 as usize,
        Func::_ZdaPv
        | Func::_ZdaPvm
        | Func::_ZdaPvRKSt9nothrow_t
        | Func::_ZdaPvSt11align_val_t
        | Func::_ZdaPvmSt11align_val_t
        | Func::_ZdaPvSt11align_val_tRKSt9nothrow_t => delete_array as F1 as usize,
        _ => return None,
    })
}

/// Does a result of 0 mean that the program's errno becomes ENOMEM? (realloc and reallocarray: only if the new size is not 0.)
pub const fn fails_with_errno(func: Func) -> bool {
    matches!(
        func,
        Func::malloc
            | Func::calloc
            | Func::realloc
            | Func::reallocarray
            | Func::memalign
            | Func::aligned_alloc
            | Func::valloc
            | Func::pvalloc
    )
}

/// Does a result of 0 mean that `std::bad_alloc` must be thrown?
pub const fn throws(func: Func) -> bool {
    matches!(func, Func::_Znwm | Func::_Znam | Func::_ZnwmSt11align_val_t | Func::_ZnamSt11align_val_t)
}

/// A size with the top bit set can only be a negative number; reported under the name of the argument.
#[inline(always)]
fn is_fishy(ctx: &mut ThreadContext, name: &str, size: u64) -> bool {
    let fishy = (size as i64) < 0;
    if fishy {
        report_fishy(ctx, name, size);
    }
    fishy
}

/// Once: an operator new that fails runs as the library has it, which asks another one or malloc for the same size.
#[cold]
#[inline(never)]
fn report_fishy(ctx: &mut ThreadContext, name: &str, size: u64) {
    let told = core::mem::take(&mut ctx.locals[local::FISHY]);
    if name.starts_with("__builtin") {
        ctx.locals[local::FISHY] = size;
    }
    if told == size {
        return;
    }
    report::raise(Kind::Fishy, ctx.regs.rip, ctx.guest_rsp, |e| {
        e.set_name(name);
        e.args[0] = size;
    });
}

#[inline(always)]
fn plain(name: &str, size: u64, align: u64, family: Family) -> u64 {
    let ctx = context::current();
    if is_fishy(ctx, name, size) {
        return 0;
    }
    block::allocate(ctx, Ask { size, align, family, zero: false, stack: None, copied: 0 })
}

#[inline(always)]
fn give_back(p: u64, family: Family) -> u64 {
    if p != 0 {
        block::release(context::current(), p, family);
    }
    NO_RESULT
}

/// The power of two that an alignment argument stands for; odd ones are rounded up.
fn alignment(asked: u64) -> u64 {
    asked.max(USUAL).checked_next_power_of_two().unwrap_or(1 << 63)
}

pub extern "C" fn malloc(size: u64) -> u64 {
    plain("malloc(size)", size, USUAL, Family::Malloc)
}

pub extern "C" fn calloc(count: u64, size: u64) -> u64 {
    let Some(product) = count.checked_mul(size) else { return 0 };
    let ctx = context::current();
    let fishy = is_fishy(ctx, "calloc(nmemb)", count) || is_fishy(ctx, "calloc(size)", size);
    // Nothing times too much is nothing, and no failure.
    if fishy && product != 0 || (product as i64) < 0 {
        return 0;
    }
    block::allocate(ctx, Ask { size: product, align: USUAL, family: Family::Malloc, zero: true, stack: None, copied: 0 })
}

pub extern "C" fn realloc(p: u64, size: u64) -> u64 {
    if p == 0 {
        // It is malloc, in reports too: their readers and suppressions expect that name.
        return MALLOCS.stand_for(|| malloc(size));
    }
    let ctx = context::current();
    if size == 0 {
        let settings = settings::get();
        if settings.zero_reported {
            report_zero(ctx, p);
        }
        if !settings.zero_keeps {
            give_back(p, Family::Malloc);
            return 0;
        }
    }
    if is_fishy(ctx, "realloc(size)", size) {
        return 0;
    }
    block::resize(ctx, p, size)
}

/// Addresses of functions of one name, the newest last; 0 = none.
struct Known([AtomicU64; 8]);

static MALLOCS: Known = Known::new();
static REALLOCS: Known = Known::new();

impl Known {
    const fn new() -> Known {
        Known([const { AtomicU64::new(0) }; 8])
    }

    fn add(&self, pc: u64) {
        if self.0.iter().any(|known| known.load(Ordering::Relaxed) == pc) {
            return;
        }
        let free = self.0.iter().find(|known| known.load(Ordering::Relaxed) == 0).unwrap_or(&self.0[7]);
        free.store(pc, Ordering::Relaxed);
    }

    /// The one of the object that `pc` belongs to lies next to it.
    fn nearest(&self, pc: u64) -> Option<u64> {
        let known = self.0.iter().map(|known| known.load(Ordering::Relaxed)).filter(|&known| known != 0);
        known.min_by_key(|known| known.abs_diff(pc))
    }

    /// What `call` reports and notes is this function's doing.
    fn stand_for(&self, call: impl FnOnce() -> u64) -> u64 {
        let here = context::current().regs.rip;
        context::current().regs.rip = self.nearest(here).unwrap_or(here);
        let result = call();
        context::current().regs.rip = here;
        result
    }
}

/// There is a function of this name at `pc`.
pub fn add_known(func: Func, pc: u64) {
    match func {
        Func::malloc => MALLOCS.add(pc),
        Func::realloc => REALLOCS.add(pc),
        _ => {}
    }
}

/// Entries that are an operator for single objects and one for arrays in one, see [`block::mismatched`]; 0 = none.
static FOLDED: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

pub fn add_folded(pc: u64) {
    if let Some(free) = FOLDED.iter().find(|known| matches!(known.load(Ordering::Relaxed), 0) || known.load(Ordering::Relaxed) == pc) {
        free.store(pc, Ordering::Relaxed);
    }
}

pub fn is_folded(pc: u64) -> bool {
    pc != 0 && FOLDED.iter().any(|known| known.load(Ordering::Relaxed) == pc)
}

/// Newer C standards leave open what realloc to size 0 does.
#[cold]
fn report_zero(ctx: &ThreadContext, p: u64) {
    report::raise(Kind::ReallocZero, ctx.regs.rip, ctx.guest_rsp, |e| {
        e.addr = p;
        e.has_addr = 1;
    });
}

/// `name` was called with an alignment that it must refuse or that is not portable.
fn check_alignment(name: &str, align: u64, is_good: bool) {
    if is_good || !settings::get().alignments_reported {
        return;
    }
    let ctx = context::current();
    report::raise(Kind::BadAlign, ctx.regs.rip, ctx.guest_rsp, |e| {
        e.set_name(name);
        e.args[0] = align;
    });
}

pub extern "C" fn reallocarray(p: u64, count: u64, size: u64) -> u64 {
    match count.checked_mul(size) {
        // The library's goes on in realloc, and has left when that is seen in stacks.
        Some(bytes) => REALLOCS.stand_for(|| realloc(p, bytes)),
        None => 0,
    }
}

pub extern "C" fn free(p: u64) -> u64 {
    give_back(p, Family::Malloc)
}

pub extern "C" fn aligned_alloc(align: u64, size: u64) -> u64 {
    check_alignment("aligned_alloc", align, align.is_power_of_two());
    plain("memalign(size)", size, alignment(align), Family::Malloc)
}

pub extern "C" fn memalign(align: u64, size: u64) -> u64 {
    check_alignment("memalign", align, align.is_power_of_two());
    plain("memalign(size)", size, alignment(align), Family::Malloc)
}

pub extern "C" fn valloc(size: u64) -> u64 {
    plain("memalign(size)", size, PAGE, Family::Malloc)
}

pub extern "C" fn pvalloc(size: u64) -> u64 {
    plain("memalign(size)", size.checked_next_multiple_of(PAGE).unwrap_or(size), PAGE, Family::Malloc)
}

pub extern "C" fn posix_memalign(out: u64, align: u64, size: u64) -> u64 {
    let is_good = align.is_power_of_two() && align >= 8;
    check_alignment("posix_memalign", align, is_good);
    if !is_good {
        return EINVAL;
    }
    let p = plain("memalign(size)", size, align.max(USUAL), Family::Malloc);
    if p == 0 {
        return ENOMEM;
    }
    store(out, &p.to_ne_bytes());
    0
}

/// Write a result to program memory, which becomes defined; reports what the program may not write, and leaves out what is unmapped.
fn store(to: u64, bytes: &[u8]) {
    let ctx = context::current();
    let len = bytes.len() as u64;
    if let Some(bad) = access::first_unaddressable(ctx, ctx.guest_rsp, to, len) {
        report::raise(Kind::InvalidWrite, ctx.regs.rip, ctx.guest_rsp, |e| {
            e.size = len;
            e.addr = bad;
            e.has_addr = 1;
        });
    } else {
        shadow::fill_v(to, len, shadow::DEFINED);
    }
    let on_stack = to >= ctx.stack_low && to < ctx.stack_high && ctx.stack_high - to >= len;
    if in_program(to, len) && (on_stack || sys::is_mapped(to, len)) {
        // SAFETY: mapped program memory; the program asked for these bytes to be written.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) }
    }
}

pub extern "C" fn malloc_usable_size(p: u64) -> u64 {
    crate::map::live_at(p).map_or(0, |r| r.size())
}

/// `struct mallinfo2`: arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost. All memory is one arena here,
/// and what is not in use in it one free block.
fn usage() -> [u64; 10] {
    let (used, free) = crate::exit::usage();
    [used + free, u64::from(free != 0), 0, 0, 0, 0, 0, used, free, 0]
}

/// Returned through a hidden pointer, as ints.
pub extern "C" fn mallinfo(out: u64) -> u64 {
    store(out, usage().map(|n| (n as u32).to_ne_bytes()).as_flattened());
    out
}

pub extern "C" fn mallinfo2(out: u64) -> u64 {
    store(out, usage().map(u64::to_ne_bytes).as_flattened());
    out
}

pub extern "C" fn mallopt(_: u64, _: u64) -> u64 {
    1
}

pub extern "C" fn nothing(_: u64) -> u64 {
    0
}

pub extern "C" fn new(size: u64) -> u64 {
    plain("__builtin_new(size)", size, USUAL, Family::New)
}

pub extern "C" fn new_array(size: u64) -> u64 {
    plain("__builtin_vec_new(size)", size, USUAL, Family::NewArray)
}

pub extern "C" fn new_aligned(size: u64, align: u64) -> u64 {
    plain("__builtin_new_aligned(size)", size, alignment(align), Family::New)
}

pub extern "C" fn new_array_aligned(size: u64, align: u64) -> u64 {
    plain("__builtin_vec_new_aligned(size)", size, alignment(align), Family::NewArray)
}

pub extern "C" fn delete(p: u64) -> u64 {
    give_back(p, Family::New)
}

pub extern "C" fn delete_array(p: u64) -> u64 {
    give_back(p, Family::NewArray)
}
