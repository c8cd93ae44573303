//! The process that the user knows, in front of the one that works.
//!
//! Programs that go into the background leave a child behind and end, and who called them goes on. A tracer has to live as long as
//! anybody it follows, so it cannot be the process that the caller waits for:
//!
//! ```text
//! caller ──waits──► front ──waits──► tracer ──follows──► program ─► daemon
//!                     │                │ program ended, daemon lives: `release(status)`
//!                     ◄────────────────┘
//!                   leaves with the status; the tracer stays with the daemon
//! ```
//!
//! The front does what a caller may expect of the program: it hands on signals, stops when the job stops, and ends as the program ended.
//! Killed, it takes the tracer along, and that takes the program. Without a second process (fork failed) all works as before, but
//! the caller waits for daemons.
//!
//! What the two tell each other stands in a page that both see; the signal only says that it is there. A value that travels with a signal
//! (sigqueue) would be lost when the user's queue of signals is full, and a farewell with it. `kill` always arrives.
//!
//! Neither keeps what it was given: who reads the program's output waits for its end, which comes when the last holder closes it. The front
//! needs no descriptor at all; the tracer lets go of its own, see [`Inherited`], but for standard error, where it reports.
//!
//! Processes that end a moment after the program are waited for: their reports stand before the caller's next line.
#![allow(unsafe_code, reason = "fork, signal handlers, and waiting for a child")]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// How long the front waits for the last ones to end, in steps of so many nanoseconds.
const PATIENCE: i32 = 25;
const STEP: i64 = 4_000_000;
/// In the farewell: the program was killed by this signal; else it is an exit status.
const KILLED: i32 = 0x100;
/// No farewell yet.
const STAYS: i32 = -1;

/// What front and tracer tell each other.
struct Notes {
    /// By signal: who sent it to the front last. Written by the front, read by the tracer.
    senders: [AtomicI32; 65],
    /// How the program ended. Written by the tracer, once; read by the front.
    farewell: AtomicI32,
}

/// In both: the page they share. Set before there are two, never changed.
static NOTES: AtomicPtr<Notes> = AtomicPtr::new(null_mut());

fn notes() -> Option<&'static Notes> {
    // SAFETY: null, or a page that is mapped as long as the process lives; all its fields are atomic.
    unsafe { NOTES.load(Ordering::Relaxed).as_ref() }
}

/// In the tracer: the front's pid. 0: there is none, or it has left.
static FRONT: AtomicI32 = AtomicI32::new(0);
/// In the front: the tracer's pid.
static TRACER: AtomicI32 = AtomicI32::new(0);
/// Who started memcheck, if there is a front.
static CALLER: AtomicU32 = AtomicU32::new(0);

/// How the program ended, for the front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    Code(i32),
    Signal(i32),
}

/// The process that started memcheck.
pub fn caller() -> u32 {
    match CALLER.load(Ordering::Relaxed) {
        0 => std::os::unix::process::parent_id(),
        pid => pid,
    }
}

/// Who sent a signal to memcheck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sender {
    /// The kernel, in the name of the terminal, to the whole process group.
    Terminal,
    /// This process.
    Process(i32),
    /// One who sent it to the whole process group: the front has it, too, and hands it on.
    Twice,
}

/// # Safety
/// To be called in a signal handler, with the siginfo that it was given.
pub(crate) unsafe fn sender(info: *const libc::siginfo_t) -> Sender {
    let front = FRONT.load(Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let (signo, code, pid) = unsafe { ((*info).si_signo, (*info).si_code, (*info).si_pid()) };
    match code {
        1.. => Sender::Terminal,
        _ if front == 0 => Sender::Process(pid),
        _ if pid == front => Sender::Process(notes().map_or(pid, |notes| notes.senders[signo as usize].load(Ordering::SeqCst))),
        _ => Sender::Twice,
    }
}

/// Put this process in front of a new one. Returns in the new one, which is to do the work.
pub fn divide() {
    let parent = std::os::unix::process::parent_id();
    let front = std::process::id() as i32;
    // SAFETY: memcheck has one thread yet, so the child may do anything.
    match unsafe { if share_notes() { libc::fork() } else { -1 } } {
        -1 => {}
        0 => {
            CALLER.store(parent, Ordering::Relaxed);
            FRONT.store(front, Ordering::Relaxed);
            // SAFETY: system calls without memory.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != front {
                    libc::_exit(1);
                }
            }
        }
        tracer => wait_for(tracer),
    }
}

/// Make the page that front and tracer share.
fn share_notes() -> bool {
    // SAFETY: a new mapping, where the kernel likes; zeroes are a value of atomic integers.
    let page = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        libc::mmap(null_mut(), size_of::<Notes>(), access, kind, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return false;
    }
    NOTES.store(page.cast(), Ordering::Relaxed);
    notes().inspect(|notes| notes.farewell.store(STAYS, Ordering::SeqCst)).is_some()
}

/// The program has ended so, and others live on: the front leaves, the tracer stays behind, bound to nothing that was the caller's.
pub(crate) fn release(how: Farewell) {
    let front = FRONT.swap(0, Ordering::Relaxed);
    if front == 0 {
        return;
    }
    let value = match how {
        Farewell::Code(code) => code & 0xff,
        Farewell::Signal(signo) => KILLED | signo,
    };
    // SAFETY: system calls; the path is a string, and the standard descriptors are no owned ones of anybody.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        lead_nowhere(0..3);
        libc::setsid();
    }
    if let Some(notes) = notes() {
        notes.farewell.store(value, Ordering::SeqCst);
    }
    // SAFETY: a system call without memory.
    unsafe { libc::kill(front, farewell_signal()) };
}

/// The descriptors that memcheck was given, for the program.
pub struct Inherited(Vec<i32>);

impl Inherited {
    /// Before anything is opened.
    pub fn note() -> Inherited {
        let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let mut all: Vec<i32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // Not the one that the list itself came through.
        // SAFETY: asking for the flags of a descriptor changes nothing.
        all.retain(|&fd| fd != libc::STDERR_FILENO && unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1);
        Inherited(all)
    }

    /// Close all but those that are still needed.
    pub fn let_go(self, is_needed: impl Fn(i32) -> bool) {
        let (standard, others): (Vec<i32>, Vec<i32>) = self.0.into_iter().filter(|&fd| !is_needed(fd)).partition(|&fd| fd < 3);
        // SAFETY: they were open before memcheck opened anything, and nothing of memcheck's has them.
        unsafe {
            lead_nowhere(standard);
            for fd in others {
                libc::close(fd);
            }
        }
    }
}

/// Standard descriptors stay open, so that nothing else comes to lie there.
///
/// # Safety
/// Whoever uses these descriptors has to live with it.
unsafe fn lead_nowhere(descriptors: impl IntoIterator<Item = i32>) {
    // SAFETY: system calls; the path is a string.
    unsafe {
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for fd in descriptors.into_iter().filter(|&fd| nowhere >= 0 && fd != nowhere) {
            libc::dup2(nowhere, fd);
        }
        if nowhere > 2 {
            libc::close(nowhere);
        }
    }
}

/// One that nobody else sends.
fn farewell_signal() -> i32 {
    libc::SIGRTMAX()
}

/// The front's life.
fn wait_for(tracer: i32) -> ! {
    TRACER.store(tracer, Ordering::Relaxed);
    // SAFETY: the front's own descriptors and signals, and it has no other thread.
    unsafe {
        lead_nowhere(0..3);
        libc::close_range(3, u32::MAX, 0);
        // Else the kernel would tell nobody of the tracer's end.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    for signo in crate::forward::SIGNALS {
        listen(signo, hand_on);
    }
    listen(farewell_signal(), take_leave);
    loop {
        let mut status = 0;
        // SAFETY: the status is live.
        let waited = unsafe { libc::waitpid(tracer, &raw mut status, libc::WUNTRACED) };
        if waited != tracer {
            continue;
        }
        if libc::WIFSTOPPED(status) {
            stop(libc::WSTOPSIG(status));
        } else {
            leave(status);
        }
    }
}

/// End as the tracer has ended.
fn leave(status: i32) -> ! {
    if libc::WIFSIGNALED(status) {
        crate::limits::die_by(libc::WTERMSIG(status));
    }
    std::process::exit(libc::WEXITSTATUS(status))
}

/// The tracer has stopped, as the job shall; it goes on when this process goes on.
fn stop(signo: i32) {
    crate::forward::stop_once(signo);
    if crate::forward::SIGNALS.contains(&signo) {
        listen(signo, hand_on);
    }
}

type Action = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

fn listen(signo: i32, action: Action) {
    // SAFETY: the actions and the set are live and initialised; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = action as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // Ignored for us (nohup) is ignored for the program.
        if libc::sigaction(signo, std::ptr::null(), &mut old) != 0 || old.sa_sigaction == libc::SIG_IGN {
            return;
        }
        libc::sigaction(signo, &new, std::ptr::null_mut());
        if signo == farewell_signal() {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, signo);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        }
    }
}

/// What was sent is meant for the program; what the terminal says, the tracer has heard, too.
extern "C" fn hand_on(signo: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel calls this with a valid siginfo; the calls are async-signal-safe, and errno is put back.
    unsafe {
        let errno = *libc::__errno_location();
        if let (Some(notes), ..=0) = (notes(), (*info).si_code) {
            notes.senders[signo as usize].store((*info).si_pid(), Ordering::SeqCst);
            libc::kill(TRACER.load(Ordering::Relaxed), signo);
        }
        *libc::__errno_location() = errno;
    }
}

/// The tracer stays behind. Whoever ends now is still waited for.
extern "C" fn take_leave(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let tracer = TRACER.load(Ordering::Relaxed);
    let value = notes().map_or(STAYS, |notes| notes.farewell.load(Ordering::SeqCst));
    if value == STAYS {
        return;
    }
    // SAFETY: the calls are async-signal-safe.
    unsafe {
        let step = libc::timespec { tv_sec: 0, tv_nsec: STEP };
        for _ in 0..PATIENCE {
            let mut status = 0;
            if libc::waitpid(tracer, &raw mut status, libc::WNOHANG) == tracer {
                break;
            }
            libc::nanosleep(&raw const step, std::ptr::null_mut());
        }
        if value & KILLED != 0 {
            crate::limits::die_by(value & !KILLED);
        }
        libc::_exit(value)
    }
}
