//! What each kind of finding means, for people who meet it for the first time: `--explain=RULE`, and the rules of a SARIF document.
//!
//! The identifiers are those of [`ErrorRecord::rule`](crate::ErrorRecord::rule). Words like *often* are meant: nobody has looked at the
//! reader's program.

/// A rule in words.
#[derive(Debug)]
pub struct Rule {
    pub id: &'static str,
    /// What was seen, as a sentence.
    pub seen: &'static str,
    /// Where it often comes from.
    pub causes: &'static str,
    /// What to do next.
    pub next: &'static str,
}

const fn rule(id: &'static str, seen: &'static str, causes: &'static str, next: &'static str) -> Rule {
    Rule { id, seen, causes, next }
}

#[rustfmt::skip] // a table
pub const RULES: &[Rule] = &[
    rule("heap-buffer-overflow",
        "The program touched memory right behind a block that it got from malloc, new or their kin.",
        "a loop with <= where < belongs; no room for the zero at the end of a string; the size of a pointer taken for that of an array; a length in elements used as one in bytes",
        "compare the size of the block with the index: 0 bytes after a block of size 40 is element 10 of int[10]; the stack below \"alloc'd\" says who chose the size"),
    rule("heap-buffer-underflow",
        "The program touched memory right before a block that it got from malloc, new or their kin.",
        "an index of -1, often a search that found nothing; a loop that counts down past 0; a pointer moved back too far",
        "look at how the index or pointer got its value, and at what happens when a search fails or a list is empty"),
    rule("use-after-free",
        "The program touched a block that had been freed.",
        "a second pointer to the block outlived it; a list was walked while its elements were freed; a container moved its elements (vector growth, realloc) and an old pointer or iterator was kept",
        "the three stacks are the life of the block: allocated, freed, used; the question is who still had a right to it when it was freed"),
    rule("double-free",
        "A block was freed that had been freed before.",
        "two owners of one pointer; a shallow copy of a struct or object; an error path that cleans up what the normal path cleaned up",
        "compare the stacks of both frees and decide which of them owns the block; a pointer set to NULL after free makes the second one harmless"),
    rule("invalid-free",
        "free, delete or realloc got an address that is not the start of a block of the heap.",
        "a pointer that was moved since the allocation; the address of a variable or literal; a block of another allocator",
        "if the address is inside a block, find who moved the pointer; if it is on a stack or in a file, find who took it for the heap's"),
    rule("mismatched-free",
        "A block was given back by a function of another family than the one that made it: new with free, new[] with delete, malloc with delete.",
        "delete where delete[] belongs; memory of a C library deleted by C++ code; a smart pointer without the deleter that an array needs",
        "give the block back the way it was made; with delete and new[] destructors of all elements but the first do not run"),
    rule("invalid-read",
        "The program read memory that it must not touch.",
        "a pointer that was never set, is out of date or went past the end of its object",
        "the line about the address says what is known about it; compile with -g for names and lines"),
    rule("invalid-write",
        "The program wrote to memory that it must not touch.",
        "a pointer that was never set, is out of date or went past the end of its object",
        "mend this before anything that is reported later: the write may have damaged what later errors are about"),
    rule("null-access",
        "The program used a null pointer, or a member of a struct at one.",
        "a result that was not checked (malloc, fopen, a search); an object that was not made yet or was given up already",
        "the address is the offset of the member: it tells which one; look where the pointer was last set"),
    rule("wild-access",
        "The program touched an address that belongs to nothing: no block, no stack, no file.",
        "a pointer that was never set or was overwritten; an integer or a string taken for a pointer; an index that is far too large",
        "look for earlier errors first, above all invalid writes and uninitialised values"),
    rule("stack-below-sp",
        "The program touched its stack below the stack pointer, where no live variable is.",
        "a pointer to a local variable of a function that has returned; a stack that is too small for a large array",
        "find the function whose variable that was: its address was returned or stored"),
    rule("invalid-jump",
        "The program called or jumped to an address where there is no code.",
        "a function pointer that was never set or was overwritten; a virtual call on an object that is gone; a return address damaged by an overflow on the stack",
        "the stack shows who called, if it is still whole"),
    rule("uninit-branch",
        "What the program did next depended on a value that nobody had set.",
        "a variable or member that is set on some paths only; malloc where calloc was meant; a struct of which a new member is not set; a short read whose length was not checked",
        "the stack below \"created\" says where the memory came from, not where it should have been set: follow the value from there to here"),
    rule("uninit-address",
        "A value that nobody had set was used as an address or an index.",
        "as with uninit-branch: a path on which the variable is not set, a member that is forgotten, malloc where calloc was meant",
        "what was read or written through it is arbitrary: mend this before errors that are reported later"),
    rule("uninit-syscall",
        "The kernel was given bytes that nobody had set: to be written to a file, sent, or read as an argument.",
        "a struct with padding written as a whole; a buffer of which only a part was filled; a length that is too large",
        "besides being wrong it may give away what was in memory before; clear the struct, or write its members one by one"),
    rule("invalid-syscall-buffer",
        "The kernel was given an address, or a range, that the program must not touch.",
        "a length larger than the buffer; a buffer that is freed already; a null pointer",
        "the line about the address tells where in or beside a block the first bad byte is"),
    rule("memcpy-overlap",
        "Source and destination of a copy overlap, and the function does not allow that.",
        "moving elements within an array by memcpy; strcpy or sprintf of a string into itself",
        "memmove allows overlap; for strings copy through a second buffer"),
    rule("bad-alloc-size",
        "An allocation was asked for whose size is negative, seen as a signed number.",
        "an error code of -1 used as a length; a subtraction that went below 0; an overflow in count times size",
        "check the length where it is computed; calloc checks the multiplication"),
    rule("realloc-zero",
        "realloc was called with size 0, which means different things on different systems.",
        "a container that shrinks to nothing",
        "call free, and set the pointer to NULL"),
    rule("bad-alignment",
        "An allocation asked for an alignment that is none: not a power of two, or too small for the function.",
        "size and alignment in the wrong order",
        "compare with the function's manual page"),
    rule("invalid-mempool",
        "A client request named a memory pool that does not exist.",
        "a pool used before VALGRIND_CREATE_MEMPOOL or after VALGRIND_DESTROY_MEMPOOL",
        "compare the address of the pool with that of its creation"),
    rule("client-check",
        "The program asked for a check of some memory, and it failed.",
        "the program's own annotations found what they are for",
        "the address is the first byte that is not as it should be"),
    rule("invalid-signal-frame",
        "The kernel had no room to put a signal's frame.",
        "an alternate signal stack that is too small or freed; a stack that has overflowed",
        "give sigaltstack a block that lives as long as the thread"),
    rule("leak-definite",
        "No pointer to this block was left when the program ended: nobody could have freed it any more.",
        "a pointer that was overwritten or went out of scope; an error path without free; a container cleared without freeing its elements",
        "the stack says who allocated it: follow the pointer from there to where the last copy of it was lost"),
    rule("leak-indirect",
        "Only blocks that are lost themselves point to this one.",
        "the root of a list, tree or object was lost, and everything below it with it",
        "mend the definite leaks: these mostly go with them"),
    rule("leak-possible",
        "Only a pointer into the middle of this block was left.",
        "an array whose pointer was moved; an object of several bases; memory of an allocator that hands out parts of blocks",
        "look whether anybody still has a right to the block; the stack says who allocated it"),
    rule("leak-reachable",
        "A pointer to this block still existed when the program ended.",
        "something that is kept until the end on purpose: a cache, a table, a library's own state",
        "mostly harmless; of interest if it grows with the running time"),
];

/// The rule of an identifier.
pub fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

impl Rule {
    /// Lines for a terminal, line ends included.
    pub fn explanation(&self) -> String {
        let mut text = format!("{}\n", self.id);
        for (heading, words) in [("", self.seen), ("Often", self.causes), ("Next", self.next)] {
            text.push('\n');
            wrap(&mut text, heading, words);
        }
        text
    }
}

/// All identifiers, for who asked for another one.
pub fn known() -> String {
    RULES.iter().map(|rule| rule.id).collect::<Vec<_>>().join(", ")
}

/// Columns of an explanation.
const WIDTH: usize = 80;
const MARGIN: usize = 8;

/// A paragraph behind its heading.
fn wrap(text: &mut String, heading: &str, words: &str) {
    let mut line = format!("{heading:<MARGIN$}");
    for word in words.split(' ') {
        if line.chars().count() + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(MARGIN);
        }
        line.push_str(word);
        line.push(' ');
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, LeakKind};
    use std::collections::HashSet;

    #[test]
    fn every_kind_is_explained_and_every_rule_once() {
        let name = || "x".to_owned();
        let mut kinds = vec![
            ErrorKind::Read { size: 1 },
            ErrorKind::Write { size: 1 },
            ErrorKind::Jump,
            ErrorKind::Cond,
            ErrorKind::Value { size: 1 },
            ErrorKind::ParamRegister { name: name() },
            ErrorKind::ParamMemory { name: name(), unaddressable: true },
            ErrorKind::User { unaddressable: true },
            ErrorKind::InvalidFree,
            ErrorKind::MismatchedFree,
            ErrorKind::Overlap,
            ErrorKind::Fishy { function: name(), argument: name() },
            ErrorKind::Mempool,
            ErrorKind::CoreMem,
            ErrorKind::ReallocZero,
            ErrorKind::BadAlign,
        ];
        kinds.extend(LeakKind::ALL.map(ErrorKind::Leak));
        for kind in kinds {
            assert!(find(kind.facts().rule).is_some(), "{}", kind.facts().rule);
        }
        for id in crate::address::REFINED {
            assert!(find(id).is_some(), "{id}");
        }
        assert_eq!(RULES.iter().map(|rule| rule.id).collect::<HashSet<_>>().len(), RULES.len());
    }

    #[test]
    fn explanations_fit_a_terminal() {
        for rule in RULES {
            let text = rule.explanation();
            assert!(text.lines().all(|line| line.len() <= WIDTH && line == line.trim_end()), "{text}");
            assert!(rule.seen.ends_with('.') && !rule.causes.ends_with('.') && !rule.next.ends_with('.'), "{}", rule.id);
        }
        let text = find("realloc-zero").expect("a rule").explanation();
        let expected = "realloc-zero

        realloc was called with size 0, which means different things on
        different systems.

Often   a container that shrinks to nothing

Next    call free, and set the pointer to NULL
";
        assert_eq!(text, expected);
    }
}
