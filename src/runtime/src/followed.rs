//! Undefined addresses that were followed: which of them are reported, and what becomes of them then.
//!
//! The rules are those of `memcheck_semantics::repeats`, which reads the code around the place. A loop comes here every round, so answers
//! are remembered by all that they depend on.

use crate::dirty::{Ahead, Known};
use memcheck_semantics::lookahead::Code;
use memcheck_semantics::repeats::{self, PLACES};

/// Answers by question; gone when code changes.
pub static JUDGED: Known = Known::new();

/// Instead of registers: it was said before.
const REPEAT: u64 = u64::MAX;

/// The undefined registers `guilty` are an address at `pc`; `asked` are the places of the thread's last reports of that kind, the newest
/// first. None if that was said already, otherwise those registers that count as defined from now on.
pub fn judge(asked: &mut [u64; PLACES], pc: u64, guilty: u64) -> Option<u64> {
    let question =
        asked.iter().chain([&pc, &guilty]).fold(0u64, |hash, &word| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let answer = match JUDGED.get(question) {
        Some((answer, ..)) => answer,
        None => {
            let answer = read_code(asked, pc, guilty);
            JUDGED.put(question, (answer, 0, 0));
            answer
        }
    };
    if answer == REPEAT {
        return None;
    }
    if !asked.contains(&pc) {
        asked.rotate_right(1);
        asked[0] = pc;
    }
    Some(answer)
}

fn read_code(asked: &[u64; PLACES], pc: u64, guilty: u64) -> u64 {
    let Some(access) = Ahead.instruction(pc) else { return guilty };
    match repeats::is_repeat(&Ahead, asked, &access, guilty) {
        true => REPEAT,
        false => repeats::moves_on(&Ahead, &access),
    }
}
