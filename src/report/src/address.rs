//! What an address is: the lines under an invalid access, an invalid free or a bad system call buffer.
//!
//! The session asks, in this order, client-named blocks, pool chunks, live heap blocks with their red zones, freed blocks,
//! variables, data symbols, stacks, sections, the area below the stack pointer, mappings; the first that knows the address
//! gives an [`Address`], and [`Address::aux`] turns it into Valgrind's words. Addresses here are lower-case, those of frames
//! upper-case; log parsers rely on both.
//!
//! Deliberately absent: the search itself, which needs the process.

use crate::error::{Aux, ErrorKind, Extent, Moment, SourcePlace};
use crate::frame::{Frame, FrameStyle, Stack};
use crate::number::commas;

/// Which block an address lies in or near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Address of the first byte.
    pub start: u64,
    /// Requested size in bytes.
    pub size: u64,
    pub state: BlockState,
    /// `None` when `--keep-stacktraces` dropped it.
    pub allocated: Option<Stack>,
    pub freed: Option<Stack>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockState {
    Live,
    Freed,
    /// Freed in its pool and handed out again.
    Recycled,
    /// Named by a client request; `name` is what the program calls it.
    Client {
        name: String,
    },
}

/// Kinds of mapped memory of which nothing more is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    Anonymous,
    File(String),
    SharedMemory,
}

/// The answer to "what is this address".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Block(Block),
    /// Inside the stack of `thread`, in the frame number `.0` of which `.1` is the function, if known.
    Stack {
        thread: u32,
        frame: Option<(usize, Box<Frame>)>,
    },
    /// Inside a stack's mapping but `bytes` below the stack pointer.
    BelowStackPointer {
        thread: u32,
        bytes: u64,
        guard_page: bool,
    },
    /// Nothing is known, but the stack pointer is near.
    JustBelowStack,
    DataSymbol {
        name: String,
        offset: u64,
    },
    /// A global variable found in debug information; `text` is `gl[0]`.
    GlobalVariable {
        text: String,
        offset: u64,
        declared: SourcePlace,
    },
    /// A local variable found in debug information.
    LocalVariable {
        name: String,
        offset: u64,
        declared: SourcePlace,
        frame: usize,
        thread: u32,
    },
    /// `kind` is `Text`, `Data`, `BSS`, `GOT`, `PLT` or `Unknown`.
    Section {
        kind: &'static str,
        object: String,
        frame: Option<Box<Frame>>,
    },
    Brk {
        start: u64,
        limit: u64,
    },
    AfterBrk {
        bytes: u64,
        limit: u64,
    },
    /// `permissions` is `rw-` and the like.
    Mapped {
        permissions: String,
        mapping: Mapping,
    },
    Unknown,
}

impl Address {
    /// The lines for `addr`.
    pub fn aux(&self, addr: u64) -> Vec<Aux> {
        match self {
            Address::Block(block) => block.aux(addr),
            Address::Stack { thread, frame } => stack_lines(addr, *thread, frame.as_ref()),
            Address::BelowStackPointer { thread, bytes, guard_page } => {
                let guard = if *guard_page { "In stack guard protected page, " } else { "" };
                vec![
                    Aux::line(format!("Address 0x{addr:x} is on thread {thread}'s stack")),
                    // Alone among all sizes and distances this one has no commas.
                    Aux::line(format!("{guard}{bytes} bytes below stack pointer")),
                ]
            }
            Address::JustBelowStack => one(addr, "just below the stack ptr.  To suppress, use: --workaround-gcc296-bugs=yes".to_string()),
            Address::DataSymbol { name, offset } => one(addr, format!("{} bytes inside data symbol \"{name}\"", commas(*offset))),
            Address::GlobalVariable { text, offset, declared } => {
                let kind = if is_part(text) { "a global variable " } else { "" };
                vec![
                    inside_variable(addr, *offset, text, "global"),
                    declaration(format!("{kind}declared at {}:{}", declared.file, declared.line), declared),
                ]
            }
            Address::LocalVariable { name, offset, declared, frame, thread } => vec![
                inside_variable(addr, *offset, name, "local"),
                declaration(format!("declared at {}:{}, in frame #{frame} of thread {thread}", declared.file, declared.line), declared),
            ],
            Address::Section { kind, object, frame } => {
                let text = format!("Address 0x{addr:x} is in the {kind} segment of {object}");
                let stack = frame.as_ref().map(|frame| Stack(vec![(**frame).clone()]));
                vec![Aux { text, stack, ..Aux::default() }]
            }
            Address::Brk { start, limit } => one(addr, format!("in the brk data segment 0x{start:x}-0x{:x}", limit - 1)),
            Address::AfterBrk { bytes, limit } => one(addr, format!("{bytes} bytes after the brk data segment limit 0x{limit:x}")),
            Address::Mapped { permissions, mapping } => one(addr, mapping.words(permissions)),
            Address::Unknown => one(addr, "not stack'd, malloc'd or (recently) free'd".to_string()),
        }
    }
}

/// The rule ids that an address can give: [`Address::rule`].
#[cfg(test)]
pub const REFINED: [&str; 7] =
    ["double-free", "use-after-free", "heap-buffer-overflow", "heap-buffer-underflow", "stack-below-sp", "null-access", "wild-access"];

/// Addresses below this are null pointers with an offset.
const NULL_PAGE: u64 = 4096;

impl Address {
    /// The rule id of a finding of this kind at `addr`, where the address tells more than the kind.
    pub fn rule(&self, addr: u64, kind: &ErrorKind) -> Option<&'static str> {
        match (kind, self) {
            (ErrorKind::InvalidFree, Address::Block(block)) if block.state == BlockState::Freed && addr == block.start => {
                Some("double-free")
            }
            (ErrorKind::Read { .. } | ErrorKind::Write { .. } | ErrorKind::ParamMemory { unaddressable: true, .. }, _) => {
                self.access_rule(addr)
            }
            _ => None,
        }
    }

    /// Which bytes of a block an access of this kind at `addr` is about.
    pub fn extent(&self, addr: u64, kind: &ErrorKind) -> Option<Extent> {
        let length = match kind {
            ErrorKind::Read { size } | ErrorKind::Write { size } => *size,
            ErrorKind::ParamMemory { unaddressable: true, .. } => 0,
            _ => return None,
        };
        let Address::Block(block) = self else { return None };
        let offset = addr.wrapping_sub(block.start) as i64;
        Some(Extent { size: block.size, offset, length, is_freed: block.state == BlockState::Freed })
    }

    fn access_rule(&self, addr: u64) -> Option<&'static str> {
        match self {
            Address::Block(block) => match block.state {
                BlockState::Freed | BlockState::Recycled => Some("use-after-free"),
                BlockState::Live if addr < block.start => Some("heap-buffer-underflow"),
                BlockState::Live if addr - block.start >= block.size => Some("heap-buffer-overflow"),
                // The program itself has forbidden a part of the block.
                BlockState::Live | BlockState::Client { .. } => None,
            },
            Address::BelowStackPointer { .. } | Address::JustBelowStack => Some("stack-below-sp"),
            Address::Unknown if addr < NULL_PAGE => Some("null-access"),
            Address::Unknown => Some("wild-access"),
            _ => None,
        }
    }
}

fn one(addr: u64, is: String) -> Vec<Aux> {
    vec![Aux::line(format!("Address 0x{addr:x} is {is}"))]
}

/// A member or element: `s.a`, `t[1]`.
fn is_part(path: &str) -> bool {
    path.contains(['.', '['])
}

fn inside_variable(addr: u64, offset: u64, path: &str, kind: &str) -> Aux {
    let name = if is_part(path) { format!("{path},") } else { format!("{kind} var \"{path}\"") };
    let unit = if offset == 1 { "byte" } else { "bytes" };
    Aux::line(format!("Location 0x{addr:x} is {} {unit} inside {name}", commas(offset)))
}

fn declaration(text: String, place: &SourcePlace) -> Aux {
    Aux { text, location: Some(place.clone()), ..Aux::default() }
}

fn stack_lines(addr: u64, thread: u32, frame: Option<&(usize, Box<Frame>)>) -> Vec<Aux> {
    let mut lines = vec![Aux::line(format!("Address 0x{addr:x} is on thread {thread}'s stack"))];
    if let Some((number, frame)) = frame {
        // The line is where the function starts: its frame belongs to all of it.
        let entry = Frame::clone(frame).with(|line| line.line = line.function_line.or(line.line));
        let created = FrameStyle::default().describe(&entry);
        lines.push(Aux::line(format!("in frame #{number}, created by {created}")));
    }
    lines
}

impl Mapping {
    fn words(&self, permissions: &str) -> String {
        match self {
            Mapping::Anonymous => format!("in a {permissions} anonymous segment"),
            Mapping::File(path) => format!("in a {permissions} mapped file {path} segment"),
            Mapping::SharedMemory => format!("in a {permissions} shared memory segment"),
        }
    }
}

impl Block {
    /// `1 bytes inside`, `4 bytes before`, `0 bytes after`.
    fn place(&self, addr: u64) -> String {
        let (distance, side) = if addr < self.start {
            (self.start - addr, "before")
        } else if addr - self.start < self.size {
            (addr - self.start, "inside")
        } else {
            (addr - self.start - self.size, "after")
        };
        format!("{} bytes {side}", commas(distance))
    }

    fn aux(&self, addr: u64) -> Vec<Aux> {
        let (name, fate, moment) = match &self.state {
            BlockState::Live => ("block", "alloc'd", Moment::Allocated),
            BlockState::Freed => ("block", "free'd", Moment::Freed),
            BlockState::Recycled => ("recently re-allocated block", "alloc'd", Moment::Allocated),
            BlockState::Client { name } => (name.as_str(), "client-defined", Moment::Defined),
        };
        let text = format!("Address 0x{addr:x} is {} a {name} of size {} {fate}", self.place(addr), commas(self.size));
        if self.state != BlockState::Freed {
            return vec![Aux::event(text, moment, self.allocated.clone().unwrap_or_else(Stack::not_kept))];
        }
        let mut lines = vec![Aux::event(text, moment, self.freed.clone().unwrap_or_else(Stack::not_kept))];
        if let Some(allocated) = &self.allocated {
            lines.push(Aux::event("Block was alloc'd at", Moment::Allocated, allocated.clone()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::frame;

    fn texts(address: Address, addr: u64) -> Vec<String> {
        address.aux(addr).into_iter().map(|aux| aux.text).collect()
    }

    fn block(state: BlockState, size: u64) -> Address {
        let stack = Some(Stack(vec![frame(1, "malloc", "m.c", 1)]));
        Address::Block(Block { start: 0x4a40040, size, state, allocated: stack.clone(), freed: stack })
    }

    #[test]
    fn heap_blocks() {
        assert_eq!(texts(block(BlockState::Live, 10), 0x4a40041), ["Address 0x4a40041 is 1 bytes inside a block of size 10 alloc'd"]);
        assert_eq!(texts(block(BlockState::Live, 1000), 0x4a4003c), ["Address 0x4a4003c is 4 bytes before a block of size 1,000 alloc'd"]);
        assert_eq!(texts(block(BlockState::Live, 10), 0x4a4004a), ["Address 0x4a4004a is 0 bytes after a block of size 10 alloc'd"]);
        assert_eq!(texts(block(BlockState::Live, 0), 0x4a40040), ["Address 0x4a40040 is 0 bytes after a block of size 0 alloc'd"]);
        assert_eq!(
            texts(block(BlockState::Freed, 10), 0x4a40040),
            ["Address 0x4a40040 is 0 bytes inside a block of size 10 free'd", "Block was alloc'd at"]
        );
        assert_eq!(
            texts(block(BlockState::Recycled, 10), 0x4a40040),
            ["Address 0x4a40040 is 0 bytes inside a recently re-allocated block of size 10 alloc'd"]
        );
        assert_eq!(
            texts(block(BlockState::Client { name: "MYNAME".into() }, 16), 0x4a40040),
            ["Address 0x4a40040 is 0 bytes inside a MYNAME of size 16 client-defined"]
        );
    }

    #[test]
    fn the_address_refines_the_rule() {
        let read = |address: &Address, addr| crate::ErrorRecord::invalid_read(4, 1, Stack::default()).about(addr, address).rule();
        assert_eq!(read(&block(BlockState::Live, 10), 0x4a4004a), "heap-buffer-overflow");
        assert_eq!(read(&block(BlockState::Live, 10), 0x4a4003f), "heap-buffer-underflow");
        assert_eq!(read(&block(BlockState::Live, 10), 0x4a40041), "invalid-read");
        assert_eq!(read(&block(BlockState::Freed, 10), 0x4a40040), "use-after-free");
        assert_eq!(read(&Address::Unknown, 8), "null-access");
        assert_eq!(read(&Address::Unknown, 1 << 40), "wild-access");
        assert_eq!(read(&Address::Brk { start: 0, limit: 1 }, 0), "invalid-read");
        let free = |addr| crate::ErrorRecord::invalid_free(1, Stack::default()).about(addr, &block(BlockState::Freed, 10)).rule();
        assert_eq!((free(0x4a40040), free(0x4a40044)), ("double-free", "invalid-free"));
    }

    #[test]
    fn stacks() {
        let created = frame(1, "main", "a.c", 10).with(|line| line.function_line = Some(7));
        let on = Address::Stack { thread: 1, frame: Some((1, Box::new(created))) };
        assert_eq!(texts(on, 0x1fff000528), ["Address 0x1fff000528 is on thread 1's stack", "in frame #1, created by main (a.c:7)"]);
        let below = Address::BelowStackPointer { thread: 1, bytes: 300, guard_page: false };
        assert_eq!(texts(below, 0x1fff0003f4), ["Address 0x1fff0003f4 is on thread 1's stack", "300 bytes below stack pointer"]);
        let guard = Address::BelowStackPointer { thread: 2, bytes: 4096, guard_page: true };
        assert_eq!(texts(guard, 0x10)[1], "In stack guard protected page, 4096 bytes below stack pointer");
        assert_eq!(
            texts(Address::JustBelowStack, 0x10),
            ["Address 0x10 is just below the stack ptr.  To suppress, use: --workaround-gcc296-bugs=yes"]
        );
    }

    #[test]
    fn everything_else() {
        let place = SourcePlace { file: "f.c".into(), line: 7, dir: None };
        assert_eq!(
            texts(Address::DataSymbol { name: "gl".into(), offset: 4 }, 0xab),
            ["Address 0xab is 4 bytes inside data symbol \"gl\""]
        );
        assert_eq!(
            texts(Address::GlobalVariable { text: "gl[0]".into(), offset: 0, declared: place.clone() }, 0xab),
            ["Location 0xab is 0 bytes inside gl[0],", "a global variable declared at f.c:7"]
        );
        assert_eq!(
            texts(Address::GlobalVariable { text: "gl".into(), offset: 1, declared: place.clone() }, 0xab),
            ["Location 0xab is 1 byte inside global var \"gl\"", "declared at f.c:7"]
        );
        assert_eq!(
            texts(Address::LocalVariable { name: "x.a".into(), offset: 2, declared: place.clone(), frame: 1, thread: 1 }, 0xab),
            ["Location 0xab is 2 bytes inside x.a,", "declared at f.c:7, in frame #1 of thread 1"]
        );
        assert_eq!(
            texts(Address::LocalVariable { name: "x".into(), offset: 0, declared: place, frame: 1, thread: 1 }, 0xab),
            ["Location 0xab is 0 bytes inside local var \"x\"", "declared at f.c:7, in frame #1 of thread 1"]
        );
        assert_eq!(
            texts(Address::Section { kind: "Text", object: "/bin/p".into(), frame: None }, 1),
            ["Address 0x1 is in the Text segment of /bin/p"]
        );
        assert_eq!(
            texts(Address::Brk { start: 0x1000, limit: 0x2000 }, 0x1800),
            ["Address 0x1800 is in the brk data segment 0x1000-0x1fff"]
        );
        assert_eq!(
            texts(Address::AfterBrk { bytes: 8, limit: 0x2000 }, 0x2008),
            ["Address 0x2008 is 8 bytes after the brk data segment limit 0x2000"]
        );
        let mapped = |mapping| Address::Mapped { permissions: "r-x".into(), mapping };
        assert_eq!(texts(mapped(Mapping::Anonymous), 1), ["Address 0x1 is in a r-x anonymous segment"]);
        assert_eq!(texts(mapped(Mapping::File("/p".into())), 1), ["Address 0x1 is in a r-x mapped file /p segment"]);
        assert_eq!(texts(mapped(Mapping::SharedMemory), 1), ["Address 0x1 is in a r-x shared memory segment"]);
        assert_eq!(texts(Address::Unknown, 0), ["Address 0x0 is not stack'd, malloc'd or (recently) free'd"]);
    }
}
