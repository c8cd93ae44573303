//! What the user reads: findings as trees, the formats that walk them, suppressions and the command line.
//!
//! The map, in the order in which a finding travels:
//!
//! ```text
//!  options ──► Options ─────────────────────────────┐
//!  (argv, rc files, environment)                    ▼
//!  session ──► ErrorRecord ──► Reporter ──► dedup ──► suppress ──► render ──► sink
//!              error, address               "seen before?" "wanted?"  one per   file, fd,
//!              frame                                                  format    socket
//! ```
//!
//! * [`kind`], [`frame`], [`error`], [`address`], [`leak`]: the nouns. Every finding is one tree: *what + stack + (also-what + stack)…*. Kinds
//!   build the tree once, in `error` and `address`; the texts live there and nowhere else.
//! * [`dedup`], [`suppress`]: is this finding new, and does anybody want to see it.
//! * [`rules`]: what each kind of finding means.
//! * [`names`]: names that are only found if somebody needs them.
//! * [`render`]: one file per format, each a walk over the same tree.
//! * [`terminal`], [`source`]: what people at a terminal get beyond that, and the source lines that it quotes.
//! * [`sink`]: where bytes go. Nothing else in this crate writes anywhere.
//! * [`options`]: the command line, as one table.
//! * [`reporter`]: the facade the session talks to, one per traced process.
//!
//! Deliberately absent: this crate never sees a process, a register or a byte of the program's memory, and it knows nothing
//! about how frames were found. "Error" always means a fault of the user's program; our own failures are results.

pub mod address;
pub mod dedup;
pub mod error;
pub mod frame;
pub mod kind;
pub mod leak;
pub mod names;
pub mod number;
pub mod options;
pub mod render;
pub mod reporter;
pub mod rules;
pub mod sink;
pub mod source;
pub mod suppress;
pub mod terminal;

pub use error::{Aux, ErrorKind, ErrorRecord, LeakKind};
pub use frame::{Frame, Line, Stack};
pub use options::Options;
pub use reporter::Reporter;
