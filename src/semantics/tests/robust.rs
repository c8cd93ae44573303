//! Whatever bytes a program calls code, the engine survives them, and keeps the mask of dirty registers exact.
#[path = "support/random.rs"]
mod random;
#[path = "support/toy.rs"]
mod toy;

use iced_x86::{Decoder, DecoderOptions};
use memcheck_semantics::regs::{ARITH, FLAGS, MASK0, VEC0, X87};
use memcheck_semantics::{Planner, ShadowRegs, Wide, run};
use random::Random;
use toy::Toy;

/// `MEMCHECK_PROOF_SEED` changes the dice here, too.
fn seed() -> u64 {
    std::env::var("MEMCHECK_PROOF_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Random bytes, often with the prefixes that open the larger opcode maps.
fn bytes(random: &mut Random) -> [u8; 15] {
    let mut out: [u8; 15] = std::array::from_fn(|_| random.word() as u8);
    let opening: &[u8] = random.pick(&[
        &[][..],
        &[0x0F],
        &[0x66, 0x0F],
        &[0xF3, 0x0F],
        &[0xF2, 0x0F],
        &[0x0F, 0x38],
        &[0x66, 0x0F, 0x38],
        &[0x66, 0x0F, 0x3A],
        &[0xC5, 0xF9],
        &[0xC4, 0xE2, 0x7D],
        &[0xC4, 0xE3, 0xFD],
        &[0x62, 0xF1, 0x7D, 0x49],
        &[0x62, 0xF2, 0xFD, 0x29],
        &[0x62, 0xF3, 0x7D, 0x5A],
        &[0x48],
        &[0x66],
        &[0xF3],
        &[0x67, 0x48],
        &[0xF0],
        &[0xD9],
        &[0xDF],
        &[0x0F, 0xAE],
        &[0x0F, 0xC7],
    ]);
    out[..opening.len()].copy_from_slice(opening);
    out
}

fn dirty_registers(random: &mut Random) -> ShadowRegs {
    let mut regs = ShadowRegs::new();
    for i in 0..16 {
        regs.set_gpr(i, random.value() & random.value(), 1);
    }
    for i in 0..32 {
        regs.set_vec(i, Wide(std::array::from_fn(|_| random.value() & random.word())), 1);
    }
    for i in 0..8 {
        regs.set_mask(i, random.value() & random.value(), 1);
        regs.set_st(i, [random.value(), random.value() & 0xFFFF], 1);
    }
    regs.set_flags(ARITH, random.word() & ARITH, 1);
    regs
}

fn check_dirty_mask(regs: &ShadowRegs) {
    for i in 0..16 {
        assert_eq!(regs.dirty >> i & 1 != 0, regs.gpr(i) != 0, "gpr {i}");
    }
    for i in 0..32 {
        assert_eq!(regs.dirty >> (VEC0 + i) & 1 != 0, !regs.vec(i).is_zero(), "vector {i}");
    }
    for i in 0..8 {
        assert_eq!(regs.dirty >> (MASK0 + i) & 1 != 0, regs.mask(i) != 0, "mask {i}");
    }
    assert_eq!(regs.dirty >> FLAGS & 1 != 0, regs.flags() & ARITH != 0);
    assert_eq!(regs.dirty >> X87 & 1 != 0, regs.fsw() != 0 || (0..8).any(|i| regs.st(i) != [0, 0]));
}

#[test]
fn any_bytes_are_survived() {
    let mut random = Random::new(seed() + 10);
    let mut planner = Planner::new();
    let mut decoded = 0;
    for _ in 0..30_000 {
        let bytes = bytes(&mut random);
        let insn = Decoder::with_ip(64, &bytes, toy::CODE, DecoderOptions::NONE).decode();
        if insn.is_invalid() {
            continue;
        }
        decoded += 1;
        let mut toy = Toy { rflags: random.word(), ..Toy::default() };
        toy.gpr = std::array::from_fn(|_| random.value());
        // A repetition is carried out as often as the counter says.
        toy.gpr[1] &= 0x3F;
        toy.vec = (0..32).map(|i| (i, Wide(std::array::from_fn(|_| random.value())))).collect();
        let mut regs = dirty_registers(&mut random);
        let outcome = run(&planner.plan(&insn), &mut regs, &mut toy);
        check_dirty_mask(&regs);
        assert_eq!(outcome.clean, regs.is_clean());
    }
    assert!(decoded > 15_000, "{decoded} valid instructions");
}

/// With nothing undefined, nothing becomes undefined and nobody complains.
#[test]
fn clean_stays_clean() {
    let mut random = Random::new(seed() + 20);
    let mut planner = Planner::new();
    for _ in 0..30_000 {
        let bytes = bytes(&mut random);
        let insn = Decoder::with_ip(64, &bytes, toy::CODE, DecoderOptions::NONE).decode();
        if insn.is_invalid() {
            continue;
        }
        let mut toy = Toy { rflags: random.word(), ..Toy::default() };
        toy.gpr = std::array::from_fn(|_| random.value());
        toy.gpr[1] &= 0x3F;
        let mut regs = ShadowRegs::new();
        let outcome = run(&planner.plan(&insn), &mut regs, &mut toy);
        assert!(outcome.clean && toy.complaints.is_empty(), "{insn:?}");
        assert!(toy.memory_v.values().all(|&v| v == 0), "{insn:?}");
    }
}
