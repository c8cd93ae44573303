//! Instructions that move the stack pointer, and the shadow of the stack.
//!
//! Invariant: below the stack pointer minus the red zone everything has V = FF. Growing marks nothing; what is released is
//! painted. At a `ret` the caller's red zone is dead too, so the tail of a function is painted in one batch, up to
//! the stack pointer itself:
//!
//! ```text
//!                    sp before the tail         sp after ret
//! ... FF FF FF FF FF | locals, saved registers, ra | caller's frame
//!                     <------- painted FF --------->
//! ```

use crate::emit::{CC_NE, Mem, RAX, RCX, RSP, Seg};
use crate::emitter::{Emitter, spill};
use crate::{LOAD, STORE, slot};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use memcheck_abi::context::offset;
use memcheck_abi::layout::RED_ZONE;

/// Growth by a constant of at least this many bytes is painted explicitly: it may reach fresh, never painted memory.
const LARGE_FRAME: u64 = 4096;
/// Releases up to this size are painted by single stores.
const INLINE_RELEASE: u32 = 512;
/// From this size on with vector stores.
const WIDE_PAINT: u32 = 48;

/// Descriptor of `Stubs::stack_moved` (slot 4): the new stack pointer came from memory or any register, not from the old one or the frame's.
pub const FROM_ANYWHERE: u32 = 2;

/// Flag of [`release_argument`], in front of a `ret`: the red zone below slot 2, too.
pub const AND_BELOW: u32 = 4;

/// Descriptor of `Stubs::release` (slot 4): paint [slot 2 - shift, rsp + extra - shift).
pub const fn release_argument(extra: u32, before_ret: bool) -> u32 {
    extra << 8 | before_ret as u32
}

pub fn writes_rsp(insn: &Instruction) -> bool {
    insn.op0_kind() == OpKind::Register
        && insn.op0_register().full_register() == Register::RSP
        && insn.op_count() > 0
        && !matches!(insn.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Bt)
        || insn.mnemonic() == Mnemonic::Xchg && insn.op1_kind() == OpKind::Register && insn.op1_register().full_register() == Register::RSP
}

pub fn handles(insn: &Instruction) -> bool {
    is_stack_mnemonic(insn.mnemonic()) || constant_move(insn).is_some()
}

/// Push, pop and their like.
pub fn is_stack_mnemonic(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Leave, Pop, Popf, Popfq, Push, Pushf, Pushfq};
    matches!(mnemonic, Push | Pop | Pushf | Pushfq | Popf | Popfq | Leave)
}

/// `add/sub/and rsp, imm` and `lea rsp, [rsp + disp]`: the change in bytes (0 for `and`, which only shrinks).
fn constant_move(insn: &Instruction) -> Option<i64> {
    if insn.op_count() != 2 || insn.op0_kind() != OpKind::Register || insn.op0_register() != Register::RSP {
        return None;
    }
    let immediate = !matches!(insn.op1_kind(), OpKind::Register | OpKind::Memory);
    match insn.mnemonic() {
        Mnemonic::Add if immediate => Some(insn.immediate(1) as i64),
        Mnemonic::Sub if immediate => Some((insn.immediate(1) as i64).wrapping_neg()),
        Mnemonic::And if immediate && insn.immediate(1) as i64 >= -(LARGE_FRAME as i64) => Some(0),
        Mnemonic::Lea
            if insn.memory_base() == Register::RSP && insn.memory_index() == Register::None && insn.segment_prefix() == Register::None =>
        {
            Some(insn.memory_displacement64() as i64)
        }
        _ => None,
    }
}

/// rbp - rsp behind this instruction, or less, as long as it is known: from `mov rbp, rsp` on.
pub fn frame_behind(insn: &Instruction, frame: Option<i32>) -> Option<i32> {
    let writes_rbp = insn.op_count() > 0 && insn.op0_kind() == OpKind::Register && insn.op0_register().full_register() == Register::RBP;
    match insn.mnemonic() {
        Mnemonic::Mov if insn.op0_register() == Register::RBP && insn.op1_register() == Register::RSP => Some(0),
        Mnemonic::Push => frame.and_then(|f| f.checked_sub(insn.stack_pointer_increment())),
        Mnemonic::Pop if !writes_rbp && insn.op0_register() != Register::RSP => {
            frame.and_then(|f| f.checked_sub(insn.stack_pointer_increment()))
        }
        Mnemonic::Cmp | Mnemonic::Test => frame,
        Mnemonic::Leave | Mnemonic::Xchg | Mnemonic::Xadd => None,
        _ if writes_rbp => None,
        _ => match constant_move(insn) {
            Some(change) => frame.and_then(|f| f.checked_sub(i32::try_from(change).ok()?)),
            None if writes_rsp(insn) || insn.stack_pointer_increment() != 0 => None,
            None => frame,
        },
    }
}

pub fn instruction(e: &mut Emitter) {
    let insn = e.item.insn;
    match insn.mnemonic() {
        Mnemonic::Push | Mnemonic::Pushf | Mnemonic::Pushfq => push(e, &insn),
        Mnemonic::Pop | Mnemonic::Popf | Mnemonic::Popfq => pop(e, &insn),
        Mnemonic::Leave => leave(e),
        _ => constant(e, &insn),
    }
}

fn push(e: &mut Emitter, insn: &Instruction) {
    let bytes = -insn.stack_pointer_increment();
    let slot = Mem::base(RSP, -bytes);
    if insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory {
        e.define(&slot, bytes as u32);
        return e.ordinary();
    }
    // A run of pushes is made defined by the first. In dirty mode the rule, if it runs, writes the slot's V itself.
    if e.shadow.is_some() || e.item.batch == 1 {
        e.define(&slot, bytes as u32);
    } else if e.item.batch > 1 {
        let all = i32::from(e.item.batch) * 8;
        // At the entry of a function the stack pointer is odd by a return address.
        e.define_from(&Mem::base(RSP, -all), all as u32, -8);
    }
    e.copy_raw();
    if insn.mnemonic() == Mnemonic::Pushfq {
        show_alignment_check(e, &Mem::base(RSP, 0));
    }
}

/// The flag AC. Set in the processor, it would make the runtime's own unaligned accesses fault; but programs set it to see whether it
/// stays (processors without it have no cpuid). So it lives in the thread context.
const AC: u32 = 1 << 18;

/// In front of popfq, where no flag lives: take the flag from the word that is about to be popped.
fn hide_alignment_check(e: &mut Emitter, word: &Mem) {
    e.asm.op_mem(None, false, &[0xf7], 0, word);
    e.asm.u32(AC);
    e.asm.store_imm(&spill(slot::ALIGNMENT_CHECK), 8, 0);
    let skip = e.asm.jcc_forward(CC_NE ^ 1);
    e.asm.store_imm(&spill(slot::ALIGNMENT_CHECK), 8, AC as i32);
    e.asm.op_mem(None, false, &[0x81], 4, word);
    e.asm.u32(!AC);
    e.asm.patch_here(skip);
}

/// Behind pushfq: put it into the word. Keeps the flags.
fn show_alignment_check(e: &mut Emitter, word: &Mem) {
    e.asm.store(&spill(slot::RCX), RCX);
    e.asm.load(RCX, &spill(slot::ALIGNMENT_CHECK));
    let clear = e.asm.jrcxz_forward();
    e.asm.store(&spill(slot::RAX), RAX);
    e.asm.load(RAX, word);
    e.asm.lea(RAX, &Mem { index: Some((RCX, 0)), ..Mem::base(RAX, 0) });
    e.asm.store(word, RAX);
    e.asm.load(RAX, &spill(slot::RAX));
    e.asm.patch8_here(clear);
    e.asm.load(RCX, &spill(slot::RCX));
}

fn pop(e: &mut Emitter, insn: &Instruction) {
    let bytes = insn.stack_pointer_increment() as u32;
    if insn.op_count() > 0 && insn.op0_kind() == OpKind::Register && insn.op0_register().full_register() == Register::RSP {
        e.place_step();
        e.asm.store(&spill(slot::ADDRESS), RSP);
        e.copy_raw();
        return after_move(e);
    }
    // In dirty mode every pop asks for itself.
    let covered = if e.shadow.is_some() { 1 } else { u32::from(e.item.batch) };
    if !e.item.unread || e.shadow.is_some() {
        e.check(&Mem::base(RSP, 0), bytes * covered, LOAD);
    }
    if insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory {
        pop_to_memory(e, bytes);
    } else {
        if insn.mnemonic() == Mnemonic::Popfq {
            e.place_step();
            hide_alignment_check(e, &Mem::base(RSP, 0));
        }
        e.copy_raw();
    }
    if !e.item.deferred {
        let red_zone = -(RED_ZONE as i32) - bytes as i32;
        paint(e, red_zone, bytes);
    }
}

/// The address of `pop [mem]` is computed after the stack pointer moved.
fn pop_to_memory(e: &mut Emitter, bytes: u32) {
    e.with_operand(|e, mem, rewritten| {
        let after = if mem.base == Some(RSP) { Mem { disp: mem.disp + bytes as i32, ..mem } } else { mem };
        e.check(&after, bytes, STORE);
        e.mark_own();
        if rewritten {
            e.asm.op_mem((bytes == 2).then_some(0x66), false, &[0x8f], 0, &mem);
        } else {
            e.copy_raw();
        }
    });
}

fn leave(e: &mut Emitter) {
    e.place_step();
    e.asm.store(&spill(slot::ADDRESS), RSP);
    e.copy_raw();
    call_release(e, release_argument(0, e.item.deferred) | if e.item.looks_below { AND_BELOW } else { 0 });
}

fn constant(e: &mut Emitter, insn: &Instruction) {
    let change = constant_move(insn).unwrap_or(0);
    e.t.frames_vary |= insn.mnemonic() == Mnemonic::And;
    if change < 0 && change.unsigned_abs() >= LARGE_FRAME {
        e.place_step();
        e.asm.store(&spill(slot::ADDRESS), RSP);
        e.copy_raw();
        return after_move(e);
    }
    e.copy_raw();
    if change > 0 && !e.item.deferred {
        let Ok(bytes) = i32::try_from(change) else { return };
        if bytes as u32 <= INLINE_RELEASE {
            paint(e, -(RED_ZONE as i32) - bytes, bytes as u32);
        } else {
            spill_old_sp(e, -bytes);
            call_release(e, release_argument(0, false));
        }
    }
}

/// Slot 2 = rsp + disp.
fn spill_old_sp(e: &mut Emitter, disp: i32) {
    e.asm.store(&spill(slot::RCX), RCX);
    e.asm.lea(RCX, &Mem::base(RSP, disp));
    e.asm.store(&spill(slot::ADDRESS), RCX);
    e.asm.load(RCX, &spill(slot::RCX));
}

/// Paint `bytes` bytes from rsp + `from` on as released.
pub fn paint(e: &mut Emitter, from: i32, bytes: u32) {
    let (mut at, mut end) = (0, bytes as i32);
    if e.t.options.private_vectors && bytes >= 16 {
        return e.fill_wide(&Mem { seg: Seg::Gs, ..Mem::base(RSP, from) }, bytes, true, 0);
    }
    if bytes >= WIDE_PAINT {
        // xmm15 = all ones, 16 bytes at a time from the upper end down (see `fill_wide`); its own contents wait in the context.
        e.asm.op_mem(None, false, &[0x0f, 0x11], 15, &Mem::ctx(offset::XSAVE));
        e.asm.bytes(&[0x66, 0x45, 0x0f, 0x76, 0xff]);
        while end - at >= 16 {
            end -= 16;
            let mem = Mem { seg: Seg::Gs, ..Mem::base(RSP, from + end) };
            e.asm.op_mem(None, false, &[0x0f, 0x11], 15, &mem);
        }
        e.asm.op_mem(None, false, &[0x0f, 0x10], 15, &Mem::ctx(offset::XSAVE));
    }
    while at < end {
        let left = end - at;
        let n = if left >= 8 {
            8
        } else if left >= 4 {
            4
        } else if left >= 2 {
            2
        } else {
            1
        };
        let mem = Mem { seg: Seg::Gs, ..Mem::base(RSP, from + at) };
        e.asm.store_imm(&mem, n as u32, -1);
        at += n;
    }
}

/// In front of `ret` (stack pointer at the return address): paint what the tail of the function released, if it is much. What is little
/// is painted behind the pop of the return address, and false is returned: a store to the shadow of the very operand that is popped
/// next makes processors take it for the source of the pop, and that costs more than all the rest of a return.
pub fn before_ret(e: &mut Emitter, released: u32) -> bool {
    let much = released > INLINE_RELEASE;
    if much {
        spill_old_sp(e, 8 - released as i32);
        call_release(e, release_argument(8, true));
    } else if e.item.looks_below && e.item.noise {
        paint_below_leaf(e, 8, released);
    }
    much
}

/// Paint what was released, and the red zone below it, if the function was a leaf with a frame: then a word right below the frame was
/// written (arrays are aligned to 16 bytes). Of all other functions, the return from their last call has painted both. (`extra`: as in
/// [`release_argument`].) No flag lives.
fn paint_below_leaf(e: &mut Emitter, extra: u32, released: u32) {
    let frame = extra as i32 - released as i32;
    let is_painted = |e: &mut Emitter, word: i32| {
        e.asm.op_mem(None, true, &[0x83], 7, &Mem { seg: Seg::Gs, ..Mem::base(RSP, frame - 8 * word) });
        e.asm.buf.push(0xff);
    };
    is_painted(e, 1);
    let written = e.asm.jcc_forward(CC_NE);
    is_painted(e, 2);
    let other = e.asm.jcc_forward(CC_NE ^ 1);
    e.asm.patch_here(written);
    spill_old_sp(e, frame);
    call_release(e, release_argument(extra, true));
    e.asm.patch_here(other);
}

/// In front of a jump, which is likely to be the last of its function: paint what was released just before.
pub fn before_jump(e: &mut Emitter) {
    let released = e.item.released;
    if released > INLINE_RELEASE {
        e.place_step();
        spill_old_sp(e, -(released as i32));
        call_release(e, release_argument(0, true));
    } else if released > 0 {
        if e.item.looks_below && !e.item.flags_live {
            e.place_step();
            paint_below_leaf(e, 0, released);
        }
        paint(e, -(released as i32), released);
    }
}

fn call_release(e: &mut Emitter, argument: u32) {
    let target = e.t.stubs.release;
    call_stack_routine(e, argument, target);
}

/// The stack pointer was changed by an instruction that may do anything; slot 2 holds its old value.
pub fn after_move(e: &mut Emitter) {
    e.t.frames_vary |= makes_room(&e.item.insn);
    let target = e.t.stubs.stack_moved;
    let argument = if stays_in_frame(&e.item.insn) { 0 } else { FROM_ANYWHERE } | u32::from(e.item.deferred);
    call_stack_routine(e, argument, target);
}

/// Does the frame get a size that the instruction alone does not tell? (`mov rsp, rbp` and `lea rsp, [rbp - n]` give one up.)
fn makes_room(insn: &Instruction) -> bool {
    let from_register = insn.op_count() > 1 && insn.op1_kind() == OpKind::Register;
    match insn.mnemonic() {
        Mnemonic::And => true,
        Mnemonic::Add | Mnemonic::Sub | Mnemonic::Mov => from_register && insn.op1_register() != Register::RBP,
        Mnemonic::Lea => insn.memory_index() != Register::None || !matches!(insn.memory_base(), Register::RSP | Register::RBP),
        _ => false,
    }
}

/// Is the new stack pointer computed from the old one, or from the frame pointer?
fn stays_in_frame(insn: &Instruction) -> bool {
    let own = |r: Register| matches!(r, Register::RSP | Register::RBP);
    match insn.mnemonic() {
        Mnemonic::Add | Mnemonic::Sub | Mnemonic::And => true,
        Mnemonic::Lea => own(insn.memory_base()),
        Mnemonic::Mov => insn.op1_kind() == OpKind::Register && own(insn.op1_register()),
        _ => false,
    }
}

fn call_stack_routine(e: &mut Emitter, argument: u32, routine: u64) {
    e.asm.store(&spill(slot::RCX), RCX);
    e.asm.store_imm(&spill(slot::ARGUMENT), 8, argument as i32);
    let back = e.asm.lea_forward(RCX);
    e.asm.store(&spill(slot::CONTINUE), RCX);
    e.asm.jmp(routine);
    e.asm.patch_here(back);
}
