//! What the heap holds, and what went through it, as places of a tree of calls, for `--xtree-memory`.
//!
//! The innermost frame of a stack is the allocation function, which says nothing that the events do not: it is left out.

use super::{Place, Tree};
use crate::frame::Stack;
use crate::options::XtreeMemory;

/// What the numbers are; the first two without what went through.
const EVENTS: [(&str, &str); 6] = [
    ("curB", "currently allocated Bytes"),
    ("curBk", "currently allocated Blocks"),
    ("totB", "total allocated Bytes"),
    ("totBk", "total allocated Blocks"),
    ("totFdB", "total Freed Bytes"),
    ("totFdBk", "total Freed Blocks"),
];

/// One stack of allocations or frees, by its addresses, and its numbers in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub addresses: Vec<u64>,
    pub costs: [u64; 6],
}

/// `named`: the stacks with their names.
pub fn tree(mode: XtreeMemory, named: impl IntoIterator<Item = ([u64; 6], Stack)>) -> Tree {
    let wanted = if mode == XtreeMemory::Full { EVENTS.len() } else { 2 };
    let place = |(costs, stack): ([u64; 6], Stack)| Place { stack: without_innermost(stack), costs: costs[..wanted].to_vec() };
    Tree {
        events: EVENTS[..wanted].iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        places: named.into_iter().map(place).collect(),
    }
}

/// A call that was inlined stands in front of the function whose code it is.
fn without_innermost(mut stack: Stack) -> Stack {
    let first = stack.0.iter().position(|frame| !frame.inlined);
    stack.0.drain(..first.map_or(0, |at| at + 1));
    stack
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;
    use crate::frame::FrameStyle;
    use crate::frame::testing::{frame, library_frame};
    use crate::render::ProcessStart;

    #[test]
    fn the_allocator_is_left_out() {
        let stack = || Stack(vec![library_frame(1, "malloc", "/lib/libc.so.6"), frame(2, "f", "a.c", 3), frame(3, "main", "a.c", 9)]);
        let start = ProcessStart { pid: 7, command: vec!["./x".into()], ..ProcessStart::default() };
        let text = document(&start, &tree(XtreeMemory::Full, [([5, 1, 7, 2, 2, 1], stack())]), &FrameStyle::default());
        let head = "event: totFdBk : total Freed Blocks\nevents: curB  curBk  totB  totBk  totFdB  totFdBk \n";
        let body = "fl=(1) /src/a.c\nfn=(1) main\n9\ncfi=(1)\ncfn=(2) f\ncalls=0 3\n9 5 1 7 2 2 1\nfl=(1)\nfn=(2)\n3 5 1 7 2 2 1\n\n";
        assert!(text.ends_with(&format!("{head}{body}totals: 5 1 7 2 2 1\n")), "{text}");
        let few = document(&start, &tree(XtreeMemory::Allocs, [([5, 1, 7, 2, 2, 1], stack())]), &FrameStyle::default());
        assert!(few.contains("events: curB  curBk \n") && few.ends_with("totals: 5 1\n"), "{few}");
    }
}
