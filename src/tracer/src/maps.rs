//! The mapping list of a process: `/proc/PID/maps`, and the auxiliary vector that says which mapping is which.
//!
//! ```text
//! 7ffff7dc0000-7ffff7de6000 r--p 00000000 08:01 1234       /usr/lib/x86_64-linux-gnu/libc.so.6
//! start        end          prot offset   dev   inode      path, which may contain spaces
//! ```
//! Source: proc_pid_maps(5), getauxval(3).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::{fs, io};

use memcheck_abi::config::{Mapping, mapping};

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    /// PROT_* bits.
    pub prot: u32,
    pub shared: bool,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Major and minor number.
    pub device: (u32, u32),
    /// 0 = no file.
    pub inode: u64,
    /// The file, or a name in brackets, or empty. A deleted file has " (deleted)" at its end.
    pub path: OsString,
}

impl Map {
    pub fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }
}

/// The mappings of a process, in order of their addresses.
pub fn read(pid: i32) -> io::Result<Vec<Map>> {
    Ok(parse(&fs::read(format!("/proc/{pid}/maps"))?))
}

/// Lines that do not have the form above are left out.
pub fn parse(text: &[u8]) -> Vec<Map> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Map> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = next()?.split_once('-')?;
    let flags = next()?.as_bytes();
    let offset = next()?;
    let (major, minor) = next()?.split_once(':')?;
    let inode = next()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let bit = |i: usize, c: u8, value: i32| if flags.get(i) == Some(&c) { value as u32 } else { 0 };
    Some(Map {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        prot: bit(0, b'r', libc::PROT_READ) | bit(1, b'w', libc::PROT_WRITE) | bit(2, b'x', libc::PROT_EXEC),
        shared: flags.get(3) == Some(&b's'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        path: OsString::from_vec(with_newlines(path)),
    })
}

/// The kernel writes a newline in a path as `\012`.
fn with_newlines(path: &[u8]) -> Vec<u8> {
    const NEWLINE: &[u8] = b"\\012";
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.windows(NEWLINE.len()).position(|part| part == NEWLINE) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\n');
        rest = &rest[at + NEWLINE.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// The entries of the auxiliary vector that say where the kernel put the program. 0 = absent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Auxv {
    /// AT_PHDR: inside the program.
    pub program_headers: u64,
    /// AT_BASE: start of the interpreter.
    pub interpreter: u64,
    /// AT_SYSINFO_EHDR: start of the vDSO.
    pub vdso: u64,
    /// AT_ENTRY of the program itself.
    pub entry: u64,
}

impl Auxv {
    pub fn read(pid: i32) -> io::Result<Auxv> {
        Ok(Auxv::parse(&fs::read(format!("/proc/{pid}/auxv"))?))
    }

    /// Pairs of (type, value), 8 bytes each.
    pub fn parse(bytes: &[u8]) -> Auxv {
        let mut found = Auxv::default();
        let (words, _) = bytes.as_chunks::<8>();
        for pair in words.chunks_exact(2) {
            let value = u64::from_ne_bytes(pair[1]);
            match u64::from_ne_bytes(pair[0]) {
                libc::AT_PHDR => found.program_headers = value,
                libc::AT_BASE => found.interpreter = value,
                libc::AT_SYSINFO_EHDR => found.vdso = value,
                libc::AT_ENTRY => found.entry = value,
                _ => {}
            }
        }
        found
    }
}

/// The mappings at the exec stop, as the runtime's start-up needs them. The vsyscall page is left out: it cannot be moved.
pub fn classify(maps: &[Map], auxv: &Auxv) -> Vec<Mapping> {
    let file_at = |addr: u64| maps.iter().find(|m| addr != 0 && m.contains(addr)).map(|m| (m.device, m.inode));
    let (program, interpreter) = (file_at(auxv.program_headers), file_at(auxv.interpreter));
    let mut list: Vec<Mapping> = Vec::new();
    for map in maps.iter().filter(|m| m.start < 1 << 63) {
        let file = (map.inode != 0).then_some((map.device, map.inode));
        let kind = match map.path.as_encoded_bytes() {
            b"[stack]" => mapping::STACK,
            b"[heap]" => mapping::HEAP,
            name if name.starts_with(b"[vdso") || name.starts_with(b"[vvar") => mapping::VDSO,
            // .bss: anonymous, right behind the file's last segment.
            b"" if map.inode == 0 => match list.last() {
                Some(before) if before.end == map.start => before.kind,
                _ => mapping::OTHER,
            },
            _ if file.is_some() && file == program => mapping::PROGRAM,
            _ if file.is_some() && file == interpreter => mapping::INTERPRETER,
            _ => mapping::OTHER,
        };
        list.push(Mapping { start: map.start, end: map.end, prot: map.prot, kind });
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
555555554000-555555555000 r--p 00000000 08:01 77                         /home/a b/prog
555555555000-555555556000 r-xp 00001000 08:01 77                         /home/a b/prog
555555557000-555555558000 rw-p 00002000 08:01 77                         /home/a b/prog
555555558000-555555559000 rw-p 00000000 00:00 0 
555555559000-55555557a000 rw-p 00000000 00:00 0                          [heap]
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0                          [vvar]
7ffff7fc5000-7ffff7fc7000 r-xp 00000000 00:00 0                          [vdso]
7ffff7fc7000-7ffff7fc8000 r--s 00000000 08:01 88                         /usr/lib/ld.so (deleted)
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
not a line
";

    #[test]
    fn lines() {
        let maps = parse(LIST);
        assert_eq!(maps.len(), 10);
        assert_eq!(
            maps[1],
            Map {
                start: 0x5555_5555_5000,
                end: 0x5555_5555_6000,
                prot: 5,
                shared: false,
                offset: 0x1000,
                device: (8, 1),
                inode: 77,
                path: "/home/a b/prog".into(),
            }
        );
        assert_eq!((maps[3].path.len(), maps[3].inode), (0, 0));
        assert!(maps[7].shared);
        assert_eq!(with_newlines(b"/a\\012b\\13"), b"/a\nb\\13");
        assert_eq!(maps[7].path, "/usr/lib/ld.so (deleted)");
    }

    #[test]
    fn kinds() {
        let auxv = Auxv { program_headers: 0x5555_5555_4040, interpreter: 0x7fff_f7fc_7000, vdso: 0, entry: 0 };
        let kinds: Vec<u32> = classify(&parse(LIST), &auxv).iter().map(|m| m.kind).collect();
        use memcheck_abi::config::mapping::{HEAP, INTERPRETER, PROGRAM, STACK, VDSO};
        assert_eq!(kinds, [PROGRAM, PROGRAM, PROGRAM, PROGRAM, HEAP, VDSO, VDSO, INTERPRETER, STACK]);
    }

    #[test]
    fn a_static_program_has_no_interpreter() {
        let auxv = Auxv { program_headers: 0x5555_5555_4040, ..Auxv::default() };
        let kinds: Vec<u32> = classify(&parse(LIST), &auxv).iter().map(|m| m.kind).collect();
        assert!(!kinds.contains(&mapping::INTERPRETER));
    }

    #[test]
    fn own_lists_agree() {
        let pid = std::process::id() as i32;
        let (maps, auxv) = (read(pid).unwrap(), Auxv::read(pid).unwrap());
        let program = maps.iter().find(|m| m.contains(auxv.program_headers)).unwrap();
        assert_eq!(program.path, std::env::current_exe().unwrap());
        assert_ne!(auxv.entry, 0);
    }
}
