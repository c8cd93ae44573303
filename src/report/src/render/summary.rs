//! The end of a run in text: heap and leak summaries.

use super::HeapSummary;
use crate::leak::{LeakTotals, LeaksBefore, Tally};
use crate::number::{commas, signed_commas};

/// `85 bytes in 5 blocks`; never singular.
pub fn amount(tally: Tally) -> String {
    format!("{} bytes in {} blocks", commas(tally.bytes), commas(tally.blocks))
}

/// Headline and the two lines below it.
pub fn heap(heap: &HeapSummary) -> [String; 3] {
    [
        "HEAP SUMMARY:".to_string(),
        format!("    in use at exit: {}", amount(heap.in_use)),
        format!(
            "  total heap usage: {} allocs, {} frees, {} bytes allocated",
            commas(heap.allocs),
            commas(heap.frees),
            commas(heap.allocated_bytes)
        ),
    ]
}

/// How much was searched, and the empty line after it.
pub fn extent(blocks: u64, bytes: u64) -> [String; 3] {
    let searching = format!("Searching for pointers to {} not-freed blocks", commas(blocks));
    [searching, format!("Checked {} bytes", commas(bytes)), String::new()]
}

/// The table of sums. `before`: a check that reports differences.
pub fn leaks(totals: &LeakTotals, heuristics: &[(&'static str, Tally)], before: Option<&LeaksBefore>) -> Vec<String> {
    let previous = before.map(|before| &before.totals);
    let line = |name: &str, now: Tally, before: Option<Tally>| match before {
        None => format!("{name}: {}", amount(now)),
        Some(before) => format!(
            "{name}: {} ({}) bytes in {} ({}) blocks",
            commas(now.bytes),
            signed_commas(now.bytes as i64 - before.bytes as i64),
            commas(now.blocks),
            signed_commas(now.blocks as i64 - before.blocks as i64)
        ),
    };
    let mut lines = vec![
        "LEAK SUMMARY:".to_string(),
        line("   definitely lost", totals.definite, previous.map(|p| p.definite)),
        line("   indirectly lost", totals.indirect, previous.map(|p| p.indirect)),
        line("     possibly lost", totals.possible, previous.map(|p| p.possible)),
        line("   still reachable", totals.reachable, previous.map(|p| p.reachable)),
    ];
    let known = |name| before.map(|b| b.heuristics.iter().find(|(other, _)| *other == name).map_or(Tally::default(), |known| known.1));
    let rows = heuristics.iter().map(|&(name, tally)| (name, tally, known(name)));
    let fired: Vec<_> = rows.filter(|(_, tally, before)| tally.blocks > 0 || before.is_some_and(|before| before.blocks > 0)).collect();
    if !fired.is_empty() {
        lines.push("                      of which reachable via heuristic:".to_string());
        lines.extend(fired.into_iter().map(|(name, tally, before)| line(&format!("                        {name:<19}"), tally, before)));
    }
    lines.push(line("        suppressed", totals.suppressed, previous.map(|p| p.suppressed)));
    lines
}

pub const ALL_FREED: &str = "All heap blocks were freed -- no leaks are possible";
pub const RERUN_FOR_ANALYSIS: &str = "For a detailed leak analysis, rerun with: --leak-check=full";
pub const RERUN_FOR_DETAILS: &str = "Rerun with --leak-check=full to see details of leaked memory";
pub const ASK_FOR_DETAILS: &str = "To see details of leaked memory, give 'full' arg to leak_check";
pub const REACHABLE_HIDDEN: &str = "Reachable blocks (those to which a pointer was found) are not shown.";
pub const RERUN_FOR_THEM: &str = "To see them, rerun with: --leak-check=full --show-leak-kinds=all";
pub const ASK_FOR_THEM: &str = "To see them, add 'reachable any' args to leak_check";
pub const TRACK_ORIGINS: &str = "Use --track-origins=yes to see where uninitialised values come from";
pub const RERUN_FOR_LISTS: &str = "For lists of detected and suppressed errors, rerun with: -s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_numbers_have_commas() {
        let summary = HeapSummary { in_use: Tally::new(158, 6), allocs: 1006, frees: 0, allocated_bytes: 3158 };
        assert_eq!(
            heap(&summary),
            [
                "HEAP SUMMARY:",
                "    in use at exit: 158 bytes in 6 blocks",
                "  total heap usage: 1,006 allocs, 0 frees, 3,158 bytes allocated",
            ]
        );
    }

    #[test]
    fn leak_table() {
        let totals = LeakTotals { definite: Tally::new(94, 5), indirect: Tally::new(64, 1), ..LeakTotals::default() };
        assert_eq!(
            leaks(&totals, &[("stdstring", Tally::new(35, 1)), ("length64", Tally::default())], None),
            [
                "LEAK SUMMARY:",
                "   definitely lost: 94 bytes in 5 blocks",
                "   indirectly lost: 64 bytes in 1 blocks",
                "     possibly lost: 0 bytes in 0 blocks",
                "   still reachable: 0 bytes in 0 blocks",
                "                      of which reachable via heuristic:",
                "                        stdstring          : 35 bytes in 1 blocks",
                "        suppressed: 0 bytes in 0 blocks",
            ]
        );
        let before = LeakTotals { reachable: Tally::new(20, 1), ..LeakTotals::default() };
        let before = LeaksBefore { totals: before, heuristics: vec![("newarray", Tally::new(9, 1))] };
        let delta = leaks(&totals, &[("newarray", Tally::default()), ("length64", Tally::default())], Some(&before));
        assert_eq!(delta[6], "                        newarray           : 0 (-9) bytes in 0 (-1) blocks");
        assert_eq!(delta[1], "   definitely lost: 94 (+94) bytes in 5 (+5) blocks");
        assert_eq!(delta[4], "   still reachable: 0 (-20) bytes in 0 (-1) blocks");
    }
}
