//! Reports for people: at a terminal, with source lines and colours, and as everybody else gets them.

mod common;

use common::run::{Ended, Run};
use nix::pty::openpty;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = "#include <stdlib.h>
int main(void) {
    int *row = malloc(4 * sizeof *row);
    row[4] = 1;
    free(row);
    return row[1];
}
";

/// What stands below the findings of this program.
const STORIES: [&str; 8] = [
    "   allocated  row.c:3  int *row = malloc(4 * sizeof *row);",
    "   written    row.c:4  row[4] = 1;",
    "   block      [################]XXXX  bytes 16 to 19 of 16",
    "   freed      row.c:5  free(row);",
    "   read       row.c:6  return row[1];",
    "   block      [----XXXX--------]  bytes 4 to 7 of 16, freed",
    "    1x  heap-buffer-overflow  row.c:4 in main",
    "    1x  use-after-free        row.c:6 in main",
];

fn row(dir: &Path) -> PathBuf {
    common::compile(dir, "row", SOURCE, &[])
}

/// Without colours, prefixes and the line ends of terminals.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut pieces = line.trim_end_matches('\r').split("\x1b[");
        let mut bare = pieces.next().unwrap_or_default().to_owned();
        pieces.for_each(|piece| bare.push_str(piece.split_once('m').map_or("", |(_, rest)| rest)));
        let line = bare.strip_prefix("==").and_then(|rest| rest.split_once("== ")).map_or(bare.as_str(), |(_, rest)| rest);
        out += line;
        out += "\n";
    }
    out
}

fn holds_stories(text: &str) -> bool {
    STORIES.iter().all(|story| text.lines().any(|line| line == *story))
}

#[test]
fn logs_are_plain_and_details_can_be_had() {
    let dir = common::scratch("terminal-plain");
    let program = row(&dir);
    let report = |options: &[&str]| Run::new(common::memcheck(), &dir).args(options).arg(&program).finish("run").err();
    let usual = report(&[]);
    assert!(!usual.contains('\x1b') && !usual.contains("row.c:4  row"), "{usual}");
    let rich = report(&["--details=yes", "--color=always"]);
    assert!(rich.contains("\x1b[31;1mInvalid write of size 4"), "{rich}");
    assert!(rich.lines().all(|line| line.starts_with("==")), "a colour stands before the prefix: {rich}");
    assert!(holds_stories(&plain(&rich)), "{rich}");
    // They are added; nothing else changes.
    let (usual, rich) = (plain(&usual), plain(&rich));
    let mut more = rich.lines();
    assert!(usual.lines().all(|line| more.any(|other| other == line)), "{usual}\nis not all in\n{rich}");
}

#[test]
fn at_a_terminal_the_source_is_quoted() {
    let dir = common::scratch("terminal-pty");
    let program = row(&dir);
    let pty = openpty(None, None).expect("a pseudo terminal");
    // A command keeps what its children get: it ends with the statement.
    let mut tool = Command::new(common::memcheck())
        .arg(&program)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("VALGRIND_OPTS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(pty.slave)
        .spawn()
        .expect("memcheck starts");
    let mut text = Vec::new();
    // When nobody holds the other end any more, reading fails.
    let _ = File::from(pty.master).read_to_end(&mut text);
    tool.wait().expect("memcheck ends");
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains('\x1b'), "{text}");
    assert!(holds_stories(&plain(&text)), "{text}");
}

#[test]
fn lines_of_a_changed_source_come_with_a_warning() {
    let dir = common::scratch("terminal-newer");
    let program = row(&dir);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    File::options().append(true).open(dir.join("row.c")).and_then(|file| file.set_modified(later)).expect("a new time");
    let text = Run::new(common::memcheck(), &dir).arg("--details=yes").arg(&program).finish("run").err();
    assert!(text.contains("(row.c was changed after the program was compiled: lines may have moved)"), "{text}");
}

#[test]
fn kinds_of_findings_are_explained() {
    let dir = common::scratch("terminal-explain");
    let asked = |id: &str| Run::new(common::memcheck(), &dir).arg(format!("--explain={id}")).finish("run");
    let known = asked("use-after-free");
    assert_eq!((known.ended, known.err().as_str()), (Ended::Code(0), ""));
    assert!(
        known.out().starts_with("use-after-free\n\n        The program touched a block that had been freed.\n\nOften   "),
        "{}",
        known.out()
    );
    let unknown = asked("use-after-lunch");
    assert_eq!((unknown.ended, unknown.out().as_str()), (Ended::Code(1), ""));
    assert!(unknown.err().contains("--explain=use-after-lunch") && unknown.err().contains("double-free"), "{}", unknown.err());
}
