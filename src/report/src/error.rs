//! A finding: what was wrong, where, and what else is known.
//!
//! [`ErrorRecord`] is the tree that every format walks: a headline, the stack of the guilty instruction, then *also* lines, each
//! with an optional stack of its own. There is a constructor for each kind ([`ErrorKind`]), and it has the words.
//!
//! The headlines are Valgrind's, word by word, because CTest and a dozen log parsers count lines by them; note the blank in
//! `delete []` of the mismatch line and its absence in the other.
//!
//! Deliberately absent: how addresses are described (`address`) and how leaks are summed up (`leak`).

use crate::address::Address;
use crate::frame::Stack;
pub use crate::kind::{ErrorKind, KindFacts, LeakKind};

/// One more thing to know: a line, and perhaps where that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aux {
    pub text: String,
    /// Declaration of the variable that `text` names.
    pub location: Option<SourcePlace>,
    pub stack: Option<Stack>,
    /// What happened at `stack`.
    pub moment: Option<Moment>,
}

/// What had happened before a finding, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Allocated,
    /// Described by a client request.
    Defined,
    /// An undefined value was born.
    Created,
    Freed,
}

impl Moment {
    pub fn verb(self) -> &'static str {
        match self {
            Moment::Allocated => "allocated",
            Moment::Defined => "defined",
            Moment::Created => "created",
            Moment::Freed => "freed",
        }
    }
}

/// Which bytes of a block, or beside it, a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the block.
    pub size: u64,
    /// From its start to the first byte of the access.
    pub offset: i64,
    /// Bytes of the access; 0: not known.
    pub length: u64,
    pub is_freed: bool,
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    pub file: String,
    pub line: u32,
    pub dir: Option<String>,
}

impl Aux {
    pub fn line(text: impl Into<String>) -> Self {
        Aux { text: text.into(), ..Aux::default() }
    }

    /// A line about something that happened at `stack`.
    pub fn event(text: impl Into<String>, moment: Moment, stack: Stack) -> Self {
        Aux { text: text.into(), stack: Some(stack), moment: Some(moment), location: None }
    }
}

/// The numbers of a loss record, for the formats that carry them separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakInfo {
    /// Direct and indirect bytes together.
    pub bytes: u64,
    pub blocks: u64,
}

/// One finding. `thread` is the small number users see, 1 for the initial thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorRecord {
    pub kind: ErrorKind,
    pub what: String,
    pub thread: u32,
    pub thread_name: Option<String>,
    pub stack: Stack,
    pub aux: Vec<Aux>,
    pub leak: Option<LeakInfo>,
    pub extent: Option<Extent>,
    /// A more telling rule id than the kind's, if the address gave one.
    refined_rule: Option<&'static str>,
}

/// Where an undefined value was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Heap,
    Stack,
    ClientRequest,
    Unknown,
}

impl Origin {
    /// Follows what the value is called.
    pub fn created(self) -> &'static str {
        match self {
            Origin::Heap => " was created by a heap allocation",
            Origin::Stack => " was created by a stack allocation",
            Origin::ClientRequest => " was created by a client request",
            Origin::Unknown => " was created",
        }
    }
}

/// A failed allocation-argument check, with the words of each function family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignmentRule {
    PowerOfTwo,
    NonZeroPowerOfTwo,
    PosixMemalign,
}

impl ErrorRecord {
    pub fn new(kind: ErrorKind, what: impl Into<String>, thread: u32, stack: Stack) -> Self {
        ErrorRecord {
            kind,
            what: what.into(),
            thread,
            thread_name: None,
            stack,
            aux: Vec::new(),
            leak: None,
            extent: None,
            refined_rule: None,
        }
    }

    /// Says what `addr` is, and so what kind of mistake this is.
    pub fn about(mut self, addr: u64, address: &Address) -> Self {
        self.refined_rule = address.rule(addr, &self.kind);
        self.extent = address.extent(addr, &self.kind);
        self.with_aux(address.aux(addr))
    }

    /// Rule id of the CI formats: stable, and as telling as what is known allows.
    pub fn rule(&self) -> &'static str {
        self.refined_rule.unwrap_or(self.kind.facts().rule)
    }

    /// Adds lines.
    pub fn with_aux(mut self, aux: impl IntoIterator<Item = Aux>) -> Self {
        self.aux.extend(aux);
        self
    }

    /// Adds where the undefined value came from.
    pub fn with_origin(self, origin: Origin, stack: Stack) -> Self {
        self.with_aux([Aux::event(format!("Uninitialised value{}", origin.created()), Moment::Created, stack)])
    }

    pub fn with_thread_name(mut self, name: Option<String>) -> Self {
        self.thread_name = name;
        self
    }

    pub fn invalid_read(size: u64, thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Read { size }, format!("Invalid read of size {size}"), thread, stack)
    }

    pub fn invalid_write(size: u64, thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Write { size }, format!("Invalid write of size {size}"), thread, stack)
    }

    pub fn invalid_jump(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Jump, "Jump to the invalid address stated on the next line", thread, stack)
    }

    pub fn condition(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Cond, "Conditional jump or move depends on uninitialised value(s)", thread, stack)
    }

    pub fn value(size: u64, thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Value { size }, format!("Use of uninitialised value of size {size}"), thread, stack)
    }

    /// A system call argument that is undefined itself. `name` is `write(count)`.
    pub fn param_register(name: &str, thread: u32, stack: Stack) -> Self {
        let what = format!("Syscall param {name} contains uninitialised byte(s)");
        Self::new(ErrorKind::ParamRegister { name: name.to_string() }, what, thread, stack)
    }

    /// Memory behind a system call argument. `name` is `write(buf)`.
    pub fn param_memory(name: &str, unaddressable: bool, thread: u32, stack: Stack) -> Self {
        let what = format!("Syscall param {name} points to {} byte(s)", definedness_word(unaddressable));
        Self::new(ErrorKind::ParamMemory { name: name.to_string(), unaddressable }, what, thread, stack)
    }

    pub fn client_check(unaddressable: bool, thread: u32, stack: Stack) -> Self {
        let word = if unaddressable { "Unaddressable" } else { "Uninitialised" };
        let what = format!("{word} byte(s) found during client check request");
        Self::new(ErrorKind::User { unaddressable }, what, thread, stack)
    }

    pub fn invalid_free(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::InvalidFree, "Invalid free() / delete / delete[] / realloc()", thread, stack)
    }

    pub fn mismatched_free(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::MismatchedFree, "Mismatched free() / delete / delete []", thread, stack)
    }

    /// `length` is absent for the `str*` family.
    pub fn overlap(function: &str, dst: u64, src: u64, length: Option<u64>, thread: u32, stack: Stack) -> Self {
        let length = length.map(|length| format!(", {length}")).unwrap_or_default();
        let what = format!("Source and destination overlap in {function}(0x{dst:x}, 0x{src:x}{length})");
        Self::new(ErrorKind::Overlap, what, thread, stack)
    }

    pub fn fishy(function: &str, argument: &str, value: u64, thread: u32, stack: Stack) -> Self {
        let value = value as i64; // shown as the negative number it probably was
        let what = format!("Argument '{argument}' of function {function} has a fishy (possibly negative) value: {value}");
        let kind = ErrorKind::Fishy { function: function.to_string(), argument: argument.to_string() };
        Self::new(kind, what, thread, stack)
    }

    pub fn illegal_mempool(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::Mempool, "Illegal memory pool address", thread, stack)
    }

    /// `what` names the kernel's own access, for example `signal handler frame`.
    pub fn core_memory(what: &str, thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::CoreMem, format!("{what} contains unaddressable byte(s)"), thread, stack)
    }

    pub fn realloc_zero(thread: u32, stack: Stack) -> Self {
        Self::new(ErrorKind::ReallocZero, "realloc() with size 0", thread, stack)
    }

    pub fn bad_alignment(value: u64, rule: AlignmentRule, thread: u32, stack: Stack) -> Self {
        let should = match rule {
            AlignmentRule::PowerOfTwo => "power of 2",
            AlignmentRule::NonZeroPowerOfTwo => "non-zero and a power of 2",
            AlignmentRule::PosixMemalign => "non-zero, a power of 2 and a multiple of sizeof(void*)",
        };
        Self::new(ErrorKind::BadAlign, format!("Invalid alignment value: {value} (should be {should})"), thread, stack)
    }
}

fn definedness_word(unaddressable: bool) -> &'static str {
    if unaddressable { "unaddressable" } else { "uninitialised" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(record: ErrorRecord) -> String {
        record.what
    }

    #[test]
    fn headlines_are_word_by_word() {
        let s = Stack::default;
        assert_eq!(what(ErrorRecord::invalid_read(4, 1, s())), "Invalid read of size 4");
        assert_eq!(what(ErrorRecord::invalid_write(16, 1, s())), "Invalid write of size 16");
        assert_eq!(what(ErrorRecord::invalid_jump(1, s())), "Jump to the invalid address stated on the next line");
        assert_eq!(what(ErrorRecord::condition(1, s())), "Conditional jump or move depends on uninitialised value(s)");
        assert_eq!(what(ErrorRecord::value(8, 1, s())), "Use of uninitialised value of size 8");
        assert_eq!(what(ErrorRecord::param_register("exit(status)", 1, s())), "Syscall param exit(status) contains uninitialised byte(s)");
        assert_eq!(
            what(ErrorRecord::param_memory("write(buf)", false, 1, s())),
            "Syscall param write(buf) points to uninitialised byte(s)"
        );
        assert_eq!(what(ErrorRecord::param_memory("read(buf)", true, 1, s())), "Syscall param read(buf) points to unaddressable byte(s)");
        assert_eq!(what(ErrorRecord::client_check(true, 1, s())), "Unaddressable byte(s) found during client check request");
        assert_eq!(what(ErrorRecord::client_check(false, 1, s())), "Uninitialised byte(s) found during client check request");
        assert_eq!(what(ErrorRecord::invalid_free(1, s())), "Invalid free() / delete / delete[] / realloc()");
        assert_eq!(what(ErrorRecord::mismatched_free(1, s())), "Mismatched free() / delete / delete []");
        assert_eq!(
            what(ErrorRecord::overlap("memcpy", 0x4a40040, 0x4a40041, Some(5), 1, s())),
            "Source and destination overlap in memcpy(0x4a40040, 0x4a40041, 5)"
        );
        assert_eq!(what(ErrorRecord::overlap("strcpy", 1, 0x2f, None, 1, s())), "Source and destination overlap in strcpy(0x1, 0x2f)");
        assert_eq!(
            what(ErrorRecord::fishy("malloc", "size", u64::MAX, 1, s())),
            "Argument 'size' of function malloc has a fishy (possibly negative) value: -1"
        );
        assert_eq!(what(ErrorRecord::realloc_zero(1, s())), "realloc() with size 0");
        assert_eq!(
            what(ErrorRecord::bad_alignment(3, AlignmentRule::NonZeroPowerOfTwo, 1, s())),
            "Invalid alignment value: 3 (should be non-zero and a power of 2)"
        );
    }

    #[test]
    fn origins_name_their_source() {
        let record = ErrorRecord::condition(1, Stack::default()).with_origin(Origin::Heap, Stack::default());
        assert_eq!(record.aux[0].text, "Uninitialised value was created by a heap allocation");
        let record = ErrorRecord::condition(1, Stack::default()).with_origin(Origin::Unknown, Stack::default());
        assert_eq!(record.aux[0].text, "Uninitialised value was created");
    }
}
