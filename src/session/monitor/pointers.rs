//! Who points there? Words in memory that the program may read, and registers of its threads.

use memcheck_abi::context::GPR_NAMES;
use memcheck_abi::errand::{Errand, Task};

use super::words::range;
use super::{Step, Talk};
use crate::session::leaks;

pub fn who_points_at(talk: &mut Talk, words: &[&str]) -> Step {
    let step = range(words).map(|(addr, len)| match talk.done.take() {
        None => begin(talk, addr, len),
        Some(places) => {
            places.iter().for_each(|place| {
                talk.watched.reporter.message(&[format!("*0x{:x} {}", place.addr, points(place.len, addr, len))]);
                talk.describe(place);
            });
            registers(talk, addr, len);
            Step::Done
        }
    });
    talk.complain(step)
}

/// The places, which the runtime is asked about: their length is where they point to.
fn begin(talk: &mut Talk, addr: u64, len: u64) -> Step {
    let what = if len > 1 { format!("pointing in {len} bytes from") } else { "to".to_owned() };
    talk.watched.reporter.message(&[format!("Searching for pointers {what} 0x{addr:x}")]);
    let mut found = leaks::words(talk.process, talk.report, |word| word.wrapping_sub(addr) < len.max(1));
    if found.len() > talk.most {
        talk.watched.reporter.message(&[format!("There are {} of them; here are the first {}.", found.len(), talk.most)]);
        found.truncate(talk.most);
    }
    Step::Errands(found.into_iter().map(|(place, word)| Errand::new(Task::Describe, place, word)).collect())
}

fn points(word: u64, addr: u64, len: u64) -> String {
    let inside = word.wrapping_sub(addr);
    if len > 1 && inside > 0 { format!("interior points at {inside} bytes inside 0x{addr:x}") } else { format!("points at 0x{addr:x}") }
}

fn registers(talk: &Talk, addr: u64, len: u64) {
    for thread in talk.process.threads() {
        let thread = if thread.tid == talk.thread.tid { *talk.thread } else { thread };
        for (name, word) in GPR_NAMES.iter().zip(thread.regs.gpr) {
            let inside = word.wrapping_sub(addr);
            if inside < len.max(1) {
                let how = if inside > 0 { format!("interior pointing {inside} bytes inside") } else { "pointing at".to_owned() };
                talk.watched.reporter.message(&[format!("tid {} register {name} {how} 0x{addr:x}", thread.number)]);
            }
        }
    }
}
