//! Start the program as a traced child, up to the moment it could execute its first instruction.
//!
//! ```text
//! tracer                         child
//! fork  ───────────────────────► waits for a byte
//! PTRACE_SEIZE
//! byte  ───────────────────────► personality, dispositions, execve
//! wait: exec stop  ◄──────────── (or errno through the same socket)
//! ```
//!
//! PTRACE_SEIZE, not PTRACE_TRACEME: only a seized thread can be interrupted without a signal and can stay in a group-stop.
//!
//! The child gets what the shell gave *us*: file descriptors, signal mask, ignored signals, process group. Rust's start-up code
//! ignores SIGPIPE and opens missing standard descriptors before `main`, so what the shell gave is noted before that, by `note`.
#![allow(unsafe_code, reason = "fork and exec, and a constructor that runs before Rust's start-up code")]

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::resolve::{Format, Program, Refusal, reason};
use crate::tracee::{self, How, Report, Stop, Stopped};

/// The program at its exec stop.
pub struct Launched {
    pub pid: i32,
    pub(crate) stopped: Stopped,
    /// The personality that the program should see.
    pub(crate) personality: u32,
}

/// Bits 0..2: standard descriptor was closed when we were started; bit 8: SIGPIPE was ignored. Written by `note` only.
static GIVEN: AtomicU32 = AtomicU32::new(0);
const SIGPIPE_IGNORED: u32 = 1 << 8;

extern "C" fn note() {
    let mut given = 0;
    for fd in 0..3 {
        // SAFETY: asking for the flags of a descriptor changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            given |= 1 << fd;
        }
    }
    // SAFETY: all-zero bytes are a valid sigaction, and with a null second argument the call only reads the disposition into it.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action);
        action
    };
    if action.sa_sigaction == libc::SIG_IGN {
        given |= SIGPIPE_IGNORED;
    }
    GIVEN.store(given, Ordering::Relaxed);
}

// SAFETY: the C library calls the functions of this section once, before main; `note` only makes system calls and stores a word.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Does the file carry capabilities?
pub(crate) fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings are NUL-terminated; size 0 asks for the length only.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

/// Pointers to strings with a null at the end, as execve wants them; valid as long as the strings.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| Refusal::new(126, "an argument contains a NUL byte".to_string()))
}

/// What the child needs after fork, prepared before it: after fork only system calls are safe.
struct Plan {
    path: CString,
    arguments: Vec<CString>,
}

impl Plan {
    fn new(program: &Program) -> Result<Plan, Refusal> {
        let path = c_string(program.path.as_os_str().as_bytes())?;
        let mut arguments = program.arguments.iter().map(|a| c_string(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        if program.format != Format::Text {
            return Ok(Plan { path, arguments });
        }
        // A text file without "#!": the shell's own file, with its path as first argument.
        arguments[0] = path;
        arguments.insert(0, c_string(b"sh")?);
        Ok(Plan { path: c_string(b"/bin/sh")?, arguments })
    }
}

/// Start `program`; return it stopped right after exec.
pub fn launch(program: &Program) -> Result<Launched, Refusal> {
    let plan = Plan::new(program)?;
    let failed = |what: &str, e: io::Error| Refusal::new(1, format!("cannot start a process: {what}: {}", reason(&e)));
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| failed("socketpair", e))?;
    let arguments = pointers(&plan.arguments);
    // SAFETY: asking for the personality changes nothing.
    let personality = unsafe { libc::personality(0xffff_ffff) } as u32;
    // SAFETY: the child only makes system calls on memory prepared above, until it becomes another program or ends.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(failed("fork", io::Error::last_os_error())),
        0 => child(&plan.path, &arguments, [ours.as_raw_fd(), theirs.as_raw_fd()], personality),
        pid => pid,
    };
    drop(theirs);
    if let Err(error) = tracee::seize(pid) {
        drop(ours);
        let _ = tracee::wait(pid, true);
        return Err(Refusal::new(1, trace_refused(&error)));
    }
    let _ = ours.write_all(&[1]);
    match until_exec(pid) {
        Some(stopped) => Ok(Launched { pid, stopped, personality }),
        None => Err(exec_failure(program, &mut ours)),
    }
}

/// Why PTRACE_SEIZE of our own child can fail: someone else traces it already, or the system forbids it to everybody.
fn trace_refused(error: &tracee::Error) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|l| l.strip_prefix("TracerPid:")).map_or("0", str::trim);
    if tracer != "0" {
        return format!(
            "memcheck cannot trace a program while it is traced itself, by process {tracer} (a debugger, strace or another memcheck)"
        );
    }
    format!(
        "this system does not let memcheck trace programs ({error}): see /proc/sys/kernel/yama/ptrace_scope, or a container without SYS_PTRACE"
    )
}

/// In the child: never returns, never allocates.
fn child(path: &CString, arguments: &[*const libc::c_char], [theirs, socket]: [i32; 2], personality: u32) -> ! {
    // SAFETY: the C library defines it, with this type.
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let given = GIVEN.load(Ordering::Relaxed);
    let mut byte = 0u8;
    // SAFETY: system calls on live memory; `arguments` ends with a null, `environ` is the C library's.
    unsafe {
        // Else the end of the tracer would not end the wait.
        libc::close(theirs);
        if libc::read(socket, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(1);
        }
        // Not everywhere allowed (containers), and not needed: it only makes the addresses before the move repeatable.
        libc::personality((personality | libc::ADDR_NO_RANDOMIZE as u32) as libc::c_ulong);
        let pipe = if given & SIGPIPE_IGNORED != 0 { libc::SIG_IGN } else { libc::SIG_DFL };
        libc::signal(libc::SIGPIPE, pipe);
        for fd in (0..3).filter(|fd| given & 1 << fd != 0) {
            libc::close(fd);
        }
        libc::execve(path.as_ptr(), arguments.as_ptr(), environ);
        let errno = (*libc::__errno_location()).to_ne_bytes();
        libc::write(socket, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

/// Wait for the exec stop; signals that come before it are the child's. `None`: it ended.
fn until_exec(pid: i32) -> Option<Stopped> {
    loop {
        match tracee::wait(pid, true) {
            Report::Stopped(stopped, Stop::Event(libc::PTRACE_EVENT_EXEC)) => return Some(stopped),
            Report::Stopped(stopped, Stop::Signal(signal)) => stopped.resume(How::Continue, signal).ok()?,
            Report::Stopped(stopped, Stop::Group(_)) => stopped.resume(How::Listen, 0).ok()?,
            Report::Stopped(stopped, _) => stopped.resume(How::Continue, 0).ok()?,
            Report::Ended(..) | Report::Nothing | Report::Nobody => return None,
        }
    }
}

/// The line for the errno that the child sent before it ended.
fn exec_failure(program: &Program, socket: &mut UnixStream) -> Refusal {
    let name = program.arguments[0].to_string_lossy();
    let mut errno = [0u8; 4];
    if socket.read_exact(&mut errno).is_err() {
        return Refusal::new(126, format!("{name}: the system ended it while it was loaded; is the file whole?"));
    }
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
    match error.raw_os_error() {
        // The file is there (it was looked at), so this is about its interpreter.
        Some(libc::ENOENT) => Refusal::new(126, format!("{name}: bad interpreter: No such file or directory")),
        _ => Refusal::new(126, format!("{name}: {}", reason(&error))),
    }
}
