//! Bit tests, scans, counts and extraction.

use iced_x86::Mnemonic::{self as M, *};

use crate::bits::{self, Bits, mask, prefix_v, smear_left, zero_v};
use crate::cx::Cx;
use crate::machine::{ComplaintKind, Machine};
use crate::plan::Operand;
use crate::regs::{CF, SF, ZF};
use crate::table::{Row, Rule};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitOp {
    Bt,
    Bts,
    Btr,
    Btc,
    /// Scan from below; `true` for tzcnt, which has a result for zero.
    Low(bool),
    /// Scan from above; `true` for lzcnt.
    High(bool),
    Popcnt,
    Blsi,
    Blsr,
    Blsmsk,
    Bzhi,
    Bextr,
    Pdep,
    Pext,
    Crc32,
}

const fn row(names: &'static [M], op: BitOp) -> Row {
    (names, Rule::Bit(op))
}

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    row(&[Bt], BitOp::Bt),
    row(&[Bts], BitOp::Bts),
    row(&[Btr], BitOp::Btr),
    row(&[Btc], BitOp::Btc),
    row(&[Bsf], BitOp::Low(false)),
    row(&[Tzcnt], BitOp::Low(true)),
    row(&[Bsr], BitOp::High(false)),
    row(&[Lzcnt], BitOp::High(true)),
    row(&[Popcnt], BitOp::Popcnt),
    row(&[Blsi], BitOp::Blsi),
    row(&[Blsr], BitOp::Blsr),
    row(&[Blsmsk], BitOp::Blsmsk),
    row(&[Bzhi], BitOp::Bzhi),
    row(&[Bextr], BitOp::Bextr),
    row(&[Pdep], BitOp::Pdep),
    row(&[Pext], BitOp::Pext),
    row(&[Crc32], BitOp::Crc32),
];

pub(crate) fn run<M: Machine>(cx: &mut Cx<M>, op: BitOp) {
    let width = cx.size(0) as u32 * 8;
    match op {
        BitOp::Bt | BitOp::Bts | BitOp::Btr | BitOp::Btc => test(cx, op, width),
        BitOp::Low(_) | BitOp::High(_) => scan(cx, op, width),
        BitOp::Popcnt => popcnt(cx),
        BitOp::Blsi | BitOp::Blsr | BitOp::Blsmsk => lowest(cx, op, width),
        BitOp::Bzhi => bzhi(cx, width),
        BitOp::Bextr => bextr(cx, width),
        BitOp::Pdep | BitOp::Pext => scatter(cx, op, width),
        BitOp::Crc32 => {
            let any = cx.v(cx.op(0)) & 0xFFFF_FFFF | cx.v(cx.op(1));
            cx.set(cx.op(0), if any != 0 { 0xFFFF_FFFF } else { 0 });
        }
    }
}

fn carry(undefined: bool) -> u64 {
    if undefined { CF } else { 0 }
}

fn test<M: Machine>(cx: &mut Cx<M>, op: BitOp, mut width: u32) {
    let mut index = cx.bits(cx.op(1));
    let memory = cx.op(0) == Operand::Mem;
    if let (true, Operand::Gpr { n, size, .. }) = (memory, cx.op(1)) {
        // The index reaches beyond the operand: it is part of the address. Of the element that holds the bit only its byte counts.
        if index.v != 0 {
            cx.complain(ComplaintKind::Value { size: 8 }, cx.regs.origin[usize::from(n)]);
            cx.regs.dirty &= !(1 << n);
            index.v = 0;
        }
        let offset = bits::sign_extend(index.x, u32::from(size) * 8);
        cx.addr = cx.addr.wrapping_add((offset >> 3) as u64);
        width = 8;
    }
    let bytes = width as usize / 8;
    let a = if memory { Bits { x: cx.load(cx.addr, bytes).0[0], v: cx.load_v(cx.addr, bytes).0[0] } } else { cx.bits(cx.op(0)) };
    if memory && a.v != 0 {
        cx.origin = cx.m.load_origin(cx.addr, bytes);
    }
    let index = index.masked(u64::from(width) - 1);
    let looked_at = bits::choose_v(index, 1, |n| Bits { x: a.x >> n, v: a.v >> n }.masked(1));
    let changed = |n: u64| match op {
        BitOp::Bts => Bits { x: a.x | 1 << n, v: a.v & !(1 << n) },
        BitOp::Btr => Bits { x: a.x & !(1 << n), v: a.v & !(1 << n) },
        _ => Bits { x: a.x ^ 1 << n, v: a.v },
    };
    if op != BitOp::Bt {
        let v = bits::choose_v(index, mask(width), changed);
        if memory {
            cx.m.store_v_word(cx.addr, bytes, v, cx.origin);
        } else {
            cx.set(cx.op(0), v);
        }
    }
    cx.set_flags(carry(looked_at != 0), a.v | index.v);
}

/// Only bits up to the first defined 1 matter; the position lies between the first possible and the first certain 1.
fn scan<M: Machine>(cx: &mut Cx<M>, op: BitOp, width: u32) {
    let a = cx.bits(cx.op(1)).masked(mask(width));
    let counts_zero = matches!(op, BitOp::Low(true) | BitOp::High(true));
    let position = |word: u64| match op {
        BitOp::Low(_) => word.trailing_zeros().min(width),
        _ => (word & mask(width)).leading_zeros() - (64 - width),
    };
    let (near, far) = (u64::from(position(a.max())), u64::from(position(a.min())));
    let mut v = if a.v == 0 { 0 } else { prefix_v(near, far) };
    if matches!(op, BitOp::High(false)) && v != 0 {
        v = prefix_v(u64::from(width) - 1 - near, (u64::from(width) - 1).wrapping_sub(far)) & mask(width);
    }
    let empty = zero_v(a);
    if !counts_zero {
        // bsf and bsr leave the destination alone, all 64 bits of it, if there is no bit.
        let target = cx.op(0);
        match target {
            Operand::Gpr { n, .. } if empty => {
                let old = cx.gpr(usize::from(n));
                cx.set(Operand::Gpr { n, size: 8, high: false }, old.max() | mask(width));
            }
            _ if a.v == 0 && a.x == 0 => {}
            _ => cx.set(target, v),
        }
        return cx.set_flags(if empty { ZF } else { 0 }, a.v);
    }
    cx.set(cx.op(0), v);
    let zero = if zero_v(Bits { x: far, v }) && near == 0 { ZF } else { 0 };
    cx.set_flags(zero | carry(empty), a.v);
}

fn popcnt<M: Machine>(cx: &mut Cx<M>) {
    let a = cx.bits(cx.op(1));
    let v = prefix_v(u64::from(a.min().count_ones()), u64::from(a.max().count_ones()));
    cx.set(cx.op(0), v);
    cx.set_flags(if zero_v(a) { ZF } else { 0 }, 0);
}

/// blsi, blsr, blsmsk, all functions of a and a - 1 (or -a).
fn lowest<M: Machine>(cx: &mut Cx<M>, op: BitOp, width: u32) {
    let a = cx.bits(cx.op(1)).masked(mask(width));
    // The lowest set bit is the first certain 1 or an undefined bit below it.
    let certain = a.min();
    let near = if certain == 0 { mask(width) } else { certain ^ certain.wrapping_sub(1) };
    let open = a.v & near;
    let lowest_open = open & open.wrapping_neg();
    let candidates = if open == 0 { 0 } else { near & a.max() };
    let (x, v) = match op {
        BitOp::Blsi => (a.x & a.x.wrapping_neg(), candidates),
        // If the lowest candidate is set it is the one that is cleared.
        BitOp::Blsr => (a.x & a.x.wrapping_sub(1), a.v & !near | candidates & !lowest_open),
        _ => (a.x ^ a.x.wrapping_sub(1), near & smear_left(open) & !lowest_open),
    };
    let r = Bits { x, v: v & mask(width) };
    cx.set(cx.op(0), r.v);
    let top = r.v >> (width - 1) & 1 != 0;
    let zero = match op {
        BitOp::Blsi => zero_v(a),
        BitOp::Blsr => r.v != 0 && certain & certain.wrapping_sub(1) == 0,
        _ => false,
    };
    let flags = if top { SF } else { 0 } | if zero { ZF } else { 0 } | carry(zero_v(a));
    cx.set_flags(flags, a.v);
}

fn bzhi<M: Machine>(cx: &mut Cx<M>, width: u32) {
    let a = cx.bits(cx.op(1)).masked(mask(width));
    let index = cx.bits(cx.op(2)).masked(0xFF);
    let keep = |n: u64| if n >= u64::from(width) { mask(width) } else { (1 << n) - 1 };
    let (r, out) = if index.v == 0 {
        (a.masked(keep(index.x)), false)
    } else {
        // Whatever may be cut off and may be set.
        let shortest = keep(index.min());
        let v = a.v & keep(index.max()) | a.max() & keep(index.max()) & !shortest;
        (Bits { x: a.x & shortest, v }, (index.min() < u64::from(width)) != (index.max() < u64::from(width)))
    };
    cx.set(cx.op(0), r.v);
    let flags = bits::result_flags(r, width) & (SF | ZF) | carry(out);
    cx.set_flags(flags, a.v | index.v);
}

fn bextr<M: Machine>(cx: &mut Cx<M>, width: u32) {
    let a = cx.bits(cx.op(1)).masked(mask(width));
    let control = cx.bits(cx.op(2)).masked(0xFFFF);
    let r = if control.v != 0 {
        let spoilt = if a.max() == 0 { 0 } else { mask(width) };
        Bits { x: 0, v: spoilt }
    } else {
        let (start, len) = (control.x & 0xFF, control.x >> 8);
        let cut = |word: u64| {
            let moved = if start > 63 { 0 } else { word >> start };
            if len >= 64 { moved } else { moved & ((1 << len) - 1) }
        };
        Bits { x: cut(a.x), v: cut(a.v) }
    };
    cx.set(cx.op(0), r.v);
    cx.set_flags(bits::result_flags(r, width) & ZF, a.v | control.v);
}

fn scatter<M: Machine>(cx: &mut Cx<M>, op: BitOp, width: u32) {
    let a = cx.bits(cx.op(1)).masked(mask(width));
    let map = cx.bits(cx.op(2)).masked(mask(width));
    let v = match (map.v, op) {
        (0, BitOp::Pdep) => deposit(a.v, map.x),
        (0, _) => extract(a.v, map.x),
        // No bit below the first undefined place of the map can vary with it; no result bit lies outside the map's reach.
        (open, BitOp::Pdep) => {
            let below = open & open.wrapping_neg();
            deposit(a.v, map.x) & below.wrapping_sub(1) | smear_left(open) & map.max()
        }
        (open, _) => {
            let first = (map.x & (open & open.wrapping_neg()).wrapping_sub(1)).count_ones();
            let reach = map.max().count_ones();
            let above = u64::MAX.checked_shl(first).unwrap_or(0);
            extract(a.v, map.x) & !above | above & u64::MAX.checked_shl(reach).map_or(u64::MAX, |v| !v)
        }
    };
    cx.set(cx.op(0), v & mask(width));
}

/// Low bits of `word` to the places of `map`.
fn deposit(word: u64, mut map: u64) -> u64 {
    let (mut out, mut from) = (0, 0);
    while map != 0 {
        let place = map & map.wrapping_neg();
        if word >> from & 1 != 0 {
            out |= place;
        }
        from += 1;
        map ^= place;
    }
    out
}

/// The bits of `word` at the places of `map`, packed.
fn extract(word: u64, mut map: u64) -> u64 {
    let (mut out, mut to) = (0, 0);
    while map != 0 {
        let place = map & map.wrapping_neg();
        if word & place != 0 {
            out |= 1 << to;
        }
        to += 1;
        map ^= place;
    }
    out
}
