//! Encodings between registers that only the rules of dirty mode need; the others are in `emit`.
//!
//! Operands are numbers of general registers; `size` is in bytes. Byte forms always carry a REX prefix, so 4 to 7 mean spl to dil.

use crate::emit::{Asm, Mem};

/// Two-operand instructions by the opcode of `op rm, reg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Alu {
    Add = 0x01,
    Or = 0x09,
    Sbb = 0x19,
    And = 0x21,
    Sub = 0x29,
    Xor = 0x31,
    Cmp = 0x39,
    Test = 0x85,
    Mov = 0x89,
}

/// Shifts and rotates by the register field of their opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Turn {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

impl Asm {
    fn rex(&mut self, size: u32, reg: u8, rm: u8) {
        if size == 2 {
            self.buf.push(0x66);
        }
        let rex = u8::from(size == 8) << 3 | (reg >> 3) << 2 | rm >> 3;
        if rex != 0 || size == 1 {
            self.buf.push(0x40 | rex);
        }
    }

    fn modrm(&mut self, reg: u8, rm: u8) {
        self.buf.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// op `to`, `from`
    pub fn alu(&mut self, op: Alu, size: u32, to: u8, from: u8) {
        self.rex(size, from, to);
        self.buf.push(op as u8 - u8::from(size == 1));
        self.modrm(from, to);
    }

    /// op `to`, value (sign-extended from 32 bits); not mov.
    pub fn alu_imm(&mut self, op: Alu, size: u32, to: u8, value: i32) {
        self.rex(size, 0, to);
        let byte = u8::from(size == 1);
        match op {
            Alu::Test => {
                self.buf.push(0xf7 - byte);
                self.modrm(0, to);
            }
            _ => {
                self.buf.push(0x81 - byte);
                self.modrm((op as u8) >> 3, to);
            }
        }
        match size {
            1 => self.buf.push(value as u8),
            2 => self.bytes(&(value as u16).to_le_bytes()),
            _ => self.u32(value as u32),
        }
    }

    /// op [m], value for four bytes
    pub fn alu_mem_imm(&mut self, op: Alu, m: &Mem, value: u32) {
        match op {
            Alu::Test => self.op_mem(None, false, &[0xf7], 0, m),
            _ => self.op_mem(None, false, &[0x81], (op as u8) >> 3, m),
        }
        self.u32(value);
    }

    /// mov [m], reg; byte registers only 0 to 3 and 8 to 15.
    pub fn store_sized(&mut self, m: &Mem, reg: u8, size: u32) {
        match size {
            1 => self.op_mem(None, false, &[0x88], reg, m),
            2 => self.op_mem(Some(0x66), false, &[0x89], reg, m),
            4 => self.op_mem(None, false, &[0x89], reg, m),
            _ => self.store(m, reg),
        }
    }

    /// xor reg, reg
    pub fn zero(&mut self, reg: u8) {
        self.alu(Alu::Xor, 4, reg, reg);
    }

    pub fn turn(&mut self, op: Turn, size: u32, reg: u8, by: u8) {
        self.rex(size, 0, reg);
        self.buf.push(0xc1 - u8::from(size == 1));
        self.modrm(op as u8, reg);
        self.buf.push(by);
    }

    pub fn turn_by_cl(&mut self, op: Turn, size: u32, reg: u8) {
        self.rex(size, 0, reg);
        self.buf.push(0xd3 - u8::from(size == 1));
        self.modrm(op as u8, reg);
    }

    /// not (2), neg (3) and their neighbours
    pub fn unary(&mut self, digit: u8, size: u32, reg: u8) {
        self.rex(size, 0, reg);
        self.buf.push(0xf7 - u8::from(size == 1));
        self.modrm(digit, reg);
    }

    /// Zero-extend (a plain 32-bit move for 4 bytes).
    pub fn zero_extend(&mut self, to: u8, from: u8, size: u32) {
        match size {
            8 => self.mov(to, from),
            4 => self.alu(Alu::Mov, 4, to, from),
            _ => self.two_byte(if size == 1 { 0xb6 } else { 0xb7 }, false, size == 1, to, from),
        }
    }

    /// Sign-extend to 64 bits.
    pub fn sign_extend(&mut self, to: u8, from: u8, size: u32) {
        match size {
            8 => self.mov(to, from),
            4 => {
                self.rex(8, to, from);
                self.buf.push(0x63);
                self.modrm(to, from);
            }
            _ => self.two_byte(if size == 1 { 0xbe } else { 0xbf }, true, false, to, from),
        }
    }

    fn two_byte(&mut self, opcode: u8, wide: bool, byte: bool, reg: u8, rm: u8) {
        self.rex(if wide { 8 } else { u32::from(!byte) * 3 + 1 }, reg, rm);
        self.bytes(&[0x0f, opcode]);
        self.modrm(reg, rm);
    }

    /// cmovcc `to`, `from` (64 bits)
    pub fn cmov(&mut self, cc: u8, to: u8, from: u8) {
        self.two_byte(0x40 | cc, true, false, to, from);
    }

    /// cmovcc reg, [m]: 4 bytes clear the upper half whether or not the condition holds.
    pub fn cmov_mem(&mut self, cc: u8, wide: bool, reg: u8, m: &Mem) {
        self.op_mem(None, wide, &[0x0f, 0x40 | cc], reg, m);
    }

    /// imul `to`, `from` (64 bits)
    pub fn multiply(&mut self, to: u8, from: u8) {
        self.two_byte(0xaf, true, false, to, from);
    }

    /// setcc of the register's low byte
    pub fn setcc(&mut self, cc: u8, reg: u8) {
        self.two_byte(0x90 | cc, false, true, 0, reg);
    }

    /// bts (5), btc (7) and their neighbours with a constant
    pub fn bit(&mut self, digit: u8, reg: u8, at: u8) {
        self.rex(8, 0, reg);
        self.bytes(&[0x0f, 0xba]);
        self.modrm(digit, reg);
        self.buf.push(at);
    }

    pub fn bswap(&mut self, size: u32, reg: u8) {
        self.rex(size, 0, reg);
        self.bytes(&[0x0f, 0xc8 | reg & 7]);
    }

    /// `to` = ~`a` & `b`
    pub fn andn(&mut self, wide: bool, to: u8, a: u8, b: u8) {
        self.vex_gpr(0, wide, 0xf2, to, a, b);
    }

    /// `to` = `from` shifted by the low bits of `count`, flags untouched: shlx (prefix 1), sarx (2), shrx (3).
    pub fn shift_by(&mut self, prefix: u8, wide: bool, to: u8, from: u8, count: u8) {
        self.vex_gpr(prefix, wide, 0xf7, to, count, from);
    }

    /// VEX.LZ.`prefix`.0F38 with operands in ModRM.reg, VEX.vvvv and ModRM.rm.
    fn vex_gpr(&mut self, prefix: u8, wide: bool, opcode: u8, reg: u8, vvvv: u8, rm: u8) {
        let extensions = u8::from(reg < 8) << 7 | 0x40 | u8::from(rm < 8) << 5;
        self.bytes(&[0xc4, extensions | 2, u8::from(wide) << 7 | (!vvvv & 15) << 3 | prefix, opcode]);
        self.modrm(reg, rm);
    }

    /// tzcnt `to`, `from` (64 bits)
    pub fn trailing_zeros(&mut self, to: u8, from: u8) {
        self.buf.push(0xf3);
        self.two_byte(0xbc, true, false, to, from);
    }

    /// lzcnt `to`, `from` (64 bits)
    pub fn leading_zeros(&mut self, to: u8, from: u8) {
        self.buf.push(0xf3);
        self.two_byte(0xbd, true, false, to, from);
    }

    /// A legacy SSE instruction between vector registers: mandatory prefix (0: none), opcode behind 0f.
    pub fn sse(&mut self, prefix: u8, opcode: &[u8], to: u8, from: u8) {
        if prefix != 0 {
            self.buf.push(prefix);
        }
        self.rex(4, to, from);
        self.buf.push(0x0f);
        self.bytes(opcode);
        self.modrm(to, from);
    }

    /// The common case: prefix 66, one opcode byte.
    pub fn packed(&mut self, opcode: u8, to: u8, from: u8) {
        self.sse(0x66, &[opcode], to, from);
    }

    /// movdqa `to`, `from`
    pub fn mov_vector(&mut self, to: u8, from: u8) {
        self.packed(0x6f, to, from);
    }

    /// movups vector, [m]
    pub fn load_vector(&mut self, to: u8, m: &Mem) {
        self.op_mem(None, false, &[0x0f, 0x10], to, m);
    }

    /// movups [m], vector
    pub fn store_vector(&mut self, m: &Mem, from: u8) {
        self.op_mem(None, false, &[0x0f, 0x11], from, m);
    }
}

/// Opcodes for `Asm::packed`.
pub mod packed {
    pub const AND: u8 = 0xdb;
    pub const ANDN: u8 = 0xdf;
    pub const OR: u8 = 0xeb;
    pub const XOR: u8 = 0xef;
    /// By the logarithm of the lane's bytes.
    pub const ADD: [u8; 4] = [0xfc, 0xfd, 0xfe, 0xd4];
    pub const SUB: [u8; 4] = [0xf8, 0xf9, 0xfa, 0xfb];
    /// The last one is in the map 38.
    pub const EQUAL: [u8; 3] = [0x74, 0x75, 0x76];
    pub const EQUAL_8: [u8; 2] = [0x38, 0x29];
    pub const TEST: [u8; 2] = [0x38, 0x17];
}
