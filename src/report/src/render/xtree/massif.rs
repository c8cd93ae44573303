//! A tree of calls in the format of massif, which `ms_print` reads: one snapshot for each event, from the innermost function outwards.
//!
//! ```text
//! n2: 540 curB : currently allocated Bytes      two callees below, this many in all
//!  n1: 535 0x109180: f (x.c:3)
//!   n0: 535 0x1091D2: main (x.c:7)
//!  n0: 5 0x109240: main (x.c:9)
//! ```
//! Callees of one caller come by their cost, the largest first.

use std::fmt::Write;
use std::time::Duration;

use super::{Call, Tree, calls};
use crate::frame::FrameStyle;
use crate::render::ProcessStart;

/// A code address below its callers' ones.
struct Node {
    addr: u64,
    text: String,
    costs: Vec<u64>,
    callers: Vec<Node>,
}

/// The whole file; `elapsed` is the time of all snapshots.
pub fn document(start: &ProcessStart, tree: &Tree, elapsed: Duration, style: &FrameStyle) -> String {
    let mut out = format!("desc: xtree.produce_report\ncmd: {}\ntime_unit: ms\n", start.command.join(" "));
    let mut roots = roots(tree, style);
    for (event, ((name, text), total)) in tree.events.iter().zip(tree.totals()).enumerate() {
        let time = elapsed.as_millis();
        let _ = writeln!(out, "#-----------\nsnapshot={event}\n#-----------\ntime={time}\nmem_heap_B={total}");
        let _ = writeln!(out, "mem_heap_extra_B=0\nmem_stacks_B=0\nheap_tree=detailed");
        let _ = writeln!(out, "n{}: {total} {name} : {text}", roots.len());
        write(&mut out, &mut roots, event, 1);
    }
    out
}

fn write(out: &mut String, nodes: &mut [Node], event: usize, depth: usize) {
    nodes.sort_by_key(|node| (std::cmp::Reverse(node.costs[event]), node.addr));
    for node in nodes {
        let _ = writeln!(out, "{:depth$}n{}: {} 0x{:X}: {}", "", node.callers.len(), node.costs[event], node.addr, node.text);
        write(out, &mut node.callers, event, depth + 1);
    }
}

/// Places whose innermost calls are the same, together.
fn roots(tree: &Tree, style: &FrameStyle) -> Vec<Node> {
    let mut places: Vec<(Vec<Call>, &[u64])> = tree.places.iter().map(|place| (calls(&place.stack, style), &place.costs[..])).collect();
    places.sort_by_cached_key(|(calls, _)| calls.iter().map(Call::addr).collect::<Vec<u64>>());
    let mut roots = Vec::new();
    for (calls, costs) in places {
        let mut level: &mut Vec<Node> = &mut roots;
        for call in calls {
            // Equal addresses come one after the other.
            if level.last().is_none_or(|last| last.addr != call.addr()) {
                level.push(Node { addr: call.addr(), text: describe(&call, style), costs: vec![0; costs.len()], callers: Vec::new() });
            }
            let Some(node) = level.last_mut() else { break };
            node.costs.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost);
            level = &mut node.callers;
        }
    }
    roots
}

/// The function whose code it is, and where in the source.
fn describe(call: &Call, style: &FrameStyle) -> String {
    let Call { place, code } = *call;
    style.describe(&code.clone().with(|line| (line.file, line.dir, line.line) = (place.file.clone(), place.dir.clone(), place.line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Stack;
    use crate::frame::testing::{frame, library_frame};
    use crate::options::XtreeMemory;
    use crate::render::xtree::memory;

    #[test]
    fn callers_hang_below_whom_they_call() {
        let malloc = || library_frame(1, "malloc", "/lib/libc.so.6");
        let (f, main) = (frame(2, "f", "a.c", 3), frame(3, "main", "a.c", 9));
        let through_f = |at| Stack(vec![malloc(), f.clone(), main.clone().with(|line| line.addr = at)]);
        let direct = Stack(vec![malloc(), main.clone().with(|line| line.addr = 5)]);
        let uses = [([4, 1, 0, 0, 0, 0], direct), ([6, 2, 0, 0, 0, 0], through_f(3)), ([7, 1, 0, 0, 0, 0], through_f(4))];
        let start = ProcessStart { pid: 7, command: vec!["./x".into(), "a".into()], ..ProcessStart::default() };
        let tree = memory::tree(XtreeMemory::Allocs, uses);
        let text = document(&start, &tree, Duration::from_millis(12), &FrameStyle::default());
        let first = "desc: xtree.produce_report\ncmd: ./x a\ntime_unit: ms\n#-----------\nsnapshot=0\n#-----------\ntime=12\nmem_heap_B=17\n\
                     mem_heap_extra_B=0\nmem_stacks_B=0\nheap_tree=detailed\nn2: 17 curB : currently allocated Bytes\n";
        let nodes = " n2: 13 0x2: f (a.c:3)\n  n0: 7 0x4: main (a.c:9)\n  n0: 6 0x3: main (a.c:9)\n n0: 4 0x5: main (a.c:9)\n";
        assert!(text.starts_with(&format!("{first}{nodes}#---")), "{text}");
        assert!(
            text.ends_with(" n2: 3 0x2: f (a.c:3)\n  n0: 2 0x3: main (a.c:9)\n  n0: 1 0x4: main (a.c:9)\n n0: 1 0x5: main (a.c:9)\n"),
            "{text}"
        );
    }
}
