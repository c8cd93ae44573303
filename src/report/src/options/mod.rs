//! The command line: what the user wants, as one typed structure.
//!
//! Grammar (Valgrind's): options are `--name=value` or a few single letters; the first word that is not an option is the
//! program, and everything after it belongs to the program; a lone `--` may stand in between. Of a repeated option the last
//! one wins, except for the few that collect. `--memcheck:name=value` is the same as `--name=value`; options with another
//! tool's name in front are skipped.
//!
//! ```text
//!  ~/.valgrindrc ~/.memcheckrc   $VALGRIND_OPTS $MEMCHECK_OPTS   ./.valgrindrc ./.memcheckrc   command line
//!        └───────────────┴───────── sources ──────────┴───────────────┘                            │ later wins
//!                                      ▼                                                           ▼
//!                          [clap Command built from table::OPTIONS]  ──►  value::read  ──►  Options
//! ```
//!
//! One table ([`table::OPTIONS`]) has a row per option: name, kind of value, default, what it sets, help. The parser, the help
//! text and the validation come from it. Parsing proper is clap's; this module only maps its complaints to the texts that
//! scripts know.
//!
//! Called under a name that contains `valgrind`, the tool answers as Valgrind 3.19 would; under its own name an unknown option
//! gets a suggestion. Deliberately absent: opening anything the options name.

pub mod choices;
pub mod sources;
pub mod table;
pub mod usage;
pub mod value;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub use choices::{
    GenSuppressions, HeuristicSet, KeepStacktraces, LeakCheck, LeakKindSet, LeakResolution, ReportFormat, ReportRequest, TrackFds, When,
    XtreeMemory,
};
pub use sources::{Env, RcFile, RealEnv};
pub use usage::{UsageError, Voice};
pub use value::set as set_of;

use crate::frame::FrameStyle;
use crate::rules;
use crate::sink::Destination;
use table::{Kind, OptionRow};

/// The version whose behaviour compatibility mode promises.
pub const COMPATIBLE_VERSION: &str = "valgrind-3.19.0";

/// Everything the user can choose. Defaults are Valgrind's, except that origins are tracked: they cost nothing here until an
/// undefined value moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Behave as Valgrind where the two differ.
    pub compat: bool,
    /// 1 normally; less with `-q`, more with `-v`.
    pub verbosity: i32,
    pub trace_children: bool,
    /// Globs on the path of an executable that is not followed.
    pub trace_children_skip: Vec<String>,
    pub trace_children_skip_by_arg: Vec<String>,
    pub child_silent_after_fork: bool,
    pub log: Destination,
    pub xml: bool,
    pub xml_destination: Option<Destination>,
    pub xml_user_comment: Option<String>,
    /// 4 or 6.
    pub xml_protocol: u8,
    pub time_stamp: bool,
    pub color: When,
    /// Source lines and pictures of blocks with each finding.
    pub details: When,
    /// How frames are printed: `--demangle`, `--show-below-main`, `--fullpath-after`.
    pub frames: FrameStyle,
    /// Code addresses kept per stack.
    pub num_callers: usize,
    pub merge_recursive_frames: usize,
    pub error_limit: bool,
    /// 0: the program's own status counts.
    pub error_exitcode: i32,
    pub exit_on_first_error: bool,
    pub error_markers: Option<(String, String)>,
    pub show_error_list: bool,
    pub default_suppressions: bool,
    pub suppressions: Vec<PathBuf>,
    pub show_unused_suppressions: bool,
    pub gen_suppressions: GenSuppressions,
    pub input_fd: i32,
    pub track_fds: TrackFds,
    pub read_inline_info: bool,
    pub read_var_info: bool,
    pub extra_debuginfo_path: Option<PathBuf>,
    /// Bytes; `None`: from the resource limit.
    pub main_stacksize: Option<u64>,
    /// Bytes of translated code that are kept.
    pub code_cache: u64,
    /// Bytes, a power of two from 16 to 4096.
    pub alignment: u64,
    /// Bytes on either side of a block.
    pub redzone_size: u64,
    pub realloc_zero_bytes_frees: bool,
    /// Patterns of a soname and of a symbol that it must have.
    pub require_text_symbols: Vec<(String, String)>,
    pub trace_malloc: bool,
    pub stats: bool,
    /// A debugger may look at the program.
    pub debugger: bool,
    /// From this error on; 0: from the start.
    pub debugger_error: u64,
    /// From the start, whatever error comes first.
    pub debugger_at_start: bool,
    /// Begins the name of the socket for it.
    pub debugger_prefix: String,
    pub run_libc_freeres: bool,
    pub run_cxx_freeres: bool,
    pub soname_synonyms: Vec<String>,
    pub leak_check: LeakCheck,
    pub xtree_memory: XtreeMemory,
    pub xtree_memory_file: String,
    pub xtree_leak: bool,
    pub xtree_leak_file: String,
    pub leak_resolution: LeakResolution,
    pub show_leak_kinds: LeakKindSet,
    pub errors_for_leak_kinds: LeakKindSet,
    pub leak_check_heuristics: HeuristicSet,
    pub undef_value_errors: bool,
    pub track_origins: bool,
    pub partial_loads_ok: bool,
    /// Bytes of freed blocks held back from reuse.
    pub freelist_vol: u64,
    pub freelist_big_blocks: u64,
    pub keep_stacktraces: KeepStacktraces,
    pub show_mismatched_frees: bool,
    pub show_realloc_size_zero: bool,
    /// Report alignments and sizes that allocation functions reject or that are not portable; newer Valgrinds do.
    pub show_bad_alignments: bool,
    pub malloc_fill: Option<u8>,
    pub free_fill: Option<u8>,
    /// Address ranges without addressability errors, `start..end`.
    pub ignore_ranges: Vec<(u64, u64)>,
    /// Distances below the stack pointer that may be accessed, larger one first.
    pub ignore_range_below_sp: Option<(u64, u64)>,
    pub workaround_gcc296_bugs: bool,
    /// Machine-readable reports beside the log.
    pub reports: Vec<ReportRequest>,
    /// Directory that source paths are made relative to in reports for CI.
    pub source_root: Option<PathBuf>,
    /// Accepted options that have no meaning here; named under `-v`.
    pub ignored: Vec<String>,
    track_origins_given: bool,
}

/// No program has so many.
const NO_ERROR: u64 = 999_999_999;

impl Default for Options {
    fn default() -> Self {
        Options {
            compat: false,
            verbosity: 1,
            trace_children: false,
            trace_children_skip: Vec::new(),
            trace_children_skip_by_arg: Vec::new(),
            child_silent_after_fork: false,
            log: Destination::Stderr,
            xml: false,
            xml_destination: None,
            xml_user_comment: None,
            xml_protocol: 4,
            time_stamp: false,
            color: When::Auto,
            details: When::Auto,
            frames: FrameStyle::default(),
            num_callers: 12,
            merge_recursive_frames: 0,
            error_limit: true,
            error_exitcode: 0,
            exit_on_first_error: false,
            error_markers: None,
            show_error_list: false,
            default_suppressions: true,
            suppressions: Vec::new(),
            show_unused_suppressions: false,
            gen_suppressions: GenSuppressions::No,
            input_fd: 0,
            track_fds: TrackFds::No,
            read_inline_info: true,
            read_var_info: false,
            extra_debuginfo_path: None,
            main_stacksize: None,
            code_cache: 1 << 30,
            alignment: 16,
            redzone_size: 16,
            realloc_zero_bytes_frees: true,
            require_text_symbols: Vec::new(),
            trace_malloc: false,
            stats: false,
            debugger: true,
            debugger_error: NO_ERROR,
            debugger_at_start: false,
            debugger_prefix: "/tmp/vgdb-pipe".to_string(),
            run_libc_freeres: true,
            run_cxx_freeres: true,
            soname_synonyms: Vec::new(),
            leak_check: LeakCheck::Summary,
            xtree_memory: XtreeMemory::None,
            xtree_memory_file: "xtmemory.kcg.%p".to_string(),
            xtree_leak: false,
            xtree_leak_file: "xtleak.kcg.%p".to_string(),
            leak_resolution: LeakResolution::High,
            show_leak_kinds: LeakKindSet::DEFAULT,
            errors_for_leak_kinds: LeakKindSet::DEFAULT,
            leak_check_heuristics: HeuristicSet::ALL,
            undef_value_errors: true,
            track_origins: true,
            partial_loads_ok: true,
            freelist_vol: 20_000_000,
            freelist_big_blocks: 1_000_000,
            keep_stacktraces: KeepStacktraces::AllocAndFree,
            show_mismatched_frees: true,
            show_realloc_size_zero: false,
            show_bad_alignments: false,
            malloc_fill: None,
            free_fill: None,
            ignore_ranges: Vec::new(),
            ignore_range_below_sp: None,
            workaround_gcc296_bugs: false,
            reports: Vec::new(),
            source_root: None,
            ignored: Vec::new(),
            track_origins_given: false,
        }
    }
}

impl Options {
    pub fn is_quiet(&self) -> bool {
        self.verbosity < 1
    }
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    Run(Box<Run>),
    /// Print this on stdout and succeed: help, version.
    Print(String),
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Run {
    pub options: Options,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// Our own options as given on the command line, program excluded; what a followed child inherits.
    pub given: Vec<OsString>,
    /// Lines for the user, without prefix, to be shown when the log is open.
    pub notes: Vec<String>,
}

/// The program of a command line with a wrong option, if that is what has to be complained about first when there is none: so does Valgrind,
/// and `--leak-check full ./prog` ends with 127 there.
pub fn sought_first<'a>(argv0: &OsStr, args: &'a [OsString]) -> Option<&'a [OsString]> {
    let (compat, given, command) = divide(argv0, args);
    (compat && !command.is_empty() && other_tool(given).is_none()).then_some(command)
}

/// Are we called Valgrind? Our options; the program with its own.
fn divide<'a>(argv0: &OsStr, args: &'a [OsString]) -> (bool, &'a [OsString], &'a [OsString]) {
    let split = args.iter().position(|arg| !is_option(arg) || arg == "--").unwrap_or(args.len());
    let (given, rest) = args.split_at(split);
    let compat = is_valgrind_name(argv0) || given.iter().any(|arg| arg == "--compat=valgrind");
    (compat, given, if rest.first().is_some_and(|arg| arg == "--") { &rest[1..] } else { rest })
}

/// Parses a command line. `argv0` is the name we were called by, `args` what follows it.
pub fn parse(argv0: &OsStr, args: &[OsString], env: &dyn Env) -> Result<Invocation, UsageError> {
    let (compat, given, command) = divide(argv0, args);
    let voice = Voice::of_tool(compat);

    let mut options = Options { compat, ..Options::default() };
    let mut notes = Vec::new();
    let command_line_only = given.first().is_some_and(|arg| arg == "--command-line-only=yes");
    if !command_line_only {
        for source in sources::all(env, &mut notes) {
            apply_source(&mut options, &source, voice, &mut notes)?;
        }
    }
    // Valgrind looks for the program first; our own name rather says which option is misspelt.
    if compat && command.is_empty() && !given.iter().any(prints) {
        return Err(UsageError::no_program(voice));
    }
    if let Some(tool) = other_tool(given) {
        return Err(UsageError::other_tool(voice, &tool));
    }
    if let Some(text) = apply(&mut options, given, voice)? {
        return Ok(Invocation::Print(text));
    }
    if command.is_empty() {
        return Err(UsageError::no_program(voice));
    }
    check_together(&mut options, voice)?;
    if given.iter().filter(|word| word.to_string_lossy().starts_with("--log-file=")).count() > 1 {
        notes.push("Warning: --log-file was given more than once; only the last one is written.".to_string());
    }
    notes.extend(
        options
            .ignored
            .iter()
            .filter(|option| wants_debugger(option))
            .map(|option| format!("Warning: {option} has no effect; see --vgdb-error.")),
    );
    if options.freelist_big_blocks >= options.freelist_vol && !options.is_quiet() {
        notes.push(format!("Warning: --freelist-big-blocks value {} has no effect", options.freelist_big_blocks));
        notes.push(format!("as it is >= to --freelist-vol value {}", options.freelist_vol));
    }
    Ok(Invocation::Run(Box::new(Run { options, command: command.to_vec(), given: given.to_vec(), notes })))
}

/// Options that a program may set for itself while it runs: those that only reports depend on.
const CHANGEABLE: [&str; 18] = [
    "leak-check",
    "leak-resolution",
    "show-leak-kinds",
    "errors-for-leak-kinds",
    "show-reachable",
    "show-possibly-lost",
    "leak-check-heuristics",
    "error-limit",
    "gen-suppressions",
    "show-error-list",
    "exit-on-first-error",
    "show-below-main",
    "error-markers",
    "time-stamp",
    "merge-recursive-frames",
    "child-silent-after-fork",
    "quiet",
    "verbose",
];

/// Options that [`change`] takes, as they are written.
pub fn changeable() -> Vec<String> {
    CHANGEABLE.iter().map(|name| format!("--{name}")).chain(["-q", "-v", "-s"].map(str::to_owned)).collect()
}

/// Sets one option of a run in progress. `Err`: it is none of those; else what is wrong with its value, if anything.
pub fn change(options: &mut Options, word: &str) -> Result<Vec<String>, String> {
    let name = word.split('=').next().unwrap_or(word);
    let bare = name.trim_start_matches('-');
    if !CHANGEABLE.contains(&bare) && !["-q", "-v", "-s"].contains(&word) {
        return Err(match table::rows().any(|row| row.name == bare) {
            true => format!("Cannot change {name} option dynamically"),
            false => format!("Ignoring dynamic change to unrecognised option {word}"),
        });
    }
    let mut changed = options.clone();
    Ok(match apply(&mut changed, &[OsString::from(word)], Voice::Bare) {
        Ok(_) => {
            *options = changed;
            Vec::new()
        }
        Err(error) => error.lines,
    })
}

/// Applies the words of a file or variable. Where another tool's newer options may occur, each word stands or falls alone.
fn apply_source(options: &mut Options, source: &sources::Source, voice: Voice, notes: &mut Vec<String>) -> Result<(), UsageError> {
    if !source.lenient || options.compat {
        return apply(options, &source.words, voice).map(|_| ());
    }
    for word in &source.words {
        if let Err(error) = apply(options, std::slice::from_ref(word), voice) {
            notes.push(format!("{}: {}", source.name, error.headline()));
        }
    }
    Ok(())
}

/// Options whose user waits for something that will not happen.
fn wants_debugger(option: &str) -> bool {
    option.starts_with("--vgdb-stop-at=")
}

fn is_valgrind_name(argv0: &OsStr) -> bool {
    let path = std::path::Path::new(argv0);
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("valgrind"))
}

/// The tool that is asked for, if it is not ours; of several options the last one counts.
fn other_tool(given: &[OsString]) -> Option<String> {
    let last = given.iter().rev().find_map(|word| word.to_str()?.strip_prefix("--tool="));
    last.filter(|tool| *tool != "memcheck").map(str::to_string)
}

/// Does this option ask for a text instead of a run?
fn prints(arg: &OsString) -> bool {
    let name = arg.to_str().unwrap_or_default();
    let is_print = |row: &OptionRow| matches!(row.kind, Kind::Print(_));
    name == "-h"
        || name.starts_with("--explain=")
        || name.strip_prefix("--").is_some_and(|name| table::rows().any(|row| is_print(row) && row.name == name))
}

fn is_option(arg: &OsString) -> bool {
    arg.as_encoded_bytes().first() == Some(&b'-')
}

/// Applies a list of option words. `Some` text: the user wants to read that instead of running anything.
fn apply(options: &mut Options, words: &[OsString], voice: Voice) -> Result<Option<String>, UsageError> {
    let words: Vec<OsString> = words.iter().filter_map(strip_tool_prefix).collect();
    let mut command = table::command();
    // `-qv` is two letters to the parser, and no option to anybody else.
    if let Some(several) = words.iter().find(|word| is_bundle(word)) {
        return Err(UsageError::unknown_option(voice, &several.to_string_lossy()));
    }
    let matches = match command.try_get_matches_from_mut(&words) {
        Ok(matches) => matches,
        Err(_) => return Err(unknown(&mut command, &words, voice)),
    };
    for (row, given) in in_given_order(&matches) {
        if let Kind::Print(what) = row.kind {
            return Ok(Some(printed(what, options.compat, &mut command)));
        }
        let text = given.map(|value| value.to_string_lossy().into_owned());
        if let (Kind::Explain, Some(id)) = (row.kind, &text) {
            let why = || row.bad_value(Some(id), &format!("known are {}", rules::known()), voice);
            return rules::find(id).map(|rule| Some(rule.explanation())).ok_or_else(why);
        }
        let value = value::read(row, text.as_deref(), voice)?;
        (row.set)(options, value).map_err(|why| row.bad_value(text.as_deref(), &why, voice))?;
        if row.ignored {
            options.ignored.push(row.spelling(text.as_deref()));
        }
    }
    Ok(None)
}

fn is_bundle(word: &OsString) -> bool {
    matches!(word.as_encoded_bytes(), [b'-', first, _, ..] if *first != b'-')
}

/// `--memcheck:x` is `--x`; `--othertool:x` is nothing.
fn strip_tool_prefix(word: &OsString) -> Option<OsString> {
    let Some(text) = word.to_str() else {
        return Some(word.clone());
    };
    let name = text.split('=').next().unwrap_or(text);
    match name.strip_prefix("--").and_then(|name| name.split_once(':')) {
        Some(("memcheck", _)) => Some(format!("--{}", &text["--memcheck:".len()..]).into()),
        Some(_) => None,
        None => Some(word.clone()),
    }
}

/// All options that were given, in the order in which they were given, each with its value.
fn in_given_order(matches: &clap::ArgMatches) -> Vec<(&'static OptionRow, Option<OsString>)> {
    let mut found: Vec<(usize, &'static OptionRow, Option<OsString>)> = Vec::new();
    for row in table::rows() {
        if matches.value_source(row.name) != Some(clap::parser::ValueSource::CommandLine) {
            continue;
        }
        let indices = matches.indices_of(row.name).into_iter().flatten();
        if row.kind.takes_value() {
            let values = matches.get_many::<OsString>(row.name).into_iter().flatten().cloned().map(Some);
            found.extend(indices.zip(values).map(|(index, value)| (index, row, value)));
        } else {
            // A counting flag keeps one index only; it is idempotent or counts.
            let count = if matches!(row.kind, Kind::Print(_)) { 1 } else { usize::from(matches.get_count(row.name)) };
            let at = indices.last().unwrap_or(0);
            found.extend(std::iter::repeat_n((at, row, None), count));
        }
    }
    found.sort_by_key(|(index, _, _)| *index);
    found.into_iter().map(|(_, row, value)| (row, value)).collect()
}

/// Which word clap stumbled over: each is tried alone.
fn unknown(command: &mut clap::Command, words: &[OsString], voice: Voice) -> UsageError {
    let culprit = words.iter().find(|word| command.try_get_matches_from_mut([*word]).is_err());
    let text = culprit.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    UsageError::unknown_option(voice, &text)
}

fn printed(what: table::Printed, compat: bool, command: &mut clap::Command) -> String {
    match what {
        table::Printed::Help if compat => command.clone().override_usage("valgrind [options] prog-and-args").render_help().to_string(),
        table::Printed::Help => command.render_help().to_string(),
        table::Printed::Version if compat => format!("{COMPATIBLE_VERSION}\n"),
        table::Printed::Version => format!("memcheck {}\n", env!("CARGO_PKG_VERSION")),
    }
}

/// What can only be judged when all options are known. These complaints carry the process id, as they do in Valgrind.
fn check_together(options: &mut Options, voice: Voice) -> Result<(), UsageError> {
    let late = Voice::Process(std::process::id());
    if options.exit_on_first_error && options.error_exitcode == 0 {
        let why = "You must define a non nul exit error code, with --error-exitcode=...";
        return Err(UsageError::bad_option(late, "--exit-on-first-error=yes", &[why]));
    }
    if options.xml {
        check_xml(options, late)?;
    }
    if options.xtree_memory == XtreeMemory::Full && matches!(options.keep_stacktraces, KeepStacktraces::None | KeepStacktraces::Free) {
        let why = "To use --xtree-memory=full, you must keep at least the alloc stacktrace";
        return Err(UsageError::bad_option(late, "--keep-stacktraces", &[why]));
    }
    if !options.undef_value_errors {
        if options.track_origins_given && options.track_origins {
            let why = "--track-origins=yes has no effect when --undef-value-errors=no.";
            return Err(UsageError::bad_option(voice, "--track-origins=yes", &[why]));
        }
        options.track_origins = false;
    }
    Ok(())
}

fn check_xml(options: &mut Options, late: Voice) -> Result<(), UsageError> {
    if options.xml_destination.is_none() {
        let why = [
            "--xml=yes has been specified, but there is no XML output",
            "destination.  You must specify an XML output destination",
            "using --xml-fd, --xml-file or --xml-socket.",
        ];
        return Err(UsageError::bad_option(late, "--xml=yes, but no XML destination specified", &why));
    }
    if options.gen_suppressions == GenSuppressions::Ask {
        let why =
            ["When --xml=yes is specified, --gen-suppressions=no", "or --gen-suppressions=all is allowed, but not --gen-suppressions=yes."];
        return Err(UsageError::bad_option(late, "--xml=yes together with --gen-suppressions=yes", &why));
    }
    // A machine reads it: everything is listed, nothing is cut short.
    options.leak_check = LeakCheck::Full;
    options.error_limit = false;
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    pub use super::sources::testing::FakeEnv;
}

#[cfg(test)]
mod tests;
