//! A small x86-64 assembler: only the encodings that the translator itself needs.
//!
//! Code is appended to a growing buffer whose final address is known, so that relative operands are computed at once.

use alloc::vec::Vec;

/// Segment of a memory operand: fs is the thread context, gs the V shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seg {
    None,
    Fs,
    Gs,
}

/// A memory operand; registers by their number (rax = 0 … r15 = 15).
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    pub seg: Seg,
    pub base: Option<u8>,
    /// Register and log2 of the scale.
    pub index: Option<(u8, u8)>,
    pub disp: i32,
    /// 32-bit address computation (prefix 67).
    pub addr32: bool,
}

impl Mem {
    /// A slot of the thread context.
    pub const fn ctx(disp: i32) -> Mem {
        Mem { seg: Seg::Fs, base: None, index: None, disp, addr32: false }
    }

    pub const fn base(reg: u8, disp: i32) -> Mem {
        Mem { seg: Seg::None, base: Some(reg), index: None, disp, addr32: false }
    }

    /// Its place in the thread context, if it is one.
    #[inline]
    const fn in_context(&self) -> Option<i32> {
        match self {
            Mem { seg: Seg::Fs, base: None, index: None, disp, addr32: false } => Some(*disp),
            _ => None,
        }
    }

    /// The V shadow of this operand, `offset` bytes further on.
    pub const fn shadow(self, offset: i32) -> Mem {
        Mem { seg: Seg::Gs, disp: self.disp.wrapping_add(offset), ..self }
    }

    pub fn uses(&self, reg: u8) -> bool {
        self.base == Some(reg) || matches!(self.index, Some((r, _)) if r == reg)
    }
}

pub const RAX: u8 = 0;
pub const RCX: u8 = 1;
pub const RDX: u8 = 2;
pub const RSP: u8 = 4;
pub const RBP: u8 = 5;
pub const RSI: u8 = 6;
pub const RDI: u8 = 7;

/// Condition codes as in the opcode's low four bits.
pub const CC_B: u8 = 2;
pub const CC_AE: u8 = 3;
pub const CC_E: u8 = 4;
pub const CC_NE: u8 = 5;
pub const CC_BE: u8 = 6;
pub const CC_S: u8 = 8;
pub const CC_GE: u8 = 13;
pub const CC_LE: u8 = 14;
pub const CC_G: u8 = 15;

/// One instruction, put together in place: what grows byte by byte is asked for room only once.
struct Short {
    bytes: [u8; Short::ROOM],
    len: usize,
}

impl Short {
    const ROOM: usize = 16;

    const fn new() -> Short {
        Short { bytes: [0; Short::ROOM], len: 0 }
    }

    fn push(&mut self, byte: u8) {
        debug_assert!(self.len < Short::ROOM, "an instruction is shorter");
        self.bytes[self.len % Short::ROOM] = byte;
        self.len += 1;
    }

    fn u32(&mut self, v: u32) {
        v.to_le_bytes().into_iter().for_each(|byte| self.push(byte));
    }

    /// ModRM, SIB and displacement of a memory operand with register field `reg`.
    fn modrm_mem(&mut self, reg: u8, m: &Mem) {
        let field = (reg & 7) << 3;
        let index = m.index.map_or(0x20, |(r, s)| s << 6 | (r & 7) << 3);
        let Some(base) = m.base else {
            self.push(field | 4);
            self.push(index | 5);
            return self.u32(m.disp as u32);
        };
        let sib = m.index.is_some() || base & 7 == 4;
        let small = i8::try_from(m.disp).is_ok();
        let mode = if m.disp == 0 && base & 7 != 5 {
            0x00
        } else if small {
            0x40
        } else {
            0x80
        };
        self.push(mode | field | if sib { 4 } else { base & 7 });
        if sib {
            self.push(index | base & 7);
        }
        match mode {
            0x40 => self.push(m.disp as u8),
            0x80 => self.u32(m.disp as u32),
            _ => {}
        }
    }

    fn seg_prefix(&mut self, m: &Mem) {
        match m.seg {
            Seg::None => {}
            Seg::Fs => self.push(0x64),
            Seg::Gs => self.push(0x65),
        }
        if m.addr32 {
            self.push(0x67);
        }
    }

    /// One instruction with a memory operand: optional mandatory prefix, REX, opcode bytes, ModRM.
    #[inline]
    fn op_mem(prefix: Option<u8>, wide: bool, opcode: &[u8], reg: u8, m: &Mem) -> Short {
        let mut code = Short::new();
        code.seg_prefix(m);
        if let Some(p) = prefix {
            code.push(p);
        }
        let x = m.index.map_or(0, |(r, _)| r >> 3);
        let rex = u8::from(wide) << 3 | (reg >> 3) << 2 | x << 1 | m.base.map_or(0, |b| b >> 3);
        if rex != 0 {
            code.push(0x40 | rex);
        }
        opcode.iter().for_each(|&byte| code.push(byte));
        code.modrm_mem(reg, m);
        code
    }
}

/// REX.W opcode fs:[disp]: what is emitted most often.
const fn context_operand(opcode: u8, reg: u8, disp: i32) -> [u8; 9] {
    let [a, b, c, d] = disp.to_le_bytes();
    [0x64, 0x48 | (reg >> 3) << 2, opcode, (reg & 7) << 3 | 4, 0x25, a, b, c, d]
}

pub struct Asm {
    pub buf: Vec<u8>,
    /// Address of `buf[0]` when it runs.
    pub base: u64,
}

impl Asm {
    /// Code for `base` on, in a buffer whose contents are forgotten.
    pub fn new(base: u64, mut buf: Vec<u8>) -> Asm {
        buf.clear();
        Asm { buf, base }
    }

    pub fn here(&self) -> u64 {
        self.base + self.buf.len() as u64
    }

    pub fn offset(&self) -> usize {
        self.buf.len()
    }

    #[inline]
    pub fn bytes(&mut self, b: &[u8]) {
        self.buf.extend_from_slice(b);
    }

    pub fn u32(&mut self, v: u32) {
        self.bytes(&v.to_le_bytes());
    }

    pub fn u64(&mut self, v: u64) {
        self.bytes(&v.to_le_bytes());
    }

    /// The first `n` of these bytes. To copy all of them and to forget the rest costs less than to copy a number that only the program knows.
    pub fn first_of<const N: usize>(&mut self, bytes: &[u8; N], n: usize) {
        let end = self.buf.len() + n;
        self.buf.extend_from_slice(bytes);
        self.buf.truncate(end);
    }

    fn put(&mut self, code: &Short) {
        self.first_of(&code.bytes, code.len);
    }

    /// One instruction with a memory operand: optional mandatory prefix, REX, opcode bytes, ModRM.
    pub fn op_mem(&mut self, prefix: Option<u8>, wide: bool, opcode: &[u8], reg: u8, m: &Mem) {
        self.put(&Short::op_mem(prefix, wide, opcode, reg, m));
    }

    /// mov reg64, [m]
    #[inline]
    pub fn load(&mut self, reg: u8, m: &Mem) {
        match m.in_context() {
            Some(disp) => self.bytes(&context_operand(0x8b, reg, disp)),
            None => self.op_mem(None, true, &[0x8b], reg, m),
        }
    }

    /// mov [m], reg64
    #[inline]
    pub fn store(&mut self, m: &Mem, reg: u8) {
        match m.in_context() {
            Some(disp) => self.bytes(&context_operand(0x89, reg, disp)),
            None => self.op_mem(None, true, &[0x89], reg, m),
        }
    }

    /// Zero-extending load of 1, 2, 4 or 8 bytes.
    pub fn load_zx(&mut self, reg: u8, m: &Mem, size: u32) {
        match size {
            1 => self.op_mem(None, false, &[0x0f, 0xb6], reg, m),
            2 => self.op_mem(None, false, &[0x0f, 0xb7], reg, m),
            4 => self.op_mem(None, false, &[0x8b], reg, m),
            _ => self.load(reg, m),
        }
    }

    /// lea reg64, [m] (no segment)
    pub fn lea(&mut self, reg: u8, m: &Mem) {
        let m = Mem { seg: Seg::None, ..*m };
        self.op_mem(None, true, &[0x8d], reg, &m);
    }

    /// lea reg64, [rip + distance to a host address]
    pub fn lea_host(&mut self, reg: u8, target: u64) {
        let [a, b, c, d] = self.distance(target, 7);
        self.bytes(&[0x48 | (reg >> 3) << 2, 0x8d, (reg & 7) << 3 | 5, a, b, c, d]);
    }

    /// lea reg64, [rip + ?]; returns the position of the rel32 for `patch_here`.
    pub fn lea_forward(&mut self, reg: u8) -> usize {
        self.bytes(&[0x48 | (reg >> 3) << 2, 0x8d, (reg & 7) << 3 | 5, 0, 0, 0, 0]);
        self.offset() - 4
    }

    /// cmp size [m], 0
    pub fn cmp_zero(&mut self, m: &Mem, size: u32) {
        let opcode = if size == 1 { 0x80 } else { 0x83 };
        let mut code = Short::op_mem((size == 2).then_some(0x66), size == 8, &[opcode], 7, m);
        code.push(0);
        self.put(&code);
    }

    /// test size [m], bits; of 1, 2 or 4 bytes
    pub fn test_bits(&mut self, m: &Mem, size: u32, bits: u32) {
        match size {
            1 => self.op_mem(None, false, &[0xf6], 0, m),
            2 => self.op_mem(Some(0x66), false, &[0xf7], 0, m),
            _ => self.op_mem(None, false, &[0xf7], 0, m),
        }
        self.bytes(&bits.to_le_bytes()[..size as usize]);
    }

    /// mov size [m], value (value sign-extended from 32 bits)
    #[inline]
    pub fn store_imm(&mut self, m: &Mem, size: u32, value: i32) {
        match m.in_context() {
            Some(disp) if size == 8 => {
                self.bytes(&context_operand(0xc7, 0, disp));
                self.u32(value as u32);
            }
            _ => self.store_imm_anywhere(m, size, value),
        }
    }

    fn store_imm_anywhere(&mut self, m: &Mem, size: u32, value: i32) {
        let opcode = if size == 1 { 0xc6 } else { 0xc7 };
        let mut code = Short::op_mem((size == 2).then_some(0x66), size == 8, &[opcode], 0, m);
        let immediate = value.to_le_bytes();
        immediate.into_iter().take(size as usize).for_each(|byte| code.push(byte));
        self.put(&code);
    }

    /// Store a 64-bit constant without needing a register.
    pub fn store_const(&mut self, m: &Mem, value: u64) {
        if i64::from(value as i32) as u64 == value {
            self.store_imm(m, 8, value as i32);
        } else {
            self.store_imm(m, 4, value as i32);
            let high = Mem { disp: m.disp + 4, ..*m };
            self.store_imm(&high, 4, (value >> 32) as i32);
        }
    }

    /// mov reg64, imm64
    pub fn mov_const(&mut self, reg: u8, value: u64) {
        if value <= u64::from(u32::MAX) {
            if reg >= 8 {
                self.buf.push(0x41);
            }
            self.buf.push(0xb8 | reg & 7);
            self.u32(value as u32);
        } else {
            self.bytes(&[0x48 | reg >> 3, 0xb8 | reg & 7]);
            self.u64(value);
        }
    }

    /// mov dst64, src64
    pub fn mov(&mut self, dst: u8, src: u8) {
        self.bytes(&[0x48 | (src >> 3) << 2 | dst >> 3, 0x89, 0xc0 | (src & 7) << 3 | dst & 7]);
    }

    /// push imm32 (sign-extended)
    pub fn push_imm(&mut self, value: i32) {
        let [a, b, c, d] = value.to_le_bytes();
        self.bytes(&[0x68, a, b, c, d]);
    }

    /// jmp to a host address within reach
    pub fn jmp(&mut self, target: u64) {
        let [a, b, c, d] = self.distance(target, 5);
        self.bytes(&[0xe9, a, b, c, d]);
    }

    /// jcc to a host address within reach
    pub fn jcc(&mut self, cc: u8, target: u64) {
        let [a, b, c, d] = self.distance(target, 6);
        self.bytes(&[0x0f, 0x80 | cc, a, b, c, d]);
    }

    /// The rel32 to a host address, at the end of an instruction of so many bytes.
    fn distance(&self, target: u64, length: u64) -> [u8; 4] {
        (target.wrapping_sub(self.here() + length) as u32).to_le_bytes()
    }

    pub fn jmp_reg(&mut self, reg: u8) {
        if reg >= 8 {
            self.buf.push(0x41);
        }
        self.bytes(&[0xff, 0xe0 | reg & 7]);
    }

    /// ecx = not zero if ecx & [m] is not zero: pext ecx, ecx, [m], which keeps the flags. `m` is in the thread's context.
    pub fn and_keeping_flags(&mut self, m: &Mem) {
        self.bytes(&[0x64, 0xc4, 0xe2, 0x72, 0xf5, 0x0c, 0x25]);
        self.u32(m.disp as u32);
    }

    /// jcc rel32, target filled in later; returns the position of the rel32.
    pub fn jcc_forward(&mut self, cc: u8) -> usize {
        self.bytes(&[0x0f, 0x80 | cc, 0, 0, 0, 0]);
        self.offset() - 4
    }

    /// jmp rel32, filled in later.
    pub fn jmp_forward(&mut self) -> usize {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        self.offset() - 4
    }

    /// jrcxz rel8, filled in later.
    pub fn jrcxz_forward(&mut self) -> usize {
        self.bytes(&[0xe3, 0]);
        self.offset() - 1
    }

    /// ModRM, SIB and a displacement of always 32 bits (8-bit ones are scaled in EVEX encodings).
    fn modrm_mem32(&mut self, reg: u8, m: &Mem) {
        let field = (reg & 7) << 3;
        let index = m.index.map_or(0x20, |(r, s)| s << 6 | (r & 7) << 3);
        match m.base {
            None => self.bytes(&[field | 4, index | 5]),
            Some(b) => self.bytes(&[0x80 | field | 4, index | b & 7]),
        }
        self.u32(m.disp as u32);
    }

    /// EVEX prefix bytes X and B for a memory operand, inverted and in place.
    fn evex_xb(m: &Mem) -> u8 {
        let x = m.index.is_some_and(|(r, _)| r >= 8);
        let b = m.base.is_some_and(|r| r >= 8);
        u8::from(!x) << 6 | u8::from(!b) << 5
    }

    fn seg_prefix(&mut self, m: &Mem) {
        let mut prefixes = Short::new();
        prefixes.seg_prefix(m);
        self.put(&prefixes);
    }

    /// Store the low 16, 32 or 64 bytes of zmm31 (all ones) or zmm30 (zeros): vmovdqu64 [m], reg.
    pub fn store_wide(&mut self, m: &Mem, ones: bool, size: u32) {
        self.seg_prefix(m);
        let reg: u8 = if ones { 31 } else { 30 };
        self.bytes(&[0x62, Self::evex_xb(m) | u8::from(reg & 8 == 0) << 7 | 0x01, 0xfe, length(size) | 0x08, 0x7f]);
        self.modrm_mem32(reg, m);
    }

    /// Load 4, 8, 16 or 32 bytes to a private register (16 or above; zeros behind them), or store them.
    pub fn move_private(&mut self, m: &Mem, register: u8, size: u32, store: bool) {
        // vmovd, vmovq, vmovdqu64
        let (prefixes, opcodes, length) = match size {
            4 => (0x7d, [0x6e, 0x7e], 0x00),
            8 => (if store { 0xfd } else { 0xfe }, [0x7e, 0xd6], 0x00),
            16 => (0xfe, [0x6f, 0x7f], 0x00),
            _ => (0xfe, [0x6f, 0x7f], 0x20),
        };
        self.seg_prefix(m);
        self.bytes(&[0x62, Self::evex_xb(m) | u8::from(register & 8 == 0) << 7 | 0x01, prefixes, length | 0x08]);
        self.buf.push(opcodes[usize::from(store)]);
        self.modrm_mem32(register, m);
    }

    /// ZF = the 16, 32 or 64 bytes at `m` are all zero: vptestmq k7, reg31, [m]; kortestb k7, k7.
    pub fn test_wide(&mut self, m: &Mem, size: u32) {
        self.seg_prefix(m);
        self.bytes(&[0x62, Self::evex_xb(m) | 0x92, 0x85, length(size), 0x27]);
        self.modrm_mem32(7, m);
        self.bytes(&[0xc5, 0xf9, 0x98, 0xff]);
    }

    /// The low 16, 32 or 64 bytes of zmm29 from `m`, or together with what it holds; what is above becomes zero: vmovdqu64, vporq.
    pub fn gather_wide(&mut self, m: &Mem, size: u32, first: bool) {
        self.seg_prefix(m);
        let (before, behind, opcode) = if first { (0xfe, 0x08, 0x6f) } else { (0x95, 0x00, 0xeb) };
        self.bytes(&[0x62, Self::evex_xb(m) | 0x01, before, length(size) | behind, opcode]);
        self.modrm_mem32(29, m);
    }

    /// ZF = these bytes of zmm29 are all zero: vptestmq k7, reg29, reg29; kortestb k7, k7.
    pub fn test_gathered(&mut self, size: u32) {
        self.bytes(&[0x62, 0x92, 0x95, length(size), 0x27, 0xfd]);
        self.bytes(&[0xc5, 0xf9, 0x98, 0xff]);
    }

    /// Let the rel32 at `at` point here.
    pub fn patch_here(&mut self, at: usize) {
        self.patch_to(at, self.offset());
    }

    pub fn patch_to(&mut self, at: usize, target: usize) {
        let rel = (target as i64 - (at as i64 + 4)) as i32;
        self.buf[at..at + 4].copy_from_slice(&rel.to_le_bytes());
    }

    /// Let the rel32 at `at` point to a host address elsewhere.
    pub fn patch_to_address(&mut self, at: usize, target: u64) {
        let rel = target.wrapping_sub(self.base + at as u64 + 4) as u32;
        self.buf[at..at + 4].copy_from_slice(&rel.to_le_bytes());
    }

    /// Let the rel8 at `at` point here.
    pub fn patch8_here(&mut self, at: usize) {
        let rel = self.offset() as i64 - (at as i64 + 1);
        debug_assert!((-128..128).contains(&rel), "short jump out of reach");
        self.buf[at] = rel as u8;
    }

    /// Pad with a nop so that the 4 bytes `lead` bytes further on do not cross a cache line: they can then be patched in one store.
    pub fn align_for_patch(&mut self, lead: usize) {
        let last = (self.here() + lead as u64) % 64;
        let nop: &[u8] = match last {
            63 => &[0x90],
            62 => &[0x66, 0x90],
            61 => &[0x0f, 0x1f, 0x00],
            _ => &[],
        };
        self.bytes(nop);
    }
}

/// The length of a vector in an EVEX prefix.
const fn length(size: u32) -> u8 {
    match size {
        16 => 0x00,
        32 => 0x20,
        _ => 0x40,
    }
}
