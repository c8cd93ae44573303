//! Functions that take the place of others in a program, in the same object or in another one: what PHP has for a comparison that reads
//! whole words, what an MPI library's checker preloads to see every message. See `symbolize::wrappers` for their names.
//!
//! Objects come in any order, so both sides are kept: the takers that were seen, and the objects whose functions may be taken.

use std::path::{Path, PathBuf};

use memcheck_abi::event::{Redirect, needed};
use memcheck_report::suppress::pattern;
use memcheck_symbolize::{self as symbolize, FoundSymbol, Wrapped};

/// A function that takes the place of others.
struct Taker {
    wrapped: Wrapped,
    entry: u64,
}

/// An object whose functions may be taken.
struct Object {
    file: PathBuf,
    /// Executables have none, and are called so.
    soname: String,
    start: u64,
    end: u64,
    bias: u64,
}

#[derive(Default)]
pub struct Wrapping {
    takers: Vec<Taker>,
    objects: Vec<Object>,
}

impl Wrapping {
    /// An object appeared at `start..end`, whose `symbols` include its takers. The answer: which entries are taken from now on, in it or in
    /// objects that were there.
    pub fn appeared(
        &mut self,
        file: &Path,
        soname: Option<&str>,
        symbols: &[FoundSymbol],
        (start, end, bias): (u64, u64, u64),
    ) -> Vec<Redirect> {
        self.gone(start, end);
        let new = |symbol: &FoundSymbol| Some(Taker { wrapped: symbolize::wrapped(&symbol.name)?, entry: symbol.value.wrapping_add(bias) });
        let new: Vec<Taker> = symbols.iter().filter_map(new).collect();
        let object = Object { file: file.to_owned(), soname: soname.unwrap_or("NONE").to_owned(), start, end, bias };
        let mut taken: Vec<Redirect> = self.objects.iter().flat_map(|earlier| earlier.taken_by(&new)).collect();
        self.takers.extend(new);
        taken.extend(object.taken_by(&self.takers));
        self.objects.push(object);
        taken
    }

    /// Nothing of what was at `start..end` is there any more.
    pub fn gone(&mut self, start: u64, end: u64) {
        self.takers.retain(|taker| !(start..end).contains(&taker.entry));
        self.objects.retain(|object| object.end <= start || end <= object.start);
    }
}

impl Object {
    fn taken_by(&self, takers: &[Taker]) -> Vec<Redirect> {
        let takers: Vec<&Taker> = takers.iter().filter(|taker| pattern::matches(&taker.wrapped.soname, &self.soname)).collect();
        if takers.is_empty() {
            return Vec::new();
        }
        let taker = |name: &str| takers.iter().find(|taker| pattern::matches(&taker.wrapped.function, name));
        let wanted = |name: &str| !symbolize::is_wrapper(name) && taker(name).is_some();
        let found = symbolize::find_functions(&self.file, &wanted).unwrap_or_default();
        let redirect = |symbol: &FoundSymbol| {
            let target = taker(&symbol.name)?.entry;
            let is_function = symbol.value != 0 && !symbol.is_ifunc;
            is_function.then(|| Redirect { addr: symbol.value.wrapping_add(self.bias), func: needed::BY_PROGRAM, resolver: 0, target })
        };
        found.iter().filter_map(redirect).collect()
    }
}
