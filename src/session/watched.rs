//! What is kept about one traced process.

use std::fs;
use std::rc::Rc;

use memcheck_leak::records::Record;
use memcheck_report::options::Options;
use memcheck_report::{ErrorKind, Reporter};
use memcheck_tracer::Process;

use super::gdb::Gdb;
use super::leaks::LastSearch;
use super::modules::Modules;

/// An error that the runtime knows by number, to count it again without its names.
#[derive(Clone)]
pub struct Known {
    pub kind: ErrorKind,
    /// As they are printed.
    pub addresses: Rc<[u64]>,
}

pub struct Watched {
    pub reporter: Reporter,
    pub modules: Modules,
    /// Error number n is at n - 1.
    pub known: Vec<Known>,
    /// What the program called itself at its start: threads that were not named have this name.
    first_name: Option<String>,
    /// Soft limit of the main stack, bytes.
    pub stack_limit: u64,
    /// The program that exec was called for: its arguments.
    pub next_command: Option<Vec<String>>,
    /// Records of the last leak search, for one that shows differences.
    pub losses: Vec<Record>,
    /// The last search in the midst of the run.
    pub last_search: Option<LastSearch>,
    /// `--vgdb-error`, as the program may have set it.
    pub debugger_error: u64,
    pub gdb: Option<Gdb>,
    /// No debugger is waited for any more.
    pub is_left_alone: bool,
    /// The end was reported.
    pub concluded: bool,
}

impl Watched {
    pub fn new(reporter: Reporter, options: &Options) -> Watched {
        Watched {
            reporter,
            modules: Modules::new(options),
            known: Vec::new(),
            first_name: None,
            stack_limit: 0,
            next_command: None,
            losses: Vec::new(),
            last_search: None,
            debugger_error: options.debugger_error,
            gdb: None,
            is_left_alone: !options.debugger,
            concluded: false,
        }
    }

    /// A copy for a forked child. Its runtime remembers the same error numbers; its objects are looked up when first needed.
    pub fn fork(&self, child: &Process, options: &Options) -> Watched {
        Watched {
            reporter: self.reporter.fork(child.pid() as u32),
            modules: self.modules.fork(options),
            known: self.known.clone(),
            first_name: self.first_name.clone(),
            stack_limit: self.stack_limit,
            next_command: None,
            losses: self.losses.clone(),
            last_search: self.last_search.clone(),
            debugger_error: self.debugger_error,
            gdb: None,
            // Who debugs the parent does not know of it.
            is_left_alone: true,
            concluded: false,
        }
    }

    /// Has an error that was just shown a number from which on a debugger looks at them?
    pub fn wants_debugger(&self) -> bool {
        !self.is_left_alone && self.reporter.found().1 >= self.debugger_error
    }

    pub fn begin(&mut self, process: &Process) {
        self.first_name = comm(process.pid(), process.pid());
    }

    /// The name of a thread, if it was given one of its own.
    pub fn thread_name(&self, process: &Process, tid: i32) -> Option<String> {
        comm(process.pid(), tid).filter(|name| tid != process.pid() && Some(name) != self.first_name.as_ref())
    }

    /// Number by which the runtime counts repeats of this error.
    pub fn remember(&mut self, kind: ErrorKind, addresses: Vec<u64>) -> u64 {
        self.known.push(Known { kind, addresses: addresses.into() });
        self.known.len() as u64
    }
}

fn comm(pid: i32, tid: i32) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
}
