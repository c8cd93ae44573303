//! What the translator sees of the program: code bytes and replaced functions.
#![allow(unsafe_code, reason = "reads the program's code in place")]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use iced_x86::InstructionInfoFactory;
use memcheck_abi::layout::{CODE_END, MAGIC_BASE, MAGIC_END, PROGRAM_END};
use memcheck_abi::replace::Func;
use memcheck_kernel::space::{self, kind};
use memcheck_rt::sync::Lock;
use memcheck_translate::Program;

use crate::deadness;
use crate::dirty::Lasting;
use crate::starts::{self, Starts};
use crate::vsyscall;

/// Redirects: open addressing on the address; value = func | resolver << 16. Written at start-up and library loads only.
const SLOTS: usize = 1 << 13;
static KEYS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
static VALUES: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// A bit for each slot that is taken. Every region asks, nearly always in vain, and this is small enough to stay in the processor's cache.
static TAKEN: [AtomicU64; SLOTS / 64] = [const { AtomicU64::new(0) }; SLOTS / 64];

fn slot_of(pc: u64) -> usize {
    (pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize
}

/// The function at `pc` is replaced from now on.
pub fn add_redirect(pc: u64, func: u32, resolver: bool) {
    if let (Some(func), false) = (Func::from_number(func), resolver) {
        memcheck_heap::entries::add_known(func, pc);
    }
    starts::mark(pc);
    let mut i = slot_of(pc);
    for _ in 0..SLOTS {
        let key = KEYS[i].load(Ordering::Relaxed);
        if key == 0 || key == pc {
            VALUES[i].store(u64::from(func) | u64::from(resolver) << 16, Ordering::Relaxed);
            KEYS[i].store(pc, Ordering::Release);
            TAKEN[i / 64].fetch_or(1 << (i % 64), Ordering::Release);
            return;
        }
        i = (i + 1) % SLOTS;
    }
}

/// Functions that others of the program take the place of: (entry, the other's entry), with the instruction that is seen in its place.
struct Jump {
    to: u64,
    code: [u8; 5],
}

static JUMPS: Lock<BTreeMap<u64, &'static Jump>> = Lock::new(BTreeMap::new());
/// Most programs have none.
static ANY_JUMPS: AtomicBool = AtomicBool::new(false);

/// Whoever comes to `from` goes on at `to` from now on.
pub fn add_jump(from: u64, to: u64) {
    const JMP: u8 = 0xe9;
    let Ok(distance) = i32::try_from(to.wrapping_sub(from + 5) as i64) else { return };
    let [a, b, c, d] = distance.to_le_bytes();
    JUMPS.lock().insert(from, Box::leak(Box::new(Jump { to, code: [JMP, a, b, c, d] })));
    ANY_JUMPS.store(true, Ordering::Release);
}

fn jump_at(pc: u64) -> Option<&'static Jump> {
    ANY_JUMPS.load(Ordering::Acquire).then(|| JUMPS.lock().get(&pc).copied()).flatten()
}

/// What the function around `pc` takes the place of, 0 if it does not: the nearest that begins at or below, for it has no end here.
pub fn original_of(pc: u64) -> u64 {
    let jumps = JUMPS.lock();
    let below = jumps.iter().filter(|(_, jump)| jump.to <= pc);
    below.max_by_key(|(_, jump)| jump.to).map_or(0, |(&from, _)| from)
}

/// Redirects of an unmapped range mean nothing any more.
pub fn remove_redirects(start: u64, end: u64) {
    if ANY_JUMPS.load(Ordering::Acquire) {
        let gone = |at: &u64| (start..end).contains(at);
        JUMPS.lock().retain(|from, jump| !gone(from) && !gone(&jump.to));
    }
    for key in KEYS.iter().filter(|key| (start..end).contains(&key.load(Ordering::Relaxed))) {
        // The slot stays occupied (probing goes on past it) but matches nothing.
        key.store(1, Ordering::Release);
    }
}

pub fn redirect(pc: u64) -> Option<(u32, bool)> {
    if (MAGIC_BASE..MAGIC_END).contains(&pc) {
        return Some((((pc - MAGIC_BASE) / 16) as u32, false));
    }
    let mut i = slot_of(pc);
    while TAKEN[i / 64].load(Ordering::Acquire) >> (i % 64) & 1 != 0 {
        if KEYS[i].load(Ordering::Acquire) == pc {
            let v = VALUES[i].load(Ordering::Relaxed);
            return Some((v as u32 & 0xffff, v >> 16 != 0));
        }
        i = (i + 1) % SLOTS;
    }
    None
}

pub struct View<'a> {
    /// What is translated: low and high code.
    pub low: &'a Starts,
    pub high: &'a BTreeMap<u64, u32>,
    /// Not taken as replaced: the program's own code here is wanted. 0 = none.
    pub original: u64,
    /// The mapping asked for last: a region is asked about a few times.
    seen: Cell<Option<Mapping>>,
}

/// As `space::mapping_of`.
type Mapping = (u64, u64, u32, u32);

impl<'a> View<'a> {
    pub fn new(low: &'a Starts, high: &'a BTreeMap<u64, u32>, original: u64) -> View<'a> {
        View { low, high, original, seen: Cell::new(None) }
    }

    fn mapping_of(&self, pc: u64) -> Option<Mapping> {
        let seen = self.seen.get().filter(|seen| (seen.0..seen.1).contains(&pc));
        seen.or_else(|| {
            let found = space::mapping_of(pc);
            self.seen.set(found);
            found
        })
    }

    /// End of the mapping around `pc`, if it can be executed.
    fn executable_end(&self, pc: u64) -> Option<u64> {
        let (_, end, prot, _) = self.mapping_of(pc)?;
        (prot & EXEC != 0 && prot & READ != 0).then_some(end)
    }
}

/// Bytes of code shown to the translator at a time. Code runs on from one mapping into the next, as in generated code that the
/// program makes executable piece by piece.
const LONGEST_REGION: u64 = 4096;

const EXEC: u32 = 4;
const WRITE: u32 = 2;
const READ: u32 = 1;

/// May code in such a mapping change without notice?
pub fn may_be_written(prot: u32, kind: u32) -> bool {
    prot & WRITE != 0 || kind & kind::SHARED != 0
}

impl Program for View<'_> {
    fn code(&self, pc: u64) -> Option<&[u8]> {
        if pc >= PROGRAM_END {
            return vsyscall::code(pc);
        }
        if pc != self.original
            && let Some(jump) = jump_at(pc)
        {
            return Some(&jump.code);
        }
        let mut end = self.executable_end(pc)?;
        while end - pc < LONGEST_REGION
            && let Some(next) = self.executable_end(end)
        {
            end = next;
        }
        let len = (end - pc).min(LONGEST_REGION) as usize;
        // SAFETY: the mappings are readable, says the map that every mapping call of the program goes through.
        Some(unsafe { core::slice::from_raw_parts(pc as *const u8, len) })
    }

    fn redirect(&self, pc: u64) -> Option<(u32, bool)> {
        if pc == self.original { None } else { redirect(pc) }
    }

    fn begins(&self, pc: u64) -> bool {
        match pc < CODE_END {
            true => starts::is_marked(pc) && (self.low.get(pc).is_some() || redirect(pc).is_some()),
            false => self.high.contains_key(&pc) || redirect(pc).is_some(),
        }
    }

    fn is_unread(&self, pc: u64, register: u8, passed: bool) -> bool {
        deadness::is_unread(&Lasting(pc..pc), &mut InstructionInfoFactory::new(), pc, (1 << register, passed), deadness::DEPTH_OF_ONE)
    }

    fn is_constant(&self, addr: u64) -> bool {
        space::mapping_of(addr).is_some_and(|(_, _, prot, kind)| prot & WRITE == 0 && kind & kind::SHARED == 0)
    }

    fn is_far(&self, pc: u64) -> bool {
        crate::far::is_far(pc)
    }

    fn returns_flags(&self, pc: u64) -> bool {
        crate::flags::are_returned(pc)
    }

    fn is_writable(&self, pc: u64) -> bool {
        self.mapping_of(pc).is_some_and(|(_, _, prot, kind)| may_be_written(prot, kind))
    }
}
