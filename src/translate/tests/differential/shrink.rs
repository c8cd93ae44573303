//! The shortest program that still fails.
//!
//! Operations are left out, in ever smaller pieces. What remains may do anything, even to this process: every attempt runs in a child.
#![allow(unsafe_code, reason = "forks")]

use crate::machine::{Machine, Way};
use crate::session::{Case, Failure, try_case};
use std::time::{Duration, Instant};

/// Attempts stop after this.
const LIMIT: Duration = Duration::from_secs(20);

pub fn shrink(machine: &mut Machine, case: &Case, way: &Way, like: &Failure) -> Case {
    let end = Instant::now() + LIMIT;
    let mut best = case.clone();
    let mut piece = best.program.ops.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        let mut removed = false;
        while from < best.program.ops.len() {
            if Instant::now() > end {
                return best;
            }
            let mut shorter = best.clone();
            let mut index = 0;
            shorter.program.ops.retain(|op| {
                index += 1;
                matches!(op, crate::assemble::Op::Label(_)) || !(from..from + piece).contains(&(index - 1))
            });
            if shorter.program.ops.len() < best.program.ops.len() && fails(machine, &shorter, way, like) {
                best = shorter;
                removed = true;
            } else {
                from += piece;
            }
        }
        if !removed || piece > 1 {
            piece /= 2;
        }
    }
    best
}

const FAILED: i32 = 17;

/// Does it fail, in a child process?
fn fails(machine: &mut Machine, case: &Case, way: &Way, like: &Failure) -> bool {
    // SAFETY: the child runs one case and leaves without unwinding or cleaning up.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(5);
            let attached = crate::gate::Attached::new();
            attached.use_timer();
            std::panic::set_hook(Box::new(|_| {}));
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_case(machine, case, way)));
            std::mem::forget(attached);
            let failed = matches!(&found, Ok(Some(failure)) if like.is_like(failure));
            libc::_exit(if failed { FAILED } else { 0 });
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == FAILED
    }
}
