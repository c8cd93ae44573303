//! Loss records as places of a tree of calls, for `--xtree-leak`.
//!
//! Of the three groups of events the second is the growth since an earlier search and the third the decline; if there was none, everything is
//! growth.

use super::{Place, Tree};
use crate::error::LeakKind;
use crate::frame::Stack;
use crate::leak::{Change, Tally};

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
    /// Since the search before.
    pub change: Option<Change>,
    pub stack: Stack,
}

impl Loss {
    /// Amounts of this kind as costs.
    fn costs(&self, bytes: u64, indirect_bytes: u64, blocks: u64) -> [u64; 9] {
        match self.kind {
            LeakKind::Reachable => [bytes, 0, 0, 0, 0, blocks, 0, 0, 0],
            LeakKind::Possible => [0, bytes, 0, 0, 0, 0, blocks, 0, 0],
            LeakKind::Indirect => [0, 0, bytes, 0, 0, 0, 0, blocks, 0],
            LeakKind::Definite => [0, 0, 0, bytes + indirect_bytes, indirect_bytes, 0, 0, 0, blocks],
        }
    }

    /// All events: how much there is, how much more than before, how much less.
    fn all_costs(&self) -> Vec<u64> {
        let now = self.costs(self.direct.bytes, self.indirect_bytes, self.direct.blocks);
        let more = |amount: i64| amount.max(0).unsigned_abs();
        let less = |amount: i64| amount.min(0).unsigned_abs();
        let changed = |part: &dyn Fn(i64) -> u64| self.change.map(|c| self.costs(part(c.bytes), part(c.indirect_bytes), part(c.blocks)));
        [now, changed(&more).unwrap_or(now), changed(&less).unwrap_or_default()].concat()
    }
}

pub fn tree(losses: Vec<Loss>) -> Tree {
    Tree { events: events(), places: losses.into_iter().map(|loss| Place { costs: loss.all_costs(), stack: loss.stack }).collect() }
}

fn events() -> Vec<(String, String)> {
    let mut events = Vec::new();
    for (letter, change) in [("", ""), ("i", "increase "), ("d", "decrease ")] {
        for (name, text) in EVENTS {
            let text = if change.is_empty() { text } else { text.split(" (").next().unwrap_or(text) };
            events.push((format!("{letter}{name}"), format!("{change}{text}")));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;
    use crate::frame::FrameStyle;
    use crate::frame::testing::{frame, library_frame};
    use crate::render::ProcessStart;

    #[test]
    fn a_record_is_a_chain_of_calls_from_the_outside() {
        let start = ProcessStart { pid: 7, command: vec!["./x".into(), "a".into()], ..ProcessStart::default() };
        let stack = || Stack(vec![library_frame(1, "malloc", "/lib/libc.so.6"), frame(2, "f", "a.c", 6), frame(3, "main", "a.c", 8)]);
        let definite = Loss { kind: LeakKind::Definite, direct: Tally::new(24, 1), indirect_bytes: 6, change: None, stack: stack() };
        let inlined = frame(2, "inlined", "b.h", 3).with(|line| line.inlined = true);
        let one = document(
            &start,
            &tree(vec![Loss {
                kind: LeakKind::Possible,
                direct: Tally::new(1, 1),
                indirect_bytes: 0,
                change: None,
                stack: Stack(vec![inlined, frame(2, "f", "a.c", 6)]),
            }]),
            &FrameStyle::default(),
        );
        assert!(one.contains("fl=(1) /src/b.h\nfn=(1) f\n3 0 1 0"), "{one}");
        let reachable = Loss { kind: LeakKind::Reachable, direct: Tally::new(5, 2), indirect_bytes: 0, change: None, stack: stack() };
        let text = document(&start, &tree(vec![definite, reachable]), &FrameStyle::default());
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

    #[test]
    fn changes_are_groups_of_their_own() {
        let change = |bytes, blocks| Some(Change { bytes, indirect_bytes: 0, blocks });
        let loss = |change| Loss { kind: LeakKind::Possible, direct: Tally::new(5, 2), indirect_bytes: 0, change, stack: Stack::default() };
        let costs = |change| loss(change).all_costs().into_iter().enumerate().filter(|(_, cost)| *cost != 0).collect::<Vec<_>>();
        assert_eq!(costs(None), [(1, 5), (6, 2), (10, 5), (15, 2)]);
        assert_eq!(costs(change(3, -1)), [(1, 5), (6, 2), (10, 3), (24, 1)]);
        assert_eq!(costs(change(0, 0)), [(1, 5), (6, 2)]);
    }
}
