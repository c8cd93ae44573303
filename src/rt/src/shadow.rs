//! V and A shadow: set, copy and search ranges.
//!
//! V: one byte per program byte at `addr + V_DISTANCE`. A set bit is an undefined bit; 0 = addressable and defined.
//! A: one bit per program byte, 1 = not addressable; only meaningful where V != 0 (heap, red zones, client-marked memory).
//! Memory never touched has V = 0 and A = 0: defined and addressable, which is right for file mappings, bss and fresh pages.
//!
//! Ranges must lie in the program's space (`layout::in_program`); the functions clip silently what does not, so that a wild
//! length can not make the runtime fault.
#![allow(unsafe_code, reason = "shadow memory is reached by address arithmetic")]

use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memcheck_abi::layout::{A_BASE, HEAP_END, HEAP_START, ORIGIN_DISTANCE, ORIGIN_MAP, ORIGIN_PAGES, PROGRAM_END, V_DISTANCE};

pub const DEFINED: u8 = 0;
pub const UNDEFINED: u8 = 0xff;

/// Ranges at least this long are cleared by giving the pages back.
const DISCARD_FROM: u64 = 1 << 20;

/// Some shadow pages of the heap read as FF when they are discarded (`heap::sheet`).
static SHEETS: AtomicBool = AtomicBool::new(false);

/// Those of the main thread's stack, if they do: of addresses from the first to the second.
static STACK_SHEET: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// From now on zeros need fresh pages.
pub fn expect_sheets() {
    SHEETS.store(true, Relaxed);
}

/// The same for this range alone.
pub fn expect_stack_sheet(start: u64, end: u64) {
    STACK_SHEET[0].store(start, Relaxed);
    STACK_SHEET[1].store(end, Relaxed);
}

/// The lowest address of the main thread's stack whose V was FF from the start, if `sp` is on that stack.
pub fn stack_sheet_below(sp: u64) -> Option<u64> {
    let [start, end] = [0, 1].map(|i| STACK_SHEET[i].load(Relaxed));
    (start..end).contains(&sp).then_some(start)
}

fn is_stack_sheet(addr: u64, len: u64) -> bool {
    addr < STACK_SHEET[1].load(Relaxed) && addr.saturating_add(len) > STACK_SHEET[0].load(Relaxed)
}

fn clip(addr: u64, len: u64) -> u64 {
    if addr >= PROGRAM_END { 0 } else { len.min(PROGRAM_END - addr) }
}

fn v_ptr(addr: u64) -> *mut u8 {
    (addr.wrapping_add(V_DISTANCE)) as *mut u8
}

/// V byte of one address.
#[inline]
pub fn v(addr: u64) -> u8 {
    if addr >= PROGRAM_END {
        return UNDEFINED;
    }
    // SAFETY: the whole V range is mapped.
    unsafe { *v_ptr(addr) }
}

#[inline]
pub fn set_v(addr: u64, value: u8) {
    if addr < PROGRAM_END {
        // SAFETY: the whole V range is mapped.
        unsafe { *v_ptr(addr) = value }
    }
}

/// Set every V byte of a range to `value`.
#[inline]
pub fn fill_v(addr: u64, len: u64, value: u8) {
    let len = clip(addr, len);
    if value == 0 && len >= DISCARD_FROM {
        // SAFETY: inside the V range, clipped.
        return unsafe { zero_large(v_ptr(addr) as u64, len) };
    }
    // SAFETY: inside the V range, clipped.
    unsafe { core::ptr::write_bytes(v_ptr(addr), value, len as usize) }
}

/// Copy V bytes from `from` to `to`; the ranges may overlap.
#[inline]
pub fn copy_v(to: u64, from: u64, len: u64) {
    let len = clip(to, clip(from, len));
    // SAFETY: both inside the V range, clipped.
    unsafe { core::ptr::copy(v_ptr(from), v_ptr(to), len as usize) }
}

/// Read V bytes.
pub fn read_v(addr: u64, out: &mut [u8]) {
    let n = clip(addr, out.len() as u64) as usize;
    // SAFETY: inside the V range, clipped; `out` is ours.
    unsafe { core::ptr::copy_nonoverlapping(v_ptr(addr), out.as_mut_ptr(), n) }
    out[n..].fill(UNDEFINED);
}

/// Write V bytes.
pub fn write_v(addr: u64, bytes: &[u8]) {
    let n = clip(addr, bytes.len() as u64) as usize;
    // SAFETY: inside the V range, clipped.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), v_ptr(addr), n) }
}

/// First address in the range whose V byte is not zero.
#[inline]
pub fn first_nonzero_v(addr: u64, len: u64) -> Option<u64> {
    let n = clip(addr, len);
    let found = first_nonzero(addr.wrapping_add(V_DISTANCE), n);
    match found {
        Some(at) => Some(at - V_DISTANCE),
        None if n < len => Some(addr + n),
        None => None,
    }
}

fn first_nonzero(start: u64, len: u64) -> Option<u64> {
    let end = start + len;
    let mut at = start;
    // SAFETY: every read below stays inside [start, end), which the caller has mapped; words are read unaligned.
    unsafe {
        while at + 32 <= end {
            let p = at as *const u64;
            let any = p.read_unaligned() | p.add(1).read_unaligned() | p.add(2).read_unaligned() | p.add(3).read_unaligned();
            if any != 0 {
                break;
            }
            at += 32;
        }
        while at + 8 <= end {
            let word = (at as *const u64).read_unaligned();
            if word != 0 {
                return Some(at + u64::from(word.trailing_zeros()) / 8);
            }
            at += 8;
        }
        while at < end {
            if *(at as *const u8) != 0 {
                return Some(at);
            }
            at += 1;
        }
    }
    None
}

fn a_ptr(addr: u64) -> *mut u8 {
    (A_BASE + addr / 8) as *mut u8
}

/// Is the A bit of this address clear? (Says nothing about mappings or the stack pointer, see `access`.)
#[inline]
pub fn a_clear(addr: u64) -> bool {
    // SAFETY: the A range covers the program's space.
    addr < PROGRAM_END && unsafe { *a_ptr(addr) } >> (addr & 7) & 1 == 0
}

/// First address in the range whose A bit is set. The range must lie in the program's space.
#[inline]
pub fn first_a(addr: u64, len: u64) -> Option<u64> {
    let end = addr + clip(addr, len);
    if addr >= end {
        return None;
    }
    // Bits below the first address do not count; those behind the end are found and refused.
    let mut below = (1u8 << (addr & 7)) - 1;
    let mut at = A_BASE + addr / 8;
    let last = A_BASE + (end - 1) / 8;
    while at <= last {
        // SAFETY: [A_BASE + addr / 8, last] is shadow of the range; words are read unaligned and only inside it.
        unsafe {
            if below == 0 && at + 7 <= last && (at as *const u64).read_unaligned() == 0 {
                at += 8;
                continue;
            }
            let bits = *(at as *const u8) & !below;
            if bits != 0 {
                return Some((at - A_BASE) * 8 + u64::from(bits.trailing_zeros())).filter(|&found| found < end);
            }
        }
        below = 0;
        at += 1;
    }
    None
}

/// A bits of the bytes from `addr` on, lowest first; 57 of them at least. `addr` must lie 64 bytes or more in front of `PROGRAM_END`.
#[inline]
pub fn a_bits(addr: u64) -> u64 {
    debug_assert!(addr < PROGRAM_END - 64, "beyond the A range");
    // SAFETY: eight bytes inside the A range.
    unsafe { (a_ptr(addr & !7) as *const u64).read_unaligned() >> (addr & 7) }
}

/// Set (`true` = not addressable) or clear the A bits of a range.
#[inline]
pub fn set_a(addr: u64, len: u64, noaccess: bool) {
    let len = clip(addr, len);
    if len == 0 {
        return;
    }
    let (mut at, end) = (addr, addr + len);
    let byte = if noaccess { 0xff } else { 0 };
    // SAFETY: all inside the A range, clipped. Bytes at the ends are shared with neighbours only inside one allocation unit.
    unsafe {
        if at & 7 != 0 || end - at < 8 {
            let stop = end.min((at & !7) + 8);
            set_bits(a_ptr(at), at & 7, stop - at, noaccess);
            at = stop;
        }
        let whole = (end - at) / 8;
        if byte == 0 && whole >= DISCARD_FROM {
            zero_large(a_ptr(at) as u64, whole);
        } else {
            core::ptr::write_bytes(a_ptr(at), byte, whole as usize);
        }
        at += whole * 8;
        if at < end {
            set_bits(a_ptr(at), 0, end - at, noaccess);
        }
    }
}

/// # Safety
/// `p` is inside the A range; `first + count <= 8`.
unsafe fn set_bits(p: *mut u8, first: u64, count: u64, value: bool) {
    let mask = (((1u32 << count) - 1) << first) as u8;
    // SAFETY: the caller's promise.
    unsafe { if value { *p |= mask } else { *p &= !mask } }
}

/// Does the shadow at `start` belong to the heap?
fn is_of_heap(start: u64) -> bool {
    [start.wrapping_sub(V_DISTANCE), start.wrapping_sub(A_BASE).wrapping_mul(8)].iter().any(|addr| (HEAP_START..HEAP_END).contains(addr))
}

/// # Safety
/// The range is shadow memory.
unsafe fn zero_large(start: u64, len: u64) {
    let first = start.next_multiple_of(4096);
    let end = (start + len) & !4095;
    // SAFETY: the caller's promise; `len` is far more than two pages.
    unsafe {
        core::ptr::write_bytes(start as *mut u8, 0, (first - start) as usize);
        if SHEETS.load(Relaxed) && is_of_heap(start) || is_stack_sheet(start.wrapping_sub(V_DISTANCE), len) {
            sys::renew(first, end - first);
        } else {
            sys::discard(first, end - first);
        }
        core::ptr::write_bytes(end as *mut u8, 0, (start + len - end) as usize);
    }
}

/// The three states a client or the heap asks for.
pub fn make_noaccess(addr: u64, len: u64) {
    set_a(addr, len, true);
    fill_v(addr, len, UNDEFINED);
}

/// The same on a stack, where addressability is decided by the stack pointer: there an A bit counts only with this V byte, which painting
/// removes when the frame is released. (Undefined bits of values hardly ever form this pattern, and only there it would matter.)
pub const FORBIDDEN: u8 = 0x6d;

pub fn make_noaccess_on_stack(addr: u64, len: u64) {
    set_a(addr, len, true);
    fill_v(addr, len, FORBIDDEN);
}

pub fn make_undefined(addr: u64, len: u64) {
    set_a(addr, len, false);
    fill_v(addr, len, UNDEFINED);
}

pub fn make_defined(addr: u64, len: u64) {
    set_a(addr, len, false);
    fill_v(addr, len, DEFINED);
}

/// Reserve all shadow. Once, before the program runs. False if the address space cannot be had.
pub fn reserve() -> bool {
    let rw = sys::PROT_READ | sys::PROT_WRITE;
    let page = |a: u64| a & !4095;
    sys::map_fixed(page(V_DISTANCE), PROGRAM_END + 8192, rw)
        && sys::map_fixed(A_BASE, PROGRAM_END / 8, rw)
        // The last pages of the program's space hold nothing: origins may end before the A range begins.
        && sys::map_fixed(ORIGIN_MAP, ORIGIN_PAGES, rw)
        && sys::map_fixed(page(ORIGIN_DISTANCE), PROGRAM_END - (1 << 20), rw)
}
