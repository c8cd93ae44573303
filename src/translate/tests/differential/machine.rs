//! Runs programs, natively and translated, and tells how they ended. [`run`] is what a translated run meets on its way.

mod run;

use crate::gate::{CACHE, COLD, Fault, Gate, Reason};
use crate::interpreter::{self, Rules};
use crate::random::Random;
use crate::vectors;
use crate::world::{CODE, HIGH_CODE, INDEX_AT, Image, LOW, STACK, STACK_START, World};
use crate::writer::{FS, GS};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpAccess, OpKind, Register};
use memcheck_semantics::{ComplaintKind, Plan, Planner};
use memcheck_translate::{InsnInfo, LOAD, MODIFY, Options, Place, Program, Region, Rule, STORE, Shadow, Translator};
use run::Run;
use std::collections::{BTreeSet, HashMap};

/// Code at its address, and where it begins and ends.
#[derive(Clone)]
pub struct Code {
    pub base: u64,
    pub bytes: Vec<u8>,
    pub entry: u64,
}

impl Code {
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }
}

/// Everything that a run starts from.
#[derive(Clone)]
pub struct Start {
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub vectors: Vec<u8>,
    pub image: Image,
}

impl Start {
    pub fn random(random: &mut Random, image: &Image, components: u64) -> Start {
        let mut gpr: [u64; 16] = std::array::from_fn(|_| random.value());
        gpr[4] = STACK_START - random.pick(&[0, 0, 8, 16, 24, 48]);
        let rflags = 0x202 | random.word() & 0x8d5 | if random.one_in(5) { 0x400 } else { 0 };
        let mut image = image.clone();
        image.stir(random);
        Start { gpr, rflags, vectors: vectors::random(random, components), image }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Finished,
    /// A signal at a program address.
    Fault {
        signal: i32,
        pc: u64,
    },
    Hang,
    /// The test does not have what the runtime would need (A bits, a report): no result.
    Outside,
}

impl End {
    /// For counting: without the place.
    pub fn name(self) -> String {
        match self {
            End::Fault { signal, .. } => format!("signal {signal}"),
            end => format!("{end:?}"),
        }
    }
}

/// In nanoseconds: programs take microseconds, but a few of them go round for ever; those are left out.
const NATIVE_LIMIT: i64 = 10_000_000;
/// What has ended natively by then has time enough.
const TRANSLATED_LIMIT: i64 = 2_000_000_000;

/// How a run ended, and the state then.
#[derive(Clone)]
pub struct Outcome {
    pub end: End,
    pub gpr: [u64; 16],
    pub rflags: u64,
    pub vectors: Vec<u8>,
    pub image: Image,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Clean,
    Dirty,
    /// Begins clean, goes on in dirty code where a check meets undefined bytes, and back at branches.
    Mixed,
    /// As the runtime: clean until a check meets undefined bytes, runs of copies where there are such, clean again as soon as no register is
    /// dirty.
    Whole,
}

/// One way to run a program translated.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub kind: Kind,
    pub undef: bool,
    /// The code's pages are writable.
    pub writable: bool,
    /// Registers that are dirty, by bit.
    pub dirty: u64,
    /// Share of V bytes that are not zero at the start, per mille.
    pub painted: u64,
    /// Direct branches are linked.
    pub link: bool,
    /// The translator has vector registers of its own. Only for programs that do not use them.
    pub private: bool,
    pub seed: u64,
    pub rules: Rules,
}

impl Way {
    pub const CLEAN: Way = Way {
        kind: Kind::Clean,
        undef: true,
        writable: false,
        dirty: 0,
        painted: 0,
        link: true,
        private: false,
        seed: 1,
        rules: Rules::Marks,
    };
}

/// A translated region in the cache.
pub struct Placed {
    pub at: u64,
    pub cold: u64,
    pub pc: u64,
    pub dirty: bool,
    pub region: Region,
}

/// Program state that a host address stands for.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub pc: u64,
    pub len: u8,
    pub offset: u32,
    pub info: InsnInfo,
    pub spilled: Option<(usize, usize)>,
}

pub struct Machine {
    pub world: World,
    pub gate: Gate,
    translator: Translator,
    /// Free places in the cache, for hot and cold code.
    next: Place,
    pub placed: Vec<Placed>,
    clean: HashMap<u64, u64>,
    dirty: HashMap<u64, u64>,
    copies: HashMap<u64, Option<u64>>,
    planner: Planner,
    /// Plans of the dirty code, where rules are real.
    plans: Vec<Plan>,
    /// Accesses of rules in cold code that may fault, and where it goes on then.
    probes: HashMap<u64, u64>,
    /// What the interpreter reported, and where.
    pub complaints: Vec<(u64, ComplaintKind)>,
    /// Bytes that were touched though they do not belong to the program, and by which instructions.
    pub invalid: BTreeSet<(u64, u64)>,
    /// Loops of dirty code that were made so far.
    pub loops: u64,
    /// Runs of copies that were entered so far, and how many of them began.
    pub runs: [u64; 2],
    /// Check every region that is made.
    pub inspect: bool,
}

/// si_code of a general protection fault.
const GENERAL_PROTECTION: i32 = 0x80;
/// The end of the addresses that the processor can form for programs.
const NOT_CANONICAL: u64 = 1 << 47;
const START: Place = Place { hot: CACHE, cold: COLD };

/// The translator's view of the program.
struct View<'a> {
    world: &'a World,
    code: &'a Code,
    known: &'a HashMap<u64, u64>,
    writable: bool,
    constants: bool,
}

impl Program for View<'_> {
    fn code(&self, pc: u64) -> Option<&[u8]> {
        (pc >= self.code.base && pc < self.code.end()).then(|| self.world.code(pc, (self.code.end() - pc) as usize))
    }

    fn redirect(&self, _: u64) -> Option<(u32, bool)> {
        None
    }

    fn begins(&self, pc: u64) -> bool {
        self.known.contains_key(&pc)
    }

    fn is_constant(&self, addr: u64) -> bool {
        // Generated code only reads them.
        self.constants && (LOW.start..LOW.start + INDEX_AT).contains(&addr)
    }

    fn is_writable(&self, _: u64) -> bool {
        self.writable
    }
}

/// Masks by address and seed; the plan of an instruction is its address.
pub struct Plans(pub u64);

impl Shadow for Plans {
    fn rule(&mut self, insn: &Instruction) -> Rule {
        Rule { plan: insn.ip(), mask: plan_mask(self.0, insn.ip()), ..Rule::default() }
    }
}

/// Which dirty registers matter to the instruction at `pc`, in the run with that seed.
pub fn plan_mask(seed: u64, pc: u64) -> u64 {
    let mut random = Random::new(seed ^ pc.rotate_left(17));
    match random.below(4) {
        0 => 0,
        1 => 1 << random.below(64),
        2 => random.word() & random.word() & random.word(),
        _ => random.word() & 0xffff,
    }
}

impl Machine {
    /// None if this processor cannot run it.
    pub fn new() -> Option<Machine> {
        let gate = Gate::new()?;
        let translator =
            Translator::new(gate.stubs, Options { undef: true, private_vectors: false, origins: true, pext: false, ask_on_stack: false });
        let world = World::new();
        interpreter::map_shadows();
        Some(Machine {
            world,
            gate,
            translator,
            next: START,
            placed: Vec::new(),
            clean: HashMap::new(),
            dirty: HashMap::new(),
            copies: HashMap::new(),
            planner: Planner::new(),
            plans: Vec::new(),
            probes: HashMap::new(),
            invalid: BTreeSet::new(),
            loops: 0,
            runs: [0; 2],
            complaints: Vec::new(),
            inspect: false,
        })
    }

    /// Put the program's code at its place, with a way out behind it.
    pub fn install(&mut self, code: &Code) {
        assert!(code.end() <= if code.base < 1 << 31 { CODE.end() } else { HIGH_CODE.end() }, "the program is too long");
        self.world.write_code(code.base, &code.bytes);
        let mut exit = vec![0xff, 0x25, 0, 0, 0, 0];
        exit.extend(self.gate.native_exit.to_le_bytes());
        self.world.write_code(code.end(), &exit);
    }

    fn load(&mut self, start: &Start) {
        self.world.load(&start.image);
        let state = self.gate.state();
        (state.gpr, state.rflags) = (start.gpr, start.rflags);
        state.xsave[..start.vectors.len()].copy_from_slice(&start.vectors);
    }

    fn outcome(&mut self, end: End) -> Outcome {
        let image = self.world.image();
        let components = self.gate.components();
        let state = self.gate.state();
        Outcome { end, gpr: state.gpr, rflags: state.rflags, vectors: vectors::normal(&state.xsave, components), image }
    }

    /// Run the installed program on the processor.
    pub fn native(&mut self, code: &Code, start: &Start) -> Outcome {
        self.load(start);
        let state = self.gate.state();
        (state.fs, state.gs) = (FS, GS);
        self.gate.limit(NATIVE_LIMIT);
        let reason = self.gate.run(code.entry);
        let end = match reason {
            Reason::End => End::Finished,
            _ => match self.gate.fault() {
                Fault { signal: libc::SIGALRM, .. } => End::Hang,
                Fault { signal, rip, .. } => End::Fault { signal, pc: rip },
            },
        };
        self.outcome(end)
    }

    /// Run the installed program translated. Err: a promise was broken on the way.
    pub fn translated(&mut self, code: &Code, start: &Start, way: &Way) -> Result<Outcome, String> {
        let old: Vec<u64> = self.clean.keys().copied().collect();
        for pc in old.into_iter().filter(|&pc| CODE.contains(pc)) {
            self.gate.set_table(pc, 0);
        }
        self.clean.clear();
        self.dirty.clear();
        self.copies.clear();
        self.placed.clear();
        self.plans.clear();
        self.probes.clear();
        self.complaints.clear();
        self.invalid.clear();
        self.next = START;
        self.translator.routines.clear();
        self.translator.options =
            Options { undef: way.undef, private_vectors: way.private, origins: true, pext: way.private, ask_on_stack: false };
        self.gate.limit(TRANSLATED_LIMIT);
        self.load(start);
        self.gate.reset_context(FS, GS);
        self.gate.set_dirty(way.dirty);
        self.gate.translated_bases();
        self.world.clear_shadow();
        let mut random = Random::new(way.seed);
        if way.painted > 0 {
            self.paint(&mut random, way.painted);
        }
        if way.rules != Rules::Marks {
            interpreter::disturb(&mut random, &mut self.world, way.dirty);
            let ctx = self.gate.context();
            (ctx.stack_low, ctx.stack_high) = (STACK.start, STACK.end());
        }
        let components = self.gate.components();
        if way.private {
            vectors::set_private(&mut self.gate.state().xsave, components);
        }
        let mut outcome = Run { m: self, code, way, random, rounds: 0 }.go()?;
        if way.private {
            vectors::check_private(&outcome.vectors, components)?;
            // What the program had there does not matter: it does not use them.
            vectors::copy_private(&mut outcome.vectors, &start.vectors, components);
        }
        Ok(outcome)
    }

    fn paint(&mut self, random: &mut Random, per_mille: u64) {
        for area in crate::world::AREAS {
            for _ in 0..area.size * per_mille / 1000 / 4 {
                let len = 1 + random.below(7);
                let at = area.start + random.below(area.size - len);
                self.world.paint(at, len, random.pick(&[0xff, 0xff, 1, 0x80]));
            }
        }
    }

    /// Offset into the cache region that holds a host address.
    fn region_of(&self, host: u64) -> Option<&Placed> {
        self.placed.iter().find(|p| host >= p.at && host < p.at + p.region.code.len() as u64)
    }

    /// Is this the lookup of a branch target? The register that holds it.
    pub fn looked_up(&self, host: u64) -> Option<usize> {
        let placed = self.region_of(host)?;
        placed.region.code[(host - placed.at) as usize..].first_chunk().and_then(memcheck_translate::control::looked_up)
    }

    pub fn position(&self, host: u64) -> Option<Position> {
        let placed = self.region_of(host)?;
        let offset = (host - placed.at) as u32;
        let i = placed.region.info.partition_point(|x| x.host <= offset).checked_sub(1)?;
        let info = placed.region.info[i];
        let spilled = info
            .is_spilled(offset)
            .then(|| if info.spilled & 0x80 != 0 { (usize::from(info.spilled & 0x7f), 0) } else { (usize::from(info.spilled), 6) });
        Some(Position { pc: placed.region.start.wrapping_add(info.pc as i64 as u64), len: info.len, offset, info, spilled })
    }

    pub fn decode(&self, code: &Code, pc: u64) -> Instruction {
        let len = (code.end().saturating_sub(pc)).min(15) as usize;
        Decoder::with_ip(64, self.world.code(pc, len), pc, DecoderOptions::NONE).decode()
    }

    /// Address of the instruction's explicit memory operand with the registers in the gate's state.
    pub fn operand_address(&mut self, insn: &Instruction) -> Option<u64> {
        let i = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory)?;
        let gpr = self.gate.state().gpr;
        insn.virtual_address(i, 0, |reg, _, _| register_value(&gpr, reg))
    }
}

/// The value of a register in an address.
pub fn register_value(gpr: &[u64; 16], reg: Register) -> Option<u64> {
    match reg {
        Register::FS => Some(FS),
        Register::GS => Some(GS),
        r if r.is_segment_register() => Some(0),
        Register::AL => Some(gpr[0] & 0xff),
        r if r.is_gpr32() => Some(gpr[r.number()] & 0xffff_ffff),
        r if r.is_gpr64() => Some(gpr[r.number()]),
        _ => None,
    }
}

/// How the explicit memory operand is accessed.
pub fn kind_of(insn: &Instruction) -> u32 {
    use Mnemonic::{Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq};
    let Some(i) = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory) else { return LOAD };
    let mut factory = iced_x86::InstructionInfoFactory::new();
    match factory.info(insn).op_access(i) {
        // What a masked store writes is for its rule to say: the check is that of a load.
        _ if matches!(insn.mnemonic(), Vmaskmovpd | Vmaskmovps | Vpmaskmovd | Vpmaskmovq) => LOAD,
        OpAccess::Write => STORE,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => MODIFY,
        _ => LOAD,
    }
}
