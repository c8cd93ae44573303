//! One run, from the command line to the exit code.
//!
//! ```text
//! options ─► resolve, launch ─► banner ─► inject, follow ─► exit code
//!            (tracer)           (report)  (tracer; its Handler is the Session)
//! ```
//!
//! The tracer knows stops, the symbolizer names, the report texts, the leak search reachability. None of them knows another;
//! everything that passes between them passes here:
//!
//! - [`handler`]    what the tracer tells, and who answers it
//! - [`watched`]    what is kept per traced process
//! - [`configure`]  options as the runtime wants them
//! - [`modules`]    which objects are mapped; [`wanted`] which of their functions are replaced
//! - [`stacks`]     code addresses become stacks
//! - [`records`]    a fact of the runtime becomes a finding; [`describe`] says what an address is
//! - [`requests`]   what the program asks; functions it calls at its end
//! - [`descriptors`] what is open at the end
//! - [`leaks`]      the heap at the end; [`resident`] finds the memory worth searching, [`frozen`] reads it
//! - [`monitor`]    commands that the program gives in words
//! - [`gdb`]        a debugger that looks at the program while it stands
//! - [`trees`]      what each place has allocated, as a tree of calls
//! - [`exit`]       death by signal, the last lines, memcheck's own exit code
//!
//! The order matters at the start: a program that cannot be run is refused without a banner, as in Valgrind; the banner stands
//! before the program's first output.

mod configure;
mod describe;
mod descriptors;
mod exit;
mod frozen;
mod gdb;
mod handler;
mod leaks;
mod modules;
mod monitor;
mod records;
mod requests;
mod resident;
mod stacks;
mod trees;
mod wanted;
mod watched;
mod wrapping;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::rc::Rc;

use memcheck_report::options::{GenSuppressions, Options, RealEnv, Run, UsageError, Voice};
use memcheck_report::reporter::RunOutput;
use memcheck_report::sink::Destination;
use memcheck_tracer::{Ending, Image, Inherited, Program, Refusal, Tracer};

pub use exit::Status;
use wanted::Wanted;
use watched::Watched;

/// The runtime, made by the build script: `RUNTIME_MEMORY`, `RUNTIME_ENTRY`, and its bytes.
mod image {
    include!(concat!(env!("OUT_DIR"), "/runtime.rs"));
    pub const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime.bin"));
}

/// Everything known during a run.
pub struct Session {
    output: Rc<RunOutput>,
    wanted: Wanted,
    watched: HashMap<i32, Watched>,
    /// Exit codes that processes asked for before they ended, by pid: `--error-exitcode` and `--exit-on-first-error`.
    codes: HashMap<i32, exit::Verdict>,
}

/// Lines for stderr, before there is a log. If they cannot be written, the exit code has to do.
pub fn tell(lines: &[String]) {
    let mut stderr = std::io::stderr().lock();
    for line in lines {
        let _ = writeln!(stderr, "{line}");
    }
}

/// Says so if there is no such program.
pub fn missing(command: &[OsString]) -> Option<Status> {
    let refusal = Program::find(command).err()?;
    tell(&[Voice::Tool("valgrind").line(&refusal.message)]);
    Some(Status::Code(refusal.exit_code))
}

/// Run the program of a command line to its end. `name` is what memcheck was called by.
pub fn run(run: Run, name: &OsStr, inherited: Inherited) -> Status {
    let voice = Voice::of_tool(run.options.compat);
    let refused = |refusal: Refusal| {
        tell(&[voice.line(&refusal.message)]);
        Status::Code(refusal.exit_code)
    };
    let program = match Program::find(&run.command) {
        Ok(program) => program,
        Err(refusal) => return refused(refusal),
    };
    let launched = match memcheck_tracer::launch(&program) {
        Ok(launched) => launched,
        Err(refusal) => return refused(refusal),
    };
    let pid = launched.pid;
    let mut session = match Session::new(&run, name, pid) {
        Ok(session) => session,
        Err(error) => {
            tell(&error.lines);
            // Traced processes die with their tracer, so the program that never ran ends here, too.
            return Status::Code(error.exit_code);
        }
    };
    inherited.let_go(|fd| is_needed(session.options(), fd));
    let image = Image { bytes: image::BYTES, memory_size: image::RUNTIME_MEMORY };
    let status = match Tracer::start(launched, Some(image), &mut session) {
        Ok(tracer) => {
            let ending = tracer.run(&mut session);
            session.status(pid, ending)
        }
        Err(refusal) => refused(refusal),
    };
    session.output.close();
    status
}

impl Session {
    /// Open the outputs, print the banner.
    fn new(run: &Run, name: &OsStr, pid: i32) -> Result<Session, UsageError> {
        let tool_command = std::iter::once(name).chain(run.given.iter().map(OsString::as_os_str));
        let output = RunOutput::new(run.options.clone(), texts(tool_command), Box::new(RealEnv));
        let command = texts(run.command.iter().map(OsString::as_os_str));
        // The program is this process to whoever started it.
        let reporter = output.process(pid as u32, memcheck_tracer::caller(), command)?;
        reporter.message(&run.notes);
        let mut watched = HashMap::new();
        watched.insert(pid, Watched::new(reporter, &run.options));
        Ok(Session { output, wanted: Wanted::new(&run.options.soname_synonyms), watched, codes: HashMap::new() })
    }

    fn options(&self) -> &Options {
        &self.output.options
    }

    /// How memcheck itself leaves when its program ended so.
    fn status(&self, pid: i32, ending: Ending) -> Status {
        exit::status(self.codes.get(&pid).copied(), ending)
    }
}

/// Will memcheck use this descriptor, which was there when it started, when it opens its outputs for further processes? The names of files
/// may stand for descriptors, too.
fn is_needed(options: &Options, fd: i32) -> bool {
    let is_special = |path: &str| path.starts_with("/dev/") || path.starts_with("/proc/");
    let names = |destination: &Destination| match destination {
        Destination::Descriptor(number) => *number == fd,
        Destination::File(path) => is_special(path),
        _ => false,
    };
    let asks = options.gen_suppressions == GenSuppressions::Ask && options.input_fd == fd;
    let trees = [&options.xtree_memory_file, &options.xtree_leak_file];
    asks || names(&options.log) || options.xml_destination.as_ref().is_some_and(names) || trees.iter().any(|path| is_special(path))
}

fn texts<'a>(words: impl Iterator<Item = &'a OsStr>) -> Vec<String> {
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}
