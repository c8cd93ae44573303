//! The facade the session talks to: one [`Reporter`] per traced process.
//!
//! ```text
//! RunOutput::new(options, …)            once
//!   .process(pid, parent, command)  ──► Reporter: banner is out, rules are loaded
//!        .repeat(kind, addresses)       cheap: only counts
//!        .error(record)                 counts, suppresses, prints
//!        .fork(pid) / .exec(command)    a Reporter for the child / for the new program
//!        .fatal_signal(..)  .heap_summary(..)  .leaks(..)  .finish()
//!   .close()                            once, however the run ends
//! ```
//!
//! A forked child goes on with its parent's counts, findings and rule counters, as the child's memory goes on with its
//! parent's; with `%p` in a name it writes to its own file, which then begins with a banner. After exec everything starts
//! anew, but into the same places.
//!
//! Which line appears when is decided here and nowhere else; how it reads is the renderers' business.

mod ask;
mod end;
mod run;
mod trees;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

pub use run::{Outputs, RunOutput};

use crate::dedup::{Ledger, Notice, Verdict};
use crate::error::{Aux, ErrorKind, ErrorRecord};
use crate::frame::{Stack, without_recursion};
use crate::leak::LeaksBefore;
use crate::options::{self, GenSuppressions, Options, ReportFormat, UsageError};
use crate::render::details::Teller;
use crate::render::text::{self, Burst};
use crate::render::{FatalSignal, ProcessStart, github, json, sarif, xml};
use crate::sink::Sink;
use crate::suppress::Suppressions;
use crate::suppress::generate::{Generated, generate};
use crate::terminal::Terminal;

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Shown,
    Repeated,
    Suppressed,
    /// Too many before it.
    Dropped,
    /// Shown, and the user wants the program ended now, with [`Reporter::exit_code`].
    ShownAndExit,
}

/// Reports of one process.
pub struct Reporter {
    run: Rc<RunOutput>,
    start: ProcessStart,
    outputs: Outputs,
    ledger: Ledger,
    rules: Suppressions,
    /// Findings with smaller identifiers were inherited: another process reports them.
    first_own: u64,
    /// Thread of the finding before.
    last_thread: u32,
    /// The program's own text did not end with a line end.
    open_line: Cell<bool>,
    /// A child that must not be heard until it calls exec.
    silent: bool,
    /// The user said "never ask again".
    asks: bool,
    leaks_before: LeaksBefore,
    /// Options as the program has changed them for itself.
    changed: Option<Box<Options>>,
    /// A section of the end was printed: the next one follows without an empty line of its own.
    ending: bool,
    /// What is said before the sums of the end.
    warnings: Vec<String>,
    finished: bool,
}

impl Reporter {
    fn begin(run: Rc<RunOutput>, start: ProcessStart, mut outputs: Outputs) -> Result<Self, UsageError> {
        let asks = run.options.gen_suppressions == GenSuppressions::Ask;
        let notes = std::mem::take(&mut outputs.notes);
        let mut reporter = Reporter {
            run,
            start,
            outputs,
            ledger: Ledger::default(),
            rules: Suppressions::default(),
            first_own: 0,
            last_thread: 1,
            open_line: Cell::new(false),
            silent: false,
            asks,
            leaks_before: LeaksBefore::default(),
            changed: None,
            ending: false,
            warnings: Vec::new(),
            finished: false,
        };
        // Before the document: if both go to standard error, it is a whole one behind the first line.
        reporter.message(&notes);
        reporter.outputs.xml.iter().for_each(|document| reporter.run.start_document(&reporter.start, document));
        reporter.banner();
        reporter.report_start();
        reporter.load_rules()?;
        Ok(reporter)
    }

    fn load_rules(&mut self) -> Result<(), UsageError> {
        let mut said = Vec::new();
        let loaded = self.run.load_rules(&mut |line| said.push(line));
        said.iter().for_each(|line| self.debug(line));
        match loaded {
            Ok(rules) => {
                self.rules = rules;
                Ok(())
            }
            Err(lines) => {
                self.message(&lines);
                Err(UsageError::new(1, Vec::new()))
            }
        }
    }

    pub fn options(&self) -> &Options {
        self.changed.as_deref().unwrap_or(&self.run.options)
    }

    /// The program sets an option for itself, from now on.
    pub fn change_option(&mut self, word: &str) {
        let mut options = self.options().clone();
        match options::change(&mut options, word) {
            Ok(complaints) => {
                self.remark(&[format!("Handling new value {word} for option {}", word.split('=').next().unwrap_or(word))]);
                self.message(&complaints);
                self.changed = Some(Box::new(options));
            }
            Err(complaint) => self.message(&[complaint]),
        }
    }

    pub fn pid(&self) -> u32 {
        self.start.pid
    }

    /// Findings that count: unsuppressed occurrences, leaks of the error kinds included.
    pub fn error_count(&self) -> u64 {
        self.ledger.totals().errors
    }

    /// The status to leave with when the program left with `program`.
    pub fn exit_code(&self, program: i32) -> i32 {
        let wanted = self.options().error_exitcode;
        if wanted > 0 && self.error_count() > 0 { wanted } else { program }
    }

    /// A reporter for a forked child, which goes on where this process is.
    pub fn fork(&self, child: u32) -> Reporter {
        let start = ProcessStart { pid: child, parent: self.start.pid, ..self.start.clone() };
        let outputs = self.run.fork(&start, &self.outputs);
        let own_log = !outputs.log.same_as(&self.outputs.log);
        let mut forked = Reporter {
            run: self.run.clone(),
            start,
            outputs,
            ledger: self.ledger.clone(),
            rules: self.rules.clone(),
            first_own: self.run.unique(),
            last_thread: self.last_thread,
            open_line: Cell::new(false),
            silent: self.options().child_silent_after_fork,
            asks: self.asks,
            leaks_before: self.leaks_before.clone(),
            changed: self.changed.clone(),
            ending: false,
            warnings: Vec::new(),
            finished: false,
        };
        if own_log {
            forked.banner();
        }
        forked
    }

    /// A reporter for the program that this process has become.
    pub fn exec(self, command: Vec<String>) -> Reporter {
        let start = ProcessStart { command, ..self.start };
        let mut next = Reporter {
            start,
            ledger: Ledger::default(),
            rules: self.rules.fresh(),
            last_thread: 1,
            open_line: Cell::new(false),
            silent: false,
            leaks_before: LeaksBefore::default(),
            changed: None,
            ..self
        };
        next.banner();
        next.report_start();
        next
    }

    fn burst(&self) -> Burst {
        let mut burst = Burst::new(self.start.pid, self.options().time_stamp.then(|| self.run.elapsed()));
        burst.open_line = self.open_line.get();
        burst.painter = self.run.terminal.painter;
        burst
    }

    fn write(&self, burst: &Burst) {
        if !self.silent {
            self.open_line.set(burst.open_line);
            self.outputs.log.write(burst.as_str());
        }
    }

    /// Do findings and summaries go to the log as text?
    fn is_text(&self) -> bool {
        !self.options().xml
    }

    /// Lines for the user, whatever the format of findings is.
    pub fn message<S: AsRef<str>>(&self, lines: &[S]) {
        let mut burst = self.burst();
        burst.users(lines);
        self.write(&burst);
    }

    /// Lines that are left out under `-q`.
    pub fn remark<S: AsRef<str>>(&self, lines: &[S]) {
        if !self.options().is_quiet() {
            self.message(lines);
        }
    }

    /// A line without prefix, as the debugger would show it.
    pub fn answer(&self, line: &str) {
        let mut burst = self.burst();
        burst.raw(line);
        burst.raw("\n");
        self.write(&burst);
    }

    /// What an address is.
    pub fn describe(&self, lines: &[Aux]) {
        let mut burst = self.burst();
        lines.iter().for_each(|aux| text::aux(aux, &self.options().frames, &mut burst));
        self.write(&burst);
    }

    /// A stack alone.
    pub fn backtrace(&self, stack: Stack) {
        self.message(&text::backtrace(&self.kept(stack), &self.options().frames));
    }

    /// What would go to the log can be had from [`Reporter::captured`] now; where it went before.
    pub fn capture(&mut self) -> (Sink, Arc<Mutex<Vec<u8>>>) {
        let (sink, bytes) = Sink::memory();
        (std::mem::replace(&mut self.outputs.log, sink), bytes)
    }

    pub fn captured(&mut self, (log, bytes): (Sink, Arc<Mutex<Vec<u8>>>)) -> String {
        self.outputs.log = log;
        String::from_utf8_lossy(&bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())).into_owned()
    }

    /// The program that runs.
    pub fn program(&self) -> &str {
        self.start.command.first().map_or("", String::as_str)
    }

    /// Use other options for a while, or those from before; gives those that were in use.
    pub fn exchange_options(&mut self, other: Option<Box<Options>>) -> Option<Box<Options>> {
        std::mem::replace(&mut self.changed, other)
    }

    /// A line that was asked for by an option of its own.
    pub fn trace(&self, line: &str) {
        let mut burst = self.burst();
        burst.debug(line);
        self.write(&burst);
    }

    /// A line for `-v`.
    pub fn debug(&self, line: &str) {
        if self.options().verbosity > 1 {
            let mut burst = self.burst();
            burst.debug(line);
            self.write(&burst);
        }
    }

    fn banner(&mut self) {
        if self.options().is_quiet() || !self.is_text() {
            return;
        }
        let mut burst = self.burst();
        burst.users(text::banner(&self.start, self.options().compat, self.outputs.log.detached));
        burst.user("");
        if self.options().verbosity > 1 {
            burst.debug("Options:");
            self.start.tool_command.iter().skip(1).for_each(|word| burst.debug(&format!("   {word}")));
            self.options().ignored.iter().for_each(|word| burst.debug(&format!("   accepted and ignored: {word}")));
        }
        self.write(&burst);
    }

    fn report_start(&self) {
        for report in &self.outputs.reports {
            if report.format == ReportFormat::Json {
                report.sink.write(&json::start(&self.start));
            }
        }
    }

    /// Text that the program prints itself through a client request, perhaps followed by where it is.
    pub fn client_print(&mut self, thread: u32, thread_name: Option<&str>, text: &str, stack: Option<Stack>) {
        let stack = stack.map(|stack| self.kept(stack));
        if let (Some(document), false) = (&self.outputs.xml, self.silent) {
            document.sink.write(&xml::client_message(thread, thread_name, text, stack.as_ref(), &document.style));
            return;
        }
        let mut burst = self.burst();
        burst.client(text);
        if let Some(stack) = &stack {
            burst.users(text::backtrace(stack, &self.options().frames));
        }
        self.write(&burst);
    }

    fn kept(&self, mut stack: Stack) -> Stack {
        stack.merge_recursion(self.options().merge_recursive_frames);
        stack.truncate(self.options().num_callers);
        stack
    }

    /// The same for a stack without names.
    fn kept_addresses<'a>(&self, addresses: &'a [u64]) -> impl Iterator<Item = u64> + use<'a> {
        let kept = without_recursion(addresses, self.options().merge_recursive_frames).into_iter();
        kept.take(self.options().num_callers).map(|position| addresses[position])
    }

    /// Counts a finding that was seen before; `false`: it is new, so name its frames and call [`Reporter::error`].
    pub fn repeat(&mut self, kind: &ErrorKind, addresses: &[u64]) -> bool {
        let kept: Vec<u64> = self.kept_addresses(addresses).collect();
        let limit = self.options().error_limit;
        let (verdict, notice) = self.ledger.repeat(kind, &kept, limit);
        self.tell(notice);
        match verdict {
            Verdict::New => false,
            Verdict::Dropped => true,
            Verdict::Repeated(index) => {
                if let Some(rule) = self.ledger.contexts[index].suppressed_by {
                    self.rules.count_again(rule);
                }
                true
            }
        }
    }

    fn tell(&self, notice: Option<Notice>) {
        if let (Some(notice), true) = (notice, self.is_text()) {
            self.message(&text::notice(notice));
        }
    }

    /// A finding: counted, suppressed or shown.
    pub fn error(&mut self, mut record: ErrorRecord) -> Outcome {
        record.stack = self.kept(record.stack);
        for aux in &mut record.aux {
            aux.stack = aux.stack.take().map(|stack| self.kept(stack));
        }
        let addresses: Vec<u64> = record.stack.addresses().collect();
        let before = self.ledger.totals();
        if self.repeat(&record.kind, &addresses) {
            let after = self.ledger.totals();
            return if after == before { Outcome::Dropped } else { Outcome::Repeated };
        }
        let hidden_by = self.rules.find(&record.kind, &record.stack);
        let index = self.ledger.insert(record, hidden_by, self.run.unique());
        if hidden_by.is_some() {
            return Outcome::Suppressed;
        }
        let context = &self.ledger.contexts[index];
        let (record, unique) = (context.record.clone(), context.unique);
        self.show(&record, unique);
        if self.options().exit_on_first_error {
            self.message(&["", "Exit program on first error (--exit-on-first-error=yes)"]);
            return Outcome::ShownAndExit;
        }
        Outcome::Shown
    }

    /// Prints a finding in every format.
    fn show(&mut self, record: &ErrorRecord, unique: u64) {
        let generated = self.generated(record);
        if self.silent {
            return;
        }
        if let Some(document) = &self.outputs.xml {
            document.sink.write(&xml::error(record, unique, generated.as_ref(), &document.style));
        } else {
            let mut burst = self.burst();
            self.finding(&mut burst, record);
            if let Some(rule) = &generated {
                burst.raw(&rule.text());
            }
            self.write(&burst);
            self.ask(record);
        }
        for report in &self.outputs.reports {
            match report.format {
                ReportFormat::Json => report.sink.write(&json::error(self.start.pid, record, unique, &self.run.placer)),
                ReportFormat::Github => report.sink.write(&github::error(record, &self.run.placer)),
                ReportFormat::Sarif => {}
            }
        }
        if matches!(record.kind, ErrorKind::Leak(_)) {
            self.collect(|| vec![sarif::Finding { record: record.clone(), count: 1 }]);
        }
    }

    fn generated(&self, record: &ErrorRecord) -> Option<Generated> {
        let wanted = self.options().gen_suppressions == GenSuppressions::All;
        wanted.then(|| generate(&record.kind, &record.stack, self.options().frames.show_below_main))
    }

    fn ask(&mut self, record: &ErrorRecord) {
        if !self.asks {
            return;
        }
        let mut prompt = self.burst();
        prompt.user("");
        prompt.user(ask::PROMPT);
        // The answer stands on the same line.
        self.outputs.log.write(prompt.as_str().trim_end_matches('\n'));
        match ask::answer(self.options().input_fd) {
            ask::Answer::No => {}
            ask::Answer::Never => self.asks = false,
            ask::Answer::Yes => {
                let rule = generate(&record.kind, &record.stack, self.options().frames.show_below_main);
                self.outputs.log.write(&rule.text());
            }
        }
    }

    /// The finding as text, with markers, thread header and the empty line after it.
    fn finding(&mut self, burst: &mut Burst, record: &ErrorRecord) {
        let markers = self.options().error_markers.clone();
        if let Some((begin, _)) = markers.as_ref().filter(|(begin, _)| !begin.is_empty()) {
            burst.user(begin);
        }
        if record.thread != self.last_thread {
            self.last_thread = record.thread;
            burst.user(&text::thread_header(record.thread, record.thread_name.as_deref()));
        }
        text::finding(record, &self.options().frames, burst);
        burst.users(self.details(|teller| teller.finding(record)));
        burst.user("");
        if let Some((_, end)) = markers.as_ref().filter(|(_, end)| !end.is_empty()) {
            burst.user(end);
        }
    }

    /// What only people at a terminal want to read.
    fn details(&self, tell: impl FnOnce(&mut Teller) -> Vec<String>) -> Vec<String> {
        let Terminal { painter, details } = self.run.terminal;
        if !details {
            return Vec::new();
        }
        tell(&mut Teller { sources: &mut self.run.sources.borrow_mut(), placer: &self.run.placer, painter })
    }

    /// The program dies of a signal. `from_fault`: the processor raised it; other signals are silent under `-q`.
    pub fn fatal_signal(&mut self, fatal: &FatalSignal, from_fault: bool) {
        let fatal = FatalSignal { stack: self.kept(fatal.stack.clone()), ..fatal.clone() };
        if self.silent || (self.options().is_quiet() && !from_fault) {
            return;
        }
        if let Some(document) = &self.outputs.xml {
            document.sink.write(&xml::fatal_signal(&fatal, &document.style));
            self.message(&text::stack_hint(&fatal));
        } else {
            let mut burst = self.burst();
            text::fatal_signal(&fatal, &self.options().frames, &mut burst);
            burst.users(self.details(|teller| teller.place("here", &fatal.stack)));
            self.write(&burst);
        }
        for report in self.outputs.reports.iter().filter(|report| report.format == ReportFormat::Json) {
            report.sink.write(&json::fatal_signal(self.start.pid, &fatal));
        }
    }

    /// Keeps findings for reports that are one document.
    fn collect(&self, findings: impl Fn() -> Vec<sarif::Finding>) {
        for report in self.outputs.reports.iter().filter(|report| report.format == ReportFormat::Sarif) {
            self.run.collect(&report.sink, self.start.command.join(" "), findings());
        }
    }
}

#[cfg(test)]
mod tests;
