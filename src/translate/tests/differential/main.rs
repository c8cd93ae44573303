//! Translated code against the processor: the same program, from the same state, must do the same.
//!
//! ```text
//! forms     every instruction form of the decoder library, with random operands
//! writer    straight-line code whose memory operands and flags are sound     shapes   control flow
//! streams   loops through memory                             copying   runs of copies
//! calls     functions, frames, the stack                                     prepared instructions with special needs
//! assemble  operations and labels to bytes
//! world     the program's memory and its shadow                              gate     into generated code and out again
//! machine   native and translated runs                                       machine::run  stands in for the runtime
//! positions host address to program address
//! interpreter  rules of dirty mode, by `semantics`
//! compare   two outcomes                                                     shrink   the shortest program that still fails
//! ```
//! Programs are random but reproducible: a failure names its seed, and `MEMCHECK_DIFF_SEED` starts there. `MEMCHECK_DIFF_SECONDS`
//! (default 1) says how long to search. Both sides may fault; then the faults must be the same.
//!
//! Not covered here: system calls, client requests, replaced functions, `cpuid` (the runtime's), loads of segment registers, far transfers,
//! and instructions that tell the time or the machine's state.

mod assemble;
mod calls;
mod compare;
mod copying;
mod forms;
mod gate;
mod interpreter;
mod machine;
mod positions;
mod prepared;
mod random;
mod session;
mod shapes;
mod shrink;
mod streams;
mod vectors;
mod world;
mod writer;

use interpreter::Rules;
use machine::{Kind, Way};
use random::Random;
use session::Session;
use shapes::Program;
use std::time::{Duration, Instant};
use writer::{Forms, Taste};

fn seconds() -> f64 {
    std::env::var("MEMCHECK_DIFF_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0)
}

fn first_seed() -> u64 {
    std::env::var("MEMCHECK_DIFF_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// A random way to run translated; all of them must agree with the processor.
fn ways(random: &mut Random, no_masks: bool) -> Vec<Way> {
    let seed = random.word();
    let private = no_masks && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") && !random.one_in(3);
    let common = Way { undef: !random.one_in(5), writable: random.one_in(5), link: !random.one_in(4), private, seed, ..Way::CLEAN };
    let painted = random.pick(&[0, 0, 20, 200]);
    vec![
        Way { painted, ..common },
        Way { kind: Kind::Dirty, painted: random.pick(&[0, 50]), dirty: random.pick(&[0, 1, 0xffff, u64::MAX]) & random.word(), ..common },
        Way { kind: Kind::Mixed, painted: 150, dirty: random.pick(&[0, 0x1234_5678]), ..common },
    ]
}

#[test]
fn random_programs_do_the_same() {
    let Some(mut session) = Session::begin() else { return };
    let end = Instant::now() + Duration::from_secs_f64(seconds());
    let mut seed = first_seed();
    let mut count = 0;
    while count < 20 || Instant::now() < end {
        let mut random = Random::new(seed);
        let taste = Taste { high: random.one_in(6), faults: random.one_in(4), no_masks: random.one_in(2), ..Taste::PLAIN };
        let size = random.pick(&[4, 12, 30, 30, 80, 200]);
        let program = if random.one_in(4) {
            streams::program(&mut random, session.forms(), taste, size.min(12))
        } else {
            shapes::program(&mut random, session.forms(), taste, size)
        };
        session.try_program(&mut random, seed, &program, taste, |random| ways(random, taste.no_masks));
        seed += 1;
        count += 1;
    }
    session.report(count);
}

#[test]
fn every_form_does_the_same() {
    let Some(mut session) = Session::begin() else { return };
    let codes: Vec<_> = session.forms().all().collect();
    let rounds = (seconds() as u64).clamp(1, 100);
    for round in 0..rounds {
        for (i, &code) in codes.iter().enumerate() {
            let seed = first_seed() + (round << 32) + ((i as u64) << 1);
            for memory in [false, true] {
                if memory && !forms::can_use_memory(code) || !memory && forms::needs_memory(code) {
                    continue;
                }
                let mut random = Random::new(seed + u64::from(memory));
                let no_masks = forms::family(code) != forms::Family::Evex && random.one_in(2);
                let taste = Taste { high: random.one_in(6), no_masks, ..Taste::PLAIN };
                let Some(program) = shapes::single(&mut random, session.forms(), taste, code, memory) else { continue };
                session.try_program(&mut random, seed, &program, taste, |random| ways(random, taste.no_masks));
            }
        }
    }
}

/// What only the kernel may use, and what this processor does not have, is refused in the same way.
#[test]
fn refused_forms_are_refused() {
    let Some(mut session) = Session::begin() else { return };
    let usable: std::collections::HashSet<_> = session.forms().all().collect();
    let refused = forms::candidates().into_iter().filter(|code| !usable.contains(code));
    for (i, code) in refused.chain(forms::privileged()).enumerate() {
        let seed = first_seed() + i as u64;
        let mut random = Random::new(seed);
        let taste = Taste { high: random.one_in(6), no_masks: true, ..Taste::PLAIN };
        let memory = forms::needs_memory(code);
        let Some(program) = shapes::single(&mut random, session.forms(), taste, code, memory) else { continue };
        session.try_program(&mut random, seed, &program, taste, |random| ways(random, false));
    }
    session.report(0);
}

/// Dirty mode: what translated code does to the shadow by itself is what the interpreter of rules does.
#[test]
fn rules_in_place_are_those_of_the_interpreter() {
    let Some(mut session) = Session::begin() else { return };
    let end = Instant::now() + Duration::from_secs_f64(seconds());
    let usable: std::collections::HashSet<_> = session.forms().all().collect();
    let round = Forms::new(|code| usable.contains(&code) && shapes::may_go_round(code));
    let mut seed = first_seed();
    let mut count = 0;
    while count < 20 || Instant::now() < end {
        let mut random = Random::new(seed ^ 0x5ead_0000_0000);
        let taste = Taste { faults: random.one_in(4), no_masks: true, no_segments: true, ..Taste::PLAIN };
        let size = random.pick(&[1, 2, 4, 12, 30, 80]);
        let cycle = random.one_in(2);
        let program = if cycle {
            // A loop paints the red zone of a function that it calls, as code that sees it as a whole: nobody may look.
            shapes::cycle(&mut random, &round, Taste { no_red_zone: true, ..taste }, size.min(12))
        } else {
            shapes::program(&mut random, session.forms(), taste, size)
        };
        let way = Way {
            kind: Kind::Dirty,
            painted: random.pick(&[0, 20, 200]),
            dirty: random.word() & random.pick(&[0xffff, 0x3ff_ffff, u64::MAX]) & random.pick(&[u64::MAX, random.clone().word()]),
            private: (cycle || random.one_in(2)) && is_x86_feature_detected!("avx512bw"),
            seed: random.word(),
            rules: Rules::Interpreted,
            ..Way::CLEAN
        };
        session.try_rules(&mut random, seed, &program, taste, way);
        seed += 1;
        count += 1;
    }
    session.report(count);
}

/// Clean code, runs of copies and dirty code together, as the runtime goes from one to another, leave what dirty code leaves whose rules are
/// all interpreted.
fn whole_runs_leave_what_rules_leave(salt: u64, write: fn(&mut Random, &Forms, Taste) -> Program) {
    let Some(mut session) = Session::begin() else { return };
    let end = Instant::now() + Duration::from_secs_f64(seconds());
    let mut seed = first_seed();
    let mut count = 0;
    while count < 20 || Instant::now() < end {
        let mut random = Random::new(seed ^ salt);
        let taste = Taste { faults: random.one_in(4), no_masks: true, no_segments: true, no_red_zone: random.one_in(2), ..Taste::PLAIN };
        let program = write(&mut random, session.forms(), taste);
        let way = Way {
            kind: Kind::Whole,
            painted: random.pick(&[2, 20, 200, 600]),
            link: !random.one_in(4),
            writable: random.one_in(6),
            private: is_x86_feature_detected!("avx512bw") && !random.one_in(6),
            // Even: no constants, which clean code does not ask for.
            seed: random.word() & !1,
            rules: Rules::Inline,
            ..Way::CLEAN
        };
        session.try_whole(&mut random, seed, &program, taste, way);
        seed += 1;
        count += 1;
    }
    session.report(count);
}

#[test]
fn whole_runs_of_any_program() {
    whole_runs_leave_what_rules_leave(0xa11, |random, forms, taste| {
        // What a function leaves in its red zone is painted where it is seen as a whole: nobody may look.
        let taste = Taste { no_red_zone: true, ..taste };
        let size = random.pick(&[3, 6, 12, 30, 60]);
        if random.one_in(3) { shapes::cycle(random, forms, taste, size.min(12)) } else { shapes::program(random, forms, taste, size) }
    });
}

#[test]
fn whole_runs_of_loops_in_rounds() {
    whole_runs_leave_what_rules_leave(0x10_0b5, |random, forms, taste| {
        let size = random.pick(&[1, 2, 4, 8, 14]);
        streams::program(random, forms, taste, size)
    });
}

#[test]
fn whole_runs_of_copies() {
    whole_runs_leave_what_rules_leave(0xc0_0b1e5, |random, forms, taste| {
        let size = random.pick(&[3, 6, 10, 20, 30]);
        copying::program(random, forms, taste, size)
    });
}
