//! Commands of the debugger: text that the tracer understands, and what it cannot know or do itself.
//!
//! ```text
//! runtime  ──Trap::Command: the text──────────────────► tracer     understood, or not; or:
//!          ◄──"go on these errands"────────────────────
//! runtime  ──Trap::Command: the same, errands done─────► tracer     understood
//! ```
//! The tracer reads memory and prints; whether a byte may be touched, what an address is and what the shadow says is known inside.

use crate::event::{ErrorEvent, ExitReport, Kind, NAME_LEN};

/// What is asked by [`crate::event::Trap::Command`].
pub mod asked {
    /// A command in words.
    pub const COMMAND: u64 = 0;
    /// An option.
    pub const OPTION: u64 = 1;
    /// To talk to the debugger until the program may go on.
    pub const DEBUGGER: u64 = 2;
}

/// Answers to [`crate::event::Trap::Command`].
pub mod answer {
    pub const UNKNOWN: u64 = 0;
    pub const UNDERSTOOD: u64 = 1;
    /// Errands were written; do them and ask again.
    pub const ERRANDS: u64 = 2;
}

/// What is passed with a command, in both directions.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Exchange {
    pub report: ExitReport,
    /// Address of the errands, room for so many, how many there are.
    pub errands: u64,
    pub capacity: u64,
    pub count: u64,
    /// Not 0: the errands are done.
    pub done: u64,
    /// Where the program stands for a debugger, if not where its registers say.
    pub pc: u64,
    pub sp: u64,
}

#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// What is at `addr`: the fields from `place` on, as in an [`ErrorEvent`].
    Describe = 1,
    /// Shadow of the range: `result` is the address of its V bytes, behind which are as many bytes that are not 0 where the program may not
    /// touch it.
    States = 2,
    /// `result` and `other`: first address in the range that the program may not touch, first that is undefined; !0 if there is none. With
    /// the origin of the undefined byte.
    Check = 3,
    Forbid = 4,
    MakeUndefined = 5,
    MakeDefined = 6,
    MakeDefinedIfAddressable = 7,
}

/// Longest range that [`Task::States`] is told of, bytes.
pub const MOST_STATES: u64 = 1 << 20;

/// What is asked, and the answer. The block's fields stand alone: a [`crate::event::Block`] has padding, and all bytes of this are sent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    /// One of [`Task`].
    pub task: u32,
    pub place: u32,
    pub place_thread: u32,
    pub origin_kind: u32,
    pub origin_stack: u32,
    pub family: u32,
    pub alloc_stack: u32,
    pub free_stack: u32,
    pub addr: u64,
    pub len: u64,
    pub result: u64,
    pub other: u64,
    pub place_distance: u64,
    pub block: u64,
    pub size: u64,
    pub name: [u8; NAME_LEN],
}

impl Errand {
    pub const fn new(task: Task, addr: u64, len: u64) -> Self {
        let task = task as u32;
        let (place, place_thread, origin_kind, origin_stack, family, alloc_stack, free_stack) = (0, 0, 0, 0, 0, 0, 0);
        let (result, other, place_distance, block, size, name) = (0, 0, 0, 0, 0, [0; NAME_LEN]);
        Errand {
            task,
            place,
            place_thread,
            origin_kind,
            origin_stack,
            family,
            alloc_stack,
            free_stack,
            addr,
            len,
            result,
            other,
            place_distance,
            block,
            size,
            name,
        }
    }

    /// Take what an event says about its address.
    pub fn take(&mut self, event: &ErrorEvent) {
        (self.place, self.place_thread, self.place_distance, self.name) =
            (event.place, event.place_thread, event.place_distance, event.name2);
        (self.origin_kind, self.origin_stack) = (event.origin_kind, event.origin_stack);
        let block = &event.block;
        (self.block, self.size, self.family) = (block.addr, block.size, block.family);
        (self.alloc_stack, self.free_stack) = (block.alloc_stack, block.free_stack);
    }

    /// The same as an event, at this stack pointer and instruction.
    pub fn event(&self, sp: u64, pc: u64) -> ErrorEvent {
        let mut event = ErrorEvent::new(Kind::User);
        (event.addr, event.has_addr, event.sp, event.stack[0]) = (self.addr, 1, sp, pc);
        (event.place, event.place_thread, event.place_distance, event.name2) =
            (self.place, self.place_thread, self.place_distance, self.name);
        let block = &mut event.block;
        (block.addr, block.size, block.family) = (self.block, self.size, self.family);
        (block.alloc_stack, block.free_stack) = (self.alloc_stack, self.free_stack);
        event
    }
}
