//! Warnings that users know and search for, as lines for [`crate::Reporter::message`] or, where noted, `debug`.
//!
//! These are not findings: nothing counts them, and they cannot be suppressed.

/// A change of the stack pointer that is taken for a switch of stacks. `count`: how many of these there were, this one
/// included; after the third one there is a last line, then nothing.
pub fn stack_switch(from: u64, to: u64, count: u32) -> Vec<String> {
    const SHOWN: u32 = 3;
    if count > SHOWN {
        return Vec::new();
    }
    let needed = from.abs_diff(to);
    let mut lines = vec![
        format!("Warning: client switching stacks?  SP change: 0x{from:x} --> 0x{to:x}"),
        format!("         to suppress, use: --max-stackframe={needed} or greater"),
    ];
    if count == SHOWN {
        lines.push("         further instances of this message will not be shown.".to_string());
    }
    lines
}

/// A system call with a descriptor outside the allowed range.
pub fn invalid_descriptor(fd: i32, syscall: &str) -> String {
    format!("Warning: invalid file descriptor {fd} in syscall {syscall}()")
}

/// A system call nobody knows; the program gets ENOSYS. For `debug`-style lines that are always shown.
pub fn unhandled_syscall(number: u64) -> Vec<String> {
    vec![
        format!("WARNING: unhandled amd64-linux syscall: {number}"),
        "It is passed on to the kernel, but what it reads and writes is not checked.".to_string(),
    ]
}

/// More than 256 MB changed their state at once. `state` is `defined`, `undefined` or `noaccess`.
pub fn large_range(start: u64, end: u64, state: &str) -> String {
    format!("Warning: set address range perms: large range [0x{start:x}, 0x{end:x}) ({state})")
}

/// An ioctl whose size and direction cannot be told from its number.
pub fn unhandled_ioctl(request: u64) -> String {
    format!("Warning: noted but unhandled ioctl 0x{request:x} with no size/direction hints.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_switches_are_told_three_times() {
        assert_eq!(
            stack_switch(0x1fff000520, 0x1ffed23e50, 1),
            [
                "Warning: client switching stacks?  SP change: 0x1fff000520 --> 0x1ffed23e50",
                "         to suppress, use: --max-stackframe=3000016 or greater",
            ]
        );
        assert_eq!(stack_switch(1, 2, 3)[2], "         further instances of this message will not be shown.");
        assert!(stack_switch(1, 2, 4).is_empty());
    }

    #[test]
    fn the_others() {
        assert_eq!(invalid_descriptor(-1, "write"), "Warning: invalid file descriptor -1 in syscall write()");
        assert_eq!(unhandled_syscall(9999)[0], "WARNING: unhandled amd64-linux syscall: 9999");
        assert_eq!(large_range(0x10, 0x20, "defined"), "Warning: set address range perms: large range [0x10, 0x20) (defined)");
        assert_eq!(unhandled_ioctl(0x5441), "Warning: noted but unhandled ioctl 0x5441 with no size/direction hints.");
    }
}
