//! What the tool knows of the run, and how it reports from now on.

use std::time::Duration;

use memcheck_report::Stack;
use memcheck_report::options::{self, TrackFds};
use memcheck_tracer::ThreadInfo;

use super::words::{choose, integer};
use super::{Step, Talk, help, memory};
use crate::session::{descriptors, handler, stacks};
use memcheck_abi::context::RSP;

pub fn help_general(talk: &mut Talk, words: &[&str]) -> Step {
    let debugging = words.first().map(|word| choose("debug", word));
    if let Some(Err(complaint)) = &debugging {
        talk.say(complaint);
    }
    talk.say(help::GENERAL.trim_end_matches('\n'));
    if let Some(Ok(_)) = debugging {
        talk.say(help::DEBUGGING.trim_end_matches('\n'));
    }
    Step::Done
}

pub fn help_memory(talk: &mut Talk, _: &[&str]) -> Step {
    talk.say(help::MEMORY.strip_suffix('\n').unwrap_or(help::MEMORY));
    Step::Done
}

/// Commands about what only Valgrind has.
pub fn of_the_inside(talk: &mut Talk, _: &[&str]) -> Step {
    talk.say("this command looks at the inside of Valgrind, which memcheck does not have");
    Step::Done
}

pub fn act(talk: &mut Talk, words: &[&str]) -> Step {
    let step = choose("expensive_sanity_check_general", words.first().unwrap_or(&"")).map(|_| Step::Done);
    talk.complain(step)
}

pub fn kill(talk: &mut Talk, _: &[&str]) -> Step {
    talk.watched.reporter.message(&["monitor command request to kill this process"]);
    Step::Kill
}

/// Longest wait: commands come from the program itself, which somebody waits for.
const LONGEST: Duration = Duration::from_secs(3600);

pub fn wait(talk: &mut Talk, words: &[&str]) -> Step {
    if let Some(word) = words.first() {
        let wanted = integer(word).unwrap_or(0);
        talk.say(&format!("gdbserver: continuing in {wanted} ms ..."));
        std::thread::sleep(Duration::from_millis(wanted).min(LONGEST));
    }
    talk.say("gdbserver: continuing after wait ...");
    Step::Done
}

/// Options that may change, some to a line.
pub fn options(talk: &mut Talk, words: &[&str]) -> Step {
    if words.is_empty() {
        talk.say("  dynamically changeable options:");
        options::changeable().chunks(4).for_each(|few| talk.say(&format!("    {}", few.join(" "))));
    }
    words.iter().for_each(|word| talk.watched.reporter.change_option(word));
    Step::Done
}

const INFO: &str = "all_errors n_errs_found last_error gdbserver_status memory scheduler stats open_fds exectxt location unwind";

pub fn info(talk: &mut Talk, words: &[&str]) -> Step {
    let (what, rest) = words.split_first().map_or(("", &[][..]), |(what, rest)| (*what, rest));
    let step = choose(INFO, what).map(|what| {
        match what {
            "location" => return memory::location(talk, rest),
            "all_errors" => talk.watched.reporter.show_errors(),
            "last_error" => talk.watched.reporter.show_last_error(),
            "n_errs_found" => {
                let (found, shown) = talk.watched.reporter.found();
                let limit = talk.watched.debugger_error;
                talk.say(&format!("n_errs_found {found} n_errs_shown {shown} (vgdb-error {limit}) {}", rest.join(" ")));
            }
            "open_fds" => open_descriptors(talk),
            "scheduler" => scheduler(talk),
            "stats" => handler::statistics(talk.report).iter().for_each(|line| talk.watched.reporter.trace(line)),
            "exectxt" => stacks_of_blocks(talk),
            _ => return of_the_inside(talk, rest),
        }
        Step::Done
    });
    talk.complain(step)
}

fn open_descriptors(talk: &mut Talk) {
    if talk.watched.reporter.options().track_fds == TrackFds::No {
        return talk.say("Valgrind must be started with --track-fds=[yes|all] to show open fds");
    }
    descriptors::report(talk.watched, talk.process, talk.report, false);
}

fn scheduler(talk: &mut Talk) {
    talk.say(&format!("\nsched status:\n  running_tid={}", talk.thread.number));
    let mut threads = talk.process.threads();
    threads.sort_by_key(|thread| thread.number);
    for thread in threads.iter().filter(|thread| thread.number != 0) {
        let is_ours = thread.tid == talk.thread.tid;
        let thread = if is_ours { talk.thread } else { thread };
        let status = if is_ours { "VgTs_Runnable".to_owned() } else { status(talk.process.pid(), thread.tid) };
        talk.say(&format!("\nThread {}: status = {status} (lwpid {})", thread.number, thread.tid));
        let stack = stack_of(talk, thread);
        talk.watched.reporter.backtrace(stack);
        let (low, high, sp) = (thread.stack_low, thread.stack_high.saturating_sub(1), thread.regs.gpr[RSP]);
        talk.say(&format!("client stack range: [0x{low:X} 0x{high:X}] client SP: 0x{sp:X}"));
    }
    talk.say("");
}

/// A thread that waits for the kernel does so in a system call.
fn status(pid: i32, tid: i32) -> String {
    let call = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
    match call.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()) {
        Some(number) => format!("VgTs_WaitSys syscall {number}"),
        None => "VgTs_Yielding".to_owned(),
    }
}

fn stack_of(talk: &mut Talk, thread: &ThreadInfo) -> Stack {
    let most = talk.watched.reporter.options().num_callers;
    let addresses = stacks::of_thread(talk.process, thread, &thread.regs, most);
    talk.watched.stack(talk.process, &addresses)
}

fn stacks_of_blocks(talk: &mut Talk) {
    let mut ids = Vec::new();
    stacks::Depot::of(talk.process).each(|id| ids.push(id));
    talk.watched.reporter.trace("   exectx: Printing contexts stacktraces");
    for id in &ids {
        let Some(addresses) = stacks::of_depot(talk.process, *id) else { continue };
        talk.watched.reporter.trace(&format!("   exectx: stacktrace ecu {id} epoch 0 n_ips {}", addresses.len()));
        let stack = talk.watched.stack(talk.process, &addresses);
        talk.watched.reporter.backtrace(stack);
    }
    talk.watched.reporter.trace(&format!("   exectx: Printed {} contexts stacktraces", ids.len()));
}

const SET: &str = "vgdb-error debuglog merge-recursive-frames gdb_output log_output mixed_output hostvisibility";

/// What `v.set` says about the output; there is no debugger that could get it.
const OUTPUTS: [(&str, &str); 3] = [
    ("log_output", "valgrind output will go to log"),
    ("mixed_output", "valgrind output will go to log, interactive output will go to gdb"),
    ("gdb_output", "valgrind output will go to gdb"),
];

pub fn set(talk: &mut Talk, words: &[&str]) -> Step {
    let (what, rest) = words.split_first().map_or(("", &[][..]), |(what, rest)| (*what, rest));
    let step = choose(SET, what).and_then(|what| {
        if let Some((_, answer)) = OUTPUTS.iter().find(|(output, _)| *output == what) {
            talk.say(answer);
        } else if what == "vgdb-error" || what == "merge-recursive-frames" {
            let value = rest.first().and_then(|word| integer(word)).ok_or("missing or malformed integer value")?;
            let before =
                if what == "vgdb-error" { std::mem::replace(&mut talk.watched.debugger_error, value) } else { merge_frames(talk, value) };
            talk.say(&format!("{what} value changed from {before} to {value}"));
        } else {
            return Ok(of_the_inside(talk, rest));
        }
        Ok(Step::Done)
    });
    talk.complain(step)
}

fn merge_frames(talk: &mut Talk, value: u64) -> u64 {
    let mut options = talk.watched.reporter.options().clone();
    let before = std::mem::replace(&mut options.merge_recursive_frames, value as usize);
    talk.watched.reporter.exchange_options(Some(Box::new(options)));
    before as u64
}
