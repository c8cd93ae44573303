//! Entry points by name: where an object defines `malloc`, `strlen`, `operator new` and the like.
//!
//! This is asked at every library load, so it is separate from the symbolizer: the file is mapped, its two symbol
//! tables are read once from front to back, and nothing is kept. Debug files are not consulted.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use goblin::elf::section_header::SHF_EXECINSTR;
use goblin::elf::sym::{STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STV_HIDDEN, STV_INTERNAL, Sym};

use crate::elf::Elf;
use crate::image;
use crate::symbols::{Origin, Versions, for_each_symbol, is_defined};

/// A function definition that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSymbol {
    /// Without version.
    pub name: String,
    pub version: Option<String>,
    /// `name@@VERSION` (or no version at all): what a newly linked program gets.
    pub default_version: bool,
    /// ELF address; add the load bias.
    pub value: u64,
    /// Bytes; 0 if the file does not say.
    pub size: u64,
    /// The value is a resolver that returns the function.
    pub is_ifunc: bool,
    /// Other objects can bind to it: in .dynsym, not local, not hidden.
    pub is_global_dynamic: bool,
}

/// All functions of the file at `path` whose unversioned name is `wanted`, sorted by address, each (name, address,
/// version) once. Fails only if the file cannot be read as ELF at all.
pub fn find_functions(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<FoundSymbol>> {
    let map = image::open_briefly(path)?;
    let elf = Elf::parse(&map).with_context(|| path.display().to_string())?;
    Ok(find_in(&elf, wanted))
}

fn find_in(elf: &Elf<'_>, wanted: &dyn Fn(&str) -> bool) -> Vec<FoundSymbol> {
    let versions = Versions::read(elf);
    let mut found: HashMap<(String, u64, Option<String>), FoundSymbol> = HashMap::new();
    for_each_symbol(elf, |symbol, name, origin| {
        let Ok(name) = std::str::from_utf8(name) else {
            return;
        };
        let (name, version, default_version) = split_version(name);
        if !is_function(elf, &symbol) || !wanted(name) {
            return;
        }
        let (version, default_version) = match origin {
            Origin::Static => (version.map(str::to_owned), default_version),
            Origin::Dynamic { index } => match versions.of(index) {
                Some((version, is_default)) => (Some(String::from_utf8_lossy(version).into_owned()), is_default),
                None => (None, true),
            },
        };
        let is_global_dynamic = matches!(origin, Origin::Dynamic { .. })
            && symbol.st_bind() != STB_LOCAL
            && !matches!(symbol.st_visibility(), STV_HIDDEN | STV_INTERNAL);
        let entry = found.entry((name.to_owned(), symbol.st_value, version.clone())).or_insert_with(|| FoundSymbol {
            name: name.to_owned(),
            version,
            default_version,
            value: symbol.st_value,
            size: 0,
            is_ifunc: false,
            is_global_dynamic: false,
        });
        entry.size = entry.size.max(symbol.st_size);
        entry.is_ifunc |= symbol.st_type() == STT_GNU_IFUNC;
        entry.is_global_dynamic |= is_global_dynamic;
    });
    let mut found = without_bare_twins(found.into_values().collect());
    found.sort_by(|a, b| (a.value, &a.name, &a.version).cmp(&(b.value, &b.name, &b.version)));
    found
}

/// .symtab often lists a versioned dynamic symbol again without its version: the same definition, said worse.
fn without_bare_twins(found: Vec<FoundSymbol>) -> Vec<FoundSymbol> {
    let has_twin = |bare: &FoundSymbol| {
        bare.version.is_none() && found.iter().any(|other| other.version.is_some() && other.value == bare.value && other.name == bare.name)
    };
    let keep: Vec<bool> = found.iter().map(|symbol| !has_twin(symbol)).collect();
    found.into_iter().zip(keep).filter_map(|(symbol, keep)| keep.then_some(symbol)).collect()
}

/// `name@VERSION` and `name@@VERSION` into name, version, and whether it is the default one.
fn split_version(name: &str) -> (&str, Option<&str>, bool) {
    match name.split_once('@') {
        None => (name, None, true),
        Some((name, version)) => match version.strip_prefix('@') {
            Some(version) => (name, Some(version), true),
            None => (name, Some(version), false),
        },
    }
}

fn is_function(elf: &Elf<'_>, symbol: &Sym) -> bool {
    if !is_defined(symbol) {
        return false;
    }
    match symbol.st_type() {
        STT_FUNC | STT_GNU_IFUNC => true,
        // Assembly that forgot its `.type`.
        STT_NOTYPE => elf.sections.get(symbol.st_shndx).is_some_and(|section| section.header.sh_flags & u64::from(SHF_EXECINSTR) != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off() {
        assert_eq!(split_version("malloc"), ("malloc", None, true));
        assert_eq!(split_version("memcpy@@GLIBC_2.14"), ("memcpy", Some("GLIBC_2.14"), true));
        assert_eq!(split_version("memcpy@GLIBC_2.2.5"), ("memcpy", Some("GLIBC_2.2.5"), false));
    }

    #[test]
    fn bare_twins_go_but_other_addresses_stay() {
        let symbol = |value, version: Option<&str>| FoundSymbol {
            name: "free".to_owned(),
            version: version.map(str::to_owned),
            default_version: true,
            value,
            size: 1,
            is_ifunc: false,
            is_global_dynamic: false,
        };
        let kept = without_bare_twins(vec![symbol(1, None), symbol(1, Some("V")), symbol(2, None)]);
        assert_eq!(kept, [symbol(1, Some("V")), symbol(2, None)]);
    }
}
