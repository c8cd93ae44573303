//! What the tracer tells the session: each call in a few words, the work is elsewhere.

use std::ffi::OsString;
use std::path::Path;

use memcheck_abi::config::Config;
use memcheck_abi::errand::{Exchange, asked};
use memcheck_abi::event::{ErrorEvent, ExitReport, FOR_DEBUGGER, Redirect, Repeat};
use memcheck_abi::replace::Func;
use memcheck_report::Reporter;
use memcheck_report::number::commas;
use memcheck_report::render::warning as warnings;
use memcheck_report::reporter::Outcome;
use memcheck_report::suppress::pattern;
use memcheck_tracer::{Command, Ending, Farewell, FatalSignal, Handler, Process, ThreadInfo, Warning};

use super::exit::{INTERNAL_FAILURE, Verdict};
use super::monitor::Step;
use super::{Session, Watched, configure, descriptors, gdb, monitor, requests, stacks, texts};

/// No program has more ranges that it wants ignored.
const MAX_RANGES: u64 = 1 << 20;
/// No run counts further: the reporter stops at ten million.
const MAX_COUNT: u64 = 10_000_001;

impl Session {
    /// The last words about a process that memcheck ends.
    fn end_with(&mut self, process: &Process, messages: &[&[&str]]) {
        let pid = process.pid();
        let Some(watched) = self.of(process) else { return };
        watched.concluded = true;
        messages.iter().for_each(|lines| watched.reporter.message(lines));
        watched.reporter.finish();
        self.codes.insert(pid, Verdict::Stopped(INTERNAL_FAILURE));
    }

    fn of(&mut self, process: &Process) -> Option<&mut Watched> {
        self.watched.get_mut(&process.pid())
    }

    pub(super) fn count_repeats(&mut self, process: &Process, repeats: &[Repeat]) {
        let Some(watched) = self.of(process) else { return };
        // Their order says which is the most recent. The runtime's table has none, so: the order of the first occurrences.
        let mut repeats: Vec<&Repeat> = repeats.iter().collect();
        repeats.sort_by_key(|repeat| repeat.serial);
        for repeat in repeats {
            let index = (repeat.serial as usize).wrapping_sub(1);
            let Some(known) = watched.known.get(index).cloned() else { continue };
            for _ in 0..repeat.count.min(MAX_COUNT) {
                watched.reporter.repeat(&known.kind, &known.addresses);
            }
        }
    }

    /// Shall a program that is about to be executed be checked, too?
    fn follows(&self, path: &Path, arguments: &[OsString]) -> bool {
        let options = self.options();
        let path = path.to_string_lossy();
        let by_path = options.trace_children_skip.iter().any(|glob| pattern::matches(glob, &path));
        let matches_argument = |glob: &String| arguments.iter().any(|word| pattern::matches(glob, &word.to_string_lossy()));
        options.trace_children && !by_path && !options.trace_children_skip_by_arg.iter().any(matches_argument)
    }
}

impl Handler for Session {
    fn configure(&mut self, process: &Process, config: &mut Config) {
        configure::configure(&self.output.options, config);
        if let Some(watched) = self.of(process) {
            watched.stack_limit = config.stack_limit;
        }
    }

    fn ready(&mut self, process: &Process) {
        if let Some(watched) = self.of(process) {
            watched.begin(process);
        }
    }

    fn mapped(&mut self, process: &Process, start: u64, end: u64) -> Vec<Redirect> {
        let Some(watched) = self.watched.get_mut(&process.pid()) else { return Vec::new() };
        let mut redirects = watched.modules.mapped(process, start, end, &self.wanted);
        if let Some((soname, symbol)) = watched.modules.missing.take() {
            warnings::missing_symbol(&soname, &symbol).iter().for_each(|line| watched.reporter.answer(line));
            watched.concluded = true;
            self.kill(process.pid(), 1);
            return Vec::new();
        }
        if let Some(sanitizer) = watched.modules.sanitizer.take() {
            watched.reporter.message(&warnings::sanitizer(sanitizer.name, sanitizer.option));
        }
        redirects.retain(|redirect| requests::is_wanted(redirect, &self.output.options));
        redirects
    }

    fn unmapped(&mut self, process: &Process, start: u64, end: u64) {
        if let Some(watched) = self.of(process) {
            watched.modules.unmapped(process, start, end);
        }
    }

    fn error(&mut self, process: &Process, thread: &ThreadInfo, error: &ErrorEvent) -> u64 {
        let (serial, outcome) = self.report_error(process, thread, error);
        if outcome == Some(Outcome::ShownAndExit) {
            self.stop(process.pid());
        }
        let stands = outcome == Some(Outcome::Shown) && self.of(process).is_some_and(|watched| watched.wants_debugger());
        serial | if stands { FOR_DEBUGGER } else { 0 }
    }

    fn repeats(&mut self, process: &Process, repeats: &[Repeat]) {
        self.count_repeats(process, repeats);
    }

    fn error_count(&mut self, process: &Process) -> u64 {
        self.of(process).map_or(0, |watched| watched.reporter.error_count())
    }

    fn exiting(&mut self, process: &Process, thread: &ThreadInfo, ending: Ending, report: &ExitReport) -> Option<i32> {
        if self.of(process).is_none_or(|watched| std::mem::replace(&mut watched.concluded, true)) {
            return None;
        }
        self.count_repeats(process, &memcheck_tracer::traps::repeats(process, report));
        if let Some(watched) = self.of(process) {
            descriptors::report(watched, process, report, true);
            let lines = ignored_ranges(process, report, &watched.reporter.options().ignore_ranges);
            watched.reporter.warn_at_end(lines);
        }
        self.report_heap(process, thread, report);
        if let Some(watched) = self.of(process) {
            let tell = if watched.reporter.options().stats { Reporter::trace } else { Reporter::debug };
            statistics(report).iter().for_each(|line| tell(&watched.reporter, line));
        }
        self.conclude(process.pid(), ending);
        match self.codes.get(&process.pid()) {
            Some(Verdict::Exited(status)) => Some(*status),
            _ => None,
        }
    }

    fn fatal_signal(&mut self, process: &Process, thread: &ThreadInfo, signal: &FatalSignal) {
        self.report_fatal_signal(process, thread, signal);
    }

    fn outlived(&mut self, pid: i32, ending: Ending) -> Farewell {
        self.status(pid, ending).into()
    }

    fn process_ended(&mut self, pid: i32, ending: Ending) {
        let stopped = matches!(self.codes.get(&pid), Some(Verdict::Stopped(_)));
        if self.watched.get(&pid).is_some_and(|watched| !watched.concluded && !stopped) {
            self.conclude(pid, ending);
        }
        if let Some(mut gdb) = self.watched.remove(&pid).and_then(|watched| watched.gdb) {
            gdb.ended(ending);
        }
    }

    fn print(&mut self, process: &Process, thread: &ThreadInfo, text: &[u8], backtrace: bool) {
        let callers = self.output.options.num_callers;
        let Some(watched) = self.of(process) else { return };
        let stack = backtrace.then(|| stacks::of_thread(process, thread, &thread.regs, callers));
        let stack = stack.map(|addresses| watched.stack(process, &addresses));
        let name = watched.thread_name(process, thread.tid);
        watched.reporter.client_print(thread.number, name.as_deref(), &String::from_utf8_lossy(text), stack);
    }

    fn leak_check(&mut self, process: &Process, mode: u64, report: &ExitReport) {
        self.report_leaks_now(process, mode, report);
    }

    fn command(&mut self, process: &Process, thread: &ThreadInfo, asked: u64, text: &str, exchange: &Exchange) -> Command {
        let Some(watched) = self.of(process) else { return Command::Unknown };
        let step = match asked {
            asked::OPTION => {
                watched.reporter.change_option(text.trim());
                Step::Done
            }
            asked::DEBUGGER => gdb::converse(watched, process, thread, exchange),
            _ => monitor::execute(watched, process, thread, exchange, text),
        };
        match step {
            Step::Unknown => Command::Unknown,
            Step::Done => Command::Understood,
            Step::Errands(errands) => Command::Errands(errands),
            Step::Kill => {
                watched.concluded = true;
                self.kill(process.pid(), 0);
                Command::Understood
            }
        }
    }

    fn leak_counts(&mut self, process: &Process, blocks: bool) -> [u64; 4] {
        self.of(process).map_or([0; 4], |watched| watched.leak_counts(blocks))
    }

    fn source_line(&mut self, process: &Process, addr: u64) -> Option<String> {
        let watched = self.of(process)?;
        watched.modules.read(process);
        watched.source_line(addr)
    }

    fn internal(&mut self, process: &Process, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        let first = format!("memcheck: internal error: {}", lines.first().unwrap_or(&"?"));
        let blame = [&first, "This is a fault of memcheck, not of the program, which is ended here."];
        self.end_with(process, &[&blame, lines.get(1..).unwrap_or_default()]);
    }

    fn refused(&mut self, process: &Process, text: &str) {
        self.end_with(process, &[&[&format!("memcheck cannot run this program: {text}")]]);
    }

    fn traced(&mut self, process: &Process, func: Func, arguments: [u64; 2], block: u64) {
        if let Some(watched) = self.of(process) {
            watched.reporter.trace(&requests::traced_call(func, arguments, block));
        }
    }

    fn warning(&mut self, process: &Process, warning: &Warning) {
        let Some(watched) = self.of(process) else { return };
        let reporter = &watched.reporter;
        match warning {
            Warning::Descriptor { number, call } => reporter.remark(&[warnings::invalid_descriptor(*number, call)]),
            Warning::Uncatchable { signal } => reporter.remark(&warnings::uncatchable_signal(*signal)),
            Warning::NoSignal { signal } => reporter.remark(&[warnings::no_signal(*signal)]),
            Warning::Ioctl { request } => reporter.message(&warnings::unhandled_ioctl(*request)),
            Warning::ReportingOff => reporter.message(&warnings::REPORTING_OFF),
        }
    }

    fn note(&mut self, process: &Process, text: &str) {
        if let Some(watched) = self.of(process) {
            text.lines().for_each(|line| watched.reporter.debug(line));
        }
    }

    fn forked(&mut self, parent: &Process, child: &Process) {
        let Some(watched) = self.watched.get(&parent.pid()) else { return };
        let copy = watched.fork(child, &self.output.options);
        self.watched.insert(child.pid(), copy);
    }

    fn exec_started(&mut self, process: &Process, path: &Path, arguments: &[OsString]) -> bool {
        let follows = self.follows(path, arguments);
        if let Some(watched) = self.of(process) {
            watched.next_command = Some(texts(arguments.iter().map(OsString::as_os_str)));
        }
        follows
    }

    fn exec_failed(&mut self, process: &Process) {
        if let Some(watched) = self.of(process) {
            watched.next_command = None;
        }
    }

    fn exec_done(&mut self, process: &Process, followed: bool) {
        let Some(watched) = self.watched.remove(&process.pid()) else { return };
        self.codes.remove(&process.pid());
        if followed {
            let reporter = watched.reporter.exec(watched.next_command.unwrap_or_default());
            self.watched.insert(process.pid(), Watched::new(reporter, &self.output.options));
        }
    }
}

/// Where the program wants to hear of no invalid access, if it ends without having taken that back. `by_user`: the same from the options.
fn ignored_ranges(process: &Process, report: &ExitReport, by_user: &[(u64, u64)]) -> Vec<String> {
    let by_program: Vec<u64> = process.memory().values(report.ignored, (report.ignored_count.min(MAX_RANGES) * 2) as usize);
    let by_program: Vec<(u64, u64)> = by_program.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let by_user: Vec<(u64, u64)> = by_user.iter().map(|&(first, last)| (first, last.saturating_add(1))).collect();
    warnings::ignored_ranges(&by_program, &by_user)
}

/// For `-v`: how much of the run had undefined data in registers.
pub(super) fn statistics(report: &ExitReport) -> [String; 2] {
    let renewed = match report.renewals {
        0 => String::new(),
        n => format!("; the code cache was begun anew {} times", commas(n)),
    };
    let [regions, dirty, entered] = [report.regions, report.dirty_regions, report.dirty_entered].map(commas);
    let [rules, without_row] = [report.dirty_rules, report.dirty_without_row].map(commas);
    [
        format!("code: {regions} blocks translated, {dirty} of them for undefined data, which was met {entered} times{renewed}"),
        format!("undefined data: {rules} instructions were left to the runtime, {without_row} of them without a rule of their own"),
    ]
}
