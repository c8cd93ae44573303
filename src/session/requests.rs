//! What the program asks of memcheck, answered from what the session knows; and the functions that it is made to call at its end.

use memcheck_abi::event::{Redirect, at_exit};
use memcheck_report::options::Options;
use memcheck_symbolize::FoundSymbol;

use super::wanted::Role;
use super::watched::Watched;

/// Functions by which libraries give back memory that they keep until the end, and the objects that have them.
const AT_EXIT: [(&str, Role, u32); 2] = [
    ("__libc_freeres", Role::Libc, at_exit::LIBC_FREERES),
    ("_ZN9__gnu_cxx9__freeresEv", Role::Library, at_exit::CXX_FREERES),
];

pub fn is_called_at_exit(name: &str) -> bool {
    AT_EXIT.iter().any(|row| row.0 == name)
}

/// Those of an object.
pub fn called_at_exit(role: Role, symbols: &[FoundSymbol], bias: u64) -> Vec<Redirect> {
    let named = |row: &(&str, Role, u32)| symbols.iter().find(|symbol| symbol.name == row.0 && symbol.value != 0);
    let rows = AT_EXIT.iter().filter(|row| row.1 == role);
    rows.filter_map(|row| Some(Redirect { addr: named(row)?.value.wrapping_add(bias), func: row.2, resolver: 0 })).collect()
}

/// Does the user want this one to be called?
pub fn is_wanted(redirect: &Redirect, options: &Options) -> bool {
    match redirect.func {
        at_exit::LIBC_FREERES => options.run_libc_freeres,
        at_exit::CXX_FREERES => options.run_cxx_freeres,
        _ => true,
    }
}

impl Watched {
    /// Sums of the last leak search: definite and indirect, possible, reachable, suppressed.
    pub fn leak_counts(&self, blocks: bool) -> [u64; 4] {
        let totals = self.reporter.last_leaks();
        let mut definite = totals.definite;
        definite.add(totals.indirect);
        [definite, totals.possible, totals.reachable, totals.suppressed].map(|tally| if blocks { tally.blocks } else { tally.bytes })
    }

    /// "file:line" of a code address.
    pub fn source_line(&mut self, addr: u64) -> Option<String> {
        let frame = self.modules.symbolizer.frames(addr).into_iter().next()?;
        Some(format!("{}:{}", frame.file?, frame.line?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_clean_up() {
        let symbol = FoundSymbol {
            name: "__libc_freeres".into(),
            version: Some("GLIBC_PRIVATE".into()),
            default_version: true,
            value: 0x100,
            size: 1,
            is_ifunc: false,
            is_global_dynamic: true,
        };
        let found = called_at_exit(Role::Libc, std::slice::from_ref(&symbol), 0x7000);
        assert_eq!(found.iter().map(|r| (r.addr, r.func)).collect::<Vec<_>>(), [(0x7100, at_exit::LIBC_FREERES)]);
        assert!(called_at_exit(Role::Executable, &[symbol], 0).is_empty());
        assert!(is_wanted(&found[0], &Options::default()));
        assert!(!is_wanted(&found[0], &Options { run_libc_freeres: false, ..Options::default() }));
    }
}
