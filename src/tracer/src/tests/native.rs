//! Programs run natively under ptrace: endings, signals, threads of control, job control.

use std::ffi::OsString;

use crate::{Ending, Handler, Process, Program, Tracer, launch};

/// Counts what it is told.
#[derive(Default)]
struct Log {
    children: usize,
    ended: Vec<Ending>,
    execs: usize,
}

impl Handler for Log {
    fn forked(&mut self, _: &Process, _: &Process) {
        self.children += 1;
    }
    fn process_ended(&mut self, _: i32, ending: Ending) {
        self.ended.push(ending);
    }
    fn exec_done(&mut self, _: &Process, followed: bool) {
        assert!(!followed);
        self.execs += 1;
    }
}

fn run(arguments: &[&str]) -> (Ending, Log) {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let program = Program::find(&arguments).expect("the program exists");
    let mut log = Log::default();
    let tracer = Tracer::start(launch(&program).expect("ptrace is possible"), None, &mut log).expect("start");
    (tracer.run(&mut log), log)
}

fn sh(script: &str) -> (Ending, Log) {
    run(&["/bin/sh", "-c", script])
}

#[test]
fn exit_codes() {
    assert_eq!(run(&["true"]).0, Ending::Exited(0));
    assert_eq!(sh("exit 7").0, Ending::Exited(7));
}

#[test]
fn death_by_signal() {
    assert_eq!(sh("kill -TERM $$").0, Ending::Signaled(libc::SIGTERM));
    assert_eq!(sh("kill -KILL $$").0, Ending::Signaled(libc::SIGKILL));
}

/// Not a test: what the next one runs in a process of its own.
#[test]
#[ignore = "dies by intention"]
fn dies() {
    crate::die_by(libc::SIGFPE);
}

#[test]
fn dying_like_the_program_died() {
    use std::os::unix::process::ExitStatusExt;
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me).args(["--ignored", "--exact", "tests::native::dies"]).output().unwrap().status;
    assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGFPE), false));
}

#[test]
fn handlers_run() {
    assert_eq!(sh("trap 'exit 5' USR1; kill -USR1 $$; exit 1").0, Ending::Exited(5));
}

#[test]
fn children_are_followed_until_exec() {
    let (ending, log) = sh("(exit 3); r=$?; (exit 4); exit $((r + $?))");
    assert_eq!(ending, Ending::Exited(7));
    assert_eq!(log.children, 2);
    assert_eq!(log.ended.len(), 3);
    let (ending, log) = sh("/bin/true; exec /bin/sh -c 'exit 9'");
    assert_eq!(ending, Ending::Exited(9), "the status of a program that was let go");
    assert_eq!((log.children, log.execs), (1, 2));
}

#[test]
fn a_stopped_program_continues() {
    assert_eq!(sh("(while kill -CONT $$; do :; done) 2>/dev/null & kill -STOP $$; exit 6").0, Ending::Exited(6));
}

#[test]
fn sigpipe_has_its_default_action_although_rust_ignores_it() {
    // The shell of the test's caller decides; what must not show through is Rust's own setting.
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(crate::signals::Choices::parse(&ours).ignored & crate::signals::bit(libc::SIGPIPE), 0, "Rust ignores it");
    assert_eq!(sh("kill -PIPE $$").0, Ending::Signaled(libc::SIGPIPE));
}

#[test]
fn a_text_file_goes_to_the_shell() {
    let path = std::env::temp_dir().join(format!("memcheck-tracer-text-{}", std::process::id()));
    std::fs::write(&path, "exit $(($1 + 1))\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(run(&[path.to_str().unwrap(), "20"]).0, Ending::Exited(21));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_missing_interpreter_is_told_apart() {
    let path = std::env::temp_dir().join(format!("memcheck-tracer-bad-{}", std::process::id()));
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = Program::find(&[path.clone().into()]).unwrap();
    let refusal = launch(&program).err().expect("nothing to run");
    assert_eq!(refusal.exit_code, 126, "there is such a program");
    assert!(refusal.message.ends_with("bad interpreter: No such file or directory"), "{}", refusal.message);
    std::fs::remove_file(&path).unwrap();
}
