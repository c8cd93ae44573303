//! Two outcomes of the same program.

use crate::machine::{End, Outcome};
use crate::vectors;
use iced_x86::RflagsBits;

/// The decoder library's flag bits and the processor's.
const FLAGS: [(u32, u64); 6] = [
    (RflagsBits::CF, 1),
    (RflagsBits::PF, 4),
    (RflagsBits::AF, 0x10),
    (RflagsBits::ZF, 0x40),
    (RflagsBits::SF, 0x80),
    (RflagsBits::OF, 0x800),
];
const DIRECTION: u64 = 0x400;

const NAMES: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// What differs, in a line per register; None if nothing does. `undefined`: flags that have no defined value at the end.
pub fn difference(native: &Outcome, translated: &Outcome, undefined: u32, components: u64) -> Option<String> {
    let mut lines = Vec::new();
    if native.end != translated.end {
        lines.push(format!("end: native {:x?}, translated {:x?}", native.end, translated.end));
    }
    for (i, (n, t)) in native.gpr.iter().zip(translated.gpr).enumerate() {
        if *n != t {
            lines.push(format!("{}: native {n:#x}, translated {t:#x}", NAMES[i]));
        }
    }
    // Where a program faults, flags that it would have overwritten next are not kept.
    let faulted = matches!(native.end, End::Fault { .. });
    let defined = FLAGS.iter().filter(|(bit, _)| undefined & bit == 0).map(|(_, flag)| flag).sum::<u64>();
    let mask = DIRECTION | if faulted { 0 } else { defined };
    if (native.rflags ^ translated.rflags) & mask != 0 {
        lines.push(format!("flags: native {:#x}, translated {:#x} (compared: {mask:#x})", native.rflags, translated.rflags));
    }
    // Nor is the top of the x87 stack: some processors reset it for an MMX instruction that then faults.
    let turned = faulted.then(|| vectors::with_top(&translated.vectors, vectors::top(&native.vectors)));
    let vectors = turned.as_ref().unwrap_or(&translated.vectors);
    if let Some(at) = native.vectors.iter().zip(vectors).position(|(n, t)| n != t) {
        let at8 = at & !7;
        let word = |v: &[u8]| u64::from_le_bytes(v[at8..at8 + 8].try_into().unwrap_or_default());
        lines.push(format!("{}: native {:#x}, translated {:#x}", vectors::name(at, components), word(&native.vectors), word(vectors)));
    }
    if let Some((addr, n, t)) = native.image.difference(&translated.image) {
        lines.push(format!("memory at {addr:#x}: native {n:#x}, translated {t:#x}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}
