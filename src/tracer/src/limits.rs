//! What the machine allows: processor features, resource limits, core files; and dying like the program died.
#![allow(unsafe_code, reason = "prlimit, and raising a signal on ourselves")]

use std::fs;

/// No limit, as `Config::stack_limit` says it.
const UNLIMITED: u64 = u64::MAX;

/// The soft limit of a process's main stack, bytes.
pub(crate) fn soft_stack_limit(pid: i32) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: UNLIMITED, rlim_max: UNLIMITED };
    // SAFETY: with a null new limit the call only writes the old one into `limit`.
    unsafe { libc::prlimit(pid, libc::RLIMIT_STACK, std::ptr::null(), &mut limit) };
    limit.rlim_cur
}

/// Let the kernel grow the main stack to `bytes`, as far as the hard limit allows. The program sees the new limit.
pub(crate) fn raise_stack_limit(pid: i32, bytes: u64) {
    let mut limit = libc::rlimit { rlim_cur: UNLIMITED, rlim_max: UNLIMITED };
    // SAFETY: both limits are live; what cannot be read is not written back changed.
    unsafe {
        if libc::prlimit(pid, libc::RLIMIT_STACK, std::ptr::null(), &mut limit) == 0 {
            limit.rlim_cur = bytes.min(limit.rlim_max);
            libc::prlimit(pid, libc::RLIMIT_STACK, &limit, std::ptr::null_mut());
        }
    }
}

/// May programs set their segment bases themselves, as the runtime does?
pub(crate) fn has_fsgsbase() -> bool {
    /// HWCAP2_FSGSBASE of arch/x86/include/uapi/asm/hwcap2.h.
    const FSGSBASE: u64 = 2;
    // SAFETY: reads our own auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & FSGSBASE != 0 }
}

/// A core file of a traced program would hold terabytes of shadow: let it have none. For processes about to die;
/// by a thread of it.
pub(crate) fn forbid_core(tid: i32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit is live; a null old limit is allowed.
    unsafe { libc::prlimit(tid, libc::RLIMIT_CORE, &none, std::ptr::null_mut()) };
    // Where cores go to a program through a pipe, that limit is not asked; then at least no memory is written.
    let _ = fs::write(format!("/proc/{tid}/coredump_filter"), "0");
}

/// End this process by the signal that ended the program, so that the shell sees the same. Does not return.
pub fn die_by(signo: i32) -> ! {
    forbid_core(std::process::id() as i32);
    // SAFETY: the sets and actions are live and initialised; only this process's own signal state is changed.
    unsafe {
        libc::signal(signo, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, signo);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signo);
    }
    // A signal whose default action does not kill.
    std::process::exit(128 + signo)
}
