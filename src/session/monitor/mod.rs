//! Commands that the program gives in words, as one would type them in a debugger (`VALGRIND_MONITOR_COMMAND`).
//!
//! | command | in |
//! |---|---|
//! | `help`, `v.info`, `v.set`, `v.clo`, `v.wait`, `v.kill` | [`info`] |
//! | `xb`, `get_vbits`, `make_memory`, `check_memory`, `v.info location` | [`memory`] |
//! | `who_points_at` | [`pointers`] |
//! | `leak_check`, `block_list`, `xtmemory` | [`leaks`] |
//!
//! Words may be shortened ([`words`]). Answers have no prefix and the words of Valgrind 3.19; what would be in the log there has one. What only
//! the runtime knows, a command asks it for: it is executed twice, first to say what it needs, then with that.
//!
//! Deliberately absent: whatever looks at the inside of Valgrind (translations, its own memory, its debug log).

mod help;
mod info;
mod leaks;
mod memory;
mod pointers;
mod words;

use memcheck_abi::context::RSP;
use memcheck_abi::errand::{Errand, Exchange};
use memcheck_abi::event::ExitReport;
use memcheck_report::address::Address;
use memcheck_tracer::{Process, ThreadInfo};

use super::describe;
use super::watched::Watched;
use words::Found;

/// What became of a command.
pub enum Step {
    Unknown,
    Done,
    /// Do this and execute it again.
    Errands(Vec<Errand>),
    /// The process is to end.
    Kill,
}

/// The thread that gives a command, and what is known then.
struct Talk<'a> {
    watched: &'a mut Watched,
    process: &'a Process,
    thread: &'a ThreadInfo,
    report: &'a ExitReport,
    /// Errands that were done.
    done: Option<Vec<Errand>>,
    /// How many can be.
    most: usize,
}

type Run = fn(&mut Talk, &[&str]) -> Step;

/// In the order in which they are listed after a word that several begin with.
const GENERAL: &[(&str, Run)] = &[
    ("help", info::help_general),
    ("v.set", info::set),
    ("v.info", info::info),
    ("v.wait", info::wait),
    ("v.kill", info::kill),
    ("v.translate", info::of_the_inside),
    ("v.do", info::act),
    ("v.clo", info::options),
];

const MEMORY: &[(&str, Run)] = &[
    ("help", info::help_memory),
    ("get_vbits", memory::get_vbits),
    ("leak_check", leaks::leak_check),
    ("make_memory", memory::make_memory),
    ("check_memory", memory::check_memory),
    ("block_list", leaks::block_list),
    ("who_points_at", pointers::who_points_at),
    ("xb", memory::xb),
    ("xtmemory", leaks::xtmemory),
];

/// Execute one.
pub fn execute(watched: &mut Watched, process: &Process, thread: &ThreadInfo, exchange: &Exchange, text: &str) -> Step {
    let all: Vec<&str> = text.split_whitespace().collect();
    let (first, rest) = all.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let most = exchange.capacity as usize;
    let done = (exchange.done != 0).then(|| process.memory().values(exchange.errands, exchange.count.min(exchange.capacity) as usize));
    let mut talk = Talk { watched, process, thread, report: &exchange.report, done, most };
    let mut step = Step::Unknown;
    for group in [GENERAL, MEMORY] {
        let names: Vec<&str> = group.iter().map(|(name, _)| *name).collect();
        let names = names.join(" ");
        match words::find(&names, first) {
            Found::None => {}
            Found::Several => {
                talk.say(&words::several(&names, first));
                step = Step::Done;
            }
            Found::One(name) => {
                if let Some((_, run)) = group.iter().find(|(known, _)| *known == name) {
                    step = run(&mut talk, rest);
                }
                // Both groups have something to say about themselves.
                if name != "help" {
                    return step;
                }
            }
        }
    }
    step
}

impl Talk<'_> {
    /// A line as the debugger would show it.
    fn say(&self, line: &str) {
        self.watched.reporter.answer(line);
    }

    /// The complaint about a word is all there is to say.
    fn complain(&self, complaint: Result<Step, String>) -> Step {
        complaint.unwrap_or_else(|text| {
            self.say(&text);
            Step::Done
        })
    }

    /// What the runtime said an address is, for the log.
    fn describe(&mut self, found: &Errand) {
        let options = self.watched.reporter.options().clone();
        let event = found.event(self.thread.regs.gpr[RSP], self.thread.regs.rip);
        let address: Address = describe::address(self.watched, &options, self.process, self.thread, &event);
        self.watched.reporter.describe(&address.aux(found.addr));
    }
}
