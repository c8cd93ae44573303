//! Programs that leave a process behind: who called them goes on, what they left is followed to its end.

mod common;

use common::run::{Ended, Run};
use common::{compile, memcheck, scratch};
use std::path::Path;
use std::time::{Duration, Instant};

/// Leaves a daemon behind that lives until a file is gone, then reads behind a block.
const DAEMON: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int files[2];
    if (pipe(files) != 0) return 9;
    if (fork() == 0) {
        setsid();
        int nowhere = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd);
        char *block = malloc(10);
        write(files[1], "x", 1);
        for (int i = 0; i < 6000 && access(argv[1], F_OK) == 0; i++) usleep(10000);
        _exit(block[10] == 1);
    }
    char ready;
    read(files[0], &ready, 1);
    if (argc > 2) raise(SIGUSR1);
    write(1, "left\n", 5);
    return 4;
}
"#;

/// More than anybody needs on a busy machine, less than the daemon's life.
const SOON: Duration = Duration::from_secs(30);

/// Until the file contains the text.
fn wait_for(file: &Path, text: &str) -> String {
    let start = Instant::now();
    loop {
        let found = std::fs::read_to_string(file).unwrap_or_default();
        if found.contains(text) || start.elapsed() > SOON {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the program by way of a command of the shell; the shell's output, and what the daemon's log says when its file is gone.
fn leave(name: &str, command: &str, expected: Ended, output: &str) {
    let dir = scratch(name);
    let program = compile(&dir, "daemon", DAEMON, &["-g", "-Wno-unused-result"]);
    let alive = dir.join("alive");
    std::fs::write(&alive, "").expect("a file");
    let log = dir.join("log");
    let _ = std::fs::remove_file(&log);
    let outcome = Run::new("sh", &dir)
        .args(["-c", command])
        .env("MEMCHECK", memcheck())
        .env("OPTIONS", format!("-q --log-file={}", log.display()))
        .env("DAEMON", program)
        .limit(SOON)
        .finish("shell");
    assert_eq!(outcome.ended, expected, "{}", outcome.err());
    assert_eq!(outcome.out(), output);
    let before = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(!before.contains("Invalid read"), "the daemon did not wait: {before}");
    std::fs::remove_file(&alive).expect("nobody else removes it");
    let after = wait_for(&log, "after a block of size 10");
    assert!(after.contains("Invalid read of size 1") && after.contains("after a block of size 10"), "{after}");
}

#[test]
fn caller_gets_the_status_at_once() {
    leave("background-status", "$MEMCHECK $OPTIONS $DAEMON alive; echo $?", Ended::Code(0), "left\n4\n");
}

#[test]
fn a_full_queue_of_signals_keeps_nobody_waiting() {
    let command = "prlimit --sigpending=0 $MEMCHECK $OPTIONS $DAEMON alive; echo $?";
    leave("background-queue", command, Ended::Code(0), "left\n4\n");
}

#[test]
fn output_that_the_daemon_has_closed_is_closed() {
    leave("background-output", "x=$($MEMCHECK $OPTIONS $DAEMON alive); echo $? $x", Ended::Code(0), "4 left\n");
}

#[test]
fn death_by_signal_is_handed_over_too() {
    leave("background-signal", "exec $MEMCHECK $OPTIONS $DAEMON alive signal", Ended::Signal(10), "");
}

/// Closes its output and a further descriptor, and lives until a file is gone.
const CLOSER: &str = r#"
#include <unistd.h>
int main(int argc, char **argv) {
    write(1, "x\n", 2);
    close(1);
    close(5);
    for (int i = 0; i < 6000 && access(argv[1], F_OK) == 0; i++) usleep(10000);
    return 0;
}
"#;

#[test]
fn what_the_program_closes_nobody_else_holds() {
    let dir = scratch("background-closed");
    let program = compile(&dir, "closer", CLOSER, &["-Wno-unused-result"]);
    std::fs::write(dir.join("alive"), "").expect("a file");
    let outcome = Run::new("sh", &dir)
        .args(["-c", "($MEMCHECK -q $CLOSER alive 5>&1 2>/dev/null &) | cat; echo seen; rm alive"])
        .env("MEMCHECK", memcheck())
        .env("CLOSER", program)
        .limit(SOON)
        .finish("shell");
    assert_eq!((outcome.ended, outcome.out().as_str()), (Ended::Code(0), "x\nseen\n"), "{}", outcome.err());
}
