//! Signals as reports name them: `SIGSEGV`, and what the code of a fault means.

/// Names of signals 1 to 31 on x86-64 Linux.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

pub const SIGSEGV: i32 = 11;
const SEGV_MAPERR: i32 = 1;

pub fn name(signo: i32) -> String {
    match usize::try_from(signo).ok().and_then(|number| NAMES.get(number.checked_sub(1)?)) {
        Some(name) => name.to_string(),
        None => format!("SIG{signo}"),
    }
}

/// Fault codes by signal, from 1 upwards; the words are Valgrind's.
const EVENTS: &[(i32, &[&str])] = &[
    (
        4,
        &[
            "Illegal opcode",
            "Illegal operand",
            "Illegal addressing mode",
            "Illegal trap",
            "Privileged opcode",
            "Privileged register",
            "Coprocessor error",
            "Internal stack error",
        ],
    ),
    (7, &["Invalid address alignment", "Non-existent physical address", "Hardware error"]),
    (
        8,
        &[
            "Integer divide by zero",
            "Integer overflow",
            "FP divide by zero",
            "FP overflow",
            "FP underflow",
            "FP inexact",
            "FP invalid operation",
            "FP subscript out of range",
        ],
    ),
    (SIGSEGV, &["Access not within mapped region", "Bad permissions for mapped region"]),
];

/// `si_code` of signals that the kernel raised without saying why.
const SI_KERNEL: i32 = 128;

/// What happened, if the processor raised the signal; `None` for signals that somebody sent.
pub fn event(signo: i32, code: i32) -> Option<&'static str> {
    if signo == SIGSEGV && code == SI_KERNEL {
        return Some("General Protection Fault");
    }
    let (_, texts) = EVENTS.iter().find(|(number, _)| *number == signo)?;
    texts.get(usize::try_from(code).ok()?.checked_sub(1)?).copied()
}

/// Does the event concern an address worth printing?
pub fn has_address(signo: i32, code: i32) -> bool {
    event(signo, code).is_some() && code != SI_KERNEL
}

/// Only an access to unmapped memory may be an overflow of the main thread's stack.
pub fn may_be_stack_overflow(signo: i32, code: i32) -> bool {
    (signo, code) == (SIGSEGV, SEGV_MAPERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_events() {
        assert_eq!([name(1), name(11), name(31), name(34), name(0)], ["SIGHUP", "SIGSEGV", "SIGSYS", "SIG34", "SIG0"]);
        assert_eq!(event(11, 1), Some("Access not within mapped region"));
        assert_eq!(event(11, 128), Some("General Protection Fault"));
        assert_eq!(event(8, 1), Some("Integer divide by zero"));
        assert_eq!(event(7, 2), Some("Non-existent physical address"));
        assert_eq!([event(6, -6), event(11, 0), event(11, 3)], [None, None, None]);
        assert!(!has_address(11, 128) && has_address(11, 2) && !has_address(6, -6));
    }
}
