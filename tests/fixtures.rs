//! Every program under `fixtures/` is compiled, run under memcheck, and its findings compared with what its source says.
//!
//! A fixture is one C, C++ or Rust file. Directives at its top, one per line:
//!
//! | directive | meaning |
//! |---|---|
//! | `//@ cflags: -g -O0` | compiler flags; each further `cflags` line is one more build of the same program. Default `-g -O0`, for Rust `-g` |
//! | `//@ args: a b` | arguments of the program |
//! | `//@ rounds: 2` | the argument of a program that repeats itself; the variable `LOAD=50` makes it 50 times as much |
//! | `//@ options: --x=y` | further options of memcheck |
//! | `//@ exit: 3` or `SIGSEGV` | how the run ends under memcheck. Default 0; for programs without findings: as natively |
//! | `//@ needs: X` | `musl-gcc`, `clang` (compiled with it), `static` (needs libc.a), `cpu:FLAG`, `header:FILE`, `program:NAME`; skipped with a message otherwise |
//! | `//@ skip-native` | a program without findings whose native run is not comparable |
//! | `//@ valgrind: WHY` | Valgrind 3.19 is known to fail this file, and why; it must fail when `MEMCHECK=valgrind` |
//!
//! Annotations, on the line of the innermost frame inside this file; several on one line repeat the mark:
//!
//! ```text
//! p[10] = 1;            //~ invalid-write 4: 0 bytes after a block of size 40
//! counter++;            //~ invalid-read|invalid-write 4      (either kind)
//! printf("%d", x);      //~ cond //~? value 8                  (`~?`: allowed, not required)
//! q = malloc(8);        //~ leak definite 8
//! ```
//!
//! A word for the kind, an optional detail, and after a colon a text that headline or notes must contain. One annotation stands for one or
//! more findings. Every finding must be annotated and every annotation found; leak records count only if the file names their kind.
//! A file without required annotations is a clean program: it also runs natively, and its output and end must be the same, and definite and
//! possible leaks are failures too. `FIXTURE=text` selects files by a part of their path.

mod common;

use common::report::{Finding, Report};
use common::run::{Ended, LIMIT, Outcome, Run, parse_ended};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one source file asks for.
#[derive(Default)]
struct Fixture {
    path: PathBuf,
    /// `family/name.c`
    name: String,
    builds: Vec<Vec<String>>,
    args: Vec<String>,
    options: Vec<String>,
    exit: Option<Ended>,
    needs: Vec<String>,
    skip_native: bool,
    reference_fails: bool,
    annotations: Vec<Annotation>,
}

#[derive(Debug, Clone, PartialEq)]
struct Annotation {
    line: u32,
    required: bool,
    kinds: Vec<String>,
    detail: String,
    text: String,
}

impl Annotation {
    /// `invalid-write 4: 0 bytes after a block`
    fn parse(line: u32, required: bool, source: &str) -> Annotation {
        let (head, text) = source.split_once(": ").unwrap_or((source, ""));
        let (kinds, detail) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        let kinds = kinds.split('|').map(str::to_owned).collect();
        Annotation { line, required, kinds, detail: detail.trim().to_owned(), text: text.trim().to_owned() }
    }

    fn accepts(&self, finding: &Finding, file: &str) -> bool {
        finding.line_in(file) == Some(self.line)
            && self.kinds.iter().any(|kind| kind == finding.kind)
            && (self.detail.is_empty() || self.detail == finding.detail || finding.detail.starts_with(&format!("{} ", self.detail)))
            && (self.text.is_empty() || finding.mentions(&self.text))
    }
}

impl Fixture {
    fn read(path: &Path) -> Result<Fixture, String> {
        let source = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let family = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = format!("{family}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let mut fixture = Fixture { path: path.to_owned(), name, ..Fixture::default() };
        for (index, line) in source.lines().enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            if let Some(directive) = line.trim_start().strip_prefix("//@ ") {
                fixture.directive(directive).map_err(|text| format!("{}:{number}: {text}", fixture.name))?;
            } else {
                fixture.annotations.extend(annotations(number, line));
            }
        }
        if fixture.builds.is_empty() {
            fixture.builds.push(words(if fixture.name.ends_with(".rs") { "-g" } else { "-g -O0" }));
        }
        Ok(fixture)
    }

    fn directive(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.trim();
        match key.trim() {
            "cflags" => self.builds.push(words(value)),
            "args" => self.args = words(value),
            "rounds" => {
                let rounds: u32 = value.parse().map_err(|_| format!("not a number '{value}'"))?;
                self.args = vec![(rounds * times_as_long()).to_string()];
            }
            "options" => self.options = words(value),
            "exit" => self.exit = Some(parse_ended(value).ok_or(format!("unknown end '{value}'"))?),
            "needs" => self.needs.extend(words(value)),
            "skip-native" => self.skip_native = true,
            "valgrind" => self.reference_fails = true,
            other => return Err(format!("unknown directive '{other}'")),
        }
        Ok(())
    }

    fn is_clean(&self) -> bool {
        !self.annotations.iter().any(|annotation| annotation.required)
    }

    fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn compiler(&self) -> &str {
        let named = self.needs.iter().find(|need| matches!(need.as_str(), "musl-gcc" | "clang"));
        let by_suffix = match self.path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("cpp") => "g++",
            Some("rs") => "rustc",
            _ => "gcc",
        };
        named.map_or(by_suffix, String::as_str)
    }

    /// Why this fixture cannot run here.
    fn missing(&self) -> Option<String> {
        if common::find_program(self.compiler()).is_none() {
            return Some(format!("no {}", self.compiler()));
        }
        self.needs.iter().find_map(|need| match need.as_str() {
            "static" => (!has_static_libc()).then(|| "no libc.a".to_owned()),
            need => match need.split_once(':') {
                Some(("cpu", flag)) => (!has_cpu_flag(flag)).then(|| format!("no {flag} here")),
                Some(("program", name)) => common::find_program(name).is_none().then(|| format!("no {name}")),
                Some(("header", file)) => (!Path::new("/usr/include").join(file).exists()).then(|| format!("no {file}")),
                _ => None,
            },
        })
    }
}

/// How many times as long as usual programs that repeat themselves run; their time limit grows with it.
fn times_as_long() -> u32 {
    std::env::var("LOAD").ok().and_then(|times| times.parse().ok()).unwrap_or(1).max(1)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn annotations(number: u32, line: &str) -> Vec<Annotation> {
    let marks = line.split("//~").skip(1);
    let parse = |mark: &str| match mark.strip_prefix('?') {
        Some(rest) => Annotation::parse(number, false, rest.trim()),
        None => Annotation::parse(number, true, mark.trim()),
    };
    marks.map(parse).collect()
}

fn has_static_libc() -> bool {
    let output = Command::new("gcc").arg("-print-file-name=libc.a").output();
    output.is_ok_and(|output| output.stdout.starts_with(b"/"))
}

fn has_cpu_flag(flag: &str) -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split(' ').any(|word| word == flag)
}

/// Compiles one build, or finds the program of an earlier test run that was made by the same command from the same source.
fn compile(fixture: &Fixture, flags: &[String], index: usize) -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs").join(fixture.name.replace('/', "."));
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let exe = dir.join(format!("build{index}"));
    let stamp = dir.join(format!("build{index}.made-by"));
    let mut command = Command::new(fixture.compiler());
    command.arg(&fixture.path).arg("-o").arg(&exe).args(flags);
    command.arg(if fixture.name.ends_with(".rs") { "-Awarnings" } else { "-w" });
    let key = format!("{command:?}\n{}", std::fs::read_to_string(&fixture.path).unwrap_or_default());
    if exe.exists() && std::fs::read_to_string(&stamp).is_ok_and(|text| text == key) {
        return Ok(exe);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("does not compile:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::write(&stamp, key).map_err(|error| error.to_string())?;
    Ok(exe)
}

/// Compiles, runs and judges one build of a fixture.
fn check_build(fixture: &Fixture, flags: &[String], index: usize) -> Result<(), String> {
    let exe = compile(fixture, flags, index)?;
    let dir = common::scratch(&format!("runs/{}.{index}", fixture.name.replace('/', ".")));
    let log = dir.join("log");
    let outcome = Run::new(common::memcheck(), &dir)
        .args(["--leak-check=full", "--show-leak-kinds=all"])
        .arg(format!("--log-file={}", log.display()))
        .args(common::further_options())
        .args(&fixture.options)
        .arg(&exe)
        .args(&fixture.args)
        .limit(LIMIT * times_as_long())
        .finish("checked");
    let log = std::fs::read(&log).unwrap_or_default();
    let report = Report::parse(&String::from_utf8_lossy(&log));
    let mut faults = judge_findings(fixture, &report);
    if !fixture.options.iter().any(|option| option.starts_with("--errors-for-leak-kinds")) {
        faults.extend(judge_summary(&report));
    }
    if fixture.is_clean() && !fixture.skip_native {
        let native = Run::new(&exe, &dir).args(&fixture.args).limit(LIMIT * times_as_long()).finish("native");
        faults.extend(judge_outcome(&outcome, &native));
    }
    if !fixture.is_clean() || fixture.exit.is_some() || fixture.skip_native {
        let expected = fixture.exit.unwrap_or(Ended::Code(0));
        if outcome.ended != expected {
            faults.push(format!("ended with {:?}, expected {expected:?}", outcome.ended));
        }
    }
    if outcome.ended == Ended::TimedOut {
        faults.push(format!("no end after {} s", (LIMIT * times_as_long()).as_secs()));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("{}\n  report:\n{}", faults.join("\n"), indent(&report.text, &outcome.err())))
}

fn indent(report: &str, stderr: &str) -> String {
    let head = |text: &str| text.lines().take(60).map(|line| format!("    {line}\n")).collect::<String>();
    let stderr = if stderr.is_empty() { String::new() } else { format!("  stderr:\n{}", head(stderr)) };
    format!("{}{stderr}", head(report))
}

/// Annotations without a finding, findings without an annotation.
fn judge_findings(fixture: &Fixture, report: &Report) -> Vec<String> {
    let file = fixture.file();
    let mut faults = vec![];
    for annotation in fixture.annotations.iter().filter(|annotation| annotation.required) {
        if !report.findings.iter().any(|finding| annotation.accepts(finding, &file)) {
            faults.push(format!(
                "line {}: not found: {} {} {}",
                annotation.line,
                annotation.kinds.join("|"),
                annotation.detail,
                annotation.text
            ));
        }
    }
    let mut reported: Vec<&Finding> = report.findings.iter().filter(|finding| matters(fixture, finding)).collect();
    reported.retain(|finding| !fixture.annotations.iter().any(|annotation| annotation.accepts(finding, &file)));
    for finding in reported {
        let line = finding.line_in(&file).map_or("?".to_owned(), |line| line.to_string());
        faults.push(format!("line {line}: not annotated: {} {}", finding.kind, finding.detail));
    }
    faults
}

/// Leak records matter if their kind is written in the file, or if the file claims to be clean.
fn matters(fixture: &Fixture, finding: &Finding) -> bool {
    if finding.kind != "leak" {
        return true;
    }
    let kind = finding.detail.split(' ').next().unwrap_or_default();
    let named = |annotation: &Annotation| annotation.kinds[0] == "leak" && annotation.detail.starts_with(kind);
    if fixture.is_clean() { finding.counts_as_error() } else { fixture.annotations.iter().any(named) }
}

/// The closing line must be there and agree with what was printed. Children inherit counts, so only single processes are compared.
fn judge_summary(report: &Report) -> Vec<String> {
    let Some(summary) = report.summaries.first() else { return vec!["no ERROR SUMMARY line".to_owned()] };
    let printed = report.findings.iter().filter(|finding| finding.counts_as_error()).count() as u64;
    if report.summaries.len() == 1 && summary.contexts != printed {
        return vec![format!("summary speaks of {} contexts, {printed} were printed", summary.contexts)];
    }
    vec![]
}

fn judge_outcome(checked: &Outcome, native: &Outcome) -> Vec<String> {
    let mut faults = vec![];
    if checked.ended != native.ended {
        faults.push(format!("ended with {:?}, natively {:?}", checked.ended, native.ended));
    }
    for (name, checked, native) in [("stdout", checked.out(), native.out()), ("stderr", checked.err(), native.err())] {
        if checked != native {
            faults.push(format!("{name} differs: {}", first_difference(&checked, &native)));
        }
    }
    faults
}

fn first_difference(checked: &str, native: &str) -> String {
    let mut lines = checked.lines().zip(native.lines()).enumerate();
    match lines.find(|(_, (checked, native))| checked != native) {
        Some((index, (checked, native))) => format!("line {}: '{checked}', natively '{native}'", index + 1),
        None => format!("{} lines, natively {}", checked.lines().count(), native.lines().count()),
    }
}

/// All builds of one file, or a skip.
fn check_fixture(path: &Path) -> Result<(), String> {
    let fixture = Fixture::read(path)?;
    if let Some(why) = fixture.missing() {
        common::skip(&fixture.name, &why);
        return Ok(());
    }
    let mut failures = vec![];
    for (index, flags) in fixture.builds.iter().enumerate() {
        if let Err(text) = check_build(&fixture, flags, index) {
            failures.push(format!("--- {} [{}]\n{text}", fixture.name, flags.join(" ")));
        }
    }
    match (failures.is_empty(), common::testing_reference() && fixture.reference_fails) {
        (true, false) | (false, true) => Ok(()),
        (true, true) => Err(format!("--- {}: says that Valgrind fails, but it passes", fixture.name)),
        (false, false) => Err(failures.join("\n")),
    }
}

/// Every source file of one folder, in order of names, filtered by `FIXTURE`.
fn sources(family: &str) -> Vec<PathBuf> {
    let dir = common::root().join("fixtures").join(family);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let filter = std::env::var("FIXTURE").unwrap_or_default();
    let is_source = |path: &PathBuf| path.extension().is_some_and(|suffix| ["c", "cpp", "rs"].iter().any(|known| suffix == *known));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_source).collect();
    assert!(!files.is_empty(), "no fixtures in {}", dir.display());
    files.retain(|path| path.to_string_lossy().contains(&filter));
    files.sort();
    files
}

fn check_family(family: &str) {
    let files = sources(family);
    let failures = common::check_all(&files, |path| check_fixture(path));
    assert!(failures.is_empty(), "{} of {} fixtures in '{family}' fail:\n{}", failures.len(), files.len(), failures.join("\n"));
}

macro_rules! families {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check_family(stringify!($name)); })*

        /// A folder without a line here would never be run.
        #[test]
        fn every_folder_is_a_family() {
            let listed = [$(stringify!($name)),*];
            let folders = std::fs::read_dir(common::root().join("fixtures")).expect("fixtures");
            for folder in folders.flatten().filter(|entry| entry.path().is_dir()) {
                let name = folder.file_name().to_string_lossy().into_owned();
                assert!(listed.contains(&name.as_str()), "fixtures/{name} is not listed in tests/fixtures.rs");
            }
        }
    };
}

families! { access value free args leak clean syscalls threads signals replace load }

/// The reader of reports must see what the writer of reports means, or every annotation would be worthless.
#[test]
fn reads_a_report() {
    let text = "==7== \n==7== Thread 2:\n==7== Invalid write of size 4\n==7==    at 0x10: f(int) (x.c:3)\n\
        ==7==    by 0x20: main (x.c:9)\n==7==  Address 0x4a is 0 bytes after a block of size 40 alloc'd\n\
        ==7==    at 0x30: malloc (m.c:1)\n==7==    by 0x40: main (x.c:8)\n==7== \n\
        ==7== 1,296 (32 direct, 1,264 indirect) bytes in 1 blocks are definitely lost in loss record 2 of 3\n\
        ==7==    at 0x30: malloc (in /lib/x.so)\n==7==    by 0x40: main (x.c:8)\n==7== \n\
        ==7== ERROR SUMMARY: 12 errors from 2 contexts (suppressed: 0 from 0)\n";
    let report = Report::parse(text);
    assert_eq!(report.findings.len(), 2);
    assert_eq!((report.summaries[0].errors, report.summaries[0].contexts), (12, 2));
    let accepts = |line, source: &str, index: usize| Annotation::parse(line, true, source).accepts(&report.findings[index], "x.c");
    assert!(accepts(3, "invalid-write 4: 0 bytes after a block of size 40", 0));
    assert!(accepts(3, "invalid-read|invalid-write 4", 0));
    assert!(!accepts(9, "invalid-write 4", 0), "only the innermost frame of the file counts");
    assert!(!accepts(3, "invalid-write 8", 0));
    assert!(!accepts(3, "invalid-write 4: 1 bytes after", 0));
    assert!(accepts(8, "leak definite 1296: (32 direct", 1));
    assert!(!accepts(8, "leak possible 1296", 1));
}
