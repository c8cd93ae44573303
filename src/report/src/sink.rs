//! Where bytes go: a duplicate of stderr, another descriptor, a file named by a pattern, a socket, or nowhere.
//!
//! A [`Sink`] is shared: processes that report to the same place hold clones of it, and each burst of lines (one finding, one
//! summary) is one write under one lock, so reports of several processes never interleave inside a finding.
//!
//! ```text
//! --log-file=run.%p.log       %p process id, %n running number, %q{VAR} environment, %% percent
//!                             with %p a forked child opens its own file, otherwise it shares its parent's
//! ```
//!
//! A file that *this run* has written before is appended to when it is opened again: the process id survives exec, and the
//! findings before it must not be lost. Files of earlier runs are truncated. A destination that fails (full disk, reader
//! gone) costs one line on stderr, and what could not be written goes there; the run goes on, and later writes are tried again.
//!
//! Nothing else in this crate writes anywhere. All descriptors are close-on-exec, so the traced program never sees them; that
//! program is another process, so it can close its own stderr without silencing ours.

#![allow(unsafe_code, reason = "a descriptor given by number on the command line is borrowed raw once, to duplicate it")]

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::options::{Env, UsageError, Voice};

/// A destination as the options name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    #[default]
    Stderr,
    /// Negative: nowhere.
    Descriptor(i32),
    /// A file name pattern.
    File(String),
    /// `address[:port]`
    Socket(String),
}

impl Destination {
    pub fn descriptor(number: i32) -> Self {
        if number == 2 { Destination::Stderr } else { Destination::Descriptor(number) }
    }
}

/// Which option a destination came from; for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationName {
    /// `--log-file`
    pub option: &'static str,
    /// `log`, `XML`
    pub noun: &'static str,
}

pub const LOG: DestinationName = DestinationName { option: "--log-file", noun: "log" };
pub const XML: DestinationName = DestinationName { option: "--xml-file", noun: "XML" };

const DEFAULT_PORT: u16 = 1500;
/// So much is gathered at most, and what came last.
const GATHERED_BYTES: usize = 64 << 10;
/// A log server that has not answered by then is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

enum Target {
    Nowhere,
    File(File),
    Socket(TcpStream),
    Memory(Arc<Mutex<Vec<u8>>>),
}

struct Inner {
    target: Target,
    /// What waits while somebody gathers.
    gathered: Option<Vec<u8>>,
    noun: &'static str,
    complained: bool,
}

/// A place to write to; clones share it.
#[derive(Clone)]
pub struct Sink {
    inner: Arc<Mutex<Inner>>,
    /// The log is not the terminal the program runs on: the banner then names the parent.
    pub detached: bool,
}

impl Sink {
    fn new(target: Target, noun: &'static str, detached: bool) -> Self {
        Sink { inner: Arc::new(Mutex::new(Inner { target, gathered: None, noun, complained: false })), detached }
    }

    /// Swallows everything.
    pub fn nowhere() -> Self {
        Sink::new(Target::Nowhere, "log", false)
    }

    /// Collects everything in memory; for tests and for documents that are assembled at the end.
    pub fn memory() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        (Sink::new(Target::Memory(bytes.clone()), "log", false), bytes)
    }

    /// Writes a burst of complete lines at once. Never fails: see the module's essay.
    pub fn write(&self, burst: &str) {
        if burst.is_empty() {
            return;
        }
        let mut inner = lock(&self.inner);
        let Some(gathered) = &mut inner.gathered else { return inner.write(burst.as_bytes()) };
        gathered.extend_from_slice(burst.as_bytes());
        if gathered.len() >= GATHERED_BYTES {
            inner.write_gathered();
        }
    }

    /// Until the answer is dropped, bursts are written together: a hundred thousand of them would cost more to hand over than to compose.
    pub fn gather(&self) -> Gathering {
        lock(&self.inner).gathered.get_or_insert_default();
        Gathering(self.clone())
    }

    /// Do both write to the same place?
    pub fn same_as(&self, other: &Sink) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

/// See [`Sink::gather`].
pub struct Gathering(Sink);

impl Drop for Gathering {
    fn drop(&mut self) {
        let mut inner = lock(&self.0.inner);
        inner.write_gathered();
        inner.gathered = None;
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) {
        let Err(failure) = self.target.write(bytes) else { return };
        // Nobody is left to tell if stderr fails too.
        let mut stderr = io::stderr().lock();
        if !std::mem::replace(&mut self.complained, true) {
            let (noun, reason) = (self.noun, io_reason(&failure));
            let _ = writeln!(stderr, "memcheck: cannot write to the {noun} destination: {reason}; what cannot be written follows here");
        }
        let _ = stderr.write_all(bytes);
    }

    fn write_gathered(&mut self) {
        if let Some(mut bytes) = self.gathered.take() {
            self.write(&bytes);
            bytes.clear();
            self.gathered = Some(bytes);
        }
    }
}

/// A panic elsewhere while holding the lock leaves at worst half a line: go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Nowhere => Ok(()),
            Target::File(file) => file.write_all(bytes),
            Target::Socket(stream) => stream.write_all(bytes),
            Target::Memory(memory) => {
                lock(memory).extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// Opens destinations for the processes of one run and remembers which files it has written.
#[derive(Clone)]
pub struct Opener {
    /// Says what cannot be opened.
    voice: Voice,
    opened: Arc<Mutex<Opened>>,
    /// Empty: the current directory.
    pub start_dir: PathBuf,
}

#[derive(Default)]
struct Opened {
    written: HashSet<PathBuf>,
    running_number: u64,
}

impl Opener {
    /// Relative file names are relative to `start_dir`.
    pub fn at(start_dir: PathBuf, voice: Voice) -> Self {
        Opener { voice, opened: Arc::default(), start_dir }
    }

    /// Opens `destination` for process `pid`. A socket nobody listens at falls back to stderr; `notes` then says so, in lines
    /// for the log.
    pub fn open(
        &self,
        destination: &Destination,
        name: DestinationName,
        pid: u32,
        env: &dyn Env,
        notes: &mut Vec<String>,
    ) -> Result<Sink, UsageError> {
        match destination {
            Destination::Stderr => Ok(Sink::new(duplicate(io::stderr().as_fd()), name.noun, false)),
            Destination::Descriptor(number) if *number < 0 => Ok(Sink::nowhere()),
            Destination::Descriptor(number) => Ok(self.descriptor(*number, name, notes)),
            Destination::File(pattern) => self.file(pattern, name, pid, env),
            Destination::Socket(spec) => {
                socket(spec, name, self.voice, notes, &|address| TcpStream::connect_timeout(&address, CONNECT_PATIENCE))
            }
        }
    }

    fn descriptor(&self, number: i32, name: DestinationName, notes: &mut Vec<String>) -> Sink {
        match inherited(number) {
            Ok(file) => Sink::new(Target::File(file), name.noun, false),
            Err(_) => {
                notes.push(format!("File descriptor {number} cannot be used for the {}, using stderr.", name.noun));
                Sink::new(duplicate(io::stderr().as_fd()), name.noun, false)
            }
        }
    }

    fn file(&self, pattern: &str, name: DestinationName, pid: u32, env: &dyn Env) -> Result<Sink, UsageError> {
        let shown = self.expanded(pattern, name, pid, env)?;
        self.create(&self.start_dir.join(&shown), name).map_err(|failure| {
            let reason = io_reason(&failure);
            UsageError::new(1, vec![self.voice.line(&format!("Cannot create {} file '{shown}': {reason}", name.noun))])
        })
    }

    /// The file that a pattern means for process `pid`.
    pub fn path(&self, pattern: &str, name: DestinationName, pid: u32, env: &dyn Env) -> Result<PathBuf, UsageError> {
        self.expanded(pattern, name, pid, env).map(|shown| self.start_dir.join(shown))
    }

    fn expanded(&self, pattern: &str, name: DestinationName, pid: u32, env: &dyn Env) -> Result<String, UsageError> {
        let mut opened = lock(&self.opened);
        let expanded = expand(pattern, name.option, pid, opened.running_number + 1, env)?;
        if expanded.numbered {
            opened.running_number += 1;
        }
        Ok(expanded.path)
    }

    /// A file that this run has written before is continued.
    pub fn create(&self, path: &Path, name: DestinationName) -> io::Result<Sink> {
        let mut opened = lock(&self.opened);
        let again = opened.written.contains(path);
        let file = OpenOptions::new().create(true).write(true).truncate(!again).append(again).open(path)?;
        opened.written.insert(path.to_owned());
        Ok(Sink::new(Target::File(file), name.noun, true))
    }
}

/// Does a forked child get a file of its own?
pub fn is_per_process(destination: &Destination) -> bool {
    let Destination::File(pattern) = destination else {
        return false;
    };
    let mut rest = pattern.as_str();
    while let Some(at) = rest.find('%') {
        match rest.as_bytes().get(at + 1) {
            Some(b'p') => return true,
            Some(_) => rest = rest.get(at + 2..).unwrap_or(""),
            None => return false,
        }
    }
    false
}

/// The message of the system without its number.
pub fn io_reason(failure: &io::Error) -> String {
    let text = failure.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

/// A descriptor that our caller left open for us, by its number (not negative). The position in the file is shared with everybody who has it.
pub fn inherited(number: i32) -> io::Result<File> {
    // SAFETY: the number comes from the command line; if it names no open descriptor, duplicating it fails, which is handled. The borrow
    // ends with this function, and nothing closes the descriptor in the meantime.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map(File::from)
}

fn duplicate(fd: BorrowedFd<'_>) -> Target {
    // Stderr may be closed: then there is nobody to tell anything.
    fd.try_clone_to_owned().map_or(Target::Nowhere, |owned| Target::File(File::from(owned)))
}

type Connect<'a> = &'a dyn Fn(SocketAddr) -> io::Result<TcpStream>;

fn socket(spec: &str, name: DestinationName, voice: Voice, notes: &mut Vec<String>, connect: Connect<'_>) -> Result<Sink, UsageError> {
    let option = name.option.replace("-file", "-socket");
    let invalid = || UsageError::new(1, vec![voice.line(&format!("Invalid {option} spec of '{spec}'"))]);
    let (host, port) = match spec.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| invalid())?),
        None => (spec, DEFAULT_PORT),
    };
    // The resolver takes 1.2.3 for 1.2.0.3, and nobody would hear of the slip.
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(invalid());
    }
    let address = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(invalid)?;
    Ok(match connect(address) {
        Ok(stream) => Sink::new(Target::Socket(stream), name.noun, true),
        Err(_) => {
            notes.push(format!("Failed to connect to logging server '{spec}'."));
            notes.push("Logging messages will be sent to stderr instead.".to_string());
            Sink::new(duplicate(io::stderr().as_fd()), name.noun, false)
        }
    })
}

struct Expanded {
    path: String,
    /// `%n` occurred.
    numbered: bool,
}

/// A file name pattern with everything filled in.
fn expand(pattern: &str, option: &str, pid: u32, number: u64, env: &dyn Env) -> Result<Expanded, UsageError> {
    let bad = |why: &[&str]| UsageError::bad_option(Voice::Process(pid), &format!("{option}={pattern}"), why);
    if pattern.is_empty() {
        return Err(bad(&["No filename given"]));
    }
    if pattern.starts_with('~') {
        return Err(bad(&[
            "Filename begins with '~'",
            "You probably expected the shell to expand the '~', but it",
            "didn't.  The rules for '~'-expansion vary from shell to shell.",
            "You might have more luck using $HOME instead.",
        ]));
    }
    let mut out = Expanded { path: String::new(), numbered: false };
    let mut rest = pattern;
    while let Some((plain, special)) = rest.split_once('%') {
        out.path.push_str(plain);
        let mut letters = special.chars();
        rest = match letters.next() {
            Some('p') => {
                out.path.push_str(&pid.to_string());
                letters.as_str()
            }
            Some('n') => {
                out.numbered = true;
                out.path.push_str(&number.to_string());
                letters.as_str()
            }
            Some('%') => {
                out.path.push('%');
                letters.as_str()
            }
            Some('q') => {
                let Some(braced) = letters.as_str().strip_prefix('{') else {
                    return Err(bad(&["Expected '{' after '%q'"]));
                };
                let Some((variable, after)) = braced.split_once('}') else {
                    return Err(bad(&["Missing '}' in %q specifier"]));
                };
                let Some(value) = env.var(variable) else {
                    return Err(bad(&[&format!("Environment variable '{variable}' is not set")]));
                };
                out.path.push_str(&value.to_string_lossy());
                after
            }
            _ => return Err(bad(&["Expected 'p' or 'q' or '%' after '%'"])),
        };
    }
    out.path.push_str(rest);
    Ok(out)
}

/// `%q` variables of a pattern with their values, for formats that record them.
pub fn qualifiers(pattern: &str, env: &dyn Env) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = pattern;
    while let Some((_, after)) = rest.split_once("%q{") {
        let Some((variable, next)) = after.split_once('}') else {
            break;
        };
        let value = env.var(variable).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((variable.to_string(), value));
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::testing::FakeEnv;

    fn expanded(pattern: &str) -> Result<String, Vec<String>> {
        let env = FakeEnv::default().with("WHO", "me");
        expand(pattern, "--log-file", 42, 7, &env).map(|e| e.path).map_err(|e| e.lines)
    }

    #[test]
    fn patterns() {
        assert_eq!(expanded("a.%p.%q{WHO}.%n%%"), Ok("a.42.me.7%".to_string()));
        assert_eq!(
            expanded("%x"),
            Err(vec![
                "==42== Bad option: --log-file=%x".to_string(),
                "==42== Expected 'p' or 'q' or '%' after '%'".to_string(),
                "==42== Use --help for more information or consult the user manual.".to_string(),
            ])
        );
        assert_eq!(expanded("%q{FOO}").unwrap_err()[1], "==42== Environment variable 'FOO' is not set");
        assert_eq!(expanded("~/x").unwrap_err().len(), 6);
        assert!(expanded("a%").is_err());
    }

    #[test]
    fn a_child_gets_its_own_file_only_with_the_pid_in_the_name() {
        let file = |name: &str| is_per_process(&Destination::File(name.into()));
        assert!(file("a.%p"));
        assert!(!file("a.%%p"));
        assert!(!file("a.%q{p}"));
        assert!(!is_per_process(&Destination::Stderr));
    }

    /// A fresh directory of this test process.
    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("memcheck-sink-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temporary directory");
        dir
    }

    #[test]
    fn a_file_of_this_run_is_continued_and_an_older_one_replaced() {
        let dir = scratch("append");
        std::fs::write(dir.join("log"), "old\n").expect("write");
        let opener = Opener::at(dir.clone(), Voice::of_tool(false));
        let open = || opener.open(&Destination::File("log".into()), LOG, 1, &FakeEnv::default(), &mut Vec::new()).expect("opens");
        open().write("before exec\n");
        open().write("after exec\n");
        assert_eq!(std::fs::read_to_string(dir.join("log")).expect("read"), "before exec\nafter exec\n");
        std::fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn a_missing_directory_is_a_usage_error() {
        let opener = Opener::at(scratch("missing"), Voice::of_tool(true));
        let result = opener.open(&Destination::File("nodir/x".into()), LOG, 1, &FakeEnv::default(), &mut Vec::new());
        let error = result.err().expect("no such directory");
        assert_eq!(error.lines, ["valgrind: Cannot create log file 'nodir/x': No such file or directory"]);
        assert_eq!(error.exit_code, 1);
        std::fs::remove_dir_all(&opener.start_dir).expect("clean up");
    }

    #[test]
    fn a_full_disk_does_not_stop_anything() {
        let opener = Opener::at(PathBuf::new(), Voice::of_tool(false));
        let full = opener.open(&Destination::File("/dev/full".into()), LOG, 1, &FakeEnv::default(), &mut Vec::new());
        let Ok(sink) = full else { return }; // no such device here
        sink.write("x\n");
        sink.write("y\n");
        assert!(lock(&sink.inner).complained);
    }

    #[test]
    fn nobody_listening_means_stderr_and_two_lines() {
        let asked = std::cell::Cell::new(None);
        let refuse = |address| {
            asked.set(Some(address));
            Err(io::Error::from(io::ErrorKind::ConnectionRefused))
        };
        let mut notes = Vec::new();
        let sink = socket("127.0.0.1:1501", LOG, Voice::of_tool(false), &mut notes, &refuse).expect("falls back");
        assert!(!sink.detached);
        assert_eq!(notes[0], "Failed to connect to logging server '127.0.0.1:1501'.");
        assert_eq!(asked.take().map(|address| address.to_string()).as_deref(), Some("127.0.0.1:1501"));
        socket("127.0.0.1", LOG, Voice::of_tool(false), &mut notes, &refuse).expect("falls back");
        assert_eq!(asked.take().map(|address| address.port()), Some(1500));
        for spec in ["127.0.0.1:x", "127.0.1:1500", ":1500"] {
            let bad = socket(spec, LOG, Voice::of_tool(false), &mut notes, &refuse).err().expect("no address");
            assert_eq!(bad.lines, [format!("memcheck: Invalid --log-socket spec of '{spec}'")]);
        }
    }
}
