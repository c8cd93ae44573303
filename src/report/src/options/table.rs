//! Every option there is: one row each.
//!
//! A row is: name, kind of value, default as the help shows it, what it does to [`Options`], help. The parser, the help text,
//! the checks of values and the suggestion for misspelt names all come from these rows. Rows marked ignored are accepted for
//! the sake of existing scripts; their values are still checked, and `-v` names them.

use clap::{Arg, ArgAction, Command};

use super::choices::{
    GenSuppressions, HeuristicSet, KeepStacktraces, LeakCheck, LeakKindSet, LeakResolution, ReportFormat, ReportRequest, TrackFds, When,
    XtreeMemory,
};
use super::value::Value;
use super::{Options, UsageError, Voice};
use crate::sink::Destination;

/// Kinds of values.
#[derive(Clone, Copy)]
pub enum Kind {
    /// No value; may repeat.
    Flag,
    /// No value; print something and stop.
    Print(Printed),
    /// A rule id; explain it and stop.
    Explain,
    /// `yes` or `no`.
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// Base 16, `0x` optional.
    Hex {
        min: i64,
        max: i64,
    },
    /// One of these words; any other makes the whole option unknown, as in Valgrind.
    Word(&'static [&'static str]),
    /// One of these words, and the complaint about others.
    WordOr(&'static [&'static str], &'static str),
    /// Comma list of these words, `all` or `none`.
    Set(&'static [&'static str]),
    /// Anything; the string is what the help calls it.
    Text(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    Help,
    Version,
}

pub struct OptionRow {
    /// Long name without dashes; one letter: short only.
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    /// `Err`: why the value is bad.
    pub set: fn(&mut Options, Value) -> Result<(), String>,
    pub help: &'static str,
    pub ignored: bool,
}

impl Kind {
    pub fn takes_value(self) -> bool {
        !matches!(self, Kind::Flag | Kind::Print(_))
    }
}

impl OptionRow {
    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// As the user wrote it.
    pub fn spelling(&self, text: Option<&str>) -> String {
        let dashes = if self.name.len() == 1 { "-" } else { "--" };
        match text {
            Some(text) => format!("{dashes}{}={text}", self.name),
            None => format!("{dashes}{}", self.name),
        }
    }

    /// As the help writes it.
    pub fn usage(&self) -> String {
        let choice = match self.kind {
            Kind::Word(words) | Kind::WordOr(words, _) => words.join("|"),
            _ => self.placeholder().to_string(),
        };
        self.spelling(self.kind.takes_value().then(|| format!("<{choice}>")).as_deref())
    }

    fn placeholder(&self) -> &'static str {
        match self.kind {
            Kind::Flag | Kind::Print(_) => "",
            Kind::Bool => "no|yes",
            Kind::Int { .. } => "number",
            Kind::Hex { .. } => "0xHH",
            Kind::Word(_) | Kind::WordOr(..) => "choice",
            Kind::Set(_) => "kind1,kind2,...",
            Kind::Explain => "rule",
            Kind::Text(name) => name,
        }
    }

    pub fn bad_value(&self, text: Option<&str>, why: &str, voice: Voice) -> UsageError {
        UsageError::bad_option(voice, &self.spelling(text), &[why])
    }

    fn arg(&self) -> Arg {
        let default = if self.default.is_empty() { String::new() } else { format!(" [{}]", self.default) };
        let choices = match self.kind {
            Kind::Set(words) => format!(" (kinds: {}, all, none)", words.join(", ")),
            Kind::Word(words) | Kind::WordOr(words, _) => format!(" ({})", words.join("|")),
            _ => String::new(),
        };
        let mut arg = Arg::new(self.name).help(format!("{}{choices}{default}", self.help)).hide(self.ignored);
        if self.name.len() > 1 {
            arg = arg.long(self.name);
        }
        if let Some(letter) = self.short.or(self.name.chars().next().filter(|_| self.name.len() == 1)) {
            arg = arg.short(letter);
        }
        match self.kind {
            Kind::Print(_) => return arg.action(ArgAction::SetTrue),
            Kind::Flag => return arg.action(ArgAction::Count),
            _ => {}
        }
        arg.action(ArgAction::Append)
            .num_args(1)
            .require_equals(true)
            .value_name(self.placeholder())
            .value_parser(clap::value_parser!(std::ffi::OsString))
    }
}

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static OptionRow> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The parser. It sees our own options only: the caller has cut off the program.
pub fn command() -> Command {
    let mut command = Command::new("memcheck")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .override_usage("memcheck [options] prog-and-args")
        .about("Finds memory errors in unmodified Linux x86-64 programs");
    for (heading, rows) in GROUPS {
        command = command.args(rows.iter().map(|row| row.arg().help_heading(*heading)));
    }
    command
}

type Setter = fn(&mut Options, Value) -> Result<(), String>;

const fn row(name: &'static str, kind: Kind, default: &'static str, set: Setter, help: &'static str) -> OptionRow {
    OptionRow { name, short: None, kind, default, set, help, ignored: false }
}

const fn ignored(name: &'static str, kind: Kind) -> OptionRow {
    OptionRow { name, short: None, kind, default: "", set: |_, _| Ok(()), help: "accepted and ignored", ignored: true }
}

/// `set!(field, yes)`: the field becomes the value read that way.
macro_rules! set {
    ($($field:ident).+, $read:ident) => { |o, v| { o.$($field).+ = v.$read(); Ok(()) } };
    ($($field:ident).+, $read:ident, $map:expr) => { |o, v| { o.$($field).+ = $map(v.$read()); Ok(()) } };
}

/// The order of words in the rows of [`When`].
fn when(at: usize) -> When {
    [When::Auto, When::Always, When::Never][at]
}

/// The limits of options that are any `int`.
pub const ANY_INT: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
const INT: Kind = Kind::Int { min: ANY_INT.0, max: ANY_INT.1 };
const SIZE: Kind = Kind::Int { min: 0, max: 10_000_000_000 };
const ANY_SIZE: Kind = Kind::Int { min: 0, max: i64::MAX };
const BYTE: Kind = Kind::Hex { min: 0, max: 255 };
const NUMBER: Kind = Kind::Text("number");

/// Headings of the help and their rows.
#[rustfmt::skip]
pub const GROUPS: &[(&str, &[OptionRow])] = &[
    ("General", GENERAL),
    ("Processes", PROCESSES),
    ("Output", OUTPUT),
    ("Errors and suppressions", ERRORS),
    ("Stack traces and debug information", TRACES),
    ("Leaks", LEAKS),
    ("Values and heap", VALUES),
    ("Program behaviour", BEHAVIOUR),
    ("Accepted for compatibility", IGNORED),
];

#[rustfmt::skip]
const GENERAL: &[OptionRow] = &[
    row("help", Kind::Print(Printed::Help), "", |_, _| Ok(()), "show this message").short('h'),
    row("help-debug", Kind::Print(Printed::Help), "", |_, _| Ok(()), "the same"),
    row("help-dyn-options", Kind::Print(Printed::Help), "", |_, _| Ok(()), "the same"),
    row("explain", Kind::Explain, "", |_, _| Ok(()), "say what a kind of error means, use-after-free for instance"),
    row("version", Kind::Print(Printed::Version), "", |_, _| Ok(()), "show version"),
    row("quiet", Kind::Flag, "", |o, _| { o.verbosity -= 1; Ok(()) }, "print errors only").short('q'),
    row("verbose", Kind::Flag, "", |o, _| { o.verbosity += 1; Ok(()) }, "show more; may be repeated").short('v'),
    row("tool", Kind::Text("name"), "memcheck", |_, _| Ok(()), "only memcheck is available"),
    row("compat", Kind::Word(&["valgrind"]), "", set!(compat, word, |_| true), "behave as Valgrind where the two differ"),
    row("command-line-only", Kind::Bool, "no", |_, _| Ok(()), "first option only: read no options file and no environment variable"),
];

#[rustfmt::skip]
const PROCESSES: &[OptionRow] = &[
    row("trace-children", Kind::Bool, "no", set!(trace_children, yes), "follow programs started by the program (execve)?"),
    row("trace-children-skip", Kind::Text("patt1,patt2,..."), "", |o, v| { extend_list(&mut o.trace_children_skip, v); Ok(()) }, "executables not to follow"),
    row("trace-children-skip-by-arg", Kind::Text("patt1,patt2,..."), "", |o, v| { extend_list(&mut o.trace_children_skip_by_arg, v); Ok(()) }, "the same, looking at the arguments"),
    row("child-silent-after-fork", Kind::Bool, "no", set!(child_silent_after_fork, yes), "no output of children between fork and exec?"),
    row("track-fds", Kind::WordOr(&["no", "yes", "all", "bad"], "Bad argument, should be 'yes', 'all' or 'no'"), "no",
        set!(track_fds, word, |at: usize| [TrackFds::No, TrackFds::Yes, TrackFds::All, TrackFds::Bad][at]), "report open file descriptors"),
];

#[rustfmt::skip]
const OUTPUT: &[OptionRow] = &[
    row("log-fd", INT, "2=stderr", set!(log, number, |fd: i64| Destination::descriptor(fd as i32)), "messages to this file descriptor"),
    row("log-file", Kind::Text("file"), "", set!(log, text, Destination::File), "messages to this file; %p process, %n number, %q{VAR} environment"),
    row("log-socket", Kind::Text("ipaddr:port"), "", set!(log, text, Destination::Socket), "messages to this socket"),
    row("time-stamp", Kind::Bool, "no", set!(time_stamp, yes), "time in front of each line?"),
    row("color", Kind::Word(&["auto", "always", "never"]), "auto", set!(color, word, when), "colours? auto: on a terminal"),
    row("details", Kind::Word(&["auto", "yes", "no"]), "auto", set!(details, word, when), "source lines and pictures of blocks with each error? auto: on a terminal"),
    row("error-markers", Kind::Text("begin,end"), "none", set_markers, "lines around each error"),
    row("xml", Kind::Bool, "no", set!(xml, yes), "errors as XML"),
    row("xml-fd", INT, "", set!(xml_destination, number, |fd: i64| (fd >= 0).then(|| Destination::descriptor(fd as i32))), "XML to this file descriptor"),
    row("xml-file", Kind::Text("file"), "", set!(xml_destination, text, |file| Some(Destination::File(file))), "XML to this file"),
    row("xml-socket", Kind::Text("ipaddr:port"), "", set!(xml_destination, text, |spec| Some(Destination::Socket(spec))), "XML to this socket"),
    row("xml-user-comment", Kind::Text("STR"), "", set!(xml_user_comment, text, Some), "copied verbatim into the XML"),
    row("xml-protocol", Kind::Word(&["4", "6"]), "4", set!(xml_protocol, word, |at: usize| [4, 6][at]), "version of the XML format"),
    row("report", Kind::Text("format[:file]"), "", add_report, "one more report: json, github or sarif; may be repeated"),
    row("source-root", Kind::Text("dir"), "", set!(source_root, text, |dir: String| Some(dir.into())), "paths in such reports are relative to this"),
];

#[rustfmt::skip]
const ERRORS: &[OptionRow] = &[
    row("error-limit", Kind::Bool, "yes", set!(error_limit, yes), "stop showing new errors if too many?"),
    row("error-exitcode", INT, "0=disable", set!(error_exitcode, number, |n: i64| n as i32), "exit status if errors were found"),
    row("exit-on-first-error", Kind::Bool, "no", set!(exit_on_first_error, yes), "stop at the first error, with the status of --error-exitcode?"),
    row("show-error-list", Kind::Bool, "no", set!(show_error_list, yes), "list errors and used suppressions at exit?"),
    row("s", Kind::Flag, "", |o, _| { o.show_error_list = true; Ok(()) }, "same as --show-error-list=yes"),
    row("default-suppressions", Kind::Bool, "yes", set!(default_suppressions, yes), "use the suppressions that come with the tool?"),
    row("suppressions", Kind::Text("filename"), "", |o, v| { o.suppressions.push(v.text().into()); Ok(()) }, "hide the errors described in this file; may be repeated"),
    row("gen-suppressions", Kind::Word(&["no", "yes", "all"]), "no",
        set!(gen_suppressions, word, |at: usize| [GenSuppressions::No, GenSuppressions::Ask, GenSuppressions::All][at]), "print a suppression for each error?"),
    row("show-unused-suppressions", Kind::Bool, "no", set!(show_unused_suppressions, yes), "list suppressions that hid nothing?"),
    row("input-fd", INT, "0=stdin", set!(input_fd, number, |n: i64| n as i32), "where answers to --gen-suppressions=yes come from"),
];

#[rustfmt::skip]
const TRACES: &[OptionRow] = &[
    row("num-callers", Kind::Int { min: 1, max: 500 }, "12", set!(num_callers, unsigned, |n| n as usize), "callers shown in stack traces"),
    row("merge-recursive-frames", Kind::Int { min: 0, max: 500 }, "0", set!(merge_recursive_frames, unsigned, |n| n as usize), "collapse recursion of up to so many functions"),
    row("demangle", Kind::Bool, "yes", set!(frames.demangle, yes), "C++ and Rust names as in the source?"),
    row("show-below-main", Kind::Bool, "no", set!(frames.show_below_main, yes), "continue stack traces below main()?"),
    row("fullpath-after", Kind::Text("string"), "", |o, v| { o.frames.fullpath_after.push(v.text()); Ok(()) }, "full source paths, or their part after this; may be repeated"),
    row("read-inline-info", Kind::Bool, "yes", set!(read_inline_info, yes), "show inlined functions?"),
    row("read-var-info", Kind::Bool, "no", set!(read_var_info, yes), "name variables?"),
    row("extra-debuginfo-path", Kind::Text("path"), "", set!(extra_debuginfo_path, text, |path: String| Some(path.into())), "search here for debug information too"),
];

#[rustfmt::skip]
const LEAKS: &[OptionRow] = &[
    row("leak-check", Kind::Word(&["no", "summary", "yes", "full"]), "summary",
        set!(leak_check, word, |at: usize| [LeakCheck::No, LeakCheck::Summary, LeakCheck::Full, LeakCheck::Full][at]), "search for memory leaks at exit?"),
    row("leak-resolution", Kind::Word(&["low", "med", "high"]), "high",
        set!(leak_resolution, word, |at: usize| [LeakResolution::Low, LeakResolution::Med, LeakResolution::High][at]), "how much must agree for leaks to be merged"),
    row("show-leak-kinds", Kind::Set(LeakKindSet::WORDS), "definite,possible", set!(show_leak_kinds, bits, LeakKindSet), "which leaks to show"),
    row("errors-for-leak-kinds", Kind::Set(LeakKindSet::WORDS), "definite,possible", set!(errors_for_leak_kinds, bits, LeakKindSet), "which leaks are errors"),
    row("show-reachable", Kind::Bool, "", |o, v| { o.show_leak_kinds = if v.yes() { LeakKindSet::ALL } else { o.show_leak_kinds.with(crate::error::LeakKind::Reachable, false) }; Ok(()) }, "old spelling of --show-leak-kinds=all"),
    row("show-possibly-lost", Kind::Bool, "", |o, v| { o.show_leak_kinds = o.show_leak_kinds.with(crate::error::LeakKind::Possible, v.yes()); Ok(()) }, "show possibly lost blocks?"),
    row("leak-check-heuristics", Kind::Set(HeuristicSet::WORDS), "all", set!(leak_check_heuristics, bits, HeuristicSet), "which inner pointers keep a block reachable"),
    row("xtree-memory", Kind::Word(&["none", "allocs", "full"]), "none",
        set!(xtree_memory, word, |at: usize| [XtreeMemory::None, XtreeMemory::Allocs, XtreeMemory::Full][at]), "write what the heap holds at exit, or all that was allocated and freed, to a file, as a tree of calls?"),
    row("xtree-memory-file", Kind::Text("file"), "xtmemory.kcg.%p", set!(xtree_memory_file, text), "name of that file; with .ms in it, it is for ms_print, else for kcachegrind"),
    row("xtree-leak", Kind::Bool, "no", |o, v| {
        o.xtree_leak = v.yes();
        if o.xtree_leak { (o.leak_check, o.show_leak_kinds) = (LeakCheck::Full, LeakKindSet::ALL); }
        Ok(())
    }, "write the leaks found at exit to a file, as a tree of calls that kcachegrind shows?"),
    row("xtree-leak-file", Kind::Text("file"), "xtleak.kcg.%p", set!(xtree_leak_file, text), "name of that file"),
    row("trace-malloc", Kind::Bool, "no", set!(trace_malloc, yes), "print every allocation and what is freed?"),
    row("run-libc-freeres", Kind::Bool, "yes", set!(run_libc_freeres, yes), "free libc's own memory at exit?"),
    row("run-cxx-freeres", Kind::Bool, "yes", set!(run_cxx_freeres, yes), "free libstdc++'s own memory at exit?"),
];

#[rustfmt::skip]
const VALUES: &[OptionRow] = &[
    row("undef-value-errors", Kind::Bool, "yes", set!(undef_value_errors, yes), "check for undefined values?"),
    row("track-origins", Kind::Bool, "yes", |o, v| { o.track_origins = v.yes(); o.track_origins_given = true; Ok(()) }, "show where undefined values come from?"),
    row("partial-loads-ok", Kind::Bool, "yes", set!(partial_loads_ok, yes), "allow aligned loads that are only partly outside a block?"),
    row("show-mismatched-frees", Kind::Bool, "yes", set!(show_mismatched_frees, yes), "report free of new'ed blocks and the like?"),
    row("show-realloc-size-zero", Kind::Bool, "no", set!(show_realloc_size_zero, yes), "report realloc to size zero?"),
    row("show-bad-alignments", Kind::Bool, "no", set!(show_bad_alignments, yes), "report bad alignments and sizes in allocations?"),
    row("realloc-zero-bytes-frees", Kind::Bool, "yes", set!(realloc_zero_bytes_frees, yes), "does realloc to size zero free?"),
    row("freelist-vol", SIZE, "20000000", set!(freelist_vol, unsigned), "bytes of freed blocks held back, with their red zones"),
    row("freelist-big-blocks", SIZE, "1000000", set!(freelist_big_blocks, unsigned), "blocks of this size are released first"),
    row("keep-stacktraces", Kind::Word(&["alloc", "free", "alloc-and-free", "alloc-then-free", "none"]), "alloc-and-free",
        set!(keep_stacktraces, word, |at: usize| [KeepStacktraces::Alloc, KeepStacktraces::Free, KeepStacktraces::AllocAndFree, KeepStacktraces::AllocThenFree, KeepStacktraces::None][at]), "which stacks blocks remember"),
    row("malloc-fill", BYTE, "none", set!(malloc_fill, unsigned, |n| u8::try_from(n).ok()), "fill new blocks with this byte"),
    row("free-fill", BYTE, "none", set!(free_fill, unsigned, |n| u8::try_from(n).ok()), "fill freed blocks with this byte"),
    row("alignment", ANY_SIZE, "16", set_alignment, "least alignment of heap blocks"),
    row("redzone-size", Kind::Int { min: 0, max: 4096 }, "16", set!(redzone_size, unsigned), "guard bytes around heap blocks"),
    row("ignore-ranges", Kind::Text("0xPP-0xQQ,..."), "none", set_ranges, "no addressing errors in these ranges"),
    row("ignore-range-below-sp", Kind::Text("number-number"), "none", set_below_sp, "no errors at these distances below the stack pointer"),
    row("workaround-gcc296-bugs", Kind::Bool, "no", set!(workaround_gcc296_bugs, yes), "no errors just below the stack pointer?"),
];

#[rustfmt::skip]
const BEHAVIOUR: &[OptionRow] = &[
    // Switches of stacks are told from frames by mappings, not by size.
    ignored("max-stackframe", INT),
    row("main-stacksize", ANY_SIZE, "from ulimit -s", set!(main_stacksize, unsigned, Some), "size of the main thread's stack"),
    row("code-cache", Kind::Int { min: 0x1_0000, max: 1 << 30 }, "1073741824", set!(code_cache, unsigned), "bytes of translated code after which it is made anew"),
    row("soname-synonyms", Kind::Text("syn1=pattern1,..."), "", |o, v| { extend_list(&mut o.soname_synonyms, v); Ok(()) }, "where malloc is: somalloc=NONE, somalloc=libxyz*"),
    row("vgdb", Kind::Word(&["no", "yes", "full"]), "yes", set!(debugger, word, |at: usize| at > 0), "may gdb look at the program?"),
    row("vgdb-error", INT, "999999999", set!(debugger_error, number, |n: i64| u64::try_from(n).unwrap_or(super::NO_ERROR)), "wait for gdb after this error and those behind it; 0: from the start"),
    row("vgdb-prefix", Kind::Text("prefix"), "/tmp/vgdb-pipe", set!(debugger_prefix, text), "begins the name of the socket for gdb"),
    row("stats", Kind::Bool, "no", set!(stats, yes), "say at the end how much was translated, and how much was about undefined data?"),
];

#[rustfmt::skip]
const IGNORED: &[OptionRow] = &[
    ignored("d", Kind::Flag),
    ignored("keep-debuginfo", Kind::Bool),
    ignored("enable-debuginfod", Kind::Bool),
    ignored("expensive-definedness-checks", Kind::Word(&["no", "auto", "yes"])),
    ignored("sim-hints", Kind::Set(SIM_HINTS)),
    ignored("smc-check", Kind::Word(&["none", "stack", "all", "all-non-file"])),
    ignored("sigill-diagnostics", Kind::Bool),
    ignored("modify-fds", Kind::Word(&["no", "yes", "high", "strict"])),
    ignored("debuginfo-server", Kind::Text("ipaddr:port")),
    ignored("allow-mismatched-debuginfo", Kind::Bool),
    ignored("fair-sched", Kind::WordOr(&["no", "yes", "try"], "Bad argument, should be 'yes', 'try' or 'no'")),
    ignored("scheduling-quantum", INT),
    row("vgdb-stop-at", Kind::Set(STOPS), "none", set_stops, "wait for gdb there; only startup has an effect"),
    ignored("vgdb-poll", INT),
    ignored("vgdb-shadow-registers", Kind::Bool),
    row("require-text-symbol", Kind::Text(":soname:symbol"), "", set_symbol, "stop when this library has no such symbol"),
    ignored("max-threads", INT),
    ignored("show-emwarns", Kind::Bool),
    ignored("kernel-variant", Kind::Set(&["bproc", "android-no-hw-tls", "android-gpu-sgx5xx", "android-gpu-adreno3xx"])),
    ignored("num-transtab-sectors", Kind::Int { min: 2, max: 48 }),
    ignored("avg-transtab-entry-size", Kind::Int { min: 50, max: 5000 }),
    OptionRow { set: check_minaddr, ..ignored("aspace-minaddr", Kind::Hex { min: 0, max: i64::MAX }) },
    ignored("valgrind-stacksize", Kind::Int { min: 8192, max: 10_485_760 }),
    ignored("max-guard-pages", INT),
    ignored("dsymutil", Kind::Bool),
    ignored("resync-filter", Kind::Word(&["no", "yes", "verbose"])),
    ignored("unw-stack-scan-thresh", INT),
    ignored("unw-stack-scan-frames", INT),
    ignored("sanity-level", INT),
    ignored("progress-interval", Kind::Int { min: 0, max: 3600 }),
    ignored("profile-heap", Kind::Bool),
    ignored("profile-flags", NUMBER),
    ignored("profile-interval", NUMBER),
    ignored("core-redzone-size", ANY_SIZE),
    ignored("wait-for-gdb", Kind::Bool),
    ignored("sym-offsets", Kind::Bool),
    ignored("trace-flags", NUMBER),
    ignored("trace-notbelow", NUMBER),
    ignored("trace-notabove", NUMBER),
    ignored("trace-syscalls", Kind::Bool),
    ignored("trace-signals", Kind::Bool),
    ignored("trace-symtab", Kind::Bool),
    ignored("trace-symtab-patt", Kind::Text("pattern")),
    ignored("trace-cfi", Kind::Bool),
    ignored("trace-redir", Kind::Bool),
    ignored("trace-sched", Kind::Bool),
    ignored("debug-dump", Kind::Word(&["syms", "line", "frames"])),
    ignored("vex-iropt-verbosity", Kind::Int { min: 0, max: 10 }),
    ignored("vex-iropt-level", Kind::Int { min: 0, max: 2 }),
    ignored("vex-iropt-unroll-thresh", Kind::Int { min: 0, max: 400 }),
    ignored("vex-iropt-register-updates", Kind::Word(UPDATES)),
    ignored("px-default", Kind::Word(UPDATES)),
    ignored("px-file-backed", Kind::Word(UPDATES)),
    ignored("vex-guest-max-insns", Kind::Int { min: 1, max: 100 }),
    ignored("vex-guest-chase-thresh", Kind::Int { min: 0, max: 99 }),
    ignored("vex-guest-chase", Kind::Bool),
    ignored("vex-regalloc-version", Kind::Int { min: 2, max: 3 }),
];

const SIM_HINTS: &[&str] =
    &["lax-ioctls", "no-nptl-pthread-stackcache", "lax-doors", "fuse-compatible", "enable-outer", "no-inner-prefix", "fallback-llsc"];

const UPDATES: &[&str] = &["sp-at-mem-access", "unwindregs-at-mem-access", "allregs-at-mem-access", "allregs-at-each-insn"];

/// `:soname:symbol`, where the first letter is the separator.
fn set_symbol(options: &mut Options, value: Value) -> Result<(), String> {
    let text = value.text();
    let mut letters = text.chars();
    let parts = letters.next().and_then(|separator| letters.as_str().split_once(separator));
    let good = parts.filter(|(soname, symbol)| !soname.is_empty() && !symbol.is_empty());
    let (soname, symbol) = good.ok_or("Invalid --require-text-symbol= specification.")?;
    options.require_text_symbols.push((soname.to_owned(), symbol.to_owned()));
    Ok(())
}

fn check_minaddr(_: &mut Options, value: Value) -> Result<(), String> {
    let at = value.unsigned();
    if (0x1000..=0x2_0000_0000).contains(&at) && at.is_multiple_of(4096) {
        return Ok(());
    }
    Err("Must be a page aligned address between 0x1000 and 0x200000000".to_string())
}

fn extend_list(list: &mut Vec<String>, value: Value) {
    list.extend(value.text().split(',').filter(|part| !part.is_empty()).map(str::to_string));
}

fn set_markers(options: &mut Options, value: Value) -> Result<(), String> {
    let text = value.text();
    let (begin, end) = text.split_once(',').unwrap_or((&text, ""));
    options.error_markers = (!text.is_empty()).then(|| (begin.to_string(), end.to_string()));
    Ok(())
}

fn set_alignment(options: &mut Options, value: Value) -> Result<(), String> {
    let alignment = value.unsigned();
    if !(16..=4096).contains(&alignment) || !alignment.is_power_of_two() {
        return Err("Alignment must be a power of 2 in the range 16..4096.".to_string());
    }
    options.alignment = alignment;
    Ok(())
}

const STOPS: &[&str] = &["startup", "exit", "abexit", "valgrindabexit"];

/// The program stands still at its start; at its end it does not.
fn set_stops(options: &mut Options, value: Value) -> Result<(), String> {
    let bits = value.bits();
    options.debugger_at_start = bits & 1 != 0;
    let other = STOPS.iter().enumerate().skip(1).filter(|(at, _)| bits >> at & 1 != 0);
    options.ignored.extend(other.map(|(_, word)| format!("--vgdb-stop-at={word}")));
    Ok(())
}

fn add_report(options: &mut Options, value: Value) -> Result<(), String> {
    let text = value.text();
    let (name, file) = text.split_once(':').map_or((text.as_str(), None), |(name, file)| (name, Some(file.to_string())));
    let known = ReportFormat::WORDS.iter().find(|(word, _)| *word == name);
    let (_, format) = known.ok_or_else(|| format!("unknown format '{name}'; known are json, github and sarif"))?;
    options.reports.push(ReportRequest { format: *format, file });
    Ok(())
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn set_ranges(options: &mut Options, value: Value) -> Result<(), String> {
    const WHY: &str = "--ignore-ranges: invalid syntax, or end <= start in range";
    for part in value.text().split(',') {
        let range = part.split_once('-').and_then(|(start, end)| Some((hex(start)?, hex(end)?)));
        options.ignore_ranges.push(range.filter(|(start, end)| start < end).ok_or(WHY)?);
    }
    Ok(())
}

fn set_below_sp(options: &mut Options, value: Value) -> Result<(), String> {
    let text = value.text();
    let pair = text.split_once('-').and_then(|(far, near)| Some((far.parse::<u64>().ok()?, near.parse::<u64>().ok()?)));
    let (far, near) = pair.ok_or("--ignore-range-below-sp: invalid syntax. Expected \"...=decimalnumber-decimalnumber\"")?;
    if far <= near {
        return Err(format!("--ignore-range-below-sp: invalid offsets (the first must be larger): {far} and {near}"));
    }
    options.ignore_range_below_sp = Some((far, near));
    Ok(())
}
