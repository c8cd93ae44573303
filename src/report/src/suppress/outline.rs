//! Can a rule match a stack of which only the outline is known (`names`)? "No" is certain; "yes" asks for the full names.
//!
//! A frame of an outline that is marked `inlined` and has no name stands for any number of functions, also none; the frame after it
//! may have a source line, or a name that only debug information knows.

use super::{FramePattern, frames_match};
use crate::frame::{Frame, Stack};

/// A frame that stands for inlined functions not looked up yet.
fn is_open(frame: &Frame) -> bool {
    frame.inlined && frame.suppression_name().is_none()
}

/// Could the pattern match one of the frames that `open` stands for?
fn could_match(pattern: &FramePattern, open: &Frame) -> bool {
    match pattern {
        FramePattern::Object(_) => pattern.matches(open),
        _ => true,
    }
}

pub fn may_match(patterns: &[FramePattern], outline: &Stack) -> bool {
    // reached[p]: the frames so far can be what the first p patterns ask for.
    let mut reached = vec![false; patterns.len() + 1];
    reached[0] = true;
    skip_dots(patterns, &mut reached);
    let mut follows_open = false;
    for frame in &outline.0 {
        if reached[patterns.len()] {
            return true;
        }
        if is_open(frame) {
            for p in 0..patterns.len() {
                reached[p + 1] |= reached[p] && could_match(&patterns[p], frame);
            }
        } else {
            let lacks = |pattern: &FramePattern| match pattern {
                FramePattern::Source { .. } => follows_open,
                FramePattern::Function(_) => follows_open && frame.suppression_name().is_none(),
                _ => false,
            };
            for p in (0..patterns.len()).rev() {
                let is_dots = patterns[p] == FramePattern::AnyFrames;
                reached[p + 1] = reached[p] && !is_dots && (patterns[p].matches(frame) || lacks(&patterns[p]));
                // What stands before dots stays reached; it takes the frame.
                reached[p] &= is_dots;
            }
        }
        follows_open = is_open(frame);
        skip_dots(patterns, &mut reached);
    }
    reached[patterns.len()]
}

fn skip_dots(patterns: &[FramePattern], reached: &mut [bool]) {
    for p in 0..patterns.len() {
        reached[p + 1] |= reached[p] && patterns[p] == FramePattern::AnyFrames;
    }
}

/// Does a rule match the functions that have symbols, whatever is inlined in them?
pub fn matches_symbols(patterns: &[FramePattern], outline: &Stack) -> bool {
    let frames: Vec<&Frame> = outline.0.iter().filter(|frame| !frame.inlined).collect();
    frames_match(patterns, &frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::library_frame;
    use crate::suppress::parse::parse;

    fn open(addr: u64, object: &str) -> Frame {
        Frame::unknown(addr).with(|line| (line.object, line.inlined) = (Some(std::path::Path::new(object).into()), true))
    }

    /// `malloc` without, `make` and `main` with debug information.
    fn outline() -> Stack {
        let debugged = |addr, name| [open(addr, "/bin/p"), library_frame(addr, name, "/bin/p")];
        Stack([vec![library_frame(1, "malloc", "/lib/c.so")], debugged(2, "make").into(), debugged(3, "main").into()].concat())
    }

    fn may(frames: &str) -> bool {
        let rules = parse("x.supp", &format!("{{\nn\nMemcheck:Leak\n{frames}\n}}\n")).expect("well formed");
        may_match(&rules[0].frames, &outline())
    }

    #[test]
    fn what_cannot_match_is_known_without_debug_information() {
        assert!(!may("fun:calloc"));
        assert!(!may("fun:malloc\nfun:other\nfun:other\nobj:/lib/c.so"));
        assert!(!may("fun:malloc\nobj:/lib/c.so"));
        assert!(!may("src:heap.c"), "no debug information there");
        assert!(!may("...\nobj:/lib/d.so"));
    }

    #[test]
    fn what_might_be_inlined_might_match() {
        assert!(may("fun:malloc\nfun:make\nfun:main"));
        assert!(may("fun:malloc\n...\nfun:main"));
        assert!(may("fun:malloc\nfun:inlined\nfun:another\nfun:make"));
        assert!(may("fun:malloc\nsrc:make.c"));
        assert!(may("fun:malloc\n...\nfun:inlined"));
        assert!(may("...\nfun:x\n..."));
        assert!(may("obj:*\nobj:/bin/p\nobj:/bin/p\nobj:/bin/p\nobj:/bin/p\nobj:/bin/p"));
    }

    #[test]
    fn inlined_functions_do_not_come_between_symbols() {
        let rules = parse("x.supp", "{\nn\nMemcheck:Leak\nfun:malloc\nfun:make\nfun:main\n}\n").expect("well formed");
        assert!(matches_symbols(&rules[0].frames, &outline()));
    }
}
