//! Client requests: the program speaks to the tool through valgrind.h's magic instructions.
//!
//! ```text
//! preamble, kind byte db   rax = address of {code, a1 .. a5}, rdx = default answer in, answer out
//! preamble, kind byte c9   rax := address of the original function in a wrapper
//! preamble, kind byte d2   call *rax as it is, not what it was replaced by
//! ```
//! Codes and answers: the two public headers, valgrind.h and memcheck.h, and what programs compiled with them observe. A request
//! that is not known leaves the default answer, as it does natively.
//!
//! - `memory`    states, checks, V bits, ignored ranges
//! - `print`     PRINTF and its arguments
//! - [`stacks`]  ranges that the program declares to be stacks
//! - `command`   commands of the debugger and options, in words
//!
//! Absent on purpose: requests of other tools.
#![allow(unsafe_code, reason = "reads the request block of the program in place")]

mod command;
mod memory;
mod print;
pub mod stacks;

pub use command::stand;
pub use memory::{ignored, is_ignored};

use crate::cache::CACHE;
use crate::{dirty, inner, program};
use memcheck_abi::context::{RAX, RDX, RSP, ThreadContext};
use memcheck_abi::errand::asked;
use memcheck_abi::event::{ExitReport, NAME_LEN, Repeat, Trap};
use memcheck_abi::layout::RED_ZONE;
use memcheck_heap::client;
use memcheck_rt::{report, sys};

const REQUEST: u8 = 0xdb;
const ORIGINAL: u8 = 0xc9;
const CALL: u8 = 0xd2;
/// Bytes of preamble and kind.
const LENGTH: u64 = 19;

/// {code, a1 .. a5}.
type Block = [u64; 6];

/// Execute the request at ctx.regs; `kind` is the last byte of the preamble.
pub fn request(ctx: &mut ThreadContext, kind: u8) {
    match kind {
        REQUEST => {
            let block = ctx.regs.gpr[RAX];
            if let Some(answer) = read_block(ctx, block).and_then(|b| answer(ctx, &b)) {
                ctx.regs.gpr[RDX] = answer;
            }
            dirty::shadow_regs(ctx).dirty &= !(1 << RDX);
        }
        ORIGINAL => {
            // Held during a fork, as what is asked for must be.
            let cache = CACHE.lock();
            ctx.regs.gpr[RAX] = program::original_of(ctx.regs.rip);
            drop(cache);
            dirty::shadow_regs(ctx).dirty &= !(1 << RAX);
        }
        CALL => inner::call_original(ctx, ctx.regs.rip + LENGTH),
        _ => {}
    }
}

/// For the time of a fork.
pub fn hold() -> (impl Drop, impl Drop) {
    (memory::hold(), stacks::hold())
}

/// The six words; usually they are on the stack, which is there.
fn read_block(ctx: &ThreadContext, at: u64) -> Option<Block> {
    let sp = ctx.regs.gpr[RSP];
    if at >= sp.wrapping_sub(RED_ZONE) && at.saturating_add(size_of::<Block>() as u64) <= ctx.stack_high {
        // SAFETY: on the live part of the thread's own stack.
        return Some(unsafe { (at as *const Block).read_unaligned() });
    }
    let mut bytes = [0; size_of::<Block>()];
    sys::read_guarded(at, &mut bytes).then(|| core::array::from_fn(|i| word(&bytes, 8 * i)))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// Core requests have small codes, a tool's begin with two letters.
const MEMCHECK: u64 = (b'M' as u64) << 24 | (b'C' as u64) << 16;

/// The result; `None`: the default stays.
fn answer(ctx: &mut ThreadContext, block: &Block) -> Option<u64> {
    let [code, rest @ ..] = block;
    let answer = match code {
        0x1301..=0x130b => heap_request(ctx, *code, *rest),
        0x1401..=0x1404 => Some(print::request(*code, rest[0], rest[1])),
        0x1000..0x10000 => core_request(ctx, *code, *rest),
        _ if code & 0xffff_0000 == MEMCHECK => memcheck_request(ctx, code & 0xffff, *rest),
        _ => None,
    };
    memory::follow_marks();
    answer
}

fn core_request(ctx: &mut ThreadContext, code: u64, [a, b, c, d, _]: [u64; 5]) -> Option<u64> {
    match code {
        0x1001 => Some(1),
        0x1002 => discard_translations(a, b),
        0x1101..=0x1104 => Some(inner::client_call(ctx, a, [u64::from(ctx.number), b, c, d])),
        0x1201 => Some(count_errors()),
        0x1202 => Some((!command::execute(ctx, asked::COMMAND, a)).into()),
        0x1203 => some(0, || {
            command::execute(ctx, asked::OPTION, a);
        }),
        0x1501 => Some(stacks::register(a, b)),
        0x1502 => some(0, || stacks::deregister(a)),
        0x1503 => some(0, || stacks::change(a, b, c)),
        0x1701 => some(0, || source_line(a, b)),
        0x1801 => some(0, || ctx.errors_disabled = ctx.errors_disabled.saturating_add_signed(a as i32)),
        _ => None,
    }
}

fn some(answer: u64, act: impl FnOnce()) -> Option<u64> {
    act();
    Some(answer)
}

/// Blocks and pools that the program declares.
fn heap_request(ctx: &mut ThreadContext, code: u64, [a, b, c, d, _]: [u64; 5]) -> Option<u64> {
    ctx.guest_rsp = ctx.regs.gpr[RSP];
    match code {
        0x1301 => {
            client::malloclike_block(ctx, a, b, c, d != 0);
            memory::set_origin(ctx, a, if d == 0 { b } else { 0 }, memory::HEAP);
        }
        0x1302 => client::freelike_block(ctx, a, b),
        0x130b => {
            client::resizeinplace_block(ctx, a, b, c, d);
            memory::set_origin(ctx, a.wrapping_add(b), c.saturating_sub(b), memory::HEAP);
        }
        0x1303 => client::create_mempool(a, b, c != 0, d),
        0x1304 => client::destroy_mempool(ctx, a),
        0x1305 => {
            client::mempool_alloc(ctx, a, b, c);
            memory::set_origin(ctx, b, c, memory::HEAP);
        }
        0x1306 => client::mempool_free(ctx, a, b),
        0x1307 => client::mempool_trim(ctx, a, b, c),
        0x1308 => client::move_mempool(ctx, a, b),
        0x1309 => client::mempool_change(ctx, a, b, c, d),
        0x130a => return Some(client::mempool_exists(a).into()),
        _ => return None,
    }
    None
}

/// Requests of memcheck.h, numbered from its base.
fn memcheck_request(ctx: &mut ThreadContext, number: u64, [a, b, c, d, _]: [u64; 5]) -> Option<u64> {
    const DONE: u64 = u64::MAX;
    match number {
        0 => some(DONE, || memory::forbid(a, b)),
        1 => some(DONE, || memory::make_undefined(ctx, a, b)),
        2 => some(DONE, || memory::make_defined(a, b)),
        3 => Some((!client::discard_block(b)).into()),
        4 => Some(memory::check_addressable(ctx, a, b)),
        5 => Some(memory::check_defined(ctx, a, b)),
        6 => some(0, || leak_check(a, b)),
        7 => some(0, || leak_counts(0, [a, b, c, d])),
        8 => Some(memory::get_v(ctx, a, b, c)),
        9 => Some(memory::set_v(ctx, a, b, c)),
        10 => Some(create_block(ctx, a, b, c)),
        11 => some(DONE, || memory::make_defined_if_addressable(ctx, a, b)),
        12 => some(0, || leak_counts(1, [a, b, c, d])),
        13 => Some(memory::report_again(a, b)),
        14 => Some(memory::ignore(a, b)),
        _ => None,
    }
}

fn discard_translations(start: u64, len: u64) -> Option<u64> {
    CACHE.lock().invalidate(start, len);
    Some(0)
}

/// The session counts errors by its own rules; repeats that it was not told yet come first.
fn count_errors() -> u64 {
    tell_repeats();
    report::trap(Trap::CountErrors, 0, 0, 0, 0)
}

/// Most kinds of errors whose repeats are told at once: all that the runtime counts.
const REPEATS: usize = 2048;

fn tell_repeats() {
    let mut repeats = alloc::vec![Repeat::default(); REPEATS];
    let count = report::take_repeats(&mut repeats);
    if count != 0 {
        report::trap(Trap::Repeats, repeats.as_ptr() as u64, count as u64, 0, 0);
    }
}

/// `how` 0 full, 1 summary; `delta` 0 everything, 1 increased, 2 changed, 3 new.
fn leak_check(how: u64, delta: u64) {
    let mut out = ExitReport::default();
    memcheck_heap::report(&mut out);
    report::trap(Trap::LeakCheck, how & 0xff | (delta & 0xff) << 8, core::ptr::from_ref(&out) as u64, 0, 0);
}

/// Results of the last leak check (`blocks`: 0 bytes, 1 blocks) to the four places that the program names.
fn leak_counts(blocks: u64, places: [u64; 4]) {
    let mut counts = [0u64; 4];
    report::trap(Trap::LeakCounts, blocks, counts.as_mut_ptr() as u64, 0, 0);
    for (place, count) in places.into_iter().zip(counts) {
        memory::write(place, &count.to_le_bytes());
    }
}

/// Name `[addr, addr + len)` by the string at `text`.
fn create_block(ctx: &mut ThreadContext, addr: u64, len: u64, text: u64) -> u64 {
    let mut name = alloc::vec::Vec::new();
    memory::read_string(text, NAME_LEN - 1, &mut name);
    ctx.guest_rsp = ctx.regs.gpr[RSP];
    client::create_block(ctx, addr, len, &name)
}

/// "file:line" of a code address, or nothing, to the 64 bytes at `place`.
fn source_line(addr: u64, place: u64) {
    let mut text = [0u8; 64];
    report::trap(Trap::SourceLine, addr, text.as_mut_ptr() as u64, 0, 0);
    memory::write(place, &text);
}
