//! The tracer's side of the contract, from injection to the last trap, against the stand-in runtime.

use std::ffi::OsString;
use std::path::Path;

use memcheck_abi::config::{Config, mapping};
use memcheck_abi::event::ExitReport;

use super::stand_in::{Scenario, image};
use crate::{Ending, Exact, FatalSignal, Handler, Image, Process, Program, ThreadInfo, Tracer, launch};

/// Plays a scenario and keeps what it is told.
struct Log {
    scenario: Scenario,
    /// What a followed program plays.
    follow: Option<Scenario>,
    ready: usize,
    exits: Vec<Ending>,
    /// Thread numbers at the exits.
    threads: Vec<Vec<u32>>,
    fatal: Vec<FatalSignal>,
    ended: Vec<Ending>,
    children: usize,
    leak_checks: Vec<u64>,
    internal: Vec<String>,
}

impl Handler for Log {
    fn configure(&mut self, _: &Process, config: &mut Config) {
        config.num_callers = self.scenario as u32;
        let list = &config.mappings[..config.mapping_count as usize];
        for kind in [mapping::PROGRAM, mapping::INTERPRETER, mapping::STACK] {
            assert!(list.iter().any(|m| m.kind == kind), "kind {kind} among {list:?}");
        }
        assert!(Path::new(std::str::from_utf8(&config.exe[..5]).unwrap()).is_absolute());
    }
    fn ready(&mut self, process: &Process) {
        self.ready += 1;
        let maps = process.maps().unwrap();
        assert!(maps.iter().any(|m| m.start == memcheck_abi::layout::IMAGE_BASE && m.prot == 7));
        let sleeps_in = match self.scenario {
            Scenario::SignalInPause | Scenario::FatalInPause => libc::SYS_pause,
            Scenario::SignalRestarts => libc::SYS_read,
            Scenario::Suspend => libc::SYS_rt_sigsuspend,
            _ => return,
        };
        let pid = process.pid();
        std::thread::spawn(move || alarm_when_asleep(pid, sleeps_in));
    }
    fn exiting(&mut self, process: &Process, thread: &ThreadInfo, ending: Ending, report: &ExitReport) -> Option<i32> {
        assert_eq!((report.allocs, report.frees), (5, 4));
        assert_eq!(thread.exact, Exact::Yes);
        self.exits.push(ending);
        self.threads.push(process.threads().iter().map(|t| t.number).collect());
        None
    }
    fn fatal_signal(&mut self, _: &Process, _: &ThreadInfo, signal: &FatalSignal) {
        self.fatal.push(*signal);
    }
    fn process_ended(&mut self, _: i32, ending: Ending) {
        self.ended.push(ending);
    }
    fn leak_check(&mut self, process: &Process, mode: u64, _: &ExitReport) {
        assert_eq!(process.threads().len(), 2);
        self.leak_checks.push(mode);
    }
    fn forked(&mut self, _: &Process, _: &Process) {
        self.children += 1;
    }
    fn internal(&mut self, _: &Process, text: &str) {
        self.internal.push(text.to_string());
    }
    fn exec_started(&mut self, _: &Process, path: &Path, arguments: &[OsString]) -> bool {
        assert_eq!(path, Path::new("/bin/true"));
        assert_eq!(arguments, ["/bin/true"]);
        if let Some(next) = self.follow {
            self.scenario = next;
        }
        self.follow.is_some()
    }
}

/// Send SIGALRM to a process once it waits in this system call.
fn alarm_when_asleep(pid: i32, number: libc::c_long) {
    let wanted = format!("{number} ");
    while let Ok(now) = std::fs::read_to_string(format!("/proc/{pid}/syscall")) {
        if now.starts_with(&wanted) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGALRM);
            return;
        }
        std::thread::yield_now();
    }
}

fn play(scenario: Scenario, follow: Option<Scenario>) -> (Ending, Log) {
    let program = Program::find(&["true".into()]).expect("there is a program");
    let bytes = image();
    let image = Image { bytes: &bytes, memory_size: bytes.len() as u64 + 0x10000 };
    let (exits, threads, fatal, ended, internal) = Default::default();
    let mut log = Log { scenario, follow, ready: 0, exits, threads, fatal, ended, children: 0, leak_checks: Vec::new(), internal };
    let launched = launch(&program).expect("ptrace is possible");
    let tracer = Tracer::start(launched, Some(image), &mut log).expect("injected");
    (tracer.run(&mut log), log)
}

/// The scenario ends with 42, after an exit report that says so.
fn check(scenario: Scenario) -> Log {
    let (ending, log) = play(scenario, None);
    assert_eq!((ending, log.internal.as_slice()), (Ending::Exited(42), [].as_slice()));
    assert_eq!(log.exits.last(), Some(&Ending::Exited(42)));
    assert_eq!(log.ended.last(), Some(&Ending::Exited(42)));
    log
}

/// The scenario dies by `signo`, announced first, with a report.
fn check_death(scenario: Scenario, signo: i32) -> FatalSignal {
    let (ending, log) = play(scenario, None);
    assert_eq!((ending, log.internal.as_slice()), (Ending::Signaled(signo), [].as_slice()));
    assert_eq!(log.exits, [Ending::Signaled(signo)]);
    assert_eq!(log.fatal.len(), 1);
    assert_eq!(log.fatal[0].signo, signo);
    log.fatal[0]
}

#[test]
fn injection_and_exit() {
    assert_eq!(check(Scenario::Exit).ready, 1);
}

#[test]
fn a_signal_in_translated_code() {
    check(Scenario::SignalInCache);
}

#[test]
fn a_signal_in_a_system_call() {
    check(Scenario::SignalInPause);
}

#[test]
fn a_signal_that_restarts_its_system_call() {
    check(Scenario::SignalRestarts);
}

#[test]
fn a_signal_in_the_runtime() {
    check(Scenario::SignalInRuntime);
}

#[test]
fn a_signal_that_only_a_temporary_mask_lets_in() {
    check(Scenario::Suspend);
}

#[test]
fn two_signals_at_once() {
    check(Scenario::TwoSignals);
}

#[test]
fn a_fault_with_a_corrected_address() {
    check(Scenario::Fault);
}

#[test]
fn a_fault_without_handler() {
    let signal = check_death(Scenario::FatalFault, libc::SIGSEGV);
    assert!(signal.is_fault());
    assert_eq!((signal.addr, signal.code), (0x1234, 1));
    check_death(Scenario::FatalWithThreads, libc::SIGSEGV);
    check_death(Scenario::FatalTwice, libc::SIGSEGV);
}

#[test]
fn a_signal_without_handler() {
    let signal = check_death(Scenario::FatalSignal, libc::SIGVTALRM);
    assert!(!signal.is_fault());
    let signal = check_death(Scenario::FatalInPause, libc::SIGALRM);
    assert!(!signal.is_fault());
}

#[test]
fn sigkill_is_announced() {
    let (ending, log) = play(Scenario::Kill, None);
    assert_eq!(ending, Ending::Signaled(libc::SIGKILL));
    assert_eq!(log.fatal.iter().map(|f| f.signo).collect::<Vec<_>>(), [libc::SIGKILL]);
    assert!(log.exits.is_empty());
}

#[test]
fn all_threads_are_stopped_at_the_exit() {
    let log = check(Scenario::Threads);
    assert_eq!(log.threads, [[1, 2]]);
}

#[test]
fn a_stopped_program_continues() {
    let (ending, log) = play(Scenario::Stop, None);
    assert_eq!((ending, log.internal.len()), (Ending::Exited(42), 0));
}

#[test]
fn children_report_for_themselves() {
    for scenario in [Scenario::Fork, Scenario::Vfork] {
        let log = check(scenario);
        assert_eq!(log.children, 1);
        assert_eq!(log.exits, [Ending::Exited(3), Ending::Exited(42)]);
    }
}

#[test]
fn a_leak_check_stops_the_world_for_a_moment() {
    assert_eq!(check(Scenario::LeakCheck).leak_checks, [7]);
}

#[test]
fn any_thread_can_exec() {
    let (ending, log) = play(Scenario::ThreadExec, None);
    assert_eq!((ending, log.exits.len()), (Ending::Exited(0), 0));
    let (ending, log) = play(Scenario::ThreadExec, Some(Scenario::Threads));
    assert_eq!((ending, log.ready), (Ending::Exited(42), 2));
    assert_eq!(log.threads, [[1, 2]], "the old threads are forgotten");
}

#[test]
fn exec_lets_go() {
    let (ending, log) = play(Scenario::Exec, None);
    assert_eq!((ending, log.ready), (Ending::Exited(0), 1));
    assert!(log.exits.is_empty());
}

#[test]
fn exec_is_followed_on_demand() {
    let (ending, log) = play(Scenario::Exec, Some(Scenario::SignalInCache));
    assert_eq!((ending, log.ready), (Ending::Exited(42), 2));
    assert_eq!(log.exits, [Ending::Exited(42)]);
}

#[test]
fn a_broken_runtime_is_the_end() {
    let (ending, log) = play(Scenario::CrashAtStart, None);
    assert_eq!(ending, Ending::Failed);
    assert_eq!(log.internal.len(), 1);
    assert!(log.internal[0].starts_with("SIGSEGV (code 1, address 0x8) in the runtime"), "{:?}", log.internal);
}
