//! Dirty translations in the cache: regions, the loops and runs of copies made of them, and the cells that lead from one to the next.
//!
//! ```text
//! dirty region --cell--> dirty region          once the target is known; before, to the code behind the cell
//!              --cell--> loop                  if it goes back there often enough
//! check of a load ------> run of copies        `lead_check`
//! ```
//! A cell is forgotten when anything that it may lead to is.
#![allow(unsafe_code, reason = "writes code and cells")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use memcheck_translate::Program;
use memcheck_translate::loops::Entry;

use super::Cache;
use crate::dirty::{Found, Plans};
use crate::program::View;
use crate::renewal::whole;

/// A loop in dirty code.
#[derive(Clone, Copy)]
pub(crate) enum Loop {
    /// So many times.
    Seen(u32),
    /// Its code.
    Made(u64),
}

/// Rounds in which a loop is looked at before it is made.
const LOOP_ROUNDS: u32 = 12;

/// A cell of `link_dirty`.
fn cell_at(cell: u64) -> &'static AtomicU64 {
    // SAFETY: the translator made it, in the code cache and aligned.
    unsafe { &*(cell as *const AtomicU64) }
}

impl Cache {
    /// The dirty translation of `pc`, made now if need be, and the registers that are dead there.
    pub fn find_dirty(&mut self, pc: u64) -> Option<Found> {
        if let Some(&found) = self.dirty.get(&pc) {
            return Some(found);
        }
        let mut translator = self.translator.take()?;
        let at = self.room(true);
        let mut plans = self.plans_for(at.cold);
        let view = View::new(&self.starts, &self.high, pc);
        let region = translator.translate_dirty(&view, pc, at, &mut plans);
        let keep = view.is_writable(pc);
        self.probes.extend(translator.probes.drain(..).map(|probe| (probe.host, probe.resume)));
        (self.translator, self.plans) = (Some(translator), Some(plans));
        let region = region?;
        self.heed_flags();
        let body = whole(at.hot + u64::from(region.body));
        self.place(&region, pc, at, keep, true);
        let (dead, stale) = crate::dirty::dead_at(pc, region.end);
        self.take_back(region);
        self.dirty.insert(pc, (body, dead, stale));
        Some((body, dead, stale))
    }

    /// For dirty code with its cold part there.
    fn plans_for(&mut self, cold: u64) -> Plans {
        let mut plans = self.plans.take().unwrap_or_default();
        plans.at(cold);
        plans
    }

    /// Let the end of a dirty region whose cell this is go to `host`, the dirty code of `pc`; if it goes back, with these registers dirty, to
    /// the code of the loop there.
    pub fn link_dirty(&mut self, cell: u64, pc: u64, host: u64, back: Option<u64>) {
        if self.dirty.get(&pc).is_none_or(|found| found.0 != host) {
            return;
        }
        let code = match back {
            Some(dirty) => match self.find_loop(Entry { pc, returns_to: None, dirty, region: host }) {
                Some(code) => code,
                None => return,
            },
            None => host,
        };
        cell_at(cell).store(code, Ordering::Release);
        self.cells.push(cell);
    }

    /// The code of the loop there, made when it has come round a few times; the dirty region if it is no such loop. None: too early.
    pub fn find_loop(&mut self, entry: Entry) -> Option<u64> {
        let Entry { pc, region, .. } = entry;
        let seen = self.loops.entry(pc).or_insert(Loop::Seen(0));
        match *seen {
            Loop::Made(code) => return Some(code),
            Loop::Seen(n) if n < LOOP_ROUNDS => {
                *seen = Loop::Seen(n + 1);
                return None;
            }
            Loop::Seen(_) => {}
        }
        let mut translator = self.translator.take()?;
        let at = whole(self.cold.next(64));
        let mut plans = self.plans_for(at);
        let code = translator.translate_loop(&View::new(&self.starts, &self.high, pc), entry, at, &mut plans);
        self.probes.extend(translator.probes.drain(..).map(|probe| (probe.host, probe.resume)));
        (self.translator, self.plans) = (Some(translator), Some(plans));
        let host = match code {
            Some((code, spans)) if self.cold.take(at + code.len() as u64) => {
                // SAFETY: [at, at + its length) is unused cache.
                unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) };
                self.loop_pieces.push((at, at + code.len() as u64));
                for (start, end) in spans {
                    self.loop_code.push((start, end, pc));
                }
                at
            }
            _ => region,
        };
        self.loops.insert(pc, Loop::Made(host));
        Some(host)
    }

    /// The run of copies that begins at `pc`, made now if there is one; `region`: the dirty region there.
    pub fn find_copies(&mut self, pc: u64, region: u64) -> Option<u64> {
        if let Some(&known) = self.copies.get(&pc) {
            return known;
        }
        let mut translator = self.translator.take()?;
        let at = self.room(true);
        let mut plans = self.plans_for(at.cold);
        let made = translator.translate_copies(&View::new(&self.starts, &self.high, pc), pc, at, &mut plans, region);
        (self.translator, self.plans) = (Some(translator), Some(plans));
        let body = made.map(|made| {
            self.heed_flags();
            let body = whole(at.hot + u64::from(made.body));
            self.place(&made, pc, at, false, true);
            self.take_back(made);
            body
        });
        self.copies.insert(pc, body);
        body
    }

    /// Code in [start, end) is gone: so are the loops made of it.
    pub(super) fn forget_loops(&mut self, start: u64, end: u64) {
        let Cache { loop_code, loops, .. } = self;
        let gone: Vec<u64> = loop_code.iter().filter(|c| c.0 < end && start < c.1).map(|c| c.2).collect();
        for pc in &gone {
            loops.remove(pc);
        }
        if !gone.is_empty() {
            loop_code.retain(|c| !gone.contains(&c.2));
            crate::dirty::forget();
            self.forget_cells();
        }
    }

    pub(crate) fn forget_cells(&mut self) {
        for cell in self.cells.drain(..) {
            cell_at(cell).store(cell + 8, Ordering::Release);
        }
    }
}
