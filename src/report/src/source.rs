//! Lines of the program's sources, for reports that quote them.
//!
//! A file is looked for where the compiler said it was, then below the directory the run began in and below `--source-root`, and
//! read once. What cannot be read is silently not quoted: the names in the report are as good without. A quotation must be of
//! what was compiled, so a file that is newer than the program is quoted with that remark ([`Quote::is_newer`]).
//!
//! Deliberately absent: files that are not regular (to open a pipe can take for ever) and files larger than `MOST_BYTES`.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::frame::Line;

/// No hand-written source is larger.
const MOST_BYTES: u64 = 16 << 20;
/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// A line as it may be printed: tabs are blanks, blanks in front are cut off, nothing in it controls a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub text: String,
    /// Position in `text` that the compiler named, in characters from 0.
    pub column: Option<usize>,
    /// The file was changed after the program was made.
    pub is_newer: bool,
}

/// The sources that were read so far.
#[derive(Debug, Default)]
pub struct Sources {
    /// Where relative names may begin.
    roots: Vec<PathBuf>,
    read: HashMap<PathBuf, Option<Rc<Source>>>,
}

#[derive(Debug)]
struct Source {
    text: String,
    changed: Option<std::time::SystemTime>,
}

impl Sources {
    /// `roots`: directories in which relative names are looked up, the most likely first.
    pub fn below(roots: Vec<PathBuf>) -> Self {
        Sources { roots, read: HashMap::new() }
    }

    /// The source line of a frame, if there is one to be read.
    pub fn quote(&mut self, frame: &Line) -> Option<Quote> {
        let number = frame.line.filter(|&line| line > 0)? as usize;
        let source = self.find(Path::new(&frame.full_path()?))?;
        let line = source.text.lines().nth(number - 1)?;
        let made = frame.object.as_deref().and_then(|object| fs::metadata(object).and_then(|about| about.modified()).ok());
        let is_newer = source.changed.zip(made).is_some_and(|(changed, made)| changed > made);
        let (text, column) = printable(line, frame.column.filter(|&column| column > 0).map(|column| column as usize - 1));
        (!text.is_empty()).then_some(Quote { text, column, is_newer })
    }

    fn find(&mut self, path: &Path) -> Option<Rc<Source>> {
        if let Some(known) = self.read.get(path) {
            return known.clone();
        }
        let found = std::iter::once(path.to_owned()).chain(self.roots.iter().map(|root| root.join(path))).find_map(|path| read(&path));
        self.read.insert(path.to_owned(), found.clone());
        found
    }
}

fn read(path: &Path) -> Option<Rc<Source>> {
    let about = fs::metadata(path).ok().filter(|about: &Metadata| about.is_file() && about.len() <= MOST_BYTES)?;
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
    Some(Rc::new(Source { text, changed: about.modified().ok() }))
}

/// The line without blanks around it, and where its byte number `column` went.
fn printable(line: &str, column: Option<usize>) -> (String, Option<usize>) {
    let mut text = String::new();
    let mut place = None;
    for (at, letter) in line.char_indices() {
        let printed = text.chars().count();
        if column == Some(at) {
            place = Some(printed);
        }
        match letter {
            '\t' => text.extend(std::iter::repeat_n(' ', TAB - printed % TAB)),
            letter if letter.is_control() => text.push('?'),
            letter => text.push(letter),
        }
    }
    let indent = text.chars().take_while(|&letter| letter == ' ').count();
    (text.trim().to_owned(), place.and_then(|place| place.checked_sub(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_quoted_without_what_a_terminal_would_obey() {
        assert_eq!(printable("\t  a\tb = 1; \x1b[2J", Some(5)), ("a     b = 1; ?[2J".to_owned(), Some(6)));
        assert_eq!(printable("    é = x;", Some(9)), ("é = x;".to_owned(), Some(4)));
        // A column in the blanks, inside a character or behind the end is none.
        for column in [0, 5, 90] {
            assert_eq!(printable("    é = x;", Some(column)).1, None, "{column}");
        }
    }

    #[test]
    fn files_are_found_below_the_roots_and_only_regular_ones_are_read() {
        let root = std::env::temp_dir().join(format!("memcheck-sources-{}", std::process::id()));
        fs::create_dir_all(root.join("sub")).expect("a directory");
        fs::write(root.join("sub/a.c"), "int x;\n  y();\n").expect("a file");
        let line = |file: &str, number| Line { file: Some(file.into()), line: Some(number), column: Some(3), ..Line::default() };
        let mut sources = Sources::below(vec![root.join("nowhere"), root.clone()]);
        let quote = Quote { text: "y();".to_owned(), column: Some(0), is_newer: false };
        assert_eq!(sources.quote(&line("sub/a.c", 2)), Some(quote));
        // Behind the end, no line at all, a directory, a device, no such file.
        for (file, number) in [("sub/a.c", 3), ("sub/a.c", 0), ("sub", 1), ("/dev/zero", 1), ("b.c", 1)] {
            assert_eq!(sources.quote(&line(file, number)), None, "{file}:{number}");
        }
        let older = Line { object: Some(Path::new("/proc/self/exe").into()), ..line("sub/a.c", 2) };
        assert_eq!(sources.quote(&older).map(|quote| quote.is_newer), Some(true));
        fs::remove_dir_all(root).expect("ours");
    }
}
