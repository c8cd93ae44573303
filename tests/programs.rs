//! Real programs, which nobody here wrote: same output and same end as natively, and no error reported.
//!
//! Each case prepares two equal directories by a shell script, runs one command natively in the first and under memcheck in the second, and
//! compares standard output, exit status and, where it is not about time, standard error. Every process of the run (children are traced
//! where the case says so) must say `ERROR SUMMARY: 0 errors`. A program that is not installed is skipped with a message.
//! `PROGRAMS_LONG=1` adds the cases that take more than a few seconds; `FIXTURE=text` selects cases by name.

mod common;

use common::report::Report;
use common::run::{Ended, Outcome, Run};
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Case<'a> {
    name: &'a str,
    /// Programs that must be in `PATH`.
    needs: &'a [&'a str],
    /// Run by `sh -e` in an empty directory, natively, before each of the two runs.
    setup: &'a str,
    command: &'a [&'a str],
    options: &'a [&'a str],
    /// Whether standard output and standard error must be the same; times in them never are.
    stdout: bool,
    stderr: bool,
    /// Whether the program is free of errors; some use undefined memory on purpose.
    silent: bool,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Case { name: "", needs: &[], setup: "", command: &[], options: &[], stdout: true, stderr: true, silent: true }
    }
}

const CHILDREN: &[&str] = &["--trace-children=yes"];
/// So little code is kept that it is made anew again and again.
const FORGETFUL: &[&str] = &["--trace-children=yes", "--code-cache=1048576"];

fn missing(case: &Case) -> Option<String> {
    let needs = case.needs.iter().chain(case.command.first());
    needs.into_iter().find(|name| !name.starts_with('.') && !installed(name)).map(|name| format!("no {name} here"))
}

fn installed(name: &str) -> bool {
    if name.starts_with('/') { Path::new(name).is_file() } else { common::find_program(name).is_some() }
}

fn long_runs() -> bool {
    std::env::var_os("PROGRAMS_LONG").is_some()
}

fn prepare(case: &Case, which: &str) -> PathBuf {
    // Both directories have names of one length, so that nothing that prints its path can differ in layout.
    let dir = common::scratch(&format!("programs/{}/{which}", case.name)).join("work");
    std::fs::create_dir(&dir).expect("an empty directory");
    let outcome = Run::new("sh", &dir).args(["-ec", case.setup]).finish("setup");
    assert_eq!(outcome.ended, Ended::Code(0), "setup of {}: {}", case.name, outcome.err());
    let _ = std::fs::remove_file(dir.join("setup.stdout"));
    let _ = std::fs::remove_file(dir.join("setup.stderr"));
    dir
}

fn run(case: &Case, program: Run, work: &Path) -> Outcome {
    let program = program.dir(work).env("HOME", work).limit(Duration::from_secs(600));
    program.finish(case.name)
}

fn check(case: &Case) {
    let filter = std::env::var("FIXTURE").unwrap_or_default();
    if !case.name.contains(&filter) {
        return;
    }
    if let Some(why) = missing(case) {
        return common::skip(case.name, &why);
    }
    common::with_slot(|| compare(case));
}

fn compare(case: &Case) {
    let work = prepare(case, "native");
    let native = run(case, Run::new(case.command[0], work.parent().unwrap_or(&work)).args(&case.command[1..]), &work);
    let work = prepare(case, "traced");
    let logs = work.parent().unwrap_or(&work).to_owned();
    let traced = Run::new(common::memcheck(), &logs).arg(format!("--log-file={}/log.%p", logs.display()));
    let traced = traced.args(common::further_options()).args(case.options).args(case.command);
    let traced = run(case, traced, &work);
    let reports = read_logs(&logs);
    assert_eq!(traced.ended, native.ended, "{}: {}\n{}", case.name, traced.err(), first_report(&reports));
    if case.stdout {
        assert!(traced.stdout == native.stdout, "{}: stdout differs{}", case.name, difference(&traced.out(), &native.out()));
    }
    if case.stderr {
        assert!(traced.stderr == native.stderr, "{}: stderr differs{}", case.name, difference(&traced.err(), &native.err()));
    }
    assert!(!reports.is_empty(), "{}: no report was written", case.name);
    for report in reports.iter().filter(|_| case.silent) {
        // An untraced exec ends the report of a process early; what was found until then still counts.
        let errors = report.findings.iter().filter(|finding| !matches!(finding.kind, "leak" | "signal"));
        assert!(errors.count() == 0, "{}: not silent:\n{}", case.name, head(&report.text));
    }
}

fn read_logs(dir: &Path) -> Vec<Report> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("log."));
    logs.map(|entry| Report::parse(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()))).collect()
}

fn first_report(reports: &[Report]) -> String {
    reports.first().map_or(String::new(), |report| head(&report.text))
}

fn head(text: &str) -> String {
    text.lines().take(50).map(|line| format!("    {line}\n")).collect()
}

fn difference(traced: &str, native: &str) -> String {
    let mut lines = traced.lines().zip(native.lines()).enumerate();
    match lines.find(|(_, (traced, native))| traced != native) {
        Some((index, (traced, native))) => format!(" in line {}:\n  traced: {traced}\n  native: {native}", index + 1),
        None => format!(": {} lines, natively {}", traced.lines().count(), native.lines().count()),
    }
}

#[test]
fn ls() {
    let what = if long_runs() { "/usr" } else { "/usr/share/doc" };
    check(&Case { name: "ls", command: &["ls", "-lR", what], ..Case::default() });
}

#[test]
fn bash() {
    let setup = r#"cat > script.sh <<'END'
trap 'echo "trapped exit $?"' EXIT
trap 'echo trapped usr1' USR1
kill -USR1 $$
declare -A table=([one]=1 [two]=2)
for key in one two; do echo "$key ${table[$key]}"; done
seq 1 200 | while read n; do [ $((n % 50)) = 0 ] && echo "n=$n"; done
echo "sum $(seq 1 100 | paste -sd+ | bc 2>/dev/null || echo 5050)"
f() { local x=$1; [ $x -le 1 ] && echo 1 || echo $((x * $(f $((x - 1))))); }
f 6
cat <<TEXT | tr a-z A-Z | sort -r
here
document ${#table[@]}
TEXT
diff <(printf 'a\nb\n') <(printf 'a\nc\n')
(exit 3); echo "subshell $?"
sleep 0.05 & wait $!; echo "waited $?"
printf '%s|%5d|%-5s|\n' x 42 y
[[ abc123 =~ ^([a-z]+)([0-9]+)$ ]] && echo "${BASH_REMATCH[2]} ${BASH_REMATCH[1]^^}"
x=hello; echo "${x/l/L} ${x:1:3} ${x%o}"
exit 7
END"#;
    check(&Case { name: "bash", setup, command: &["bash", "script.sh"], ..Case::default() });
    check(&Case { name: "bash-children", setup, command: &["bash", "script.sh"], options: CHILDREN, ..Case::default() });
}

#[test]
fn dash() {
    let script = "for i in 1 2 3; do echo $i | cat; done; trap 'echo bye' 0; set -- a b; shift; echo $1 $#; exit 2";
    check(&Case { name: "dash", command: &["dash", "-c", script], options: CHILDREN, ..Case::default() });
}

#[test]
fn python_script() {
    let script = "import json,re,collections,decimal,hashlib,zlib,threading,sqlite3\n\
        words=re.findall(r'\\w+','the quick brown fox the lazy dog the end')\n\
        print(sorted(collections.Counter(words).items()))\n\
        print(json.dumps({'a':[1,2.5,None,True],'b':{'c':'\\u00e9'}},sort_keys=True))\n\
        print(hashlib.sha256(b'x'*100000).hexdigest(), zlib.crc32(b'y'*1000))\n\
        print(decimal.Decimal(1)/decimal.Decimal(7), 2**500 % 10**20, 0.1+0.2)\n\
        out=[]\n\
        ts=[threading.Thread(target=lambda n=n: out.append(sum(range(n*1000)))) for n in range(8)]\n\
        [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(out))\n\
        db=sqlite3.connect(':memory:'); db.execute('create table t(a,b)')\n\
        db.executemany('insert into t values(?,?)',[(i,i*i) for i in range(500)])\n\
        print(db.execute('select sum(b) from t where a%3=0').fetchone())\n\
        try:\n  {}['missing']\nexcept KeyError as e: print(repr(e))\n";
    let case = Case { name: "python-script", command: &["/usr/bin/python3", "-c", script], ..Case::default() };
    check(&case);
    check(&Case { name: "python-script-forgetful", options: FORGETFUL, ..case });
}

/// A Python whose own test modules are installed; distributions leave them out.
fn python_with_tests() -> Option<String> {
    ["/usr/bin/python3", "python3"].into_iter().find_map(|python| {
        let script = "import sys, test.test_bisect; print(sys.executable)";
        let output = std::process::Command::new(python).args(["-c", script]).output().ok()?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !path.is_empty()).then_some(path)
    })
}

fn python_tests(modules: &[&str]) {
    let Some(python) = python_with_tests() else { return common::skip("python tests", "no Python with its test modules") };
    for module in modules {
        // The number of tests and their times go to standard error; tests of threads and of timers print times of their own.
        let times = ["test.test_threading", "test.test_signal"].contains(module);
        let command = [python.as_str(), "-m", "unittest", "-q", module];
        check(&Case { name: module, command: &command, stdout: !times, stderr: false, ..Case::default() });
    }
}

#[test]
fn python_own_tests() {
    python_tests(&["test.test_bisect", "test.test_struct", "test.test_heapq", "test.test_textwrap", "test.test_binascii"]);
}

#[test]
fn python_long_tests() {
    if !long_runs() {
        return common::skip("python threading, signal, subprocess", "long; set PROGRAMS_LONG=1");
    }
    python_tests(&["test.test_threading", "test.test_signal", "test.test_subprocess", "test.test_re", "test.test_json"]);
}

#[test]
fn perl() {
    let script = r#"my %h; $h{$_ % 97} .= chr(65 + $_ % 26) for 1..5000;
        print join(",", map { "$_=" . length $h{$_} } sort { $a <=> $b } keys %h), "\n";
        my @s = sort { $b cmp $a } map { sprintf "%05.2f", sin($_) * 100 } 1..200; print "@s[0..5]\n";
        (my $t = "the cat sat on the mat") =~ s/(\w+)/\u$1/g; print "$t\n";
        print join("|", "a1b22c333" =~ /(\d+)/g), "\n";
        my $pid = fork; if (!$pid) { exit 9 } waitpid $pid, 0; print $? >> 8, "\n";
        local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 10; }; print $@;
        printf "%s\n", unpack "H*", pack "NnC", 1, 2, 3; exit 4;"#;
    let case = Case { name: "perl", command: &["perl", "-e", script], ..Case::default() };
    check(&case);
    check(&Case { name: "perl-forgetful", options: FORGETFUL, ..case });
}

#[test]
fn lua() {
    let script = "local t = {} for i = 1, 3000 do t[i] = (i * 7919) % 1009 end table.sort(t) print(t[1], t[3000], #t) \
        print(string.rep('ab', 50):gsub('b', 'X')) print(pcall(error, 'failed')) \
        local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) print(co(), co(), co())";
    check(&Case { name: "lua", command: &["lua", "-e", script], ..Case::default() });
}

#[test]
fn sqlite3() {
    let script = "create table t(id integer primary key, name text, x real); \
        with recursive c(i) as (select 1 union all select i+1 from c where i<3000) insert into t select i, 'name'||(i%37), i*1.5 from c; \
        create index by_name on t(name); select name, count(*), sum(x), max(id) from t group by name order by 3 desc limit 5; \
        select a.id, b.id from t a join t b on a.id = b.id + 1000 where a.name = 'name5' limit 4; \
        update t set x = x * 2 where id % 7 = 0; delete from t where id > 2900; select count(*), avg(x) from t; \
        select upper(substr(name, 2)), length(name), printf('%.3f', x) from t where name like '%3_' order by id limit 3; pragma integrity_check;";
    check(&Case { name: "sqlite3", command: &["sqlite3", "data.db", script], ..Case::default() });
}

const GIT_SETUP: &str = "export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'\n\
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=\"$PWD\"\n\
    git init -q -b main repository; cd repository\n\
    for i in 1 2 3 4 5; do seq $i 300 > file$i; git add .; git commit -qm \"commit $i\"; done\n\
    git branch side HEAD~2; echo changed >> file1; echo new > untracked";

#[test]
fn git() {
    for (name, command) in [
        ("git-log", &["git", "-C", "repository", "log", "--stat", "--graph", "--all"][..]),
        ("git-status", &["git", "-C", "repository", "status", "--short", "--branch"]),
        ("git-diff", &["git", "-C", "repository", "diff", "--word-diff", "main~3"]),
        ("git-fsck", &["git", "-C", "repository", "fsck", "--full", "--no-progress"]),
    ] {
        check(&Case { name, setup: GIT_SETUP, command, ..Case::default() });
    }
    let command = &["git", "clone", "-q", "repository", "copy"];
    check(&Case { name: "git-clone", setup: GIT_SETUP, command, options: CHILDREN, ..Case::default() });
}

#[test]
fn gcc_build() {
    let setup = "printf 'int twice(int x) { return 2 * x; }\\n' > a.c\n\
        printf '#include <stdio.h>\\nint twice(int);\\nint main(void) { printf(\"%%d\\\\n\", twice(21)); return 5; }\\n' > b.c";
    let script = "gcc -O2 -c a.c -o a.o && gcc -g -c b.c -o b.o && gcc a.o b.o -o both && ./both";
    // The register allocator of gcc keeps sets in memory that it never clears: reports from there are right.
    let case = Case { name: "gcc-build", needs: &["gcc"], setup, options: CHILDREN, silent: false, ..Case::default() };
    let case = Case { command: &["sh", "-c", script], ..case };
    check(&case);
    check(&Case { name: "gcc-build-forgetful", options: FORGETFUL, ..case });
}

const TEXT: &str = "seq 1 60000 | sed 's/7/seven /g' > text";

#[test]
fn compressors() {
    for (name, command) in [
        ("xz", &["xz", "-T2", "-1", "--block-size=100KiB", "-c", "text"][..]),
        ("zstd", &["zstd", "-q", "-T2", "-c", "text"]),
        ("gzip", &["gzip", "-9nc", "text"]),
        ("bzip2", &["bzip2", "-c", "text"]),
    ] {
        check(&Case { name, setup: TEXT, command, ..Case::default() });
    }
    let setup = format!("{TEXT}; xz -kf text 2>/dev/null || true");
    check(&Case { name: "unxz", needs: &["xz"], setup: &setup, command: &["xz", "-dc", "-T2", "text.xz"], ..Case::default() });
}

#[test]
fn text_tools() {
    for (name, command) in [
        ("sort", &["sort", "--parallel=2", "-S", "1M", "-k2,2", "-k1,1nr", "text"][..]),
        ("grep", &["grep", "-rnE", "(seven ){3}[0-9]", "."]),
        ("awk", &["awk", "{ n[length($0)]++; s += $1 } END { for (i = 1; i < 30; i++) if (n[i]) print i, n[i]; print s }", "text"]),
        ("sed", &["sed", "-nE", "s/^([0-9]+)seven (.*)$/\\2-\\1/p", "text"]),
        ("tar", &["tar", "-cf", "-", "--mtime=@0", "--owner=0", "--group=0", "text"]),
        ("find", &["find", ".", "-name", "*t*", "-size", "+1k"]),
        ("sha256sum", &["sha256sum", "text"]),
        ("md5sum", &["md5sum", "text"]),
        ("tac", &["tac", "text"]),
        ("wc", &["wc", "text"]),
        ("od", &["od", "-c", "-N", "5000", "text"]),
        ("cut", &["cut", "-d7", "-f1", "text"]),
        ("uniq", &["uniq", "-w3", "-c", "text"]),
        ("date", &["date", "-u", "-d", "@1234567890", "+%c %j %U"]),
        ("factor", &["factor", "1234567890123456789", "18446744073709551557"]),
        ("expr", &["expr", "12", "*", "12"]),
        ("env", &["env", "-i", "A=1", "printenv", "A"]),
    ] {
        check(&Case { name, setup: TEXT, command, ..Case::default() });
    }
}

#[test]
fn jq() {
    let setup = "printf '[' > in.json; for i in $(seq 1 300); do printf '{\"id\":%d,\"name\":\"n%d\",\"tags\":[%d,null,1.5e3]},' $i $i $i; done >> in.json; printf '{}]' >> in.json";
    let filter = "[.[] | select(.id != null and .id % 10 == 0) | {key: .name, value: (.tags | map(numbers) | add)}] | from_entries, (map(.id // 0) | add)";
    check(&Case { name: "jq", setup, command: &["jq", filter, "in.json"], ..Case::default() });
}

#[test]
fn openssl() {
    let command = &["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-S", "0102030405060708", "-pass", "pass:x", "-in", "text"];
    check(&Case { name: "openssl-enc", setup: TEXT, command, ..Case::default() });
    check(&Case { name: "openssl-dgst", setup: TEXT, command: &["openssl", "dgst", "-sha3-256", "text"], ..Case::default() });
}

/// A Rust program with threads that is always at hand: this test program itself.
#[test]
fn rust_test_binary() {
    let Ok(exe) = std::env::current_exe() else { return common::skip("rust", "no path of this program") };
    let exe = exe.to_string_lossy().into_owned();
    let command = [exe.as_str(), "--list", "--format=terse"];
    check(&Case { name: "rust-test-binary", command: &command, ..Case::default() });
}

#[test]
fn node() {
    let script = "console.log([1,2,3].map(x => x * 2).join(), JSON.stringify({a: [1, {b: 2}]}), 'x'.repeat(5)); process.exit(3)";
    check(&Case { name: "node", command: &["node", "-e", script], ..Case::default() });
}

/// A virtual machine that compiles while it runs. It reads address 0 on purpose, to see whether it gets its signal.
#[test]
fn java() {
    check(&Case { name: "java", command: &["java", "-version"], silent: false, ..Case::default() });
}
