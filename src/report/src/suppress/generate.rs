//! Writes the rule that would hide a finding, for `--gen-suppressions`.
//!
//! One line per frame that the report shows, raw names, because raw names are what rules are compared with. A frame without a
//! name is written by its object, one without both as `obj:*`.

use crate::error::ErrorKind;
use crate::frame::{Frame, Stack};
use crate::suppress::BELOW_MAIN;

/// The name a generated rule carries until its owner finds a better one.
pub const PLACEHOLDER: &str = "insert_a_suppression_name_here";

/// The parts of a generated rule, for formats that list them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// `Memcheck:Addr4`
    pub kind: String,
    pub extra: Option<String>,
    /// `fun:main`, `obj:/bin/x`
    pub frames: Vec<String>,
}

/// The rule for a finding of this kind with this stack. `show_below_main` as in the report: the rule stops where it stops.
pub fn generate(kind: &ErrorKind, stack: &Stack, show_below_main: bool) -> Generated {
    Generated {
        kind: format!("Memcheck:{}", kind.suppression_kind()),
        extra: kind.suppression_extra(),
        frames: stack.shown(show_below_main).iter().map(|frame| frame_line(frame, show_below_main)).collect(),
    }
}

fn frame_line(frame: &Frame, show_below_main: bool) -> String {
    match (frame.suppression_name(), frame.object_text()) {
        _ if !show_below_main && frame.is_below_main() => format!("fun:{BELOW_MAIN}"),
        (Some(name), _) => format!("fun:{name}"),
        (None, Some(object)) => format!("obj:{object}"),
        (None, None) => "obj:*".to_string(),
    }
}

impl Generated {
    /// The rule as it stands in a file, with its final newline.
    pub fn text(&self) -> String {
        let mut out = format!("{{\n   <{PLACEHOLDER}>\n   {}\n", self.kind);
        for line in self.extra.iter().chain(&self.frames) {
            out.push_str("   ");
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("}\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Suppressions, parse};
    use super::*;
    use crate::error::LeakKind;
    use crate::frame::testing::{frame, library_frame};

    #[test]
    fn text_is_what_users_paste() {
        let kind = ErrorKind::ParamMemory { name: "write(buf)".into(), unaddressable: false };
        let unnamed = Frame::unknown(5).with(|line| line.object = Some(std::path::Path::new("/lib/x.so").into()));
        let stack = Stack(vec![
            library_frame(1, "write", "/l"),
            unnamed,
            Frame::unknown(7),
            frame(2, "main", "a.c", 8),
            frame(3, "_start", "s", 1),
        ]);
        assert_eq!(
            generate(&kind, &stack, false).text(),
            "{\n   <insert_a_suppression_name_here>\n   Memcheck:Param\n   write(buf)\n   fun:write\n   obj:/lib/x.so\n   obj:*\n   fun:main\n}\n"
        );
    }

    /// A generated rule hides the finding it was generated from, whatever kinds, names and unknown frames come together.
    #[test]
    fn a_generated_rule_hides_its_finding() {
        let kinds = [
            ErrorKind::Read { size: 10 },
            ErrorKind::Write { size: 64 },
            ErrorKind::Jump,
            ErrorKind::Cond,
            ErrorKind::Value { size: 8 },
            ErrorKind::ParamRegister { name: "write(fd)".into() },
            ErrorKind::ParamMemory { name: "a(b[0])".into(), unaddressable: true },
            ErrorKind::User { unaddressable: true },
            ErrorKind::InvalidFree,
            ErrorKind::MismatchedFree,
            ErrorKind::Overlap,
            ErrorKind::Fishy { function: "calloc".into(), argument: "nmemb".into() },
            ErrorKind::Mempool,
            ErrorKind::CoreMem,
            ErrorKind::ReallocZero,
            ErrorKind::BadAlign,
            ErrorKind::Leak(LeakKind::Definite),
            ErrorKind::Leak(LeakKind::Reachable),
        ];
        let choices = [
            Frame::unknown(1),
            library_frame(2, "S::operator*(int?)", "/l"),
            frame(3, "pthread_create@@GLIBC_2.34", "p.c", 2),
            frame(4, "tiny", "t.h", 1).with(|line| line.inlined = true),
            Frame::unknown(5).with(|line| line.object = Some(std::path::Path::new("/lib/x.so").into())),
            frame(6, "main", "m.c", 3),
            library_frame(7, "_start", "/bin/p"),
        ];
        let mut seed = 1u32;
        for kind in &kinds {
            for length in 1..8 {
                let mut pick = || {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    choices[(seed >> 16) as usize % choices.len()].clone()
                };
                let stack = Stack((0..length).map(|_| pick()).collect());
                let text = generate(kind, &stack, false).text();
                let mut rules = Suppressions::new(parse::parse("g", &text).expect(&text));
                assert_eq!(rules.find(kind, &stack), Some(0), "{text}");
            }
        }
    }
}
