//! Registers and memory as gdb wants them, and what the kernel told the program at its start.

use std::fs;
use std::path::Path;

use memcheck_abi::context::{R8, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use memcheck_abi::layout;
use memcheck_tracer::{Map, Process, ThreadInfo};

use super::packet::{LONGEST, from_hex};

/// gdb's order of the general registers.
const ORDER: [usize; 16] = [RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R8 + 1, R8 + 2, R8 + 3, R8 + 4, R8 + 5, R8 + 6, R8 + 7];
/// cs, ss, ds, es, fs, gs of a 64-bit program.
const SEGMENTS: [u32; 6] = [0x33, 0x2b, 0, 0, 0, 0];

/// The first registers of a `g` packet; those behind them, of vectors and the like, count as unavailable.
pub fn registers(thread: &ThreadInfo) -> Vec<u8> {
    let general = ORDER.iter().flat_map(|&at| thread.regs.gpr[at].to_le_bytes());
    let pointer = thread.regs.rip.to_le_bytes();
    let flags = (thread.regs.rflags as u32).to_le_bytes();
    general.chain(pointer).chain(flags).chain(SEGMENTS.iter().flat_map(|segment| segment.to_le_bytes())).collect()
}

/// A number in base 16; `-1` and `0` are any thread.
pub fn number(text: &str) -> Option<u64> {
    if text == "-1" { Some(0) } else { u64::from_str_radix(text, 16).ok() }
}

pub fn thread(process: &Process, number: u32) -> Option<ThreadInfo> {
    process.threads().into_iter().find(|thread| thread.number == number)
}

pub fn threads(process: &Process) -> Vec<u32> {
    let mut numbers: Vec<u32> = process.threads().iter().map(|thread| thread.number).filter(|number| *number != 0).collect();
    numbers.sort_unstable();
    numbers
}

/// Does a signal wait for the process by which users end programs, or is it gone?
pub fn is_to_end(pid: i32) -> bool {
    const ENDS: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGKILL];
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let pending = ["SigPnd:", "ShdPnd:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
    });
    ENDS.iter().any(|signal| (pending[0] | pending[1]) >> (signal - 1) & 1 != 0)
}

/// `addr,len`, in memory of the program.
fn range(text: &str) -> Option<(u64, u64)> {
    let (addr, len) = text.split_once(',')?;
    let (addr, len) = (number(addr)?, number(len)?);
    layout::in_program(addr, len).then_some((addr, len))
}

/// What is there of the bytes at `addr,len`.
pub fn read(process: &Process, text: &str) -> Option<Vec<u8>> {
    let (addr, len) = range(text)?;
    let mut bytes = vec![0; len.min(LONGEST as u64 / 2 - 4) as usize];
    let read = process.read_memory(addr, &mut bytes);
    bytes.truncate(read);
    (!bytes.is_empty() || len == 0).then_some(bytes)
}

/// `addr,len:bytes`; not where code is, of which the runtime has translations.
pub fn write(process: &Process, text: &str) -> Option<()> {
    let (place, bytes) = text.split_once(':')?;
    let (addr, len) = range(place)?;
    let bytes = from_hex(bytes.as_bytes()).filter(|bytes| bytes.len() as u64 == len)?;
    let maps = process.maps().ok()?;
    let is_code = maps.iter().any(|map| map.prot & libc::PROT_EXEC as u32 != 0 && map.start < addr + len && addr < map.end);
    (!is_code && process.write_memory(addr, &bytes)).then_some(())
}

/// `0,addr,kind`: gdb's own in the dynamic linker, of which nothing depends.
pub fn breakpoint(process: &Process, text: &str) -> Option<()> {
    let addr = number(text.strip_prefix("0,")?.split(',').next()?)?;
    let maps = process.maps().ok()?;
    maps.iter().find(|map| map.contains(addr)).is_some_and(is_linker).then_some(())
}

/// The dynamic linker?
fn is_linker(map: &Map) -> bool {
    Path::new(&map.path).file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
}

/// `auxv:read::offset,length` and the like: a piece of it, after `m` if there is more.
pub fn object(process: &Process, text: &str) -> Option<Vec<u8>> {
    let (name, rest) = text.split_once(":read:")?;
    let (offset, len) = rest.rsplit(':').next()?.split_once(',')?;
    let all = match name {
        "auxv" => auxiliary_vector(process)?,
        "exec-file" => fs::read_link(format!("/proc/{}/exe", process.living())).ok()?.into_os_string().into_encoded_bytes(),
        _ => return None,
    };
    let rest = all.get(number(offset)? as usize..)?;
    let piece = &rest[..rest.len().min(number(len)? as usize)];
    let mark: &[u8] = if piece.len() < rest.len() { b"m" } else { b"l" };
    Some([mark, piece].concat())
}

const AT_PHDR: u64 = 3;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const PAGE: u64 = 4096;

/// As the kernel has it, with program and dynamic linker where they were moved to.
fn auxiliary_vector(process: &Process) -> Option<Vec<u8>> {
    let raw = fs::read(format!("/proc/{}/auxv", process.living())).ok()?;
    let words: Vec<u64> = raw.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let program = fs::read_link(format!("/proc/{}/exe", process.living())).ok()?;
    let maps = process.maps().ok()?;
    let begin = |wanted: &dyn Fn(&Map) -> bool| maps.iter().find(|map| map.offset == 0 && wanted(map)).map(|map| map.start);
    let (program, linker) = (begin(&|map| map.path == program.as_os_str()), begin(&is_linker));
    Some(moved(&words, program, linker).iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// Pairs of kind and value. The headers of a program are on its first page.
fn moved(words: &[u64], program: Option<u64>, linker: Option<u64>) -> Vec<u64> {
    let pairs = words.as_chunks::<2>().0;
    let headers = pairs.iter().find(|pair| pair[0] == AT_PHDR).map_or(0, |pair| pair[1]);
    let distance = program.unwrap_or(headers & !(PAGE - 1)).wrapping_sub(headers & !(PAGE - 1));
    let value = |[kind, value]: [u64; 2]| match kind {
        AT_PHDR | AT_ENTRY => value.wrapping_add(distance),
        AT_BASE if value != 0 => linker.unwrap_or(value),
        _ => value,
    };
    pairs.iter().flat_map(|pair| [pair[0], value(*pair)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_is_told_so() {
        let told = [AT_PHDR, 0x5555_0040, AT_ENTRY, 0x5555_1060, AT_BASE, 0x7f00_0000, 6, 4096, 0, 0];
        let now = moved(&told, Some(0x400_0000), Some(0x7fd0_0000));
        assert_eq!(now, [AT_PHDR, 0x400_0040, AT_ENTRY, 0x400_1060, AT_BASE, 0x7fd0_0000, 6, 4096, 0, 0]);
        assert_eq!(moved(&told, None, None), told);
    }

    #[test]
    fn numbers_and_ranges() {
        assert_eq!((number("1f"), number("-1"), number("x")), (Some(31), Some(0), None));
        assert_eq!((range("10,8"), range("10"), range("ffffffffffff,8")), (Some((16, 8)), None, None));
    }
}
