//! Words of commands: a word, or so much of it that only one of those that may stand there begins like that.
//!
//! The lists are texts, as they are printed after a word that is in none of them.

/// What a word stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<'a> {
    One(&'a str),
    None,
    Several,
}

/// `word` in `list`; nothing at all may stand for everything.
pub fn find<'a>(list: &'a str, word: &str) -> Found<'a> {
    if word.is_empty() {
        return Found::Several;
    }
    let mut like = list.split_whitespace().filter(|known| known.starts_with(word));
    match (list.split_whitespace().find(|known| *known == word), like.next(), like.next()) {
        (Some(known), ..) | (None, Some(known), None) => Found::One(known),
        (None, None, _) => Found::None,
        _ => Found::Several,
    }
}

/// What is said of a word that stands for several.
pub fn several(list: &str, word: &str) -> String {
    let like: Vec<&str> = list.split_whitespace().filter(|known| known.starts_with(word)).collect();
    format!("{} can match {}", if word.is_empty() { "<empty string>" } else { word }, like.join(" "))
}

/// The word, or the complaint about it.
pub fn choose<'a>(list: &'a str, word: &str) -> Result<&'a str, String> {
    match find(list, word) {
        Found::One(known) => Ok(known),
        Found::None => Err(format!("{word} does not match any of '{list}'")),
        Found::Several => Err(several(list, word)),
    }
}

pub const NO_ADDRESS: &str = "missing or malformed address";

/// `0x1000`, `0x1000 16`, `0x1000[16]`: an address, and 1 or the number of bytes from there on.
pub fn range(words: &[&str]) -> Result<(u64, u64), String> {
    let (addr, len) = match words {
        [] => return Err(NO_ADDRESS.to_owned()),
        [word, rest @ ..] => match word.strip_suffix(']').and_then(|word| word.split_once('[')) {
            Some((addr, len)) => (addr, Some(len)),
            None => (*word, rest.first().copied()),
        },
    };
    let addr = addr.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(NO_ADDRESS)?;
    let len = len.map_or(Some(1), integer).ok_or("malformed integer, expecting hex 0x..... or dec ...... or binary 0b.....")?;
    Ok((addr, len))
}

/// Base 16 or 2 with a prefix, else 10.
pub fn integer(word: &str) -> Option<u64> {
    match (word.strip_prefix("0x"), word.strip_prefix("0b")) {
        (Some(digits), _) => u64::from_str_radix(digits, 16).ok(),
        (_, Some(digits)) => u64::from_str_radix(digits, 2).ok(),
        _ => word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_stand_for_the_only_word_that_has_them() {
        const LIST: &str = "all_errors last_error location x xb ";
        assert_eq!(find(LIST, "all"), Found::One("all_errors"));
        assert_eq!(find(LIST, "x"), Found::One("x"), "itself rather than the longer one");
        assert_eq!(choose(LIST, "l").unwrap_err(), "l can match last_error location");
        assert_eq!(choose(LIST, "foo").unwrap_err(), "foo does not match any of 'all_errors last_error location x xb '");
        assert_eq!(choose("one", "").unwrap_err(), "<empty string> can match one");
    }

    #[test]
    fn ranges() {
        assert_eq!(range(&["0x1f"]), Ok((0x1f, 1)));
        assert_eq!(range(&["0x1f", "0x10"]), Ok((0x1f, 16)));
        assert_eq!(range(&["0x1f[12]"]), Ok((0x1f, 12)));
        for bad in [&[][..], &["10"], &["0xzz"], &["0x"]] {
            assert_eq!(range(bad), Err(NO_ADDRESS.to_owned()), "{bad:?}");
        }
        assert!(range(&["0x1f", "-1"]).is_err_and(|why| why.starts_with("malformed integer")));
    }
}
