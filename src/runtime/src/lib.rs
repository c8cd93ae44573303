//! The runtime: translates and checks the program from inside.
//!
//! ```text
//! tracer --- exec stop ---> startup: move mappings, reserve shadow, first thread --> asm::enter
//! translated code <--> asm (save, restore) <--> dispatch, check, helpers, syscalls, replaced functions
//! faults, signals: tracer --> asm::fault_entry --> fault --> safepoint (program state exact) --> tracer
//! ```
//! - [`asm`]       all assembly: ways in and out of translated code; `leave` out of dirty code
//! - [`startup`]   from the exec stop to the first translated instruction
//! - [`cache`]     code cache: place, publish, link, find by host address, invalidate
//! - [`renewal`]   what is dead in it is given back
//! - [`program`]   the translator's view of the program: code bytes, replaced functions
//! - [`flags`]     functions that may return something in the flags
//! - [`dispatch`]  find or make the translation of an address
//! - [`check`]     slow side of a memory check: what is wrong, report
//! - [`dirty`]     threads with undefined registers; [`origin`] where values come from; [`vectors`] registers beyond the saved ones
//! - [`stackmove`] stack switches, large releases, repair of the shadow call stack
//! - [`helpers`]   emulated instructions, string instructions, code that changes
//! - [`requests`]  client requests
//! - [`inner`]     calls of program code from inside the runtime
//! - [`kept`]      undefined registers across signal handlers
//! - [`syscalls`]  the program's system calls
//! - [`threads`]   thread slots, clone
//! - [`replaced`]  table of replacement functions; [`traced`] calls of them that are told
//! - [`safepoint`] hand over to the tracer with exact program state
//! - [`fault`]     from a fault in the code cache to the program's state
//!
//! Nothing here formats text or uses memory of the program's heap. Built as a freestanding image (`main.rs`), linked to a fixed
//! address and embedded in the tracer's binary.
#![no_std]
extern crate alloc;

pub mod asm;
pub mod cache;
pub mod check;
pub(crate) mod chunks;
pub mod copies;
pub mod deadness;
pub mod dirty;
pub mod dispatch;
pub mod exception;
pub mod far;
pub mod fault;
pub mod flags;
pub mod followed;
pub mod helpers;
pub mod inner;
pub mod kept;
pub mod newstack;
pub mod origin;
pub mod owner;
pub(crate) mod pages;
pub(crate) mod places;
pub mod program;
pub mod regions;
pub mod renewal;
pub mod replaced;
pub mod requests;
pub(crate) mod room;
pub mod safepoint;
pub mod selfsignal;
pub mod spread;
pub mod stackmove;
pub(crate) mod starts;
pub mod startup;
pub mod statistics;
pub mod syscalls;
pub mod threads;
pub mod traced;
pub mod vectors;
pub(crate) mod vsyscall;
