//! Costs of places as a tree of calls, for `--xtree-leak` and `--xtree-memory`: the format of callgrind, which `callgrind_annotate` and
//! kcachegrind read.
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
//! Each place is a chain of such calls from the outermost function to the innermost. What is counted there is said by [`leaks`] and
//! [`memory`]; [`massif`] is the format of another reader for the same tree.

pub mod leaks;
pub mod massif;
pub mod memory;

use std::collections::HashMap;
use std::fmt::Write;

use super::ProcessStart;
use crate::frame::{Frame, FrameStyle, Stack};

/// What is counted, and what it was for each place.
pub struct Tree {
    /// Names, short and long.
    pub events: Vec<(String, String)>,
    pub places: Vec<Place>,
}

/// One stack, and a number for each event.
pub struct Place {
    pub stack: Stack,
    pub costs: Vec<u64>,
}

impl Tree {
    /// The sum of all places.
    fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.events.len()];
        for place in &self.places {
            totals.iter_mut().zip(&place.costs).for_each(|(total, cost)| *total += cost);
        }
        totals
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
pub fn document(start: &ProcessStart, tree: &Tree, style: &FrameStyle) -> String {
    let mut out = head(start, &tree.events);
    let (mut files, mut functions) = (Numbers::default(), Numbers::default());
    for place in &tree.places {
        chain(&mut out, &place.stack, &numbers(&place.costs), style, (&mut files, &mut functions));
    }
    let _ = writeln!(out, "totals: {}", numbers(&tree.totals()));
    out
}

fn head(start: &ProcessStart, events: &[(String, String)]) -> String {
    let mut out = format!(
        "# callgrind format\nversion: 1\ncreator: xtree-1\npid: {}\ncmd: {}\n\npositions: line\n",
        start.pid,
        start.command.join(" ")
    );
    for (name, text) in events {
        let _ = writeln!(out, "event: {name} : {text}");
    }
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(out, "events: {} ", names.join("  "));
    out
}

fn numbers(costs: &[u64]) -> String {
    costs.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// A code address: where in the source it is, and the function whose code it is. Of functions that were inlined there the place is the
/// innermost one's; a call that was inlined is no call.
#[derive(Clone, Copy)]
struct Call<'a> {
    place: &'a Frame,
    code: &'a Frame,
}

impl Call<'_> {
    fn addr(&self) -> u64 {
        self.code.addr
    }

    fn line(&self) -> u32 {
        self.place.line.unwrap_or(0)
    }

    fn function(&self, style: &FrameStyle) -> String {
        style.name(self.code).unwrap_or("UnknownFn???").to_owned()
    }

    fn file(&self) -> String {
        self.place.full_path().unwrap_or_else(|| "UnknownFile???".to_owned())
    }
}

/// The calls of a stack, innermost first.
fn calls<'a>(stack: &'a Stack, style: &FrameStyle) -> Vec<Call<'a>> {
    let mut calls = Vec::new();
    let mut place = None;
    for frame in stack.shown(style.show_below_main) {
        let innermost = *place.get_or_insert(frame);
        if !frame.inlined {
            calls.push(Call { place: innermost, code: frame });
            place = None;
        }
    }
    calls
}

fn chain(out: &mut String, stack: &Stack, costs: &str, style: &FrameStyle, (files, functions): (&mut Numbers, &mut Numbers)) {
    let calls = calls(stack, style);
    for (depth, call) in calls.iter().enumerate().rev() {
        let _ = writeln!(out, "fl={}\nfn={}", files.of(&call.file()), functions.of(&call.function(style)));
        if let Some(callee) = depth.checked_sub(1).and_then(|inner| calls.get(inner)) {
            let _ = writeln!(out, "{}\ncfi={}", call.line(), files.of(&callee.file()));
            let _ = writeln!(out, "cfn={}\ncalls=0 {}", functions.of(&callee.function(style)), callee.line());
        }
        let _ = writeln!(out, "{} {costs}", call.line());
    }
    out.push('\n');
}
