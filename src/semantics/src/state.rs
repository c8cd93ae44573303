//! Saving and restoring whole register files: fxsave, xsave and their return journeys.
//!
//! They matter more than their rarity suggests: lazy binding saves and restores all vector registers around every first call of a
//! function, so V bits must survive the journey through memory exactly.
//!
//! ```text
//! 0    x87 control (defined)      416  (not used)
//! 32   st0..st7, 16 bytes each    512  header: XSTATE_BV, XCOMP_BV
//! 160  xmm0..xmm15                576  extended components: standard offsets, or packed in order (compacted)
//! ```

use iced_x86::Mnemonic::{self as M, *};

use crate::cx::Cx;
use crate::machine::Machine;
use crate::regs::MASK0;
use crate::table::{Row, Rule};
use crate::wide::Wide;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    FxSave,
    FxRestore,
    /// Standard layout (xsave, xsaveopt).
    XSave,
    /// Compacted layout (xsavec).
    XSaveCompact,
    XRestore,
}

const fn row(names: &'static [M], op: State) -> Row {
    (names, Rule::State(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Fxsave, Fxsave64], State::FxSave),
    row(&[Fxrstor, Fxrstor64], State::FxRestore),
    row(&[Xsave, Xsave64, Xsaveopt, Xsaveopt64], State::XSave),
    row(&[Xsavec, Xsavec64], State::XSaveCompact),
    row(&[Xrstor, Xrstor64], State::XRestore),
];

const X87: u32 = 0;
const SSE: u32 = 1;
const AVX: u32 = 2;
const OPMASK: u32 = 5;
const ZMM_HIGH: u32 = 6;
const ZMM_16: u32 = 7;

/// Sizes in the compacted layout by component number; 3 and 4 are the bounds registers.
const SIZES: [u64; 8] = [0, 0, 256, 64, 64, 64, 512, 1024];
const LEGACY: u64 = 512;
const EXTENDED: u64 = 576;
const COMPACTED: u64 = 1 << 63;

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: State) {
    let requested = (cx.m.gpr(0) & 0xFFFF_FFFF | cx.m.gpr(2) << 32) & cx.m.xcr0();
    match op {
        State::FxSave => save(cx, 0b11, 0),
        State::FxRestore => restore(cx, 0b11, 0b11, 0),
        State::XSave | State::XSaveCompact => {
            let layout = if op == State::XSaveCompact { requested | COMPACTED } else { 0 };
            save(cx, requested, layout);
            cx.store_zeros(cx.addr.wrapping_add(LEGACY), 64);
        }
        State::XRestore => {
            let header = cx.load(cx.addr.wrapping_add(LEGACY), 16);
            restore(cx, requested, header.0[0], header.0[1]);
        }
    }
}

/// Where a component of the extended region lies, for a standard (0) or compacted layout word.
fn offset<M: Machine>(cx: &Cx<M>, component: u32, layout: u64) -> u64 {
    if layout & COMPACTED == 0 {
        return u64::from(cx.m.xstate_offset(component));
    }
    (2..component).filter(|c| layout >> c & 1 != 0).fold(EXTENDED, |at, c| at + SIZES[c as usize & 7])
}

/// Calls `f` for every register piece in the requested components: (address, bytes, piece).
fn pieces<M: Machine>(cx: &mut Cx<M>, requested: u64, layout: u64, mut f: impl FnMut(&mut Cx<M>, u64, usize, Piece)) {
    let base = cx.addr;
    let has = |component: u32| requested >> component & 1 != 0;
    if has(X87) {
        let top = usize::from(cx.m.x87_top());
        for i in 0..8 {
            f(cx, base.wrapping_add(32 + i as u64 * 16), 10, Piece::St((top + i) & 7));
        }
    }
    for (component, first, count, low, high) in
        [(SSE, 0, 16, 0, 16), (AVX, 0, 16, 16, 32), (ZMM_HIGH, 0, 16, 32, 64), (ZMM_16, 16, 16, 0, 64)]
    {
        if has(component) {
            let start = if component == SSE { 160 } else { offset(cx, component, layout) };
            for i in 0..count {
                let at = base.wrapping_add(start + (i * (high - low)) as u64);
                f(cx, at, high - low, Piece::Vec { n: first + i, low, high });
            }
        }
    }
    if has(OPMASK) {
        let start = offset(cx, OPMASK, layout);
        for i in 0..8 {
            f(cx, base.wrapping_add(start + i as u64 * 8), 8, Piece::Mask(i));
        }
    }
}

/// A part of a register that lies in one stretch of memory.
#[derive(Clone, Copy)]
enum Piece {
    /// Physical x87 register.
    St(usize),
    /// Bytes `low..high` of a vector register.
    Vec {
        n: usize,
        low: usize,
        high: usize,
    },
    Mask(usize),
}

fn save<M: Machine>(cx: &mut Cx<M>, requested: u64, layout: u64) {
    if requested & 0b11 != 0 {
        cx.store_zeros(cx.addr, 32);
    }
    pieces(cx, requested, layout, |cx, at, size, piece| {
        let mut v = Wide::ZERO;
        match piece {
            Piece::St(n) => v.0[..2].copy_from_slice(&cx.regs.st(n)),
            Piece::Vec { n, low, high } => {
                let whole = cx.regs.vec(n);
                (low / 8..high / 8).for_each(|word| v.0[word - low / 8] = whole.0[word]);
                cx.origin = cx.regs.origin[crate::regs::VEC0 + n];
            }
            Piece::Mask(n) => {
                v.0[0] = cx.regs.mask(n);
                cx.origin = cx.regs.origin[MASK0 + n];
            }
        }
        cx.store_v(at, size, v);
    });
}

/// Components requested but not present in the area become their initial, defined values.
fn restore<M: Machine>(cx: &mut Cx<M>, requested: u64, present: u64, layout: u64) {
    if cx.fault {
        return;
    }
    pieces(cx, requested, layout, |cx, at, size, piece| {
        let component = match piece {
            Piece::St(_) => X87,
            Piece::Mask(_) => OPMASK,
            Piece::Vec { n: 16.., .. } => ZMM_16,
            Piece::Vec { low: 0, .. } => SSE,
            Piece::Vec { low: 16, .. } => AVX,
            Piece::Vec { .. } => ZMM_HIGH,
        };
        let v = if present >> component & 1 != 0 { cx.load_v(at, size) } else { Wide::ZERO };
        let fresh = if v.is_zero() { 0 } else { cx.m.load_origin(at, size) };
        match piece {
            Piece::St(n) => cx.regs.set_st(n, [v.0[0], v.0[1] & 0xFFFF], fresh),
            Piece::Mask(n) => cx.regs.set_mask(n, v.0[0], fresh),
            Piece::Vec { n, low, high } => {
                let mut whole = cx.regs.vec(n);
                (low / 8..high / 8).for_each(|word| whole.0[word] = v.0[word - low / 8]);
                let origin = if fresh != 0 { fresh } else { cx.regs.origin[crate::regs::VEC0 + n] };
                cx.regs.set_vec(n, whole, origin);
            }
        }
    });
}
