//! The replacement functions: their table, indexed by `abi::replace::Func` and read by `asm::replace`; what happens when one declines; and
//! calls of them with undefined arguments.
#![allow(unsafe_code, reason = "a static table written once at start-up")]

use crate::renewal::for_more;
use crate::{asm, dirty, inner, newstack, origin};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use memcheck_abi::context::{R8, R9, RCX, RDI, RDX, RSI, RSP, ThreadContext, local};
use memcheck_abi::event::Kind;
use memcheck_abi::layout::PROGRAM_END;
use memcheck_abi::replace::{ALL, Func};
use memcheck_rt::{access, context, report, shadow};
use memcheck_semantics::ShadowRegs;
use memcheck_translate::slot;

#[repr(transparent)]
pub struct Table([AtomicU64; ALL.len() + 1]);

/// One more than there are functions: the last is the way back from program code that the runtime called.
pub static TABLE: Table = Table([const { AtomicU64::new(0) }; ALL.len() + 1]);

/// Functions for which `null_result` has something to do. Comparisons that find nothing different return 0 all the time.
pub static NULL_MATTERS: [AtomicU8; ALL.len() + 1] = [const { AtomicU8::new(0) }; ALL.len() + 1];

/// Take the functions of the heap and of the string crate.
pub fn init() {
    for &func in ALL {
        if let Some(entry) = memcheck_heap::entry(func) {
            let traced = crate::startup::config().trace_malloc != 0 && func.is_traced();
            set(func, if traced { crate::traced::stand_in(func, entry as u64) } else { entry as u64 });
        } else if let Some(entry) = memcheck_replace::entry(func) {
            set(func, entry);
        } else if func == Func::makecontext {
            set(func, newstack::made_for_context as extern "C" fn(u64, u64, u64) -> u64 as usize as u64);
        }
    }
    TABLE.0[inner::RETURN].store(asm::program_returned as extern "C" fn() as usize as u64, Ordering::Relaxed);
}

fn set(func: Func, entry: u64) {
    let matters = !func.is_string() || memcheck_replace::FORTIFIED.contains(&func);
    NULL_MATTERS[func as usize].store(matters.into(), Ordering::Relaxed);
    TABLE.0[func as usize].store(entry, Ordering::Relaxed);
}

/// Is there an implementation?
pub fn has(func: u32) -> bool {
    TABLE.0.get(func as usize).is_some_and(|e| e.load(Ordering::Relaxed) != 0)
}

const ENOMEM: i32 = 12;

/// A replaced function of `NULL_MATTERS` returned 0. Host address of the program's own code if that must run now (with the arguments as they were,
/// ctx.regs), else 0.
pub extern "C" fn null_result() -> u64 {
    let ctx = context::current();
    let Some(func) = Func::from_number(ctx.scratch[slot::ARGUMENT as usize] as u32) else { return 0 };
    let original = |pc: u64| for_more().find_original(pc).unwrap_or(0);
    if memcheck_replace::FORTIFIED.contains(&func) && ctx.regs.gpr[RDI] != 0 {
        // No room. The library's own function is behind a resolver that was never asked, but all of them end in the same one.
        return match inner::chk_fail() {
            0 => original(ctx.regs.rip),
            end => crate::dispatch::body_of(end),
        };
    }
    if func.is_watched() {
        return original(ctx.regs.rip);
    }
    if !memcheck_heap::throws(func) {
        ctx.locals[local::FISHY] = 0;
    }
    // Not the originals: these would set up an allocator that must not come to life beside ours.
    if memcheck_heap::fails_with_errno(func) {
        let [_, size, count] = [RDI, RSI, RDX].map(|r| ctx.regs.gpr[r]);
        // Of size 0, these have freed a block.
        let freed = func == Func::realloc && size == 0 || func == Func::reallocarray && (size == 0 || count == 0);
        if !freed {
            inner::set_errno(ctx, ENOMEM);
        }
        return 0;
    }
    // The program's own function throws.
    if memcheck_heap::throws(func) { original(ctx.regs.rip) } else { 0 }
}

/// Registers of the integer arguments.
pub const ARGUMENTS: [usize; 6] = [RDI, RSI, RDX, RCX, R8, R9];

/// Letters as in `memcheck_replace::Entry::arguments`, for the functions of the heap; `z` is a pointer or size of which they only ask whether
/// it is 0. Alignments and factors are looked at as a whole.
fn arguments(func: Func) -> &'static str {
    match func {
        Func::mallinfo | Func::mallinfo2 | Func::malloc_stats | Func::malloc_info => "",
        Func::calloc => "nn",
        Func::realloc => "zz",
        Func::reallocarray => "znn",
        Func::memalign | Func::aligned_alloc => "nz",
        Func::posix_memalign => "wnz",
        Func::_ZnwmSt11align_val_t | Func::_ZnwmSt11align_val_tRKSt9nothrow_t => "zn",
        Func::_ZnamSt11align_val_t | Func::_ZnamSt11align_val_tRKSt9nothrow_t => "zn",
        f if f.is_allocator() => "z",
        f => memcheck_replace::find(f).map_or("", |e| e.arguments),
    }
}

/// In the mask of dirty registers, where no register is: the memset that is called has an undefined value.
const UNFINISHED: u64 = 1 << 63;

/// A thread with undefined registers calls `func` at `target`. Undefined arguments are reported and count as defined then; only the registers
/// that the callee saves, and the value of a memset, stay as they are.
pub fn enter_dirty(ctx: &mut ThreadContext, regs: &mut ShadowRegs, func: u32, target: u64) {
    let func = Func::from_number(func).unwrap_or(Func::None);
    let mut unfinished = 0;
    dirty::settle(ctx, regs, ARGUMENTS.iter().fold(0, |all, &r| all | 1 << r));
    for (letter, register) in arguments(func).bytes().zip(ARGUMENTS) {
        let v = regs.gpr(register);
        match letter {
            _ if v == 0 || matches!(letter, b'c' | b'v') && v as u32 == 0 => {}
            b'z' if ctx.regs.gpr[register] & !v != 0 => {}
            b'v' => {
                ctx.locals[local::MEMSET] = u64::from(func == Func::wmemset);
                ctx.locals[local::MEMSET + 1..][..4].copy_from_slice(&[
                    ctx.regs.gpr[RDI],
                    ctx.regs.gpr[RDX],
                    v,
                    u64::from(regs.origin[register]),
                ]);
                unfinished = UNFINISHED;
            }
            b'r' | b'w' | b'a' | b'l' => complain(ctx, target, Kind::Value, 8, regs.origin[register]),
            _ => complain(ctx, target, Kind::Cond, 0, regs.origin[register]),
        }
    }
    regs.dirty = regs.dirty & dirty::REPLACED_KEEPS | unfinished;
}

fn complain(ctx: &ThreadContext, pc: u64, kind: Kind, size: u64, tag: u32) {
    report::raise(kind, pc, ctx.regs.gpr[RSP], |e| {
        e.size = size;
        origin::fill(e, tag);
    });
}

/// A thread with undefined registers goes on. If a memset with an undefined value has just returned: so is what it wrote.
pub fn leave_dirty(ctx: &ThreadContext, regs: &mut ShadowRegs) {
    if regs.dirty & UNFINISHED == 0 {
        return;
    }
    regs.dirty &= !UNFINISHED;
    let [wide, start, count, v, tag] = core::array::from_fn(|i| ctx.locals[local::MEMSET + i]);
    let (unit, len) = if wide != 0 { (4, count.saturating_mul(4)) } else { (1, count) };
    let bytes = (v as u32).to_le_bytes();
    for i in 0..len.min(PROGRAM_END) {
        let at = start.wrapping_add(i);
        if access::addressable(ctx, ctx.regs.gpr[RSP], at) {
            let v = bytes[(i % unit) as usize];
            shadow::set_v(at, v);
            origin::store(ctx, at, &[v], tag as u32);
        }
    }
}
