//! What the tests share: one machine for the process, and the story of a failure.

use crate::assemble::{Op, assemble};
use crate::compare;
use crate::gate::Attached;
use crate::interpreter::{Left, Rules};
use crate::machine::{Code, End, Kind, Machine, Outcome, Start, Way};
use crate::random::Random;
use crate::shapes::Program;
use crate::shrink;
use crate::world::{CODE, HIGH_CODE, Image};
use crate::writer::{Forms, Taste};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use memcheck_semantics::regs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

struct Shared {
    machine: Machine,
    forms: Forms,
    image: Image,
}

static SHARED: OnceLock<Option<Mutex<Shared>>> = OnceLock::new();

/// What two ways to run a program leave differently.
type Differ = fn(&mut Machine, &Case, &Way) -> Option<String>;

/// The machine, for one test at a time.
pub struct Session {
    shared: MutexGuard<'static, Shared>,
    _attached: Attached,
    ends: BTreeMap<String, u64>,
}

/// A program with everything that its runs start from.
#[derive(Clone)]
pub struct Case {
    pub program: Program,
    pub base: u64,
    pub start: Start,
}

impl Case {
    pub fn code(&self) -> Option<Code> {
        let done = assemble(&self.program.ops, self.program.labels, self.base)?;
        let entry = self.program.ops.iter().position(|op| matches!(op, Op::Label(l) if *l == self.program.entry))?;
        Some(Code { base: self.base, bytes: done.bytes, entry: done.at[entry] })
    }
}

impl Session {
    /// None, with a word about it, where the processor cannot run this.
    pub fn begin() -> Option<Session> {
        let attached = Attached::new();
        let shared = SHARED.get_or_init(|| {
            let machine = Machine::new()?;
            let image = Image::random(&mut Random::new(77));
            Some(Mutex::new(Shared { machine, forms: Forms::new(|_| true), image }))
        });
        let Some(shared) = shared else {
            eprintln!("skipped: needs AVX2 and user-mode segment base instructions");
            return None;
        };
        let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        attached.use_timer();
        let mut session = Session { shared, _attached: attached, ends: BTreeMap::new() };
        session.calibrate();
        Some(session)
    }

    /// Keep only the forms that this processor has.
    fn calibrate(&mut self) {
        let mut random = Random::new(5);
        let all = Forms::new(|_| true);
        let Shared { machine, forms, image } = &mut *self.shared;
        let taste = Taste::PLAIN;
        let usable = |code| {
            (0..3).any(|_| {
                let memory = crate::forms::needs_memory(code);
                let Some(program) = crate::shapes::single(&mut random, &all, taste, code, memory) else { return false };
                let start = Start::random(&mut random, image, machine.gate.components());
                let case = Case { program, base: CODE.start, start };
                let Some(code) = case.code() else { return false };
                machine.install(&code);
                machine.native(&code, &case.start).end == End::Finished
            })
        };
        *forms = Forms::new(usable);
    }

    pub fn forms(&self) -> &Forms {
        &self.shared.forms
    }

    pub fn case(&mut self, random: &mut Random, program: &Program, high: bool) -> Case {
        let components = self.shared.machine.gate.components();
        let start = Start::random(random, &self.shared.image, components);
        let area = if high { HIGH_CODE } else { CODE };
        Case { program: program.clone(), base: area.start + random.below(64), start }
    }

    /// Run it natively and in all `ways`; panics with the story if they differ.
    pub fn try_program(&mut self, random: &mut Random, seed: u64, program: &Program, taste: Taste, ways: impl Fn(&mut Random) -> Vec<Way>) {
        let case = self.case(random, program, taste.high);
        let machine = &mut self.shared.machine;
        machine.inspect = random.one_in(3);
        let Some((code, native)) = run_natively(machine, &case) else { return };
        *self.ends.entry(native.end.name()).or_default() += 1;
        for way in ways(random) {
            let Some(failure) = differs(&mut self.shared.machine, &case, &code, &native, &way) else { continue };
            let small = shrink::shrink(&mut self.shared.machine, &case, &way, &failure);
            let again = try_case(&mut self.shared.machine, &small, &way)
                .map_or_else(|| "(the shorter program fails in a child process only)".into(), |f| f.text);
            let difference = failure.text;
            let story = story(&mut self.shared.machine, &small);
            panic!("seed {seed}, {way:x?}\n{difference}\n\nshortest program found:\n{story}\n{again}");
        }
    }

    /// Run it in dirty mode, by the interpreter of rules and in place; panics with the story if what is left differs.
    pub fn try_rules(&mut self, random: &mut Random, seed: u64, program: &Program, taste: Taste, way: Way) {
        self.try_by(rules_differ, random, seed, program, taste, way);
    }

    /// Run it as the runtime does, with runs of copies; panics with the story if it does not leave what dirty mode leaves that interprets all.
    pub fn try_whole(&mut self, random: &mut Random, seed: u64, program: &Program, taste: Taste, way: Way) {
        self.try_by(whole_differs, random, seed, program, taste, way);
    }

    fn try_by(&mut self, differ: Differ, random: &mut Random, seed: u64, program: &Program, taste: Taste, way: Way) {
        let case = self.case(random, program, taste.high);
        // Cells between cold stubs are no code to look through.
        self.shared.machine.inspect = false;
        let before = self.shared.machine.runs[1];
        let difference = differ(&mut self.shared.machine, &case, &way);
        *self.ends.entry(if self.shared.machine.runs[1] > before { "with runs" } else { "others" }.into()).or_default() += 1;
        let Some(difference) = difference else { return };
        eprintln!("seed {seed}, {way:x?}\n{difference}");
        // Programs without their ends run long.
        let end = Instant::now() + Duration::from_secs(20);
        let fails = |machine: &mut Machine, ops: &[Op]| {
            let smaller = Case { program: Program { ops: ops.to_vec(), ..case.program.clone() }, ..case.clone() };
            differ(machine, &smaller, &way).filter(|text| first_word(text) == first_word(&difference)).map(|_| smaller)
        };
        let mut small = case.clone();
        let mut at = 0;
        while at < small.program.ops.len() && Instant::now() < end {
            let mut ops = small.program.ops.clone();
            ops.remove(at);
            match fails(&mut self.shared.machine, &ops) {
                Some(smaller) => small = smaller,
                None => at += 1,
            }
        }
        let again = differ(&mut self.shared.machine, &small, &way).unwrap_or_default();
        let story = story(&mut self.shared.machine, &small);
        panic!("seed {seed}, {way:x?}\n{difference}\n\nshortest program found:\n{story}\n{again}");
    }

    pub fn report(&self, count: u64) {
        println!("{count} programs, {} loops, {:?} runs; ends: {:?}", self.shared.machine.loops, self.shared.machine.runs, self.ends);
    }
}

/// A difference, and how the native run ended.
pub struct Failure {
    pub text: String,
    pub end: End,
}

impl Failure {
    /// Do two programs fail in the same way? A program without its end or its frame can run into anything.
    pub fn is_like(&self, other: &Failure) -> bool {
        let alike = match (self.end, other.end) {
            (End::Fault { signal: a, .. }, End::Fault { signal: b, pc }) => a == b && [CODE, HIGH_CODE].iter().any(|c| c.contains(pc)),
            (a, b) => a == b,
        };
        alike && first_word(&self.text) == first_word(&other.text)
    }
}

/// What kind of thing differs.
fn first_word(text: &str) -> &str {
    text.split([' ', ':']).next().unwrap_or_default()
}

/// The difference between the native run and one translated run.
pub fn try_case(machine: &mut Machine, case: &Case, way: &Way) -> Option<Failure> {
    let (code, native) = run_natively(machine, case)?;
    differs(machine, case, &code, &native, way)
}

/// None if it does not fit into the world.
fn run_natively(machine: &mut Machine, case: &Case) -> Option<(Code, Outcome)> {
    let code = case.code()?;
    if code.end() > if case.base < 1 << 31 { CODE.end() } else { HIGH_CODE.end() } {
        return None;
    }
    machine.install(&code);
    let native = machine.native(&code, &case.start);
    Some((code, native))
}

fn differs(machine: &mut Machine, case: &Case, code: &Code, native: &Outcome, way: &Way) -> Option<Failure> {
    // The program may have written over itself.
    machine.install(code);
    let text = match native.end {
        // A loop without end, a seldom slip of the generator: counted, and left out.
        End::Hang => None,
        // Another one: a stack in the code, which every push writes over.
        _ if [CODE, HIGH_CODE].iter().any(|code| code.contains(native.gpr[4])) => None,
        _ => match machine.translated(code, &case.start, way) {
            Ok(translated) if translated.end == End::Outside => None,
            Ok(translated) => compare::difference(native, &translated, case.program.undefined, machine.gate.components()),
            Err(broken) => Some(broken),
        },
    };
    text.map(|text| Failure { text, end: native.end })
}

fn rules_differ(machine: &mut Machine, case: &Case, way: &Way) -> Option<String> {
    let code = case.code()?;
    if code.end() > CODE.end() {
        return None;
    }
    machine.install(&code);
    let mut run = |rules| {
        let outcome = machine.translated(&code, &case.start, &Way { rules, ..*way });
        outcome.map(|outcome| {
            let sp = machine.gate.state().gpr[4];
            (outcome.end, Left::take(&machine.world, &machine.complaints, case.program.forgotten, sp))
        })
    };
    match (run(Rules::Interpreted), run(Rules::Inline)) {
        (Ok((End::Finished, a)), Ok((End::Finished, b))) => a.difference(&b),
        (Ok((a, _)), Ok((b, _))) if a == b => None,
        (Err(_), _) | (_, Ok((End::Outside, _))) | (Ok((End::Hang, _)), _) => None,
        (Ok((a, _)), b) => Some(format!("end: interpreted {a:?}, in place {:?}", b.map(|b| b.0))),
    }
}

fn whole_differs(machine: &mut Machine, case: &Case, way: &Way) -> Option<String> {
    let (code, native) = run_natively(machine, case)?;
    if !matches!(native.end, End::Finished | End::Fault { .. }) {
        return None;
    }
    machine.install(&code);
    let mut run = |way: &Way| {
        let outcome = machine.translated(&code, &case.start, way)?;
        let sp = machine.gate.state().gpr[4];
        // A function that clean code sees as a whole leaves another red zone than its parts: what lies below the stack pointer does not count.
        let forgotten = case.program.forgotten | 1 << regs::FLAGS;
        let left = Left::take(&machine.world, &machine.complaints, forgotten, sp);
        Ok::<_, String>((outcome, left, machine.invalid.clone()))
    };
    let interpreted = Way { kind: Kind::Dirty, rules: Rules::Interpreted, ..*way };
    match (run(way), run(&interpreted)) {
        (Err(broken), _) => Some(broken),
        (Ok((whole, ..)), _) if whole.end == End::Outside => None,
        (Ok((whole, left, found)), Ok((_, all, expected))) => {
            compare::difference(&native, &whole, case.program.undefined, machine.gate.components())
                .or_else(|| all.difference(&left).filter(|_| native.end == End::Finished))
                .or_else(|| accesses_differ(&expected, &found).filter(|_| native.end == End::Finished))
        }
        (_, Err(_)) => None,
    }
}

/// Clean code asks for the same bytes once, so that a later instruction that touches them, too, need not be named.
fn accesses_differ(expected: &BTreeSet<(u64, u64)>, found: &BTreeSet<(u64, u64)>) -> Option<String> {
    let is_found = |&&(addr, _): &&(u64, u64)| found.range((addr, 0)..=(addr, u64::MAX)).next().is_some();
    if let Some((addr, pc)) = expected.iter().find(|access| !is_found(access)) {
        return Some(format!("invalid access of {addr:#x} at {pc:#x} is missed"));
    }
    found.difference(expected).next().map(|(addr, pc)| format!("access of {addr:#x} at {pc:#x} is none"))
}

/// The program and its state, for the reader of a failure.
fn story(machine: &mut Machine, case: &Case) -> String {
    let Some(code) = case.code() else { return String::new() };
    let mut text = format!("entry {:#x}, flags {:#x}\n", code.entry, case.start.rflags);
    for (i, value) in case.start.gpr.iter().enumerate() {
        text += &format!("{:?} = {value:#x}{}", crate::writer::r64(i), if i % 4 == 3 { "\n" } else { "  " });
    }
    text += &listing(&code.bytes, code.base);
    for placed in machine.placed.iter().take(4) {
        text += &format!(
            "\n{} region of {:#x}, own instructions {:x?}\n",
            if placed.dirty { "dirty" } else { "clean" },
            placed.pc,
            placed.region.info.iter().map(|i| i.own).collect::<Vec<_>>()
        );
        text += &listing(&placed.region.code, placed.at);
        if placed.dirty {
            text += &format!("cold code:\n{}", listing(&placed.region.cold, placed.cold));
        }
    }
    text
}

fn listing(bytes: &[u8], base: u64) -> String {
    let mut text = String::new();
    let mut decoder = Decoder::with_ip(64, bytes, base, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut insn);
        let from = (insn.ip() - base) as usize;
        let raw: String = bytes[from..from + insn.len()].iter().map(|b| format!("{b:02x}")).collect();
        text += &format!("{:x}  {raw:30} {insn}\n", insn.ip());
    }
    text
}
