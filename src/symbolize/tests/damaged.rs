//! Files that lie: every entry point must answer, in bounded time, whatever the bytes are.
//! `MEMCHECK_FUZZ_TIMES=100` multiplies the rounds.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{BIAS, compile, scratch};
use memcheck_symbolize::{Options, Symbolizer, elf_layout, find_functions};

const SOURCE: &str = "\
static inline __attribute__((always_inline)) int twice(int x) { return x + x; }
int values[9] = {1};
__attribute__((noinline)) int work(int x) { return twice(twice(x)) + values[x & 7]; }
int main(int argc, char **argv) { return work(argc); }
";

/// xorshift: the same damage on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn originals(dir: &Path) -> Vec<Vec<u8>> {
    let variants: [&[&str]; 5] = [
        &["-g", "-O2"],
        &["-gdwarf-4", "-O2", "-no-pie"],
        &["-g", "-O1", "-gz=zlib"],
        &["-gsplit-dwarf", "-O2"],
        &["-s", "-shared", "-fPIC"],
    ];
    let programs = variants.iter().filter_map(|flags| compile(dir, "work.c", SOURCE, flags));
    programs.filter_map(|program| std::fs::read(program).ok()).collect()
}

/// Ask everything about the file, at addresses that its sections and headers would use.
fn exercise(path: &Path) {
    let _ = elf_layout(path);
    let found = find_functions(path, &|name| !name.is_empty()).unwrap_or_default();
    for inline in [true, false] {
        let mut symbolizer = Symbolizer::new(Options { inline, ..Options::default() });
        symbolizer.add_module(path, BIAS, u64::MAX, BIAS);
        let known = found.iter().take(40).flat_map(|f| [f.value, f.value.wrapping_add(f.size / 2)]);
        let fixed = (0..0x5000).step_by(0x123).chain([0x40_1136, u64::MAX - BIAS, u64::MAX]);
        for vaddr in [0x4020, 0x4044] {
            symbolizer.global_variable(BIAS + vaddr);
        }
        for vaddr in known.chain(fixed) {
            let addr = BIAS.wrapping_add(vaddr);
            assert!(!symbolizer.frames(addr).is_empty());
            symbolizer.data_symbol(addr);
            symbolizer.section(addr);
            symbolizer.local_variable(addr, addr, addr.wrapping_sub(20));
        }
    }
}

fn survive(name: &str, rounds: usize, damage: impl Fn(&mut Vec<u8>, &mut Dice)) {
    let dir = scratch(name);
    let times = std::env::var("MEMCHECK_FUZZ_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let rounds = rounds * times;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for original in originals(&dir) {
        for round in 0..rounds {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut dice);
            let path = dir.join(format!("damaged{round}"));
            std::fs::write(&path, &bytes).expect("write");
            let begin = Instant::now();
            exercise(&path);
            assert!(begin.elapsed() < Duration::from_secs(20), "round {round} took {:?}", begin.elapsed());
            std::fs::remove_file(&path).expect("remove");
        }
    }
}

#[test]
fn cut_short() {
    survive("cut", 40, |bytes, dice| {
        let length = dice.below(bytes.len());
        bytes.truncate(length);
    });
}

#[test]
fn single_bytes() {
    survive("bytes", 60, |bytes, dice| {
        for _ in 0..1 + dice.below(40) {
            let at = dice.below(bytes.len());
            bytes[at] = dice.below(256) as u8;
        }
    });
}

#[test]
fn headers() {
    survive("headers", 60, |bytes, dice| {
        // ELF header, program headers, and the section headers, which are at the end.
        let length = bytes.len();
        for _ in 0..1 + dice.below(6) {
            let near = dice.below(0x400.min(length));
            let at = if dice.below(2) == 0 { near } else { length - 1 - near.min(length - 1) };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)];
        }
    });
}

#[test]
fn blocks() {
    survive("blocks", 40, |bytes, dice| {
        let (from, to) = (dice.below(bytes.len()), dice.below(bytes.len()));
        let size = dice.below(2000).min(bytes.len() - from.max(to));
        bytes.copy_within(from..from + size, to);
    });
}

#[test]
fn debug_sections() {
    survive("dwarf", 150, |bytes, dice| {
        // What follows the loaded part is debug information; it is dense enough that any byte means something.
        let start = bytes.len().min(0x3000);
        for _ in 0..1 + dice.below(12) {
            let at = start + dice.below(bytes.len() - start);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
    });
}
