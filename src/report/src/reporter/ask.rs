//! `--gen-suppressions=yes`: one question per finding, answered on a line of the input descriptor.

use std::io::Read;

use crate::sink;

pub const PROMPT: &str = "---- Print suppression ? --- [Return/N/n/Y/y/C/c] ---- ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    No,
    Yes,
    /// No, and do not ask again. Also when nobody is there to answer.
    Never,
}

/// Waits for a line. Nothing behind it is read: the program may want the rest of its own input, and the next question its own line.
pub fn answer(fd: i32) -> Answer {
    let input = if fd < 0 { None } else { sink::inherited(fd).ok() };
    input.map_or(Answer::Never, |mut input| meaning(&first_line(&mut input)))
}

/// The next line with its end; without it, if the input ends before. `input` must not read ahead.
fn first_line(input: &mut dyn Read) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') && matches!(input.read(&mut byte), Ok(1)) {
        line.push(char::from(byte[0]));
    }
    line
}

fn meaning(line: &str) -> Answer {
    match line.trim().chars().next() {
        Some('y' | 'Y') => Answer::Yes,
        Some('c' | 'C') => Answer::Never,
        None if !line.ends_with('\n') => Answer::Never,
        _ => Answer::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (line, expected) in [("\n", Answer::No), ("n\n", Answer::No), ("Y\n", Answer::Yes), ("c\n", Answer::Never), ("", Answer::Never)]
        {
            assert_eq!(meaning(&first_line(&mut line.as_bytes())), expected, "{line:?}");
        }
    }

    #[test]
    fn only_one_line_is_taken() {
        let mut input = &b"y\nrest"[..];
        assert_eq!(first_line(&mut input), "y\n");
        assert_eq!(input, b"rest");
    }
}
