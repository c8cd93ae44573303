//! The suppression file format, complete.
//!
//! ```text
//! {                                 <- alone on its line
//!    any name on one line
//!    Memcheck,Other:Leak            <- tools, kind
//!    match-leak-kinds: definite     <- Param, FishyValue: required; Leak: optional; others: none
//!    fun:malloc                     <- fun: obj: src: or ...
//!    ...
//! }
//! ```
//!
//! Blank lines and lines whose first non-blank is `#` are skipped; blanks around a line do not count. Rules for other tools
//! are skipped whole, whatever is in them. A mistake is reported as Valgrind does, with the number of the line last read.

use std::fmt;
use std::sync::Arc;

use super::{FramePattern, Rule, RuleKind};
use crate::error::LeakKind;

/// A mistake in a file: `near line` and what it is, in Valgrind's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFailure {
    pub file: String,
    pub line: u32,
    pub what: &'static str,
}

impl fmt::Display for ParseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in suppressions file \"{}\" near line {}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for ParseFailure {}

impl ParseFailure {
    /// The lines to print before giving up.
    pub fn lines(&self) -> [String; 3] {
        [
            format!("FATAL: in suppressions file \"{}\" near line {}:", self.file, self.line),
            format!("   {}", self.what),
            "exiting now.".to_string(),
        ]
    }
}

/// Kinds that are just a name: as written in files, and as `KindFacts::suppression` calls them. The last four are of checks that newer
/// Valgrinds make and memcheck does not: files that name them load, and the rules hide nothing.
const NAMED_KINDS: [(&str, &str); 14] = [
    ("User", "User"),
    ("CoreMem", "CoreMem"),
    ("Cond", "Cond"),
    ("Value0", "Cond"),
    ("Jump", "Jump"),
    ("Free", "Free"),
    ("Overlap", "Overlap"),
    ("Mempool", "Mempool"),
    ("ReallocZero", "ReallocZero"),
    ("BadAlign", "BadAlign"),
    ("UnsafeZeroSize", "UnsafeZeroSize"),
    ("BadSize", "UnsafeZeroSize"),
    ("SizeMismatch", "SizeMismatch"),
    ("AlignMismatch", "AlignMismatch"),
];

const SIZES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// The rules of one file. `file` is its name as the user gave it.
pub fn parse(file: &str, text: &str) -> Result<Vec<Rule>, ParseFailure> {
    let mut reader = Reader { lines: text.lines(), number: 0, shared: Arc::from(file) };
    let mut rules = Vec::new();
    while let Some(line) = reader.next() {
        if line != "{" {
            return Err(reader.fail("expected '{' or end-of-file"));
        }
        if let Some(rule) = reader.rule()? {
            rules.push(rule);
        }
    }
    Ok(rules)
}

struct Reader<'a> {
    lines: std::str::Lines<'a>,
    number: u32,
    shared: Arc<str>,
}

impl<'a> Reader<'a> {
    /// The next line with something on it.
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let line = self.lines.next()?.trim();
            self.number += 1;
            if !line.is_empty() && !line.starts_with('#') {
                return Some(line);
            }
        }
    }

    fn fail(&self, what: &'static str) -> ParseFailure {
        ParseFailure { file: self.shared.to_string(), line: self.number, what }
    }

    /// A rule after its opening brace; `None` if it is for another tool.
    fn rule(&mut self) -> Result<Option<Rule>, ParseFailure> {
        let name = self.next().filter(|line| *line != "}").ok_or_else(|| self.fail("unexpected '}'"))?;
        let name_line = self.number;
        let tools_and_kind = self.next().ok_or_else(|| self.fail("unexpected end-of-file (expecting tool:suppr)"))?;
        let (tools, kind) = tools_and_kind.split_once(':').ok_or_else(|| self.fail("malformed 'tool1,tool2,...:supp' line"))?;
        let ours = |tool: &str| tools.split(',').any(|listed| listed.trim() == tool);
        if !ours("Memcheck") {
            return self.skip();
        }
        let kind = kind_of(kind.trim()).ok_or_else(|| self.fail("unknown tool suppression type"))?;
        let (kind, first) = self.extra(kind)?;
        let frames = self.frames(first)?;
        Ok(Some(Rule { name: name.to_string(), file: self.shared.clone(), line: name_line, kind, frames }))
    }

    fn skip(&mut self) -> Result<Option<Rule>, ParseFailure> {
        while let Some(line) = self.next() {
            if line == "}" {
                return Ok(None);
            }
        }
        Err(self.fail("unexpected end-of-file (when reading stack trace)"))
    }

    /// The extra line of kinds that have one; also gives back a line that was read and turned out to be a frame.
    fn extra(&mut self, kind: RuleKind) -> Result<(RuleKind, Option<&'a str>), ParseFailure> {
        const BAD: &str = "bad or missing extra suppression info";
        match kind {
            RuleKind::Param(_) | RuleKind::Fishy(_) => {
                let line = self.next().ok_or_else(|| self.fail(BAD))?;
                if line == "}" || location(line).is_some() {
                    return Err(self.fail(BAD));
                }
                let fact = line.to_string();
                Ok((if matches!(kind, RuleKind::Param(_)) { RuleKind::Param(fact) } else { RuleKind::Fishy(fact) }, None))
            }
            RuleKind::Leak(_) => {
                let line = self.next().ok_or_else(|| self.fail(BAD))?;
                match line.strip_prefix("match-leak-kinds:") {
                    Some(set) => Ok((RuleKind::Leak(leak_kinds(set).ok_or_else(|| self.fail(BAD))?), None)),
                    None => Ok((RuleKind::Leak(Vec::new()), Some(line))),
                }
            }
            other => Ok((other, None)),
        }
    }

    fn frames(&mut self, first: Option<&'a str>) -> Result<Vec<FramePattern>, ParseFailure> {
        let mut frames = Vec::new();
        let mut pending = first;
        loop {
            let line = match pending.take().or_else(|| self.next()) {
                Some(line) => line,
                None => return Err(self.fail("unexpected end-of-file (when reading stack trace)")),
            };
            if line == "}" {
                break;
            }
            frames.push(
                location(line)
                    .ok_or_else(|| self.fail("location should be \"...\", or should start with \"fun:\", \"obj:\", or \"src:\""))?,
            );
        }
        if frames.is_empty() {
            return Err(self.fail("missing stack trace"));
        }
        if frames.iter().all(|frame| *frame == FramePattern::AnyFrames) {
            return Err(self.fail("suppression must contain at least one location line which is not \"...\""));
        }
        Ok(frames)
    }
}

fn kind_of(name: &str) -> Option<RuleKind> {
    let sized = |prefix: &str| {
        let size = name.strip_prefix(prefix)?.parse().ok()?;
        SIZES.contains(&size).then_some(size)
    };
    match name {
        "Param" => Some(RuleKind::Param(String::new())),
        "FishyValue" => Some(RuleKind::Fishy(String::new())),
        "Leak" => Some(RuleKind::Leak(Vec::new())),
        _ => {
            let named = NAMED_KINDS.iter().find(|(written, _)| *written == name).map(|(_, kind)| RuleKind::Named(kind));
            named.or_else(|| sized("Addr").map(RuleKind::Addr)).or_else(|| sized("Value").map(RuleKind::Value))
        }
    }
}

/// The kinds of a `match-leak-kinds:` line; empty stands for all.
fn leak_kinds(set: &str) -> Option<Vec<LeakKind>> {
    if set.trim() == "all" {
        return Some(Vec::new());
    }
    let kind = |word: &str| LeakKind::ALL.into_iter().find(|kind| kind.word() == word.trim());
    set.split(',').map(kind).collect()
}

/// `12`, `12x`; no number and 0 mean any line, as `*` does in rules that people write.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok().filter(|&line| line > 0)
}

fn location(line: &str) -> Option<FramePattern> {
    if line == "..." {
        return Some(FramePattern::AnyFrames);
    }
    let (tag, pattern) = line.split_once(':')?;
    match tag {
        "fun" => Some(FramePattern::Function(pattern.to_string())),
        "obj" => Some(FramePattern::Object(pattern.to_string())),
        "src" => {
            let (file, line) = pattern.rsplit_once(':').unwrap_or((pattern, ""));
            Some(FramePattern::Source { file: file.to_string(), line: leading_number(line) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule text and the mistake it contains; each was tried with the original.
    const MISTAKES: &[(&str, u32, &str)] = &[
        ("x\n", 1, "expected '{' or end-of-file"),
        ("{\n", 1, "unexpected '}'"),
        ("{\n}\n", 2, "unexpected '}'"),
        ("{\n n\n", 2, "unexpected end-of-file (expecting tool:suppr)"),
        ("{\n n\n MemcheckLeak\n fun:a\n}\n", 3, "malformed 'tool1,tool2,...:supp' line"),
        ("{\n n\n Memcheck:Foo\n fun:a\n}\n", 3, "unknown tool suppression type"),
        ("{\n n\n Memcheck:Value3\n fun:a\n}\n", 3, "unknown tool suppression type"),
        ("{\n n\n Memcheck:Leak\n match-leak-kinds: foo\n fun:a\n}\n", 4, "bad or missing extra suppression info"),
        ("{\n n\n Memcheck:Leak\n match-leak-kinds:\n fun:a\n}\n", 4, "bad or missing extra suppression info"),
        ("{\n n\n Memcheck:Param\n fun:a\n}\n", 4, "bad or missing extra suppression info"),
        ("{\n n\n Memcheck:Cond\n}\n", 4, "missing stack trace"),
        ("{\n n\n Memcheck:Cond\n", 3, "unexpected end-of-file (when reading stack trace)"),
        ("{\n n\n Memcheck:Cond\n ...\n}\n", 5, "suppression must contain at least one location line which is not \"...\""),
        ("{\n n\n Memcheck:Cond\n foo:bar\n}\n", 4, "location should be \"...\", or should start with \"fun:\", \"obj:\", or \"src:\""),
        ("{\n n\n Helgrind:Race\n junk\n}\n{\n n\n Memcheck:Cond\n fun:a\n", 9, "unexpected end-of-file (when reading stack trace)"),
    ];

    #[test]
    fn mistakes_are_named_with_their_line() {
        for &(text, line, what) in MISTAKES {
            let failure = parse("x.supp", text).expect_err(text);
            assert_eq!((failure.line, failure.what), (line, what), "{text}");
        }
    }

    #[test]
    fn a_mistake_reads_like_the_original() {
        let lines = parse("x.supp", "{\n n\n Memcheck:Foo\n fun:a\n}\n").expect_err("bad kind").lines();
        assert_eq!(lines, ["FATAL: in suppressions file \"x.supp\" near line 3:", "   unknown tool suppression type", "exiting now."]);
    }

    #[test]
    fn layout_is_free_and_other_tools_are_skipped() {
        let text = "# comment\n\n{ \n n \n\n # inner\n Helgrind,Memcheck:Cond  \n\tfun:a  \n src:a.c:12\n src:a:*\n src:a:0\n } \n\
                    {\nh\nHelgrind:Race\nwhatever\n}\n{\nc\nCoreError:Thread\nfun:a\n}\n";
        let rules = parse("x.supp", text).expect("well formed");
        assert_eq!(rules.len(), 1);
        assert_eq!((rules[0].name.as_str(), rules[0].line), ("n", 4));
        assert_eq!(
            rules[0].frames,
            [
                FramePattern::Function("a".into()),
                FramePattern::Source { file: "a.c".into(), line: Some(12) },
                FramePattern::Source { file: "a".into(), line: None },
                FramePattern::Source { file: "a".into(), line: None },
            ]
        );
    }

    #[test]
    fn leak_kinds_and_their_absence() {
        let kind = |extra: &str| parse("x", &format!("{{\nn\nMemcheck:Leak\n{extra}fun:a\n}}\n")).expect("well formed")[0].kind.clone();
        assert_eq!(kind(""), RuleKind::Leak(vec![]));
        assert_eq!(kind("match-leak-kinds:all\n"), RuleKind::Leak(vec![]));
        assert_eq!(kind("match-leak-kinds: definite,possible\n"), RuleKind::Leak(vec![LeakKind::Definite, LeakKind::Possible]));
    }
}
