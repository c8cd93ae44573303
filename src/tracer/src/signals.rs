//! Facts about signals: names, default actions, and what a process has chosen for each.
//! Source: signal(7), proc_pid_status(5).

use std::{fs, io};

/// What the kernel does with a signal nobody handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    /// Terminate, with or without a core file.
    Kill,
    Stop,
    Ignore,
}

/// Name and default action by number; index 0 is unused.
const TABLE: [(&str, Default); 32] = [
    ("", Default::Ignore),
    ("SIGHUP", Default::Kill),
    ("SIGINT", Default::Kill),
    ("SIGQUIT", Default::Kill),
    ("SIGILL", Default::Kill),
    ("SIGTRAP", Default::Kill),
    ("SIGABRT", Default::Kill),
    ("SIGBUS", Default::Kill),
    ("SIGFPE", Default::Kill),
    ("SIGKILL", Default::Kill),
    ("SIGUSR1", Default::Kill),
    ("SIGSEGV", Default::Kill),
    ("SIGUSR2", Default::Kill),
    ("SIGPIPE", Default::Kill),
    ("SIGALRM", Default::Kill),
    ("SIGTERM", Default::Kill),
    ("SIGSTKFLT", Default::Kill),
    ("SIGCHLD", Default::Ignore),
    ("SIGCONT", Default::Ignore),
    ("SIGSTOP", Default::Stop),
    ("SIGTSTP", Default::Stop),
    ("SIGTTIN", Default::Stop),
    ("SIGTTOU", Default::Stop),
    ("SIGURG", Default::Ignore),
    ("SIGXCPU", Default::Kill),
    ("SIGXFSZ", Default::Kill),
    ("SIGVTALRM", Default::Kill),
    ("SIGPROF", Default::Kill),
    ("SIGWINCH", Default::Ignore),
    ("SIGIO", Default::Kill),
    ("SIGPWR", Default::Kill),
    ("SIGSYS", Default::Kill),
];

/// "SIGSEGV", "SIGRT3" (the third after SIGRTMIN, kernel numbering from 32), or "SIG?".
pub fn name(signo: i32) -> String {
    match usize::try_from(signo) {
        Ok(n @ 1..=31) => TABLE[n].0.to_string(),
        Ok(n @ 32..=64) => format!("SIGRT{}", n - 32),
        _ => "SIG?".to_string(),
    }
}

pub fn default_action(signo: i32) -> Default {
    usize::try_from(signo).ok().and_then(|n| TABLE.get(n)).map_or(Default::Kill, |row| row.1)
}

/// What a delivery would do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    Handler,
    Ignored,
    Default(Default),
}

/// The choices of a process, as the kernel has them. Bit `signo - 1`.
#[derive(Clone, Copy, std::default::Default, PartialEq, Eq, Debug)]
pub struct Choices {
    pub ignored: u64,
    pub caught: u64,
}

impl Choices {
    /// By thread: the first thread of a process may have ended before the others.
    pub fn read(tid: i32) -> io::Result<Choices> {
        Ok(Choices::parse(&fs::read_to_string(format!("/proc/{tid}/status"))?))
    }

    pub fn parse(status: &str) -> Choices {
        let field = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Choices { ignored: field("SigIgn:").unwrap_or(0), caught: field("SigCgt:").unwrap_or(0) }
    }

    pub fn of(&self, signo: i32) -> Disposition {
        if self.caught & bit(signo) != 0 {
            Disposition::Handler
        } else if self.ignored & bit(signo) != 0 {
            Disposition::Ignored
        } else {
            Disposition::Default(default_action(signo))
        }
    }
}

/// Does a signal wait for this thread that it does not block?
pub fn is_waiting(tid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).and_then(|l| u64::from_str_radix(l.trim(), 16).ok());
    let [own, shared, blocked] = ["SigPnd:", "ShdPnd:", "SigBlk:"].map(|key| field(key).unwrap_or(0));
    (own | shared) & !blocked != 0
}

/// Signals that the processor raises, and the kernel kills by if they are blocked.
pub const SYNCHRONOUS: u64 = {
    let mut bits = 0;
    let mut rest: &[i32] = &[libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    while let [first, others @ ..] = rest {
        bits |= 1u64 << (*first - 1);
        rest = others;
    }
    bits
};

/// The mask bit of a signal.
pub fn bit(signo: i32) -> u64 {
    1u64.checked_shl((signo - 1) as u32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_defaults() {
        assert_eq!(name(libc::SIGSEGV), "SIGSEGV");
        assert_eq!(name(libc::SIGSYS), "SIGSYS");
        assert_eq!(name(34), "SIGRT2");
        assert_eq!(name(0), "SIG?");
        assert_eq!(default_action(libc::SIGCHLD), Default::Ignore);
        assert_eq!(default_action(libc::SIGTTOU), Default::Stop);
        assert_eq!(default_action(libc::SIGIO), Default::Kill);
        assert_eq!(default_action(50), Default::Kill);
    }

    #[test]
    fn choices() {
        let c = Choices::parse("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000002\n");
        assert_eq!(c.of(libc::SIGPIPE), Disposition::Ignored);
        assert_eq!(c.of(libc::SIGINT), Disposition::Handler);
        assert_eq!(c.of(libc::SIGTERM), Disposition::Default(Default::Kill));
        assert_eq!(bit(64), 1 << 63);
        assert_eq!(bit(0), 0);
    }
}
