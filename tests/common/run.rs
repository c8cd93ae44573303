//! Running one program to its end or to a time limit.
//!
//! Output goes to files, not pipes: a program that leaves a child behind, or writes more than a pipe holds, cannot block the test.
//! Every program runs in a process group of its own, which is what the time limit kills.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a program ended, as a shell user sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Code(i32),
    Signal(i32),
    TimedOut,
}

/// Everything that can be seen of a finished run.
#[derive(Debug)]
pub struct Outcome {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Twice as long as the slowest program takes on a loaded machine under the slowest tool.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A program, its arguments and its directory, not yet started.
pub struct Run {
    command: Command,
    files: PathBuf,
    limit: Duration,
}

impl Run {
    /// `files` is an existing directory for the captured output; the program starts in `files` too unless told otherwise.
    pub fn new(program: impl AsRef<OsStr>, files: &Path) -> Run {
        let mut command = Command::new(program);
        command.current_dir(files).stdin(Stdio::null()).process_group(0);
        command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("VALGRIND_OPTS");
        Run { command, files: files.to_owned(), limit: LIMIT }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Run {
        self.command.current_dir(dir);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// Starts the program, waits, and collects. `label` names the output files, so that a failed run can be looked at.
    pub fn finish(mut self, label: &str) -> Outcome {
        let out = self.files.join(format!("{label}.stdout"));
        let err = self.files.join(format!("{label}.stderr"));
        let create = |path: &Path| File::create(path).expect("an output file in the scratch directory");
        self.command.stdout(create(&out)).stderr(create(&err));
        let ended = match self.command.spawn() {
            Ok(mut child) => wait(&mut child, self.limit),
            Err(error) => panic!("cannot start {:?}: {error}", self.command.get_program()),
        };
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Outcome { ended, stdout: read(&out), stderr: read(&err) }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Ended {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return ended(status);
        }
        if start.elapsed() > limit {
            kill_group(child.id());
            let _ = child.wait();
            return Ended::TimedOut;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(40));
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::TimedOut,
    }
}

/// Kills the group that `Run::new` made; the shell's own command spares this module the unsafe call.
fn kill_group(group: u32) {
    let _ = Command::new("kill").args(["-9", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
}

/// Signal numbers of x86-64 Linux by name, for the few that tests speak about.
pub const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
];

/// `3` or `SIGSEGV` as written in a fixture.
pub fn parse_ended(text: &str) -> Option<Ended> {
    if let Ok(code) = text.parse() {
        return Some(Ended::Code(code));
    }
    SIGNALS.iter().find(|(name, _)| *name == text).map(|&(_, number)| Ended::Signal(number))
}

/// The tool under the name `valgrind`.
pub fn valgrind(dir: &Path) -> Run {
    let link = dir.join("valgrind");
    let target = super::memcheck();
    let target = super::find_program(&target.to_string_lossy()).unwrap_or_else(|| target.into());
    // Other tests of the directory may make it meanwhile.
    let made = std::os::unix::fs::symlink(target, &link);
    assert!(made.is_ok() || link.exists(), "no symbolic link: {made:?}");
    // Nobody's options file.
    let run = if super::testing_reference() { Run::new(super::memcheck(), dir) } else { Run::new(link, dir) };
    run.env("HOME", dir.join("no-home"))
}
