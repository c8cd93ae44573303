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
    /// Somebody else puts a prefix in front.
    Bare,
}

impl Voice {
    /// The tool under the name that it is called by.
    pub fn of_tool(compat: bool) -> Voice {
        Voice::Tool(if compat { "valgrind" } else { "memcheck" })
    }

    pub fn line(self, text: &str) -> String {
        match self {
            Voice::Tool(name) => format!("{name}: {text}"),
            Voice::Process(pid) => format!("=={pid}== {text}"),
            Voice::Bare => text.to_owned(),
        }
    }
}

/// Why nothing will be run. `lines` are complete, for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    pub exit_code: i32,
    pub lines: Vec<String>,
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
        let why = if voice == Voice::Tool("valgrind") {
            format!("failed to start tool '{tool}' for platform 'amd64-linux': No such file or directory")
        } else {
            format!("failed to start tool '{tool}': only memcheck is available")
        };
        UsageError::new(1, vec![voice.line(&why)])
    }

    pub fn no_program(voice: Voice) -> Self {
        UsageError::new(1, vec![voice.line("no program specified"), voice.line("Use --help for more information.")])
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
