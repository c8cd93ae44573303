//! What the program asks of memcheck, answered from what the session knows; and the functions of its libraries that it is made to call.

use memcheck_abi::event::{Redirect, needed};
use memcheck_abi::replace::Func;
use memcheck_report::options::Options;
use memcheck_symbolize::FoundSymbol;

use super::wanted::Role;
use super::watched::Watched;

/// The functions, and the kinds of objects in which they are looked for.
const NEEDED: [(&str, &[Role], u32); 4] = [
    ("__libc_freeres", &[Role::Libc], needed::LIBC_FREERES),
    ("_ZN9__gnu_cxx9__freeresEv", &[Role::Library], needed::CXX_FREERES),
    ("__chk_fail", &[Role::Libc, Role::StaticExecutable], needed::CHK_FAIL),
    ("__errno_location", &[Role::Libc, Role::StaticExecutable], needed::ERRNO_LOCATION),
];

pub fn is_needed(name: &str) -> bool {
    NEEDED.iter().any(|row| row.0 == name)
}

/// Those of an object.
pub fn needed_of(role: Role, symbols: &[FoundSymbol], bias: u64) -> Vec<Redirect> {
    let rows = NEEDED.iter().filter(|row| row.1.contains(&role));
    let found = rows.filter_map(|row| Some((symbols.iter().find(|symbol| symbol.name == row.0 && symbol.value != 0)?, row.2)));
    found.map(|(symbol, func)| Redirect { addr: symbol.value.wrapping_add(bias), func, ..Redirect::default() }).collect()
}

/// Does the user want this one to be called?
pub fn is_wanted(redirect: &Redirect, options: &Options) -> bool {
    match redirect.func {
        needed::LIBC_FREERES => options.run_libc_freeres,
        needed::CXX_FREERES => options.run_cxx_freeres,
        _ => true,
    }
}

/// A call of an allocation function, in the words of `--trace-malloc`.
pub fn traced_call(func: Func, [first, second]: [u64; 2], block: u64) -> String {
    let name = func.name();
    match func {
        Func::realloc if first == 0 => format!("malloc({second}) = 0x{block:X}"),
        Func::realloc => format!("realloc(0x{first:X},{second}) = 0x{block:X}"),
        Func::reallocarray => format!("reallocarray(0x{first:X},{second}) = 0x{block:X}"),
        Func::calloc => format!("calloc({first},{second}) = 0x{block:X}"),
        Func::memalign | Func::aligned_alloc | Func::posix_memalign => format!("memalign(al {first}, size {second}) = 0x{block:X}"),
        Func::valloc | Func::pvalloc => format!("memalign(al 4096, size {first}) = 0x{block:X}"),
        _ if name.starts_with("_Zn") && name.contains("align_val_t") => format!("{name}(size {first}, al {second}) = 0x{block:X}"),
        _ if name == "malloc" || name.starts_with("_Zn") => format!("{name}({first}) = 0x{block:X}"),
        _ => format!("{name}(0x{first:X})"),
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
    fn functions_of_libraries() {
        let symbol = FoundSymbol {
            name: "__libc_freeres".into(),
            version: Some("GLIBC_PRIVATE".into()),
            default_version: true,
            value: 0x100,
            size: 1,
            is_ifunc: false,
            is_global_dynamic: true,
        };
        let found = needed_of(Role::Libc, std::slice::from_ref(&symbol), 0x7000);
        assert_eq!(found.iter().map(|r| (r.addr, r.func)).collect::<Vec<_>>(), [(0x7100, needed::LIBC_FREERES)]);
        assert!(needed_of(Role::Executable, &[symbol], 0).is_empty());
        let mut options = Options::default();
        assert!(is_wanted(&found[0], &options));
        options.run_libc_freeres = false;
        assert!(!is_wanted(&found[0], &options));
    }
}
