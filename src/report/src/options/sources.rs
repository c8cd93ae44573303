//! Options from elsewhere than the command line: files in the home and current directory, environment variables.
//!
//! Order, later wins: home files, variables, files of the current directory. A file in the current directory may come from
//! anybody, so it is read only if it is a regular file, owned by the user and not writable by everybody; otherwise it is
//! skipped and two lines say so. In the files that are Valgrind's a word we do not know is a note, not a failure.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an options file looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RcFile {
    Absent,
    /// Exists, but must not be trusted.
    Unsafe,
    Text(String),
}

/// The world as far as options depend on it.
pub trait Env {
    fn var(&self, name: &str) -> Option<OsString>;
    /// `strict`: tell unsafe files apart.
    fn rc_file(&self, path: &Path, strict: bool) -> RcFile;
    /// Is this the same directory as the current one?
    fn is_current_dir(&self, path: &Path) -> bool;
}

/// The real one.
pub struct RealEnv;

impl Env for RealEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn rc_file(&self, path: &Path, strict: bool) -> RcFile {
        const WRITABLE_BY_ALL: u32 = 0o002;
        let Ok(metadata) = std::fs::symlink_metadata(path) else {
            return RcFile::Absent;
        };
        // Our own entry in /proc belongs to the effective user.
        let user = std::fs::metadata("/proc/self").map(|own| own.uid());
        let is_ours = user.is_ok_and(|user| user == metadata.uid());
        if strict && !(metadata.is_file() && is_ours && metadata.mode() & WRITABLE_BY_ALL == 0) {
            return RcFile::Unsafe;
        }
        // Reading a FIFO may never end.
        if !std::fs::metadata(path).is_ok_and(|target| target.is_file()) {
            return RcFile::Absent;
        }
        std::fs::read(path).map_or(RcFile::Absent, |bytes| RcFile::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn is_current_dir(&self, path: &Path) -> bool {
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        identity(path).is_some() && identity(path) == identity(Path::new("."))
    }
}

/// Option words from one place.
pub struct Source {
    pub name: String,
    pub words: Vec<OsString>,
    /// Unknown options are only worth a note.
    pub lenient: bool,
}

/// Base names of the files, with whether they are another tool's.
const FILES: [(&str, bool); 2] = [(".valgrindrc", true), (".memcheckrc", false)];
const VARIABLES: [(&str, bool); 2] = [("VALGRIND_OPTS", true), ("MEMCHECK_OPTS", false)];

/// All sources, in order. `notes` gets a line for each file that is skipped.
pub fn all(env: &dyn Env, notes: &mut Vec<String>) -> Vec<Source> {
    let mut found = Vec::new();
    let home = env.var("HOME").map(PathBuf::from);
    if let Some(home) = &home {
        for (base, lenient) in FILES {
            if let RcFile::Text(text) = env.rc_file(&home.join(base), false) {
                found.push(Source { name: format!("~/{base}"), words: file_words(&text), lenient });
            }
        }
    }
    for (variable, lenient) in VARIABLES {
        if let Some(value) = env.var(variable) {
            found.push(Source { name: format!("${variable}"), words: words(&value.to_string_lossy()), lenient });
        }
    }
    if home.is_some_and(|home| env.is_current_dir(&home)) {
        return found;
    }
    for (base, lenient) in FILES {
        match env.rc_file(&Path::new(".").join(base), true) {
            RcFile::Absent => {}
            RcFile::Text(text) => found.push(Source { name: format!("./{base}"), words: file_words(&text), lenient }),
            RcFile::Unsafe => {
                notes.push(format!("./{base} was not read as it is either not a regular file,"));
                notes.push("    or is world writeable, or is not owned by the current user.".to_string());
            }
        }
    }
    found
}

/// The words of a file: as `words`, without the lines that begin with `#`.
fn file_words(text: &str) -> Vec<OsString> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(words).collect()
}

/// Words separated by blanks; quotes of either kind keep blanks together and vanish.
fn words(text: &str) -> Vec<OsString> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => all.extend(word.take().map(OsString::from)),
            None => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word.map(OsString::from));
    all
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::collections::HashMap;

    /// An environment made of two tables.
    #[derive(Default)]
    pub struct FakeEnv {
        vars: HashMap<String, OsString>,
        files: HashMap<PathBuf, RcFile>,
    }

    impl FakeEnv {
        pub fn with(mut self, name: &str, value: &str) -> Self {
            self.vars.insert(name.to_string(), value.into());
            self
        }

        pub fn with_file(mut self, path: &str, file: RcFile) -> Self {
            self.files.insert(path.into(), file);
            self
        }
    }

    impl Env for FakeEnv {
        fn var(&self, name: &str) -> Option<OsString> {
            self.vars.get(name).cloned()
        }

        fn rc_file(&self, path: &Path, _strict: bool) -> RcFile {
            self.files.get(path).cloned().unwrap_or(RcFile::Absent)
        }

        fn is_current_dir(&self, path: &Path) -> bool {
            path == Path::new("/here")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::FakeEnv;
    use super::*;

    #[test]
    fn words_and_quotes() {
        assert_eq!(words(" -q  --a='b c'\t\"\" d"), ["-q", "--a=b c", "", "d"]);
        assert_eq!(file_words("-q # no comment\n  # --x\n-v\n"), ["-q", "#", "no", "comment", "-v"]);
    }

    #[test]
    fn order_and_safety() {
        let env = FakeEnv::default()
            .with("HOME", "/h")
            .with("VALGRIND_OPTS", "-v")
            .with_file("/h/.valgrindrc", RcFile::Text("--a".into()))
            .with_file("./.memcheckrc", RcFile::Text("--b".into()))
            .with_file("./.valgrindrc", RcFile::Unsafe);
        let mut notes = Vec::new();
        let names: Vec<_> = all(&env, &mut notes).into_iter().map(|source| source.name).collect();
        assert_eq!(names, ["~/.valgrindrc", "$VALGRIND_OPTS", "./.memcheckrc"]);
        assert_eq!(notes[0], "./.valgrindrc was not read as it is either not a regular file,");
    }

    #[test]
    fn the_home_directory_is_not_read_twice() {
        let env = FakeEnv::default().with("HOME", "/here").with_file("./.memcheckrc", RcFile::Text("-q".into()));
        assert!(all(&env, &mut Vec::new()).is_empty());
    }
}
