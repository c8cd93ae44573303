//! Signals that are sent to memcheck but meant for the program.
//!
//! The user sees one job and one pid: `timeout`, `kill %1` and supervisors send to memcheck. Such a signal is passed on, and memcheck
//! lives on to report. What the terminal sends goes to the whole process group: the program has it already (unless it left the
//! group), so memcheck only must not die of it.
//!
//! Nor does it stop before the program: an editor that is suspended puts the terminal in order first, and for that it needs its tracer.
//! The shell sees the job stopped when the program is:
//!
//! ```text
//! terminal ─SIGTSTP─► program: its handler, if any; then it stops ──► tracer: group stop ─┐
//!          └SIGTSTP─► memcheck: notes it down ────────────────────────────────────────────┴─► stops, too
//! ```
//! A program that stops on its own account is another matter: who continues it may need memcheck running.
#![allow(unsafe_code, reason = "signal handlers")]

use crate::front::Sender;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

pub(crate) const SIGNALS: [i32; 9] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTSTP, libc::SIGTTIN, libc::SIGCONT];

/// Where to; 0 = the program has ended, the signal is for memcheck itself.
static TARGET: AtomicI32 = AtomicI32::new(0);
/// The signal that asks the job to stop, until it is obeyed.
static STOP: AtomicI32 = AtomicI32::new(0);
/// The program has stopped.
static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn pass_on(signo: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let target = TARGET.load(Ordering::Relaxed);
    // SAFETY: the kernel calls this with a valid siginfo; the calls are async-signal-safe, and errno is put back.
    unsafe {
        let errno = *libc::__errno_location();
        let sender = crate::front::sender(info);
        let stops = is_stop(signo);
        if stops && target != 0 && sender != Sender::Twice {
            STOP.store(signo, Ordering::SeqCst);
        }
        if signo == libc::SIGCONT {
            // As the kernel does: who is continued need not stop for what came before. (Sent to the whole group, it comes again; but until
            // then memcheck could stop, with nobody to continue the job.)
            STOP.store(0, Ordering::SeqCst);
            if STOPPED.load(Ordering::SeqCst) {
                wake(target);
            }
        } else if sender == Sender::Twice {
            // Comes again.
        } else if target == 0 {
            if stops {
                stop(signo);
            } else if sender != Sender::Terminal {
                libc::signal(signo, libc::SIG_DFL);
                libc::raise(signo);
            }
        } else {
            let is_news = match sender {
                Sender::Terminal => libc::getpgid(target) != libc::getpgrp(),
                Sender::Process(pid) => pid != target,
                Sender::Twice => false,
            };
            if is_news {
                libc::kill(target, signo);
            }
        }
        if STOPPED.load(Ordering::SeqCst) {
            obey();
        }
        *libc::__errno_location() = errno;
    }
}

fn is_stop(signo: i32) -> bool {
    matches!(signo, libc::SIGTSTP | libc::SIGTTIN)
}

/// Stop as if nothing had been done about the signal; returns when somebody continues memcheck.
fn stop(signo: i32) {
    stop_once(signo);
    // SAFETY: `pass_on` has the signature that its flags ask for.
    let _ = unsafe { listen(signo) };
}

/// Stop by the signal's default action, which is set from then on. One that is under way at this moment shall not stop the process a second
/// time when it goes on: blocked, the two are one.
pub(crate) fn stop_once(signo: i32) {
    // SAFETY: async-signal-safe calls; the set is live and initialised.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, signo);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signal(signo, libc::SIG_DFL);
        libc::raise(signo);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// The program has stopped: if the whole job shall, memcheck stops as well.
fn obey() {
    let signo = STOP.swap(0, Ordering::SeqCst);
    if signo != 0 {
        stop(signo);
    }
}

/// Memcheck was continued. If the program still stands a moment later, nobody else was told to.
fn wake(target: i32) {
    // SAFETY: async-signal-safe calls on plain memory.
    unsafe {
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        libc::nanosleep(&raw const moment, std::ptr::null_mut());
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let peek = libc::WSTOPPED | libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let asked = libc::waitid(libc::P_PID, target as libc::id_t, &raw mut info, peek);
        if target != 0 && asked == 0 && info.si_pid() == 0 {
            libc::kill(target, libc::SIGCONT);
        }
    }
}

/// The program (its first thread) has stopped, or goes on.
pub(crate) fn program_stopped(yes: bool) {
    STOPPED.store(yes, Ordering::SeqCst);
    if yes {
        obey();
    }
}

/// Installs the handler; what was there before, unless the signal is ignored.
///
/// # Safety
/// Changes the disposition of a signal for the process.
unsafe fn listen(signo: i32) -> Option<libc::sigaction> {
    // SAFETY: both actions are live and initialised; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = pass_on as *const () as usize;
        // A stop has to take effect inside the handler.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | if is_stop(signo) { libc::SA_NODEFER } else { 0 };
        // Ignored for us (nohup) is ignored for the program.
        if libc::sigaction(signo, std::ptr::null(), &mut old) != 0 || old.sa_sigaction == libc::SIG_IGN {
            return None;
        }
        libc::sigaction(signo, &new, std::ptr::null_mut());
        Some(old)
    }
}

/// While this lives, signals go to the program.
pub(crate) struct Forwarding {
    before: Vec<(i32, libc::sigaction)>,
}

impl Forwarding {
    pub fn to(pid: i32) -> Forwarding {
        TARGET.store(pid, Ordering::Relaxed);
        let mut before = Vec::new();
        for signo in SIGNALS {
            // SAFETY: until this value is dropped.
            before.extend(unsafe { listen(signo) }.map(|old| (signo, old)));
        }
        Forwarding { before }
    }

    /// The program has ended; its number may belong to another process soon.
    pub fn nobody(&self) {
        TARGET.store(0, Ordering::Relaxed);
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        TARGET.store(0, Ordering::Relaxed);
        for (signo, action) in &self.before {
            // SAFETY: puts back what `to` found.
            unsafe { libc::sigaction(*signo, action, std::ptr::null_mut()) };
        }
    }
}
