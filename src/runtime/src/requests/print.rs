//! PRINTF: text of the program for the log, formatted here because its arguments are in the program's memory.
//!
//! The arguments come as a `va_list` of the C calling convention:
//!
//! ```text
//! +0 gp_offset: u32   +4 fp_offset: u32   +8 overflow area   +16 register area: 6 general (48 bytes), 8 vector (128 bytes)
//! ```
//! Flags, width, precision and length modifiers are C's; so are the conversions `d i u o x X p s c f F e E g G %`, with `a` as `e` and
//! `n` without effect. An argument in memory that is not there counts as 0.

use super::memory::read_string;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use memcheck_abi::event::Trap;
use memcheck_rt::{report, sys};

/// Longest text, format and string, bytes.
const MOST: usize = 64 << 10;
/// Widths and precisions beyond this are nonsense.
const WIDEST: usize = 4096;
const GENERAL_END: u32 = 48;
const VECTOR_END: u32 = 176;

/// Codes: 0x1401 PRINTF, 0x1402 PRINTF_BACKTRACE, 0x1403 and 0x1404 the same by reference. On this architecture a `va_list` is an array, so
/// both ways give its address. The answer: characters printed.
pub fn request(code: u64, format: u64, arguments: u64) -> u64 {
    let mut text = Vec::new();
    read_string(format, MOST, &mut text);
    let mut out = Output { bytes: Vec::new() };
    let mut arguments = Arguments::read(arguments, word_of_program);
    print(&text, &mut arguments, &mut out);
    let backtrace = u64::from(code & 1 == 0);
    report::trap(Trap::Print, out.bytes.as_ptr() as u64, out.bytes.len() as u64, backtrace, 0);
    out.bytes.len() as u64
}

fn word_of_program(addr: u64) -> u64 {
    let mut bytes = [0; 8];
    if sys::read_guarded(addr, &mut bytes) { u64::from_le_bytes(bytes) } else { 0 }
}

/// A `va_list` while it is read.
struct Arguments<R> {
    general: u32,
    vector: u32,
    overflow: u64,
    registers: u64,
    word: R,
}

impl<R: Fn(u64) -> u64> Arguments<R> {
    fn read(list: u64, word: R) -> Self {
        let offsets = word(list);
        let (overflow, registers) = (word(list.wrapping_add(8)), word(list.wrapping_add(16)));
        Arguments { general: offsets as u32, vector: (offsets >> 32) as u32, overflow, registers, word }
    }

    fn overflowing(&mut self, len: u64) -> u64 {
        let at = self.overflow;
        self.overflow = at.wrapping_add(len);
        at
    }

    fn integer(&mut self) -> u64 {
        let at = if self.general < GENERAL_END {
            self.general += 8;
            self.registers.wrapping_add(u64::from(self.general - 8))
        } else {
            self.overflowing(8)
        };
        (self.word)(at)
    }

    fn double(&mut self) -> f64 {
        let at = if self.vector < VECTOR_END {
            self.vector += 16;
            self.registers.wrapping_add(u64::from(self.vector - 16))
        } else {
            self.overflowing(8)
        };
        f64::from_bits((self.word)(at))
    }

    /// A long double: always in memory, 16-aligned; reduced to a double.
    fn long_double(&mut self) -> f64 {
        self.overflow = self.overflow.next_multiple_of(16);
        let at = self.overflowing(16);
        let (significand, top) = ((self.word)(at), (self.word)(at.wrapping_add(8)));
        extended(significand, top as u16)
    }
}

/// An 80-bit number as a double.
fn extended(significand: u64, top: u16) -> f64 {
    let exponent = i32::from(top & 0x7fff) - 16383;
    let magnitude = match exponent {
        16384 if significand << 1 == 0 => f64::INFINITY,
        16384 => f64::NAN,
        _ => significand as f64 * power_of_two(exponent - 63),
    };
    if top & 0x8000 != 0 { -magnitude } else { magnitude }
}

fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        1024.. => f64::INFINITY,
        _ => 0.0,
    }
}

struct Output {
    bytes: Vec<u8>,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let room = MOST.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn fill(&mut self, byte: u8, count: usize) {
        for _ in 0..count {
            self.push(&[byte]);
        }
    }

    /// `sign` and `body` in a field: spaces before, zeros between, or spaces behind.
    fn field(&mut self, spec: &Spec, sign: &[u8], body: &[u8], may_pad_with_zeros: bool) {
        let room = spec.width.saturating_sub(sign.len() + body.len());
        let zeros = spec.zero && !spec.left && may_pad_with_zeros;
        if !spec.left && !zeros {
            self.fill(b' ', room);
        }
        self.push(sign);
        if zeros {
            self.fill(b'0', room);
        }
        self.push(body);
        if spec.left {
            self.fill(b' ', room);
        }
    }
}

/// One conversion specification.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer argument; 16 = long double.
    size: u32,
}

/// The bytes of a format from one place on.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn next(&mut self) -> u8 {
        let byte = self.peek();
        self.0 = self.0.get(1..).unwrap_or_default();
        byte
    }

    /// Digits or `*`, which may be negative.
    fn number<R: Fn(u64) -> u64>(&mut self, arguments: &mut Arguments<R>) -> i64 {
        if self.peek() == b'*' {
            self.next();
            return i64::from(arguments.integer() as i32);
        }
        let mut number = 0;
        while self.peek().is_ascii_digit() {
            number = (number * 10 + i64::from(self.next() - b'0')).min(WIDEST as i64);
        }
        number
    }

    fn spec<R: Fn(u64) -> u64>(&mut self, arguments: &mut Arguments<R>) -> Spec {
        let mut spec = Spec { size: 4, ..Spec::default() };
        loop {
            match self.peek() {
                b'-' => spec.left = true,
                b'+' => spec.plus = true,
                b' ' => spec.space = true,
                b'#' => spec.alternate = true,
                b'0' => spec.zero = true,
                b'\'' => {}
                _ => break,
            }
            self.next();
        }
        let width = self.number(arguments);
        spec.left |= width < 0;
        spec.width = (width.unsigned_abs() as usize).min(WIDEST);
        if self.peek() == b'.' {
            self.next();
            spec.precision = usize::try_from(self.number(arguments)).ok().map(|n| n.min(WIDEST));
        }
        spec.size = self.size();
        spec
    }

    fn size(&mut self) -> u32 {
        let mut size = 4;
        loop {
            size = match self.peek() {
                b'h' => size / 2,
                b'l' | b'q' | b'j' | b'z' | b't' => 8,
                b'L' => 16,
                _ => return size,
            };
            self.next();
        }
    }
}

fn print<R: Fn(u64) -> u64>(format: &[u8], arguments: &mut Arguments<R>, out: &mut Output) {
    let mut reader = Reader(format);
    while !reader.0.is_empty() {
        let plain = reader.0.iter().position(|&b| b == b'%').unwrap_or(reader.0.len());
        out.push(&reader.0[..plain]);
        reader.0 = &reader.0[plain..];
        if reader.next() == b'%' {
            let spec = reader.spec(arguments);
            let kind = reader.next();
            convert(kind, &spec, arguments, out);
        }
    }
}

fn convert<R: Fn(u64) -> u64>(kind: u8, spec: &Spec, arguments: &mut Arguments<R>, out: &mut Output) {
    match kind {
        b'd' | b'i' => {
            let value = signed(arguments.integer(), spec.size);
            integer(value.unsigned_abs(), sign(value < 0, spec), 10, false, spec, out);
        }
        b'u' => integer(unsigned(arguments.integer(), spec.size), b"", 10, false, spec, out),
        b'o' => integer(unsigned(arguments.integer(), spec.size), b"", 8, false, spec, out),
        b'x' | b'X' => hexadecimal(unsigned(arguments.integer(), spec.size), kind == b'X', spec.alternate, spec, out),
        b'p' => integer(arguments.integer(), b"0x", 16, false, spec, out),
        b'c' => out.field(spec, b"", &[arguments.integer() as u8], false),
        b's' => string(arguments.integer(), spec, out),
        b'a' | b'A' | b'e' | b'E' | b'f' | b'F' | b'g' | b'G' => {
            let value = if spec.size == 16 { arguments.long_double() } else { arguments.double() };
            floating(value, kind, spec, out);
        }
        b'n' => {
            arguments.integer();
        }
        b'%' => out.push(b"%"),
        // Unknown: shown as it is.
        0 => out.push(b"%"),
        other => out.push(&[b'%', other]),
    }
}

fn signed(value: u64, size: u32) -> i64 {
    match size {
        1 => i64::from(value as i8),
        2 => i64::from(value as i16),
        4 => i64::from(value as i32),
        _ => value as i64,
    }
}

fn unsigned(value: u64, size: u32) -> u64 {
    match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

fn sign(negative: bool, spec: &Spec) -> &'static [u8] {
    match (negative, spec.plus, spec.space) {
        (true, ..) => b"-",
        (_, true, _) => b"+",
        (_, _, true) => b" ",
        _ => b"",
    }
}

fn hexadecimal(value: u64, upper: bool, prefix: bool, spec: &Spec, out: &mut Output) {
    let prefix: &[u8] = match (prefix && value != 0, upper) {
        (true, false) => b"0x",
        (true, true) => b"0X",
        _ => b"",
    };
    integer(value, prefix, 16, upper, spec, out);
}

fn integer(value: u64, sign: &[u8], base: u64, upper: bool, spec: &Spec, out: &mut Output) {
    let mut digits = Vec::new();
    let mut rest = value;
    while rest != 0 {
        let digit = (rest % base) as u8;
        let letter = if upper { b'A' } else { b'a' };
        digits.push(if digit < 10 { b'0' + digit } else { letter + digit - 10 });
        rest /= base;
    }
    while digits.len() < spec.precision.unwrap_or(1) {
        digits.push(b'0');
    }
    if base == 8 && spec.alternate && digits.last() != Some(&b'0') {
        digits.push(b'0');
    }
    digits.reverse();
    out.field(spec, sign, &digits, spec.precision.is_none());
}

fn string(at: u64, spec: &Spec, out: &mut Output) {
    let mut text = Vec::new();
    if at == 0 {
        text.extend_from_slice(b"(null)");
        text.truncate(spec.precision.unwrap_or(MOST));
    } else {
        read_string(at, spec.precision.unwrap_or(MOST), &mut text);
    }
    out.field(spec, b"", &text, false);
}

fn floating(value: f64, kind: u8, spec: &Spec, out: &mut Output) {
    let sign = sign(value.is_sign_negative(), spec);
    let (magnitude, upper) = (value.abs(), kind.is_ascii_uppercase());
    let mut text = if magnitude.is_nan() {
        String::from("nan")
    } else if magnitude.is_infinite() {
        String::from("inf")
    } else {
        let precision = spec.precision.unwrap_or(6);
        match kind.to_ascii_lowercase() {
            b'f' => fixed(magnitude, precision),
            b'g' => shortest(magnitude, precision.max(1), spec.alternate),
            _ => exponential(magnitude, precision),
        }
    };
    if upper {
        text.make_ascii_uppercase();
    }
    out.field(spec, sign, text.as_bytes(), magnitude.is_finite());
}

fn fixed(value: f64, precision: usize) -> String {
    let mut text = String::new();
    let _ = write!(text, "{value:.precision$}");
    text
}

/// With an exponent of at least two digits.
fn exponential(value: f64, precision: usize) -> String {
    let mut text = String::new();
    let _ = write!(text, "{value:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    let mut out = String::from(digits);
    let _ = write!(out, "e{sign}{exponent:0>2}");
    out
}

/// `%g`: `precision` significant digits, with an exponent when it is below -4 or not below the precision.
fn shortest(value: f64, precision: usize, keep_zeros: bool) -> String {
    let text = exponential(value, precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let plain = exponent >= -4 && exponent < precision as i32;
    let text = if plain { fixed(value, (precision as i32 - 1 - exponent) as usize) } else { text };
    let (digits, tail) = text.split_once('e').map_or((text.as_str(), None), |(d, e)| (d, Some(e)));
    let trimmed = if digits.contains('.') && !keep_zeros { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    let mut out = String::from(trimmed);
    if let Some(tail) = tail {
        out.push('e');
        out.push_str(tail);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Output, extended, print};
    use alloc::vec::Vec;

    /// Memory of a call with these general and vector arguments: register area at 0x100, overflow area at 0x400.
    fn formatted(format: &str, general: &[u64], vector: &[f64]) -> alloc::string::String {
        let word = |addr: u64| match addr {
            0x10 => 48 << 32,
            0x18 => 0x400,
            0x20 => 0x100,
            0x100..0x130 => general.get((addr - 0x100) as usize / 8).copied().unwrap_or(0),
            0x130..0x1b0 => vector.get((addr - 0x130) as usize / 16).copied().unwrap_or(0.0).to_bits(),
            0x400.. => general.get(6 + (addr - 0x400) as usize / 8).copied().unwrap_or(0),
            _ => 0,
        };
        let mut out = Output { bytes: Vec::new() };
        print(format.as_bytes(), &mut Arguments::read(0x10, word), &mut out);
        alloc::string::String::from_utf8(out.bytes).unwrap_or_default()
    }

    #[test]
    fn integers() {
        assert_eq!(formatted("%d %5d|%-5d|%05d|%+d", &[7, 8, 9, u64::MAX, 4], &[]), "7     8|9    |-0001|+4");
        assert_eq!(formatted("%x %#x %X %o %#o %p", &[255, 255, 255, 8, 8, 0x1234], &[]), "ff 0xff FF 10 010 0x1234");
        assert_eq!(formatted("%hhd %hu %ld %zu", &[0x1ff, 0x1_0001, u64::MAX, u64::MAX], &[]), "-1 1 -1 18446744073709551615");
        assert_eq!(formatted("%.3d|%6.3d|%.0d|%*d", &[5, 5, 0, 4, 2], &[]), "005|   005||   2");
        assert_eq!(formatted("%d%d%d%d%d%d%d%d", &[1, 2, 3, 4, 5, 6, 7, 8], &[]), "12345678", "from registers, then from memory");
    }

    #[test]
    fn characters_and_the_rest() {
        assert_eq!(formatted("a%%b%c|%3c|%s", &[b'x'.into(), b'y'.into(), 0], &[]), "a%bx|  y|(null)");
        assert_eq!(formatted("%y %", &[], &[]), "%y %");
        assert_eq!(formatted("", &[], &[]), "");
    }

    #[test]
    fn floating_point() {
        assert_eq!(
            formatted("%f %.2f %8.3f|%-8.1f|%08.2f", &[], &[1.5, 2.345678, 3.0, 4.25, -1.5]),
            "1.500000 2.35    3.000|4.2     |-0001.50"
        );
        assert_eq!(
            formatted("%e %.2E %g %g %g", &[], &[12345.678, 0.00012, 100000.0, 1e6, 1e-5]),
            "1.234568e+04 1.20E-04 100000 1e+06 1e-05"
        );
        assert_eq!(formatted("%g %#g %5.1f", &[], &[0.5, 0.5, f64::NEG_INFINITY]), "0.5 0.500000  -inf");
    }

    #[test]
    fn extended_precision() {
        assert_eq!(extended(1 << 63, 16383), 1.0);
        assert_eq!(extended(3 << 62, 0xc000), -3.0);
        assert_eq!(extended(0, 0), 0.0);
        assert_eq!(extended(1 << 63, 0x7fff), f64::INFINITY);
    }
}
