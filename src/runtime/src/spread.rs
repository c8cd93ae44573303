//! Gathers, scatters, bit tests that reach beyond their operand and stores to where no operand points (`memcheck_translate::spread`), in clean
//! code: is there memory among what they touch that is not plainly defined? Then the instruction's rule is applied.

use crate::{helpers, startup, vectors};
use core::sync::atomic::Ordering;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use memcheck_abi::context::{RSP, ThreadContext};
use memcheck_abi::layout::in_program;
use memcheck_rt::sync::Lock;
use memcheck_rt::{access, shadow};

/// What an instruction says about where it goes.
#[derive(Clone, Copy)]
struct Site {
    pc: u64,
    displacement: u64,
    base: Register,
    segment: Register,
    /// A vector of indexes, or one.
    index: Register,
    scale: u8,
    /// Bytes of an index and of an element, and how many there are.
    width: u8,
    size: u8,
    lanes: u8,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Lanes,
    /// One bit, counted from the operand by this register.
    Bit(Register),
    /// `size` bytes from a multiple of so many on.
    Whole(u8),
}

const NONE: Site = Site {
    pc: 0,
    displacement: 0,
    base: Register::None,
    segment: Register::None,
    index: Register::None,
    scale: 0,
    width: 4,
    size: 0,
    lanes: 0,
    what: What::Lanes,
};
const SITES: usize = 64;
/// Those seen last, by their place: reading and decoding one costs 5 µs.
static SEEN: Lock<[Site; SITES]> = Lock::new([NONE; SITES]);

/// Asked in front of the instruction at ctx.regs.rip. Lanes that its guard leaves out are looked at, too: the rule sorts them out.
pub fn needs_its_rule(ctx: &ThreadContext) -> bool {
    let site = site(ctx.regs.rip);
    let start = start(ctx, &site);
    match site.what {
        What::Bit(bit) => return is_doubtful(ctx, far_bit(ctx, &site, bit, start), 1),
        What::Whole(align) => return is_doubtful(ctx, start & u64::from(align).wrapping_neg(), u64::from(site.size)),
        What::Lanes => {}
    }
    let indexes = vectors::register(ctx, site.index.number());
    (0..usize::from(site.lanes)).any(|i| {
        let lane = indexes.lane(usize::from(site.width), i);
        let lane = if site.width == 4 { lane as i32 as u64 } else { lane };
        is_doubtful(ctx, start.wrapping_add(lane.wrapping_mul(u64::from(site.scale))), u64::from(site.size))
    })
}

/// For the time of a fork.
pub fn hold() -> impl Drop {
    SEEN.lock()
}

/// Code has changed or is gone.
pub fn forget() {
    *SEEN.lock() = [NONE; SITES];
}

fn site(pc: u64) -> Site {
    let place = pc as usize % SITES;
    let known = SEEN.lock()[place];
    if known.pc == pc {
        return known;
    }
    let site = Site { pc, ..described(&helpers::decode(pc)) };
    SEEN.lock()[place] = site;
    site
}

fn described(insn: &Instruction) -> Site {
    let whole = |base, size, align| Site { base, segment: insn.segment_prefix(), size, what: What::Whole(align), ..NONE };
    let narrow = |kind| (0..insn.op_count()).any(|i| insn.op_kind(i) == kind);
    let rdi = if narrow(OpKind::MemorySegEDI) { Register::EDI } else { Register::RDI };
    match insn.mnemonic() {
        Mnemonic::Maskmovq => return whole(rdi, 8, 1),
        Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu => return whole(rdi, 16, 1),
        // Segments count for its source.
        Mnemonic::Movdir64b => return Site { segment: Register::None, ..whole(insn.op0_register(), 64, 1) },
        Mnemonic::Clzero => return whole(Register::RAX, 64, 64),
        _ => {}
    }
    let index = insn.memory_index();
    let data = (0..insn.op_count()).map(|i| insn.op_register(i)).find(|r| r.is_vector_register()).unwrap_or(index);
    let width = if insn.vsib() == Some(true) { 8 } else { 4 };
    let size = insn.memory_size().size();
    Site {
        pc: 0,
        displacement: insn.memory_displacement64(),
        base: insn.memory_base(),
        segment: insn.segment_prefix(),
        index,
        scale: insn.memory_index_scale() as u8,
        width: width as u8,
        size: size as u8,
        lanes: (index.size() / width).min(data.size() / size.max(1)) as u8,
        what: if index.is_vector_register() { What::Lanes } else { What::Bit(insn.op1_register()) },
    }
}

/// Address of the byte that holds the bit: the processor reads all of its element, but no other bit of that counts.
fn far_bit(ctx: &ThreadContext, site: &Site, bit: Register, start: u64) -> u64 {
    let index = if site.index.is_gpr() { ctx.regs.gpr[site.index.number()].wrapping_mul(u64::from(site.scale)) } else { 0 };
    let offset = ctx.regs.gpr[bit.number()] as i64;
    let offset = match site.size {
        2 => i64::from(offset as i16),
        4 => i64::from(offset as i32),
        _ => offset,
    };
    start.wrapping_add(index).wrapping_add((offset >> 3) as u64)
}

fn is_doubtful(ctx: &ThreadContext, addr: u64, size: u64) -> bool {
    if !in_program(addr, size) {
        return true;
    }
    if startup::UNDEF.load(Ordering::Relaxed) != 0 {
        return shadow::first_nonzero_v(addr, size).is_some();
    }
    access::first_unaddressable(ctx, ctx.regs.gpr[RSP], addr, size).is_some()
}

/// The operand's address without its index.
fn start(ctx: &ThreadContext, site: &Site) -> u64 {
    let base = match site.base {
        r if r.is_gpr32() => u64::from(ctx.regs.gpr[r.number()] as u32),
        r if r.is_gpr() => ctx.regs.gpr[r.number()],
        _ => 0,
    };
    let segment = match site.segment {
        Register::FS => ctx.guest_fs,
        Register::GS => ctx.guest_gs,
        _ => 0,
    };
    base.wrapping_add(site.displacement).wrapping_add(segment)
}
