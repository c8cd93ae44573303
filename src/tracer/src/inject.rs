//! Put the runtime into a program that stands at its exec stop.
//!
//! ```text
//! exec stop ─► return from execve ─► mmap IMAGE_BASE ─► write image, config ─► rip = config.entry
//! ```
//!
//! The program has not executed one instruction. Its registers (rsp = argc, argv, envp, auxv) stay as they are, except rip; the
//! runtime switches to a stack of its own. The one system call is made by the program itself: `syscall` is written over the
//! bytes at rip for that time.
//!
//! The image is copied into anonymous memory, not mapped from a file: nothing is inherited through exec, so the same way works for
//! programs that the program executes, and no descriptor ever shows up in it.
//!
//! Deliberately absent: moving the program and reserving shadow. The runtime does that, where a system call costs no stop.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use memcheck_abi::config::{Config, MAGIC, MAX_MAPPINGS};
use memcheck_abi::layout;

use crate::handler::Handler;
use crate::maps::{self, Auxv};
use crate::memory::{config_bytes, config_from_bytes};
use crate::process::{Code, Process};
use crate::tracee::{self, Error, How, Regs, Report, Stop, Stopped};

/// The runtime, as the build made it.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// The initialised part; starts with `Config`.
    pub bytes: &'a [u8],
    /// Size in memory, with what must be zero behind it.
    pub memory_size: u64,
}

/// Why a program cannot be taken over.
#[derive(Debug)]
pub enum Failure {
    /// It runs in 32-bit mode.
    Bits32,
    /// With the reason, in words.
    Impossible(String),
    Ptrace(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ptrace(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Bits32 => f.write_str("32-bit programs are not supported"),
            Failure::Impossible(why) => f.write_str(why),
            Failure::Ptrace(error) => error.fmt(f),
        }
    }
}

/// Code segment of 32-bit mode.
const CS_32: u64 = 0x23;
const PAGE: u64 = 4096;

/// Is the program at its exec stop a 32-bit one? (Executables that we may not read are only recognised here.)
pub(crate) fn is_32_bit(stopped: &Stopped) -> tracee::Result<bool> {
    Ok(stopped.registers()?.cs == CS_32)
}

/// Take over the program at its exec stop; it is left stopped at the runtime's entry.
pub(crate) fn inject(
    stopped: Stopped,
    process: &mut Process,
    image: &Image<'_>,
    personality: u32,
    handler: &mut dyn Handler,
) -> Result<Stopped, Failure> {
    if is_32_bit(&stopped)? {
        return Err(Failure::Bits32);
    }
    // At the event, execve has not returned yet: rax would still be overwritten.
    let stopped = to_syscall_stop(stopped, process)?;
    let start = stopped.registers()?;
    let mut config = config_from_bytes(image.bytes).ok_or_else(|| Failure::Impossible("the runtime image is too short".into()))?;
    if config.magic != MAGIC {
        return Err(Failure::Impossible("the runtime image has no configuration".into()));
    }
    describe(process.pid, &start, personality, &mut config)?;
    let limit = config.stack_limit;
    handler.configure(process, &mut config);
    if config.stack_limit > limit {
        crate::limits::raise_stack_limit(process.pid, config.stack_limit);
    }
    let stopped = map_image(stopped, process, &start, image)?;
    let written = process.memory.write(layout::IMAGE_BASE, image.bytes) && process.memory.write(layout::IMAGE_BASE, config_bytes(&config));
    if !written {
        return Err(Failure::Impossible("the runtime cannot be written into the program".into()));
    }
    process.code = Code::of(&config);
    stopped.set_registers(&Regs { rip: config.entry, ..start })?;
    Ok(stopped)
}

/// The part of the configuration that describes the process.
fn describe(pid: i32, start: &Regs, personality: u32, config: &mut Config) -> Result<(), Failure> {
    let unreadable = |what: &str, e: std::io::Error| Failure::Impossible(format!("cannot read /proc/{pid}/{what}: {e}"));
    let maps = maps::read(pid).map_err(|e| unreadable("maps", e))?;
    let auxv = Auxv::read(pid).map_err(|e| unreadable("auxv", e))?;
    let mappings = maps::classify(&maps, &auxv);
    if mappings.len() > MAX_MAPPINGS {
        return Err(Failure::Impossible(format!("the program starts with more than {MAX_MAPPINGS} mappings")));
    }
    config.start_rip = start.rip;
    config.mapping_count = mappings.len() as u32;
    config.mappings[..mappings.len()].copy_from_slice(&mappings);
    config.stack_limit = crate::limits::soft_stack_limit(pid);
    config.personality = personality;
    config.tracer = std::process::id();
    config.parent = crate::front::caller();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).map_err(|e| unreadable("exe", e))?;
    let exe = exe.as_os_str().as_bytes();
    let length = exe.len().min(config.exe.len() - 1);
    config.exe[..length].copy_from_slice(&exe[..length]);
    config.exe[length] = 0;
    Ok(())
}

/// Let the program itself map the place for the image.
fn map_image(stopped: Stopped, process: &mut Process, start: &Regs, image: &Image<'_>) -> Result<Stopped, Failure> {
    const MAP: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let size = image.memory_size.max(image.bytes.len() as u64).next_multiple_of(PAGE);
    let arguments = [layout::IMAGE_BASE, size, prot as u64, MAP as u64, u64::MAX, 0];
    let (stopped, answer) = remote_syscall(stopped, process, start, libc::SYS_mmap, arguments)?;
    match answer as i64 {
        at if at as u64 == layout::IMAGE_BASE => {
            // One large page costs less than hundreds of small ones. Where there are none it is as it was.
            let advice = [layout::IMAGE_BASE, size, libc::MADV_HUGEPAGE as u64, 0, 0, 0];
            Ok(remote_syscall(stopped, process, start, libc::SYS_madvise, advice)?.0)
        }
        at @ -4095..0 => {
            let error = std::io::Error::from_raw_os_error(-at as i32);
            Err(Failure::Impossible(format!("no memory for the runtime in the program ({})", crate::resolve::reason(&error))))
        }
        _ => Err(Failure::Impossible("the place of the runtime is taken in the program".into())),
    }
}

/// Make the stopped thread execute one system call at its current rip. Registers and code are as before afterwards.
pub(crate) fn remote_syscall(
    stopped: Stopped,
    process: &mut Process,
    at: &Regs,
    number: libc::c_long,
    arguments: [u64; 6],
) -> Result<(Stopped, u64), Failure> {
    /// `syscall`, little endian.
    const SYSCALL: u64 = 0x050f;
    let Some(word) = process.memory.value::<u64>(at.rip) else {
        return Err(Failure::Impossible(format!("the program's first instruction at {:#x} cannot be read", at.rip)));
    };
    let [rdi, rsi, rdx, r10, r8, r9] = arguments;
    stopped.poke(at.rip, word & !0xffff | SYSCALL)?;
    stopped.set_registers(&Regs { rax: number as u64, orig_rax: u64::MAX, rdi, rsi, rdx, r10, r8, r9, ..*at })?;
    let stopped = to_syscall_stop(stopped, process)?;
    let stopped = to_syscall_stop(stopped, process)?;
    let answer = stopped.registers()?.rax;
    stopped.poke(at.rip, word)?;
    stopped.set_registers(at)?;
    Ok((stopped, answer))
}

/// Run to the next system call stop. Signals that arrive meanwhile are kept for later.
fn to_syscall_stop(stopped: Stopped, process: &mut Process) -> tracee::Result<Stopped> {
    let tid = stopped.tid();
    stopped.resume(How::Syscall, 0)?;
    loop {
        match tracee::wait(tid, true) {
            Report::Stopped(stopped, Stop::Syscall) => return Ok(stopped),
            Report::Stopped(stopped, Stop::Signal(_)) => {
                let info = stopped.siginfo()?;
                if let Some(thread) = process.threads.get_mut(&tid) {
                    thread.queue.push_back(info);
                }
                stopped.resume(How::Syscall, 0)?;
            }
            // Killed: it stops once more on its way out. The end itself is for the event loop.
            Report::Stopped(stopped, Stop::Event(libc::PTRACE_EVENT_EXIT)) => {
                stopped.resume(How::Continue, 0)?;
                return Err(Error::Died);
            }
            Report::Stopped(stopped, _) => stopped.resume(How::Syscall, 0)?,
            Report::Ended(_, ending) => {
                // The report is consumed here, so it is kept where the event loop finds it.
                process.verdict = Some(ending);
                return Err(Error::Died);
            }
            Report::Nothing | Report::Nobody => return Err(Error::Died),
        }
    }
}
