//! A small gdb server: at the start and after an error the program stands still, and gdb looks at it.
//!
//! ```text
//! --vgdb-error=N     runtime ──Trap::Command (debugger)──► session: socket, gdb's packets, until it says "continue"
//!                            ◄──errands of a monitor command──
//! (gdb) target remote /tmp/vgdb-pipe-memcheck-PID
//! ```
//! gdb sees registers and memory of all threads, writes memory that is no code, and gives monitor commands, whose output it gets. The program
//! stands only where memcheck stands anyway, so there are no breakpoints and no steps: gdb is told that they cannot be set. Breakpoints in the
//! dynamic linker, which gdb sets for itself to hear of new libraries, are accepted and never hit; `info sharedlibrary` asks anew.
//!
//! - [`packet`]  the line to gdb;  [`process`]  registers, memory, what the kernel told the program

mod packet;
mod process;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use memcheck_abi::context::RSP;
use memcheck_abi::errand::Exchange;
use memcheck_tracer::{Ending, Process, ThreadInfo};

use super::monitor::{self, Step};
use super::watched::Watched;
use packet::{LONGEST, Line, from_hex, to_hex};

/// gdb, connected.
pub struct Gdb {
    line: Line<UnixStream>,
    /// A monitor command that waits for its errands.
    pending: Option<String>,
    /// The thread that is looked at.
    thread: u32,
    /// gdb waits to hear that the program stands.
    running: bool,
}

/// What the program does next.
enum Next {
    Stay,
    Go,
    Detach,
    Kill,
    Errands(Vec<memcheck_abi::errand::Errand>),
}

/// The program stands: talk until it may go on.
pub fn converse(watched: &mut Watched, process: &Process, thread: &ThreadInfo, exchange: &Exchange) -> Step {
    let mut thread = *thread;
    if exchange.pc != 0 {
        (thread.regs.rip, thread.regs.gpr[RSP]) = (exchange.pc, exchange.sp);
    }
    let Some(mut gdb) = watched.gdb.take().or_else(|| connect(watched, process)) else {
        return Step::Done;
    };
    let outcome = gdb.talk(watched, process, &thread, exchange);
    match outcome {
        Ok(Next::Errands(errands)) => {
            watched.gdb = Some(gdb);
            Step::Errands(errands)
        }
        Ok(Next::Kill) => Step::Kill,
        Ok(Next::Go | Next::Stay) => {
            watched.gdb = Some(gdb);
            Step::Done
        }
        // Nobody is waited for any more.
        Ok(Next::Detach) | Err(_) => {
            watched.is_left_alone = true;
            Step::Done
        }
    }
}

/// Say how, and wait for gdb.
fn connect(watched: &Watched, process: &Process) -> Option<Gdb> {
    if watched.is_left_alone {
        return None;
    }
    let reporter = &watched.reporter;
    let path = format!("{}-memcheck-{}", reporter.options().debugger_prefix, process.pid());
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            reporter.message(&[format!("Cannot wait for gdb at {path}: {error}")]);
            return None;
        }
    };
    reporter.message(&[
        "TO DEBUG THIS PROCESS USING GDB: start GDB like this".to_owned(),
        format!("  /path/to/gdb {}", reporter.program()),
        "and then give GDB the following command".to_owned(),
        format!("  target remote {path}"),
        String::new(),
    ]);
    let connected = accept(&listener, process.pid());
    let _ = std::fs::remove_file(&path);
    let stream = connected?;
    Some(Gdb { line: Line::new(stream), pending: None, thread: 1, running: false })
}

/// Somebody who connects, unless the user would rather end the program: signals to memcheck are passed on to it.
fn accept(listener: &UnixListener, pid: i32) -> Option<UnixStream> {
    const PAUSE: Duration = Duration::from_millis(50);
    listener.set_nonblocking(true).ok()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream.set_nonblocking(false).map(|()| stream).ok(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        if process::is_to_end(pid) {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

impl Gdb {
    fn talk(&mut self, watched: &mut Watched, process: &Process, thread: &ThreadInfo, exchange: &Exchange) -> io::Result<Next> {
        if let Some(command) = self.pending.take() {
            let step = self.command(watched, process, thread, exchange, &command)?;
            if !matches!(step, Next::Stay) {
                return Ok(step);
            }
        } else {
            self.thread = thread.number;
            if std::mem::take(&mut self.running) {
                self.line.send(stopped(thread).as_bytes())?;
            }
        }
        loop {
            let packet = self.line.receive()?;
            let text = String::from_utf8_lossy(&packet).into_owned();
            let next = match text.strip_prefix("qRcmd,") {
                Some(hex) => {
                    let command = String::from_utf8_lossy(&from_hex(hex.as_bytes()).unwrap_or_default()).into_owned();
                    self.command(watched, process, thread, &Exchange { done: 0, ..*exchange }, &command)?
                }
                None => self.answer(process, thread, &text)?,
            };
            if !matches!(next, Next::Stay) {
                return Ok(next);
            }
        }
    }

    /// A monitor command; gdb gets what it prints.
    fn command(
        &mut self,
        watched: &mut Watched,
        process: &Process,
        thread: &ThreadInfo,
        exchange: &Exchange,
        command: &str,
    ) -> io::Result<Next> {
        let log = watched.reporter.capture();
        let step = monitor::execute(watched, process, thread, exchange, command);
        let printed = watched.reporter.captured(log);
        for piece in printed.as_bytes().chunks(LONGEST / 4) {
            self.line.send(format!("O{}", to_hex(piece)).as_bytes())?;
        }
        match step {
            Step::Errands(errands) => {
                self.pending = Some(command.to_owned());
                return Ok(Next::Errands(errands));
            }
            Step::Kill => return Ok(Next::Kill),
            // An empty answer means "unknown command".
            Step::Unknown => self.line.send(b"")?,
            Step::Done => self.line.send(b"OK")?,
        }
        Ok(Next::Stay)
    }

    fn answer(&mut self, process: &Process, thread: &ThreadInfo, text: &str) -> io::Result<Next> {
        let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
        let look = |number: u32| if number == thread.number { Some(*thread) } else { process::thread(process, number) };
        let reply = match first {
            "?" => stopped(thread),
            "g" => look(self.thread).map_or_else(error, |thread| to_hex(&process::registers(&thread))),
            "m" => process::read(process, rest).map_or_else(error, |bytes| to_hex(&bytes)),
            "M" => process::write(process, rest).map_or_else(error, |()| ok()),
            "H" => {
                if let Some(number) = rest.strip_prefix('g').and_then(process::number).filter(|number| *number != 0) {
                    self.thread = number as u32;
                }
                ok()
            }
            "T" => process::number(rest).and_then(|number| look(number as u32)).map_or_else(error, |_| ok()),
            "Z" | "z" => process::breakpoint(process, rest).map_or_else(error, |()| ok()),
            "c" | "C" => {
                self.running = true;
                return Ok(Next::Go);
            }
            "D" => {
                self.line.send(b"OK")?;
                return Ok(Next::Detach);
            }
            "k" => return Ok(Next::Kill),
            "s" | "S" | "G" | "P" => error(),
            "v" if rest.starts_with("Kill") => {
                self.line.send(b"OK")?;
                return Ok(Next::Kill);
            }
            "q" | "Q" => return self.query(process, thread, text).map(|()| Next::Stay),
            _ => String::new(),
        };
        self.line.send(reply.as_bytes())?;
        Ok(Next::Stay)
    }

    fn query(&mut self, process: &Process, thread: &ThreadInfo, text: &str) -> io::Result<()> {
        if text == "QStartNoAckMode" {
            self.line.send(b"OK")?;
            self.line.confirms = false;
            return Ok(());
        }
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let reply = match name {
            "qSupported" => format!("PacketSize={LONGEST:x};QStartNoAckMode+;qXfer:auxv:read+;qXfer:exec-file:read+"),
            "qXfer" => return self.line.send(&process::object(process, rest).unwrap_or_default()),
            "qC" => format!("QC{:x}", thread.number),
            "qAttached" => "1".to_owned(),
            "qfThreadInfo" => {
                let numbers = process::threads(process).into_iter().map(|number| format!("{number:x}"));
                format!("m{}", numbers.collect::<Vec<_>>().join(","))
            }
            "qsThreadInfo" => "l".to_owned(),
            "qSymbol" => ok(),
            _ => String::new(),
        };
        self.line.send(reply.as_bytes())
    }

    /// The process is gone.
    pub fn ended(&mut self, ending: Ending) {
        let told = match ending {
            Ending::Exited(code) => format!("W{:02x}", code & 0xff),
            Ending::Signaled(signal) => format!("X{signal:02x}"),
            Ending::Failed => "X09".to_owned(),
        };
        // Whether gdb still hears it does not matter to anybody.
        let _ = self.line.send(told.as_bytes());
    }
}

fn ok() -> String {
    "OK".to_owned()
}

fn error() -> String {
    "E01".to_owned()
}

fn stopped(thread: &ThreadInfo) -> String {
    const SIGTRAP: u32 = 5;
    format!("T{SIGTRAP:02x}thread:{:x};", thread.number)
}
