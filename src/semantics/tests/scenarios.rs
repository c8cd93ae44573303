//! Short stories: idioms that must be silent, uses that must be reported, and journeys of V bits and origins through memory.
#[path = "support/toy.rs"]
mod toy;

use iced_x86::code_asm::{
    al, byte_ptr, dword_ptr, eax, ebx, ecx, edx, ptr, qword_ptr, r8, rax, rbp, rbx, rcx, rdi, rdx, rsi, xmm0, xmm1, xmm9, ymm3,
};
use memcheck_semantics::ComplaintKind::{Branch, Cond, Target, Value};
use memcheck_semantics::lookahead::same_way;
use memcheck_semantics::regs::{ARITH, CF, VEC0, ZF};
use memcheck_semantics::repeats;
use memcheck_semantics::{Planner, ShadowRegs, Wide};
use toy::{Toy, assemble, straight};

const RAX: usize = 0;
const RCX: usize = 1;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;

fn undefined(registers: &[usize]) -> ShadowRegs {
    let mut regs = ShadowRegs::new();
    registers.iter().for_each(|&n| regs.set_gpr(n, u64::MAX, 7 + n as u32));
    regs
}

#[test]
fn a_branch_complains_once_and_settles_its_flags() {
    let code = assemble(|a| {
        let mut out = a.create_label();
        a.test(eax, eax)?;
        a.je(out)?;
        a.je(out)?;
        a.set_label(&mut out)?;
        a.nop()
    });
    let (mut regs, mut toy) = (undefined(&[RAX]), Toy::default());
    straight(&code, &mut regs, &mut toy);
    assert_eq!(toy.kinds(), [Branch]);
    assert_eq!(toy.complaints[0].origin, 7, "the origin of rax");
    assert_eq!(regs.flags() & ZF, 0);
}

#[test]
fn test_leaves_carry_and_overflow_defined() {
    let code = assemble(|a| {
        let mut out = a.create_label();
        a.test(eax, eax)?;
        a.jb(out)?;
        a.jo(out)?;
        a.set_label(&mut out)?;
        a.nop()
    });
    let (mut regs, mut toy) = (undefined(&[RAX]), Toy::default());
    straight(&code, &mut regs, &mut toy);
    assert_eq!(toy.kinds(), []);
}

#[test]
fn an_undefined_address_is_reported_and_counts_as_defined() {
    let code = assemble(|a| {
        a.mov(rcx, ptr(rax + 8))?;
        a.mov(rcx, ptr(rax + 16))?;
        a.lea(rcx, ptr(rbx + 16))
    });
    let (mut regs, mut toy) = (undefined(&[RAX, RBX]), Toy::default());
    straight(&code, &mut regs, &mut toy);
    assert_eq!(toy.kinds(), [Value { size: 8 }]);
    assert_eq!(regs.gpr(RAX), 0);
    assert_eq!(regs.gpr(RCX), u64::MAX, "lea computes, it does not access");
}

#[test]
fn idioms_do_not_depend_on_their_register() {
    let code = assemble(|a| {
        a.xor(eax, eax)?;
        a.sub(rbx, rbx)?;
        a.sbb(ecx, ecx)?;
        a.pxor(xmm0, xmm0)?;
        a.pcmpeqb(xmm1, xmm1)
    });
    let mut regs = undefined(&[RAX, RBX, RCX]);
    regs.set_vec(0, Wide::ONES.truncated(16), 1);
    regs.set_vec(1, Wide::ONES.truncated(16), 1);
    let outcomes = straight(&code, &mut regs, &mut Toy::default());
    assert!(outcomes[4].clean && !outcomes[3].clean);

    let mut regs = undefined(&[RCX]);
    regs.set_flags(ARITH, CF, 1);
    straight(&assemble(|a| a.sbb(ecx, ecx)), &mut regs, &mut Toy::default());
    assert_eq!(regs.gpr(RCX), 0xFFFF_FFFF, "the carry is spread");
}

/// `int field : 16` at bit 15 of a word of which other bits are undefined, as gcc reads it: doubling is a shift, not a sum.
#[test]
fn doubling_moves_bits_and_carries_nothing() {
    let word = 0x8000_2000;
    let code = assemble(|a| {
        a.lea(ebx, ptr(rax + rax))?;
        a.sar(ebx, 16)?;
        a.mov(ecx, eax)?;
        a.add(ecx, ecx)?;
        a.mov(edx, eax)?;
        a.adc(edx, edx)
    });
    let mut regs = ShadowRegs::new();
    regs.set_gpr(RAX, word, 1);
    straight(&code, &mut regs, &mut Toy::default());
    assert_eq!(regs.gpr(RBX), 0);
    assert_eq!(regs.gpr(RCX), 0x4000);
    assert_eq!(regs.gpr(2), 0x4001, "the bit that was shifted out of ecx comes in");
    assert_eq!(regs.flags() & CF, CF);
}

/// The classic search for a zero byte in a word: bytes behind the terminator may be undefined.
#[test]
fn word_at_a_time_string_search_is_silent() {
    let mut toy = Toy::default();
    let text = u64::from_le_bytes(*b"abc\0\xC3\xD4\xE5\xF6");
    let (ones, highs) = (0x0101_0101_0101_0101u64, 0x8080_8080_8080_8080u64);
    let mut regs = ShadowRegs::new();
    regs.set_gpr(RAX, 0xFFFF_FFFF_0000_0000, 1);
    regs.set_gpr(RBX, 0xFFFF_FFFF_0000_0000, 1);
    // rbx = text - ones; rax = !text & rbx & highs; find the lowest bit.
    let steps = [
        (assemble(|a| a.sub(rbx, rcx)), [text, ones, highs, text]),
        (assemble(|a| a.not(rax)), [text, ones, highs, text.wrapping_sub(ones)]),
        (assemble(|a| a.and(rax, rbx)), [!text, ones, highs, text.wrapping_sub(ones)]),
        (assemble(|a| a.and(rax, rdx)), [!text & text.wrapping_sub(ones), ones, highs, 0]),
        (assemble(|a| a.bsf(rcx, rax)), [!text & text.wrapping_sub(ones) & highs, ones, highs, 0]),
    ];
    for (code, values) in &steps {
        toy.gpr[..4].copy_from_slice(values);
        straight(code, &mut regs, &mut toy);
    }
    assert_eq!(regs.flags() & ZF, 0, "there is a zero byte, whatever follows it");
    assert_eq!(regs.gpr(RCX), 0, "and it is byte 3");
}

/// memcmp by vectors: a defined difference decides although later bytes are undefined.
#[test]
fn vector_compare_finds_the_first_defined_difference() {
    let mut toy = Toy::default();
    let mut b = Wide::ZERO;
    b.set(1, 3, 0x55);
    toy.vec.insert(1, b);
    let mut regs = ShadowRegs::new();
    regs.set_vec(0, Wide([0, u64::MAX, 0, 0, 0, 0, 0, 0]), 1);
    straight(&assemble(|a| a.pcmpeqb(xmm0, xmm1)), &mut regs, &mut toy);
    straight(&assemble(|a| a.pmovmskb(eax, xmm0)), &mut regs, &mut toy);
    assert_eq!(regs.gpr(RAX), 0xFF00, "one bit per byte, bits above are zero");
    toy.gpr[RAX] = 0x00F7;
    straight(&assemble(|a| a.sub(eax, 0xFFFF)), &mut regs, &mut toy);
    assert_eq!(regs.flags() & ZF, 0, "bit 3 is a certain difference");
    toy.gpr[RAX] = 0x00F7u32.wrapping_sub(0xFFFF).into();
    straight(&assemble(|a| a.bsf(ecx, eax)), &mut regs, &mut toy);
    assert_eq!(regs.gpr(RCX), 0);
}

/// A compare with 2^n - 1 only looks at the upper bits.
#[test]
fn a_compare_with_a_power_of_two_ignores_lower_bits() {
    let mut toy = Toy::default();
    toy.gpr[RAX] = 5;
    let mut regs = ShadowRegs::new();
    regs.set_gpr(RAX, 0xFF, 1);
    straight(&assemble(|a| a.cmp(eax, 0xFF)), &mut regs, &mut toy);
    let code = assemble(|a| {
        let mut out = a.create_label();
        a.jbe(out)?;
        a.set_label(&mut out)?;
        a.je(out)
    });
    straight(&code, &mut regs, &mut toy);
    assert_eq!(toy.kinds(), [Branch], "only the test for equality depends on them");
}

#[test]
fn stack_call_and_return() {
    let mut toy = Toy::default();
    toy.gpr[RSP] = 0x8000;
    let mut regs = undefined(&[RAX]);
    straight(&assemble(|a| a.push(rax)), &mut regs, &mut toy);
    assert_eq!(toy.v(0x7FF8, 8), [0xFF; 8]);
    toy.gpr[RSP] = 0x7FF8;
    straight(&assemble(|a| a.pop(rbx)), &mut regs, &mut toy);
    assert_eq!(regs.gpr(RBX), u64::MAX);
    straight(&assemble(|a| a.ret()), &mut regs, &mut toy);
    assert_eq!(toy.kinds(), [Target], "the pushed word as a return address");
    toy.complaints.clear();
    toy.gpr[RSP] = 0x8000;
    straight(&assemble(|a| a.call(rax)), &mut regs, &mut toy);
    assert_eq!((toy.kinds(), toy.v(0x7FF8, 8)), (vec![Target], vec![0; 8]), "a return address is defined");
    assert_eq!(regs.gpr(RAX), 0);
}

#[test]
fn leave_takes_the_frame_from_memory() {
    let mut toy = Toy::default();
    toy.gpr[RBP] = 0x9000;
    toy.poke_v(0x9000, &[0xF0; 8]);
    let mut regs = undefined(&[RSP]);
    straight(&assemble(|a| a.leave()), &mut regs, &mut toy);
    assert_eq!((regs.gpr(RSP), regs.gpr(RBP)), (0, 0xF0F0_F0F0_F0F0_F0F0));
    regs = undefined(&[RBP]);
    straight(&assemble(|a| a.push(rbp)), &mut regs, &mut toy);
    assert_eq!(toy.kinds(), []);
}

#[test]
fn repeated_strings_move_and_compare() {
    let mut toy = Toy::default();
    (toy.gpr[RCX], toy.gpr[6], toy.gpr[7]) = (100, 0x2000, 0x3000);
    toy.poke_v(0x2000 + 90, &[1, 2, 3]);
    let mut regs = ShadowRegs::new();
    straight(&assemble(|a| a.rep().movsb()), &mut regs, &mut toy);
    assert_eq!(toy.v(0x3000 + 89, 5), [0, 1, 2, 3, 0]);

    // Equal up to the undefined bytes: going on depends on them.
    straight(&assemble(|a| a.repe().cmpsb()), &mut regs, &mut toy);
    assert_eq!(toy.kinds(), [Cond]);
    // A defined difference before them ends it in time.
    toy.complaints.clear();
    toy.poke(0x3000 + 4, &[9]);
    straight(&assemble(|a| a.repe().cmpsb()), &mut regs, &mut toy);
    assert_eq!((toy.kinds(), regs.is_clean()), (vec![], true));

    let mut regs = undefined(&[RCX]);
    straight(&assemble(|a| a.rep().stosb()), &mut regs, &mut toy);
    assert_eq!((toy.kinds(), regs.gpr(RCX)), (vec![Cond], 0));
}

#[test]
fn origins_travel_with_the_bits() {
    let mut toy = Toy::default();
    (toy.gpr[6], toy.gpr[7]) = (0x2000, 0x3000);
    toy.poke_v(0x2000, &[0xFF; 4]);
    toy.origins.insert(0x2000, 42);
    let code = assemble(|a| {
        a.mov(eax, dword_ptr(rsi))?;
        a.add(eax, 5)?;
        a.mov(dword_ptr(rdi), eax)?;
        a.movzx(ebx, byte_ptr(rdi))?;
        a.mov(edx, ebx)?;
        a.cmp(edx, ecx)
    });
    let mut regs = ShadowRegs::new();
    straight(&code, &mut regs, &mut toy);
    assert_eq!(toy.origins.get(&0x3000), Some(&42));
    assert_eq!(regs.origin_of(1 << memcheck_semantics::regs::FLAGS), 42);
}

#[test]
fn partial_registers_keep_what_they_do_not_write() {
    let mut toy = Toy::default();
    let mut regs = undefined(&[RAX]);
    straight(&assemble(|a| a.mov(al, 1)), &mut regs, &mut toy);
    assert_eq!(regs.gpr(RAX), !0xFF);
    straight(&assemble(|a| a.mov(eax, 1)), &mut regs, &mut toy);
    assert!(regs.is_clean());
}

/// Lazy binding saves and restores every vector register around a first call.
#[test]
fn vector_bits_survive_xsave_and_xrstor() {
    for compact in [false, true] {
        let mut toy = Toy::default();
        (toy.gpr[RAX], toy.gpr[7]) = (0xE6, 0x10000);
        let mut regs = ShadowRegs::new();
        let v = Wide([1, 0, 0x300, 0, 0, 0, 7, 0]);
        regs.set_vec(3, v, 5);
        regs.set_vec(20, Wide([0, 0, 0, 9, 0, 0, 0, 0]), 5);
        regs.set_mask(2, 0xF0, 5);
        let save = if compact { assemble(|a| a.xsavec(ptr(rdi))) } else { assemble(|a| a.xsave(ptr(rdi))) };
        straight(&save, &mut regs, &mut toy);
        // What the processor writes into the header: all components are there.
        toy.poke(0x10000 + 512, &0xE6u64.to_le_bytes());
        toy.poke(0x10000 + 520, &(if compact { 0xE6 | 1u64 << 63 } else { 0 }).to_le_bytes());
        let mut later = ShadowRegs::new();
        later.set_vec(4, Wide::ONES, 1);
        straight(&assemble(|a| a.xrstor(ptr(rdi))), &mut later, &mut toy);
        assert_eq!(later.vec(3), v, "compact {compact}");
        assert_eq!(later.vec(20).0[3], 9);
        assert_eq!((later.mask(2), later.vec(4)), (0xF0, Wide::ZERO));
        assert_eq!(later.dirty, regs.dirty);
    }
}

#[test]
fn fxsave_keeps_the_low_halves() {
    let mut toy = Toy::default();
    toy.gpr[7] = 0x10000;
    let mut regs = ShadowRegs::new();
    regs.set_vec(9, Wide([4, 5, 6, 7, 0, 0, 0, 0]), 1);
    regs.set_st(2, [3, 1], 1);
    straight(&assemble(|a| a.fxsave(ptr(rdi))), &mut regs, &mut toy);
    let mut later = ShadowRegs::new();
    straight(&assemble(|a| a.fxrstor(ptr(rdi))), &mut later, &mut toy);
    assert_eq!((later.vec(9), later.st(2)), (Wide([4, 5, 0, 0, 0, 0, 0, 0]), [3, 1]));
}

#[test]
fn vector_lengths_zero_or_keep_what_lies_above() {
    let mut regs = ShadowRegs::new();
    regs.set_vec(9, Wide::ONES, 1);
    regs.set_vec(3, Wide::ONES, 1);
    let mut toy = Toy::default();
    toy.gpr[7] = 0x5000;
    straight(&assemble(|a| a.movups(xmm9, ptr(rdi))), &mut regs, &mut toy);
    assert_eq!(regs.vec(9), !Wide::ONES.truncated(16), "legacy encodings keep the upper part");
    straight(&assemble(|a| a.vmovups(ymm3, ptr(rdi))), &mut regs, &mut toy);
    assert_eq!(regs.dirty >> (VEC0 + 3) & 1, 0, "VEX encodings zero it");
}

/// if (a && b) with b tested first: the second test decides alone.
#[test]
fn reordered_conjunctions_are_excused() {
    let code = assemble(|a| {
        let (mut no, mut yes) = (a.create_label(), a.create_label());
        a.je(no)?;
        a.lea(ecx, dword_ptr(rsi - 0x2000))?;
        a.test(ecx, ecx)?;
        a.je(no)?;
        a.set_label(&mut yes)?;
        a.nop()?;
        a.set_label(&mut no)?;
        a.ret()
    });
    let branch = code.0[0];
    let mut regs = ShadowRegs::new();
    regs.set_flags(ARITH, ZF, 1);
    let mut toy = Toy::default();
    toy.gpr[6] = 0x2000;
    assert!(same_way(&code, &mut Planner::new(), &branch, &regs, &mut toy), "a is false: both ways lead to no");
    toy.gpr[6] = 0x2001;
    assert!(!same_way(&code, &mut Planner::new(), &branch, &regs, &mut toy), "a is true: b decides");
    toy.gpr[6] = 0x2000;
    regs.set_gpr(6, 0xFF, 1);
    assert!(!same_way(&code, &mut Planner::new(), &branch, &regs, &mut toy), "a is undefined too");
    assert_eq!(toy.kinds(), [], "looking ahead never complains itself");
}

#[test]
fn choosing_a_value_is_no_conjunction() {
    let code = assemble(|a| {
        let mut on = a.create_label();
        a.je(on)?;
        a.mov(eax, 1)?;
        a.set_label(&mut on)?;
        a.ret()
    });
    let mut regs = ShadowRegs::new();
    regs.set_flags(ARITH, ZF, 1);
    assert!(!same_way(&code, &mut Planner::new(), &code.0[0], &regs, &mut Toy::default()));
}

#[test]
fn looking_ahead_stops_at_effects_and_memory() {
    let store = assemble(|a| {
        let mut no = a.create_label();
        a.je(no)?;
        a.mov(dword_ptr(rsi), ecx)?;
        a.test(ecx, ecx)?;
        a.je(no)?;
        a.set_label(&mut no)?;
        a.ret()
    });
    let mut regs = ShadowRegs::new();
    regs.set_flags(ARITH, ZF, 1);
    let mut toy = Toy::default();
    assert!(!same_way(&store, &mut Planner::new(), &store.0[0], &regs, &mut toy));
    let wild = assemble(|a| {
        let mut no = a.create_label();
        a.je(no)?;
        a.cmp(qword_ptr(rsi), 0)?;
        a.je(no)?;
        a.set_label(&mut no)?;
        a.ret()
    });
    assert!(!same_way(&wild, &mut Planner::new(), &wild.0[0], &regs, &mut toy), "the operand is loaded where the source has it");
    assert_eq!(toy.kinds(), []);
}

#[test]
fn whole_lines_move_and_vanish() {
    let mut toy = Toy::default();
    (toy.gpr[RAX], toy.gpr[6]) = (0x3010, 0x2000);
    toy.poke_v(0x2000 + 60, &[9; 4]);
    let mut regs = undefined(&[RAX]);
    straight(&assemble(|a| a.movdir64b(rax, ptr(rsi))), &mut regs, &mut toy);
    assert_eq!((toy.v(0x3010 + 60, 4), toy.kinds()), (vec![9; 4], vec![Value { size: 8 }]));
    straight(&assemble(|a| a.clzero()), &mut regs, &mut toy);
    assert_eq!(toy.v(0x3000 + 60, 4), [0; 4]);
    assert_eq!(toy.v(0x3040, 16)[12..], [9; 4], "the next line stays");
}

/// frstor has no row and reads 108 bytes: all of them count.
#[test]
fn large_sources_without_a_row_are_read_to_their_end() {
    let mut toy = Toy::default();
    toy.gpr[6] = 0x2000;
    toy.poke_v(0x2000 + 100, &[1]);
    let mut regs = ShadowRegs::new();
    straight(&assemble(|a| a.frstor(ptr(rsi))), &mut regs, &mut toy);
    assert_ne!(regs.st(0), [0, 0]);
}

/// Instructions without a row still say something, and say that they guess.
#[test]
fn no_row_means_a_careful_guess() {
    let mut regs = undefined(&[RAX]);
    let outcomes = straight(&assemble(|a| a.crc32(ecx, eax)), &mut regs, &mut Toy::default());
    assert!(outcomes[0].exact);
    let mut regs = ShadowRegs::new();
    regs.set_vec(1, Wide([1, 0, 0, 0, 0, 0, 0, 0]), 1);
    let outcomes = straight(&assemble(|a| a.vfixupimmss(xmm0, xmm1, xmm1, 0)), &mut regs, &mut Toy::default());
    assert!(!outcomes[0].exact);
    assert_ne!(regs.vec(0), Wide::ZERO);
}

/// One stretch says once what it has to say about an address.
#[test]
fn uses_of_one_address_are_reported_once_in_a_stretch() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(eax, dword_ptr(rdx))?; // 0
        a.mov(ecx, dword_ptr(rdx + 8))?; // 1: the same pointer
        a.lea(rsi, ptr(rdx + 16))?;
        a.mov(ecx, dword_ptr(rsi))?; // 3: made from it
        a.mov(ecx, dword_ptr(rbx + 4))?; // 4
        a.mov(ecx, dword_ptr(rbx + 8))?; // 5: another place than the one before; rbx itself was not asked
        a.mov(ecx, dword_ptr(rbx + 4))?; // 6
        a.mov(rdx, r8)?;
        a.mov(eax, dword_ptr(rdx))?; // 8: another value
        a.jne(again)?;
        a.call(rax)?;
        a.mov(eax, dword_ptr(r8))?; // 11: behind the call
        a.ret()
    });
    let [in_rdx, in_rbx, in_rsi, in_r8] = [2, 3, 6, 8].map(|n| 1u64 << n);
    let repeat = |from: usize, to: usize, guilty| repeats::is_repeat(&code, &[code.0[from].ip()], &code.0[to], guilty);
    assert!(repeat(0, 1, in_rdx), "the pointer was followed");
    assert!(repeat(0, 3, in_rsi), "what lies at a distance from it");
    assert!(!repeat(1, 0, in_rdx), "the next round is a stretch of its own");
    assert!(!repeat(4, 5, in_rbx), "another address");
    assert!(repeat(4, 6, in_rbx), "the same address");
    assert!(!repeat(0, 8, in_rdx), "a new value came into the register");
    assert!(!repeat(0, 4, in_rbx), "another register");
    assert!(!repeat(8, 11, in_r8), "the stretch ended at the call");
}

#[test]
fn pointers_that_move_on_count_as_defined() {
    let code = assemble(|a| {
        a.mov(al, byte_ptr(rsi))?; // 0
        a.inc(rsi)?;
        a.mov(al, byte_ptr(rdi + 1))?; // 2: not the pointer itself
        a.add(rdi, 4)?;
        a.mov(al, byte_ptr(rbx))?; // 4
        a.mov(rbx, qword_ptr(rbx + 8))?; // another value, and not made from it
        a.lodsb()?; // 6
        a.ret()
    });
    let moved = |i: usize| repeats::moves_on(&code, &code.0[i]);
    assert_eq!([moved(0), moved(2), moved(6)], [1 << 6, 0, 1 << 6]);
    assert_eq!(moved(4) & !(1 << 3), 0);
}
