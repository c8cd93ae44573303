//! Real system calls of the test process, looked at as if a traced program made them.
//!
//! The program's memory is mapped low through [`crate::before`] itself, because shadow exists only there. One context and one
//! address-space map serve the whole process, so every test holds [`Program`].
#![allow(unsafe_code, reason = "executes system calls on raw memory")]

mod marks;
mod params;
mod space;
mod special;
mod speed;

use crate::{Action, Special, after, before};
use memcheck_abi::config::Config;
use memcheck_abi::context::{RAX, RSP};
use memcheck_abi::event::Kind;
use memcheck_rt::report::host;
use memcheck_rt::{context, shadow, sys};
use std::string::{String, ToString};
use std::sync::{Mutex, MutexGuard, Once};
use std::vec::Vec;

static ONE: Mutex<()> = Mutex::new(());
static START: Once = Once::new();
pub const ARENA: u64 = 1 << 20;

/// The traced program: memory of its own, and system calls.
pub struct Program {
    /// A mapping of [`ARENA`] bytes, all defined; handed out by [`Program::room`].
    base: u64,
    next: u64,
    _guard: MutexGuard<'static, ()>,
}

/// A report: flag 0 uninitialised, 1 unaddressable, 2 register.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub flag: u32,
    pub addr: u64,
}

fn config() -> std::boxed::Box<Config> {
    // SAFETY: plain integers, for which zero is a value.
    let mut config: std::boxed::Box<Config> = unsafe { std::boxed::Box::new(core::mem::zeroed()) };
    config.undef_value_errors = 1;
    // As if who runs the tests were the tool: otherwise PTRACE_TRACEME would be meant, and their process stay a zombie.
    config.tracer = std::os::unix::process::parent_id();
    config
}

impl Program {
    pub fn new() -> Program {
        let guard = ONE.lock().unwrap_or_else(|e| e.into_inner());
        START.call_once(|| {
            // The origin words are not needed, and would lie over the test program.
            let _ = shadow::reserve();
            crate::init(&config());
        });
        let ctx = context::current();
        ctx.regs.gpr[RSP] = 0x1000;
        ctx.regs.rip = 0x40_0002;
        let mut program = Program { base: 0, next: 0, _guard: guard };
        let base = program.call(9, &[0, ARENA, 3, 0x22, u64::MAX, 0]);
        assert!(!sys::is_error(base), "mmap: {base}");
        program.base = base as u64;
        program.next = program.base;
        program.reports();
        program
    }

    /// `n` defined zero bytes, not adjacent to others.
    pub fn room(&mut self, n: usize) -> u64 {
        let at = self.next;
        self.next += (n as u64).next_multiple_of(16) + 64;
        assert!(self.next <= self.base + ARENA);
        at
    }

    /// `n` bytes of any value that are undefined.
    pub fn undefined(&mut self, n: usize) -> u64 {
        let at = self.room(n);
        shadow::fill_v(at, n as u64, shadow::UNDEFINED);
        at
    }

    /// `n` addressable undefined bytes with inaccessible ones around.
    pub fn block(&mut self, n: usize) -> u64 {
        let at = self.room(n + 32) + 16;
        shadow::make_noaccess(at - 16, n as u64 + 32);
        shadow::make_undefined(at, n as u64);
        at
    }

    /// Defined bytes with this content.
    pub fn bytes(&mut self, content: &[u8]) -> u64 {
        let at = self.room(content.len());
        put(at, content);
        at
    }

    pub fn string(&mut self, text: &str) -> u64 {
        self.bytes(&[text.as_bytes(), b"\0"].concat())
    }

    pub fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Make a system call as the glue would; the raw result.
    pub fn call(&mut self, number: u64, args: &[u64]) -> i64 {
        let ctx = context::current();
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        ctx.regs.gpr[RAX] = number;
        for (register, value) in crate::call::ARGUMENTS.into_iter().zip(six) {
            ctx.regs.gpr[register] = value;
        }
        let (number, six) = match before(ctx) {
            Action::Done(result) => return result,
            Action::Native | Action::Special(Special::RtSigaction { .. }) => (number, six),
            Action::NativeWith(other, number) => (number, other),
            Action::Special(special) => panic!("not executed in tests: {special:?}"),
        };
        // SAFETY: the test's own call on its own memory.
        let result = unsafe { sys::syscall6(number, six[0], six[1], six[2], six[3], six[4], six[5]) };
        after(ctx, result);
        result
    }

    /// What was reported since the last time.
    pub fn reports(&mut self) -> Vec<Seen> {
        let log = host::LOG.lock();
        let seen = log.0[..log.1.min(16)].iter().map(|e| {
            let text: Vec<u8> = e.name.iter().copied().take_while(|&b| b != 0).collect();
            let flag = if e.kind == Kind::ParamRegister as u32 { 2 } else { e.flag };
            Seen { name: String::from_utf8_lossy(&text).to_string(), flag, addr: e.addr }
        });
        let seen = seen.collect();
        drop(log);
        host::drain();
        seen
    }

    /// The names reported by one call, whatever it returned.
    pub fn names(&mut self, number: u64, args: &[u64]) -> Vec<String> {
        self.reports();
        self.call(number, args);
        self.reports().into_iter().map(|s| s.name).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.call(11, &[self.base, ARENA]);
    }
}

/// Write defined bytes.
pub fn put(at: u64, content: &[u8]) {
    // SAFETY: inside the arena of the running test.
    unsafe { core::ptr::copy_nonoverlapping(content.as_ptr(), at as *mut u8, content.len()) };
    shadow::fill_v(at, content.len() as u64, 0);
}

pub fn get(at: u64, n: usize) -> Vec<u8> {
    // SAFETY: inside the arena of the running test.
    unsafe { core::slice::from_raw_parts(at as *const u8, n).to_vec() }
}

pub fn get_u64(at: u64) -> u64 {
    u64::from_ne_bytes(get(at, 8).try_into().unwrap())
}

pub fn get_i32(at: u64) -> i32 {
    i32::from_ne_bytes(get(at, 4).try_into().unwrap())
}

/// V bytes.
pub fn v(at: u64, n: usize) -> Vec<u8> {
    let mut out = std::vec![0; n];
    shadow::read_v(at, &mut out);
    out
}
