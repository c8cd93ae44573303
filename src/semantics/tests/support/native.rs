//! Runs one instruction on the real processor, from a full register state to a full register state.
//!
//! One mapping below 2 GiB holds everything, so that stubs can use absolute addresses:
//!
//! ```text
//! 0x0000  state (registers in and out)       0x2000  stub: load state, instruction, save state
//! 0x6000  data: what memory operands touch   0xE000  alternate signal stack
//! ```
//!
//! A fault inside the stub is caught by a signal handler that resumes at the stub's bail-out.
#![allow(unsafe_code, reason = "executing generated code is the whole point")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

/// All registers an instruction can see.
#[derive(Clone, PartialEq)]
#[repr(C, align(64))]
pub struct State {
    pub zmm: [[u64; 8]; 32],
    pub k: [u64; 8],
    pub gpr: [u64; 16],
    pub rflags: u64,
    host_rsp: u64,
    fault: u64,
    reserved: [u64; 5],
    /// fxsave image; only st and the status word are looked at.
    pub fx: [u8; 512],
}

impl State {
    pub fn new() -> State {
        let mut state =
            State { zmm: [[0; 8]; 32], k: [0; 8], gpr: [0; 16], rflags: 2, host_rsp: 0, fault: 0, reserved: [0; 5], fx: [0; 512] };
        state.fx[..2].copy_from_slice(&0x037Fu16.to_le_bytes());
        state.fx[4] = 0xFF;
        state.fx[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
        state
    }

    pub fn fsw(&self) -> u64 {
        u64::from(u16::from_le_bytes([self.fx[2], self.fx[3]]))
    }

    pub fn top(&self) -> usize {
        (self.fsw() >> 11 & 7) as usize
    }

    pub fn set_top(&mut self, top: usize) {
        self.fx[2..4].copy_from_slice(&((top as u16) << 11).to_le_bytes());
    }

    /// Physical x87 register: significand, sign and exponent.
    pub fn st(&self, physical: usize) -> [u64; 2] {
        let at = 32 + (physical + 8 - self.top()) % 8 * 16;
        let word = |at: usize| u64::from_le_bytes(self.fx[at..at + 8].try_into().expect("eight bytes"));
        [word(at), word(at + 8) & 0xFFFF]
    }

    pub fn set_st(&mut self, physical: usize, value: [u64; 2]) {
        let at = 32 + (physical + 8 - self.top()) % 8 * 16;
        self.fx[at..at + 8].copy_from_slice(&value[0].to_le_bytes());
        self.fx[at + 8..at + 10].copy_from_slice(&(value[1] as u16).to_le_bytes());
    }
}

const SIZE: usize = 0x12000;
const CODE: usize = 0x2000;
const DATA: usize = 0x6000;
pub const DATA_SIZE: usize = 0x4000;
const STACK: usize = 0xE000;

static BASE: AtomicU64 = AtomicU64::new(0);
static BAIL_OUT: AtomicU64 = AtomicU64::new(0);
static ONLY_ONE: Mutex<()> = Mutex::new(());

/// The mapping and its stub.
pub struct Native {
    base: usize,
    prologue: Vec<u8>,
    /// Bytes of vector registers the processor has: 16, 32 or 64.
    pub vector: usize,
    _guard: MutexGuard<'static, ()>,
}

extern "C" fn on_fault(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let base = BASE.load(Ordering::Relaxed);
    // SAFETY: the kernel passes a valid context to a SA_SIGINFO handler.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as u64;
    if rip >= base && rip < base + SIZE as u64 {
        registers[libc::REG_RIP as usize] = BAIL_OUT.load(Ordering::Relaxed) as i64;
        registers[libc::REG_EFL as usize] = 2;
    } else {
        // SAFETY: restoring the default action lets the genuine crash happen.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

impl Native {
    pub fn new() -> Native {
        let guard = ONLY_ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "a low executable page");
        BASE.store(base as u64, Ordering::Relaxed);
        // SAFETY: the handler only touches its arguments and atomics; the stack lies in the mapping made above.
        unsafe {
            let stack = libc::stack_t { ss_sp: base.add(STACK), ss_flags: 0, ss_size: SIZE - STACK };
            libc::sigaltstack(&raw const stack, std::ptr::null_mut());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGFPE, libc::SIGBUS, libc::SIGTRAP] {
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        let vector = if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            64
        } else if is_x86_feature_detected!("avx") {
            32
        } else {
            16
        };
        let mut native = Native { base: base as usize, prologue: Vec::new(), vector, _guard: guard };
        native.prologue = native.build_prologue();
        native
    }

    /// Address of the middle of the data area.
    pub fn data(&self) -> u64 {
        (self.base + DATA + DATA_SIZE / 2) as u64
    }

    /// Address the instruction will have.
    pub fn instruction_address(&self) -> u64 {
        (self.base + CODE + self.prologue.len()) as u64
    }

    /// Puts one instruction between loading and saving the state.
    pub fn install(&mut self, bytes: &[u8]) {
        let mut code = self.prologue.clone();
        code.extend_from_slice(bytes);
        let (epilogue, bail_out) = self.build_epilogue();
        BAIL_OUT.store((self.base + CODE + code.len() + bail_out) as u64, Ordering::Relaxed);
        code.extend_from_slice(&epilogue);
        assert!(code.len() < DATA - CODE);
        // SAFETY: the code area is writable, large enough and not executing now.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), (self.base + CODE) as *mut u8, code.len()) };
    }

    /// Runs the installed instruction; `window` is the data area around its middle. False if it faulted.
    pub fn run(&mut self, state: &mut State, window: &mut [u8]) -> bool {
        let data = self.data() as usize - window.len() / 2;
        // SAFETY: state and data lie in our mapping and nothing else refers to them; the stub saves and restores all that
        // the C ABI asks for and is entered with the C calling convention.
        unsafe {
            std::ptr::copy_nonoverlapping(window.as_ptr(), data as *mut u8, window.len());
            std::ptr::copy_nonoverlapping(state, self.base as *mut State, 1);
            let stub: extern "C" fn() = std::mem::transmute(self.base + CODE);
            stub();
            std::ptr::copy_nonoverlapping(self.base as *const State, state, 1);
            std::ptr::copy_nonoverlapping(data as *const u8, window.as_mut_ptr(), window.len());
        }
        state.fault == 0
    }

    fn at(&self, offset: usize) -> MemoryOperand {
        MemoryOperand::with_displ((self.base + offset) as u64, 4)
    }

    fn vector_moves(&self, load: bool) -> Vec<Instruction> {
        let (code_in, code_out, first, count) = match self.vector {
            64 => (Code::EVEX_Vmovdqu64_zmm_k1z_zmmm512, Code::EVEX_Vmovdqu64_zmmm512_k1z_zmm, Register::ZMM0, 32),
            32 => (Code::VEX_Vmovdqu_ymm_ymmm256, Code::VEX_Vmovdqu_ymmm256_ymm, Register::YMM0, 16),
            _ => (Code::Movdqu_xmm_xmmm128, Code::Movdqu_xmmm128_xmm, Register::XMM0, 16),
        };
        let mut out = Vec::new();
        for i in 0..count {
            let memory = self.at(std::mem::offset_of!(State, zmm) + i * 64);
            out.push(if load {
                Instruction::with2(code_in, first + i as u32, memory)
            } else {
                Instruction::with2(code_out, memory, first + i as u32)
            });
        }
        if self.vector == 64 {
            for i in 0..8 {
                let memory = self.at(std::mem::offset_of!(State, k) + i * 8);
                let k = Register::K0 + i as u32;
                out.push(if load {
                    Instruction::with2(Code::VEX_Kmovq_kr_km64, k, memory)
                } else {
                    Instruction::with2(Code::VEX_Kmovq_m64_kr, memory, k)
                });
            }
        }
        out.into_iter().map(|insn| insn.expect("a move")).collect()
    }

    fn encode(&self, instructions: &[Instruction]) -> Vec<u8> {
        let mut encoder = Encoder::new(64);
        for insn in instructions {
            encoder.encode(insn, 0).expect("encodable");
        }
        encoder.take_buffer()
    }

    fn gpr_moves(&self, load: bool) -> Vec<Instruction> {
        // The stack pointer last on the way in; on the way out the order does not matter.
        let order = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 4];
        let at = |i: usize| self.at(std::mem::offset_of!(State, gpr) + i * 8);
        let moves = order.iter().map(|&i| {
            let register = Register::RAX + i as u32;
            if load {
                Instruction::with2(Code::Mov_r64_rm64, register, at(i))
            } else {
                Instruction::with2(Code::Mov_rm64_r64, at(i), register)
            }
        });
        moves.map(|insn| insn.expect("a move")).collect()
    }

    fn one(&self, insn: Result<Instruction, iced_x86::IcedError>) -> Vec<u8> {
        self.encode(&[insn.expect("valid")])
    }

    fn build_prologue(&self) -> Vec<u8> {
        let mut code = Vec::new();
        for register in [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15] {
            code.extend(self.one(Instruction::with1(Code::Push_r64, register)));
        }
        let host_rsp = self.at(std::mem::offset_of!(State, host_rsp));
        code.extend(self.one(Instruction::with2(Code::Mov_rm64_r64, host_rsp, Register::RSP)));
        let fx = self.at(std::mem::offset_of!(State, fx));
        code.extend(self.one(Instruction::with1(Code::Fxrstor64_m512byte, fx)));
        code.extend(self.encode(&self.vector_moves(true)));
        let rflags = self.at(std::mem::offset_of!(State, rflags));
        code.extend(self.one(Instruction::with1(Code::Push_rm64, rflags)));
        code.push(0x9D); // popfq
        code.extend(self.encode(&self.gpr_moves(true)));
        code
    }

    /// The way back, and the offset in it where a faulting instruction enters.
    fn build_epilogue(&self) -> (Vec<u8>, usize) {
        let mut code = self.encode(&self.gpr_moves(false));
        let host_rsp = self.at(std::mem::offset_of!(State, host_rsp));
        let restore = self.one(Instruction::with2(Code::Mov_r64_rm64, Register::RSP, host_rsp));
        code.extend(&restore);
        code.push(0x9C); // pushfq
        code.extend(self.one(Instruction::with1(Code::Pop_rm64, self.at(std::mem::offset_of!(State, rflags)))));
        code.extend(self.encode(&self.vector_moves(false)));
        let fx = self.at(std::mem::offset_of!(State, fx));
        code.extend(self.one(Instruction::with1(Code::Fxsave64_m512byte, fx)));
        let zero = self.one(Instruction::with2(Code::Mov_rm32_imm32, self.at(std::mem::offset_of!(State, fault)), 0i32));
        code.extend(&zero);
        let mut out = vec![0xFC, 0xDB, 0xE3]; // cld; fninit
        for register in [Register::R15, Register::R14, Register::R13, Register::R12, Register::RBP, Register::RBX] {
            out.extend(self.one(Instruction::with1(Code::Pop_r64, register)));
        }
        out.push(0xC3);
        code.extend(&out);
        let bail_out = code.len();
        code.extend(&restore);
        code.extend(self.one(Instruction::with2(Code::Mov_rm32_imm32, self.at(std::mem::offset_of!(State, fault)), 1i32)));
        code.extend(&out);
        (code, bail_out)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: nothing points into the mapping any more; the alternate stack is switched off first.
        unsafe {
            let off = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            libc::sigaltstack(&raw const off, std::ptr::null_mut());
            libc::munmap(self.base as *mut libc::c_void, SIZE);
        }
    }
}
