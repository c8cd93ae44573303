//! Valgrind's text.
//!
//! ```text
//! ==PID== for the user    --PID-- for the curious    **PID** what the program says itself
//! ==00:00:00:01.165 PID== with --time-stamp=yes
//! ```
//!
//! A [`Burst`] is what is written at once: one finding, one summary. An empty line is the prefix with its blank. Generated
//! suppressions have no prefix, so that they can be cut out of a log. The texts of single parts are plain lists of lines, so
//! that a finding reads the same wherever it is shown.

use std::borrow::Cow;
use std::time::Duration;

use super::paint::{Painter, Tone};
use super::{FatalSignal, ProcessStart, signal};
use crate::dedup::{Context, ErrorTotals, Notice};
use crate::error::{Aux, ErrorKind, ErrorRecord, LeakKind};
use crate::frame::{Frame, FrameStyle, Stack};
use crate::suppress::{Rule, Usage};

/// Lines of one process, ready to be written.
#[derive(Clone, Debug, Default)]
pub struct Burst {
    text: String,
    /// What stands between the markers: the process id, perhaps with the time.
    mark: String,
    /// The program itself printed the beginning of a line: whatever comes next goes on in it, without a prefix.
    pub open_line: bool,
    /// Colours of what is added.
    pub painter: Painter,
}

/// Room for most findings.
const USUAL_BYTES: usize = 4096;

impl Burst {
    /// `elapsed`: time since the start of the run, for `--time-stamp=yes`.
    pub fn new(pid: u32, elapsed: Option<Duration>) -> Self {
        let mark = elapsed.map_or_else(|| pid.to_string(), |elapsed| format!("{} {pid}", time_stamp(elapsed)));
        Burst { text: String::with_capacity(USUAL_BYTES), mark, open_line: false, painter: Painter::default() }
    }

    /// A line for the user.
    pub fn user(&mut self, line: &str) {
        self.push("==", line);
    }

    /// The same, in one tone.
    pub fn toned(&mut self, tone: Option<Tone>, line: &str) {
        match tone {
            Some(tone) => self.user(&self.painter.paint(tone, line)),
            None => self.user(line),
        }
    }

    pub fn users<S: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = S>) {
        for line in lines {
            self.user(line.as_ref());
        }
    }

    /// A line for the curious.
    pub fn debug(&mut self, line: &str) {
        self.push("--", line);
    }

    fn push(&mut self, marker: &str, line: &str) {
        if !std::mem::take(&mut self.open_line) {
            [marker, &self.mark, marker, " "].iter().for_each(|part| self.text.push_str(part));
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// What the program prints itself through a client request: its own line ends, prefixed at the beginning of each line.
    pub fn client(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            if !self.open_line {
                self.text.push_str(&format!("**{}** ", self.mark));
            }
            self.text.push_str(piece);
            self.open_line = !piece.ends_with('\n');
        }
    }

    /// Text without prefix.
    pub fn raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `days:hours:minutes:seconds.milliseconds`
pub fn time_stamp(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!("{days:02}:{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, elapsed.subsec_millis())
}

/// The tool's own lines of the banner.
fn self_introduction(compat: bool) -> [String; 3] {
    let version = env!("CARGO_PKG_VERSION");
    let compatible = if compat { " (compatible with Valgrind-3.19.0)" } else { "" };
    [
        "Memcheck, a memory error detector".to_string(),
        "An independent implementation; free software under the MIT licence".to_string(),
        format!("Using memcheck-{version}{compatible}; rerun with -h for help"),
    ]
}

/// The lines of the preamble in XML, where words and the parent stand elsewhere too.
pub fn preamble(start: &ProcessStart, compat: bool) -> Vec<String> {
    let mut lines = Vec::from(self_introduction(compat));
    lines.push(format!("Command: {}", start.command.join(" ")));
    lines
}

/// The lines of the banner, without the final empty one. `name_parent`: the log is not the terminal.
pub fn banner(start: &ProcessStart, compat: bool, name_parent: bool) -> Vec<String> {
    let mut lines = Vec::from(self_introduction(compat));
    lines.push(format!("Command: {}", command_line(&start.command)));
    if name_parent {
        lines.push(format!("Parent PID: {}", start.parent));
    }
    lines
}

/// Words joined by blanks, with a backslash before what would not read as one word; unprintable characters become `_`.
fn command_line(words: &[String]) -> String {
    let escape = |word: &String| {
        let mut out = String::new();
        for c in word.chars() {
            if " \\<>".contains(c) {
                out.push('\\');
            }
            out.push(if c.is_control() { '_' } else { c });
        }
        out
    };
    words.iter().map(escape).collect::<Vec<_>>().join(" ")
}

/// The header that says whose finding follows; only when the thread is not that of the finding before.
pub fn thread_header(thread: u32, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("Thread {thread} {name}:"),
        None => format!("Thread {thread}:"),
    }
}

/// A finding: headline, stack, also-lines with their stacks. Without the empty line after it.
pub fn finding(record: &ErrorRecord, style: &FrameStyle, burst: &mut Burst) {
    burst.toned(headline_tone(&record.kind), &record.what);
    stack(&record.stack, style, burst);
    record.aux.iter().for_each(|line| aux(line, style, burst));
}

/// What belongs to a finding, or stands alone.
pub fn aux(aux: &Aux, style: &FrameStyle, burst: &mut Burst) {
    burst.user(&format!(" {}", aux.text));
    aux.stack.iter().for_each(|at| stack(at, style, burst));
}

fn headline_tone(kind: &ErrorKind) -> Option<Tone> {
    match kind {
        ErrorKind::Leak(LeakKind::Reachable) => None,
        ErrorKind::Leak(LeakKind::Possible | LeakKind::Indirect) => Some(Tone::Doubtful),
        kind if kind.is_definedness() => Some(Tone::Doubtful),
        _ => Some(Tone::Wrong),
    }
}

fn stack(stack: &Stack, style: &FrameStyle, burst: &mut Burst) {
    let painter = burst.painter;
    style.for_each_line(stack, |frame, line| burst.user(&painted(frame, line, painter)));
}

/// The source stands out, and what has none stands back.
fn painted<'a>(frame: &Frame, line: &'a str, painter: Painter) -> Cow<'a, str> {
    match line.rfind(" (").filter(|_| frame.line.is_some()) {
        Some(before) => painter.paint_from(before + 1, Tone::Place, line),
        None => painter.paint(Tone::Faint, line),
    }
}

/// Lines of a backtrace alone.
pub fn backtrace(stack: &Stack, style: &FrameStyle) -> Vec<String> {
    style.lines(stack)
}

pub fn notice(notice: Notice) -> Vec<String> {
    let stop = |what: &str| {
        [
            "",
            what,
            "Final error counts will be inaccurate.  Go fix your program!",
            "Rerun with --error-limit=no to disable this cutoff.  Note",
            "that errors may occur in your program without prior warning from",
            "Valgrind, because errors are no longer being displayed.",
            "",
        ]
        .map(str::to_string)
        .to_vec()
    };
    match notice {
        Notice::Coarse => {
            ["", "More than 100 errors detected.  Subsequent errors", "will still be recorded, but in less detail than before."]
                .map(str::to_string)
                .to_vec()
        }
        Notice::StopShown => stop("More than 1000 different errors detected.  I'm not reporting any more."),
        Notice::StopCounted => stop("More than 10000000 total errors detected.  I'm not reporting any more."),
    }
}

/// The block before a program dies of a signal.
pub fn fatal_signal(fatal: &FatalSignal, style: &FrameStyle, burst: &mut Burst) {
    let overflow = fatal.stack_overflow.map(|limit| format!("Stack overflow in thread #{}: can't grow stack to 0x{limit:x}", fatal.thread));
    burst.users(&overflow);
    burst.user("");
    let headline = format!("Process terminating with default action of signal {} ({})", fatal.signo, signal::name(fatal.signo));
    burst.toned(Some(Tone::Wrong), &headline);
    if let Some(event) = signal::event(fatal.signo, fatal.code) {
        let at = if signal::has_address(fatal.signo, fatal.code) { format!(" at address 0x{:X}", fatal.address) } else { String::new() };
        burst.user(&format!(" {event}{at}"));
    }
    burst.users(&overflow);
    stack(&fatal.stack, style, burst);
    burst.users(stack_hint(fatal));
}

/// Five lines for a program that may have run out of stack.
pub fn stack_hint(fatal: &FatalSignal) -> Vec<String> {
    if !signal::may_be_stack_overflow(fatal.signo, fatal.code) {
        return Vec::new();
    }
    vec![
        " If you believe this happened as a result of a stack".to_string(),
        " overflow in your program's main thread (unlikely but".to_string(),
        " possible), you can try to increase the size of the".to_string(),
        " main thread stack using the --main-stacksize= flag.".to_string(),
        format!(" The main thread stack size used in this run was {}.", fatal.main_stack_size),
    ]
}

/// The tone of [`error_summary`].
pub fn verdict(totals: ErrorTotals) -> Option<Tone> {
    Some(if totals.errors > 0 { Tone::Wrong } else { Tone::Fine })
}

pub fn error_summary(totals: ErrorTotals) -> String {
    format!(
        "ERROR SUMMARY: {} errors from {} contexts (suppressed: {} from {})",
        totals.errors, totals.contexts, totals.suppressed, totals.suppressed_contexts
    )
}

/// The line above a finding in the list at the end.
pub fn context_header(context: &Context, index: usize, count: u64) -> String {
    format!("{} errors in context {index} of {count}:", context.count)
}

/// `used_suppression:     12 name file.supp:14 suppressed: 85 bytes in 5 blocks`
pub fn used_suppression(rule: &Rule, usage: Usage) -> String {
    let mut line = format!("used_suppression: {:6} {} {}:{}", usage.count, rule.name, rule.file, rule.line);
    if usage.leaked.blocks > 0 {
        let leaked = super::summary::amount(usage.leaked);
        line.push_str(&format!(" suppressed: {leaked}"));
    }
    line
}

pub fn unused_suppression(rule: &Rule) -> String {
    format!("unused_suppression: {} {}:{}", rule.name, rule.file, rule.line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Block, BlockState};
    use crate::frame::testing::{frame, library_frame};
    use crate::leak::Tally;

    #[test]
    fn prefixes_and_time() {
        let mut burst = Burst::new(12345, Some(Duration::from_millis(90_061_165)));
        burst.user("x");
        burst.debug("y");
        burst.user("");
        assert_eq!(burst.as_str(), "==01:01:01:01.165 12345== x\n--01:01:01:01.165 12345-- y\n==01:01:01:01.165 12345== \n");
    }

    #[test]
    fn the_programs_own_text_keeps_its_lines() {
        let mut burst = Burst::new(7, None);
        burst.client("hello\nno nl");
        burst.client("bt\nopen");
        burst.users(["goes on", "as usual"]);
        assert_eq!(burst.as_str(), "**7** hello\n**7** no nlbt\n**7** opengoes on\n==7== as usual\n");
    }

    #[test]
    fn banner_escapes_the_command() {
        let command = vec!["./t".to_string(), "a b\\c<d>e&f;g\th\"i".to_string()];
        let start = ProcessStart { pid: 2, parent: 4242, command, tool_command: Vec::new() };
        let lines = banner(&start, true, true);
        assert_eq!(lines[3..], ["Command: ./t a\\ b\\\\c\\<d\\>e&f;g_h\"i", "Parent PID: 4242"]);
        assert_eq!(lines[0], "Memcheck, a memory error detector");
        assert_eq!(banner(&start, true, false).len(), 4);
    }

    #[test]
    fn a_finding_is_headline_stack_and_the_rest() {
        let allocated = Stack(vec![library_frame(0x48417b4, "malloc", "/lib/heap.so"), frame(0x1091ae, "th", "a.c", 6)]);
        let freed = Stack(vec![library_frame(0x484417b, "free", "/lib/heap.so")]);
        let block = Block { start: 0x4a401e0, size: 3000, state: BlockState::Freed, allocated: Some(allocated), freed: Some(freed) };
        let record = ErrorRecord::invalid_free(2, Stack(vec![library_frame(0x484417b, "free", "/lib/heap.so")]))
            .with_aux(Address::Block(block).aux(0x4a401e0));
        let mut burst = Burst::new(7, None);
        finding(&record, &FrameStyle::default(), &mut burst);
        let lines: Vec<&str> = burst.as_str().lines().map(|line| line.strip_prefix("==7== ").expect("a mark")).collect();
        assert_eq!(
            lines,
            [
                "Invalid free() / delete / delete[] / realloc()",
                "   at 0x484417B: free (in /lib/heap.so)",
                " Address 0x4a401e0 is 0 bytes inside a block of size 3,000 free'd",
                "   at 0x484417B: free (in /lib/heap.so)",
                " Block was alloc'd at",
                "   at 0x48417B4: malloc (in /lib/heap.so)",
                "   by 0x1091AE: th (a.c:6)",
            ]
        );
        assert_eq!(thread_header(3, Some("worker")), "Thread 3 worker:");
        assert_eq!(thread_header(1, None), "Thread 1:");
    }

    fn fatal_lines(fatal: &FatalSignal) -> Vec<String> {
        let mut burst = Burst::new(7, None);
        fatal_signal(fatal, &FrameStyle::default(), &mut burst);
        burst.as_str().lines().map(|line| line.strip_prefix("==7== ").expect("a mark").to_owned()).collect()
    }

    #[test]
    fn fatal_signals() {
        let fatal = FatalSignal {
            signo: 11,
            code: 1,
            thread: 1,
            main_stack_size: 8_388_608,
            stack: Stack(vec![frame(0x109305, "main", "a.c", 12)]),
            ..FatalSignal::default()
        };
        assert_eq!(
            fatal_lines(&fatal),
            [
                "",
                "Process terminating with default action of signal 11 (SIGSEGV)",
                " Access not within mapped region at address 0x0",
                "   at 0x109305: main (a.c:12)",
                " If you believe this happened as a result of a stack",
                " overflow in your program's main thread (unlikely but",
                " possible), you can try to increase the size of the",
                " main thread stack using the --main-stacksize= flag.",
                " The main thread stack size used in this run was 8388608.",
            ]
        );
        let abort = FatalSignal { signo: 6, code: -6, ..FatalSignal::default() };
        assert_eq!(fatal_lines(&abort), ["", "Process terminating with default action of signal 6 (SIGABRT)"]);
        let overflow = FatalSignal { stack_overflow: Some(0x1ffef01000), address: 0x1ffef015bc, ..fatal };
        let lines = fatal_lines(&overflow);
        assert_eq!(lines[0], "Stack overflow in thread #1: can't grow stack to 0x1ffef01000");
        assert_eq!(lines[3], " Access not within mapped region at address 0x1FFEF015BC");
        assert_eq!(lines[4], lines[0]);
    }

    #[test]
    fn lines_of_the_end() {
        let totals = ErrorTotals { errors: 1234, contexts: 3, suppressed: 4, suppressed_contexts: 2 };
        assert_eq!(error_summary(totals), "ERROR SUMMARY: 1234 errors from 3 contexts (suppressed: 4 from 2)");
        let rule = crate::suppress::parse::parse("s.supp", "{\nleaky\nMemcheck:Leak\nfun:a\n}\n").expect("well formed").remove(0);
        let usage = Usage { count: 5, leaked: Tally::new(85, 5) };
        assert_eq!(used_suppression(&rule, usage), "used_suppression:      5 leaky s.supp:2 suppressed: 85 bytes in 5 blocks");
        assert_eq!(used_suppression(&rule, Usage { count: 1, ..Usage::default() }), "used_suppression:      1 leaky s.supp:2");
    }

    #[test]
    fn notices() {
        assert_eq!(notice(Notice::Coarse).len(), 3);
        assert_eq!(notice(Notice::StopShown)[1], "More than 1000 different errors detected.  I'm not reporting any more.");
        assert_eq!(notice(Notice::StopShown).len(), 7);
    }
}
