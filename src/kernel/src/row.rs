//! The row type: one system call, its registers and its memory.
//!
//! ```text
//! row(0, "read", "fd:4 buf count", &[Out(1, Arg(2), Ret, "read(buf)")])
//!     |    |          |                  |     |      |      name of the memory parameter in reports
//!     |    |          |                  |     |      bytes written, known after success (never more than the size before)
//!     |    |          |                  |     bytes that must be addressable before
//!     |    |          |                  argument that holds the address
//!     |    |          registers: argument names, `:4` = only the low 32 bits count
//!     |    prefix of the register parameter names: `read(fd)`
//!     number
//! ```

use crate::action::Action;
use crate::call::{ARGUMENTS, Call, Name, Phase};
use memcheck_abi::context::RAX;

/// How many bytes.
#[derive(Clone, Copy)]
pub enum Size {
    Fix(u64),
    /// The argument itself.
    Arg(u8),
    /// 64-bit argument times bytes.
    Mul(u8, u64),
    /// int argument (negative counts as 0) times bytes.
    Int(u8, u64),
    /// The result, and the result times bytes.
    Ret,
    RetMul(u64),
    /// The u32 that the argument points to, as it is at this moment.
    Len32(u8),
}

/// What a row does with one piece of memory. The first field is the argument number, 0..=5.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Read by the kernel.
    In(u8, Size, &'static str),
    /// Written by the kernel: size before, size after success.
    Out(u8, Size, Size, &'static str),
    /// Written completely on success.
    Set(u8, Size, &'static str),
    /// Read and written.
    InOut(u8, Size, &'static str),
    Str(u8, &'static str),
    /// A buffer of data and the argument with its length: read resp. filled up to the result. It must be there also if the kernel
    /// never looks at it.
    Data(u8, u8, &'static str),
    Room(u8, u8, &'static str),
    /// A vector of {address, length} that is read resp. filled in order up to the result: vector, count, names of vector and entry.
    IovIn(u8, u8, &'static str, &'static str),
    IovOut(u8, u8, &'static str, &'static str),
    /// Code that is right in every phase, because it only uses the verbs of `Call`.
    Do(fn(&mut Call)),
    /// Before the call only (and after an error, to find the culprit).
    Pre(fn(&mut Call)),
    /// After success only.
    Post(fn(&mut Call)),
    /// After an error.
    Fail(fn(&mut Call)),
}

pub struct Row {
    pub nr: u16,
    pub name: &'static str,
    pub registers: &'static str,
    pub rules: &'static [Rule],
    /// Bit i set: argument i is really used in this variant. `None` = all that are named.
    pub uses: Option<fn(&[u64; 6]) -> u8>,
    /// How it is executed, if not natively.
    pub act: Option<fn(&mut Call) -> Action>,
}

pub const fn row(nr: u16, name: &'static str, registers: &'static str, rules: &'static [Rule]) -> Row {
    Row { nr, name, registers, rules, uses: None, act: None }
}

/// No memory is read or written.
pub const fn plain(nr: u16, name: &'static str, registers: &'static str) -> Row {
    row(nr, name, registers, &[])
}

impl Row {
    pub const fn uses(mut self, f: fn(&[u64; 6]) -> u8) -> Row {
        self.uses = Some(f);
        self
    }
    pub const fn act(mut self, f: fn(&mut Call) -> Action) -> Row {
        self.act = Some(f);
        self
    }
}

#[inline]
fn bytes(c: &Call, size: Size) -> u64 {
    match size {
        Size::Fix(n) => n,
        Size::Arg(a) => c.args[a as usize],
        Size::Mul(a, n) => c.args[a as usize].saturating_mul(n),
        Size::Int(a, n) => c.count(a as usize) * n,
        Size::Ret => c.result.max(0) as u64,
        Size::RetMul(n) => (c.result.max(0) as u64).saturating_mul(n),
        Size::Len32(a) => u64::from(c.peek_or_zero::<u32>(c.args[a as usize])),
    }
}

/// Apply the rules in the call's phase.
#[inline]
pub fn run(c: &mut Call, rules: &'static [Rule]) {
    for (rule, number) in rules.iter().zip(0..) {
        c.rule = number;
        apply(c, rule);
    }
}

/// Apply those that are chosen.
pub fn run_some(c: &mut Call, rules: &'static [Rule], is_chosen: impl Fn(&Rule) -> bool) {
    for (rule, number) in rules.iter().zip(0..).filter(|(rule, _)| is_chosen(rule)) {
        c.rule = number;
        apply(c, rule);
    }
}

#[inline]
fn apply(c: &mut Call, rule: &'static Rule) {
    match *rule {
        Rule::In(a, size, name) if c.phase != Phase::Mark => {
            let n = bytes(c, size);
            c.input(c.args[a as usize], n, name);
        }
        Rule::Out(a, size, after, name) => {
            let n = bytes(c, size);
            let n = if c.phase == Phase::Mark { n.min(bytes(c, after)) } else { n };
            c.output(c.args[a as usize], n, name);
        }
        Rule::Set(a, size, name) => {
            let n = bytes(c, size);
            c.output(c.args[a as usize], n, name);
        }
        Rule::InOut(a, size, name) => {
            let n = bytes(c, size);
            c.both(c.args[a as usize], n, name);
        }
        Rule::Str(a, name) => c.string(c.args[a as usize], name),
        Rule::Data(a, n, name) if c.phase != Phase::Mark => data(c, c.args[a as usize], c.args[n as usize], name.into()),
        Rule::Room(a, n, name) => {
            let (at, len) = (c.args[a as usize], c.args[n as usize]);
            room(c, at, len, if c.phase == Phase::Mark { len.min(bytes(c, Size::Ret)) } else { len }, name.into());
        }
        Rule::IovIn(a, n, vector, entry) if c.phase != Phase::Mark => iov_in(c, a, n, vector, entry),
        Rule::IovOut(a, n, vector, entry) => iov_out(c, a, n, vector, entry),
        Rule::Do(f) => f(c),
        Rule::Pre(f) if matches!(c.phase, Phase::Check | Phase::Fault) => f(c),
        Rule::Post(f) if c.phase == Phase::Mark => f(c),
        Rule::Fail(f) if c.phase == Phase::Failed => f(c),
        _ => {}
    }
}

fn data(c: &mut Call, at: u64, len: u64, name: Name) {
    c.input(at, len, name);
    c.there(at, len, name);
}

/// `used` of the `len` bytes are filled.
fn room(c: &mut Call, at: u64, len: u64, used: u64, name: Name) {
    c.output(at, used, name);
    c.there(at, len, name);
}

/// The kernel takes at most this many entries, and does not look at a longer vector.
const IOV_MAX: u64 = 1024;
const IOVEC: u64 = 16;

/// The entries of a vector of {address, length}, as far as readable.
pub fn for_iov(c: &mut Call, vector: u64, count: u64, mut f: impl FnMut(&mut Call, u32, u64, u64)) {
    let count = if count > IOV_MAX { 0 } else { count };
    for i in 0..count {
        let Some([base, len]) = c.peek::<[u64; 2]>(vector.wrapping_add(i * IOVEC)) else { return };
        f(c, i as u32, base, len);
    }
}

/// Bytes of a vector with so many entries.
pub fn iov_bytes(count: u64) -> u64 {
    if count > IOV_MAX { 0 } else { count * IOVEC }
}

fn iov_in(c: &mut Call, a: u8, n: u8, vector: &'static str, entry: &'static str) {
    let (at, count) = (c.args[a as usize], c.args[n as usize]);
    c.input(at, iov_bytes(count), vector);
    for_iov(c, at, count, |c, i, base, len| data(c, base, len, Name::at(entry, i)));
}

fn iov_out(c: &mut Call, a: u8, n: u8, vector: &'static str, entry: &'static str) {
    let (at, count) = (c.args[a as usize], c.args[n as usize]);
    c.input(at, iov_bytes(count), vector);
    fill_iov(c, at, count, entry.into());
}

/// A vector whose buffers are filled in order up to the result.
pub fn fill_iov(c: &mut Call, vector: u64, count: u64, entry: Name) {
    let mut left = if c.phase == Phase::Mark { c.result.max(0) as u64 } else { u64::MAX };
    for_iov(c, vector, count, |c, i, base, len| {
        let n = len.min(left);
        left -= n;
        room(c, base, len, n, entry.index(i));
    });
}

/// Report every used argument register with undefined bits; `v` = V bits in encoding order.
#[cold]
pub fn check_registers(c: &mut Call, row: &Row, v: &[u64; 16]) {
    if v[RAX] as u32 != 0 {
        c.undefined_register(RAX, |e| e.set_name("(syscallno)"));
    }
    let used = row.uses.map_or(0x3f, |f| f(&c.args));
    for (i, token) in row.registers.split_ascii_whitespace().enumerate().take(ARGUMENTS.len()) {
        let (name, narrow) = match token.strip_suffix(":4") {
            Some(name) => (name, true),
            None => (token, false),
        };
        let bits = v[ARGUMENTS[i]];
        if used >> i & 1 == 0 || (if narrow { bits as u32 == 0 } else { bits == 0 }) {
            continue;
        }
        c.undefined_register(ARGUMENTS[i], |e| {
            let mut n = 0;
            for piece in [row.name, "(", name, ")"] {
                let room = e.name.len() - 1 - n;
                let take = piece.len().min(room);
                e.name[n..n + take].copy_from_slice(&piece.as_bytes()[..take]);
                n += take;
            }
            e.name[n] = 0;
        });
    }
}
