//! How memcheck and the program end together: killed from outside, or asked to terminate.

mod common;

use common::compile;
use common::run::{Ended, Run};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Reads a file that another process is about to write.
fn wait_for_text(file: &Path) -> String {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Ok(text) = std::fs::read_to_string(file)
            && text.ends_with('\n')
        {
            return text.trim().to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} did not appear", file.display());
}

/// Says its pid in a file and waits for a signal.
const WAITS: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static void end(int number) { _exit(40 + number); }
int main(int argc, char **argv) {
    if (argc > 2) signal(SIGTERM, end);
    FILE *file = fopen(argv[1], "w");
    fprintf(file, "%d\n", getpid());
    fclose(file);
    for (;;) pause();
}
"#;

fn kill(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill {signal} {pid}");
}

#[test]
fn killing_the_tool_leaves_nothing_behind() {
    let dir = common::scratch("ending-killed");
    let exe = compile(&dir, "waits", WAITS, &[]);
    let pid_file = dir.join("pid");
    let mut child =
        Command::new(common::memcheck()).arg("-q").args([&exe, &pid_file]).stdin(Stdio::null()).spawn().expect("the tool starts");
    let pid = wait_for_text(&pid_file);
    kill("-9", &child.id().to_string());
    let _ = child.wait();
    let start = Instant::now();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(20), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Also when the user's queue of signals is full: then they carry no values.
#[test]
fn termination_is_passed_on() {
    let dir = common::scratch("ending-terminated");
    let exe = compile(&dir, "waits", WAITS, &[]);
    let cases = [("", false, Ended::Signal(15)), ("", true, Ended::Code(55)), ("prlimit --sigpending=0 ", true, Ended::Code(55))];
    for (index, (limit, handled, expected)) in cases.into_iter().enumerate() {
        let pid_file = dir.join(format!("pid{index}"));
        let script = format!("{limit}\"$@\" & echo $! >tool-pid; wait $!");
        let mut run = Run::new("sh", &dir).args(["-c", &script, "sh"]).arg(common::memcheck()).arg("-q");
        run = run.arg(&exe).arg(&pid_file).args(handled.then_some("handle"));
        let tool_pid = dir.join("tool-pid");
        let _ = std::fs::remove_file(&tool_pid);
        let killer = std::thread::spawn(move || {
            wait_for_text(&pid_file);
            kill("-TERM", &wait_for_text(&tool_pid));
        });
        let outcome = run.finish("run");
        killer.join().expect("the signal was sent");
        let expected = match expected {
            Ended::Signal(number) => Ended::Code(128 + number), // as the shell says it
            other => other,
        };
        assert_eq!(outcome.ended, expected, "{}", outcome.err());
    }
}
