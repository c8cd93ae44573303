//! Trees of calls: documents that are written to files of their own, and a line about each.

use super::Reporter;
use super::run::TreeKind;
use crate::names::Names;
use crate::options::XtreeMemory;
use crate::render::xtree::leaks::{self, Loss};
use crate::render::xtree::memory::{self, Use};
use crate::render::xtree::{self, massif};

const LEAK: TreeKind = TreeKind { option: "--xtree-leak-file", what: "leak" };
const MEMORY: TreeKind = TreeKind { option: "--xtree-memory-file", what: "memory" };

/// A file name with this in it is for another reader.
const MASSIF: &str = ".ms";

impl Reporter {
    /// Losses of a search, for `--xtree-leak`.
    pub(super) fn leak_tree(&self, losses: Vec<Loss>, by_command: bool) {
        let document = || xtree::document(&self.start, &leaks::tree(losses), &self.options().frames);
        let said = self.run.write_tree(self.start.pid, &self.options().xtree_leak_file, LEAK, document);
        if by_command { self.message(&said) } else { self.remark(&said) }
    }

    /// The heap at exit, for `--xtree-memory`.
    pub fn memory_tree_at_exit(&mut self, uses: Vec<Use>, names: &mut dyn Names) {
        let said = self.write_memory_tree(&self.options().xtree_memory_file, uses, names);
        if self.is_text() && !self.silent {
            self.remark(&[""]);
            self.ending = true;
        }
        self.remark(&said);
    }

    /// The heap now, by command.
    pub fn memory_tree(&self, pattern: &str, uses: Vec<Use>, names: &mut dyn Names) {
        self.message(&self.write_memory_tree(pattern, uses, names));
    }

    /// Lines about the file.
    fn write_memory_tree(&self, pattern: &str, uses: Vec<Use>, names: &mut dyn Names) -> Vec<String> {
        let options = self.options();
        // What is asked for without the option is what can be known without it.
        let mode = if options.xtree_memory == XtreeMemory::Full { XtreeMemory::Full } else { XtreeMemory::Allocs };
        let named = uses.into_iter().map(|used| {
            let kept: Vec<u64> = self.kept_addresses(&used.addresses).collect();
            (used.costs, names.full(&kept))
        });
        let tree = memory::tree(mode, named);
        self.run.write_tree(self.start.pid, pattern, MEMORY, || match pattern.contains(MASSIF) {
            true => massif::document(&self.start, &tree, self.run.elapsed(), &options.frames),
            false => xtree::document(&self.start, &tree, &options.frames),
        })
    }
}
