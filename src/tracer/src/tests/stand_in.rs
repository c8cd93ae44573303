//! A stand-in for the runtime, small enough to be read: it plays the scenario that its configuration names.
//!
//! It keeps the contract as the tracer sees it — contexts, traps, entries, the window around the system call — and *is* the program,
//! too: "program addresses" are addresses in this image, executed as they are, and the "code cache" is a page with a loop.
//!
//! Data live among the code: the image is mapped writable. Every path ends in an exit code that says what was seen.
#![allow(unsafe_code, reason = "assembly, and its bytes as an image")]

use std::arch::global_asm;
use std::mem::offset_of;

use memcheck_abi::config::{Config, MAGIC};
use memcheck_abi::context::{ThreadContext, offset};
use memcheck_abi::layout;

use crate::memory::{config_bytes, config_from_bytes};

/// What to play: the value of `Config::num_callers`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Exit with 42.
    Exit = 0,
    /// SIGVTALRM in the code cache; exit 42 from the interrupted place.
    SignalInCache = 1,
    /// SIGALRM (from the test) during pause(); exit 42 if it returned EINTR.
    SignalInPause = 2,
    /// SIGALRM (from the test) with SA_RESTART during read(); the handler writes what is read then; exit 42.
    SignalRestarts = 3,
    /// SIGVTALRM in the runtime.
    SignalInRuntime = 4,
    /// SIGSEGV in the code cache, with a handler that looks at si_addr; exit 42.
    Fault = 5,
    /// The same without handler.
    FatalFault = 6,
    /// SIGVTALRM in the code cache, without handler.
    FatalSignal = 7,
    /// SIGALRM (from the test) during pause(), without handler.
    FatalInPause = 8,
    /// A second thread; exit 42 while it runs.
    Threads = 9,
    /// fork; the child exits 3, the parent 39 + 3.
    Fork = 10,
    /// execve of /bin/true.
    Exec = 11,
    /// SIGKILL to itself.
    Kill = 12,
    /// SIGALRM (from the test) during sigsuspend(), otherwise blocked; exit 42 if the handler ran and it is blocked again.
    Suspend = 13,
    /// SIGUSR1 raised in SIGALRM's place while both wait; exit 42 if both handlers ran.
    TwoSignals = 14,
    /// SIGSEGV in the runtime, before `Ready`.
    CrashAtStart = 15,
    /// SIGSTOP to itself; a child sends SIGCONT until it is gone; exit 42.
    Stop = 16,
    /// As Fork, with vfork.
    Vfork = 17,
    /// A leak check while a second thread runs; exit 42 when that thread runs on.
    LeakCheck = 18,
    /// A second thread executes /bin/true.
    ThreadExec = 19,
    /// The first thread dies as in FatalFault while a second runs.
    FatalWithThreads = 20,
    /// Both do.
    FatalTwice = 21,
}

const CODE: u64 = 0x4000;
/// Where the code begins in the image.
const _: () = assert!(size_of::<Config>() as u64 <= CODE);

global_asm!(
    ".pushsection .rodata.stand_in, \"a\"",
    ".balign 16",
    ".globl stand_in_start, stand_in_end, stand_in_entry, stand_in_trap, stand_in_resume, stand_in_check, stand_in_insn",
    ".globl stand_in_after, stand_in_fault, stand_in_signal",
    "stand_in_start:",
    // ---- start-up: a thread slot, the code cache, fs
    "stand_in_entry:",
    "mov rax, {config_scenario}; mov r15d, [rax]",
    "cmp r15d, 15; jne 1f; mov rax, [8]; 1:",
    "mov eax, 9; mov rdi, {slot}; mov esi, 0x90000; mov edx, 3; mov r10d, 0x100022; mov r8, -1; xor r9d, r9d; syscall",
    "mov eax, 9; mov rdi, {cache}; mov esi, 0x1000; mov edx, 7; mov r10d, 0x100022; mov r8, -1; xor r9d, r9d; syscall",
    "mov rbx, {slot}; mov rdi, rbx; mov esi, 1; call new_context",
    "mov eax, 158; mov edi, 0x1002; mov rsi, rbx; syscall",
    // the loop in the cache: three nops and a jump back, of two bytes
    "mov rax, {cache}; mov dword ptr [rax], 0xeb909090; mov byte ptr [rax+4], 0xfb",
    "mov eax, 1; call stand_in_trap",
    // ---- dispatch on the scenario
    "lea rax, [rip+scenarios]; movsxd rcx, dword ptr [rax+4*r15]; add rax, rcx; jmp rax",
    "scenarios:",
    ".long play_exit-scenarios, play_cache-scenarios, play_pause-scenarios, play_restart-scenarios, play_runtime-scenarios",
    ".long play_fault-scenarios, play_fatal_fault-scenarios, play_fatal-scenarios, play_fatal_pause-scenarios",
    ".long play_threads-scenarios, play_fork-scenarios, play_exec-scenarios, play_kill-scenarios, play_suspend-scenarios",
    ".long play_two-scenarios, play_exit-scenarios, play_stop-scenarios, play_vfork-scenarios, play_threads-scenarios",
    ".long play_threads-scenarios, play_threads-scenarios, play_threads-scenarios",
    // ---- services
    "stand_in_trap: int3",
    "ret",
    // rdi = slot, rsi = number
    "new_context: mov [rdi], rdi; lea rax, [rdi+{runtime_top}]; mov [rdi+{runtime_rsp}], rax; mov [rdi+{number}], esi; ret",
    // exit with edi, as the runtime does
    "play_exit: mov edi, 42",
    "leave: mov ebx, edi; lea rsi, [rip+report]; mov eax, 8; call stand_in_trap; mov edi, ebx; mov eax, 231; syscall",
    // install rdx as handler of signal edi with flags esi
    "action: mov [rip+sa], rdx; or esi, 0x04000000; mov [rip+sa+8], rsi; lea rax, [rip+restorer]; mov [rip+sa+16], rax",
    "lea rsi, [rip+sa]; xor edx, edx; mov r10d, 8; mov eax, 13; syscall; ret",
    // SIGVTALRM after 20 ms of running: never before the next instructions are reached, however loaded the machine is
    "alarm: mov eax, 38; mov edi, 1; lea rsi, [rip+timer]; xor edx, edx; syscall; ret",
    // the program's system call, number in eax; r14 = where the program goes on
    "call_kernel: mov fs:[{regs}+128], r14",
    "stand_in_check: cmp dword ptr fs:[{pending}], 0; jne 1f",
    "stand_in_insn: syscall",
    "stand_in_after: mov fs:[{regs}], rax; cmp dword ptr fs:[{pending}], 0; jne 2f; jmp r14",
    "1: sub qword ptr fs:[{regs}+128], 2; 2: mov fs:[{regs}+32], rsp; jmp safe_point",
    // ---- entries from the tracer
    "stand_in_resume: jmp fs:[{target}]",
    "stand_in_signal: mov rax, fs:[{scratch}+56]; sub rax, rsp; mov [rip+frame], rax; xor eax, eax; jmp fs:[{target}]",
    "stand_in_fault: mov rax, [rdi+19*8]; mov fs:[{regs}+32], rax; mov rax, [rdi+3*8]; mov fs:[{regs}+96], rax",
    "mov rax, [rdi+18*8]; mov fs:[{regs}+136], rax",
    "cmp qword ptr [rdi+216], 0; je 1f",
    "mov rsi, [rdi+224]; mov rdi, [rdi+216]; mov edx, 0x1234; lea rax, [rip+wrong]; mov fs:[{regs}+128], rax; jmp safe_trap",
    // a stop request: only at the second nop is the program's state known
    "1: mov rax, [rdi+16*8]; and eax, 3; cmp eax, 1; mov rdi, -1; jne safe_trap",
    "lea rax, [rip+went_on]; mov fs:[{regs}+128], rax",
    "safe_point: xor edi, edi",
    "safe_trap: mov eax, 6; call stand_in_trap; cmp eax, 1; jne wrong; mov edi, 1; jmp leave",
    // ---- the program's handlers
    "handler: inc dword ptr [rip+count]; ret",
    "handler_writes: push rax; mov eax, 1; mov edi, [rip+pipe+4]; mov rsi, rsp; mov edx, 1; syscall; pop rax; ret",
    "handler_looks: mov edi, 42; cmp qword ptr [rsi+16], 0x1234; jne wrong; cmp dword ptr [rsi], 11; jne wrong; jmp leave",
    "restorer: mov fs:[{regs}+32], rsp; mov eax, 7; jmp stand_in_trap",
    "wrong: mov edi, 99; jmp leave",
    // back in the program: was r12 kept, was the frame measured, did the handler run once?
    "went_on: mov edi, 98; cmp r12d, 0x77; jne leave; mov edi, 97; cmp qword ptr [rip+frame], 440; jb leave",
    "cmp qword ptr [rip+frame], 0x8000; ja leave; mov edi, 96; cmp dword ptr [rip+count], 1; jne leave; jmp play_exit",
    // ---- scenarios
    "prepare: mov edi, 14; xor esi, esi; lea rdx, [rip+handler]; call action",
    "mov edi, 26; xor esi, esi; lea rdx, [rip+handler]; call action; mov r12d, 0x77; ret",
    "play_cache: call prepare; call alarm; mov rax, {cache}; jmp rax",
    "play_fatal: call alarm; mov rax, {cache}; jmp rax",
    "play_pause: call prepare; lea r14, [rip+paused]; mov eax, 34; jmp call_kernel",
    "syscall",
    "paused: mov edi, 95; cmp eax, -4; jne leave; jmp went_on",
    "play_fatal_pause: lea r14, [rip+wrong]; mov eax, 34; jmp call_kernel",
    "play_runtime: call prepare; call alarm; 1: cmp dword ptr fs:[{pending}], 0; je 1b; mov fs:[{regs}+32], rsp; mov fs:[{regs}+96], r12",
    "lea rax, [rip+went_on]; mov fs:[{regs}+128], rax; jmp safe_point",
    "play_restart: mov eax, 22; lea rdi, [rip+pipe]; syscall",
    "mov edi, 14; mov esi, 0x10000000; lea rdx, [rip+handler_writes]; call action",
    "xor eax, eax; mov edi, [rip+pipe]; lea rsi, [rip+count]; mov edx, 1; lea r14, [rip+was_read]; jmp call_kernel",
    "syscall",
    "was_read: mov edi, 94; cmp rax, 1; jne leave; jmp play_exit",
    "play_fault: mov edi, 11; mov esi, 4; lea rdx, [rip+handler_looks]; call action",
    // mov rax, [8]
    "play_fatal_fault: mov rax, {cache}; mov rcx, 0x00000008250c8b48; mov [rax], rcx; jmp rax",
    "play_kill: mov eax, 39; syscall; mov edi, eax; mov esi, 9; mov eax, 62; syscall; jmp wrong",
    "play_stop: mov eax, 39; syscall; mov ebx, eax; mov eax, 57; syscall; test eax, eax; jz 1f",
    "mov edi, ebx; mov esi, 19; mov eax, 62; syscall; jmp play_exit",
    "1: mov eax, 110; syscall; cmp eax, ebx; mov edi, 3; jne leave; mov edi, ebx; mov esi, 18; mov eax, 62; syscall",
    "mov eax, 24; syscall; jmp 1b",
    "play_suspend: call prepare; xor edi, edi; lea rsi, [rip+alarm_mask]; xor edx, edx; mov r10d, 8; mov eax, 14; syscall",
    "lea rdi, [rip+no_mask]; mov esi, 8; mov eax, 130; lea r14, [rip+suspended]; jmp call_kernel",
    "syscall",
    "suspended: mov ebx, eax; xor edi, edi; xor esi, esi; lea rdx, [rip+old_mask]; mov r10d, 8; mov eax, 14; syscall",
    "mov edi, 93; cmp qword ptr [rip+old_mask], 0x2000; jne leave; mov eax, ebx; jmp paused",
    // both wait behind the mask; unblocking lets both in at one return from the kernel
    "play_two: mov edi, 14; xor esi, esi; lea rdx, [rip+handler]; call action; mov edi, 10; xor esi, esi; lea rdx, [rip+handler]; call action",
    "xor edi, edi; lea rsi, [rip+both_mask]; xor edx, edx; mov r10d, 8; mov eax, 14; syscall",
    "mov eax, 39; syscall; mov ebx, eax; mov edi, ebx; mov esi, 14; mov eax, 62; syscall; mov edi, ebx; mov esi, 10; mov eax, 62; syscall",
    "mov edi, 1; lea rsi, [rip+both_mask]; xor edx, edx; mov r10d, 8; mov eax, 14; lea r14, [rip+two_came]; jmp call_kernel",
    "two_came: 1: cmp dword ptr fs:[{pending}], 0; jne 2f; mov edi, 92; cmp dword ptr [rip+count], 2; jne leave; jmp play_exit",
    "2: mov fs:[{regs}+32], rsp; lea rax, [rip+two_came]; mov fs:[{regs}+128], rax; jmp safe_point",
    // clone(VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|SETTLS) with the second slot as fs
    "play_threads: mov eax, 9; mov rdi, {slot}; add rdi, {slot_size}; mov esi, 0x90000; mov edx, 3; mov r10d, 0x100022; mov r8, -1",
    "xor r9d, r9d; syscall; mov rdi, rax; mov esi, 2; call new_context; mov rbx, rdi",
    "mov eax, 56; mov edi, 0xd0f00; lea rsi, [rbx+0x8000]; xor edx, edx; xor r10d, r10d; mov r8, rbx; syscall",
    "test eax, eax; jz 1f; 2: cmp dword ptr [rip+count], 0; je 2b; cmp r15d, 20; jae play_fatal_fault; cmp r15d, 18; jne play_exit",
    "mov eax, 12; mov edi, 7; lea rsi, [rip+report]; call stand_in_trap; mov eax, [rip+count]; 4: cmp eax, [rip+count]; je 4b; jmp play_exit",
    "1: mov eax, 16; mov rdi, rbx; call stand_in_trap; cmp r15d, 19; je play_exec; cmp r15d, 21; je 5f; 3: lock inc dword ptr [rip+count]; jnz 3b; jmp 3b; 5: lock inc dword ptr [rip+count]; jmp play_fatal_fault",
    "play_vfork: mov eax, 58; jmp 1f; play_fork: mov eax, 57; 1: syscall; test eax, eax; mov edi, 3; jz leave",
    "mov edi, eax; mov eax, 61; lea rsi, [rip+count]; xor edx, edx; xor r10d, r10d; syscall",
    "movzx edi, byte ptr [rip+count+1]; add edi, 39; jmp leave",
    "play_exec: mov eax, 9; lea rdi, [rip+path]; lea rsi, [rip+argv]; mov [rsi], rdi; call stand_in_trap",
    "lea rdi, [rip+path]; lea rsi, [rip+argv]; xor edx, edx; mov eax, 59; syscall; jmp wrong",
    // ---- data
    ".balign 8",
    "report: .quad 0, 0, 5, 4, 0, 0, 1, 0, 0",
    "sa: .quad 0, 0, 0, 0",
    "timer: .quad 0, 0, 0, 20000",
    "frame: .quad 0",
    "alarm_mask: .quad 0x2000",
    "both_mask: .quad 0x2200",
    "no_mask: .quad 0",
    "old_mask: .quad 0",
    "argv: .quad 0, 0",
    "pipe: .long 0, 0",
    "count: .long 0",
    "path: .asciz \"/bin/true\"",
    "stand_in_end:",
    ".popsection",
    config_scenario = const layout::IMAGE_BASE + offset_of!(Config, num_callers) as u64,
    slot = const SLOT,
    slot_size = const layout::THREAD_SLOT,
    cache = const layout::CACHE_START,
    runtime_top = const 0x20000,
    runtime_rsp = const offset::RUNTIME_RSP,
    number = const offset_of!(ThreadContext, number),
    regs = const offset::REGS,
    pending = const offset::PENDING,
    target = const offset::TARGET,
    scratch = const offset::SCRATCH,
);

const SLOT: u64 = layout::THREADS_START;

unsafe extern "C" {
    static stand_in_start: u8;
    static stand_in_end: u8;
    static stand_in_entry: u8;
    static stand_in_trap: u8;
    static stand_in_resume: u8;
    static stand_in_check: u8;
    static stand_in_insn: u8;
    static stand_in_after: u8;
    static stand_in_fault: u8;
    static stand_in_signal: u8;
}

/// The image: configuration with its code addresses, and the code above.
pub fn image() -> Vec<u8> {
    let zeros = vec![0; size_of::<Config>()];
    let mut config = config_from_bytes(&zeros).expect("long enough");
    let start = &raw const stand_in_start;
    let address = |label: *const u8| layout::IMAGE_BASE + CODE + (label as u64 - start as u64);
    config.magic = MAGIC;
    config.entry = address(&raw const stand_in_entry);
    config.trap = address(&raw const stand_in_trap);
    config.resume = address(&raw const stand_in_resume);
    config.syscall_check = address(&raw const stand_in_check);
    config.syscall_insn = address(&raw const stand_in_insn);
    config.syscall_after = address(&raw const stand_in_after);
    config.fault_entry = address(&raw const stand_in_fault);
    config.signal_entry = address(&raw const stand_in_signal);
    let length = &raw const stand_in_end as usize - start as usize;
    // SAFETY: the bytes between two labels of the assembly above, constant.
    let code = unsafe { std::slice::from_raw_parts(start, length) };
    let mut bytes = config_bytes(&config).to_vec();
    bytes.resize(CODE as usize, 0);
    bytes.extend_from_slice(code);
    bytes
}
