//! What all processes of one run share: options, start time, rules, open documents, and the findings of formats that are
//! written once at the end.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Reporter;
use crate::options::{Env, Options, ReportFormat, ReportRequest, UsageError, Voice};
use crate::render::place::Placer;
use crate::render::xml::{self, XmlStyle};
use crate::render::{ProcessStart, sarif};
use crate::sink::{self, Destination, Opener, Sink};
use crate::source::Sources;
use crate::suppress::{self, Rule, Suppressions};
use crate::terminal::Terminal;

/// An XML document in progress. Several processes may write into one; the end tag is written when the last of them lets go,
/// or when the run is cut short.
pub struct XmlDocument {
    pub sink: Sink,
    pub style: XmlStyle,
    /// The process that wrote the head: it also writes state and counts.
    pub owner: u32,
    ended: AtomicBool,
}

impl XmlDocument {
    fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.sink.write(xml::DOCUMENT_END);
        }
    }
}

impl Drop for XmlDocument {
    fn drop(&mut self) {
        self.end();
    }
}

/// One of the `--report` outputs.
#[derive(Clone)]
pub struct Report {
    pub format: ReportFormat,
    pub sink: Sink,
    request: ReportRequest,
}

/// The shared part of a run.
pub struct RunOutput {
    pub options: Options,
    pub placer: Placer,
    pub terminal: Terminal,
    pub sources: RefCell<Sources>,
    env: Box<dyn Env>,
    opener: Opener,
    tool_command: Vec<String>,
    started: Instant,
    next_unique: AtomicU64,
    documents: Mutex<Vec<Weak<XmlDocument>>>,
    /// Findings for formats that are one document, with where it goes and the program's command line.
    collected: Mutex<Vec<Collected>>,
}

struct Collected {
    sink: Sink,
    command: String,
    findings: Vec<sarif::Finding>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a tree of calls is about.
#[derive(Clone, Copy)]
pub struct TreeKind {
    pub option: &'static str,
    pub what: &'static str,
}

/// Where one process writes.
pub struct Outputs {
    pub log: Sink,
    pub xml: Option<Rc<XmlDocument>>,
    pub reports: Vec<Report>,
    /// Lines for the log about destinations that could not be had.
    pub notes: Vec<String>,
}

impl RunOutput {
    /// `tool_command`: how we were called, options included, program excluded.
    pub fn new(options: Options, tool_command: Vec<String>, env: Box<dyn Env>) -> Rc<Self> {
        // Programs change directory; names are relative to where the run began.
        let start_dir = std::env::current_dir().unwrap_or_default();
        let terminal = Terminal::of(&options);
        let roots = [Some(start_dir.clone()), options.source_root.clone()].into_iter().flatten().collect();
        let root = options.source_root.clone().map(|root| start_dir.join(root));
        let root = root.or_else(|| (!options.reports.is_empty()).then(|| source_root(start_dir.clone())));
        Rc::new(RunOutput {
            placer: Placer { root },
            terminal,
            sources: RefCell::new(Sources::below(roots)),
            opener: Opener::at(start_dir, Voice::of_tool(options.compat)),
            options,
            env,
            tool_command,
            started: Instant::now(),
            next_unique: AtomicU64::new(0),
            documents: Mutex::default(),
            collected: Mutex::default(),
        })
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// An identifier for a finding. Processes may share a document, so they share the numbers.
    pub fn unique(&self) -> u64 {
        self.next_unique.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts reporting for a process: opens its outputs, prints the banner, loads the rules.
    pub fn process(self: &Rc<Self>, pid: u32, parent: u32, command: Vec<String>) -> Result<Reporter, UsageError> {
        let start = ProcessStart { pid, parent, command, tool_command: self.tool_command.clone() };
        let outputs = self.open(&start)?;
        Reporter::begin(self.clone(), start, outputs)
    }

    /// Opens everything anew for this process.
    pub fn open(&self, start: &ProcessStart) -> Result<Outputs, UsageError> {
        let mut notes = Vec::new();
        let log = self.opener.open(&self.options.log, sink::LOG, start.pid, &*self.env, &mut notes)?;
        let xml = self.open_xml(start, &mut notes)?;
        let requests = self.options.reports.iter();
        let reports = requests.map(|request| self.open_report(request, start.pid, &mut notes)).collect::<Result<_, _>>()?;
        Ok(Outputs { log, xml, reports, notes })
    }

    fn open_xml(&self, start: &ProcessStart, notes: &mut Vec<String>) -> Result<Option<Rc<XmlDocument>>, UsageError> {
        let (true, Some(destination)) = (self.options.xml, &self.options.xml_destination) else {
            return Ok(None);
        };
        let sink = self.opener.open(destination, sink::XML, start.pid, &*self.env, notes)?;
        let pattern = if let Destination::File(pattern) = destination { pattern.as_str() } else { "" };
        let style = XmlStyle {
            protocol: self.options.xml_protocol,
            compat: self.options.compat,
            frames: self.options.frames.clone(),
            user_comment: self.options.xml_user_comment.clone(),
            qualifiers: sink::qualifiers(pattern, &*self.env),
        };
        let document = Rc::new(XmlDocument { sink, style, owner: start.pid, ended: AtomicBool::new(false) });
        lock(&self.documents).push(Rc::downgrade(&document));
        Ok(Some(document))
    }

    /// Writes the head of a document that was opened for this process.
    pub fn start_document(&self, start: &ProcessStart, document: &XmlDocument) {
        document.sink.write(&xml::document_start(start, &document.style, self.elapsed()));
    }

    fn open_report(&self, request: &ReportRequest, pid: u32, notes: &mut Vec<String>) -> Result<Report, UsageError> {
        const NAME: sink::DestinationName = sink::DestinationName { option: "--report", noun: "report" };
        let destination = request.file.clone().map_or(Destination::Stderr, Destination::File);
        let sink = self.opener.open(&destination, NAME, pid, &*self.env, notes)?;
        Ok(Report { format: request.format, sink, request: request.clone() })
    }

    /// Writes a document into a file of its own; lines for the log about it.
    pub fn write_tree(&self, pid: u32, pattern: &str, kind: TreeKind, document: impl FnOnce() -> String) -> Vec<String> {
        let name = sink::DestinationName { option: kind.option, noun: "xtree output" };
        let path = match self.opener.path(pattern, name, pid, &*self.env) {
            Ok(path) => path,
            Err(failure) => return vec![failure.headline().to_owned()],
        };
        let shown = path.display();
        let said = format!("xtree {} report: {shown}", kind.what);
        match self.opener.create(&path, name) {
            Ok(sink) => sink.write(&document()),
            Err(_) => return vec![format!("Error: can not open xtree output file `{shown}'"), said],
        }
        vec![said]
    }

    /// Outputs of a forked child: its own where names contain the process id, otherwise its parent's.
    pub fn fork(&self, start: &ProcessStart, parent: &Outputs) -> Outputs {
        let mut notes = Vec::new();
        let own_log = sink::is_per_process(&self.options.log);
        let log = own_log.then(|| self.opener.open(&self.options.log, sink::LOG, start.pid, &*self.env, &mut notes).ok()).flatten();
        let own_xml = self.options.xml_destination.as_ref().is_some_and(sink::is_per_process);
        let xml = own_xml.then(|| self.open_xml(start, &mut notes).ok().flatten()).flatten();
        xml.iter().for_each(|document| self.start_document(start, document));
        let reports = parent.reports.iter().map(|report| {
            let own = report.request.file.clone().is_some_and(|file| sink::is_per_process(&Destination::File(file)));
            let opened = own.then(|| self.open_report(&report.request, start.pid, &mut notes).ok()).flatten();
            opened.unwrap_or_else(|| report.clone())
        });
        let reports = reports.collect();
        Outputs { log: log.unwrap_or_else(|| parent.log.clone()), xml: xml.or_else(|| parent.xml.clone()), reports, notes }
    }

    /// The rules of this run. `Err`: lines for the log; nothing can be run then.
    pub fn load_rules(&self, said: &mut dyn FnMut(String)) -> Result<Suppressions, Vec<String>> {
        let mut rules: Vec<Rule> = Vec::new();
        if self.options.default_suppressions {
            said(format!("Reading suppressions file: {}", suppress::DEFAULT_NAME));
            rules.extend(
                suppress::parse::parse(suppress::DEFAULT_NAME, suppress::DEFAULT_RULES).map_err(|failure| failure.lines().to_vec())?,
            );
        }
        for path in &self.options.suppressions {
            let name = path.to_string_lossy();
            said(format!("Reading suppressions file: {name}"));
            let bytes = std::fs::read(self.opener.start_dir.join(path)).map_err(|error| match error.kind() {
                std::io::ErrorKind::IsADirectory if !name.is_empty() => vec![format!("FATAL: suppressions file \"{name}\" is a directory")],
                _ => vec![format!("FATAL: can't open suppressions file \"{name}\"")],
            })?;
            rules.extend(suppress::parse::parse(&name, &String::from_utf8_lossy(&bytes)).map_err(|failure| failure.lines().to_vec())?);
        }
        Ok(Suppressions::new(rules))
    }

    /// Keeps findings for the documents that are written at the end.
    pub fn collect(&self, sink: &Sink, command: String, findings: Vec<sarif::Finding>) {
        let mut collected = lock(&self.collected);
        match collected.iter_mut().find(|known| known.sink.same_as(sink)) {
            Some(known) => known.findings.extend(findings),
            None => collected.push(Collected { sink: sink.clone(), command, findings }),
        }
    }

    /// Completes every document. Call it before the tool exits, whatever the reason; more than once does no harm.
    pub fn close(&self) {
        for document in lock(&self.documents).drain(..).filter_map(|document| document.upgrade()) {
            document.end();
        }
        for collected in lock(&self.collected).drain(..) {
            collected.sink.write(&sarif::document(&collected.findings, &collected.command, &self.placer));
        }
    }
}

/// The directory above `start` that holds a repository, else `start`.
fn source_root(start: PathBuf) -> PathBuf {
    let found = start.ancestors().find(|dir| dir.join(".git").exists()).map(PathBuf::from);
    found.unwrap_or(start)
}
