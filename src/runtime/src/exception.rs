//! How kernel and processor describe a fault of the program: siginfo, and the words of the exception in the handler's frame.
//!
//! A handler that mends its program (a write barrier, a virtual machine, a Windows loader) reads from its `ucontext` whether the access was
//! a write. The kernel would put the runtime's own trap there. What reached the runtime may also differ from what the program's own
//! instruction had met: its check goes through gs, and to an address further up.
//!
//! | signal, code                     | exception | error word                                              | si_addr     |
//! |----------------------------------|-----------|---------------------------------------------------------|-------------|
//! | SIGSEGV or SIGBUS with an address | 14        | 4 user; 2 write, 16 fetch; 1 the page may be used otherwise | the address |
//! | SIGSEGV SI_KERNEL                | 13        | `int n`: 8 n + 2                                        | 0           |
//! | SIGBUS SI_KERNEL, BUS_ADRALN     | 12, 17    | 0                                                       | 0           |
//! | SIGFPE                           | 0 division, 16 x87, 19 vector | 0                                   | instruction |
//! | SIGILL                           | 6         | 0                                                       | instruction |
//! | SIGTRAP                          | 1 or 3    | 0                                                       | 1: where it goes on |
//!
//! Source: arch/x86/kernel/traps.c, arch/x86/mm/fault.c, arch/x86/kernel/signal_64.c.

use crate::safepoint;
use iced_x86::{Code, EncodingKind, Instruction, Mnemonic};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::layout::PROGRAM_END;
use memcheck_kernel::space;

pub const SIGILL: u64 = 4;
pub const SIGTRAP: u64 = 5;
pub const SIGBUS: u64 = 7;
pub const SIGFPE: u64 = 8;
pub const SIGSEGV: u64 = 11;

const SEGV_MAPERR: u64 = 1;
const SEGV_ACCERR: u64 = 2;
const BUS_ADRALN: u64 = 1;
const FPE_INTDIV: u64 = 1;
pub const SI_KERNEL: u64 = 0x80;

/// Addresses between these do not exist: their upper bits do not repeat bit 47.
const CANONICAL_END: u64 = 1 << 47;
const KERNEL_START: u64 = !(CANONICAL_END - 1);

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// What the kernel said.
#[derive(Clone, Copy)]
pub struct Exception {
    pub signo: u64,
    pub code: u64,
    pub addr: u64,
}

impl Exception {
    /// A jump to where no code is; `usable`: but something else that the program may use.
    pub fn jump(target: u64, usable: bool) -> (Exception, Words) {
        if (CANONICAL_END..KERNEL_START).contains(&target) {
            return (Exception { signo: SIGSEGV, code: SI_KERNEL, addr: 0 }, Words { trap: 13, error: 0 });
        }
        let code = if usable || space::mapping_of(target).is_some() { SEGV_ACCERR } else { SEGV_MAPERR };
        // The kernel half has its pages, but not for programs.
        let error = USER | FETCH | if usable || target >= KERNEL_START { PRESENT } else { 0 };
        (Exception { signo: SIGSEGV, code, addr: target }, Words { trap: 14, error })
    }

    pub fn is_about_memory(&self) -> bool {
        matches!(self.signo, SIGSEGV | SIGBUS)
    }

    /// Is the instruction itself forbidden to programs (or a software interrupt)? Then no access of memory has failed.
    pub fn is_privilege(&self, insn: &Instruction) -> bool {
        self.signo == SIGSEGV && self.code == SI_KERNEL && insn.memory_size().size() == 0 && !insn.is_stack_instruction()
    }

    /// The access of `insn`, at `pc`, to `at` failed: what its own fault would have been.
    pub fn of_access(self, insn: &Instruction, at: u64, write: bool) -> (Exception, Words) {
        let own = if self.signo == SIGSEGV && self.code == SI_KERNEL { beyond_canonical(insn, at) } else { None };
        let e = own.unwrap_or(Exception { addr: if self.code == SI_KERNEL { 0 } else { at }, ..self });
        (e, e.words_of_access(insn, write))
    }

    fn words_of_access(&self, insn: &Instruction, write: bool) -> Words {
        match (self.signo, self.code) {
            (SIGSEGV, SI_KERNEL) => {
                Words { trap: 13, error: if insn.code() == Code::Int_imm8 { u64::from(insn.immediate8()) * 8 + 2 } else { 0 } }
            }
            (SIGBUS, SI_KERNEL) => Words { trap: 12, error: 0 },
            (SIGBUS, BUS_ADRALN) => Words { trap: 17, error: 0 },
            _ => Words { trap: 14, error: USER | self.present() | if write { WRITE } else { 0 } },
        }
    }

    /// Whether a page was there cannot be known; where rights are missing, most likely.
    fn present(&self) -> u64 {
        let allows = || space::mapping_of(self.addr).is_some_and(|(_, _, prot, _)| prot != 0);
        if self.signo == SIGSEGV && self.code == SEGV_ACCERR && allows() { PRESENT } else { 0 }
    }

    /// Any other fault of the instruction at `pc`; the program would go on at `rip`.
    pub fn of_instruction(self, pc: u64, rip: u64, insn: &Instruction) -> (Exception, Words) {
        let (trap, addr) = match (self.signo, self.code) {
            (SIGFPE, FPE_INTDIV) => (0, pc),
            (SIGFPE, _) => (if is_x87(insn) { 16 } else { 19 }, pc),
            (SIGILL, _) => (6, pc),
            (SIGTRAP, SI_KERNEL) => (3, self.addr),
            _ => (1, rip),
        };
        (Exception { addr, ..self }, Words { trap, error: 0 })
    }
}

/// An x87 or MMX instruction, or the one that waits for them: they complain of what an earlier one did.
fn is_x87(insn: &Instruction) -> bool {
    let code = insn.code();
    (Code::Fadd_m32fp..=Code::Fcomip_st0_sti).contains(&code)
        || code == Code::Wait
        || insn.op0_register().is_mm()
        || insn.op1_register().is_mm()
}

/// The check goes through gs and asks for an address further up, where the program's own access may have failed in another way. None, if the
/// fault is its own (an operand that is not aligned).
fn beyond_canonical(insn: &Instruction, at: u64) -> Option<Exception> {
    let last = at.checked_add(insn.memory_size().size().max(1) as u64 - 1)?;
    match last {
        0..PROGRAM_END => None,
        PROGRAM_END..CANONICAL_END => Some(Exception { signo: SIGSEGV, code: SEGV_MAPERR, addr: at }),
        _ if at < KERNEL_START && memcheck_translate::uses_stack_segment(insn) && at.is_multiple_of(alignment(insn)) => {
            Some(Exception { signo: SIGBUS, code: SI_KERNEL, addr: 0 })
        }
        _ => None,
    }
}

/// What the address of the operand must be a multiple of. Where it is not, the processor says so first.
fn alignment(insn: &Instruction) -> u64 {
    use Mnemonic::{Cmpxchg16b, Lddqu, Movdqu, Movupd, Movups, Pcmpestri, Pcmpestrm, Pcmpistri, Pcmpistrm};
    use Mnemonic::{Fxrstor, Fxrstor64, Fxsave, Fxsave64, Vmovapd, Vmovaps, Vmovdqa, Vmovdqa32, Vmovdqa64};
    use Mnemonic::{Vmovntdq, Vmovntdqa, Vmovntpd, Vmovntps, Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    let size = insn.memory_size().size() as u64;
    match insn.mnemonic() {
        Movups | Movupd | Movdqu | Lddqu | Pcmpestri | Pcmpestrm | Pcmpistri | Pcmpistrm => 1,
        Cmpxchg16b | Fxsave | Fxsave64 | Fxrstor | Fxrstor64 => 16,
        Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64 => 64,
        Vmovaps | Vmovapd | Vmovdqa | Vmovdqa32 | Vmovdqa64 | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa => size.max(1),
        _ if insn.encoding() == EncodingKind::Legacy && size == 16 => 16,
        _ => 1,
    }
}

/// Number of the exception and its error word.
#[derive(Clone, Copy)]
pub struct Words {
    trap: u64,
    error: u64,
}

/// Hand the thread over with this fault. The tracer finds the words above the code.
pub fn deliver(ctx: &mut ThreadContext, (e, words): (Exception, Words)) -> ! {
    safepoint::deliver(ctx, e.signo, e.code & 0xffff_ffff | words.error << 32 | words.trap << 48, e.addr)
}
