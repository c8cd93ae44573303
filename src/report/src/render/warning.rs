//! Warnings that users know and search for, as lines for [`crate::Reporter::message`] or, where noted, `debug`.
//!
//! These are not findings: nothing counts them, and they cannot be suppressed.

use super::signal;

/// A system call with a descriptor outside the allowed range.
pub fn invalid_descriptor(fd: i32, syscall: &str) -> String {
    format!("Warning: invalid file descriptor {fd} in syscall {syscall}()")
}

/// An ioctl whose size and direction cannot be told from its number.
pub fn unhandled_ioctl(request: u32) -> [String; 3] {
    [
        format!("Warning: noted but unhandled ioctl 0x{request:x} with no size/direction hints."),
        "   This could cause spurious value errors to appear.".into(),
        "   See README_MISSING_SYSCALL_OR_IOCTL for guidance on writing a proper wrapper.".into(),
    ]
}

/// A handler for SIGKILL or SIGSTOP.
pub fn uncatchable_signal(signal: i32) -> [String; 2] {
    let name = signal::name(signal);
    [format!("Warning: ignored attempt to set {name} handler in sigaction();"), format!("         the {name} signal is uncatchable")]
}

/// An action for a signal that does not exist.
pub fn no_signal(signal: i32) -> String {
    format!("Warning: bad signal number {signal} in sigaction()")
}

/// An object lacks a symbol of `--require-text-symbol`; these lines have no prefix.
pub fn missing_symbol(soname: &str, symbol: &str) -> [String; 9] {
    [
        String::new(),
        "valgrind:  Fatal error at when loading library with soname".into(),
        format!("valgrind:     {soname}"),
        "valgrind:  Cannot find any text symbol with a name that matches the pattern".into(),
        format!("valgrind:     {symbol}"),
        "valgrind:  as required by a --require-text-symbol= specification.".into(),
        String::new(),
        "valgrind:  Cannot continue -- exiting now.".into(),
        String::new(),
    ]
}

/// The program brings a checker of its own, which stops it under memcheck.
pub fn sanitizer(name: &str, option: &str) -> [String; 2] {
    [
        format!("Warning: {name} is built into this program, and needs memory that memcheck has taken."),
        format!("   It will probably end the program. Build without -fsanitize={option} to use memcheck."),
    ]
}

/// A thread ends that has switched error reporting off.
pub const REPORTING_OFF: [&str; 3] = [
    "WARNING: exiting thread has error reporting disabled.",
    "WARNING: possibly as a result of some mistake in the use",
    "WARNING: of the VALGRIND_DISABLE_ERROR_REPORTING macros.",
];

/// Ranges `[start, end)` in which the program still wants no invalid access to be reported when it ends; none: nothing to say. The numbers
/// count the pieces into which these ranges and those of the options cut the address space.
pub fn ignored_ranges(by_program: &[(u64, u64)], by_user: &[(u64, u64)]) -> Vec<String> {
    let mut all: Vec<(u64, u64, bool)> = by_program.iter().map(|&(start, end)| (start, end, true)).collect();
    all.extend(by_user.iter().map(|&(start, end)| (start, end, false)));
    all.sort_unstable();
    let (mut lines, mut piece, mut next) = (Vec::new(), 0, 0);
    for (start, end, is_programs) in all {
        piece += usize::from(start > next);
        if is_programs {
            lines.push(format!("   [{piece}]  0x{start:016x}-0x{:016x}  ClientReq", end.wrapping_sub(1)));
        }
        (piece, next) = (piece + 1, end);
    }
    if !lines.is_empty() {
        lines.splice(0..0, IGNORED_RANGES.map(str::to_owned));
    }
    lines
}

const IGNORED_RANGES: [&str; 4] = [
    "WARNING: exiting program has the following client-requested",
    "WARNING: address error disablement range(s) still in force,",
    "WARNING: possibly as a result of some mistake in the use of the",
    "WARNING: VALGRIND_{DISABLE,ENABLE}_ERROR_REPORTING_IN_RANGE macros.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(invalid_descriptor(-1, "write"), "Warning: invalid file descriptor -1 in syscall write()");
        assert_eq!(unhandled_ioctl(0x5441)[0], "Warning: noted but unhandled ioctl 0x5441 with no size/direction hints.");
        assert_eq!(uncatchable_signal(9)[1], "         the SIGKILL signal is uncatchable");
        assert_eq!(no_signal(65), "Warning: bad signal number 65 in sigaction()");
    }

    #[test]
    fn ranges_are_numbered_among_all_pieces() {
        let lines = |by_program: &[_], by_user: &[_]| ignored_ranges(by_program, by_user).split_off(4).join("|");
        assert_eq!(
            lines(&[(0x5000, 0x5010), (0x6000, 0x6001)], &[]),
            "   [1]  0x0000000000005000-0x000000000000500f  ClientReq|   [3]  0x0000000000006000-0x0000000000006000  ClientReq"
        );
        assert_eq!(lines(&[(0x5000, 0x5010)], &[(0x1000, 0x2000), (0, 0x100)]), "   [4]  0x0000000000005000-0x000000000000500f  ClientReq");
        assert!(ignored_ranges(&[], &[(1, 2)]).is_empty());
    }
}
