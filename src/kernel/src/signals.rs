//! Signal numbers, names and default actions (signal(7), x86-64).

/// What the kernel does with a signal that has no handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    Terminate,
    /// Terminate with a core dump.
    Core,
    Ignore,
    Stop,
    Continue,
}

use Disposition::{Continue, Core, Ignore, Stop, Terminate};

/// Rows 1..=31 in order.
const TABLE: [(&str, Disposition); 31] = [
    ("SIGHUP", Terminate),
    ("SIGINT", Terminate),
    ("SIGQUIT", Core),
    ("SIGILL", Core),
    ("SIGTRAP", Core),
    ("SIGABRT", Core),
    ("SIGBUS", Core),
    ("SIGFPE", Core),
    ("SIGKILL", Terminate),
    ("SIGUSR1", Terminate),
    ("SIGSEGV", Core),
    ("SIGUSR2", Terminate),
    ("SIGPIPE", Terminate),
    ("SIGALRM", Terminate),
    ("SIGTERM", Terminate),
    ("SIGSTKFLT", Terminate),
    ("SIGCHLD", Ignore),
    ("SIGCONT", Continue),
    ("SIGSTOP", Stop),
    ("SIGTSTP", Stop),
    ("SIGTTIN", Stop),
    ("SIGTTOU", Stop),
    ("SIGURG", Ignore),
    ("SIGXCPU", Core),
    ("SIGXFSZ", Core),
    ("SIGVTALRM", Terminate),
    ("SIGPROF", Terminate),
    ("SIGWINCH", Ignore),
    ("SIGIO", Terminate),
    ("SIGPWR", Terminate),
    ("SIGSYS", Core),
];

/// Real-time signals as the kernel numbers them; the C library keeps the first two for itself.
pub const RT_FIRST: u32 = 32;
pub const LAST: u32 = 64;

const RT_NAMES: [&str; 33] = [
    "SIGRT32",
    "SIGRT33",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMAX-14",
    "SIGRTMAX-13",
    "SIGRTMAX-12",
    "SIGRTMAX-11",
    "SIGRTMAX-10",
    "SIGRTMAX-9",
    "SIGRTMAX-8",
    "SIGRTMAX-7",
    "SIGRTMAX-6",
    "SIGRTMAX-5",
    "SIGRTMAX-4",
    "SIGRTMAX-3",
    "SIGRTMAX-2",
    "SIGRTMAX-1",
    "SIGRTMAX",
];

/// `None` if there is no such signal.
pub fn name(signal: u32) -> Option<&'static str> {
    match signal {
        1..=31 => Some(TABLE[signal as usize - 1].0),
        RT_FIRST..=LAST => Some(RT_NAMES[(signal - RT_FIRST) as usize]),
        _ => None,
    }
}

pub fn default_action(signal: u32) -> Option<Disposition> {
    match signal {
        1..=31 => Some(TABLE[signal as usize - 1].1),
        RT_FIRST..=LAST => Some(Terminate),
        _ => None,
    }
}

/// Raised by the instruction itself, so that they cannot wait for a safe point.
pub const fn is_fault(signal: u32) -> bool {
    matches!(signal, 4 | 5 | 7 | 8 | 11)
}

#[cfg(test)]
mod tests {
    use super::{Disposition, default_action, name};

    #[test]
    fn numbers_match_the_c_library() {
        let known = [
            (libc::SIGHUP, "SIGHUP"),
            (libc::SIGKILL, "SIGKILL"),
            (libc::SIGSEGV, "SIGSEGV"),
            (libc::SIGSTKFLT, "SIGSTKFLT"),
            (libc::SIGCHLD, "SIGCHLD"),
            (libc::SIGSYS, "SIGSYS"),
            (libc::SIGRTMIN(), "SIGRTMIN"),
            (libc::SIGRTMIN() + 15, "SIGRTMIN+15"),
            (libc::SIGRTMAX() - 14, "SIGRTMAX-14"),
            (libc::SIGRTMAX(), "SIGRTMAX"),
        ];
        for (number, text) in known {
            assert_eq!(name(number as u32), Some(text));
        }
        assert_eq!((name(0), name(65)), (None, None));
    }

    #[test]
    fn default_actions() {
        assert_eq!(default_action(libc::SIGCHLD as u32), Some(Disposition::Ignore));
        assert_eq!(default_action(libc::SIGTSTP as u32), Some(Disposition::Stop));
        assert_eq!(default_action(libc::SIGCONT as u32), Some(Disposition::Continue));
        assert_eq!(default_action(libc::SIGABRT as u32), Some(Disposition::Core));
        assert_eq!(default_action(40), Some(Disposition::Terminate));
    }
}
