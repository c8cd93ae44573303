//! The small vocabularies of option values.
//!
//! Each enumeration lists its words once; the table shows them in the help and `value` reads them.

use crate::error::LeakKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeakCheck {
    No,
    Summary,
    Full,
}

/// How many frames of two allocation stacks must agree for their leaks to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeakResolution {
    Low,
    Med,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenSuppressions {
    No,
    /// Ask for each finding.
    Ask,
    All,
}

/// What is made for people who sit at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If the log goes to one.
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackFds {
    No,
    Yes,
    /// Including the three standard descriptors.
    All,
    /// Only misuse, not what is left open.
    Bad,
}

/// The heap as a tree of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XtreeMemory {
    None,
    /// What is allocated.
    Allocs,
    /// What was ever allocated and freed, too.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepStacktraces {
    Alloc,
    Free,
    AllocAndFree,
    AllocThenFree,
    None,
}

/// A set of leak kinds, one bit each in the order of [`LeakKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakKindSet(pub u32);

impl LeakKindSet {
    pub const WORDS: &'static [&'static str] = &["definite", "indirect", "possible", "reachable"];
    pub const ALL: LeakKindSet = LeakKindSet(0b1111);
    /// Definite and possible.
    pub const DEFAULT: LeakKindSet = LeakKindSet(0b0101);

    fn bit(kind: LeakKind) -> u32 {
        LeakKind::ALL.iter().position(|other| *other == kind).map_or(0, |at| 1 << at)
    }

    pub fn contains(self, kind: LeakKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    pub fn with(self, kind: LeakKind, present: bool) -> Self {
        let bit = Self::bit(kind);
        LeakKindSet(if present { self.0 | bit } else { self.0 & !bit })
    }
}

/// A set of leak-search heuristics, one bit each in the order of `WORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeuristicSet(pub u32);

impl HeuristicSet {
    pub const WORDS: &'static [&'static str] = &["stdstring", "length64", "newarray", "multipleinheritance"];
    pub const ALL: HeuristicSet = HeuristicSet(0b1111);

    /// `name` as in `WORDS`.
    pub fn contains(self, name: &str) -> bool {
        Self::WORDS.iter().position(|word| *word == name).is_some_and(|at| self.0 & (1 << at) != 0)
    }
}

/// Formats of `--report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    Json,
    Github,
    Sarif,
}

impl ReportFormat {
    pub const WORDS: [(&'static str, ReportFormat); 3] =
        [("json", ReportFormat::Json), ("github", ReportFormat::Github), ("sarif", ReportFormat::Sarif)];
}

/// `--report=FORMAT[:FILE]`; without a file the report goes where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRequest {
    pub format: ReportFormat,
    /// A file name pattern.
    pub file: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_kinds_agree() {
        for (word, kind) in LeakKindSet::WORDS.iter().zip(LeakKind::ALL) {
            assert_eq!(*word, kind.word());
        }
        assert!(LeakKindSet::DEFAULT.contains(LeakKind::Definite) && LeakKindSet::DEFAULT.contains(LeakKind::Possible));
        assert!(!LeakKindSet::DEFAULT.contains(LeakKind::Indirect) && !LeakKindSet::DEFAULT.contains(LeakKind::Reachable));
        assert_eq!(LeakKindSet::DEFAULT.with(LeakKind::Possible, false), LeakKindSet(1));
    }
}
