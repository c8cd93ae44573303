//! The program's vector, mask and x87 registers while the runtime runs.
//!
//! On the slow ways into the runtime only the low 128 bits of xmm0 to xmm15 are saved; everything else is still in the processor,
//! because the runtime uses nothing but legacy SSE, which leaves it alone.
#![allow(unsafe_code, reason = "reads processor state")]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use memcheck_abi::context::ThreadContext;
use memcheck_semantics::Wide;

/// 0 unknown, 1 none, 2 AVX, 3 AVX-512.
static LEVEL: AtomicU32 = AtomicU32::new(0);

fn level() -> u32 {
    let known = LEVEL.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let one = core::arch::x86_64::__cpuid(1);
    let xsave = one.ecx >> 27 & 1 != 0;
    let found = if !xsave || one.ecx >> 28 & 1 == 0 { 1 } else { avx_level() };
    LEVEL.store(found, Ordering::Relaxed);
    found
}

/// The enabled state components. Only where OSXSAVE is set: who executes xsave, or has asked cpuid.
pub fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE is set, so xgetbv is allowed.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(low) | u64::from(high) << 32
}

fn avx_level() -> u32 {
    let seven = core::arch::x86_64::__cpuid_count(7, 0);
    match xcr0() {
        l if l & 0xe6 == 0xe6 && seven.ebx >> 16 & 1 != 0 => 3,
        l if l & 6 == 6 => 2,
        _ => 1,
    }
}

/// Do translated code's private registers exist? See `translate::Options::private_vectors`.
pub static PRIVATE: AtomicU32 = AtomicU32::new(0);

/// May translated code have vector registers of its own? Decided once, at start-up.
pub fn acquire() -> bool {
    let seven = core::arch::x86_64::__cpuid_count(7, 0);
    // F, DQ, BW, VL
    let all = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31;
    let have = level() >= 3 && seven.ebx & all == all;
    PRIVATE.store(u32::from(have), Ordering::Relaxed);
    have
}

/// Are there BMI1, BMI2 and lzcnt? (Not all processors are quick at pext, but it is right everywhere.)
pub fn has_bmi() -> bool {
    let both = 1 << 3 | 1 << 8;
    core::arch::x86_64::__cpuid_count(7, 0).ebx & both == both && core::arch::x86_64::__cpuid(0x8000_0001).ecx >> 5 & 1 != 0 && level() >= 2
}

/// The program wants them for itself.
pub fn release() {
    PRIVATE.store(0, Ordering::Relaxed);
}

/// Load the private registers: at a thread's start, and after the kernel has cleared them (a signal handler begins).
pub fn prepare() {
    if PRIVATE.load(Ordering::Relaxed) != 0 {
        // SAFETY: AVX-512 is there and the program does not use these registers.
        unsafe { asm!("vpternlogd zmm31, zmm31, zmm31, 0xff", "vpxord zmm30, zmm30, zmm30", options(nomem, nostack, preserves_flags)) };
    }
}

/// All that the processor has of zmm`index`.
pub fn register(ctx: &ThreadContext, index: usize) -> Wide {
    let mut all = match level() {
        3 => zmm(index),
        2 if index < 16 => ymm(index),
        _ => [0; 8],
    };
    if index < 16 {
        all[..2].copy_from_slice(&low(ctx, index));
    }
    Wide(all)
}

fn low(ctx: &ThreadContext, index: usize) -> [u64; 2] {
    let at = 16 * index;
    let word = |k: usize| {
        let mut b = [0u8; 8];
        b.copy_from_slice(&ctx.xsave.0[at + k..at + k + 8]);
        u64::from_le_bytes(b)
    };
    [word(0), word(8)]
}

/// Store one register, chosen by number, into `$all`.
macro_rules! one_of {
    ($index:expr, $all:ident, $name:literal, $($n:literal)*) => {
        match $index {
            // SAFETY: the caller knows that the processor has the register; stores no more than 64 bytes into `all`.
            $($n => unsafe {
                asm!(concat!("vmovdqu", $name, $n), in(reg) $all.as_mut_ptr(), options(nostack, preserves_flags));
            },)*
            _ => {}
        }
    };
}

/// A ymm register, if there is AVX. Of its low half only the copy in the context is the program's.
fn ymm(index: usize) -> [u64; 8] {
    let mut all = [0u64; 8];
    one_of!(index, all, " ymmword ptr [{0}], ymm", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    all
}

/// A zmm register, if there is AVX-512; of 0 to 15 only bits 128 and up are the program's.
fn zmm(index: usize) -> [u64; 8] {
    let mut all = [0u64; 8];
    one_of!(index, all, "64 zmmword ptr [{0}], zmm",
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    all
}

/// An AVX-512 mask register.
pub fn mask(index: usize) -> u64 {
    if level() < 3 {
        return 0;
    }
    let mut all = [0u64; 8];
    macro_rules! all {
        ($($n:literal)*) => {
            // SAFETY: AVX-512 (with BW on every processor that has it in servers) is there; stores 8 bytes for each register.
            unsafe { asm!($(concat!("kmovq qword ptr [{0} + 8*", $n, "], k", $n),)* in(reg) all.as_mut_ptr(), options(nostack, preserves_flags)) }
        };
    }
    all!(0 1 2 3 4 5 6 7);
    all[index & 7]
}

/// The x87 state as fxsave writes it.
#[repr(C, align(16))]
pub struct X87([u8; 512]);

pub fn x87() -> X87 {
    let mut area = X87([0; 512]);
    // SAFETY: 512 bytes, 16-aligned; changes no state.
    unsafe { asm!("fxsave64 [{}]", in(reg) area.0.as_mut_ptr(), options(nostack, preserves_flags)) };
    area
}

impl X87 {
    /// TOP of the status word.
    pub fn top(&self) -> u8 {
        self.0[3] >> 3 & 7
    }

    /// Significand of a physical register.
    pub fn significand(&self, physical: usize) -> u64 {
        let stacked = physical.wrapping_sub(self.top() as usize) & 7;
        let mut b = [0u8; 8];
        b.copy_from_slice(&self.0[32 + 16 * stacked..40 + 16 * stacked]);
        u64::from_le_bytes(b)
    }
}
