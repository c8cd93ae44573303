//! Decoder, planner and emitter: any bytes that a program calls code are translated, for clean and for dirty mode, and the tables
//! that lead from a place in the translation back to the program are in order.
#![no_main]

use iced_x86::Instruction;
use libfuzzer_sys::fuzz_target;
use memcheck_abi::layout::CACHE_START;
use memcheck_semantics::Planner;
use memcheck_translate::{Options, Place, Program, Region, Rule, Shadow, Stubs, Translator};

const CODE: u64 = 0x40_0000;

struct Bytes<'a> {
    code: &'a [u8],
    writable: bool,
}

impl Program for Bytes<'_> {
    fn code(&self, pc: u64) -> Option<&[u8]> {
        let at = usize::try_from(pc.checked_sub(CODE)?).ok()?;
        self.code.get(at..).filter(|rest| !rest.is_empty())
    }
    fn redirect(&self, _: u64) -> Option<(u32, bool)> {
        None
    }
    fn begins(&self, _: u64) -> bool {
        false
    }
    fn is_constant(&self, addr: u64) -> bool {
        addr & 0x1000 != 0
    }
    fn is_writable(&self, _: u64) -> bool {
        self.writable
    }
}

struct Plans(Planner);

impl Shadow for Plans {
    fn rule(&mut self, insn: &Instruction) -> Rule {
        let plan = self.0.plan(insn);
        let (reads, address, writes) = (plan.reads | plan.address, plan.address, plan.writes);
        let loads = plan.mem.is_some_and(|mem| mem.read);
        Rule { plan: 0x6a00_0000_0000, mask: reads | writes, reads, address, writes, quick: plan.defines_by_itself(), loads, inline: true }
    }
}

fn check(region: Option<Region>, length: usize) {
    let Some(region) = region else { return };
    assert!(region.info.is_sorted_by_key(|i| i.host), "places in the translation ascend");
    for info in &region.info {
        let pc = region.start.wrapping_add_signed(i64::from(info.pc));
        assert!((CODE..=CODE + length as u64).contains(&pc), "{pc:#x} is none of the program's code");
    }
}

fuzz_target!(|input: (bool, bool, bool, bool, bool, &[u8])| {
    let (writable, private_vectors, origins, pext, ask_on_stack, code) = input;
    let program = Bytes { code, writable };
    let stub = CACHE_START;
    #[rustfmt::skip]
    let stubs = Stubs {
        dispatch: stub, link: stub, check: stub, helper: stub, syscall: stub, replace: stub, release: stub, stack_moved: stub, dirty_branch: stub,
        dirty_link: stub, frame_origin: stub, frame_note: stub, copies: stub,
    };
    let mut translator = Translator::new(stubs, Options { undef: true, origins, pext, private_vectors, ask_on_stack });
    let place = Place { hot: CACHE_START + 0x10_0000, cold: CACHE_START + 0x800_0000 };
    check(translator.translate(&program, CODE, place), code.len());
    check(translator.translate_dirty(&program, CODE, place, &mut Plans(Planner::new())), code.len());
    check(translator.translate_copies(&program, CODE, place, &mut Plans(Planner::new()), stub), code.len());
});
