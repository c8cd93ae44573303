//! Moving one instruction of the program to another place.
//!
//! Most instructions are copied byte by byte. Two kinds of memory operand cannot be: rip-relative ones (the code moved) and those
//! with a segment (fs and gs are ours in translated code). For them ModRM, SIB and displacement are written anew:
//!
//! ```text
//! prefixes [REX|VEX|EVEX] opcode | ModRM [SIB] [disp] | immediate
//!  kept, segment dropped          rewritten           kept
//! ```
//! The displacement is always written with 32 bits, which also sidesteps EVEX's scaled 8-bit form.

use crate::emit::{Asm, Mem};

/// Where the parts of an instruction are.
struct Parts {
    /// End of the legacy prefixes.
    prefixes: usize,
    encoding: Encoding,
    /// Position of the ModRM byte.
    modrm: usize,
    /// First byte after the memory operand's encoding.
    tail: usize,
}

#[derive(PartialEq, Eq)]
enum Encoding {
    Legacy,
    Rex,
    Vex2,
    Vex3,
    Evex,
}

pub fn is_prefix(b: u8) -> bool {
    matches!(b, 0x66 | 0x67 | 0xf2 | 0xf3 | 0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65)
}

fn parts(raw: &[u8]) -> Option<Parts> {
    let prefixes = raw.iter().position(|&b| !is_prefix(b))?;
    let first = raw[prefixes];
    let (encoding, opcode) = match first {
        0xc5 => (Encoding::Vex2, prefixes + 2),
        0xc4 => (Encoding::Vex3, prefixes + 3),
        0x8f if raw.get(prefixes + 1)? & 0x1f >= 8 => (Encoding::Vex3, prefixes + 3),
        0x62 => (Encoding::Evex, prefixes + 4),
        0x40..=0x4f => (Encoding::Rex, prefixes + 1),
        _ => (Encoding::Legacy, prefixes),
    };
    let mut modrm = opcode + 1;
    if matches!(encoding, Encoding::Legacy | Encoding::Rex) && *raw.get(opcode)? == 0x0f {
        modrm = opcode + if matches!(*raw.get(opcode + 1)?, 0x38 | 0x3a) { 3 } else { 2 };
    }
    let m = *raw.get(modrm)?;
    let mut tail = modrm + 1;
    let (mode, rm) = (m >> 6, m & 7);
    if mode == 3 {
        return None;
    }
    if rm == 4 {
        let sib = *raw.get(tail)?;
        tail += 1;
        if mode == 0 && sib & 7 == 5 {
            tail += 4;
        }
    } else if mode == 0 && rm == 5 {
        tail += 4;
    }
    tail += [0, 1, 4][mode as usize];
    (tail <= raw.len()).then_some(Parts { prefixes, encoding, modrm, tail })
}

/// Emit `raw` with its memory operand replaced by `m` (whose segment must be none). False if the encoding has no memory operand
/// or cannot express `m`.
pub fn emit_with_mem(asm: &mut Asm, raw: &[u8], m: &Mem) -> bool {
    let Some(p) = parts(raw) else { return false };
    let ext_b = m.base.is_some_and(|b| b >= 8);
    let ext_x = m.index.is_some_and(|(r, _)| r >= 8);
    if p.encoding == Encoding::Vex2 && (ext_b || ext_x) {
        return false;
    }
    for &b in &raw[..p.prefixes] {
        if !matches!(b, 0x64 | 0x65 | 0x67) {
            asm.buf.push(b);
        }
    }
    let start = asm.offset();
    if p.encoding == Encoding::Legacy && (ext_b || ext_x) {
        asm.buf.push(0x40);
        asm.bytes(&raw[p.prefixes..p.modrm]);
    } else {
        asm.bytes(&raw[p.prefixes..p.modrm]);
    }
    set_extensions(&mut asm.buf[start..], &p.encoding, ext_x, ext_b);
    let field = raw[p.modrm] & 0x38;
    let index = m.index.map_or(0x20, |(r, s)| s << 6 | (r & 7) << 3);
    match m.base {
        None => asm.bytes(&[field | 4, index | 5]),
        Some(b) => asm.bytes(&[0x80 | field | 4, index | b & 7]),
    }
    asm.u32(m.disp as u32);
    asm.bytes(&raw[p.tail..]);
    true
}

/// Write the X and B extension bits (inverted in VEX and EVEX).
fn set_extensions(code: &mut [u8], encoding: &Encoding, x: bool, b: bool) {
    match encoding {
        Encoding::Legacy | Encoding::Rex => {
            if code[0] & 0xf0 == 0x40 {
                code[0] = code[0] & !3 | u8::from(x) << 1 | u8::from(b);
            }
        }
        Encoding::Vex2 => {}
        Encoding::Vex3 | Encoding::Evex => {
            code[1] |= 0x60;
            if x {
                code[1] &= !0x40;
            }
            if b {
                code[1] &= !0x20;
            }
        }
    }
}
