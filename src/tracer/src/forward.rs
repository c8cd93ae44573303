//! Signals that are sent to memcheck but meant for the program.
//!
//! The user sees one job and one pid: `timeout`, `kill %1` and supervisors send to memcheck. Such a signal is passed on, and memcheck
//! lives on to report. What the terminal sends goes to the whole process group: the program has it already (unless it left the
//! group), so memcheck only must not die of it.
#![allow(unsafe_code, reason = "signal handlers")]

use std::sync::atomic::{AtomicI32, Ordering};

const SIGNALS: [i32; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Where to; 0 = the program has ended, the signal is for memcheck itself.
static TARGET: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signo: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let target = TARGET.load(Ordering::Relaxed);
    // SAFETY: the kernel calls this with a valid siginfo; the calls are async-signal-safe, and errno is put back.
    unsafe {
        let errno = *libc::__errno_location();
        let sent = (*info).si_code <= 0;
        if target == 0 {
            if sent {
                libc::signal(signo, libc::SIG_DFL);
                libc::raise(signo);
            }
        } else if sent && (*info).si_pid() != target || !sent && libc::getpgid(target) != libc::getpgrp() {
            libc::kill(target, signo);
        }
        *libc::__errno_location() = errno;
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
            // SAFETY: both actions are live and initialised; the handler has the signature that SA_SIGINFO asks for.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = pass_on as *const () as usize;
                new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                // Ignored for us (nohup) is ignored for the program.
                if libc::sigaction(signo, std::ptr::null(), &mut old) == 0 && old.sa_sigaction != libc::SIG_IGN {
                    libc::sigaction(signo, &new, std::ptr::null_mut());
                    before.push((signo, old));
                }
            }
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
