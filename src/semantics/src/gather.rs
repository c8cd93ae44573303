//! Gathers and scatters: one address per lane.
//!
//! Every address and every guard must be defined; the first undefined one of each kind is reported and they count as defined then.

use iced_x86::Mnemonic::*;

use crate::bits::sign_extend;
use crate::cx::Cx;
use crate::machine::{ComplaintKind, Machine};
use crate::plan::Operand;
use crate::regs::{MASK0, VEC0};
use crate::table::{Row, Rule};
use crate::wide::Wide;

#[rustfmt::skip] // one row per rule
pub const ROWS: &[Row] = &[
    (&[Vpgatherdd, Vpgatherqd, Vgatherdps, Vgatherqps], Rule::Gather(4)),
    (&[Vpgatherdq, Vpgatherqq, Vgatherdpd, Vgatherqpd], Rule::Gather(8)),
    (&[Vpscatterdd, Vpscatterqd, Vscatterdps, Vscatterqps], Rule::Scatter(4)),
    (&[Vpscatterdq, Vpscatterqq, Vscatterdpd, Vscatterqpd], Rule::Scatter(8)),
    (&[Vgatherpf0dpd, Vgatherpf0dps, Vgatherpf0qpd, Vgatherpf0qps, Vgatherpf1dpd, Vgatherpf1dps, Vgatherpf1qpd, Vgatherpf1qps], Rule::Nop),
];

/// Which lanes take part; complains about guards that are undefined.
fn guards<M: Machine>(cx: &mut Cx<M>, lane: usize, lanes: usize) -> u64 {
    let all = if lanes >= 64 { u64::MAX } else { (1 << lanes) - 1 };
    match (cx.plan.mask, cx.op(2)) {
        (Some(mask), _) => {
            let k = cx.mask_bits(mask.k).masked(all);
            if k.v != 0 {
                cx.complain(ComplaintKind::Cond, cx.regs.origin[MASK0 + usize::from(mask.k)]);
            }
            k.x
        }
        (None, control @ Operand::Vec { n, .. }) => {
            let control = cx.vector(control);
            let top = 1u64 << (lane * 8 - 1);
            let bits = |wide: &Wide| (0..lanes).fold(0, |all, i| all | u64::from(wide.lane(lane, i) & top != 0) << i);
            if bits(&control.v) != 0 {
                cx.complain(ComplaintKind::Cond, cx.regs.origin[VEC0 + usize::from(n)]);
            }
            bits(&control.x)
        }
        _ => all,
    }
}

/// The address of every lane that takes part; complains once if an index is undefined.
fn addresses<M: Machine>(cx: &mut Cx<M>, on: u64, lanes: usize) -> [u64; 16] {
    let mut out = [0; 16];
    let Some(mem) = cx.plan.mem else { return out };
    let n = usize::from(mem.index);
    let (x, v) = (cx.m.vec(n), cx.regs.vec(n));
    let width = usize::from(mem.vsib);
    let mut undefined = false;
    for (i, addr) in out.iter_mut().enumerate().take(lanes).filter(|(i, _)| on >> i & 1 != 0) {
        undefined |= v.lane(width, i) != 0;
        let index = sign_extend(x.lane(width, i), width as u32 * 8) as u64;
        *addr = cx.addr.wrapping_add(index.wrapping_mul(u64::from(mem.scale)));
    }
    if undefined {
        cx.complain(ComplaintKind::Value { size: 8 }, cx.regs.origin[VEC0 + n]);
        cx.regs.set_vec(n, Wide::ZERO, 0);
    }
    out
}

/// As many lanes as there are both indexes and elements.
fn lane_count<M: Machine>(cx: &Cx<M>, data: Operand, lane: usize) -> usize {
    let Some(mem) = cx.plan.mem else { return 0 };
    (cx.plan.size(data) / lane).min(usize::from(mem.index_size) / usize::from(mem.vsib.max(1))).min(16)
}

/// Loaded lanes replace those of the destination; the guard register ends up zero.
pub(crate) fn gather<M: Machine>(cx: &mut Cx<M>, lane: u8) {
    let lane = usize::from(lane);
    let target = cx.op(0);
    let lanes = lane_count(cx, target, lane);
    let on = guards(cx, lane, lanes);
    let at = addresses(cx, on, lanes);
    let mut v = cx.wide_v(target).truncated(lanes * lane);
    for i in (0..lanes).filter(|i| on >> i & 1 != 0) {
        let one = cx.load_v(at[i], lane).0[0];
        if one != 0 {
            cx.origin = cx.m.load_origin(at[i], lane);
        }
        v.set(lane, i, one);
    }
    if cx.fault {
        return;
    }
    if let Operand::Vec { n, .. } = target {
        cx.regs.set_vec(usize::from(n), v, cx.origin);
    }
    clear_guard(cx);
}

pub(crate) fn scatter<M: Machine>(cx: &mut Cx<M>, lane: u8) {
    let lane = usize::from(lane);
    let source = cx.op(1);
    let lanes = lane_count(cx, source, lane);
    let on = guards(cx, lane, lanes);
    let at = addresses(cx, on, lanes);
    let v = cx.wide_v(source);
    for i in (0..lanes).filter(|i| on >> i & 1 != 0) {
        let mut one = Wide::ZERO;
        one.0[0] = v.lane(lane, i);
        cx.store_v(at[i], lane, one);
    }
    clear_guard(cx);
}

fn clear_guard<M: Machine>(cx: &mut Cx<M>) {
    match (cx.plan.mask, cx.op(2)) {
        (Some(mask), _) => cx.regs.set_mask(usize::from(mask.k), 0, 0),
        (None, Operand::Vec { n, .. }) => cx.regs.set_vec(usize::from(n), Wide::ZERO, 0),
        _ => {}
    }
}
