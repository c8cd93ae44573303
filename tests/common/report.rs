//! Reading a report in Valgrind's text format back into facts.
//!
//! A report is lines `==PID== text`. One *finding* is a headline, a stack (`   at 0x…`, `   by 0x…`), then notes (` Address 0x… is …`),
//! each possibly with a stack of its own. Lines of several processes may alternate in one file, so each process is read by itself.
//! Nothing here judges; unknown text is kept in `Report::text` for messages.

use std::collections::BTreeMap;

/// One line of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub function: String,
    /// Base name and line, where known.
    pub place: Option<(String, u32)>,
}

/// One error, one leak record or one fatal signal.
#[derive(Debug, Clone)]
pub struct Finding {
    pub pid: u32,
    /// Short name: `invalid-read`, `cond`, `leak`, `signal`… see `classify`.
    pub kind: &'static str,
    /// What follows the kind in an annotation: a size, a function, a parameter, `definite 400`, `SIGSEGV`.
    pub detail: String,
    pub headline: String,
    pub frames: Vec<Frame>,
    /// Lines after the first stack, without their own stacks.
    pub notes: Vec<String>,
    /// The stacks after the notes.
    pub note_frames: Vec<String>,
}

impl Finding {
    /// The line of the innermost frame that lies in `file`, which is a base name.
    pub fn line_in(&self, file: &str) -> Option<u32> {
        let places = self.frames.iter().filter_map(|frame| frame.place.as_ref());
        places.into_iter().find(|(name, _)| name == file).map(|&(_, line)| line)
    }

    /// Whether a headline, a note or a frame below a note contains `text`.
    pub fn mentions(&self, text: &str) -> bool {
        self.headline.contains(text) || self.notes.iter().chain(&self.note_frames).any(|note| note.contains(text))
    }

    /// Leaks that count as errors by default.
    pub fn counts_as_error(&self) -> bool {
        match self.kind {
            "leak" => self.detail.starts_with("definite") || self.detail.starts_with("possible"),
            "signal" => false,
            _ => true,
        }
    }
}

/// The numbers of an `ERROR SUMMARY` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub pid: u32,
    pub errors: u64,
    pub contexts: u64,
}

#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub summaries: Vec<Summary>,
    pub text: String,
}

impl Report {
    pub fn parse(text: &str) -> Report {
        let mut by_pid: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for line in text.lines() {
            if let Some((pid, body)) = split_prefix(line) {
                by_pid.entry(pid).or_default().push(body);
            }
        }
        let mut report = Report { text: text.to_owned(), ..Report::default() };
        for (pid, lines) in by_pid {
            report.read_process(pid, &lines);
        }
        report
    }

    fn read_process(&mut self, pid: u32, lines: &[&str]) {
        let mut open: Option<Finding> = None;
        for line in lines {
            if let Some((kind, detail)) = classify(line) {
                self.findings.extend(open.take());
                let headline = (*line).to_owned();
                open = Some(Finding { pid, kind, detail, headline, frames: vec![], notes: vec![], note_frames: vec![] });
            } else if line.trim().is_empty() {
                self.findings.extend(open.take());
            } else if let Some(finding) = open.as_mut() {
                match parse_frame(line) {
                    Some(frame) if finding.notes.is_empty() || finding.kind == "signal" => finding.frames.push(frame),
                    // A stack after a note tells of the block or of the origin, not of the error.
                    Some(_) => finding.note_frames.push(line.trim().to_owned()),
                    None => finding.notes.push(line.trim().to_owned()),
                }
            }
            if let Some((errors, contexts)) = parse_summary(line) {
                self.summaries.push(Summary { pid, errors, contexts });
            }
        }
        self.findings.extend(open.take());
    }

    /// Whether every process of the report said that it found nothing.
    pub fn is_silent(&self) -> bool {
        !self.summaries.is_empty() && self.summaries.iter().all(|summary| summary.errors == 0)
    }
}

/// `==123== text` → (123, `text`); the empty line may have lost its trailing blank.
fn split_prefix(line: &str) -> Option<(u32, &str)> {
    let rest = &line[line.find("==")? + 2..];
    let (pid, body) = rest.split_once("==")?;
    let pid = pid.rsplit(' ').next()?.parse().ok()?;
    Some((pid, body.strip_prefix(' ').unwrap_or(body)))
}

/// The headlines of every kind of finding, as `(kind, detail)`.
fn classify(line: &str) -> Option<(&'static str, String)> {
    if line.starts_with(' ') && !line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let between = |start: &str, end: &str| {
        let rest = line.strip_prefix(start)?;
        Some(if end.is_empty() { rest } else { rest.split_once(end)?.0 }.trim().to_owned())
    };
    const SIMPLE: &[(&str, &str)] = &[
        ("Jump to the invalid address", "invalid-jump"),
        ("Conditional jump or move depends on uninitialised", "cond"),
        ("Invalid free() / delete", "invalid-free"),
        ("Mismatched free() / delete", "mismatched-free"),
        ("Uninitialised byte(s) found during client check", "user"),
        ("Unaddressable byte(s) found during client check", "user-unaddressable"),
        ("Illegal memory pool address", "mempool"),
        ("realloc() with size 0", "realloc-zero"),
        ("Invalid alignment value", "bad-alignment"),
        ("Mismatched new/delete", "mismatched-size"),
    ];
    if let Some(&(_, kind)) = SIMPLE.iter().find(|(start, _)| line.starts_with(start)) {
        return Some((kind, String::new()));
    }
    const SIZED: &[(&str, &str)] = &[
        ("Invalid read of size ", "invalid-read"),
        ("Invalid write of size ", "invalid-write"),
        ("Use of uninitialised value of size ", "value"),
    ];
    if let Some((size, kind)) = SIZED.iter().find_map(|(start, kind)| Some((between(start, "")?, *kind))) {
        return Some((kind, size));
    }
    if let Some(rest) = line.strip_prefix("Syscall param ") {
        let kind = if rest.ends_with("unaddressable byte(s)") { "param-unaddressable" } else { "param" };
        return Some((kind, rest.split(' ').next()?.to_owned()));
    }
    if let Some(name) = between("Source and destination overlap in ", "(") {
        return Some(("overlap", name));
    }
    if line.starts_with("Argument '") && line.contains("has a fishy") {
        let name = line.split_once("of function ")?.1.split(' ').next()?;
        return Some(("fishy", name.to_owned()));
    }
    if line.starts_with("Process terminating with default action of signal") {
        return Some(("signal", line.split_once('(')?.1.split_once(')')?.0.to_owned()));
    }
    classify_leak(line)
}

/// `1,296 (32 direct, 1,264 indirect) bytes in 1 blocks are definitely lost in loss record 2 of 3` → `definite 1296`.
fn classify_leak(line: &str) -> Option<(&'static str, String)> {
    const KINDS: &[(&str, &str)] = &[
        (" definitely lost in loss record", "definite"),
        (" indirectly lost in loss record", "indirect"),
        (" possibly lost in loss record", "possible"),
        (" still reachable in loss record", "reachable"),
    ];
    let kind = KINDS.iter().find(|(text, _)| line.contains(text))?.1;
    let bytes: String = line.trim_start().split(' ').next()?.chars().filter(|c| *c != ',').collect();
    bytes.parse::<u64>().ok()?;
    Some(("leak", format!("{kind} {bytes}")))
}

/// `   by 0x4011A5: main (prog.c:7)`.
fn parse_frame(line: &str) -> Option<Frame> {
    let rest = line.strip_prefix("   at 0x").or_else(|| line.strip_prefix("   by 0x"))?;
    let (_, text) = rest.split_once(": ")?;
    let Some((function, inside)) = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) else {
        return Some(Frame { function: text.to_owned(), place: None });
    };
    let place = inside.rsplit_once(':').and_then(|(file, line)| Some((file.to_owned(), line.parse().ok()?)));
    Some(Frame { function: function.to_owned(), place })
}

fn parse_summary(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("ERROR SUMMARY: ")?;
    let mut numbers = rest.split(' ').filter_map(|word| word.replace(',', "").parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
