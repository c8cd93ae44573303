//! The proof of the table: rules against the processor.
//!
//! For every instruction form: a random state, a few random undefined bits among the inputs. The engine says which output bits are
//! undefined. Then the real instruction runs for *every* assignment of the undefined bits. Sound: a bit called defined never varies.
//! Precise: a bit called undefined does vary; the share of those that do not is printed per mnemonic (`-- --nocapture`).
//!
//! `MEMCHECK_PROOF_SECONDS=60` keeps going with fresh dice; `MEMCHECK_PROOF_ONLY=Vpshufb` looks at one mnemonic; `MEMCHECK_PROOF_SEED=7`
//! changes the dice.
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, InstructionInfoFactory, Mnemonic as M, OpKind, Register};
use memcheck_semantics::regs::{CF, OF};
use memcheck_semantics::{Planner, Rule, ShadowRegs, run};
use support::differences::Differences;
use support::forms::{self, BASE, INDEX};
use support::native::{Native, State};
use support::random::Random;
use support::states::Before;

/// A place in the machine's state that can be undefined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Gpr(usize, usize),
    Flag(usize),
    Vec(usize, usize),
    Mask(usize, usize),
    St(usize, usize),
    Memory(usize, usize),
}

/// Bits counted over all samples of a mnemonic.
#[derive(Default)]
struct Tally {
    samples: u64,
    /// Output bits called undefined.
    called: u64,
    /// Of those, bits that did vary.
    varied: u64,
    conservative: bool,
}

struct Prover {
    native: Native,
    random: Random,
    planner: Planner,
    factory: InstructionInfoFactory,
    tallies: BTreeMap<String, Tally>,
    failures: Vec<String>,
}

fn assemble(insn: &Instruction, address: u64) -> Option<(Instruction, Vec<u8>)> {
    let mut encoder = Encoder::new(64);
    encoder.encode(insn, address).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE);
    let decoded = decoder.decode();
    (decoded.code() == insn.code()).then_some((decoded, bytes))
}

impl Prover {
    fn new(seed: u64) -> Prover {
        Prover {
            native: Native::new(),
            random: Random::new(seed),
            planner: Planner::new(),
            factory: InstructionInfoFactory::new(),
            tallies: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Tries one random instruction of a form with several random states. False if the processor refuses it.
    fn form(&mut self, code: Code, states: usize) -> bool {
        let data = self.native.data();
        let Some(insn) = forms::instruction(code, &mut self.random, data) else { return true };
        let Some((insn, bytes)) = assemble(&insn, self.native.instruction_address()) else { return true };
        if self.native.vector < 64 && uses_big_vectors(&insn) {
            return true;
        }
        self.native.install(&bytes);
        let mut ran = false;
        for _ in 0..states {
            ran |= self.sample(&insn, &bytes);
        }
        ran
    }

    fn sample(&mut self, insn: &Instruction, bytes: &[u8]) -> bool {
        let mut before = Before::random(insn, &mut self.random, &self.native);
        let (mut first, mut first_window) = (before.state.clone(), before.window.clone());
        if !self.native.run(&mut first, &mut first_window) {
            return false;
        }
        let places = self.undefined_places(insn, &before);
        let mut regs = ShadowRegs::new();
        for &place in &places {
            mark(place, &mut regs, &mut before);
        }
        let plan = self.planner.plan(insn);
        let input = before.clone();
        let outcome = run(&plan, &mut regs, &mut before);
        if !before.complaints.is_empty() || outcome.fault {
            return true;
        }
        let mut varying = Differences::none();
        for subset in 1..1u32 << places.len() {
            let (mut state, mut window) = (input.state.clone(), input.window.clone());
            for (i, &place) in places.iter().enumerate().filter(|(i, _)| subset >> i & 1 != 0) {
                let _ = i;
                toggle(place, &mut state, &mut window);
            }
            if !self.native.run(&mut state, &mut window) {
                return true;
            }
            varying.add(&first, &state, &first_window, &window);
        }
        let called = Differences::of_shadow(&regs, &before.window_v);
        self.judge(insn, bytes, &input, &places, &plan.rule, varying, &called);
        true
    }

    #[allow(clippy::too_many_arguments, reason = "all that a failure report shows")]
    fn judge(
        &mut self,
        insn: &Instruction,
        bytes: &[u8],
        input: &Before,
        places: &[Place],
        rule: &Rule,
        mut varying: Differences,
        called: &Differences,
    ) {
        varying.words[Differences::FLAGS] &= checked_flags(insn, input);
        varying.words[Differences::FSW] &= 0x4700;
        if !matches!(
            insn.mnemonic(),
            M::Fcom | M::Fcomp | M::Fcompp | M::Fucom | M::Fucomp | M::Fucompp | M::Fxam | M::Ftst | M::Ficom | M::Ficomp
        ) {
            varying.words[Differences::FSW] &= 0x4500;
        }
        let tally = self.tallies.entry(format!("{:?}", insn.mnemonic())).or_default();
        tally.samples += 1;
        tally.conservative = *rule == Rule::Conservative;
        for (i, (&varies, &said)) in varying.words.iter().zip(&called.words).enumerate() {
            let counted = if i == Differences::FLAGS { said & checked_flags(insn, input) } else { said };
            tally.called += u64::from(counted.count_ones());
            tally.varied += u64::from((said & varies).count_ones());
            if varies & !said != 0 && self.failures.len() < 40 {
                let gprs: Vec<String> = input.state.gpr.iter().map(|g| format!("{g:x}")).collect();
                self.failures.push(format!(
                    "{:?} {bytes:02x?} {}: varies {varies:#x}, called {said:#x}\n    undefined {places:?}, rule {rule:?}\n    gpr {gprs:?} flags {:#x}",
                    insn.code(),
                    Differences::name(i),
                    input.state.rflags,
                ));
            }
        }
    }

    /// Up to six bits among what the instruction reads or writes in part.
    fn undefined_places(&mut self, insn: &Instruction, before: &Before) -> Vec<Place> {
        let sources = self.sources(insn);
        let random = &mut self.random;
        let mut places = Vec::new();
        if sources.is_empty() {
            return places;
        }
        let favourites = [random.pick(&sources), random.pick(&sources)];
        for _ in 0..=random.below(6) {
            let place = match random.pick(&favourites) {
                Source::Gpr(n, low, high) => Place::Gpr(n, low + random.below(high - low)),
                Source::Vec(n, bytes) => Place::Vec(n, random.below(bytes * 8)),
                Source::Mask(n) => Place::Mask(n, random.below(64).min(random.pick(&[7, 15, 63]))),
                Source::St(i) => Place::St((before.state.top() + i) & 7, random.below(80)),
                Source::Mm(n) => Place::St(n, random.below(64)),
                Source::Flags => Place::Flag(random.pick(&[0, 0, 2, 4, 6, 7, 11])),
                Source::Memory(at, bytes) => Place::Memory((at.wrapping_sub(before.start)) as usize + random.below(bytes), random.below(8)),
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    fn sources(&mut self, insn: &Instruction) -> Vec<Source> {
        let hands_off = address_registers(insn);
        let mut out = Vec::new();
        let data = self.native.data();
        for used in self.factory.info(insn).used_registers() {
            let register = used.register();
            let full = register.full_register();
            if hands_off.contains(&full) || full == Register::RSP {
                continue;
            }
            if full.is_gpr() {
                let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
                let width = register.size() * 8;
                let span = if high { (8, 16) } else { (0, width) };
                out.push(Source::Gpr(full.number(), span.0, span.1));
                if width < 64 {
                    out.push(Source::Gpr(full.number(), 0, 64));
                }
            } else if full.is_vector_register() {
                let have = self.native.vector;
                out.push(Source::Vec(full.number(), register.size().min(have)));
                out.push(Source::Vec(full.number(), have));
            } else if register.is_k() && self.native.vector == 64 {
                out.push(Source::Mask(register.number()));
            } else if register.is_st() {
                out.push(Source::St(register.number()));
            } else if register.is_mm() {
                out.push(Source::Mm(register.number()));
            }
        }
        if matches!(insn.mnemonic(), M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b) {
            // The comparison counts as defined by decision, so only the new value may be undefined.
            let new = if insn.mnemonic() == M::Cmpxchg { vec![insn.op1_register().full_register().number()] } else { vec![1, 3] };
            let compared = if insn.op0_kind() == OpKind::Register { insn.op0_register().full_register().number() } else { 0 };
            out.retain(|source| matches!(source, Source::Gpr(n, ..) if new.contains(n) && *n != 0 && *n != compared));
            return out;
        }
        if insn.rflags_read() | insn.rflags_modified() != 0 {
            out.push(Source::Flags);
        }
        if insn.is_string_instruction() {
            out.extend([Source::Memory(data - 64, 8), Source::Memory(data + 64, 8)]);
        } else if (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory) || insn.is_stack_instruction() {
            let size = insn.memory_size().size().clamp(1, 64);
            out.push(Source::Memory(data, size.max(8)));
            out.push(Source::Memory(data, size));
            if insn.is_vsib() {
                out.push(Source::Memory(data, 128));
            }
        }
        out
    }
}

#[derive(Clone, Copy)]
enum Source {
    /// Register and span of bits.
    Gpr(usize, usize, usize),
    Vec(usize, usize),
    Mask(usize),
    /// From the top of the stack.
    St(usize),
    Mm(usize),
    Flags,
    Memory(u64, usize),
}

/// Registers that must stay as they are because they point somewhere or count.
fn address_registers(insn: &Instruction) -> Vec<Register> {
    let mut out = Vec::new();
    if insn.mnemonic() != M::Lea {
        out.extend([BASE, INDEX]);
    }
    if insn.is_vsib() {
        out.push(insn.memory_index().full_register());
    }
    if insn.is_string_instruction() {
        out.extend([Register::RSI, Register::RDI, Register::RCX]);
    }
    if matches!(insn.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu) {
        out.push(Register::RDI);
    }
    if insn.mnemonic() == M::Xlatb {
        out.push(Register::RBX);
    }
    if insn.mnemonic() == M::Leave {
        out.push(Register::RBP);
    }
    out
}

fn uses_big_vectors(insn: &Instruction) -> bool {
    insn.has_op_mask()
        || (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Register && (insn.op_register(i).is_zmm() || insn.op_register(i).is_k()))
}

/// Arithmetic flags the processor defines here.
fn checked_flags(insn: &Instruction, input: &Before) -> u64 {
    let undefined = insn.rflags_undefined();
    let bits = [(0x10, CF), (0x20, 1 << 2), (8, 1 << 4), (4, 1 << 6), (2, 1 << 7), (1, OF)];
    let mut checked = bits.iter().fold(0, |all, &(theirs, ours)| if undefined & theirs == 0 { all | ours } else { all });
    if matches!(insn.mnemonic(), M::Shl | M::Shr | M::Sar | M::Sal | M::Rol | M::Ror | M::Rcl | M::Rcr) {
        let count = if insn.op1_kind() == OpKind::Register { input.state.gpr[1] } else { u64::from(insn.immediate8()) };
        let by_register = insn.op1_kind() == OpKind::Register;
        let count = count & if insn.op0_register().size() == 8 || insn.memory_size().size() == 8 { 63 } else { 31 };
        let defined = by_register && input.state.gpr[1] & 0x3F != count;
        if count == 1 && !defined {
            checked |= OF;
        }
    }
    if matches!(insn.mnemonic(), M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b) { 0 } else { checked }
}

fn mark(place: Place, regs: &mut ShadowRegs, before: &mut Before) {
    match place {
        Place::Gpr(n, bit) => regs.set_gpr(n, regs.gpr(n) | 1 << bit, 1),
        Place::Flag(bit) => regs.set_flags(1 << bit, 1 << bit, 1),
        Place::Vec(n, bit) => {
            let mut v = regs.vec(n);
            v.0[bit / 64] |= 1 << (bit % 64);
            regs.set_vec(n, v, 1);
        }
        Place::Mask(n, bit) => regs.set_mask(n, regs.mask(n) | 1 << bit, 1),
        Place::St(n, bit) => {
            let mut v = regs.st(n);
            v[bit / 64] |= 1 << (bit % 64);
            regs.set_st(n, v, 1);
        }
        Place::Memory(at, bit) => before.window_v[at] |= 1 << bit,
    }
}

fn toggle(place: Place, state: &mut State, window: &mut [u8]) {
    match place {
        Place::Gpr(n, bit) => state.gpr[n] ^= 1 << bit,
        Place::Flag(bit) => state.rflags ^= 1 << bit,
        Place::Vec(n, bit) => state.zmm[n][bit / 64] ^= 1 << (bit % 64),
        Place::Mask(n, bit) => state.k[n] ^= 1 << bit,
        Place::St(n, bit) => {
            let mut value = state.st(n);
            value[bit / 64] ^= 1 << (bit % 64);
            state.set_st(n, value);
        }
        Place::Memory(at, bit) => window[at] ^= 1 << bit,
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_bit_called_defined_varies() {
    let mut prover = Prover::new(setting("MEMCHECK_PROOF_SEED").unwrap_or(1));
    let only = std::env::var("MEMCHECK_PROOF_ONLY").ok();
    let mut codes = forms::codes();
    if let Some(only) = &only {
        codes.retain(|code| format!("{:?}", code.mnemonic()) == *only);
    }
    let deadline = setting("MEMCHECK_PROOF_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let all = codes.len();
    // What the processor refuses once it will always refuse.
    let mut tries = BTreeMap::new();
    loop {
        codes.retain(|&code| {
            let ran = prover.form(code, 2);
            let (good, bad) = tries.entry(code as usize).or_insert((0, 0));
            if ran {
                *good += 1;
            } else {
                *bad += 1;
            }
            *good > 0 || *bad < 3
        });
        if deadline.is_none_or(|deadline| Instant::now() > deadline) {
            break;
        }
    }
    print_precision(&prover, all, codes.len());
    assert!(prover.failures.is_empty(), "{} unsound:\n{}", prover.failures.len(), prover.failures.join("\n"));
}

fn print_precision(prover: &Prover, all: usize, ran: usize) {
    let samples: u64 = prover.tallies.values().map(|tally| tally.samples).sum();
    println!("{ran} of {all} forms run here, {} mnemonics, {samples} samples", prover.tallies.len());
    let mut rows: Vec<_> = prover.tallies.iter().filter(|(_, tally)| tally.called > tally.varied).collect();
    rows.sort_by_key(|(_, tally)| std::cmp::Reverse((tally.called - tally.varied) * 1000 / tally.called));
    for (name, tally) in rows {
        let share = 100.0 * (tally.called - tally.varied) as f64 / tally.called as f64;
        let note = if tally.conservative { " (no row)" } else { "" };
        println!("{share:5.1}% of {:7} bits called undefined never varied: {name}{note}", tally.called);
    }
}
