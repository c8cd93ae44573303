//! The definedness engine of dirty mode: what one instruction does to V bits.
//!
//! This is an interpreter of *shadows only*. The program's instruction runs natively, by the caller; just before it does, [`run`] is
//! told the instruction (as a [`Plan`], made once by a [`Planner`]), the shadow of the registers, and gets concrete values and shadow
//! memory through [`Machine`]. It computes the shadow afterwards and complains about undefined branches, addresses and targets.
//!
//! ```text
//! Instruction --Planner::plan--> Plan --run(plan, &mut ShadowRegs, &mut Machine)--> Outcome
//!                (once)                     (each time, no allocation)
//! ```
//!
//! Rooms, in the order in which they build on each other:
//! - [`wide`] 64 bytes as lanes; [`bits`] arithmetic on partly known numbers; [`regs`] the shadow registers
//! - [`machine`] the surroundings; [`plan`] an instruction made ready; `cx` running one; [`table`] all rows
//! - families, each with its rows: [`moves`] [`integer`] [`shift`] [`bitop`] [`flags`] [`control`] [`string`],
//!   vectors: [`vmoves`] [`lanes`] [`shuffle`] [`convert`] [`compare`] [`kmask`] [`gather`], and [`x87`] [`state`]
//! - [`lookahead`] the excuse for branches that compilers reordered; [`repeats`] which uses of one address are reported
//!
//! Promises: a bit called defined never depends on an undefined bit (`tests/proof.rs` tries to refute that on the processor).
//! Not promised: that a bit called undefined can really vary. Exceptions to the promise, all deliberate: the comparison inside cmpxchg
//! counts as defined; after a complaint the guilty value does where [`Machine::complain`] says so.
//!
//! Deliberately absent: executing anything, addressability, painting of released stack, syscalls, and the meaning of origin tags.
#![no_std]

pub mod bitop;
pub mod bits;
pub mod compare;
pub mod control;
pub mod convert;
mod cx;
pub mod flags;
pub mod gather;
pub mod integer;
pub mod kmask;
pub mod lanes;
pub mod lookahead;
pub mod machine;
pub mod moves;
pub mod plan;
pub mod regs;
pub mod repeats;
pub mod shift;
pub mod shuffle;
pub mod state;
pub mod string;
pub mod table;
pub mod vmoves;
pub mod wide;
pub mod x87;

pub use cx::run;
pub use machine::{Complaint, ComplaintKind, Machine, Outcome, Segment};
pub use plan::{Plan, Planner};
pub use regs::ShadowRegs;
pub use table::Rule;
pub use wide::Wide;

/// Plans and runs in one go, for callers that meet an instruction only once.
pub fn step<M: Machine>(planner: &mut Planner, insn: &iced_x86::Instruction, regs: &mut ShadowRegs, m: &mut M) -> Outcome {
    run(&planner.plan(insn), regs, m)
}
