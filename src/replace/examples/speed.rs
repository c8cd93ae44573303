//! How fast are the replacements against libc? `cargo run --release -p memcheck-replace --example speed`
//! (any argument: without AVX2).
//!
//! Columns: nanoseconds per call (small sizes) or gigabytes of data per second (64 MiB), ours and libc's, and their ratio.
#![allow(unsafe_code, reason = "test memory at fixed addresses, and calls of libc")]

use memcheck_abi::layout::{A_BASE, MMAP_START, V_DISTANCE};
use memcheck_replace::{memory as m, search as f, string as s};
use memcheck_rt::{context, shadow, sys};
use std::hint::black_box;
use std::time::Instant;

const BIG: u64 = 64 << 20;
const ONE: u64 = MMAP_START;
const TWO: u64 = MMAP_START + 0x1000_0000;

unsafe extern "C" {
    fn strlen(s: u64) -> u64;
    fn strchr(s: u64, c: u32) -> u64;
    fn strcmp(a: u64, b: u64) -> i32;
    fn strcasecmp(a: u64, b: u64) -> i32;
    fn strcpy(d: u64, s: u64) -> u64;
    fn strstr(h: u64, n: u64) -> u64;
    fn strcspn(h: u64, n: u64) -> u64;
    fn memchr(s: u64, c: u32, n: u64) -> u64;
    fn memrchr(s: u64, c: u32, n: u64) -> u64;
    fn memcmp(a: u64, b: u64, n: u64) -> i32;
    fn memcpy(d: u64, s: u64, n: u64) -> u64;
    fn memmove(d: u64, s: u64, n: u64) -> u64;
    fn memset(d: u64, c: u32, n: u64) -> u64;
    fn wcslen(s: u64) -> u64;
}

fn time(rounds: u64, call: &dyn Fn()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / rounds as f64
        })
        .fold(f64::MAX, f64::min)
}

fn row(name: &str, size: u64, ours: &dyn Fn(), theirs: &dyn Fn()) {
    let rounds = if size > 1 << 20 { 1 } else { (40_000_000 / (size + 100)).max(10) };
    let (a, b) = (time(rounds, ours), time(rounds, theirs));
    if size > 1 << 20 {
        println!("{name:20} {size:9}  {:7.2} GB/s {:7.2} GB/s  {:5.2}", size as f64 / a, size as f64 / b, a / b);
    } else {
        println!("{name:20} {size:9}  {a:7.2} ns   {b:7.2} ns    {:5.2}", a / b);
    }
}

fn prepare() {
    for base in [ONE, TWO] {
        let len = BIG + (1 << 20);
        for (start, len) in [(base, len), ((base + V_DISTANCE) & !4095, len), (A_BASE + base / 8, len / 8)] {
            assert!(sys::map_fixed(start, len, 3));
        }
        // SAFETY: mapped above. Write V as zeros for real: touched pages, the worst case.
        unsafe {
            std::ptr::write_bytes((base + V_DISTANCE) as *mut u8, 0, BIG as usize + 4096);
            std::ptr::write_bytes(base as *mut u8, b'x', BIG as usize);
        }
    }
    let ctx = context::current();
    (ctx.stack_low, ctx.stack_high, ctx.guest_rsp) = (MMAP_START - 0x10000, MMAP_START - 0x1000, MMAP_START - 0x8000);
}

fn sizes(n: u64) {
    // SAFETY: the areas are mapped; the terminators are in place.
    unsafe {
        let (a, b) = (black_box(ONE + 5), black_box(TWO + 3));
        let (ends, olds): (Vec<u64>, Vec<u8>) = [a + n, b + n].iter().map(|&p| (p, *(p as *const u8))).unzip();
        ends.iter().for_each(|&p| *(p as *mut u8) = 0);
        row("strlen", n, &|| _ = black_box(s::strlen(a)), &|| _ = black_box(strlen(a)));
        row("strchr", n, &|| _ = black_box(s::strchr(a, 0x71)), &|| _ = black_box(strchr(a, 0x71)));
        row("strcmp", n, &|| _ = black_box(s::strcmp(a, b)), &|| _ = black_box(strcmp(a, b)));
        row("strcasecmp", n, &|| _ = black_box(s::strcasecmp(a, b)), &|| _ = black_box(strcasecmp(a, b)));
        row("strcpy", n, &|| _ = black_box(s::strcpy(b, a)), &|| _ = black_box(strcpy(b, a)));
        row("memchr", n, &|| _ = black_box(m::memchr(a, 0x71, n)), &|| _ = black_box(memchr(a, 0x71, n)));
        row("memrchr", n, &|| _ = black_box(m::memrchr(a, 0x71, n)), &|| _ = black_box(memrchr(a, 0x71, n)));
        row("memcmp", n, &|| _ = black_box(m::memcmp(a, b, n)), &|| _ = black_box(memcmp(a, b, n)));
        row("memcpy", n, &|| _ = black_box(m::memcpy(b, a, n)), &|| _ = black_box(memcpy(b, a, n)));
        row("memmove overlap", n, &|| _ = black_box(m::memmove(a + 1, a, n)), &|| _ = black_box(memmove(a + 1, a, n)));
        let keep = *(a as *const u8);
        row("memset", n, &|| _ = black_box(m::memset(b, 0x78, n)), &|| _ = black_box(memset(b, 0x78, n)));
        *(a as *mut u8) = keep;
        let w = black_box(ONE + 4 * (n / 64)) & !3;
        std::ptr::write_bytes((ONE + n / 4 * 4 + 4) as *mut u8, 0, 16);
        row("wcslen", n, &|| _ = black_box(s::wcslen(w)), &|| _ = black_box(wcslen(w)));
        std::ptr::write_bytes((ONE + n / 4 * 4 + 4) as *mut u8, b'x', 16);
        *((ONE + 5 + n) as *mut u8) = 0;
        let set = TWO + BIG + 100;
        std::ptr::copy(c"xyz:".as_ptr().cast::<u8>(), set as *mut u8, 5);
        row("strcspn", n, &|| _ = black_box(f::strcspn(a, set + 1)), &|| _ = black_box(strcspn(a, set + 1)));
        row("strstr", n, &|| _ = black_box(f::strstr(a, set + 1)), &|| _ = black_box(strstr(a, set + 1)));
        row("strstr, near hits", n, &|| _ = black_box(f::strstr(a, set)), &|| _ = black_box(strstr(a, set)));
        undefined(a, b, n);
        ends.iter().zip(olds).for_each(|(&p, old)| *(p as *mut u8) = old);
    }
}

/// Shadow that is not zero: what every first use of a heap block meets. Undefined source and destination, for both directions.
fn undefined(a: u64, b: u64, n: u64) {
    shadow::fill_v(a, n, 0xff);
    // SAFETY: the areas are mapped.
    unsafe {
        row("memcpy undefined", n, &|| _ = black_box(m::memcpy(b, a, n)), &|| _ = black_box(memcpy(b, a, n)));
        let ours = || {
            black_box(m::memset(b, 0x78, n));
            memset(b + V_DISTANCE, 0xff, n);
        };
        let theirs = || {
            black_box(memset(b, 0x78, n));
            memset(b + V_DISTANCE, 0xff, n);
        };
        row("memset undefined", n, &ours, &theirs);
        std::ptr::write_bytes((a + V_DISTANCE) as *mut u8, 0, n as usize);
        std::ptr::write_bytes((b + V_DISTANCE) as *mut u8, 0, n as usize);
    }
}

fn main() {
    prepare();
    memcheck_replace::vector::detect(std::env::args().nth(1).is_none());
    for n in [0, 1, 7, 15, 16, 31, 60, 200, 1000, 4000, 60_000, BIG - 64] {
        sizes(n);
        println!();
    }
}
