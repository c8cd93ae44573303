//! The kernel's page of three calls at a fixed address, which programs linked before 2012 still use.
//!
//! ```text
//! ffffffffff600000 gettimeofday   ffffffffff600400 time   ffffffffff600800 getcpu
//! ```
//! Today's kernels let nobody read that page and carry out a jump to one of the three addresses themselves. What is translated in their
//! place is the code that stood there when it still was code: the system call and a return.
//!
//! Deliberately absent: the SIGSEGV that today's kernel sends for a bad pointer (here: EFAULT, as the code of old returned), and whether this
//! kernel has the page at all.

const PAGE: u64 = 0xffff_ffff_ff60_0000;
/// gettimeofday, time, getcpu.
const NUMBERS: [u32; 3] = [96, 201, 309];

/// `mov rax, number`, `syscall`, `ret`.
const LEN: usize = 10;

const fn call(number: u32) -> [u8; LEN] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x48, 0xc7, 0xc0, a, b, c, d, 0x0f, 0x05, 0xc3]
}

static CODE: [[u8; LEN]; 3] = [call(NUMBERS[0]), call(NUMBERS[1]), call(NUMBERS[2])];

/// The code at `pc`, if that lies in one of the calls.
pub fn code(pc: u64) -> Option<&'static [u8]> {
    let offset = pc.checked_sub(PAGE)?;
    CODE.get((offset / 0x400) as usize)?.get((offset % 0x400) as usize..).filter(|rest| !rest.is_empty())
}
