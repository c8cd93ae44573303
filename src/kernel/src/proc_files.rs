//! Files of /proc that would show the tool instead of the program.
//!
//! | file of the process itself | shown |
//! |---|---|
//! | maps | without the runtime's mappings; stack and heap have their names |
//! | auxv | as the program found it on its stack |
//! | status | nobody traces it |
//!
//! The program gets an anonymous file with a copy made when it opens; a real one of these changes under a reader, too. Absent on purpose:
//! smaps and pagemap, the files by thread (task/…), and names relative to an open directory.
#![allow(unsafe_code, reason = "opens and writes files on the program's behalf")]

use crate::action::Action;
use crate::call::Call;
use alloc::vec::Vec;
use memcheck_abi::layout::{BRK_END, BRK_START, MAIN_STACK_TOP, PROGRAM_END};
use memcheck_rt::sync::Lock;
use memcheck_rt::sys::{self, nr};

const CLOSE: u64 = 3;
const LSEEK: u64 = 8;
const OPENAT: u64 = 257;
const AT_FDCWD: u64 = -100i64 as u64;
const O_ACCMODE: u64 = 3;
const O_CLOEXEC: u64 = 0x8_0000;
const MFD_CLOEXEC: u64 = 1;
/// Longer names are none of ours.
const LONGEST: usize = 64;
/// Column of the name in a line of maps.
const NAME_COLUMN: usize = 73;

/// The auxiliary vector as the program found it. Only read once the program runs.
pub(crate) static AUXV: Lock<Vec<u8>> = Lock::new(Vec::new());

/// Before the program begins: its auxiliary vector, with the final entry.
pub fn keep_auxv(bytes: &[u8]) {
    *AUXV.lock() = Vec::from(bytes);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum File {
    Maps,
    Auxv,
    Status,
}

/// Which file of the process `pid` has this name?
fn file(name: &[u8], pid: u64) -> Option<File> {
    let rest = name.strip_prefix(b"/proc/")?;
    let slash = rest.iter().position(|&b| b == b'/')?;
    let (whose, rest) = (&rest[..slash], &rest[slash + 1..]);
    if whose != b"self" && whose != b"thread-self" && number(whose, 10) != Some(pid) {
        return None;
    }
    match rest {
        b"maps" => Some(File::Maps),
        b"auxv" => Some(File::Auxv),
        b"status" => Some(File::Status),
        _ => None,
    }
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, &d| Some(n.wrapping_mul(base.into()) + u64::from((d as char).to_digit(base)?)))
}

pub(crate) fn open(c: &mut Call) -> Action {
    opened(c, c.args[0], c.args[1])
}

pub(crate) fn openat(c: &mut Call) -> Action {
    opened(c, c.args[1], c.args[2])
}

fn opened(c: &Call, path: u64, flags: u64) -> Action {
    // "/proc/" in little endian; nearly every other name ends here.
    const PROC: u64 = u64::from_le_bytes(*b"/proc/\0\0");
    if flags & O_ACCMODE != 0 || c.peek_or_zero::<u64>(path) & 0xffff_ffff_ffff != PROC {
        return Action::Native;
    }
    let name: Vec<u8> = (0..LONGEST as u64).map_while(|i| c.peek::<u8>(path + i).filter(|&b| b != 0)).collect();
    // SAFETY: asks only.
    let pid = unsafe { sys::syscall3(nr::GETPID, 0, 0, 0) } as u64;
    let found = file(&name, pid).filter(|_| !crate::virtualise::seccomp_installed());
    found.and_then(|file| copy(file, path, flags)).map_or(Action::Native, Action::Done)
}

/// A descriptor of the program for what it may see of the file; `None`: let it have the real one.
fn copy(file: File, path: u64, flags: u64) -> Option<i64> {
    let shown = match file {
        File::Auxv => AUXV.lock().clone(),
        File::Maps => maps(&contents(path)?),
        File::Status => status(&contents(path)?),
    };
    if shown.is_empty() {
        return None;
    }
    let close_on_exec = if flags & O_CLOEXEC != 0 { MFD_CLOEXEC } else { 0 };
    // SAFETY: a new file; its name is a constant.
    let fd = unsafe { sys::syscall3(nr::MEMFD_CREATE, c"proc".as_ptr() as u64, close_on_exec, 0) };
    if sys::is_error(fd) {
        return None;
    }
    // SAFETY: the descriptor is new, so nobody else uses it; reads our buffer.
    unsafe {
        let written = sys::syscall3(nr::WRITE, fd as u64, shown.as_ptr() as u64, shown.len() as u64);
        sys::syscall3(LSEEK, fd as u64, 0, 0);
        if written != shown.len() as i64 {
            sys::syscall3(CLOSE, fd as u64, 0, 0);
            return None;
        }
    }
    Some(fd)
}

/// All of the file named at `path`.
fn contents(path: u64) -> Option<Vec<u8>> {
    const PIECE: usize = 64 << 10;
    let mut all = Vec::new();
    // SAFETY: the name was just read, and the kernel reads it again; the buffer is ours.
    unsafe {
        let fd = sys::syscall6(OPENAT, AT_FDCWD, path, O_CLOEXEC, 0, 0, 0);
        if sys::is_error(fd) {
            return None;
        }
        loop {
            let len = all.len();
            all.resize(len + PIECE, 0);
            let n = sys::syscall3(nr::READ, fd as u64, all.as_mut_ptr() as u64 + len as u64, PIECE as u64);
            all.truncate(len + n.max(0) as usize);
            if n <= 0 {
                break;
            }
        }
        sys::syscall3(CLOSE, fd as u64, 0, 0);
    }
    Some(all)
}

/// Lines of the program's own mappings.
fn maps(real: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(real.len());
    for line in real.split_inclusive(|&b| b == b'\n') {
        let Some((start, end)) = range(line) else { continue };
        let is_vsyscall = line.ends_with(b"[vsyscall]\n");
        if start >= PROGRAM_END && !is_vsyscall {
            continue;
        }
        let name: &[u8] = match () {
            () if end == MAIN_STACK_TOP => b"[stack]",
            () if start >= BRK_START && end <= BRK_END => b"[heap]",
            () => {
                shown.extend_from_slice(line);
                continue;
            }
        };
        let bare = line.trim_ascii_end();
        shown.extend_from_slice(bare);
        shown.resize(shown.len() + NAME_COLUMN.saturating_sub(bare.len()), b' ');
        shown.extend_from_slice(name);
        shown.push(b'\n');
    }
    shown
}

/// `start-end` at the beginning of a line.
fn range(line: &[u8]) -> Option<(u64, u64)> {
    let dash = line.iter().position(|&b| b == b'-')?;
    let space = line.iter().position(|&b| b == b' ')?;
    Some((number(&line[..dash], 16)?, number(line.get(dash + 1..space)?, 16)?))
}

fn status(real: &[u8]) -> Vec<u8> {
    let lines = real.split_inclusive(|&b| b == b'\n');
    lines.flat_map(|line| if line.starts_with(b"TracerPid:") { b"TracerPid:\t0\n" } else { line }).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::{File, file, maps, status};

    #[test]
    fn names() {
        assert_eq!(file(b"/proc/self/maps", 7), Some(File::Maps));
        assert_eq!(file(b"/proc/7/auxv", 7), Some(File::Auxv));
        assert_eq!(file(b"/proc/thread-self/status", 7), Some(File::Status));
        for other in [&b"/proc/8/maps"[..], b"/proc/self/smaps", b"/proc/maps", b"/proc/self/maps/", b"/proc//maps"] {
            assert_eq!(file(other, 7), None);
        }
    }

    #[test]
    fn the_runtime_has_no_mappings() {
        let real = b"04000000-04001000 r-xp 00000000 08:01 77                                 /bin/p\n\
            600000000-600021000 rw-p 00000000 00:00 0 \n\
            fffeffdf000-ffff0000000 rw-p 00000000 00:00 0 \n\
            500000009000-5ffffff09000 rw-p 00000000 00:00 0                          [heap]\n\
            680000000000-680000200000 rwxp 00000000 00:00 0 \n\
            7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        let shown = maps(real);
        let lines: alloc::vec::Vec<&[u8]> = shown.split(|&b| b == b'\n').collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].ends_with(b"/bin/p") && lines[1].ends_with(b" [heap]") && lines[3].ends_with(b"[vsyscall]"));
        assert_eq!(lines[2], b"fffeffdf000-ffff0000000 rw-p 00000000 00:00 0                            [stack]");
    }

    #[test]
    fn nobody_traces() {
        assert_eq!(status(b"Name:\tx\nTracerPid:\t4711\nUid:\t0\n"), b"Name:\tx\nTracerPid:\t0\nUid:\t0\n");
    }
}
