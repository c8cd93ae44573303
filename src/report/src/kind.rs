//! What kinds of findings there are, and what each is called elsewhere.
//!
//! [`ErrorKind`] is the identity of a finding: two findings of equal kind and equal innermost addresses are the same one
//! (`dedup`), so a kind holds exactly the facts that count for that and no others: sizes, parameter names, but never the
//! faulting address.
//!
//! The names in suppression files, in XML and in the formats for CI are one table, [`ErrorKind::facts`].

/// How a leaked block was found. The order is the order of severity in ties between loss records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeakKind {
    Reachable,
    Possible,
    Indirect,
    Definite,
}

impl LeakKind {
    pub const ALL: [LeakKind; 4] = [LeakKind::Definite, LeakKind::Indirect, LeakKind::Possible, LeakKind::Reachable];

    /// The words of a loss record.
    pub fn words(self) -> &'static str {
        match self {
            LeakKind::Reachable => "still reachable",
            LeakKind::Possible => "possibly lost",
            LeakKind::Indirect => "indirectly lost",
            LeakKind::Definite => "definitely lost",
        }
    }

    /// The word of option sets and `match-leak-kinds:` lines.
    pub fn word(self) -> &'static str {
        match self {
            LeakKind::Reachable => "reachable",
            LeakKind::Possible => "possible",
            LeakKind::Indirect => "indirect",
            LeakKind::Definite => "definite",
        }
    }
}

/// What makes two findings the same, apart from their stacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Access to `size` bytes that are not addressable.
    Read {
        size: u64,
    },
    Write {
        size: u64,
    },
    /// Control went to an address that cannot be executed.
    Jump,
    /// A branch, conditional move or flag test depends on undefined bits.
    Cond,
    /// An address of `size` bytes (or another value that must be defined) has undefined bits.
    Value {
        size: u64,
    },
    /// A system call argument in a register.
    ParamRegister {
        name: String,
    },
    /// Memory that a system call argument points to.
    ParamMemory {
        name: String,
        unaddressable: bool,
    },
    /// A client request asked for a check that failed.
    User {
        unaddressable: bool,
    },
    InvalidFree,
    MismatchedFree,
    Overlap,
    /// A size that looks like a negative number.
    Fishy {
        function: String,
        argument: String,
    },
    Mempool,
    /// The kernel would have to write where it cannot, for example a signal frame.
    CoreMem,
    ReallocZero,
    BadAlign,
    Leak(LeakKind),
}

/// What a kind is called outside this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindFacts {
    /// Name in suppression files, without size (`Addr`, `Cond`); sizes are added by [`ErrorKind::suppression_kind`].
    pub suppression: &'static str,
    /// `<kind>` in protocol 4. This list is closed: known consumers fail on any other name.
    pub xml4: &'static str,
    /// `<kind>` in protocol 6.
    pub xml6: &'static str,
    /// Rule id of the CI formats.
    pub rule: &'static str,
}

const fn facts(suppression: &'static str, xml4: &'static str, xml6: &'static str, rule: &'static str) -> KindFacts {
    KindFacts { suppression, xml4, xml6, rule }
}

impl ErrorKind {
    /// The table of names.
    #[rustfmt::skip]
    pub fn facts(&self) -> KindFacts {
        match self {
            ErrorKind::Read { .. } => facts("Addr", "InvalidRead", "InvalidRead", "invalid-read"),
            ErrorKind::Write { .. } => facts("Addr", "InvalidWrite", "InvalidWrite", "invalid-write"),
            ErrorKind::Jump => facts("Jump", "InvalidJump", "InvalidJump", "invalid-jump"),
            ErrorKind::Cond => facts("Cond", "UninitCondition", "UninitCondition", "uninit-branch"),
            ErrorKind::Value { .. } => facts("Value", "UninitValue", "UninitValue", "uninit-address"),
            ErrorKind::ParamRegister { .. } => facts("Param", "SyscallParam", "SyscallParam", "uninit-syscall"),
            ErrorKind::ParamMemory { unaddressable: false, .. } => facts("Param", "SyscallParam", "SyscallParam", "uninit-syscall"),
            ErrorKind::ParamMemory { unaddressable: true, .. } => facts("Param", "SyscallParam", "SyscallParam", "invalid-syscall-buffer"),
            ErrorKind::User { .. } => facts("User", "ClientCheck", "ClientCheck", "client-check"),
            ErrorKind::InvalidFree => facts("Free", "InvalidFree", "InvalidFree", "invalid-free"),
            ErrorKind::MismatchedFree => facts("Free", "MismatchedFree", "MismatchedFree", "mismatched-free"),
            ErrorKind::Overlap => facts("Overlap", "Overlap", "Overlap", "memcpy-overlap"),
            ErrorKind::Fishy { .. } => facts("FishyValue", "ClientCheck", "FishyValue", "bad-alloc-size"),
            ErrorKind::Mempool => facts("Mempool", "InvalidMemPool", "InvalidMemPool", "invalid-mempool"),
            ErrorKind::CoreMem => facts("CoreMem", "ClientCheck", "CoreMemError", "invalid-signal-frame"),
            ErrorKind::ReallocZero => facts("ReallocZero", "ClientCheck", "ReallocSizeZero", "realloc-zero"),
            ErrorKind::BadAlign => facts("BadAlign", "ClientCheck", "InvalidAlignment", "bad-alignment"),
            ErrorKind::Leak(kind) => leak_facts(*kind),
        }
    }

    /// Kind as a suppression file writes it: `Addr4`, `Value8`, `Param`, …. Sizes are those of the file format; another size
    /// takes the next larger one, and everything above 32 bytes counts as 32.
    pub fn suppression_kind(&self) -> String {
        let name = self.facts().suppression;
        match self {
            ErrorKind::Read { size } | ErrorKind::Write { size } | ErrorKind::Value { size } => {
                format!("{name}{}", (*size).clamp(1, 32).next_power_of_two())
            }
            _ => name.to_string(),
        }
    }

    /// The extra line between kind and frames: a parameter name, `malloc(size)`, or `match-leak-kinds: definite`.
    pub fn suppression_extra(&self) -> Option<String> {
        match self {
            ErrorKind::ParamRegister { name } | ErrorKind::ParamMemory { name, .. } => Some(name.clone()),
            ErrorKind::Fishy { function, argument } => Some(format!("{function}({argument})")),
            ErrorKind::Leak(kind) => Some(format!("match-leak-kinds: {}", kind.word())),
            _ => None,
        }
    }

    /// Is this about undefined values, so that an origin would help?
    pub fn is_definedness(&self) -> bool {
        matches!(
            self,
            ErrorKind::Cond
                | ErrorKind::Value { .. }
                | ErrorKind::ParamRegister { .. }
                | ErrorKind::ParamMemory { unaddressable: false, .. }
                | ErrorKind::User { unaddressable: false }
        )
    }
}

fn leak_facts(kind: LeakKind) -> KindFacts {
    let (xml, rule) = match kind {
        LeakKind::Definite => ("Leak_DefinitelyLost", "leak-definite"),
        LeakKind::Indirect => ("Leak_IndirectlyLost", "leak-indirect"),
        LeakKind::Possible => ("Leak_PossiblyLost", "leak-possible"),
        LeakKind::Reachable => ("Leak_StillReachable", "leak-reachable"),
    };
    facts("Leak", xml, xml, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppression_sizes_are_those_of_the_file_format() {
        for (size, name) in [(1, "Addr1"), (8, "Addr8"), (10, "Addr16"), (28, "Addr32"), (64, "Addr32"), (0, "Addr1")] {
            assert_eq!(ErrorKind::Read { size }.suppression_kind(), name);
        }
        assert_eq!(ErrorKind::Value { size: 8 }.suppression_kind(), "Value8");
        assert_eq!(ErrorKind::Leak(LeakKind::Possible).suppression_extra().as_deref(), Some("match-leak-kinds: possible"));
    }
}
