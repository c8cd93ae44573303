//! Suppressions: rules that say which findings nobody wants to see.
//!
//! A rule names a kind, for some kinds one more fact, and a pattern for the innermost frames; what lies beyond the pattern is
//! free. Rules come from files (`parse`), can be written for a finding (`generate`), and know the wildcards of `pattern`.
//!
//! The list is kept in the order of use: a rule that hits moves to the front, because findings come in swarms. Among rules
//! never used the last one loaded is asked first. A program with many rules and few findings spends its time in the
//! comparison of kinds, one integer compare per rule.
//!
//! Deliberately absent: any guess at intent. A rule that cannot be read is a failure with file and line, never skipped.

pub mod generate;
mod outline;
pub mod parse;
pub mod pattern;

use std::borrow::Borrow;
use std::sync::Arc;

use crate::error::{ErrorKind, LeakKind};
use crate::frame::{Frame, Stack};
use crate::leak::Tally;
use crate::names::Unnamed;

/// Rules that ship with the tool.
pub const DEFAULT_RULES: &str = include_str!("default.supp");
pub const DEFAULT_NAME: &str = "default.supp";

/// One pattern line of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FramePattern {
    Function(String),
    Object(String),
    Source {
        file: String,
        line: Option<u32>,
    },
    /// `...`: any number of frames, also none.
    AnyFrames,
}

/// The kind of a rule, with the extra facts that must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    Addr(u64),
    Value(u64),
    Param(String),
    Fishy(String),
    /// Empty: all kinds.
    Leak(Vec<LeakKind>),
    /// Kinds that are just a name: `Cond`, `Free`, `Jump`, ….
    Named(&'static str),
}

/// A rule as loaded.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub file: Arc<str>,
    /// Line of the rule's name in `file`, from 1.
    pub line: u32,
    pub kind: RuleKind,
    pub frames: Vec<FramePattern>,
}

impl Rule {
    /// Does this rule hide a finding of this kind with this stack?
    pub fn matches(&self, kind: &ErrorKind, stack: &Stack) -> bool {
        self.kind.matches(kind) && frames_match(&self.frames, &stack.0)
    }

    /// The same for a stack whose names are still to be found. Rules that ship with the tool must hold where there is no debug information,
    /// so they are compared with symbols only.
    fn matches_unnamed(&self, kind: &ErrorKind, stack: &mut Unnamed) -> bool {
        if !self.kind.matches(kind) {
            return false;
        }
        if &*self.file == DEFAULT_NAME {
            return outline::matches_symbols(&self.frames, stack.outline());
        }
        outline::may_match(&self.frames, stack.outline()) && frames_match(&self.frames, &stack.full().0)
    }
}

impl RuleKind {
    fn matches(&self, kind: &ErrorKind) -> bool {
        match (self, kind) {
            (RuleKind::Addr(size), ErrorKind::Read { .. } | ErrorKind::Write { .. }) => kind.suppression_kind() == format!("Addr{size}"),
            (RuleKind::Value(size), ErrorKind::Value { .. }) => kind.suppression_kind() == format!("Value{size}"),
            (RuleKind::Param(rule), ErrorKind::ParamRegister { name } | ErrorKind::ParamMemory { name, .. }) => {
                rule == name || same_parameter(rule, name)
            }
            (RuleKind::Fishy(rule), ErrorKind::Fishy { .. }) => kind.suppression_extra().as_deref() == Some(rule),
            (RuleKind::Leak(kinds), ErrorKind::Leak(kind)) => kinds.is_empty() || kinds.contains(kind),
            (RuleKind::Named(name), _) => *name == kind.facts().suppression,
            _ => false,
        }
    }
}

/// Are two parameter names spellings of the same thing? Versions differ in the `socketcall.` prefix and in how they write an
/// index (`msg_iov[i]`, `msg_iov[0]`).
fn same_parameter(a: &str, b: &str) -> bool {
    normal_parameter(a) == normal_parameter(b)
}

fn normal_parameter(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut in_index = false;
    for c in name.strip_prefix("socketcall.").unwrap_or(name).chars() {
        in_index = in_index && c != ']';
        if !in_index {
            out.push(c);
        }
        in_index = in_index || c == '[';
    }
    out
}

/// Prefix match with `...`, by the same single-retry scheme as the wildcards: each frame pattern consumes one frame, so only
/// the last `...` can usefully take more.
fn frames_match<F: Borrow<Frame>>(patterns: &[FramePattern], frames: &[F]) -> bool {
    let (mut p, mut f) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match patterns.get(p) {
            None => return true,
            Some(FramePattern::AnyFrames) => {
                p += 1;
                retry = Some((p, f));
            }
            Some(pattern) => match frames.get(f) {
                None => return false,
                Some(frame) if pattern.matches(frame.borrow()) => {
                    p += 1;
                    f += 1;
                }
                Some(_) => {
                    let Some((after, taken)) = retry else {
                        return false;
                    };
                    retry = Some((after, taken + 1));
                    (p, f) = (after, taken + 1);
                }
            },
        }
    }
}

impl FramePattern {
    fn matches(&self, frame: &Frame) -> bool {
        match self {
            FramePattern::AnyFrames => true,
            FramePattern::Function(glob) => function_matches(glob, frame),
            FramePattern::Object(glob) if frame.replaced => REPLACEMENTS.iter().any(|path| pattern::matches(glob, path)),
            FramePattern::Object(glob) => pattern::matches(glob, frame.object_text().as_deref().unwrap_or("???")),
            FramePattern::Source { file, line } => line.is_none_or(|line| frame.line == Some(line)) && source_matches(file, frame),
        }
    }
}

/// A rule may give the name of the file as reports print it, its last part, or the whole path.
fn source_matches(glob: &str, frame: &Frame) -> bool {
    let Some(printed) = frame.file.as_deref() else {
        return false;
    };
    let other = if glob.contains('/') { frame.full_path() } else { frame.file_name().map(str::to_string) };
    pattern::matches(glob, printed) || other.is_some_and(|name| pattern::matches(glob, &name))
}

/// Where rules that were written for Valgrind expect the functions that it replaces. `obj:*/libc.so*` must not mean every `malloc`.
const REPLACEMENTS: [&str; 2] =
    ["/usr/lib/valgrind/vgpreload_memcheck-amd64-linux.so", "/usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so"];

/// Replaced functions that stacks show by the first name: rules may know them by the second.
const SAME_STAND_IN: [[&str; 2]; 5] =
    [["memmove", "memcpy"], ["bcmp", "memcmp"], ["rindex", "strrchr"], ["index", "strchr"], ["memset", "bzero"]];

/// What rules call start-up code.
pub const BELOW_MAIN: &str = "(below main)";

/// Names are compared raw. A rule may or may not give the symbol version (`pthread_create@@GLIBC_2.34`), and old files call
/// everything under `main` `(below main)`.
fn function_matches(glob: &str, frame: &Frame) -> bool {
    let Some(name) = frame.suppression_name() else {
        return pattern::matches(glob, "???");
    };
    if pattern::matches(glob, name) || (glob == BELOW_MAIN && frame.is_below_main()) {
        return true;
    }
    let other = SAME_STAND_IN.iter().find(|[shown, _]| frame.replaced && *shown == name);
    if other.is_some_and(|[_, called]| pattern::matches(glob.split('@').next().unwrap_or(glob), called)) {
        return true;
    }
    match (glob.split_once('@'), name.split_once('@')) {
        (Some((glob, _)), None) => pattern::matches(glob, name),
        (None, Some((name, _))) => pattern::matches(glob, name),
        _ => false,
    }
}

/// How often a rule was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub count: u64,
    /// For leak rules: what was hidden.
    pub leaked: Tally,
}

/// The rules in force for one process, with their counters. Rules are shared between processes, counters are not: a forked
/// child clones the set and goes on counting from its parent's numbers.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    rules: Arc<Vec<Rule>>,
    usage: Vec<Usage>,
    /// Rule numbers, most recently used first.
    order: Vec<usize>,
}

impl Suppressions {
    pub fn new(rules: Vec<Rule>) -> Self {
        let count = rules.len();
        Suppressions { rules: Arc::new(rules), usage: vec![Usage::default(); count], order: (0..count).rev().collect() }
    }

    /// The same rules, never used: for a process that has just called exec.
    pub fn fresh(&self) -> Self {
        let count = self.rules.len();
        Suppressions { rules: self.rules.clone(), usage: vec![Usage::default(); count], order: (0..count).rev().collect() }
    }

    /// The number of the rule that hides this finding; counts the use.
    pub fn find(&mut self, kind: &ErrorKind, stack: &Stack) -> Option<usize> {
        self.find_by(|rule| rule.matches(kind, stack))
    }

    /// The same for a stack whose names are found as far as the rules need them.
    pub fn find_unnamed(&mut self, kind: &ErrorKind, stack: &mut Unnamed) -> Option<usize> {
        self.find_by(|rule| rule.matches_unnamed(kind, stack))
    }

    fn find_by(&mut self, mut matches: impl FnMut(&Rule) -> bool) -> Option<usize> {
        let at = self.order.iter().position(|&number| matches(&self.rules[number]))?;
        let number = self.order.remove(at);
        self.order.insert(0, number);
        self.usage[number].count += 1;
        Some(number)
    }

    /// Counts another use of a rule that [`Suppressions::find`] gave.
    pub fn count_again(&mut self, number: usize) {
        self.usage[number].count += 1;
    }

    pub fn count_leak(&mut self, number: usize, leaked: Tally) {
        self.usage[number].leaked.add(leaked);
    }

    pub fn rule(&self, number: usize) -> &Rule {
        &self.rules[number]
    }

    /// Used rules, most recently used first.
    pub fn used(&self) -> impl Iterator<Item = (&Rule, Usage)> {
        self.order.iter().map(|&number| (&self.rules[number], self.usage[number])).filter(|(_, usage)| usage.count > 0)
    }

    /// Rules from the user's files that hid nothing, in file order.
    pub fn unused(&self) -> impl Iterator<Item = &Rule> {
        let unused = self.rules.iter().zip(&self.usage).filter(|(rule, usage)| usage.count == 0 && &*rule.file != DEFAULT_NAME);
        unused.map(|(rule, _)| rule)
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorRecord;
    use crate::frame::testing::{frame, library_frame};

    fn rules(text: &str) -> Suppressions {
        Suppressions::new(parse::parse("x.supp", text).expect("test rules are well formed"))
    }

    fn stack() -> Stack {
        Stack(vec![library_frame(1, "malloc", "/lib/heap.so"), frame(2, "make", "table.c", 7), frame(3, "main", "table.c", 21)])
    }

    fn hits(text: &str, record: &ErrorRecord) -> bool {
        rules(text).find(&record.kind, &record.stack).is_some()
    }

    #[test]
    fn frames_are_a_prefix_and_dots_take_any_number() {
        let record = ErrorRecord::condition(1, stack());
        for (frames, expected) in [
            ("fun:malloc", true),
            ("fun:make", false),
            ("...\nfun:main", true),
            ("...\nfun:malloc\n...\nfun:main", true),
            ("fun:m*\nfun:m?ke", true),
            ("obj:*/heap.so\nobj:/bin/prog", true),
            ("fun:malloc\nsrc:table.c:7", true),
            ("fun:malloc\nsrc:table.c:8", false),
            ("fun:malloc\nsrc:*.c\nfun:main\nfun:more", false),
            ("fun:malloc\n...\nfun:make\nfun:main", true),
            ("...\nfun:nope", false),
            ("fun:malloc\nsrc:/src/ta*", true),
        ] {
            assert_eq!(hits(&format!("{{\nn\nMemcheck:Cond\n{frames}\n}}\n"), &record), expected, "{frames}");
        }
    }

    #[test]
    fn replaced_functions_are_not_in_the_library_that_they_replace() {
        let malloc = library_frame(1, "malloc", "/lib/libc.so.6").with(|line| line.replaced = true);
        let stack = Stack(vec![malloc, frame(2, "make", "table.c", 7), frame(3, "main", "table.c", 21)]);
        let found = |frames: &str| {
            rules(&format!("{{\nn\nMemcheck:Leak\n{frames}\n}}\n")).find(&ErrorKind::Leak(LeakKind::Definite), &stack).is_some()
        };
        assert!(!found("...\nobj:*/libc.so*"), "it would hide every leak");
        assert!(found("obj:*vgpreload_memcheck*\nobj:/bin/prog"));
        assert!(found("fun:malloc\nfun:make"));
        let copy = Stack(vec![library_frame(1, "memmove", "/lib/libc.so.6").with(|line| line.replaced = true)]);
        let hides =
            |name: &str| rules(&format!("{{\nn\nMemcheck:Addr8\nfun:{name}\n}}\n")).find(&ErrorKind::Read { size: 8 }, &copy).is_some();
        assert_eq!(["memmove", "memcpy", "memcpy@*", "memset"].map(hides), [true, true, true, false], "of one stand-in");
    }

    #[test]
    fn unnamed_frames_are_question_marks() {
        let record = ErrorRecord::condition(1, Stack(vec![Frame::unknown(9)]));
        assert!(hits("{\nn\nMemcheck:Cond\nfun:???\n}\n", &record));
        assert!(hits("{\nn\nMemcheck:Cond\nobj:*\n}\n", &record));
    }

    #[test]
    fn versions_and_below_main_are_understood() {
        let versioned = ErrorRecord::condition(1, Stack(vec![library_frame(1, "pthread_create@@GLIBC_2.34", "/l")]));
        let plain = ErrorRecord::condition(1, Stack(vec![library_frame(1, "pthread_create", "/l")]));
        for record in [&versioned, &plain] {
            assert!(hits("{\nn\nMemcheck:Cond\nfun:pthread_create@*\n}\n", record));
            assert!(hits("{\nn\nMemcheck:Cond\nfun:pthread_create\n}\n", record));
        }
        let start = ErrorRecord::condition(1, Stack(vec![library_frame(1, "__libc_start_main", "/l")]));
        assert!(hits("{\nn\nMemcheck:Cond\nfun:(below main)\n}\n", &start));
    }

    #[test]
    fn kinds_and_their_facts() {
        let read = ErrorRecord::invalid_read(8, 1, stack());
        assert!(hits("{\nn\nMemcheck:Addr8\nfun:malloc\n}\n", &read));
        assert!(!hits("{\nn\nMemcheck:Addr4\nfun:malloc\n}\n", &read));
        assert!(hits("{\nn\nMemcheck:Value0\nfun:malloc\n}\n", &ErrorRecord::condition(1, stack())));
        assert!(hits("{\nn\nMemcheck:Free\nfun:malloc\n}\n", &ErrorRecord::mismatched_free(1, stack())));
        let param = ErrorRecord::param_memory("sendmsg(msg.msg_iov[0])", false, 1, stack());
        assert!(hits("{\nn\nMemcheck:Param\nsocketcall.sendmsg(msg.msg_iov[i])\nfun:malloc\n}\n", &param));
        assert!(!hits("{\nn\nMemcheck:Param\nsendmsg(msg)\nfun:malloc\n}\n", &param));
        let fishy = ErrorRecord::fishy("malloc", "size", u64::MAX, 1, stack());
        assert!(hits("{\nn\nMemcheck:FishyValue\nmalloc(size)\nfun:malloc\n}\n", &fishy));
        assert!(!hits("{\nn\nMemcheck:FishyValue\nrealloc(size)\nfun:malloc\n}\n", &fishy));
        let kind = ErrorKind::Leak(LeakKind::Possible);
        assert!(rules("{\nn\nMemcheck:Leak\nfun:malloc\n}\n").find(&kind, &stack()).is_some());
        assert!(rules("{\nn\nMemcheck:Leak\nmatch-leak-kinds: definite\nfun:malloc\n}\n").find(&kind, &stack()).is_none());
    }

    /// Knows `malloc` without, and `make` with debug information; counts what is asked.
    #[derive(Default)]
    struct Counting {
        outlines: usize,
        full: usize,
    }

    impl crate::names::Names for Counting {
        fn outline(&mut self, _: &[u64]) -> Stack {
            self.outlines += 1;
            let make = library_frame(2, "make", "/bin/prog");
            let open = make.clone().with(|line| (line.inlined, line.function, line.raw_name) = (true, None, None));
            Stack(vec![library_frame(1, "malloc", "/lib/heap.so"), open, make])
        }

        fn full(&mut self, _: &[u64]) -> Stack {
            self.full += 1;
            let inlined = frame(2, "tiny", "table.c", 3).with(|line| line.inlined = true);
            Stack(vec![library_frame(1, "malloc", "/lib/heap.so"), inlined, frame(2, "make", "table.c", 7)])
        }
    }

    #[test]
    fn names_are_found_as_far_as_rules_need_them() {
        let addresses = [1, 2];
        let kind = ErrorKind::Leak(LeakKind::Definite);
        let try_rule = |text: &str| {
            let mut names = Counting::default();
            let hit = rules(text).find_unnamed(&kind, &mut Unnamed::new(&addresses, &mut names)).is_some();
            (hit, names.outlines, names.full)
        };
        let rule = |frames: &str| try_rule(&format!("{{\nn\nMemcheck:Leak\n{frames}\n}}\n"));
        assert_eq!(try_rule("{\nn\nMemcheck:Leak\nmatch-leak-kinds: possible\nfun:malloc\n}\n"), (false, 0, 0));
        assert_eq!(rule("fun:calloc"), (false, 1, 0));
        assert_eq!(rule("fun:malloc\nfun:tiny\nfun:make"), (true, 1, 1));
        assert_eq!(rule("fun:malloc\nfun:make"), (false, 1, 1), "a function lies between them");
        assert_eq!(rule("fun:malloc\nsrc:table.c:3"), (true, 1, 1));
        let mut shipped =
            Suppressions::new(parse::parse(DEFAULT_NAME, "{\nn\nMemcheck:Leak\nfun:malloc\nfun:make\n}\n").expect("well formed"));
        let mut names = Counting::default();
        assert!(shipped.find_unnamed(&kind, &mut Unnamed::new(&addresses, &mut names)).is_some(), "symbols only");
        assert_eq!((names.outlines, names.full), (1, 0));
    }

    #[test]
    fn the_last_loaded_is_asked_first_and_then_the_last_used() {
        let mut set = rules("{\na\nMemcheck:Cond\nfun:malloc\n}\n{\nb\nMemcheck:Cond\nfun:*\n}\n{\nc\nMemcheck:Free\nfun:*\n}\n");
        assert_eq!(set.find(&ErrorKind::Cond, &stack()), Some(1));
        assert_eq!(set.find(&ErrorKind::InvalidFree, &stack()), Some(2));
        assert_eq!(set.find(&ErrorKind::Cond, &stack()), Some(1));
        let used: Vec<_> = set.used().map(|(rule, usage)| (rule.name.clone(), usage.count)).collect();
        assert_eq!(used, [("b".to_string(), 2), ("c".to_string(), 1)]);
        assert_eq!(set.unused().map(|rule| (rule.name.as_str(), rule.line)).collect::<Vec<_>>(), [("a", 2)]);
    }

    #[test]
    fn the_shipped_rules_are_well_formed() {
        assert!(!parse::parse(DEFAULT_NAME, DEFAULT_RULES).expect("shipped file").is_empty());
    }
}
