//! Job control: a shell at a terminal stops, continues and interrupts memcheck, and the user sees one program.
//!
//! ```text
//! this test ── keys ──► pseudo terminal ──► sh -i ──► memcheck ──► program
//!           ◄─ text ──
//! ```
//! Every step waits for the text that must come, however long that takes; only a hang ends by the clock.

mod common;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PROMPT: &str = "<go on> ";
const LIMIT: Duration = Duration::from_secs(60);

const ECHO: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static void tell(int signal) {
    char text[] = "signal 00\n";
    text[7] += signal / 10;
    text[8] += signal % 10;
    write(1, text, sizeof text - 1);
}
// What editors do: the terminal is put in order, then the job stops.
static void suspend(int signal_number) {
    sigset_t stops;
    write(1, "in order\n", 9);
    signal(SIGTSTP, SIG_DFL);
    kill(0, SIGTSTP);
    sigemptyset(&stops);
    sigaddset(&stops, SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &stops, NULL);
    write(1, "as before\n", 10);
    signal(SIGTSTP, suspend);
}
int main(int argc, char **argv) {
    char line[100];
    if (argc > 2) signal(SIGTSTP, suspend);
    struct sigaction action = {.sa_handler = tell};
    if (argc > 1) {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGCONT, &action, NULL);
    }
    puts("ready");
    for (;;) {
        fflush(stdout);
        ssize_t length = read(0, line, sizeof line - 1);
        if (length == 0) return 0;
        if (length > 0) printf("got %.*s", (int)length, line);
    }
}
"#;

/// A shell at a terminal of its own.
struct Terminal {
    keys: File,
    text: Receiver<Vec<u8>>,
    /// Came since the last wait.
    seen: String,
    shell: Child,
}

impl Terminal {
    fn open(dir: &Path) -> Terminal {
        let pty = openpty(None, None).expect("a pseudo terminal");
        // The shells of other tests shall not keep it open when this one hangs up.
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a flag of a descriptor");
        }
        let side = |what: &str| Stdio::from(pty.slave.try_clone().expect(what));
        // A session whose terminal is standard input. Who runs the tests in the background may have SIGINT and SIGQUIT ignored, and no shell
        // can change that for those whom it starts.
        let shell = Command::new("env")
            .args(["--default-signal", "setsid", "--ctty", "--wait", "sh", "-i"])
            .env("PS1", PROMPT)
            .env_remove("ENV")
            .current_dir(dir)
            .stdin(side("input"))
            .stdout(side("output"))
            .stderr(side("errors"))
            .spawn()
            .expect("env of coreutils, setsid of util-linux, and sh");
        let keys = File::from(pty.master);
        let mut reader = keys.try_clone().expect("the other end");
        let (sender, text) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let _ = sender.send(buffer[..length].to_vec());
            }
        });
        let mut terminal = Terminal { keys, text, seen: String::new(), shell };
        terminal.wait(PROMPT);
        terminal
    }

    /// Waits until `text` has come; what came before it.
    fn wait(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.text.recv_timeout(LIMIT) {
                Ok(more) => self.seen += &String::from_utf8_lossy(&more),
                Err(_) => panic!("'{text}' never came, but this: {}", self.seen),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn press_and_wait(&mut self, keys: &str, text: &str) -> String {
        self.press(keys);
        self.wait(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // With the leader of the session the terminal goes away, and whoever is at it is told so.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

const INTERRUPT: &str = "\x03";
const QUIT: &str = "\x1c";
const SUSPEND: &str = "\x1a";

/// The shell that runs programs with the tool, and the command line.
fn begin(name: &str, options: &str) -> Option<(Terminal, String)> {
    if common::find_program("setsid").is_none() {
        common::skip(name, "no setsid");
        return None;
    }
    let dir = common::scratch(name);
    common::compile(&dir, "echo", ECHO, &[]);
    Some((Terminal::open(&dir), format!("{} {options} ./echo", common::memcheck().display())))
}

#[test]
fn stops_continues_and_is_interrupted() {
    let Some((mut terminal, command)) = begin("jobs-stop", "-q") else { return };
    terminal.press_and_wait(&format!("{command}\n"), "ready");
    terminal.press_and_wait("one\n", "got one");
    for round in ["two", "three"] {
        terminal.press_and_wait(SUSPEND, PROMPT);
        terminal.press_and_wait("jobs\n", "topped");
        terminal.wait(PROMPT);
        terminal.press("fg\n");
        terminal.press_and_wait(&format!("{round}\n"), &format!("got {round}"));
    }
    terminal.press_and_wait(INTERRUPT, PROMPT);
    terminal.press_and_wait("echo status=$?\n", "status=130");
}

#[test]
fn handlers_see_what_the_terminal_sends() {
    let Some((mut terminal, command)) = begin("jobs-handlers", "-q") else { return };
    terminal.press_and_wait(&format!("{command} handle\n"), "ready");
    terminal.press_and_wait(INTERRUPT, "signal 02");
    terminal.press_and_wait("one\n", "got one");
    terminal.press_and_wait(SUSPEND, PROMPT);
    // In the background it may not read, and is stopped again.
    terminal.press_and_wait("bg\n", "signal 18");
    terminal.press("fg\n");
    terminal.press_and_wait("two\n", "got two");
    terminal.press_and_wait(QUIT, PROMPT);
    terminal.press_and_wait("echo status=$?\n", "status=131");
}

#[test]
fn programs_put_the_terminal_in_order_before_they_stop() {
    let Some((mut terminal, command)) = begin("jobs-editor", "-q") else { return };
    terminal.press_and_wait(&format!("{command} handle suspend\n"), "ready");
    for round in ["one", "two"] {
        terminal.press_and_wait(SUSPEND, "in order");
        terminal.wait(PROMPT);
        terminal.press_and_wait("fg\n", "as before");
        terminal.press_and_wait(&format!("{round}\n"), &format!("got {round}"));
    }
}

#[test]
fn continuing_the_tool_continues_the_program() {
    let Some((mut terminal, command)) = begin("jobs-continue", "-q") else { return };
    terminal.press_and_wait(&format!("{command} handle\n"), "ready");
    terminal.press_and_wait(SUSPEND, PROMPT);
    // Of the job only the process that the shell knows.
    terminal.press_and_wait("jobs -p >pid; kill -CONT $(cat pid)\n", "signal 18");
}

#[test]
fn what_was_found_is_told_when_the_user_interrupts() {
    let Some((mut terminal, command)) = begin("jobs-report", "--leak-check=full") else { return };
    terminal.press_and_wait(&format!("{command}\n"), "ready");
    let told = terminal.press_and_wait(INTERRUPT, "ERROR SUMMARY: 0 errors");
    assert!(told.contains("HEAP SUMMARY"), "{told}");
    terminal.wait(PROMPT);
    terminal.press_and_wait("echo status=$?\n", "status=130");
}
