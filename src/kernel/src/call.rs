//! One system call while it is looked at, and the verbs that rows are made of.
//!
//! A row's rules run up to twice, and the same rule means different things in each phase:
//!
//! | | `input` | `output` | `string` |
//! |---|---|---|---|
//! | Check: before the call | addressable and defined? | addressable? | like input, to the NUL |
//! | Mark: it succeeded | | defined now | |
//! | Failed: it did not succeed | | | |
//! | Fault: after that, in search of wild pointers | mapped? | mapped? | mapped? |
//!
//! Program memory that steers a check (lengths, pointers, strings) is read only after the address-space map said that it is
//! there: a wild pointer is the program's error and must end as its report, not as our fault.
#![allow(unsafe_code, reason = "reads the program's memory at addresses it passed to the kernel")]

use crate::{EFAULT, check, hooks, space};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use memcheck_abi::context::{R8, R9, R10, RDI, RDX, RSI, RSP, ThreadContext, local};
use memcheck_abi::event::{ErrorEvent, Kind};
use memcheck_rt::access::Bad;
use memcheck_rt::{report, sys};

/// The six argument registers in the kernel's order.
pub const ARGUMENTS: [usize; 6] = [RDI, RSI, RDX, R10, R8, R9];

/// `locals[SYSCALL]`: the number, and above it a bit for every rule of the row that reported something unaddressable before the call, and one
/// for any such report, before or after.
pub const NUMBER: u64 = 0xffff_ffff;
const REPORTED: u64 = 1 << 32;
const RULES: u32 = 31;
const ANY_REPORTED: u64 = REPORTED << RULES;

static UNDEF: AtomicBool = AtomicBool::new(true);

pub fn set_undef(on: bool) {
    UNDEF.store(on, Ordering::Relaxed);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Check,
    Mark,
    Failed,
    Fault,
}

/// A parameter's name in two parts; every `#` in the second stands for the next index.
#[derive(Clone, Copy)]
pub struct Name {
    prefix: &'static str,
    text: &'static str,
    index: [u32; 2],
}

impl Name {
    pub const fn at(text: &'static str, i: u32) -> Name {
        Name { prefix: "", text, index: [i, 0] }
    }
    /// A field of a structure: `prefix` ends in a dot, `text` closes the bracket.
    pub const fn field(prefix: &'static str, text: &'static str) -> Name {
        Name { prefix, text, index: [0; 2] }
    }

    /// The same name with the last index set: the second if there are two.
    pub fn index(mut self, i: u32) -> Name {
        let places = self.text.bytes().filter(|&b| b == b'#').count();
        self.index[places.saturating_sub(1).min(1)] = i;
        self
    }

    fn write(self, e: &mut ErrorEvent) {
        let mut n = 0;
        let mut push = |b: u8| {
            if n + 1 < e.name.len() {
                e.name[n] = b;
                e.name[n + 1] = 0;
                n += 1;
            }
        };
        self.prefix.bytes().for_each(&mut push);
        let mut next = 0;
        for b in self.text.bytes() {
            if b != b'#' {
                push(b);
                continue;
            }
            let value = self.index[next.min(1)];
            next += 1;
            let mut power = 1;
            while value / power >= 10 {
                power *= 10;
            }
            while power > 0 {
                push(b'0' + (value / power % 10) as u8);
                power /= 10;
            }
        }
    }
}

impl From<&'static str> for Name {
    #[inline(always)]
    fn from(text: &'static str) -> Name {
        Name::at(text, 0)
    }
}

/// Plain values that may be read from the program: any bytes are a valid value.
pub trait Plain: Copy + Default {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl Plain for [u64; 2] {}

/// Bytes of a buffer that are checked whether they are mapped or not.
const LONG: u64 = 1 << 20;

pub struct Call<'a> {
    pub ctx: &'a mut ThreadContext,
    pub args: [u64; 6],
    pub phase: Phase,
    /// The kernel's answer; 0 before.
    pub result: i64,
    /// Which rule of the row is being applied.
    pub rule: u32,
    /// The call failed for a bad address, and no other argument explains it.
    pub null_is_bad: bool,
    /// The checks were made before a signal came between them and the call: they may have taken longer than the time to the next signal.
    pub is_checked: bool,
    /// A range that was found readable during this call: arrays are looked up once.
    readable: Cell<(u64, u64)>,
}

impl<'a> Call<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a mut ThreadContext, phase: Phase, result: i64) -> Self {
        let g = &ctx.regs.gpr;
        let args = [g[RDI], g[RSI], g[RDX], g[R10], g[R8], g[R9]];
        Call { ctx, args, phase, result, rule: 0, null_is_bad: false, is_checked: false, readable: Cell::new((0, 0)) }
    }

    #[inline(always)]
    fn sp(&self) -> u64 {
        self.ctx.regs.gpr[RSP]
    }

    /// Argument `i` as an int; negative counts as 0.
    pub fn count(&self, i: usize) -> u64 {
        (self.args[i] as i32).max(0) as u64
    }

    /// Words kept from Check to the second half, 0..3.
    pub fn keep(&mut self, i: usize, value: u64) {
        self.ctx.locals[local::SYSCALL + 1 + i] = value;
    }
    pub fn kept(&self, i: usize) -> u64 {
        self.ctx.locals[local::SYSCALL + 1 + i]
    }

    /// The kernel reads `[addr, addr + len)`. A null pointer is "not given".
    #[inline]
    pub fn input(&mut self, addr: u64, len: u64, name: impl Into<Name>) {
        if addr == 0 && !self.null_is_bad || len == 0 {
            return;
        }
        match self.phase {
            Phase::Check if self.is_checked || !check::has_shadow(addr, len) => {}
            Phase::Check if UNDEF.load(Ordering::Relaxed) => {
                let len = self.worth_looking_at(addr, len);
                if let Some(bad) = check::first_bad(self.ctx, self.sp(), addr, len) {
                    self.bad(bad, name.into());
                }
            }
            Phase::Check => self.addressable(addr, len, name.into()),
            Phase::Fault => self.mapped(addr, len, name.into()),
            _ => {}
        }
    }

    /// What the kernel read and has then written: that it was undefined is told once more, as of the result.
    pub fn read_back(&mut self, addr: u64, len: u64, name: impl Into<Name>) {
        let is_checked = self.phase == Phase::Mark && addr != 0 && UNDEF.load(Ordering::Relaxed) && check::has_shadow(addr, len);
        if is_checked && let Some(bad) = check::first_bad(self.ctx, self.sp(), addr, len) {
            self.bad(bad, name.into());
        }
    }

    /// The kernel writes `[addr, addr + len)` if it succeeds.
    #[inline]
    pub fn output(&mut self, addr: u64, len: u64, name: impl Into<Name>) {
        if addr == 0 && !self.null_is_bad || len == 0 {
            return;
        }
        match self.phase {
            Phase::Check => self.addressable(addr, len, name.into()),
            Phase::Mark => check::mark_defined(self.ctx, self.sp(), addr, len),
            Phase::Fault => self.mapped(addr, len, name.into()),
            Phase::Failed => {}
        }
    }

    /// The kernel wrote here, whatever the phase.
    pub fn mark(&mut self, addr: u64, len: u64) {
        if addr != 0 {
            check::mark_defined(self.ctx, self.sp(), addr, len);
        }
    }

    /// The kernel reads and then writes the same bytes.
    pub fn both(&mut self, addr: u64, len: u64, name: impl Into<Name>) {
        match self.phase {
            Phase::Mark => self.output(addr, len, name),
            _ => self.input(addr, len, name),
        }
    }

    /// A length in the gigabytes is mostly a mistake: what follows the last mapping is known to be bad when the call fails, and its shadow
    /// is not read, which would take a second.
    fn worth_looking_at(&self, addr: u64, len: u64) -> u64 {
        if len <= LONG {
            return len;
        }
        let end = addr + len;
        let mut at = addr + LONG;
        while at < end {
            let next = space::present_end(at, self.sp());
            if next <= at {
                return at - addr;
            }
            at = next;
        }
        len
    }

    #[inline]
    fn addressable(&mut self, addr: u64, len: u64, name: Name) {
        if self.is_checked || !check::has_shadow(addr, len) {
            return;
        }
        let len = self.worth_looking_at(addr, len);
        if let Some(at) = check::first_unaddressable(self.ctx, self.sp(), addr, len) {
            self.bad(Bad::Unaddressable(at), name);
        }
    }

    /// The kernel reads a string, the NUL included; `limit` = the most it looks at.
    pub fn string_up_to(&mut self, addr: u64, limit: u64, name: impl Into<Name>) {
        let name = name.into();
        match self.phase {
            Phase::Check if addr != 0 => {
                let (len, ended) = self.string_len(addr, limit);
                self.input(addr, len, name);
                if !ended && len < limit {
                    self.unreadable(addr + len, name);
                }
            }
            Phase::Fault if addr != 0 || self.result == EFAULT => {
                let (len, ended) = self.string_len(addr, limit);
                if !ended && len < limit {
                    self.mapped(addr + len, 1, name);
                }
            }
            _ => {}
        }
    }

    /// A string went on to where nothing can be read.
    #[cold]
    fn unreadable(&mut self, at: u64, name: Name) {
        if !self.rule_has_reported() {
            self.addressable(at, 1, name);
        }
        if !self.rule_has_reported() && !sys::is_mapped(at, 1) {
            self.bad(Bad::Unaddressable(at), name);
        }
    }

    /// A string argument; paths and names end within two pages or the kernel refuses them.
    pub fn string(&mut self, addr: u64, name: impl Into<Name>) {
        self.string_up_to(addr, 8192, name);
    }

    /// Bytes up to and including the NUL, and whether there was one, not looking beyond `limit` or the end of what is readable.
    fn string_len(&self, addr: u64, limit: u64) -> (u64, bool) {
        let mut len = 0;
        let mut readable = 0;
        while len < limit {
            if len == readable {
                let end = space::readable_end(addr + len, self.sp());
                if end <= addr + len {
                    return (len, false);
                }
                readable = end - addr;
            }
            // SAFETY: [addr, addr + readable) is mapped and readable.
            if unsafe { core::ptr::read_volatile((addr + len) as *const u8) } == 0 {
                return (len + 1, true);
            }
            len += 1;
        }
        (len, false)
    }

    /// Can `[addr, addr + len)` be read without a fault?
    pub fn readable(&self, addr: u64, len: u64) -> bool {
        let Some(end) = addr.checked_add(len) else { return false };
        let (known, known_end) = self.readable.get();
        if addr >= known && end <= known_end {
            return true;
        }
        let mut at = addr;
        while at < end {
            let next = space::readable_end(at, self.sp());
            if next <= at {
                return false;
            }
            at = next;
        }
        self.readable.set((addr, at));
        addr != 0
    }

    /// A value from the program's memory; `None` if it is not there.
    pub fn peek<T: Plain>(&self, addr: u64) -> Option<T> {
        if !self.readable(addr, core::mem::size_of::<T>() as u64) {
            return None;
        }
        // SAFETY: readable, and every bit pattern is a value of a `Plain` type.
        Some(unsafe { core::ptr::read_unaligned(addr as *const T) })
    }

    /// As `peek`, 0 if it is not there.
    pub fn peek_or_zero<T: Plain>(&self, addr: u64) -> T {
        self.peek(addr).unwrap_or_default()
    }

    /// Write a result of an emulated call; false if the program's memory is not there.
    pub fn poke(&mut self, addr: u64, value: u64) -> bool {
        if !space::writable(addr, 8, self.sp()) {
            return false;
        }
        // SAFETY: mapped and writable; it is the program's memory, and the program asked for the write.
        unsafe { core::ptr::write_unaligned(addr as *mut u64, value) };
        self.mark(addr, 8);
        true
    }

    /// Was something unaddressable reported?
    pub fn has_reported(&self) -> bool {
        self.ctx.locals[local::SYSCALL] & ANY_REPORTED != 0
    }

    /// Did the rule that is being applied report something unaddressable before the call?
    fn rule_has_reported(&self) -> bool {
        self.ctx.locals[local::SYSCALL] & (REPORTED << self.rule.min(RULES - 1)) != 0
    }

    /// Is a buffer there at all? The kernel says nothing when it does not look at it: a write to /dev/null, a read at the end of a
    /// file, what follows the end of the data in a vector.
    #[inline]
    pub fn there(&mut self, addr: u64, len: u64, name: Name) {
        if self.phase == Phase::Check && !self.is_checked && len != 0 {
            self.mapped(addr, 1, name);
        }
    }

    /// Is this one of the arguments that are not mapped?
    fn mapped(&mut self, addr: u64, len: u64, name: Name) {
        if space::present_end(addr, self.sp()) < addr.saturating_add(len)
            && !self.rule_has_reported()
            && let Some(at) = first_unmapped(addr, len)
        {
            self.bad(Bad::Unaddressable(at), name);
        }
    }

    /// A null pointer where the kernel or everybody else wants none.
    #[cold]
    pub fn missing(&mut self, name: impl Into<Name>) {
        if self.phase == Phase::Check {
            self.bad(Bad::Unaddressable(0), name.into());
        }
    }

    #[cold]
    fn bad(&mut self, bad: Bad, name: Name) {
        let (flag, at) = match bad {
            Bad::Undefined(at) => (0, at),
            Bad::Unaddressable(at) => (1, at),
        };
        if flag == 1 {
            let by_rule = if self.phase == Phase::Check { REPORTED << self.rule.min(RULES - 1) } else { 0 };
            self.ctx.locals[local::SYSCALL] |= by_rule | ANY_REPORTED;
        }
        if self.is_checked {
            return;
        }
        self.raise(Kind::ParamMemory, |e| {
            e.flag = flag;
            e.addr = at;
            e.has_addr = 1;
            name.write(e);
            if flag == 0 {
                (hooks::get().memory_origin)(e, at);
            }
        });
    }

    /// An argument register, by its number, holds undefined bits.
    #[cold]
    pub fn undefined_register(&self, register: usize, fill: impl FnOnce(&mut ErrorEvent)) {
        if UNDEF.load(Ordering::Relaxed) {
            self.raise(Kind::ParamRegister, |e| {
                fill(e);
                (hooks::get().register_origin)(e, self.ctx, register);
            });
        }
    }

    fn raise(&self, kind: Kind, fill: impl FnOnce(&mut ErrorEvent)) {
        report::raise(kind, self.ctx.regs.rip, self.sp(), fill);
    }
}

/// First byte of the range without a mapping, page by page; looks at most at 2^20 pages. Nothing is mapped near the end of the numbers.
fn first_unmapped(addr: u64, len: u64) -> Option<u64> {
    let Some(end) = addr.checked_add(len.min(1 << 32)) else { return Some(addr) };
    if sys::is_mapped(addr, end - addr) {
        return None;
    }
    let mut at = addr;
    while at < end {
        if !sys::is_mapped(at, 1) {
            return Some(at);
        }
        at = (at | 4095).saturating_add(1);
    }
    None
}
