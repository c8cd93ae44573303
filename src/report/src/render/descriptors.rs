//! `--track-fds`: descriptors that are open at the end, as text.
//!
//! ```text
//! FILE DESCRIPTORS: 5 open (3 std) at exit.
//! Open file descriptor 3: /etc/passwd
//!    at 0x4953011: open (open64.c:41)
//! ```

use crate::frame::{FrameStyle, Stack};

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// `None`: it has no name (a pipe, an event counter, …).
    File(Option<String>),
    /// `family` is `AF_INET`; `ends` is `0.0.0.0:45941 <-> unbound`, or `<unknown>`.
    Socket { family: String, ends: String },
}

/// A descriptor that is open at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDescriptor {
    pub number: i32,
    pub descriptor: Descriptor,
    /// Where it was opened; `None`: it was open when the program began.
    pub opened: Option<Stack>,
}

const STANDARD: std::ops::RangeInclusive<i32> = 0..=2;

impl OpenDescriptor {
    pub fn is_standard(&self) -> bool {
        STANDARD.contains(&self.number)
    }

    fn headline(&self) -> String {
        match &self.descriptor {
            Descriptor::File(None) => format!("Open file descriptor {}:", self.number),
            Descriptor::File(Some(name)) => format!("Open file descriptor {}: {name}", self.number),
            Descriptor::Socket { family, ends } if ends.is_empty() => format!("Open {family} socket {}:", self.number),
            Descriptor::Socket { family, ends } => {
                format!("Open {family} socket {}: {ends}", self.number)
            }
        }
    }
}

/// The whole section, with the empty line at its end. `when`: `at exit` or nothing. The most recently opened come first: the order of `open`. Standard
/// descriptors are counted but listed only if `all`.
pub fn section(open: &[OpenDescriptor], all: bool, when: &str, style: &FrameStyle) -> Vec<String> {
    let standard = open.iter().filter(|one| one.is_standard()).count();
    let mut lines = vec![format!("FILE DESCRIPTORS: {} open ({standard} std) {when}.", open.len())];
    for one in open.iter().filter(|one| all || !one.is_standard()) {
        lines.push(one.headline());
        match &one.opened {
            Some(stack) => lines.extend(style.lines(stack)),
            None => lines.push("   <inherited from parent>".to_string()),
        }
        lines.push(String::new());
    }
    lines.push(String::new());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::frame;

    #[test]
    fn a_section() {
        let file =
            |number, name: Option<&str>, opened| OpenDescriptor { number, descriptor: Descriptor::File(name.map(str::to_string)), opened };
        let socket = Descriptor::Socket { family: "AF_INET".into(), ends: "<unbound> <-> unbound".into() };
        let open = [
            OpenDescriptor { number: 4, descriptor: socket, opened: Some(Stack(vec![frame(0x10ab, "main", "a.c", 7)])) },
            file(3, Some("/etc/passwd"), None),
            file(2, None, None),
        ];
        assert_eq!(
            section(&open, false, "at exit", &FrameStyle::default()),
            [
                "FILE DESCRIPTORS: 3 open (1 std) at exit.",
                "Open AF_INET socket 4: <unbound> <-> unbound",
                "   at 0x10AB: main (a.c:7)",
                "",
                "Open file descriptor 3: /etc/passwd",
                "   <inherited from parent>",
                "",
                "",
            ]
        );
        assert!(section(&open, true, "", &FrameStyle::default()).contains(&"Open file descriptor 2:".to_string()));
    }
}
