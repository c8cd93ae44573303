//! The program's memory, at addresses as the layout wants them, and the shadow that belongs to it.
//!
//! ```text
//! 0x0000_2000_0000  code, low          branch table part mapped
//! 0x0000_2010_0000  data, low          reached by every addressing mode from low code
//! 0x0110_0000_0000  data, high         reached by 64-bit addresses only
//! 0x0118_0000_0000  code, high         above 2 GiB: the general path of branches and returns
//! 0x0118_0010_0000  data, near high code
//! 0x0120_0000_0000  alternate stack
//! 0x0fff_e000_0000  stack
//! ```
//! Every data area is followed by a hole that has a shadow but no memory: accesses there must fault in the program's own
//! instruction. The shadow of all areas, of their holes and of the branch table's part is mapped, nothing else.
#![allow(unsafe_code, reason = "maps memory at fixed addresses and copies from and to it")]

use crate::random::Random;
use memcheck_abi::layout::{TABLE_DISPLACEMENT, V_DISTANCE, v_of};

pub const PAGE: u64 = 0x1000;

/// A piece of the program's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    pub start: u64,
    pub size: u64,
}

impl Area {
    pub const fn end(self) -> u64 {
        self.start + self.size
    }

    pub const fn contains(self, addr: u64) -> bool {
        addr >= self.start && addr < self.end()
    }
}

pub const CODE: Area = Area { start: 0x2000_0000, size: 0x8000 };
pub const HIGH_CODE: Area = Area { start: 0x118_0000_0000, size: 0x8000 };
pub const LOW: Area = Area { start: 0x2010_0000, size: 0x2000 };
pub const HIGH: Area = Area { start: 0x110_0000_0000, size: 0x2000 };
pub const NEAR_HIGH: Area = Area { start: 0x118_0010_0000, size: 0x2000 };
pub const ALTERNATE: Area = Area { start: 0x120_0000_0000, size: 0x1000 };
pub const STACK: Area = Area { start: 0xfff_e000_0000, size: 0x8000 };

/// Areas whose contents are part of a run's result.
pub const AREAS: [Area; 5] = [LOW, HIGH, NEAR_HIGH, ALTERNATE, STACK];

/// The stack pointer at the start of a program; above it lie bytes that the program may use.
pub const STACK_START: u64 = STACK.end() - 0x1000;

/// The first bytes of `LOW` and `NEAR_HIGH` are constants that generated code only reads.
pub const CONSTANTS: u64 = 0x200;
/// Offsets in there: control words that keep all exceptions masked, and small numbers for index vectors.
pub const MXCSR_AT: u64 = 0x00;
pub const FCW_AT: u64 = 0x40;
pub const INDEX_AT: u64 = 0x80;

/// Contents of all areas.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(Vec<u8>);

impl Image {
    pub fn random(random: &mut Random) -> Image {
        let size: u64 = AREAS.iter().map(|a| a.size).sum();
        let mut bytes: Vec<u8> = (0..size / 8).flat_map(|_| random.value().to_le_bytes()).collect();
        for area in [LOW, NEAR_HIGH] {
            let at = Image::offset(area.start);
            constants(random, &mut bytes[at..at + CONSTANTS as usize]);
        }
        Image(bytes)
    }

    /// Other words in a few places: cheaper than a whole new image.
    pub fn stir(&mut self, random: &mut Random) {
        for _ in 0..64 {
            let at = random.below(self.0.len() as u64 / 8 - 1) as usize * 8;
            if AREAS.iter().any(|a| (Image::offset(a.start)..Image::offset(a.start) + CONSTANTS as usize).contains(&at)) {
                continue;
            }
            self.0[at..at + 8].copy_from_slice(&random.value().to_le_bytes());
        }
    }

    fn offset(addr: u64) -> usize {
        let mut at = 0;
        for area in AREAS {
            if area.contains(addr) {
                return at + (addr - area.start) as usize;
            }
            at += area.size as usize;
        }
        at
    }

    /// Program address of the first byte in which two images differ, and both bytes.
    pub fn difference(&self, other: &Image) -> Option<(u64, u8, u8)> {
        if self.0 == other.0 {
            return None;
        }
        let at = self.0.iter().zip(&other.0).position(|(a, b)| a != b)?;
        let mut first = 0;
        for area in AREAS {
            let size = area.size as usize;
            if at < first + size {
                return Some((area.start + (at - first) as u64, self.0[at], other.0[at]));
            }
            first += size;
        }
        None
    }
}

fn constants(random: &mut Random, bytes: &mut [u8]) {
    for at in (MXCSR_AT..FCW_AT).step_by(4) {
        // All exceptions masked; rounding, flush-to-zero and denormals-are-zero vary.
        let mxcsr = 0x1f80 | random.pick(&[0u32, 0x2000, 0x4000, 0x6000, 0x8000, 0x8040, 0x40]);
        bytes[at as usize..at as usize + 4].copy_from_slice(&mxcsr.to_le_bytes());
    }
    for at in (FCW_AT..INDEX_AT).step_by(2) {
        let fcw = 0x7fu16 | random.pick(&[0u16, 0x200, 0x300]) | random.pick(&[0u16, 0x400, 0x800, 0xc00]);
        bytes[at as usize..at as usize + 2].copy_from_slice(&fcw.to_le_bytes());
    }
    for at in (INDEX_AT..CONSTANTS).step_by(8) {
        bytes[at as usize..at as usize + 8].copy_from_slice(&random.below(24).to_le_bytes());
    }
}

/// All mappings; made once in a process.
pub struct World(());

fn map(start: u64, end: u64, executable: bool) {
    let (start, end) = (start & !(PAGE - 1), end.next_multiple_of(PAGE));
    let protection = libc::PROT_READ | libc::PROT_WRITE | if executable { libc::PROT_EXEC } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping that replaces nothing.
    let got = unsafe { libc::mmap(start as *mut libc::c_void, (end - start) as usize, protection, flags, -1, 0) };
    assert_eq!(got as u64, start, "address {start:#x} is taken: {}", std::io::Error::last_os_error());
}

/// Memory and code cache of the runtime's side.
pub fn map_private(start: u64, size: u64, executable: bool) {
    map(start, start + size, executable);
}

impl World {
    pub fn new() -> World {
        for area in AREAS {
            map(area.start, area.end(), false);
            // One page of hole on each side.
            map(v_of(area.start) - PAGE, v_of(area.end()) + PAGE, false);
        }
        for area in [CODE, HIGH_CODE] {
            map(area.start, area.end() + PAGE, true);
            let table = V_DISTANCE + TABLE_DISPLACEMENT;
            map(table + 8 * area.start, table + 8 * (area.end() + PAGE), false);
        }
        World(())
    }

    pub fn load(&mut self, image: &Image) {
        let mut at = 0;
        for area in AREAS {
            let size = area.size as usize;
            // SAFETY: the area is mapped and nothing of this process refers into it.
            unsafe { std::ptr::copy_nonoverlapping(image.0[at..].as_ptr(), area.start as *mut u8, size) };
            at += size;
        }
    }

    pub fn image(&self) -> Image {
        let mut bytes = Vec::with_capacity(AREAS.iter().map(|a| a.size as usize).sum());
        for area in AREAS {
            // SAFETY: mapped; the program does not run now.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(area.start as *const u8, area.size as usize) });
        }
        Image(bytes)
    }

    /// All memory addressable and defined.
    pub fn clear_shadow(&mut self) {
        for area in AREAS {
            self.paint(area.start - PAGE / 2, area.size + PAGE, 0);
        }
    }

    pub fn paint(&mut self, addr: u64, len: u64, v: u8) {
        assert!(self.has_shadow(addr, len), "painting {addr:#x}+{len:#x}");
        // SAFETY: inside a mapped part of the shadow, as just checked.
        unsafe { std::ptr::write_bytes(v_of(addr) as *mut u8, v, len as usize) }
    }

    pub fn has_shadow(&self, addr: u64, len: u64) -> bool {
        AREAS.iter().any(|a| addr >= a.start - PAGE / 2 && addr.saturating_add(len) <= a.end() + PAGE / 2)
    }

    pub fn v(&self, addr: u64) -> u8 {
        if !self.has_shadow(addr, 1) {
            return 0;
        }
        // SAFETY: inside a mapped part of the shadow, as just checked.
        unsafe { *(v_of(addr) as *const u8) }
    }

    /// A word of the stack.
    pub fn stack_word(&self, addr: u64) -> u64 {
        assert!(STACK.contains(addr) && STACK.contains(addr + 7), "on the stack");
        // SAFETY: inside a mapping of our own, as just checked.
        unsafe { (addr as *const u64).read_unaligned() }
    }

    pub fn any_v(&self, addr: u64, len: u64) -> bool {
        (addr..addr + len).any(|a| self.v(a) != 0)
    }

    /// Put code at its address.
    pub fn write_code(&mut self, at: u64, bytes: &[u8]) {
        assert!([CODE, HIGH_CODE].iter().any(|a| at >= a.start && at + bytes.len() as u64 <= a.end() + PAGE));
        // SAFETY: inside an executable area of ours; it does not run now.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) }
    }

    pub fn code(&self, at: u64, len: usize) -> &[u8] {
        assert!([CODE, HIGH_CODE].iter().any(|a| at >= a.start && at + len as u64 <= a.end() + PAGE));
        // SAFETY: inside an executable area of ours, which changes only through `&mut self` or while the program runs.
        unsafe { std::slice::from_raw_parts(at as *const u8, len) }
    }
}
