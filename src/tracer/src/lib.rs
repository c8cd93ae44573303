//! The tracer: starts the program under ptrace, puts the runtime into it, and follows it to its end.
//!
//! ```text
//! resolve ─► launch ─► inject ─► run ─┬─ traps    what the runtime says ─► Handler (the session)
//!                                     ├─ deliver  signals
//!                                     └─ births, execs, ends
//! ```
//!
//! - [`resolve`]  which file to run, and when to refuse
//! - `launch`     fork, seize, exec
//! - [`tracee`]   a stopped thread, and every ptrace request
//! - [`memory`], [`maps`], [`signals`], [`process`]  what can be known about a process
//! - [`inject`]   the runtime into the program
//! - [`run`]      the event loop; [`traps`] and [`deliver`] are its two large branches
//! - `whereabouts`  code cache addresses that threads have in hand
//! - `front`      the process that waits for all this
//! - `frame`      what the kernel leaves on a handler's stack
//! - [`handler`]  what the session is told; [`sockets`] what a descriptor is
//!
//! Nothing here is hot: a stop costs tens of microseconds, so there are few of them. Deliberately absent: names, reports, leaks,
//! options — the session's work — and any knowledge of what the runtime does between two traps.

pub mod deliver;
mod forward;
mod frame;
mod front;
pub mod handler;
pub mod inject;
pub mod launch;
mod limits;
pub mod maps;
pub mod memory;
pub mod process;
pub mod resolve;
pub mod run;
pub mod signals;
mod sigreturn;
pub mod sockets;
pub mod tracee;
pub mod traps;
mod whereabouts;

pub use front::{Farewell, Inherited, caller, divide};
pub use handler::{Command, FatalSignal, Handler, Warning};
pub use inject::Image;
pub use launch::launch;
pub use limits::die_by;
pub use maps::Map;
pub use process::{Exact, Process, ThreadInfo};
pub use resolve::{Program, Refusal};
pub use run::Tracer;
pub use tracee::Ending;

#[cfg(test)]
mod tests;
