//! Regions by the page of the program in which their code begins, for code that is gone or changed.
//!
//! ```text
//! page of low code  -> word at `PAGES` + 4 * page   -> region -> next region that begins there -> ...
//! page of high code -> `high`                       -> the same
//! ```
//! A region is shorter than a page: one that reaches into a page begins there or in the page before. The regions hold the lists together
//! (`Regions::next`).
#![allow(unsafe_code, reason = "the words lie at a fixed place")]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use memcheck_abi::layout::{CODE_END, PAGES, PAGES_END};
use memcheck_rt::sys;

const LOW_PAGES: u64 = CODE_END >> 12;
const _: () = assert!(PAGES + 4 * LOW_PAGES <= PAGES_END, "a word for every page");

/// Map the words. Once, before any region is made.
pub fn init() -> bool {
    sys::map_fixed(PAGES, PAGES_END - PAGES, sys::PROT_READ | sys::PROT_WRITE)
}

/// The first region of every page, from 1 on; 0 = none.
pub struct Pages {
    high: BTreeMap<u64, u32>,
}

impl Pages {
    pub const fn new() -> Pages {
        Pages { high: BTreeMap::new() }
    }

    /// The first region of the page; the next one of `region`, if that takes its place.
    pub fn begin(&mut self, pc: u64, region: u32) -> Option<u32> {
        let head = self.head(pc >> 12);
        core::mem::replace(head, region + 1).checked_sub(1)
    }

    fn head(&mut self, page: u64) -> &mut u32 {
        if page >= LOW_PAGES {
            return self.high.entry(page).or_insert(0);
        }
        // SAFETY: the area is mapped and has a word for every page of low code; `self` is borrowed as long as the word.
        unsafe { &mut *((PAGES + 4 * page) as *mut u32) }
    }

    /// The first regions of all pages in which code of [start, end) may begin; the pages have none then.
    pub fn take(&mut self, start: u64, end: u64) -> Vec<u32> {
        let (first, last) = ((start >> 12).saturating_sub(1), (end - 1) >> 12);
        let low = first..(last + 1).min(LOW_PAGES);
        let mut firsts = Vec::new();
        for page in low {
            let head = self.head(page);
            // Most ranges have no code: the words are not written for nothing.
            if let Some(first) = head.checked_sub(1) {
                *head = 0;
                firsts.push(first);
            }
        }
        let high: Vec<u64> = self.high.range(first..=last).map(|(page, _)| *page).collect();
        firsts.extend(high.into_iter().filter_map(|page| self.high.remove(&page)?.checked_sub(1)));
        firsts
    }
}
