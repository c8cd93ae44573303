//! ELF, DWARF, debug links: an object file of any bytes answers every question, or says that it cannot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memcheck_symbolize::{Options, Symbolizer};
use std::path::Path;

const BIAS: u64 = 0x40_0000;

fuzz_target!(|bytes: &[u8]| {
    for inline in [true, false] {
        let mut symbolizer = Symbolizer::new(Options { inline, ..Options::default() });
        symbolizer.add_module_bytes(Path::new("any"), bytes.to_vec(), BIAS, u64::MAX, BIAS);
        for vaddr in (0..0x5000).step_by(0x123).chain([u64::MAX - BIAS]) {
            let addr = BIAS.wrapping_add(vaddr);
            assert!(!symbolizer.frames(addr).is_empty(), "there is always a frame, be it without names");
            symbolizer.data_symbol(addr);
            symbolizer.section(addr);
            symbolizer.global_variable(addr);
            symbolizer.local_variable(addr, addr, addr.wrapping_sub(20));
        }
    }
});
