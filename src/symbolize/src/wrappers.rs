//! Functions that programs annotated with `valgrind.h` bring along to take the place of others: `_vgr00000ZU_NONE_f` replaces `f` in the
//! executable, `_vgw00000ZZ_libmpiZdsoZa_g` wraps `g` in every library `libmpi.so*`.
//!
//! ```text
//!   _vg  r  00000  Z U  _  NONE  _  f
//!        │  │        │     │        └ function, encoded if the letter before is Z
//!        │  │        │     └ soname, always encoded; NONE: the object has none
//!        │  │        └ U: the function's name is as it is, Z: encoded
//!        │  └ priority, which nobody here needs
//!        └ r: replaces, w: wraps (and calls what it wraps)
//! ```
//!
//! In the encoding `Z` and a letter stand for a character that names cannot have.

/// What such a function takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// A glob.
    pub soname: String,
    pub function: String,
}

/// Does it look like one? Cheap: asked of every symbol.
pub fn is_wrapper(name: &str) -> bool {
    name.starts_with("_vgr") || name.starts_with("_vgw")
}

pub fn wrapped(name: &str) -> Option<Wrapped> {
    let rest = name.strip_prefix("_vgr").or_else(|| name.strip_prefix("_vgw"))?;
    let priority = rest.get(..5).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let rest = rest[priority.len()..].strip_prefix('Z')?;
    let is_encoded = match rest.get(..2)? {
        "Z_" => true,
        "U_" => false,
        _ => return None,
    };
    let (soname, function) = rest[2..].split_once('_')?;
    let function = if is_encoded { decode(function)? } else { function.to_owned() };
    Some(Wrapped { soname: decode(soname)?, function })
}

fn decode(text: &str) -> Option<String> {
    const LETTERS: [(char, char); 13] = [
        ('a', '*'),
        ('c', ':'),
        ('d', '.'),
        ('u', '_'),
        ('h', '-'),
        ('p', '+'),
        ('s', ' '),
        ('S', '/'),
        ('A', '@'),
        ('D', '$'),
        ('L', '('),
        ('R', ')'),
        ('Z', 'Z'),
    ];
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            'Z' => {
                let letter = chars.next()?;
                LETTERS.iter().find(|(from, _)| *from == letter)?.1
            }
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_replace() {
        let of = |name: &str| wrapped(name).map(|w| (w.soname, w.function));
        let is = |soname: &str, function: &str| Some((soname.to_owned(), function.to_owned()));
        assert_eq!(of("_vgr00000ZU_NONE_zend_string_equal_val"), is("NONE", "zend_string_equal_val"));
        assert_eq!(of("_vgw00000ZZ_libmpiZdsoZa_PMPIZuSend"), is("libmpi.so*", "PMPI_Send"));
        for name in ["main", "_vgr", "_vgr0000ZU_NONE_f", "_vgr00000ZX_NONE_f", "_vgr00000ZU_NONE", "_vgr00000ZZ_NONE_aZ", "_vgrüüüZU_N_f"]
        {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
