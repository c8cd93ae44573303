//! How a bad command line is answered: whole lines, and the status to leave with.
//!
//! Scripts, IDEs and Valgrind's own users recognise these lines by their beginning (`valgrind: ` or `==PID== `), so the texts
//! are its texts; under our own name they begin with `memcheck: ` and suggest the nearest option.

use super::table;

/// Who speaks: the tool before anything runs, or a process whose log is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    Tool(&'static str),
    Process(u32),
}

impl Voice {
    pub fn line(self, text: &str) -> String {
        match self {
            Voice::Tool(name) => format!("{name}: {text}"),
            Voice::Process(pid) => format!("=={pid}== {text}"),
        }
    }
}

/// Why nothing will be run. `lines` are complete, for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    pub exit_code: i32,
    pub lines: Vec<String>,
}

/// Why a program cannot be started; the statuses are those of shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotStart {
    /// A bare name that no directory of `PATH` has.
    NotInPath,
    Missing,
    Directory,
    /// Not executable, or not a program.
    Denied,
}

const USE_HELP: &str = "Use --help for more information or consult the user manual.";

impl UsageError {
    pub fn new(exit_code: i32, lines: Vec<String>) -> Self {
        UsageError { exit_code, lines }
    }

    /// `Bad option: …`, the reasons, and where to read on.
    pub fn bad_option(voice: Voice, option: &str, why: &[&str]) -> Self {
        let headline = format!("Bad option: {option}");
        let texts = std::iter::once(headline.as_str()).chain(why.iter().copied()).chain([USE_HELP]);
        UsageError::new(1, texts.map(|text| voice.line(text)).collect())
    }

    pub fn unknown_option(voice: Voice, option: &str) -> Self {
        let mut lines = vec![voice.line(&format!("Unknown option: {option}"))];
        if voice == Voice::Tool("memcheck")
            && let Some(nearest) = nearest(option)
        {
            lines.push(voice.line(&format!("Did you mean {nearest}?")));
        }
        lines.push(voice.line(USE_HELP));
        UsageError::new(1, lines)
    }

    /// `--tool=` names something else.
    pub fn other_tool(voice: Voice, tool: &str) -> Self {
        UsageError::new(1, vec![voice.line(&format!("failed to start tool '{tool}': only memcheck is available"))])
    }

    pub fn no_program(voice: Voice) -> Self {
        UsageError::new(1, vec![voice.line("no program specified"), voice.line("Use --help for more information.")])
    }

    /// The program cannot be started.
    pub fn cannot_start(voice: Voice, program: &str, why: CannotStart) -> Self {
        let (reason, exit_code) = match why {
            CannotStart::NotInPath => ("command not found", 127),
            CannotStart::Missing => ("No such file or directory", 127),
            CannotStart::Directory => ("is a directory", 126),
            CannotStart::Denied => ("Permission denied", 126),
        };
        UsageError::new(exit_code, vec![voice.line(&format!("{program}: {reason}"))])
    }

    /// The first line without its prefix.
    pub fn headline(&self) -> &str {
        let line = self.lines.first().map_or("", String::as_str);
        line.split_once(": ").map_or(line, |(_, text)| text)
    }
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for UsageError {}

/// The option spelt most like `given`, if any is close: `--leak-chek=full` gives `--leak-check`.
fn nearest(given: &str) -> Option<String> {
    let name = given.trim_start_matches('-').split('=').next().unwrap_or(given);
    let candidates = table::rows().map(|row| (distance(name, row.name), row));
    let (far, row) = candidates.min_by_key(|(far, _)| *far)?;
    // A row that is right but for its missing or needless value is the best hint of all.
    (far <= 1 + name.len() / 4).then(|| row.usage())
}

/// Edit distance: insertions, deletions and substitutions cost one each.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_be_started() {
        let voice = Voice::Tool("valgrind");
        let answer = |program, why| {
            let error = UsageError::cannot_start(voice, program, why);
            (error.lines.join("|"), error.exit_code)
        };
        assert_eq!(answer("./x", CannotStart::Missing), ("valgrind: ./x: No such file or directory".into(), 127));
        assert_eq!(answer("x", CannotStart::NotInPath), ("valgrind: x: command not found".into(), 127));
        assert_eq!(answer("/tmp", CannotStart::Directory), ("valgrind: /tmp: is a directory".into(), 126));
        assert_eq!(answer("./a.c", CannotStart::Denied), ("valgrind: ./a.c: Permission denied".into(), 126));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("leak-chek", "leak-check", 1), ("a", "a", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_misspelling_finds_its_option_and_nonsense_does_not() {
        assert_eq!(nearest("--leak-chek=full").as_deref(), Some("--leak-check=<no|summary|yes|full>"));
        assert_eq!(nearest("--quite").as_deref(), Some("--quiet"));
        assert_eq!(nearest("--xyzzyplugh"), None);
    }
}
