//! Leak searches by command, their blocks, and the heap as a tree of calls.
//!
//! ```text
//! block_list 7
//! 128 (16 direct, 112 indirect) bytes in 1 blocks are definitely lost in loss record 7 of 7
//!    at 0x48417B4: malloc (in …)
//! 0x4A47040[16]                                a block of the record
//!   0x4A47090[16] indirect loss record 1       what it leads to, and that in turn
//!     0x4A47140[32] indirect loss record 4
//! ```

use memcheck_leak::Kind;
use memcheck_report::leak::DeltaMode;
use memcheck_report::options::{self, HeuristicSet, LeakKindSet, Options, XtreeMemory};
use memcheck_tracer::Process;

use super::words::{choose, integer};
use super::{Step, Talk};
use crate::session::leaks::{Check, LastSearch, check_leaks};
use crate::session::stacks::Namer;
use crate::session::trees;

/// Words of `leak_check`.
const WORDS: &str = "full summary xtleak kinds reachable possibleleak definiteleak heuristics increased changed any unlimited limited ";

pub fn leak_check(talk: &mut Talk, words: &[&str]) -> Step {
    let mut wanted = talk.watched.reporter.options().clone();
    let step = read_check(&mut wanted, words).map(|check| {
        let usual = talk.watched.reporter.exchange_options(Some(Box::new(wanted.clone())));
        check_leaks(talk.watched, &wanted, talk.process, None, talk.report, check);
        talk.watched.reporter.exchange_options(usual);
        Step::Done
    });
    talk.complain(step)
}

const NO_INTEGER: &str = "missing or malformed integer value";

/// What is searched for, and which options hold meanwhile.
fn read_check(options: &mut Options, words: &[&str]) -> Result<Check, String> {
    let mut check = Check { full: true, delta: Some(DeltaMode::Increased), by_command: true, ..Check::default() };
    (options.show_leak_kinds, options.errors_for_leak_kinds) = (LeakKindSet::DEFAULT, LeakKindSet(0));
    options.leak_check_heuristics = HeuristicSet(0);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // Not among Valgrind's words, but what the client request can ask for.
        let word = if *word == "new" { "new" } else { choose(WORDS, word)? };
        match word {
            "full" => check.full = true,
            "summary" => check.full = false,
            "xtleak" => {
                (check.full, check.tree) = (true, true);
                options.xtree_leak_file = "xtleak.kcg.%p.%n".to_owned();
            }
            "any" => check.delta = None,
            "increased" => check.delta = Some(DeltaMode::Increased),
            "changed" => check.delta = Some(DeltaMode::Changed),
            "new" => check.delta = Some(DeltaMode::New),
            "reachable" => options.show_leak_kinds = LeakKindSet::ALL,
            "possibleleak" => options.show_leak_kinds = LeakKindSet::DEFAULT,
            "definiteleak" => options.show_leak_kinds = LeakKindSet(1),
            "kinds" => {
                let set = words.next().and_then(|set| options::set_of(LeakKindSet::WORDS, set));
                options.show_leak_kinds = LeakKindSet(set.ok_or("missing or malformed leak kinds set")?);
            }
            "heuristics" => options.leak_check_heuristics = heuristics(words.next())?,
            "limited" => check.most = Some(limit(words.next(), "max_loss_records_output", NO_INTEGER)?),
            _ => check.most = None,
        }
    }
    Ok(check)
}

fn heuristics(word: Option<&&str>) -> Result<HeuristicSet, String> {
    let set = word.and_then(|set| options::set_of(HeuristicSet::WORDS, set));
    Ok(HeuristicSet(set.ok_or("missing or malformed heuristics set")?))
}

fn limit(word: Option<&&str>, name: &str, missing: &str) -> Result<usize, String> {
    match integer(word.ok_or(missing)?).ok_or(missing)? {
        0 => Err(format!("{name} must be >= 1, got 0")),
        most => Ok(most as usize),
    }
}

/// Which blocks are listed.
#[derive(PartialEq, Eq, Debug)]
struct List {
    /// Numbers of records, from 1.
    records: std::ops::RangeInclusive<u64>,
    most: usize,
    /// Only blocks that are found by these.
    heuristics: Option<HeuristicSet>,
}

pub fn block_list(talk: &mut Talk, words: &[&str]) -> Step {
    let step = read_list(words).and_then(|list| {
        let Some(search) = talk.watched.last_search.take() else {
            talk.watched.reporter.message(&["Can't print block list : no valid leak search result"]);
            return Err("invalid loss record nr".to_owned());
        };
        let shown = show_blocks(talk, &search, &list);
        talk.watched.last_search = Some(search);
        if shown { Ok(Step::Done) } else { Err("invalid loss record nr".to_owned()) }
    });
    talk.complain(step)
}

fn read_list(words: &[&str]) -> Result<List, String> {
    let (first, rest) = words.split_first().ok_or("expecting integer or slice <from>..<to>")?;
    let (from, to) = first.split_once("..").unwrap_or((first, first));
    let number = |word: &str| if word.is_empty() { Some(0) } else { integer(word) };
    let (from, to) = number(from).zip(number(to)).ok_or("invalid integer or slice <from>..<to>")?;
    if from > to {
        return Err("<from> cannot be bigger than <to> in slice <from>..<to>".to_owned());
    }
    let mut list = List { records: from..=to, most: usize::MAX, heuristics: None };
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match choose("unlimited limited heuristics ", word)? {
            "unlimited" => list.most = usize::MAX,
            "limited" => list.most = limit(rest.next(), "max_blocks", "missing integer value")?,
            _ => list.heuristics = Some(heuristics(rest.next())?),
        }
    }
    Ok(list)
}

/// False if there is no such record.
fn show_blocks(talk: &mut Talk, search: &LastSearch, list: &List) -> bool {
    let (mut left, mut any) = (list.most, false);
    let clique = Clique { process: talk.process, search };
    for (number, record) in (1..).zip(&search.records).filter(|(number, _)| list.records.contains(number)) {
        any = true;
        if left == 0 {
            break;
        }
        let stack = talk.watched.stack(talk.process, &record.addresses);
        talk.watched.reporter.message(&[record.headline(number as usize, search.records.len())]);
        talk.watched.reporter.backtrace(stack);
        let mut lines = Vec::new();
        for block in 0..search.blocks.len() {
            if u64::from(search.of_block[block]) + 1 == number && is_wanted(search, block, list.heuristics) {
                clique.lines(block, left, &mut lines);
            }
            if lines.len() >= left {
                break;
            }
        }
        left -= lines.len();
        talk.watched.reporter.message(&lines);
    }
    any
}

fn is_wanted(search: &LastSearch, block: usize, heuristics: Option<HeuristicSet>) -> bool {
    let by = search.states[block].heuristic;
    heuristics.is_none_or(|wanted| by.is_some_and(|by| wanted.contains(by.name())))
}

/// A lost block and what it leads to.
struct Clique<'a> {
    process: &'a Process,
    search: &'a LastSearch,
}

impl Clique<'_> {
    /// Up to `most` lines in all.
    fn lines(&self, block: usize, most: usize, lines: &mut Vec<String>) {
        let mut told = vec![block];
        let mut open = vec![(block, 0)];
        while let Some((block, depth)) = open.pop() {
            if lines.len() >= most {
                return;
            }
            lines.push(self.line(block, depth));
            if matches!(self.search.states[block].kind, Kind::Definite | Kind::Indirect) {
                let next: Vec<usize> = self.targets(block).into_iter().filter(|target| !told.contains(target)).collect();
                told.extend(&next);
                open.extend(next.into_iter().rev().map(|target| (target, depth + 1)));
            }
        }
    }

    fn line(&self, block: usize, depth: usize) -> String {
        let known = &self.search.blocks[block];
        let about = if depth > 0 { format!(" indirect loss record {}", self.search.of_block[block] + 1) } else { String::new() };
        format!("{:width$}0x{:X}[{}]{about}", "", known.addr, known.size, width = 2 * depth)
    }

    /// Blocks of the same clique that this one points to, each once.
    fn targets(&self, block: usize) -> Vec<usize> {
        let LastSearch { blocks, states, .. } = self.search;
        let mut targets = Vec::new();
        for word in self.process.memory().values::<u64>(blocks[block].addr, (blocks[block].size / 8) as usize) {
            let Some(at) = blocks.partition_point(|known| known.addr <= word).checked_sub(1) else { continue };
            let is_inside = word - blocks[at].addr < blocks[at].size.max(1);
            if is_inside && at != block && states[at].kind == Kind::Indirect && !targets.contains(&at) {
                targets.push(at);
            }
        }
        targets
    }
}

pub fn xtmemory(talk: &mut Talk, words: &[&str]) -> Step {
    let file = words.first().unwrap_or(&"xtmemory.kcg.%p.%n");
    let full = talk.watched.reporter.options().xtree_memory == XtreeMemory::Full;
    let uses = trees::uses(talk.process, talk.report, full);
    talk.watched.reporter.memory_tree(file, uses, &mut Namer::new(&mut talk.watched.modules, talk.process));
    Step::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Check, Options), String> {
        let mut options = Options::default();
        let words: Vec<&str> = text.split_whitespace().collect();
        read_check(&mut options, &words).map(|check| (check, options))
    }

    #[test]
    fn words_of_a_leak_check() {
        let (check, options) = parsed("").expect("the usual");
        assert_eq!(check, Check { full: true, delta: Some(DeltaMode::Increased), by_command: true, ..Check::default() });
        assert_eq!((options.show_leak_kinds, options.errors_for_leak_kinds), (LeakKindSet::DEFAULT, LeakKindSet(0)));
        assert_eq!(options.leak_check_heuristics, HeuristicSet(0), "whatever the option says");
        let (check, options) = parsed("summary any heuristics stdstring,newarray kinds definite,reachable").expect("words");
        assert_eq!((check.full, check.delta), (false, None));
        assert_eq!((options.leak_check_heuristics, options.show_leak_kinds), (HeuristicSet(0b101), LeakKindSet(0b1001)));
        assert_eq!(parsed("heuristics none").expect("none").1.leak_check_heuristics, HeuristicSet(0));
        assert_eq!(parsed("limited 5 s a").expect("shortened").0, Check { most: Some(5), by_command: true, ..Check::default() });
        assert!(parsed("xtleak").expect("a tree").0.tree);
        assert!(parsed("summary foo").is_err_and(|text| text.starts_with("foo does not match any of 'full summary")));
        assert!(parsed("heuristics foo").is_err());
        assert_eq!(parsed("limited 0").unwrap_err(), "max_loss_records_output must be >= 1, got 0");
    }

    #[test]
    fn words_of_a_block_list() {
        let read = |text: &str| read_list(&text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(read("3"), Ok(List { records: 3..=3, most: usize::MAX, heuristics: None }));
        assert_eq!(read("1..4 lim 2 heur all"), Ok(List { records: 1..=4, most: 2, heuristics: Some(HeuristicSet::ALL) }));
        for (text, complaint) in [
            ("", "expecting integer or slice <from>..<to>"),
            ("foo", "invalid integer or slice <from>..<to>"),
            ("-1", "invalid integer or slice <from>..<to>"),
            ("2..", "<from> cannot be bigger than <to> in slice <from>..<to>"),
            ("2 limited", "missing integer value"),
            ("2 limited 0", "max_blocks must be >= 1, got 0"),
            ("2 foo", "foo does not match any of 'unlimited limited heuristics '"),
        ] {
            assert_eq!(read(text), Err(complaint.to_owned()), "{text}");
        }
    }
}
