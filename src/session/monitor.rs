//! Commands that the program gives in words, as one would type them in a debugger (`VALGRIND_MONITOR_COMMAND`).
//!
//! | command | effect |
//! |---|---|
//! | `leak_check [full\|summary] [kinds K\|reachable\|possibleleak\|definiteleak] [heuristics H] [new\|increased\|changed\|any]` | a leak search; it counts no errors |
//! | `v.set merge-recursive-frames N` | as the option |
//! | `v.set log_output`, `mixed_output`, `gdb_output` | an answer; there is no debugger that could get the output |
//!
//! Answers have no prefix and the words of Valgrind 3.19. Deliberately absent: looking at memory (`who_points_at`, `get_vbits`,
//! `block_list`), for which there is the JSON report, and the limits of a list.

use memcheck_abi::event::ExitReport;
use memcheck_report::leak::DeltaMode;
use memcheck_report::options::{self, HeuristicSet, LeakKindSet, Options};
use memcheck_tracer::Process;

use super::leaks::{Check, check_leaks};
use super::watched::Watched;

/// What `v.set` says about the output.
const OUTPUTS: [(&str, &str); 3] = [
    ("log_output", "valgrind output will go to log"),
    ("mixed_output", "valgrind output will go to log, interactive output will go to gdb"),
    ("gdb_output", "valgrind output will go to gdb"),
];

/// Words of `leak_check`, as they are listed after one that is none of them.
const WORDS: &str = "full summary xtleak kinds reachable possibleleak definiteleak heuristics increased changed any unlimited limited ";

/// Execute one; false if there is no such command.
pub fn execute(watched: &mut Watched, process: &Process, report: &ExitReport, text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.split_first() {
        Some((&"leak_check", words)) => {
            let mut wanted = watched.reporter.options().clone();
            match leak_check(&mut wanted, words) {
                Ok(check) => search(watched, process, report, wanted, check),
                Err(complaint) => watched.reporter.answer(&complaint),
            }
            true
        }
        Some((&"v.set", words)) => set(watched, words),
        _ => false,
    }
}

fn search(watched: &mut Watched, process: &Process, report: &ExitReport, wanted: Options, check: Check) {
    let usual = watched.reporter.exchange_options(Some(Box::new(wanted.clone())));
    check_leaks(watched, &wanted, process, None, report, check);
    watched.reporter.exchange_options(usual);
}

/// What is searched for, and which options hold meanwhile.
fn leak_check(options: &mut Options, words: &[&str]) -> Result<Check, String> {
    let mut check = Check { full: true, delta: Some(DeltaMode::Increased), by_command: true };
    (options.show_leak_kinds, options.errors_for_leak_kinds) = (LeakKindSet::DEFAULT, LeakKindSet(0));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "full" => check.full = true,
            "summary" => check.full = false,
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
            "heuristics" => {
                let set = words.next().and_then(|set| options::set_of(HeuristicSet::WORDS, set));
                options.leak_check_heuristics = HeuristicSet(set.ok_or("missing or malformed heuristics set")?);
            }
            "unlimited" => {}
            "limited" => _ = words.next(),
            other => return Err(format!("{other} does not match any of '{WORDS}'")),
        }
    }
    Ok(check)
}

fn set(watched: &mut Watched, words: &[&str]) -> bool {
    let reporter = &mut watched.reporter;
    match words {
        ["merge-recursive-frames", rest @ ..] => {
            let before = reporter.options().merge_recursive_frames;
            match rest.first().and_then(|word| word.parse().ok()) {
                None => reporter.answer("missing or malformed integer value"),
                Some(value) => {
                    let mut options = reporter.options().clone();
                    options.merge_recursive_frames = value;
                    reporter.exchange_options(Some(Box::new(options)));
                    reporter.answer(&format!("merge-recursive-frames value changed from {before} to {value}"));
                }
            }
            true
        }
        [word, ..] => {
            let answer = OUTPUTS.iter().find(|row| row.0 == *word);
            answer.inspect(|row| reporter.answer(row.1));
            answer.is_some()
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Check, Options), String> {
        let mut options = Options::default();
        let words: Vec<&str> = text.split_whitespace().collect();
        leak_check(&mut options, &words).map(|check| (check, options))
    }

    #[test]
    fn words_of_a_leak_check() {
        let (check, options) = parsed("").expect("the usual");
        assert_eq!(check, Check { full: true, delta: Some(DeltaMode::Increased), by_command: true });
        assert_eq!((options.show_leak_kinds, options.errors_for_leak_kinds), (LeakKindSet::DEFAULT, LeakKindSet(0)));
        let (check, options) = parsed("summary any heuristics stdstring,newarray kinds definite,reachable").expect("words");
        assert_eq!((check.full, check.delta), (false, None));
        assert_eq!((options.leak_check_heuristics, options.show_leak_kinds), (HeuristicSet(0b101), LeakKindSet(0b1001)));
        assert_eq!(parsed("heuristics none").expect("none").1.leak_check_heuristics, HeuristicSet(0));
        assert!(parsed("summary foo").is_err_and(|text| text.starts_with("foo does not match any of 'full summary")));
        assert!(parsed("heuristics foo").is_err());
    }
}
