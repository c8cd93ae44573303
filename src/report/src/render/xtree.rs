//! Loss records as a tree of calls, for `--xtree-leak`: the format of callgrind, which `callgrind_annotate` and kcachegrind read.
//!
//! ```text
//! fl=(1) /home/u/a.c      the caller: file and function, by number once they are known
//! fn=(1) main
//! 8                       its line
//! cfi=(1)                 whom it calls there
//! cfn=(2) f
//! calls=0 6               that function's line
//! 8 0 0 6 …               what the caller's line costs: one number for each event
//! ```
//! Each record is a chain of such calls from the outermost function to the allocator. Of the three groups of events the second is the
//! growth since an earlier search and the third the decline: a report at the end of the program has nothing before it.

use std::collections::HashMap;
use std::fmt::Write;

use super::ProcessStart;
use crate::error::LeakKind;
use crate::frame::{Frame, FrameStyle, Stack};
use crate::leak::Tally;

/// What the numbers are.
const EVENTS: [(&str, &str); 9] = [
    ("RB", "Reachable Bytes"),
    ("PB", "Possibly lost Bytes"),
    ("IB", "Indirectly lost Bytes"),
    ("DB", "Definitely lost Bytes (direct plus indirect)"),
    ("DIB", "Definitely Indirectly lost Bytes (subset of DB)"),
    ("RBk", "reachable Blocks"),
    ("PBk", "Possibly lost Blocks"),
    ("IBk", "Indirectly lost Blocks"),
    ("DBk", "Definitely lost Blocks"),
];

/// A record of the leak search with its names.
pub struct Loss {
    pub kind: LeakKind,
    pub direct: Tally,
    pub indirect_bytes: u64,
    pub stack: Stack,
}

impl Loss {
    fn costs(&self) -> [u64; 9] {
        let Tally { bytes, blocks } = self.direct;
        match self.kind {
            LeakKind::Reachable => [bytes, 0, 0, 0, 0, blocks, 0, 0, 0],
            LeakKind::Possible => [0, bytes, 0, 0, 0, 0, blocks, 0, 0],
            LeakKind::Indirect => [0, 0, bytes, 0, 0, 0, 0, blocks, 0],
            LeakKind::Definite => [0, 0, 0, bytes + self.indirect_bytes, self.indirect_bytes, 0, 0, 0, blocks],
        }
    }
}

/// Names that are written once and then go by their number.
#[derive(Default)]
struct Numbers(HashMap<String, usize>);

impl Numbers {
    fn of(&mut self, name: &str) -> String {
        let next = self.0.len() + 1;
        match self.0.get(name) {
            Some(number) => format!("({number})"),
            None => {
                self.0.insert(name.to_owned(), next);
                format!("({next}) {name}")
            }
        }
    }
}

/// The whole file.
pub fn document(start: &ProcessStart, losses: &[Loss], style: &FrameStyle) -> String {
    let mut out = head(start);
    let (mut files, mut functions) = (Numbers::default(), Numbers::default());
    let mut totals = [0; 9];
    for loss in losses {
        let costs = loss.costs();
        totals.iter_mut().zip(costs).for_each(|(total, cost)| *total += cost);
        chain(&mut out, &loss.stack, &numbers(costs), style, (&mut files, &mut functions));
    }
    let _ = writeln!(out, "totals: {}", numbers(totals));
    out
}

fn head(start: &ProcessStart) -> String {
    let mut out = format!(
        "# callgrind format\nversion: 1\ncreator: xtree-1\npid: {}\ncmd: {}\n\npositions: line\n",
        start.pid,
        start.command.join(" ")
    );
    for (letter, change) in [("", ""), ("i", "increase "), ("d", "decrease ")] {
        for (name, text) in EVENTS {
            let text = if change.is_empty() { text } else { text.split(" (").next().unwrap_or(text) };
            let _ = writeln!(out, "event: {letter}{name} : {change}{text}");
        }
    }
    out.push_str("events: ");
    for letter in ["", "i", "d"] {
        EVENTS.iter().for_each(|(name, _)| {
            let _ = write!(out, "{letter}{name}  ");
        });
    }
    out.pop();
    out.push('\n');
    out
}

/// All events: how much there is, how much more than before, how much less.
fn numbers(costs: [u64; 9]) -> String {
    let all: Vec<String> = costs.iter().chain(&costs).chain(&[0; 9]).map(u64::to_string).collect();
    all.join(" ")
}

fn chain(out: &mut String, stack: &Stack, costs: &str, style: &FrameStyle, (files, functions): (&mut Numbers, &mut Numbers)) {
    let file = |frame: &Frame| frame.full_path().unwrap_or_else(|| "UnknownFile???".to_owned());
    let function = |frame: &Frame| style.name(frame).unwrap_or("UnknownFn???").to_owned();
    let line = |frame: &Frame| frame.line.unwrap_or(0);
    // A call that was inlined is no call: the place is the innermost one's, the function that whose code it is.
    let mut calls: Vec<(&Frame, &Frame)> = Vec::new();
    let mut place = None;
    for frame in stack.shown(style.show_below_main) {
        let innermost = *place.get_or_insert(frame);
        if !frame.inlined {
            calls.push((innermost, frame));
            place = None;
        }
    }
    for (depth, (place, code)) in calls.iter().enumerate().rev() {
        let _ = writeln!(out, "fl={}\nfn={}", files.of(&file(place)), functions.of(&function(code)));
        if let Some((inner, callee)) = depth.checked_sub(1).and_then(|inner| calls.get(inner)) {
            let _ = writeln!(out, "{}\ncfi={}", line(place), files.of(&file(inner)));
            let _ = writeln!(out, "cfn={}\ncalls=0 {}", functions.of(&function(callee)), line(inner));
        }
        let _ = writeln!(out, "{} {costs}", line(place));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::{frame, library_frame};

    #[test]
    fn a_record_is_a_chain_of_calls_from_the_outside() {
        let start = ProcessStart { pid: 7, command: vec!["./x".into(), "a".into()], ..ProcessStart::default() };
        let stack = || Stack(vec![library_frame(1, "malloc", "/lib/libc.so.6"), frame(2, "f", "a.c", 6), frame(3, "main", "a.c", 8)]);
        let definite = Loss { kind: LeakKind::Definite, direct: Tally::new(24, 1), indirect_bytes: 6, stack: stack() };
        let inlined = frame(2, "inlined", "b.h", 3).with(|line| line.inlined = true);
        let one = document(
            &start,
            &[Loss {
                kind: LeakKind::Possible,
                direct: Tally::new(1, 1),
                indirect_bytes: 0,
                stack: Stack(vec![inlined, frame(2, "f", "a.c", 6)]),
            }],
            &FrameStyle::default(),
        );
        assert!(one.contains("fl=(1) /src/b.h\nfn=(1) f\n3 0 1 0"), "{one}");
        let reachable = Loss { kind: LeakKind::Reachable, direct: Tally::new(5, 2), indirect_bytes: 0, stack: stack() };
        let text = document(&start, &[definite, reachable], &FrameStyle::default());
        assert!(text.starts_with("# callgrind format\nversion: 1\ncreator: xtree-1\npid: 7\ncmd: ./x a\n\npositions: line\nevent: RB : "));
        assert!(text.contains("\nevent: dDBk : decrease Definitely lost Blocks\nevents: RB  PB  IB "));
        let costs = "0 0 0 30 6 0 0 0 1 0 0 0 30 6 0 0 0 1 0 0 0 0 0 0 0 0 0";
        let first = format!(
            "dDBk \nfl=(1) /src/a.c\nfn=(1) main\n8\ncfi=(1)\ncfn=(2) f\ncalls=0 6\n8 {costs}\n\
             fl=(1)\nfn=(2)\n6\ncfi=(2) UnknownFile???\ncfn=(3) malloc\ncalls=0 0\n6 {costs}\nfl=(2)\nfn=(3)\n0 {costs}\n\nfl=(1)\nfn=(1)\n8\n"
        );
        assert!(text.contains(&first), "{text}");
        assert!(text.ends_with("\n\ntotals: 5 0 0 30 6 2 0 0 1 5 0 0 30 6 2 0 0 1 0 0 0 0 0 0 0 0 0\n"));
    }
}
