//! A debugger that looks at a program which stands still after an error: gdb's remote protocol, spoken here by hand and by gdb itself.

mod common;

use common::compile;
use common::run::{Ended, Run};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FAULTY: &str = "#include <stdlib.h>
long kept = 7;
static int inner(int count) {
    int local = 40 + count;
    char *block = malloc(10);
    block[10] = local;
    free(block);
    return local;
}
int main(void) {
    int result = inner(2);
    char *block = malloc(4);
    free(block);
    block[0] = 1;
    return result + (int)kept;
}
";

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that waits for a debugger.
struct Waiting {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Waiting {
    fn start(dir: &Path, options: &[&str]) -> Waiting {
        let exe = compile(dir, "faulty", FAULTY, &[]);
        let log = dir.join("log");
        let _ = fs::remove_file(&log);
        let prefix = format!("--vgdb-prefix={}", dir.join("gdb").display());
        let mut command = Command::new(common::memcheck());
        command.args(options).args([&prefix, &format!("--log-file={}", log.display())]).arg(&exe).stdin(Stdio::null());
        let child = command.spawn().expect("the tool");
        let mut waiting = Waiting { child, socket: PathBuf::new(), log };
        let begun = Instant::now();
        while waiting.socket.as_os_str().is_empty() {
            let text = fs::read_to_string(&waiting.log).unwrap_or_default();
            if let Some((_, path)) = text.split_once("target remote ") {
                waiting.socket = PathBuf::from(path.lines().next().unwrap_or_default());
            }
            assert!(begun.elapsed() < PATIENCE, "nobody waits: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
        waiting
    }

    fn ended(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("the end");
        (status.code(), fs::read_to_string(&self.log).expect("the log"))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // After a failure nobody else will.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What gdb is to the tool.
struct Client(UnixStream);

impl Client {
    fn new(waiting: &Waiting) -> Client {
        let stream = UnixStream::connect(&waiting.socket).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut client = Client(stream);
        assert_eq!(client.ask("QStartNoAckMode"), "OK");
        client
    }

    fn send(&mut self, text: &str) {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${text}#{sum:02x}").expect("somebody hears");
    }

    fn receive(&mut self) -> String {
        let mut packet = Vec::new();
        let mut byte = [0];
        while !packet.ends_with(b"#") {
            self.0.read_exact(&mut byte).expect("a packet");
            packet.push(byte[0]);
        }
        self.0.read_exact(&mut [0; 2]).expect("its sum");
        let text = String::from_utf8_lossy(&packet).into_owned();
        text.trim_start_matches('+').trim_start_matches('$').trim_end_matches('#').to_owned()
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    /// A monitor command and all that it prints.
    fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("qRcmd,{hex}"));
        let mut printed = String::new();
        loop {
            match self.receive() {
                piece if piece.starts_with('O') && piece != "OK" => printed.push_str(&text_of(&piece[1..])),
                last => {
                    assert_eq!(last, "OK", "{command}: {printed}");
                    return printed;
                }
            }
        }
    }

    /// Register `at` of 8 bytes.
    fn register(&mut self, at: usize) -> u64 {
        let all = self.ask("g");
        u64::from_str_radix(&all[16 * at..16 * (at + 1)], 16).expect("a register").swap_bytes()
    }
}

fn text_of(hex: &str) -> String {
    let pairs = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("base 16"));
    String::from_utf8_lossy(&pairs.collect::<Vec<u8>>()).into_owned()
}

const RBP: usize = 6;
const RIP: usize = 16;

#[test]
fn a_debugger_looks_and_the_program_goes_on() {
    let dir = common::scratch("debugger");
    let mut waiting = Waiting::start(&dir, &["--vgdb-error=1"]);
    let mut gdb = Client::new(&waiting);
    assert!(gdb.ask("qSupported:xmlRegisters=i386").contains("qXfer:auxv:read+"));
    assert_eq!(gdb.ask("?"), "T05thread:1;");
    // Locals lie where the frame pointer says.
    let frame = gdb.register(RBP);
    assert_eq!(gdb.ask(&format!("m{:x},4", frame - 4)), "2a000000", "40 + 2");
    let block = gdb.ask(&format!("m{:x},8", frame - 16));
    let block = u64::from_str_radix(&block, 16).expect("a pointer").swap_bytes();
    assert!(gdb.monitor(&format!("xb 0x{block:x} 11")).contains("has 1 bytes unaddressable"));
    assert!(gdb.monitor(&format!("who_points_at 0x{block:x}")).contains("on thread 1's stack"));
    assert!(gdb.monitor("v.info last_error").contains("Invalid write of size 1"));
    // What cannot be done is refused.
    let rip = gdb.register(RIP);
    assert_eq!(gdb.ask(&format!("Z0,{rip:x},1")), "E01", "no breakpoints");
    assert_eq!(gdb.ask(&format!("M{rip:x},1:cc")), "E01", "no changes of code");
    assert_eq!((gdb.ask("s"), gdb.ask("G00"), gdb.ask("m0,4")), ("E01".into(), "E01".into(), "E01".into()));
    assert_eq!(gdb.ask("vMustReplyEmpty"), "");
    assert_eq!(gdb.ask(&format!("M{:x},4:05000000", frame - 4)), "OK", "data can be changed");
    assert_eq!(gdb.ask("c"), "T05thread:1;", "the second error");
    assert_ne!(gdb.register(RIP), rip);
    assert_eq!(gdb.ask("c"), "W0c", "5 + 7");
    let (code, log) = waiting.ended();
    assert_eq!(code, Some(12), "{log}");
    assert!(log.contains("ERROR SUMMARY: 2 errors from 2 contexts") && !log.contains("unaddressable"), "{log}");
}

#[test]
fn who_lets_go_is_not_waited_for_again() {
    let dir = common::scratch("debugger-detach");
    for (how, code) in [("detached", Some(49)), ("gone", Some(49)), ("killed", Some(0))] {
        let when = if how == "gone" { "--vgdb-stop-at=startup" } else { "--vgdb-error=0" };
        let mut waiting = Waiting::start(&dir, &[when]);
        let mut gdb = Client::new(&waiting);
        match how {
            "detached" => assert_eq!(gdb.ask("D"), "OK"),
            "killed" => gdb.send("k"),
            _ => drop(gdb),
        }
        let (ended, log) = waiting.ended();
        assert_eq!(ended, code, "{how}: {log}");
    }
}

#[test]
fn a_signal_ends_the_waiting() {
    let dir = common::scratch("debugger-signal");
    let mut waiting = Waiting::start(&dir, &["--vgdb-error=1"]);
    let killed = Command::new("kill").args(["-TERM", &waiting.child.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    let (code, log) = waiting.ended();
    assert!(code.is_none() && log.contains("default action of signal 15 (SIGTERM)"), "{code:?} {log}");
    assert!(!waiting.socket.exists());
}

#[test]
fn gdb_finds_its_way() {
    if common::find_program("gdb").is_none() {
        return common::skip("gdb itself", "it is not installed");
    }
    let dir = common::scratch("debugger-gdb");
    let mut waiting = Waiting::start(&dir, &["--vgdb-error=1"]);
    let target = format!("target remote {}", waiting.socket.display());
    let commands =
        [&target, "backtrace", "print local", "up", "print kept", "monitor v.info n_errs_found", "continue", "print kept", "detach"];
    let mut run = Run::new("gdb", &dir).args(["-batch", "-nx"]);
    for command in commands {
        run = run.args(["-ex", command]);
    }
    let outcome = run.arg("./faulty").finish("gdb");
    // Output of monitor commands is on stderr.
    let said = outcome.out() + &outcome.err();
    assert_eq!(outcome.ended, Ended::Code(0), "{said}");
    for expected in ["inner (count=2) at ", "faulty.c:11", "$1 = 42", "$2 = 7", "n_errs_found 1 n_errs_shown 1", "faulty.c:14", "$3 = 7"] {
        assert!(said.contains(expected), "{expected:?} not in {said}");
    }
    assert_eq!(waiting.ended().0, Some(49));
}
