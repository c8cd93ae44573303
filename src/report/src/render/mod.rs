//! One file per format; each is a walk over the same trees.
//!
//! * [`text`]: Valgrind's text, the default, word by word. Scripts, CTest and IDEs read it.
//! * [`xml`]: Valgrind's XML, protocols 4 and 6.
//! * [`json`]: one object per line, as things happen.
//! * [`github`], [`sarif`]: for CI; findings are placed at the first frame of the user's own code ([`place`]).
//!
//! * [`descriptors`], [`warning`]: text that is not about findings.
//!
//! Renderers return strings and never write, so every one of them is tested by comparing text. Deliberately absent: any
//! decision whether something is shown; that is the reporter's.

pub mod descriptors;
pub mod details;
pub mod github;
pub mod json;
pub mod paint;
pub mod picture;
pub mod place;
pub mod sarif;
pub mod signal;
pub mod summary;
pub mod text;
pub mod warning;
pub mod xml;
pub mod xtree;

use crate::frame::Stack;

/// A program that starts (or a process that comes back from exec).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStart {
    pub pid: u32,
    pub parent: u32,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How the tool itself was called, options included.
    pub tool_command: Vec<String>,
}

/// The program is about to die of a signal. (It leaves no core: one would hold memcheck's memory, too.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FatalSignal {
    pub signo: i32,
    /// `si_code`
    pub code: i32,
    /// `si_addr`, for faults.
    pub address: u64,
    pub thread: u32,
    pub thread_name: Option<String>,
    pub stack: Stack,
    /// The stack of this thread could not grow to this address.
    pub stack_overflow: Option<u64>,
    /// Bytes; for the hint.
    pub main_stack_size: u64,
}

/// Totals of the heap at exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapSummary {
    pub in_use: crate::leak::Tally,
    pub allocs: u64,
    pub frees: u64,
    pub allocated_bytes: u64,
}
