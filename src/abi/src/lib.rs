//! The contract between the two sides: the *tracer* (host, std) and the *runtime* (inside the traced program, core only).
//!
//! Plain data and arithmetic, no behaviour, no unsafe. Every number that crosses the wall is here, with its unit, who writes it
//! and who reads it. Structures are `repr(C)`; both sides are built from the same commit, so there is no versioning beyond
//! [`config::MAGIC`].
//!
//! - [`layout`]   where everything lies in the traced program's address space
//! - [`context`]  the per-thread context that translated code reaches through the fs segment
//! - [`config`]   what the tracer writes before the runtime's first instruction
//! - [`event`]    what the runtime tells the tracer, by a trap;  [`errand`]  what the tracer wants before it can answer
//! - [`replace`]  the functions of the program that the runtime replaces, by symbol name
#![no_std]

pub mod config;
pub mod context;
pub mod errand;
pub mod event;
pub mod layout;
pub mod replace;
