//! Stack frames as reports print them.
//!
//! A [`Stack`] is a list of lines, innermost first. One code address may give several lines: the functions inlined there come
//! first, marked `inlined`, and the function that really has the code comes last. So *addresses* are the frames that are not
//! marked, and `--num-callers` and de-duplication count addresses, while suppressions and printing see every line.
//!
//! The texts after the colon, best information first (`fn (file.c:12)`, `fn (in /lib/x.so)`, `???`, …) are `describe`.
//! Deliberately absent: finding names. The symbolizer knows nothing of reports and reports know nothing of DWARF; the session
//! converts.

use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;

/// One line of a stack. `addr` is the address to print: the instruction itself in the first frame, return address minus one in
/// the others. `function` is the demangled name, `raw_name` the one in the symbol table, which suppressions are matched with. Texts are
/// shared as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub addr: u64,
    pub function: Option<Rc<str>>,
    pub raw_name: Option<Rc<str>>,
    /// Name of the source file as the compiler recorded it: `a.c`, `library/alloc/src/vec/mod.rs`.
    pub file: Option<Rc<str>>,
    /// Directory of `file`, as the compiler recorded it.
    pub dir: Option<Rc<str>>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub object: Option<Rc<Path>>,
    /// This function was inlined into the next frame, which has the same address.
    pub inlined: bool,
    /// Line at which the function starts.
    pub function_line: Option<u32>,
    /// memcheck's own function runs in place of this one.
    pub replaced: bool,
}

/// A line, shared: the same one stands in thousands of loss records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame(Rc<Line>);

impl From<Line> for Frame {
    fn from(line: Line) -> Self {
        Frame(Rc::new(line))
    }
}

impl std::ops::Deref for Frame {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl Frame {
    /// A frame of which only the address is known.
    pub fn unknown(addr: u64) -> Self {
        Line { addr, ..Line::default() }.into()
    }

    /// The frame with a change.
    pub fn with(mut self, change: impl FnOnce(&mut Line)) -> Self {
        change(Rc::make_mut(&mut self.0));
        self
    }
}

impl Line {
    /// The name that suppressions compare: raw if there is one, `None` if the frame has no name.
    pub fn suppression_name(&self) -> Option<&str> {
        self.raw_name.as_deref().or(self.function.as_deref())
    }

    /// Is this start-up code, which reports call `(below main)`? Under its bare name: what constructors have below them is
    /// `__libc_start_main@@GLIBC_2.34`, called by `(below main)`, in Valgrind's reports and in rules made from them.
    pub fn is_below_main(&self) -> bool {
        self.suppression_name().is_some_and(|name| name.starts_with(['_', 'g']) && BELOW_MAIN.contains(&name))
    }

    pub fn object_text(&self) -> Option<Cow<'_, str>> {
        self.object.as_ref().map(|path| path.to_string_lossy())
    }

    /// The last component of `file`.
    pub fn file_name(&self) -> Option<&str> {
        let file = self.file.as_deref()?;
        // Names are short: a search made for long texts takes longer to begin.
        Some(file.bytes().rposition(|byte| byte == b'/').map_or(file, |slash| &file[slash + 1..]))
    }

    /// Directory and file joined; just the file if it is absolute already or no directory is known.
    pub fn full_path(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(match self.dir.as_deref() {
            Some(dir) if !file.starts_with('/') && !dir.is_empty() => {
                format!("{}/{file}", dir.trim_end_matches('/'))
            }
            _ => file.to_string(),
        })
    }
}

/// A call stack, innermost frame first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack(pub Vec<Frame>);

impl Stack {
    /// A stack of which only the addresses are known.
    pub fn unnamed(addresses: impl IntoIterator<Item = u64>) -> Self {
        Stack(addresses.into_iter().map(Frame::unknown).collect())
    }

    /// A stack that was not kept: one frame at address 0.
    pub fn not_kept() -> Self {
        Stack::unnamed([0])
    }

    /// The code addresses, innermost first, one per real frame.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().filter(|frame| !frame.inlined).map(|frame| frame.addr)
    }

    /// Keeps the frames of the first `callers` addresses.
    pub fn truncate(&mut self, callers: usize) {
        let mut addresses = 0;
        let keep = self.0.iter().position(|frame| {
            let full = addresses == callers;
            addresses += usize::from(!frame.inlined);
            full
        });
        self.0.truncate(keep.unwrap_or(self.0.len()));
    }

    /// Collapses recursion: when an address comes back within `reach` addresses, the frames of the round between are dropped.
    /// 0 keeps everything.
    pub fn merge_recursion(&mut self, reach: usize) {
        let addresses: Vec<u64> = self.addresses().collect();
        let kept = without_recursion(&addresses, reach);
        if kept.len() == addresses.len() {
            return;
        }
        let mut number = 0;
        self.0.retain(|frame| {
            let keep = kept.binary_search(&number).is_ok();
            number += usize::from(!frame.inlined);
            keep
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The frames to show: up to and including `main` (the outermost, which may call itself), unless everything is wanted.
    pub fn shown(&self, show_below_main: bool) -> &[Frame] {
        if show_below_main {
            return &self.0;
        }
        let main = || self.0.iter().rposition(|frame| frame.suppression_name() == Some("main"));
        match main().or_else(|| self.0.iter().position(|frame| frame.is_below_main())) {
            Some(last) => &self.0[..=last],
            None => &self.0,
        }
    }
}

impl From<Vec<Frame>> for Stack {
    fn from(frames: Vec<Frame>) -> Self {
        Stack(frames)
    }
}

/// The positions that stay when recursion of up to `reach` functions is collapsed: of each cycle one round.
pub fn without_recursion(addresses: &[u64], reach: usize) -> Vec<usize> {
    if reach == 0 {
        return (0..addresses.len()).collect();
    }
    let mut kept: Vec<usize> = Vec::with_capacity(addresses.len());
    for (position, address) in addresses.iter().enumerate() {
        let near = kept.len().saturating_sub(reach);
        match kept[near..].iter().rposition(|&earlier| addresses[earlier] == *address) {
            Some(back) => kept.truncate(near + back + 1),
            None => kept.push(position),
        }
    }
    kept
}

/// Start-up code that called `main`; printed as `(below main)`.
const BELOW_MAIN: [&str; 4] = ["__libc_start_main", "__libc_start_call_main", "generic_start_main", "_start"];

/// A path as it may stand in a line: a terminal must not obey it, a reader must not see two lines.
fn printable(path: &str) -> Cow<'_, str> {
    if !path.contains(char::is_control) {
        return Cow::Borrowed(path);
    }
    path.chars().map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// How frames are written: the part of the options that `describe` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameStyle {
    pub demangle: bool,
    pub show_below_main: bool,
    /// Values of `--fullpath-after`; empty: print names.
    pub fullpath_after: Vec<String>,
}

impl Default for FrameStyle {
    fn default() -> Self {
        FrameStyle { demangle: true, show_below_main: false, fullpath_after: Vec::new() }
    }
}

impl FrameStyle {
    /// The name to print, `None` if there is none.
    pub fn name<'a>(&self, frame: &'a Frame) -> Option<&'a str> {
        if !self.show_below_main && frame.is_below_main() {
            return Some(crate::suppress::BELOW_MAIN);
        }
        let (first, second) = if self.demangle { (&frame.function, &frame.raw_name) } else { (&frame.raw_name, &frame.function) };
        first.as_deref().or(second.as_deref())
    }

    /// The file to print: its name, or the part of the full path after the first matching `--fullpath-after`.
    fn file<'a>(&self, frame: &'a Frame) -> Option<Cow<'a, str>> {
        if self.fullpath_after.is_empty() {
            return frame.file.as_deref().map(Cow::Borrowed);
        }
        let path = frame.full_path()?;
        for after in &self.fullpath_after {
            if let Some(at) = path.find(after.as_str()) {
                return Some(Cow::Owned(path[at + after.len()..].to_string()));
            }
        }
        Some(Cow::Owned(path))
    }

    /// The text after the colon.
    pub fn describe(&self, frame: &Frame) -> String {
        let mut out = String::new();
        self.describe_to(&mut out, frame);
        out
    }

    fn describe_to(&self, out: &mut String, frame: &Frame) {
        let name = self.name(frame);
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.push_str(part));
        match (name, self.file(frame), frame.line) {
            (name, Some(file), Some(line)) => {
                push(&[name.unwrap_or("???"), " (", &file, ":"]);
                push_decimal(out, line);
                out.push(')');
            }
            (None, _, _) if frame.object.is_none() => push(&["???"]),
            (name, _, _) => {
                let object = frame.object_text();
                push(&[name.unwrap_or("???"), " (in ", &object.as_deref().map_or(Cow::Borrowed("???"), printable), ")"]);
            }
        }
    }

    /// The lines of a stack without prefix: `   at 0x…: …`, then `   by 0x…: …`.
    pub fn lines(&self, stack: &Stack) -> Vec<String> {
        let mut lines = Vec::new();
        self.for_each_line(stack, |_, line| lines.push(line.to_owned()));
        lines
    }

    /// The same, one after the other, each with its frame.
    pub fn for_each_line(&self, stack: &Stack, mut visit: impl FnMut(&Frame, &str)) {
        let mut line = String::new();
        for (index, frame) in stack.shown(self.show_below_main).iter().enumerate() {
            line.clear();
            line.push_str(if index == 0 { "   at 0x" } else { "   by 0x" });
            push_hex(&mut line, frame.addr);
            line.push_str(": ");
            self.describe_to(&mut line, frame);
            visit(frame, &line);
        }
    }
}

/// As `{}` writes it.
fn push_decimal(out: &mut String, value: u32) {
    let mut digits = [b'0'; 10];
    let (mut first, mut rest) = (digits.len() - 1, value);
    while let Some(digit) = digits.get_mut(first) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
        first -= 1;
    }
    out.extend(digits[first..].iter().map(|&digit| char::from(digit)));
}

/// As `{:X}` writes it: a leak report has millions of addresses.
fn push_hex(out: &mut String, value: u64) {
    let digits = (16 - value.leading_zeros() / 4).max(1);
    out.extend((0..digits).rev().map(|digit| char::from(b"0123456789ABCDEF"[(value >> (4 * digit)) as usize & 15])));
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// `name` at `addr`, in `file:line` of `/src`, object `/bin/prog`.
    pub fn frame(addr: u64, name: &str, file: &str, line: u32) -> Frame {
        let line = Line {
            addr,
            function: Some(name.into()),
            raw_name: Some(name.into()),
            file: Some(file.into()),
            dir: Some("/src".into()),
            line: Some(line),
            object: Some(Path::new("/bin/prog").into()),
            ..Line::default()
        };
        line.into()
    }

    pub fn library_frame(addr: u64, name: &str, object: &str) -> Frame {
        Frame::unknown(addr).with(|line| {
            (line.function, line.raw_name) = (Some(name.into()), Some(name.into()));
            line.object = Some(Path::new(object).into());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn every_state_of_knowledge_has_its_form() {
        let style = FrameStyle::default();
        let full = frame(0x1091BD, "fill", "table.c", 14);
        assert_eq!(style.describe(&full), "fill (table.c:14)");
        assert_eq!(style.describe(&library_frame(1, "write", "/lib/libc.so.6")), "write (in /lib/libc.so.6)");
        assert_eq!(style.describe(&full.clone().with(|line| (line.object, line.file) = (None, None))), "fill (in ???)");
        assert_eq!(style.describe(&full.clone().with(|line| (line.function, line.raw_name) = (None, None))), "??? (table.c:14)");
        assert_eq!(style.describe(&full.with(|line| (line.function, line.raw_name, line.file) = (None, None, None))), "??? (in /bin/prog)");
        assert_eq!(style.describe(&Frame::unknown(16)), "???");
    }

    #[test]
    fn addresses_are_upper_case_and_the_list_stops_at_main() {
        for value in [0, 1, 0xf, 0x10, 0xabc_def0_1234_5678, u64::MAX] {
            let mut text = String::new();
            push_hex(&mut text, value);
            assert_eq!(text, format!("{value:X}"));
        }
        for value in [0, 7, 10, 1990, u32::MAX] {
            let mut text = String::new();
            push_decimal(&mut text, value);
            assert_eq!(text, value.to_string());
        }
        let stack = Stack(vec![frame(0x10ab, "f", "a.c", 1), frame(0x20cd, "main", "a.c", 9), frame(0x30, "_start", "s.S", 1)]);
        assert_eq!(FrameStyle::default().lines(&stack), ["   at 0x10AB: f (a.c:1)", "   by 0x20CD: main (a.c:9)"]);
        let below = FrameStyle { show_below_main: true, ..FrameStyle::default() };
        assert_eq!(below.lines(&stack)[2], "   by 0x30: _start (s.S:1)");
        let versioned = library_frame(2, "__libc_start_main@@GLIBC_2.34", "/lib/libc.so.6");
        let early = Stack(vec![frame(1, "init", "a.c", 1), versioned, library_frame(3, "_start", "/bin/prog"), frame(4, "", "", 0)]);
        let below = ["   by 0x2: __libc_start_main@@GLIBC_2.34 (in /lib/libc.so.6)", "   by 0x3: (below main) (in /bin/prog)"];
        assert_eq!(FrameStyle::default().lines(&early)[1..], below);
    }

    #[test]
    fn raw_names_on_request() {
        let cxx =
            frame(1, "", "s.cc", 3).with(|line| (line.function, line.raw_name) = (Some("S::f(int)".into()), Some("_ZN1S1fEi".into())));
        let raw = FrameStyle { demangle: false, ..FrameStyle::default() };
        assert_eq!(FrameStyle::default().describe(&cxx), "S::f(int) (s.cc:3)");
        assert_eq!(raw.describe(&cxx), "_ZN1S1fEi (s.cc:3)");
    }

    #[test]
    fn full_paths_are_cut_after_the_first_matching_prefix() {
        let one = frame(1, "f", "a.c", 2).with(|line| line.dir = Some("/home/u/proj/src".into()));
        let style = |after: &[&str]| FrameStyle { fullpath_after: after.iter().map(|s| s.to_string()).collect(), ..FrameStyle::default() };
        assert_eq!(style(&[""]).describe(&one), "f (/home/u/proj/src/a.c:2)");
        assert_eq!(style(&["nowhere/", "proj/"]).describe(&one), "f (src/a.c:2)");
        assert_eq!(style(&["nowhere/"]).describe(&one), "f (/home/u/proj/src/a.c:2)");
        let with_directories = one.with(|line| line.file = Some("sub/a.c".into()));
        assert_eq!(style(&[]).describe(&with_directories), "f (sub/a.c:2)");
        assert_eq!(style(&["proj/"]).describe(&with_directories), "f (src/sub/a.c:2)");
    }

    #[test]
    fn recursion_is_collapsed_within_reach() {
        assert_eq!(without_recursion(&[1, 1, 1, 2], 0), [0, 1, 2, 3]);
        assert_eq!(without_recursion(&[1, 1, 1, 2], 1), [0, 3]);
        assert_eq!(without_recursion(&[1, 2, 1, 2, 3], 1), [0, 1, 2, 3, 4]);
        assert_eq!(without_recursion(&[1, 2, 1, 2, 3], 2), [0, 3, 4]);
        let inlined = frame(1, "tiny", "a.c", 1).with(|line| line.inlined = true);
        let round = || vec![inlined.clone(), frame(1, "f", "a.c", 2)];
        let mut stack = Stack([round(), round(), vec![frame(9, "main", "a.c", 3)]].concat());
        stack.merge_recursion(1);
        assert_eq!(stack.0.iter().map(|frame| frame.addr).collect::<Vec<_>>(), [1, 1, 9]);
    }

    #[test]
    fn callers_are_counted_in_addresses() {
        let inlined = frame(1, "tiny", "a.c", 1).with(|line| line.inlined = true);
        let mut stack = Stack(vec![inlined.clone(), frame(1, "f", "a.c", 2), inlined.with(|line| line.addr = 2), frame(2, "g", "a.c", 3)]);
        assert_eq!(stack.addresses().collect::<Vec<_>>(), [1, 2]);
        stack.truncate(1);
        assert_eq!(stack.0.len(), 2);
        stack.truncate(5);
        assert_eq!(stack.0.len(), 2);
    }
}
