//! Ranges that the program declares to be stacks.
//!
//! Without them a stack is the mapping (or heap block) around the stack pointer, which is right for most coroutine libraries. Only stacks
//! that lie side by side in one mapping, or inside another stack, need the declaration: a move between them is no growth or release.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use memcheck_rt::sync::Lock;

struct Declared {
    id: u64,
    low: u64,
    high: u64,
}

struct Stacks {
    list: Vec<Declared>,
    next: u64,
}

/// Number 0 is the main stack, as in Valgrind.
static STACKS: Lock<Stacks> = Lock::new(Stacks { list: Vec::new(), next: 1 });
static ANY: AtomicBool = AtomicBool::new(false);

/// For the time of a fork.
pub fn hold() -> impl Drop {
    STACKS.lock()
}

/// The program gives the lowest and the highest byte, in either order.
fn bounds(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b).saturating_add(1))
}

pub fn register(a: u64, b: u64) -> u64 {
    let mut stacks = STACKS.lock();
    let id = stacks.next;
    let (low, high) = bounds(a, b);
    stacks.next += 1;
    stacks.list.push(Declared { id, low, high });
    ANY.store(true, Ordering::Release);
    id
}

pub fn deregister(id: u64) {
    STACKS.lock().list.retain(|s| s.id != id);
}

pub fn change(id: u64, a: u64, b: u64) {
    if let Some(stack) = STACKS.lock().list.iter_mut().find(|s| s.id == id) {
        (stack.low, stack.high) = bounds(a, b);
    }
}

/// Bounds of the declared stack that `sp` is on. The stack pointer of an empty stack is its upper end.
pub fn around(sp: u64) -> Option<(u64, u64)> {
    if !ANY.load(Ordering::Acquire) {
        return None;
    }
    let stacks = STACKS.lock();
    let inside = |s: &&Declared| sp > s.low && sp <= s.high;
    stacks.list.iter().filter(inside).map(|s| (s.low, s.high)).min_by_key(|(low, high)| high - low)
}

#[cfg(test)]
mod tests {
    use super::{around, change, deregister, register};

    #[test]
    fn declared_changed_forgotten() {
        let (big, small) = (register(0x1000, 0x8fff), register(0x4fff, 0x4000));
        assert_eq!(big + 1, small);
        assert_eq!(around(0x4800), Some((0x4000, 0x5000)), "the innermost");
        assert_eq!(around(0x9000), Some((0x1000, 0x9000)), "empty");
        change(small, 0x10000, 0x10fff);
        assert_eq!(around(0x4800), Some((0x1000, 0x9000)));
        deregister(big);
        assert_eq!(around(0x4800), None);
        assert_eq!(around(0x10800), Some((0x10000, 0x11000)));
    }
}
