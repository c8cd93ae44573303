//! From the text after `=` to a value of the kind the option's row asks for, or the complaint Valgrind would make.

use super::table::{Kind, OptionRow};
use super::{UsageError, Voice};

/// A value that passed its row's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The option has none.
    Flag,
    Yes(bool),
    Number(i64),
    /// Index into the row's words.
    Word(usize),
    /// One bit per word of the row.
    Bits(u32),
    Text(String),
}

/// Setters take what their row's kind delivers; another variant cannot arrive, so it reads as the empty value.
impl Value {
    pub fn yes(self) -> bool {
        self == Value::Yes(true)
    }

    pub fn number(self) -> i64 {
        if let Value::Number(number) = self { number } else { 0 }
    }

    /// For rows whose minimum is not negative.
    pub fn unsigned(self) -> u64 {
        u64::try_from(self.number()).unwrap_or(0)
    }

    pub fn word(self) -> usize {
        if let Value::Word(index) = self { index } else { 0 }
    }

    pub fn bits(self) -> u32 {
        if let Value::Bits(bits) = self { bits } else { 0 }
    }

    pub fn text(self) -> String {
        if let Value::Text(text) = self { text } else { String::new() }
    }
}

/// Reads `text` as the row wants it. `None`: the option was given without `=`.
pub fn read(row: &OptionRow, text: Option<&str>, voice: Voice) -> Result<Value, UsageError> {
    let Some(text) = text else {
        return Ok(Value::Flag);
    };
    let bad = |why: &str| row.bad_value(Some(text), why, voice);
    match row.kind {
        Kind::Flag | Kind::Print(_) => Ok(Value::Flag),
        Kind::Text(_) | Kind::Explain => Ok(Value::Text(text.to_string())),
        Kind::Bool => match text {
            "yes" => Ok(Value::Yes(true)),
            "no" => Ok(Value::Yes(false)),
            _ => Err(bad(&format!("Invalid boolean value '{text}' (should be 'yes' or 'no')"))),
        },
        // Nothing at all is 0.
        Kind::Int { min, max } => in_range(row, text, if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() }, min, max, voice),
        Kind::Hex { min, max } => {
            let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
            let digits = digits.strip_prefix("0x").unwrap_or(digits);
            in_range(row, text, i64::from_str_radix(digits, 16).ok().map(|value| value * sign), min, max, voice)
        }
        Kind::Word(words) => {
            let index = words.iter().position(|word| *word == text);
            index.map(Value::Word).ok_or_else(|| UsageError::unknown_option(voice, &row.spelling(Some(text))))
        }
        Kind::WordOr(words, why) => words.iter().position(|word| *word == text).map(Value::Word).ok_or_else(|| bad(why)),
        Kind::Set(words) => {
            let bits = set(words, text);
            bits.map(Value::Bits).ok_or_else(|| bad(&format!("{text} is an invalid {} set", row.name)))
        }
    }
}

fn in_range(row: &OptionRow, text: &str, number: Option<i64>, min: i64, max: i64, voice: Voice) -> Result<Value, UsageError> {
    let bad = |why: String| Err(row.bad_value(Some(text), &why, voice));
    match number {
        // Without limits of its own an option is an `int`.
        Some(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
        Some(_) if (min, max) != super::table::ANY_INT => bad(format!("'--{}' argument must be between {min} and {max}", row.name)),
        _ => bad(format!("Invalid integer value '{text}'")),
    }
}

/// A comma list of words, or `all`, or `none`.
pub fn set(words: &[&str], text: &str) -> Option<u32> {
    match text {
        "all" => Some((1 << words.len()) - 1),
        "none" => Some(0),
        _ => text.split(',').try_fold(0, |bits, part| {
            let at = words.iter().position(|word| *word == part)?;
            Some(bits | 1 << at)
        }),
    }
}
