//! What a finding means in the program's own source: its story, told in the order of time.
//!
//! ```text
//!    allocated  list.c:12  struct node *n = malloc(sizeof *n);
//!    freed      list.c:33  free(n);
//!    read       list.c:41  return n->next;
//!                                  ^
//!    block      [--------XXXXXXXX--------]  bytes 8 to 15 of 24, freed
//! ```
//!
//! Each stack of a finding is one event, quoted where it enters the user's own code; the last event is the mistake itself. These
//! lines follow the finding's, which stay as every reader of logs knows them. Deliberately absent: advice. Nothing stands here that
//! was not seen.

use std::borrow::Cow;

use super::paint::{Painter, Tone};
use super::picture;
use super::place::Placer;
use crate::dedup::Context;
use crate::error::{Aux, ErrorKind, ErrorRecord, Moment};
use crate::frame::{Frame, Stack};
use crate::source::{Quote, Sources};

/// Columns of a line, without the prefix.
const WIDTH: usize = 100;
/// Rows of the table of contents.
const MOST_CONTENTS: usize = 30;
const INDENT: &str = "   ";
const GAP: &str = "  ";

/// Something that happened, and where.
struct Event<'a> {
    verb: &'static str,
    stack: &'a Stack,
}

/// An event with its line of source.
struct Told {
    verb: &'static str,
    place: String,
    quote: Quote,
}

/// Reads sources and tells stories.
pub struct Teller<'a> {
    pub sources: &'a mut Sources,
    pub placer: &'a Placer,
    pub painter: Painter,
}

impl Teller<'_> {
    /// The lines for a finding, the empty one before them included; none if nothing can be told.
    pub fn finding(&mut self, record: &ErrorRecord) -> Vec<String> {
        let told = self.told(events(record));
        let bar = record.extent.as_ref().and_then(|extent| picture::bar(extent, self.painter));
        self.lines(&told, bar)
    }

    /// The same for a stack alone.
    pub fn place(&mut self, verb: &'static str, stack: &Stack) -> Vec<String> {
        let told = self.told(vec![Event { verb, stack }]);
        self.lines(&told, None)
    }

    /// A table of what was found, if there is more than one look can hold; the empty line behind it included.
    pub fn contents(&self, contexts: &[Context]) -> Vec<String> {
        if contexts.len() < 2 {
            return Vec::new();
        }
        let mut found: Vec<&Context> = contexts.iter().collect();
        found.sort_by_key(|context| context.unique);
        let rows: Vec<[String; 3]> = found.iter().take(MOST_CONTENTS).map(|context| self.row(context)).collect();
        let widths = [0, 1].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let mut lines = vec!["FOUND:".to_owned()];
        for [count, rule, place] in &rows {
            lines.push(format!("    {count:>0$}{GAP}{rule:<1$}{GAP}{2}", widths[0], widths[1], self.painter.paint(Tone::Place, place)));
        }
        if let Some(more) = found.len().checked_sub(MOST_CONTENTS).filter(|&more| more > 0) {
            lines.push(format!("    and {more} more"));
        }
        lines.push(format!("What these mean: memcheck --explain={}", found[0].record.rule()));
        lines.push(String::new());
        lines
    }

    fn row(&self, context: &Context) -> [String; 3] {
        let record = &context.record;
        let place = self.placer.place(&record.stack);
        let place = place.map(|place| match place.function {
            Some(function) => format!("{}:{} in {function}", base_name(&place.path), place.line),
            None => format!("{}:{}", base_name(&place.path), place.line),
        });
        let nameless = || record.stack.0.first().and_then(|frame| frame.object_text().map(Cow::into_owned)).unwrap_or_default();
        [format!("{}x", context.count), record.rule().to_owned(), place.unwrap_or_else(nameless)]
    }

    fn told(&mut self, events: Vec<Event>) -> Vec<Told> {
        events.into_iter().filter_map(|event| self.quoted(event)).collect()
    }

    /// The innermost line of the user's own code that can be read; failing that, of anybody's.
    fn quoted(&mut self, event: Event) -> Option<Told> {
        let frames = event.stack.shown(false);
        let own = frames.iter().filter(|frame| self.placer.is_own(frame));
        let (frame, quote) = own.chain(frames).find_map(|frame| Some((frame, self.sources.quote(frame)?)))?;
        Some(Told { verb: event.verb, place: place(frame), quote })
    }

    fn lines(&self, told: &[Told], bar: Option<String>) -> Vec<String> {
        const BLOCK: &str = "block";
        let verbs = told.iter().map(|one| one.verb.len()).chain(bar.iter().map(|_| BLOCK.len())).max().unwrap_or(0);
        let places = told.iter().map(|one| one.place.chars().count()).max().unwrap_or(0);
        let faint = |text: &str| self.painter.paint(Tone::Faint, &format!("{text:<verbs$}")).into_owned();
        let mut lines = Vec::new();
        let before = INDENT.len() + verbs + GAP.len() + places + GAP.len();
        let mut mark = None;
        for one in told {
            let (text, column) = part(&one.quote.text, one.quote.column, WIDTH.saturating_sub(before));
            let place = format!("{:<places$}", one.place);
            lines.push(format!("{INDENT}{}{GAP}{}{GAP}{text}", faint(one.verb), self.painter.paint(Tone::Place, &place)));
            mark = column;
        }
        // The compiler's column is where the instruction belongs: of the last event it is the mistake.
        if let Some(column) = mark {
            lines.push(format!("{:1$}{2}", "", before + column, self.painter.paint(Tone::Wrong, "^")));
        }
        lines.extend(bar.map(|bar| format!("{INDENT}{}{GAP}{bar}", faint(BLOCK))));
        lines.extend(told.iter().find(|one| one.quote.is_newer).map(remark));
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }
}

fn remark(newer: &Told) -> String {
    let file = newer.place.rsplit_once(':').map_or(newer.place.as_str(), |(file, _)| file);
    format!("{INDENT}({file} was changed after the program was compiled: lines may have moved)")
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn place(frame: &Frame) -> String {
    format!("{}:{}", frame.file.as_deref().unwrap_or_default(), frame.line.unwrap_or(0))
}

/// So many characters of a line at most, `column` among them, and where it is there.
fn part(text: &str, column: Option<usize>, most: usize) -> (String, Option<usize>) {
    const MORE: &str = "...";
    let length = text.chars().count();
    if length <= most {
        return (text.to_owned(), column);
    }
    let room = most.saturating_sub(2 * MORE.len());
    // What leads to the column matters more than what follows.
    let last = column.unwrap_or(0).saturating_add(room / 4).min(length);
    let first = last.saturating_sub(room);
    let (before, room) = if first == 0 { ("", room + MORE.len()) } else { (MORE, room) };
    let after = if first + room < length { MORE } else { "" };
    let shown: String = text.chars().skip(first).take(room).collect();
    (format!("{before}{shown}{after}"), column.map(|column| column - first + before.len()))
}

/// All that a finding knows of, the mistake last.
fn events(record: &ErrorRecord) -> Vec<Event<'_>> {
    let mut before: Vec<(Moment, &Stack)> = record.aux.iter().filter_map(|aux: &Aux| Some((aux.moment?, aux.stack.as_ref()?))).collect();
    before.sort_by_key(|(moment, _)| *moment);
    let mut events: Vec<_> = before.into_iter().map(|(moment, stack)| Event { verb: moment.verb(), stack }).collect();
    events.push(Event { verb: verb(record), stack: &record.stack });
    events
}

/// What the instruction of a finding did.
fn verb(record: &ErrorRecord) -> &'static str {
    match &record.kind {
        ErrorKind::Read { .. } => "read",
        ErrorKind::Write { .. } => "written",
        ErrorKind::Jump => "jumped",
        ErrorKind::Cond => "decided",
        ErrorKind::Value { .. } => "used",
        ErrorKind::ParamRegister { .. } | ErrorKind::ParamMemory { .. } => "passed",
        ErrorKind::User { .. } | ErrorKind::Mempool | ErrorKind::CoreMem => "here",
        ErrorKind::InvalidFree if record.rule() == "double-free" => "freed again",
        ErrorKind::InvalidFree | ErrorKind::MismatchedFree => "freed",
        ErrorKind::Overlap => "copied",
        ErrorKind::Fishy { .. } | ErrorKind::ReallocZero | ErrorKind::BadAlign => "asked for",
        ErrorKind::Leak(_) => "allocated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Block, BlockState};
    use crate::frame::testing::{frame, library_frame};

    const SOURCE: &str = "int *make(void) {\n\treturn malloc(24);\n}\nvoid drop(int *p) { free(p); }\n    return\tp[2];\n";

    /// Tells with a source `story.c` in a directory of its own.
    fn told(name: &str, tell: impl FnOnce(&mut Teller) -> Vec<String>) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("memcheck-details-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a directory");
        std::fs::write(root.join("story.c"), SOURCE).expect("a file");
        let mut sources = Sources::below(vec![root.clone()]);
        let lines = tell(&mut Teller { sources: &mut sources, placer: &Placer::default(), painter: Painter::default() });
        std::fs::remove_dir_all(root).expect("ours");
        lines
    }

    fn stack(function: &str, line: u32, column: u32) -> Stack {
        let at = frame(0x10, function, "story.c", line).with(|one| (one.dir, one.column) = (None, Some(column)));
        Stack(vec![library_frame(0x20, "malloc", "/lib/heap.so"), at])
    }

    #[test]
    fn a_story_is_told_in_the_order_of_time() {
        let block = Block {
            start: 0x1000,
            size: 24,
            state: BlockState::Freed,
            allocated: Some(stack("make", 2, 9)),
            freed: Some(stack("drop", 4, 21)),
        };
        let record = ErrorRecord::invalid_read(4, 1, stack("main", 5, 13)).about(0x1008, &Address::Block(block));
        let expected = [
            "",
            "   allocated  story.c:2  return malloc(24);",
            "   freed      story.c:4  void drop(int *p) { free(p); }",
            "   read       story.c:5  return      p[2];",
            "                                      ^",
            "   block      [--------XXXX------------]  bytes 8 to 11 of 24, freed",
        ];
        assert_eq!(told("story", |teller| teller.finding(&record)), expected);
    }

    #[test]
    fn what_cannot_be_read_is_not_told() {
        let nowhere = ErrorRecord::condition(1, Stack(vec![frame(1, "f", "nowhere.c", 3), library_frame(2, "g", "/lib/g.so")]));
        assert!(told("nowhere", |teller| teller.finding(&nowhere)).is_empty());
        let behind = stack("main", 77, 1);
        assert!(told("behind", |teller| teller.place("here", &behind)).is_empty());
    }

    #[test]
    fn long_lines_are_cut_around_the_mistake() {
        assert_eq!(part("short", Some(4), 5), ("short".to_owned(), Some(4)));
        let line: String = ('a'..='z').collect();
        assert_eq!(part(&line, None, 16), ("abcdefghijklm...".to_owned(), None));
        assert_eq!(part(&line, Some(0), 16), ("abcdefghijklm...".to_owned(), Some(0)));
        assert_eq!(part(&line, Some(13), 16), ("...fghijklmno...".to_owned(), Some(11)));
        assert_eq!(part(&line, Some(25), 16), ("...qrstuvwxyz".to_owned(), Some(12)));
        for most in 0..26 {
            for column in 0..26 {
                let (text, at) = part(&line, Some(column), most);
                assert!(text.len() <= most.max(6), "{text}");
                let letter = at.and_then(|at| text.as_bytes().get(at).copied());
                assert!(most < 12 || letter == Some(b'a' + column as u8), "{column} of {text}");
            }
        }
    }

    #[test]
    fn several_findings_have_a_table() {
        let mut ledger = crate::dedup::Ledger::default();
        let records = [ErrorRecord::condition(1, stack("f", 2, 1)), ErrorRecord::invalid_read(4, 1, stack("g", 4, 1))];
        for (unique, record) in records.into_iter().enumerate() {
            ledger.insert(record, None, unique as u64);
        }
        let addresses: Vec<u64> = stack("f", 2, 1).addresses().collect();
        ledger.repeat(&ErrorKind::Cond, &addresses, true);
        let contexts: Vec<Context> = ledger.listed().into_iter().cloned().collect();
        assert!(told("one", |teller| teller.contents(&contexts[..1])).is_empty());
        let table = told("table", |teller| teller.contents(&contexts));
        assert_eq!(
            table,
            [
                "FOUND:",
                "    2x  uninit-branch  story.c:2 in f",
                "    1x  invalid-read   story.c:4 in g",
                "What these mean: memcheck --explain=uninit-branch",
                ""
            ]
        );
    }
}
