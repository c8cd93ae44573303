//! From an address in a traced process to names: function, source line, inlined functions, variable, section.
//!
//! ```text
//!   symbolizer   address -> module -> object; caches, unloaded modules, replaced functions
//!   object       one ELF file: who answers what, and how names are put together
//!   ├ symbols    symbol tables: the best name per address
//!   ├ dwarf      lines and inlined functions
//!   ├ variables  locals, members and elements by address (types: their sizes)
//!   └ debugfile  where the debug information is when it is not in the object
//!   room         which instruction of a function makes room for its locals
//!   elf, image   headers and sections; mapped files
//!   functions    entry points by name, for the redirect table; independent of the rest
//!   demangle     readable and printable names (cplusplus: the GNU spelling of C++ ones)
//!   wrappers     names of functions that take the place of others
//! ```
//!
//! The files read here are chosen by the traced program, and so are hostile until proven otherwise: nothing panics,
//! loops or grows without bound on a damaged file; the answer gets poorer instead. "Not known" is an answer (`None`),
//! not a failure. Nothing here knows what a finding is or how it is printed.

mod cplusplus;
mod debugfile;
mod demangle;
mod dwarf;
mod elf;
mod functions;
mod image;
mod object;
mod room;
mod symbolizer;
mod symbols;
mod types;
mod variables;
mod wrappers;

use std::path::PathBuf;

pub use elf::{ElfLayout, elf_layout};
pub use functions::{FoundSymbol, find_functions};
pub use symbolizer::{Module, Symbolizer};
pub use variables::Variable;
pub use wrappers::{Wrapped, is_wrapper, wrapped};

/// What users can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Make C++ and Rust names readable in `function` (`raw_name` never is). `--demangle`
    pub demangle: bool,
    /// Give inlined functions frames of their own. `--read-inline-info`
    pub inline: bool,
    /// Where to look for separate debug files first. `--extra-debuginfo-path`
    pub extra_debug_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { demangle: true, inline: true, extra_debug_dir: None }
    }
}

/// One line of a stack. All text is safe to print (control characters are escaped).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// As asked for; inlined frames share it with the function around them.
    pub addr: u64,
    /// Name to show. Inlined functions have their plain source name (`push_back`).
    pub function: Option<String>,
    /// Name for suppressions: as in the symbol table, mangled, possibly with `@@VERSION`.
    pub raw_name: Option<String>,
    /// Name of the source file as the compiler recorded it; it may begin with directories.
    pub file: Option<String>,
    /// Its directory, as the compiler recorded it (usually absolute).
    pub dir: Option<String>,
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
    pub object: Option<PathBuf>,
    /// Inlined into the function of the next frame.
    pub inlined: bool,
    /// Line where the function starts.
    pub function_line: Option<u32>,
    /// The name was given to the address by [`Symbolizer::add_synthetic`].
    pub synthetic: bool,
}

/// A variable known to the symbol table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSymbol {
    pub name: String,
    /// Mangled, as Valgrind prints it in `data symbol "…"`.
    pub raw_name: String,
    /// Of the address asked for, in bytes from the start of the variable.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    pub object: PathBuf,
}
