//! A fact of the runtime becomes a finding: the words by kind, the stack, what the address is, where an undefined value came from.

use memcheck_abi::event::{ErrorEvent, Kind, NAME_LEN};
use memcheck_report::error::{AlignmentRule, Origin};
use memcheck_report::reporter::Outcome;
use memcheck_report::{ErrorRecord, Stack};
use memcheck_tracer::{Process, ThreadInfo};

use super::{Session, describe, stacks};

const KINDS: [Kind; 16] = [
    Kind::InvalidRead,
    Kind::InvalidWrite,
    Kind::InvalidJump,
    Kind::Cond,
    Kind::Value,
    Kind::ParamRegister,
    Kind::ParamMemory,
    Kind::User,
    Kind::InvalidFree,
    Kind::MismatchedFree,
    Kind::Overlap,
    Kind::Fishy,
    Kind::Mempool,
    Kind::ReallocZero,
    Kind::BadAlign,
    Kind::Core,
];

/// Accesses this far below the stack pointer were once a compiler's fault, bytes.
const JUST_BELOW: u64 = 1024;

/// The kind with this number.
fn kind_of(number: u32) -> Option<Kind> {
    KINDS.into_iter().find(|kind| *kind as u32 == number)
}

/// The text up to the first NUL.
pub fn text(bytes: &[u8; NAME_LEN]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// What is wrong, without anything beside it. `None`: a kind that does not exist.
fn record(event: &ErrorEvent, stack: Stack) -> Option<ErrorRecord> {
    let (thread, name, flag) = (event.thread.max(1), text(&event.name), event.flag != 0);
    let record = match kind_of(event.kind)? {
        Kind::InvalidRead => ErrorRecord::invalid_read(event.size, thread, stack),
        Kind::InvalidWrite => ErrorRecord::invalid_write(event.size, thread, stack),
        Kind::InvalidJump => ErrorRecord::invalid_jump(thread, stack),
        Kind::Cond => ErrorRecord::condition(thread, stack),
        Kind::Value => ErrorRecord::value(event.size, thread, stack),
        Kind::ParamRegister => ErrorRecord::param_register(&name, thread, stack),
        Kind::ParamMemory => ErrorRecord::param_memory(&name, flag, thread, stack),
        Kind::User => ErrorRecord::client_check(flag, thread, stack),
        Kind::InvalidFree => ErrorRecord::invalid_free(thread, stack),
        Kind::MismatchedFree => ErrorRecord::mismatched_free(thread, stack),
        Kind::Overlap => {
            let [to, from, length, _] = event.args;
            ErrorRecord::overlap(&name, to, from, flag.then_some(length), thread, stack)
        }
        Kind::Fishy => {
            let (function, argument) = split_argument(&name);
            ErrorRecord::fishy(function, argument, event.args[0], thread, stack)
        }
        Kind::Mempool => ErrorRecord::illegal_mempool(thread, stack),
        Kind::ReallocZero => ErrorRecord::realloc_zero(thread, stack),
        Kind::BadAlign => ErrorRecord::bad_alignment(event.args[0], alignment_rule(&name), thread, stack),
        Kind::Core => ErrorRecord::core_memory(&name, thread, stack),
    };
    Some(record)
}

/// `malloc(size)` into function and argument.
fn split_argument(name: &str) -> (&str, &str) {
    let inner = name.strip_suffix(')').unwrap_or(name);
    inner.split_once('(').unwrap_or((inner, "size"))
}

fn alignment_rule(function: &str) -> AlignmentRule {
    match function {
        "posix_memalign" => AlignmentRule::PosixMemalign,
        "memalign" => AlignmentRule::PowerOfTwo,
        _ => AlignmentRule::NonZeroPowerOfTwo,
    }
}

pub fn origin(kind: u32) -> Option<Origin> {
    match kind {
        1 => Some(Origin::Heap),
        2 => Some(Origin::Stack),
        3 => Some(Origin::ClientRequest),
        4 => Some(Origin::Unknown),
        _ => None,
    }
}

impl Session {
    /// Count an error, and name and show it if it is new. The answer: its number, and what became of it.
    pub(super) fn report_error(&mut self, process: &Process, thread: &ThreadInfo, event: &ErrorEvent) -> (u64, Option<Outcome>) {
        if self.is_ignored(event) {
            return (0, None);
        }
        let options = &self.output.options;
        let Some(watched) = self.watched.get_mut(&process.pid()) else { return (0, None) };
        let addresses = stacks::printed(&event.stack[..event.stack_len as usize]);
        let Some(bare) = record(event, Stack::default()) else { return (0, None) };
        let serial = watched.remember(bare.kind.clone(), addresses.clone());
        if watched.reporter.repeat(&bare.kind, &addresses) {
            return (serial, Some(Outcome::Repeated));
        }
        let mut found = bare.with_thread_name(watched.thread_name(process, thread.tid));
        found.stack = watched.stack(process, &addresses);
        if event.has_addr != 0 {
            let address = describe::address(watched, options, process, thread, event);
            found = found.about(event.addr, &address);
        }
        if let (Some(origin), true) = (origin(event.origin_kind), options.track_origins) {
            let stack = watched.origin_stack(process, origin, event.origin_stack).unwrap_or_default();
            found = found.with_origin(origin, stack);
        }
        (serial, Some(watched.reporter.error(found)))
    }

    /// `--ignore-ranges`, `--ignore-range-below-sp`, `--workaround-gcc296-bugs`.
    fn is_ignored(&self, event: &ErrorEvent) -> bool {
        let is_access = matches!(kind_of(event.kind), Some(Kind::InvalidRead | Kind::InvalidWrite));
        if !is_access {
            return false;
        }
        let options = self.options();
        let below = event.sp.wrapping_sub(event.addr);
        let gcc296 = options.workaround_gcc296_bugs.then_some((JUST_BELOW, 1));
        options.ignore_ranges.iter().any(|(first, last)| (*first..=*last).contains(&event.addr))
            || options.ignore_range_below_sp.into_iter().chain(gcc296).any(|(far, near)| (near..=far).contains(&below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_report::ErrorKind;

    fn what(kind: Kind, set: impl FnOnce(&mut ErrorEvent)) -> String {
        let mut event = ErrorEvent::new(kind);
        set(&mut event);
        record(&event, Stack::default()).expect("a kind that exists").what
    }

    #[test]
    fn every_kind_has_its_number() {
        for kind in KINDS {
            assert_eq!(kind_of(kind as u32), Some(kind));
        }
        assert_eq!(kind_of(0), None);
        assert_eq!(kind_of(17), None);
    }

    #[test]
    fn facts_become_words() {
        assert_eq!(what(Kind::InvalidWrite, |e| e.size = 4), "Invalid write of size 4");
        assert_eq!(
            what(Kind::ParamMemory, |e| (e.flag = 1, e.set_name("read(buf)")).1),
            "Syscall param read(buf) points to unaddressable byte(s)"
        );
        let overlap = |e: &mut ErrorEvent| (e.args = [0x20, 0x10, 24, 0], e.set_name("memcpy")).1;
        assert_eq!(what(Kind::Overlap, |e| (overlap(e), e.flag = 1).1), "Source and destination overlap in memcpy(0x20, 0x10, 24)");
        assert_eq!(what(Kind::Overlap, overlap), "Source and destination overlap in memcpy(0x20, 0x10)");
        assert_eq!(
            what(Kind::Fishy, |e| (e.args[0] = u64::MAX, e.set_name("calloc(nmemb)")).1),
            "Argument 'nmemb' of function calloc has a fishy (possibly negative) value: -1"
        );
        assert_eq!(
            what(Kind::BadAlign, |e| (e.args[0] = 3, e.set_name("aligned_alloc")).1),
            "Invalid alignment value: 3 (should be non-zero and a power of 2)"
        );
    }

    #[test]
    fn sizes_and_names_are_part_of_what_makes_errors_the_same() {
        let kind = |size| {
            let mut event = ErrorEvent::new(Kind::InvalidRead);
            event.size = size;
            record(&event, Stack::default()).map(|record| record.kind)
        };
        assert_eq!(kind(4), Some(ErrorKind::Read { size: 4 }));
        assert_ne!(kind(4), kind(8));
    }
}
