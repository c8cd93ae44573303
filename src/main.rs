//! `memcheck`: find memory errors in an unmodified Linux x86-64 program.
//!
//! The map of the house: the command line is `memcheck_report::options`, what happens with it is [`session`], and the exit code of
//! memcheck is decided in [`session::Status`]. The rooms below `src` are crates of their own; `session` is the only one that knows
//! them all.

mod session;

use std::ffi::OsString;
use std::io::Write;

use memcheck_report::options::{self, Invocation, RealEnv};
use session::Status;

fn main() {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| OsString::from("memcheck"));
    let words: Vec<OsString> = words.collect();
    let status = match options::parse(&name, &words, &RealEnv) {
        Ok(Invocation::Run(run)) => {
            let inherited = memcheck_tracer::Inherited::note();
            memcheck_tracer::divide();
            session::run(*run, &name, inherited)
        }
        Ok(Invocation::Print(text)) => print(&text),
        Err(error) => {
            if let Some(status) = options::sought_first(&name, &words).and_then(session::missing) {
                status.leave();
            }
            session::tell(&error.lines);
            Status::Code(error.exit_code)
        }
    };
    status.leave()
}

/// Help and version go to stdout; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Status {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Status::Code(0)
}
