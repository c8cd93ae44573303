//! Which file to run: the search in PATH, and the reasons to refuse before anything is started.
//!
//! A shell says 127 when there is no such command and 126 when there is one that cannot be run; so does memcheck, each with one line.
//! Programs that would gain privilege by exec (setuid, setgid, file capabilities) are refused: the kernel would silently run them
//! without it under a tracer, and they would then do something else than the user thinks.
//!
//! Deliberately absent: scripts. `#!` is the kernel's work; a text file without it goes to /bin/sh, as every shell does it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;

/// The program does not start: what to tell the user (no prefix, no newline), and the exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub exit_code: i32,
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(exit_code: i32, message: String) -> Refusal {
        Refusal { exit_code, message }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// What the first bytes of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A 64-bit x86 ELF file.
    Native,
    /// `#!`
    Script,
    /// Text without `#!`: for /bin/sh.
    Text,
    /// ELF, but of another class or machine.
    Foreign32,
    ForeignMachine,
    /// Nothing that can be executed.
    Unknown,
}

/// The file that `name` means, checked to be runnable.
pub fn resolve(name: &OsStr) -> Result<(PathBuf, Format), Refusal> {
    resolve_in(name, std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/bin:/usr/bin")), nix::unistd::geteuid().is_root())
}

fn resolve_in(name: &OsStr, search: &OsStr, root: bool) -> Result<(PathBuf, Format), Refusal> {
    let shown = name.to_string_lossy();
    let path = if name.as_encoded_bytes().contains(&b'/') { PathBuf::from(name) } else { find(name, search)? };
    let refuse = |code, why: &str| Err(Refusal::new(code, format!("{shown}: {why}")));
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENOTDIR) => {
            return refuse(127, &reason(&e));
        }
        Err(e) => return refuse(126, &reason(&e)),
    };
    if meta.is_dir() {
        return refuse(126, "is a directory");
    }
    if !is_executable(&path, &meta) {
        return refuse(126, "Permission denied");
    }
    // Root needs no privilege from the file, and the kernel lets a privileged tracer follow it.
    if let Some(what) = privilege(&path, &meta)
        && !root
    {
        return refuse(126, &format!("{what} program: it would run without its privilege here; run memcheck as root, or check a copy"));
    }
    match format_of(&path) {
        Ok(Format::Foreign32) => refuse(126, "32-bit programs are not supported"),
        Ok(Format::ForeignMachine) => refuse(126, "not a program for x86-64"),
        Ok(Format::Unknown) => refuse(126, "cannot execute binary file: Exec format error"),
        Ok(format) => Ok((path, format)),
        // Executable but not readable (mode 0711): the kernel may run it; what it is shows at the exec stop.
        Err(_) => Ok((path, Format::Native)),
    }
}

/// First executable file of that name; a file that is there but not executable is the answer if nothing better follows.
fn find(name: &OsStr, search: &OsStr) -> Result<PathBuf, Refusal> {
    let not_found = || Refusal::new(127, format!("{}: command not found", name.to_string_lossy()));
    if name.is_empty() {
        return Err(not_found());
    }
    let mut second_best = None;
    for directory in std::env::split_paths(search) {
        // An empty element of PATH is the working directory.
        let path = if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) if is_executable(&path, &meta) => return Ok(path),
            Ok(_) => second_best = second_best.or(Some(path)),
            Err(_) => {}
        }
    }
    second_best.ok_or_else(not_found)
}

pub(crate) fn is_executable(path: &Path, meta: &fs::Metadata) -> bool {
    meta.is_file() && nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

/// What kind of privilege exec of this file would give.
pub(crate) fn privilege(path: &Path, meta: &fs::Metadata) -> Option<&'static str> {
    let mode = meta.mode();
    if mode & libc::S_ISUID != 0 {
        Some("setuid")
    } else if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 {
        Some("setgid")
    } else if crate::launch::has_capabilities(path) {
        Some("privileged (file capabilities)")
    } else {
        None
    }
}

fn format_of(path: &Path) -> io::Result<Format> {
    let mut head = Vec::new();
    File::open(path)?.take(80).read_to_end(&mut head)?;
    Ok(format_of_bytes(&head))
}

/// Judge a file by its first bytes (80 are enough).
pub fn format_of_bytes(head: &[u8]) -> Format {
    const CLASS64: u8 = 2;
    const LITTLE: u8 = 1;
    const X86_64: u8 = 62;
    match head {
        [0x7f, b'E', b'L', b'F', CLASS64, LITTLE, ..] if head.get(18..20) == Some(&[X86_64, 0]) => Format::Native,
        [0x7f, b'E', b'L', b'F', 1, ..] => Format::Foreign32,
        [0x7f, b'E', b'L', b'F', ..] => Format::ForeignMachine,
        [b'#', b'!', ..] => Format::Script,
        // As shells judge: text, if there is no NUL before the first newline.
        _ if !head.split(|&b| b == b'\n').next().unwrap_or_default().contains(&0) => Format::Text,
        _ => Format::Unknown,
    }
}

/// The system's words for an error, without Rust's " (os error 2)".
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}

/// The program and its arguments, ready for exec.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub format: Format,
    /// argv, the first is the name as the user wrote it.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Resolve `arguments[0]`.
    pub fn find(arguments: &[OsString]) -> Result<Program, Refusal> {
        let Some(name) = arguments.first() else {
            return Err(Refusal::new(1, "no program specified".to_string()));
        };
        let (path, format) = resolve(name)?;
        Ok(Program { path, format, arguments: arguments.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of its own for one test, removed at the end.
    struct Place(PathBuf);
    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("memcheck-tracer-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Place(path)
        }
        fn file(&self, name: &str, mode: u32, content: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }
    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn code(name: impl AsRef<OsStr>, search: &str) -> (i32, String) {
        let refusal = resolve_in(name.as_ref(), OsStr::new(search), false).unwrap_err();
        (refusal.exit_code, refusal.message)
    }

    #[test]
    fn the_first_executable_in_path_wins() {
        let place = Place::new("path");
        let search = format!("{0}/no:{0}/a:{0}/b", place.0.display());
        place.file("a/tool", 0o644, b"#!/bin/sh\n");
        let wanted = place.file("b/tool", 0o755, b"#!/bin/sh\n");
        fs::create_dir_all(place.0.join("a/dir")).unwrap();
        assert_eq!(resolve_in(OsStr::new("tool"), OsStr::new(&search), false), Ok((wanted, Format::Script)));
        assert_eq!(code("dir", &search), (127, "dir: command not found".into()));
        let only_a = format!("{}/a", place.0.display());
        assert_eq!(code("tool", &only_a), (126, "tool: Permission denied".into()));
        assert_eq!(code("", &search).0, 127);
    }

    #[test]
    fn refusals() {
        let place = Place::new("refusals");
        let missing = place.0.join("missing");
        assert_eq!(code(&missing, ""), (127, format!("{}: No such file or directory", missing.display())));
        assert_eq!(code(&place.0, "").1, format!("{}: is a directory", place.0.display()));
        assert_eq!(code(place.file("data", 0o755, &[1, 0, 2]), "").0, 126);
        let setuid = place.file("setuid", 0o4755, b"#!/bin/sh\n");
        assert!(code(&setuid, "").1.contains("setuid program"), "{:?}", code(&setuid, ""));
        assert!(resolve_in(setuid.as_os_str(), OsStr::new(""), true).is_ok(), "root may");
        let mut elf = [0u8; 64];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1, 1]);
        assert_eq!(code(place.file("old", 0o755, &elf), "").1.split(": ").last(), Some("32-bit programs are not supported"));
    }

    #[test]
    fn formats() {
        let mut elf = [0u8; 64];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        elf[18] = 62;
        assert_eq!(format_of_bytes(&elf), Format::Native);
        elf[18] = 183;
        assert_eq!(format_of_bytes(&elf), Format::ForeignMachine);
        assert_eq!(format_of_bytes(b"echo hello\n"), Format::Text);
        assert_eq!(format_of_bytes(b""), Format::Text, "shells run an empty file");
        assert_eq!(format_of_bytes(b"#!/usr/bin/env python3\n"), Format::Script);
        assert_eq!(format_of_bytes(&[0xca, 0xfe, 0, 0]), Format::Unknown);
    }
}
