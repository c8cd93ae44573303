//! The code cache: where translations lie, and how they are found.
//!
//! ```text
//! program address         -> `starts`, or `high` from 2 GiB on -> region
//! the same, in assembly   -> branch table entry (gs-relative), or `far` -> indirect entry of the region
//! host address            -> `regions` -> program address, spilled register
//! ```
//! Code is appended and never moves. Invalidation clears the table entry and unlinks incoming branches; the dead code stays where
//! it is, so a thread inside it finishes its region undisturbed, until `renewal` gives it back.
#![allow(unsafe_code, reason = "writes code and the branch table")]

mod dirty_code;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use memcheck_abi::layout::{CACHE_END, CACHE_START, CODE_END, TABLE_DISPLACEMENT, V_DISTANCE};
use memcheck_rt::sync::Lock;
use memcheck_rt::{report, sys};
use memcheck_translate::{Options, Place, Program, Region, Stubs, Translator};

use crate::dirty::{Found, Plans};
use crate::far;
use crate::pages::{self, Pages};
use crate::program::View;
use crate::regions::Regions;
use crate::renewal::whole;
use crate::room::Room;
use crate::starts::{self, Starts};
use crate::statistics;
use dirty_code::Loop;

/// Parts of the cache: clean regions are dense, so that they share cache lines and pages with each other only.
const DIRTY_START: u64 = CACHE_START + 0x2000_0000;
pub const COLD_START: u64 = CACHE_START + 0x2800_0000;

const LARGE_PAGE: u64 = 2 << 20;

/// A part is filled from the end of its first large page on, which is given in small ones: a large one would stay empty in small programs.
const fn begin(part: u64) -> u64 {
    part + LARGE_PAGE - (512 << 10)
}

/// Is this host address in a dirty region?
pub fn is_dirty_code(host: u64) -> bool {
    (DIRTY_START..COLD_START).contains(&host)
}

/// Bytes of the indirect entry in front of the body (`mov rcx, fs:[slot 0]`).
pub const INDIRECT_ENTRY: u64 = 9;

/// What `renewal` resets is its to see.
pub struct Cache {
    /// Free space of the three parts: clean code, dirty code, cold code.
    pub(crate) hot: Room,
    pub(crate) dirty_hot: Room,
    pub(crate) cold: Room,
    pub(crate) regions: Regions,
    pub(crate) pages: Pages,
    /// Which region translates an address: low code, high code.
    pub(crate) starts: Starts,
    pub(crate) high: BTreeMap<u64, u32>,
    /// Translations of replaced functions' own code: program address to body.
    pub(crate) originals: BTreeMap<u64, u64>,
    /// Dirty translations by program address.
    pub(crate) dirty: BTreeMap<u64, Found>,
    /// Memory accesses of cold code that may fault, and where the program goes on then.
    pub(crate) probes: BTreeMap<u64, u64>,
    /// Cells of ends of dirty regions that were given an address. Before, they hold that of the code behind them.
    cells: Vec<u64>,
    /// Where loops of dirty code begin, and what they were made of: [start, end), and their beginning. Where they lie: [start, end).
    pub(crate) loops: BTreeMap<u64, Loop>,
    pub(crate) loop_code: Vec<(u64, u64, u64)>,
    pub(crate) loop_pieces: Vec<(u64, u64)>,
    /// Runs of copies by program address; none if there is no such run.
    pub(crate) copies: BTreeMap<u64, Option<u64>>,
    pub(crate) plans: Option<Plans>,
    pub(crate) translator: Option<Translator>,
    /// Routines of kept dirty regions.
    pub(crate) old_routines: Vec<u64>,
    /// Nothing is given back before so many bytes are made, nor while so many other processes live in this memory.
    pub(crate) not_before: u64,
    pub(crate) sharers: u32,
}

pub static CACHE: Lock<Cache> = Lock::new(Cache {
    hot: Room::new(begin(CACHE_START), DIRTY_START),
    dirty_hot: Room::new(begin(DIRTY_START), COLD_START),
    cold: Room::new(begin(COLD_START), CACHE_END),
    regions: Regions::new(begin(CACHE_START), begin(DIRTY_START)),
    pages: Pages::new(),
    starts: Starts::new(),
    high: BTreeMap::new(),
    originals: BTreeMap::new(),
    dirty: BTreeMap::new(),
    probes: BTreeMap::new(),
    cells: Vec::new(),
    loops: BTreeMap::new(),
    loop_code: Vec::new(),
    loop_pieces: Vec::new(),
    copies: BTreeMap::new(),
    plans: None,
    translator: None,
    old_routines: Vec::new(),
    not_before: 0,
    sharers: 0,
});

/// Program state at a host address inside a region.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub pc: u64,
    pub len: u8,
    /// The host address is at or before the program's own instruction.
    pub before_own: bool,
    /// Exactly at the first host instruction of this program instruction.
    pub at_start: bool,
    /// Exactly at the copied program instruction.
    pub at_own: bool,
    /// Register that is spilled here, and its slot.
    pub spilled: Option<(u8, usize)>,
    /// In dirty code that has its V bits in the shadow registers wherever an instruction begins: all of it but runs of copies.
    pub has_shadow: bool,
}

/// Map the cache and make the translator. Once.
pub fn init(stubs: Stubs, options: Options) -> bool {
    let mut cache = CACHE.lock();
    cache.translator = Some(Translator::new(stubs, options));
    let mapped = sys::map_fixed(CACHE_START, CACHE_END - CACHE_START, sys::PROT_READ | sys::PROT_WRITE | sys::PROT_EXEC);
    // Cold code is seldom run, and much of its first large page would stay empty.
    for (start, end, small) in [(CACHE_START, DIRTY_START, 1), (DIRTY_START, COLD_START, 1), (COLD_START, CACHE_END, 2)] {
        sys::will_be_dense(start + small * LARGE_PAGE, end - start - small * LARGE_PAGE);
    }
    mapped && starts::init() && pages::init()
}

pub(crate) fn table_entry(pc: u64) -> &'static AtomicU64 {
    // SAFETY: pc < CODE_END, so the entry lies in the V shadow of the forbidden range, which is mapped; 8-byte aligned up to the
    // distance's own alignment (a multiple of 64).
    unsafe { &*((V_DISTANCE + TABLE_DISPLACEMENT + 8 * pc) as *const AtomicU64) }
}

/// Host address of the body of the translation of `pc` if that is low code and in the branch table; without the lock.
pub fn lookup_low(pc: u64) -> Option<u64> {
    if pc >= CODE_END {
        return None;
    }
    match table_entry(pc).load(Ordering::Acquire) {
        0 => None,
        entry => Some(entry + INDIRECT_ENTRY),
    }
}

impl Cache {
    /// The region that translates `pc`.
    fn lookup(&self, pc: u64) -> Option<u32> {
        if pc < CODE_END { starts::is_marked(pc).then(|| self.starts.get(pc)).flatten() } else { self.high.get(&pc).copied() }
    }

    /// The body of the translation of `pc`; translates it now if need be. None: there is no code.
    pub fn find_or_translate(&mut self, pc: u64) -> Option<u64> {
        self.region_of(pc).map(|region| self.body(region))
    }

    /// Host address of a region's body.
    pub fn body(&self, region: u32) -> u64 {
        whole(self.regions.host(region) + INDIRECT_ENTRY)
    }

    /// As `find_or_translate`, for an indirect branch: the next one finds it in the branch table.
    pub fn find_for_indirect(&mut self, pc: u64) -> Option<u64> {
        let body = self.find_or_translate(pc)?;
        if pc < CODE_END {
            table_entry(pc).store(body - INDIRECT_ENTRY, Ordering::Release);
        } else {
            far::insert(pc, body - INDIRECT_ENTRY);
        }
        Some(body)
    }

    /// The region that translates `pc`, made now if need be. None: there is no code.
    pub fn region_of(&mut self, pc: u64) -> Option<u32> {
        if let Some(region) = self.lookup(pc) {
            return Some(region);
        }
        let mut translator = self.translator.take()?;
        let at = self.room(false);
        let view = View::new(&self.starts, &self.high, 0);
        let region = translator.translate(&view, pc, at);
        let keep = region.as_ref().is_some_and(|_| view.is_writable(pc));
        let probes = core::mem::take(&mut translator.probes);
        self.translator = Some(translator);
        let region = region?;
        if self.translator.as_ref().is_some_and(|t| t.conflict) {
            return self.give_up_private_vectors(pc);
        }
        self.heed_flags();
        self.probes.extend(probes.into_iter().map(|probe| (probe.host, probe.resume)));
        let index = self.publish(&region, pc, at, keep);
        self.take_back(region);
        Some(index)
    }

    fn take_back(&mut self, region: Region) {
        if let Some(translator) = &mut self.translator {
            translator.take_back(region);
        }
    }

    /// If the region just made reads flags behind a call, no code of what it calls may count on the contrary.
    pub(crate) fn heed_flags(&mut self) {
        let asked = self.translator.as_mut().and_then(|t| t.asks_flags_of.take());
        if let Some((start, len)) = asked.and_then(crate::flags::are_asked_of) {
            self.invalidate(start, len);
        }
    }

    /// The program uses AVX-512 although it is told that there is none: from now on without registers of our own. Code that is already
    /// there only reads them; it is forgotten, and wrong shadow that it may still write is no more than a missed report.
    fn give_up_private_vectors(&mut self, pc: u64) -> Option<u32> {
        if let Some(t) = &mut self.translator {
            (t.options.private_vectors, t.conflict) = (false, false);
        }
        crate::vectors::release();
        self.invalidate(0, memcheck_abi::layout::PROGRAM_END);
        self.region_of(pc)
    }

    /// The program forbids parts of its stack: code that counts on the stack pointer alone is forgotten, and what dirty code does in place is
    /// left to the interpreter.
    pub fn ask_on_stack(&mut self) {
        if let Some(t) = &mut self.translator {
            (t.options.ask_on_stack, t.options.pext) = (true, false);
        }
        self.invalidate(0, memcheck_abi::layout::PROGRAM_END);
    }

    /// The translation of a replaced function's own code. Only its first region is special; what it branches to is found as usual.
    pub fn find_original(&mut self, pc: u64) -> Option<u64> {
        if let Some(&body) = self.originals.get(&pc) {
            return Some(body);
        }
        let mut translator = self.translator.take()?;
        let at = self.room(false);
        let region = translator.translate(&View::new(&self.starts, &self.high, pc), pc, at);
        self.probes.extend(translator.probes.drain(..).map(|probe| (probe.host, probe.resume)));
        self.translator = Some(translator);
        let region = region?;
        self.heed_flags();
        let body = whole(at.hot + u64::from(region.body));
        self.place(&region, pc, at, false, false);
        self.take_back(region);
        self.originals.insert(pc, body);
        Some(body)
    }

    /// Put a region into the cache and make it the translation of `pc`.
    fn publish(&mut self, region: &Region, pc: u64, place: Place, keep_bytes: bool) -> u32 {
        let index = self.place(region, pc, place, keep_bytes, false);
        if pc < CODE_END {
            starts::mark(pc);
            self.starts.insert(pc, index);
        } else {
            self.high.insert(pc, index);
        }
        if region.calls && region.end < CODE_END {
            // A page of the table that is read first and written later faults twice.
            let _ = table_entry(region.end).compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        for exit in &region.exits {
            if let Some(target) = self.lookup(exit.target) {
                self.link(place.hot + u64::from(exit.patch), exit.stub, target);
            }
        }
        index
    }

    /// Where the next region goes.
    fn room(&mut self, dirty: bool) -> Place {
        let room = if dirty { &mut self.dirty_hot } else { &mut self.hot };
        Place { hot: room.next(16), cold: self.cold.next(1) }
    }

    /// The number of the new region.
    fn place(&mut self, region: &Region, pc: u64, place: Place, keep_bytes: bool, dirty: bool) -> u32 {
        let at = place.hot;
        let room = if dirty { &mut self.dirty_hot } else { &mut self.hot };
        let fits = [room.take(at + region.code.len() as u64), self.cold.take(place.cold + region.cold.len() as u64)];
        if fits != [true; 2] {
            report::internal("the code cache is full");
        }
        // SAFETY: both places are unused cache, and there is room.
        unsafe {
            core::ptr::copy_nonoverlapping(region.code.as_ptr(), at as *mut u8, region.code.len());
            core::ptr::copy_nonoverlapping(region.cold.as_ptr(), place.cold as *mut u8, region.cold.len());
        }
        let counter = if dirty { &statistics::DIRTY_REGIONS } else { &statistics::CLEAN_REGIONS };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if self.translator.as_mut().is_some_and(|t| core::mem::take(&mut t.frames_vary)) {
            memcheck_rt::callstack::frames_vary(region.start, region.end);
        }
        let bytes = keep_bytes.then(|| copy_code(region.start, region.end));
        debug_assert_eq!(region.start, pc, "a region begins with what it translates");
        let index = self.regions.push(region, place, bytes);
        self.file(index);
        index
    }

    /// Put a region into the list of its page.
    fn file(&mut self, region: u32) {
        let next = self.pages.begin(self.regions.get(region).pc, region);
        self.regions.set_next(region, next);
    }

    /// Let the branch whose rel32 is at `patch` go to a region.
    pub fn link(&mut self, patch: u64, stub: u64, region: u32) {
        debug_assert!(self.regions.get(region).alive, "only living regions are found");
        let body = self.body(region);
        debug_assert!((COLD_START..CACHE_END).contains(&stub) && (CACHE_START..COLD_START).contains(&patch), "a branch and its stub");
        self.regions.add_incoming(region, patch, stub);
        write_rel32(patch, body);
    }

    /// The check that ends at `host` leads straight to a run of copies from now on: that asks for itself what the slow check would ask.
    /// Checks that keep flags, and branches over the end of a cache line, stay as they are.
    pub fn lead_check(&mut self, host: u64, run: u64) {
        const JNE: [u8; 2] = [0x0f, 0x85];
        const LENGTH: u64 = 6;
        let (Some(index), Some(to)) = (self.regions.of_host(host), self.regions.of_host(run)) else { return };
        let start = self.body(index);
        // SAFETY: code of the region.
        let is_jne = |at: u64| at >= start && unsafe { *(at as *const [u8; 2]) } == JNE;
        if !is_jne(host - LENGTH) {
            return;
        }
        let stub = branch_target(host - LENGTH + 2);
        let mut at = host - LENGTH;
        while is_jne(at) && branch_target(at + 2) == stub && (COLD_START..CACHE_END).contains(&stub) {
            if (at + 2) % 64 <= 60 {
                self.link(at + 2, stub, to);
            }
            // The comparison in front of it, and another branch to the same stub?
            let Some(before) = (at.saturating_sub(24)..at - LENGTH).rev().find(|&at| is_jne(at) && branch_target(at + 2) == stub) else {
                return;
            };
            at = before;
        }
    }

    /// Where to go on after a fault of a rule's own access at this host address.
    pub fn after_probe(&self, host: u64) -> Option<u64> {
        self.probes.get(&host).copied()
    }

    /// The copied instruction whose check this host address is in, if it needs nothing from the check.
    pub fn own_instruction(&self, host: u64) -> Option<u64> {
        let region = self.regions.of_host(host)?;
        let start = self.regions.host(region);
        let at = (host - start) as u32;
        let x = self.regions.places(region).take_while(|x| x.host <= at).last()?;
        let needs = x.spilled != 0xff && x.own >= x.spill.0 && x.own < x.spill.1;
        (at < x.own && !needs).then_some(start + u64::from(x.own))
    }

    /// What a host address means.
    pub fn position(&self, host: u64) -> Option<Position> {
        if (COLD_START..CACHE_END).contains(&host) {
            // On the way from or to a region: no boundary, and nothing there faults.
            return Some(Position { pc: 0, len: 0, before_own: true, at_start: false, at_own: false, spilled: None, has_shadow: false });
        }
        let region = self.regions.of_host(host)?;
        let at = (host - self.regions.host(region)) as u32;
        let record = self.regions.get(region);
        let has_shadow = is_dirty_code(host) && self.copies.get(&record.pc) != Some(&Some(self.body(region)));
        let Some(x) = self.regions.places(region).take_while(|x| x.host <= at).last() else {
            return Some(Position {
                pc: record.pc,
                len: 0,
                before_own: true,
                at_start: at == 0,
                at_own: false,
                spilled: (at == 0).then_some((1, 0)),
                has_shadow,
            });
        };
        let spilled = (x.spilled != 0xff && at >= x.spill.0 && at < x.spill.1).then_some(if x.spilled & 0x80 != 0 {
            (x.spilled & 0x7f, 0)
        } else {
            (x.spilled, 6)
        });
        Some(Position {
            pc: record.pc.wrapping_add(i64::from(x.pc) as u64),
            len: x.len,
            before_own: at <= x.own,
            at_start: at == x.host,
            at_own: at == x.own,
            spilled,
            has_shadow,
        })
    }

    /// Forget every translation of code in [start, start + len).
    pub fn invalidate(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        if len == 0 {
            return;
        }
        self.forget_loops(start, end);
        for first in self.pages.take(start, end) {
            let mut next = Some(first);
            while let Some(index) = next {
                next = self.regions.next(index);
                let r = self.regions.get(index);
                if !r.alive {
                    continue;
                }
                if r.pc < end && start < r.end() {
                    self.kill(index);
                } else {
                    self.file(index);
                }
            }
        }
    }

    /// The indirect branch in the region at this host address goes to high code: it is translated anew, so that it can.
    pub fn branch_goes_far(&mut self, host: u64) {
        if let (Some(p), Some(index)) = (self.position(host), self.regions.of_host(host)) {
            far::mark(p.pc);
            if self.regions.get(index).alive {
                self.kill(index);
            }
        }
    }

    /// The region is dead; the branches to it are not linked any more.
    pub(crate) fn unlink(&mut self, index: u32) {
        let host = self.regions.host(index);
        self.regions.kill(index, |patch, stub| {
            debug_assert_eq!(branch_target(patch), host + INDIRECT_ENTRY, "a linked branch leads to its region");
            write_rel32(patch, stub);
        });
    }

    fn kill(&mut self, index: u32) {
        let (pc, host) = (self.regions.get(index).pc, self.regions.host(index));
        self.unlink(index);
        self.originals.remove(&pc);
        self.copies.remove(&pc);
        if self.dirty.remove(&pc).is_some() {
            crate::dirty::forget();
            self.loops.remove(&pc);
            self.forget_cells();
        }
        if self.lookup(pc) != Some(index) {
            return;
        }
        if pc < CODE_END {
            self.starts.remove(pc);
            let _ = table_entry(pc).compare_exchange(host, 0, Ordering::AcqRel, Ordering::Relaxed);
        } else {
            self.high.remove(&pc);
            far::remove(pc);
        }
    }

    /// Has the code of the region around this host address changed since it was translated (`surely`: its own comparison says so)?
    /// Then it is invalidated.
    pub fn recheck(&mut self, host: u64, surely: bool) -> bool {
        let Some(index) = self.regions.of_host(host) else { return false };
        let r = self.regions.get(index);
        let (pc, end, alive) = (r.pc, r.end(), r.alive);
        let changed = match self.regions.code(index) {
            _ if surely => true,
            Some(bytes) => *bytes != *copy_code(pc, end),
            None => !alive,
        };
        if changed && alive {
            self.kill(index);
        }
        changed
    }
}

/// A copy of program code.
fn copy_code(start: u64, end: u64) -> Box<[u8]> {
    let mut bytes = alloc::vec![0u8; (end - start) as usize].into_boxed_slice();
    sys::read_guarded(start, &mut bytes);
    bytes
}

/// Where the branch with its rel32 at `patch` goes.
fn branch_target(patch: u64) -> u64 {
    // SAFETY: `patch` lies in the code cache.
    let rel = unsafe { (*(patch as *const AtomicU32)).load(Ordering::Acquire) };
    (patch + 4).wrapping_add(i64::from(rel as i32) as u64)
}

/// Point the rel32 at `patch` to `target`. One aligned-enough store: the translator keeps it inside a cache line.
fn write_rel32(patch: u64, target: u64) {
    let rel = target.wrapping_sub(patch + 4) as u32;
    // SAFETY: `patch` lies in the code cache; other threads see the old or the new branch.
    unsafe { (*(patch as *const AtomicU32)).store(rel, Ordering::Release) };
}
