//! What checking costs: every program runs natively, under memcheck and under Valgrind in one go, and the ratios are printed.
//!
//! ```text
//! make bench                          all groups, best of three
//! cargo bench -- --quick              one run each
//! cargo bench -- --only calls,xz      groups or programs by name
//! cargo bench -- --no-valgrind        native and memcheck only
//! cargo bench -- --origins            one more column: valgrind --track-origins=yes
//! cargo bench -- --option=X           pass X to memcheck (repeatable)
//! cargo bench -- --list
//! ```
//!
//! CPU is user plus system time of the process and of all its children (`wait4`), so a tool cannot hide work in a helper. Memory is the
//! largest resident set among them. The best of the repeats counts: noise only ever adds. Small programs of our own are in
//! `benches/programs`; the others are those of the machine, left out with a word if absent. `MEMCHECK` names another tool binary.
#![allow(unsafe_code, reason = "wait4 with resource usage has no safe wrapper among our dependencies")]

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use table::{Code, GROUPS, INPUTS, Program};

/// One run: seconds of CPU, seconds of wall clock, kilobytes of peak memory.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
    peak: f64,
}

impl Cost {
    fn best(self, other: Cost) -> Cost {
        Cost { cpu: self.cpu.min(other.cpu), wall: self.wall.min(other.wall), peak: self.peak.min(other.peak) }
    }
}

struct Settings {
    repeats: usize,
    only: Vec<String>,
    valgrind: bool,
    origins: bool,
    options: Vec<String>,
}

/// Costs of one program; a run that failed or was not made is absent.
struct Row {
    native: Cost,
    memcheck: Option<Cost>,
    valgrind: Option<Cost>,
    origins: Option<Cost>,
}

fn main() {
    let settings = settings();
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&work).expect("a directory for the benchmark");
    let wanted = |group: &str, name: &str| settings.only.is_empty() || settings.only.iter().any(|only| only == group || only == name);
    prepare_inputs(&work);
    let mut summary = vec![];
    for group in GROUPS {
        let programs: Vec<&Program> = group.programs.iter().filter(|program| wanted(group.name, program.name)).collect();
        if programs.is_empty() {
            continue;
        }
        println!("\n{} ({})", group.name, group.goal);
        println!("  {:15} {:^29} | {:^26} | {:^17} |", "", "CPU, milliseconds", "CPU, times native", "memcheck, x native");
        println!(
            "  {:15} {:>9} {:>9} {:>9} | {:>8} {:>8} {:>8} | {:>8} {:>9} | {:>8}",
            "program", "native", "memcheck", "valgrind", "memcheck", "valgrind", "v/m", "wall", "memory", "origins"
        );
        let rows: Vec<Row> = programs.iter().filter_map(|program| measure(program, &work, &settings)).collect();
        summary.push((group.name, group.goal, print_means(&rows)));
    }
    println!("\nsummary, CPU, geometric means\n  {:12} {:>10} {:>10} {:>10}   goal", "group", "memcheck", "valgrind", "v/m");
    for (name, goal, [memcheck, valgrind, gain]) in summary {
        println!("  {name:12} {} {} {}   {goal}", times(memcheck, 10), times(valgrind, 10), times(gain, 10));
    }
}

fn settings() -> Settings {
    let mut settings = Settings { repeats: 3, only: vec![], valgrind: installed("valgrind"), origins: false, options: vec![] };
    let mut args = std::env::args().skip(1).peekable();
    while let Some(arg) = args.next() {
        let (name, value) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
        match name {
            "--quick" => settings.repeats = 1,
            "--only" => {
                let list = value.or_else(|| args.next()).unwrap_or_default();
                settings.only.extend(list.split(',').map(str::to_owned));
            }
            "--no-valgrind" => settings.valgrind = false,
            "--origins" => settings.origins = true,
            "--option" => settings.options.extend(value.or_else(|| args.next())),
            "--list" => {
                for group in GROUPS {
                    println!("{}: {}", group.name, group.programs.iter().map(|p| p.name).collect::<Vec<_>>().join(" "));
                }
                std::process::exit(0);
            }
            // cargo bench adds this one itself.
            "--bench" => {}
            _ => {
                eprintln!("unknown argument {arg}; see the head of benches/bench.rs");
                std::process::exit(1);
            }
        }
    }
    settings
}

fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    name.starts_with('/') && Path::new(name).exists() || std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

fn memcheck() -> std::ffi::OsString {
    std::env::var_os("MEMCHECK").unwrap_or_else(|| option_env!("CARGO_BIN_EXE_memcheck").unwrap_or("memcheck").into())
}

/// Files that the programs read, made once; remove the directory to make them anew.
fn prepare_inputs(work: &Path) {
    let done = work.join("inputs-made");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == INPUTS) {
        return;
    }
    let status = Command::new("sh").args(["-ec", INPUTS]).current_dir(work).status();
    assert!(status.is_ok_and(|status| status.success()), "the inputs could not be made");
    std::fs::write(done, INPUTS).expect("a mark in the benchmark directory");
}

/// The command of a program, after compiling it if it is one of ours.
fn command(program: &Program, work: &Path) -> Option<Vec<String>> {
    let mut words: Vec<String> = program.command.iter().map(|word| (*word).to_owned()).collect();
    match program.code {
        Code::Ours(file, flags) => {
            let exe = compile(file, flags, program.name, work);
            words.insert(0, exe.to_string_lossy().into_owned());
        }
        Code::Installed => {
            if words[0] == "cc1" {
                let output = Command::new("gcc").arg("-print-prog-name=cc1").output().ok()?;
                String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut words[0]);
            }
            if !installed(&words[0]) {
                println!("  {:15} not installed", program.name);
                return None;
            }
        }
    }
    Some(words)
}

fn compile(file: &str, flags: &[&str], name: &str, work: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/programs").join(file);
    let exe = work.join(format!("{name}.exe"));
    let compiler = if file.ends_with(".cpp") { "g++" } else { "gcc" };
    let status = Command::new(compiler).args(["-O2", "-g", "-w", "-pthread"]).arg(&source).arg("-o").arg(&exe).args(flags).status();
    assert!(status.is_ok_and(|status| status.success()), "{file} does not compile");
    exe
}

/// Measures one program with all tools and prints its line.
fn measure(program: &Program, work: &Path, settings: &Settings) -> Option<Row> {
    let command = command(program, work)?;
    let options: Vec<String> = program.options.iter().map(|option| (*option).to_owned()).collect();
    let with = |tool: &std::ffi::OsStr, more: &[String]| {
        let mut run = Command::new(tool);
        run.arg("-q").args(&options).args(more).arg(format!("--log-file={}", work.join("log").display())).args(&command);
        best(run, work, settings.repeats)
    };
    let mut native = Command::new(&command[0]);
    native.args(&command[1..]);
    let Some(native) = best(native, work, settings.repeats + 1) else {
        println!("  {:15} fails natively", program.name);
        return None;
    };
    let origins = ["--track-origins=yes".to_owned()];
    let row = Row {
        native,
        memcheck: with(&memcheck(), &settings.options),
        valgrind: settings.valgrind.then(|| with("valgrind".as_ref(), &[])).flatten(),
        origins: settings.origins.then(|| with("valgrind".as_ref(), &origins)).flatten(),
    };
    print_row(program.name, &row);
    Some(row)
}

/// The best of several runs, or nothing if one failed.
fn best(mut command: Command, work: &Path, repeats: usize) -> Option<Cost> {
    command.current_dir(work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env("LC_ALL", "C");
    let mut best = run(&mut command)?;
    for _ in 1..repeats {
        best = best.best(run(&mut command)?);
    }
    Some(best)
}

fn run(command: &mut Command) -> Option<Cost> {
    let start = Instant::now();
    let child = command.spawn().ok()?;
    let pid = libc::pid_t::try_from(child.id()).ok()?;
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pid is our own unreaped child, and both results are live locals of the types that the call fills.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    let wall = start.elapsed().as_secs_f64();
    if waited != pid || !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) > 1 {
        return None;
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(Cost { cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), wall, peak: usage.ru_maxrss as f64 })
}

fn ratio(of: Option<Cost>, to: Cost, what: fn(Cost) -> f64) -> Option<f64> {
    of.map(|cost| what(cost) / what(to).max(1e-4))
}

fn gain(row: &Row) -> Option<f64> {
    ratio(row.valgrind, row.memcheck?, |cost| cost.cpu)
}

fn times(value: Option<f64>, width: usize) -> String {
    value.map_or_else(|| format!("{:>width$}", "-"), |value| format!("{value:>width$.2}"))
}

fn print_row(name: &str, row: &Row) {
    let cpu = |cost| times(ratio(cost, row.native, |cost| cost.cpu), 8);
    let milliseconds = |cost: Option<Cost>| cost.map_or_else(|| format!("{:>9}", "-"), |cost| format!("{:>9.1}", cost.cpu * 1e3));
    println!(
        "  {name:15} {} {} {} | {} {} {} | {} {} | {}",
        milliseconds(Some(row.native)),
        milliseconds(row.memcheck),
        milliseconds(row.valgrind),
        cpu(row.memcheck),
        cpu(row.valgrind),
        times(gain(row), 8),
        times(ratio(row.memcheck, row.native, |cost| cost.wall), 8),
        times(ratio(row.memcheck, row.native, |cost| cost.peak), 9),
        cpu(row.origins),
    );
}

/// Geometric mean of those that were measured.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let logs: Vec<f64> = values.flatten().map(f64::ln).collect();
    let count = logs.len() as f64;
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / count).exp())
}

fn print_means(rows: &[Row]) -> [Option<f64>; 3] {
    let of = |pick: fn(&Row) -> Option<Cost>, what: fn(Cost) -> f64| mean(rows.iter().map(|row| ratio(pick(row), row.native, what)));
    let memcheck = of(|row| row.memcheck, |cost| cost.cpu);
    let valgrind = of(|row| row.valgrind, |cost| cost.cpu);
    let gains = mean(rows.iter().map(gain));
    println!(
        "  {:15} {:29} | {} {} {} | {} {} | {}",
        "geometric mean",
        "",
        times(memcheck, 8),
        times(valgrind, 8),
        times(gains, 8),
        times(of(|row| row.memcheck, |cost| cost.wall), 8),
        times(of(|row| row.memcheck, |cost| cost.peak), 9),
        times(of(|row| row.origins, |cost| cost.cpu), 8),
    );
    [memcheck, valgrind, gains]
}
