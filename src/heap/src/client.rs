//! Blocks that the program itself declares: custom allocators, memory pools, named areas.
//!
//! Such a block is an entry of an ordered map, keyed by address and pool (0 = declared without a pool): a pool's chunk and a block
//! that is declared inside it may begin at the same address. Freed ones are remembered in a list of the same volume as the
//! quarantine, for descriptions only; their memory is the program's business.
//!
//! Nothing here is fast, and while no block was ever declared nothing here is entered.

use crate::cache;
use crate::{block, map, settings, stacks, tally};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use memcheck_abi::context::ThreadContext;
use memcheck_abi::event::{Block, ErrorEvent, Family, Kind, NAME_LEN, Place};
use memcheck_rt::sync::{Guard, Lock};
use memcheck_rt::{access, report, shadow};

/// A declared block.
#[derive(Clone, Copy)]
pub struct Marked {
    pub size: u64,
    pub stack: u32,
    free_stack: u32,
    redzone: u64,
}

#[derive(Clone, Copy)]
struct Pool {
    redzone: u64,
    zeroed: bool,
    /// Freeing a chunk frees the blocks that were declared inside it.
    auto_free: bool,
}

struct Named {
    addr: u64,
    size: u64,
    stack: u32,
    name: [u8; NAME_LEN],
}

struct Client {
    marked: BTreeMap<(u64, u64), Marked>,
    pools: BTreeMap<u64, Pool>,
    freed: VecDeque<(u64, Marked)>,
    freed_bytes: u64,
    named: Vec<Option<Named>>,
}

static CLIENT: Lock<Client> =
    Lock::new(Client { marked: BTreeMap::new(), pools: BTreeMap::new(), freed: VecDeque::new(), freed_bytes: 0, named: Vec::new() });

/// Was anything ever declared?
static USED: AtomicBool = AtomicBool::new(false);

/// Flags of [`create_mempool`].
pub const META_POOL: u64 = 1;
pub const AUTO_FREE: u64 = 2;
/// How many entries before an address are looked at: blocks may be nested, but not deeply.
const NESTING: usize = 8;
const FREED_ENTRIES: usize = 100_000;

fn enter() -> Guard<'static, Client> {
    USED.store(true, Relaxed);
    CLIENT.lock()
}

/// For `fork`: the lock, held.
pub fn hold() -> Held {
    Held(CLIENT.lock())
}

pub struct Held(#[expect(dead_code, reason = "held, not read")] Guard<'static, Client>);

fn open(addr: u64, marked: &Marked, defined: bool) {
    access::forbid(addr.saturating_sub(marked.redzone), marked.redzone);
    access::forbid(addr.saturating_add(marked.size), marked.redzone);
    if defined {
        shadow::make_defined(addr, marked.size);
    } else {
        shadow::make_undefined(addr, marked.size);
    }
}

fn new_marked(ctx: &mut ThreadContext, size: u64, redzone: u64) -> Marked {
    if let Some(cache) = cache::current(ctx) {
        cache.allocs.add(1);
        cache.bytes.add(size);
    }
    let stack = stacks::at_alloc(ctx);
    tally::allocated(stack, size);
    Marked { size, stack, free_stack: 0, redzone }
}

pub fn malloclike_block(ctx: &mut ThreadContext, addr: u64, size: u64, redzone: u64, zeroed: bool) {
    if addr == 0 {
        return;
    }
    let marked = new_marked(ctx, size, redzone);
    open(addr, &marked, zeroed);
    enter().marked.insert((addr, 0), marked);
}

pub fn freelike_block(ctx: &mut ThreadContext, addr: u64, redzone: u64) {
    if addr == 0 {
        return;
    }
    if let Some(cache) = cache::current(ctx) {
        cache.frees.add(1);
    }
    if CLIENT.lock().marked.contains_key(&(addr, 0)) || map::live_at(addr).is_none() {
        free_marked(ctx, addr, Family::Custom, redzone);
    } else {
        block::retire_at(ctx, addr, Family::Custom);
    }
}

/// Free a declared block, by request or by an ordinary free; reports what is wrong. True if there was one.
#[cold]
#[inline(never)]
pub fn free_marked(ctx: &mut ThreadContext, addr: u64, family: Family, redzone: u64) -> bool {
    if !USED.load(Relaxed) || !CLIENT.lock().marked.contains_key(&(addr, 0)) {
        block::invalid(ctx, addr);
        return false;
    }
    if family != Family::Custom {
        block::mismatched(ctx, addr, family);
    }
    let free_stack = stacks::at_free(ctx);
    let mut client = CLIENT.lock();
    if let Some(marked) = client.marked.remove(&(addr, 0)) {
        client.retire(addr, Marked { free_stack, redzone: marked.redzone.max(redzone), ..marked });
    }
    true
}

pub fn resizeinplace_block(ctx: &mut ThreadContext, addr: u64, old: u64, new: u64, redzone: u64) {
    if addr == 0 {
        return;
    }
    if new == 0 {
        return freelike_block(ctx, addr, redzone);
    }
    let mut client = enter();
    let Some(marked) = client.marked.get_mut(&(addr, 0)) else {
        drop(client);
        return block::invalid(ctx, addr);
    };
    (marked.size, marked.redzone) = (new, redzone);
    drop(client);
    if new > old {
        shadow::make_undefined(addr.saturating_add(old), new - old);
    } else {
        access::forbid(addr.saturating_add(new), old - new);
    }
    access::forbid(addr.saturating_add(new), redzone);
}

impl Client {
    /// A block is gone: unaddressable, remembered.
    fn retire(&mut self, addr: u64, marked: Marked) {
        tally::freed(marked.free_stack, marked.size);
        let start = addr.saturating_sub(marked.redzone);
        access::forbid(start, (addr - start).saturating_add(marked.size).saturating_add(marked.redzone));
        self.freed.push_back((addr, marked));
        self.freed_bytes = self.freed_bytes.saturating_add(marked.size);
        while self.freed.len() > FREED_ENTRIES || self.freed_bytes > settings::get().volume && self.freed.len() > 1 {
            let Some((_, gone)) = self.freed.pop_front() else { break };
            self.freed_bytes = self.freed_bytes.saturating_sub(gone.size);
        }
    }

    /// Keys of the chunks of a pool, in order of address.
    fn chunks(&self, pool: u64) -> Vec<u64> {
        self.marked.keys().filter(|k| k.1 == pool).map(|k| k.0).collect()
    }

    /// The declared blocks that begin inside `[addr, addr + size)`.
    fn inside(&self, addr: u64, size: u64) -> Vec<u64> {
        let range = (addr, 0)..(addr.saturating_add(size), 0);
        self.marked.range(range).filter(|(k, _)| k.1 == 0).map(|(k, _)| k.0).collect()
    }

    fn free_chunk(&mut self, pool: u64, addr: u64, free_stack: u32) -> bool {
        let Some(marked) = self.marked.remove(&(addr, pool)) else { return false };
        if self.pools.get(&pool).is_some_and(|p| p.auto_free) {
            for inner in self.inside(addr, marked.size) {
                if let Some(m) = self.marked.remove(&(inner, 0)) {
                    self.retire(inner, Marked { free_stack, ..m });
                }
            }
        }
        self.retire(addr, Marked { free_stack, ..marked });
        true
    }
}

#[cold]
fn bad_pool(ctx: &ThreadContext, pool: u64) {
    report::raise(Kind::Mempool, ctx.regs.rip, ctx.guest_rsp, |e| {
        e.addr = pool;
        e.has_addr = 1;
    });
}

/// The pool, or a report that there is none.
fn pool_of(ctx: &ThreadContext, pool: u64) -> Option<Pool> {
    let found = CLIENT.lock().pools.get(&pool).copied();
    if found.is_none() {
        bad_pool(ctx, pool);
    }
    found
}

pub fn create_mempool(pool: u64, redzone: u64, zeroed: bool, flags: u64) {
    let auto_free = flags & (META_POOL | AUTO_FREE) == META_POOL | AUTO_FREE;
    enter().pools.insert(pool, Pool { redzone, zeroed, auto_free });
}

pub fn destroy_mempool(ctx: &mut ThreadContext, pool: u64) {
    if pool_of(ctx, pool).is_none() {
        return;
    }
    let mut client = CLIENT.lock();
    client.pools.remove(&pool);
    for addr in client.chunks(pool) {
        if let Some(marked) = client.marked.remove(&(addr, pool)) {
            access::forbid(addr, marked.size);
        }
    }
}

pub fn mempool_alloc(ctx: &mut ThreadContext, pool: u64, addr: u64, size: u64) {
    let Some(facts) = pool_of(ctx, pool) else { return };
    let marked = new_marked(ctx, size, facts.redzone);
    open(addr, &marked, facts.zeroed);
    CLIENT.lock().marked.insert((addr, pool), marked);
}

pub fn mempool_free(ctx: &mut ThreadContext, pool: u64, addr: u64) {
    if pool_of(ctx, pool).is_none() {
        return;
    }
    let stack = stacks::at_free(ctx);
    let done = CLIENT.lock().free_chunk(pool, addr, stack);
    if !done {
        block::invalid(ctx, addr);
    }
}

/// Free every chunk of which neither end lies in `[addr, addr + size)`, cut those of which one end does.
pub fn mempool_trim(ctx: &mut ThreadContext, pool: u64, addr: u64, size: u64) {
    if pool_of(ctx, pool).is_none() {
        return;
    }
    let stack = stacks::at_free(ctx);
    let end = addr.saturating_add(size);
    let mut client = CLIENT.lock();
    for start in client.chunks(pool) {
        let Some(marked) = client.marked.get(&(start, pool)).copied() else { continue };
        let last = start.saturating_add(marked.size.max(1) - 1);
        let (low_in, high_in) = (start >= addr && start < end, last >= addr && last < end);
        match (low_in, high_in) {
            (true, true) => {}
            (false, false) => {
                client.free_chunk(pool, start, stack);
            }
            _ => {
                let (low, high) = (start.max(addr), (last + 1).min(end));
                access::forbid(start, low - start);
                access::forbid(high, last + 1 - high);
                client.marked.remove(&(start, pool));
                client.marked.insert((low, pool), Marked { size: high - low, ..marked });
            }
        }
    }
}

pub fn move_mempool(ctx: &mut ThreadContext, from: u64, to: u64) {
    let Some(facts) = pool_of(ctx, from) else { return };
    let mut client = CLIENT.lock();
    client.pools.remove(&from);
    client.pools.insert(to, facts);
    for addr in client.chunks(from) {
        if let Some(marked) = client.marked.remove(&(addr, from)) {
            client.marked.insert((addr, to), marked);
        }
    }
}

/// A chunk is somewhere else now, or of another size; the program has moved its contents and their state itself.
pub fn mempool_change(ctx: &mut ThreadContext, pool: u64, old: u64, new: u64, size: u64) {
    if pool_of(ctx, pool).is_none() {
        return;
    }
    let mut client = CLIENT.lock();
    let Some(marked) = client.marked.remove(&(old, pool)) else {
        drop(client);
        return block::invalid(ctx, old);
    };
    client.marked.insert((new, pool), Marked { size, ..marked });
}

pub fn mempool_exists(pool: u64) -> bool {
    CLIENT.lock().pools.contains_key(&pool)
}

/// Name an area for descriptions; its index for [`discard_block`].
pub fn create_block(ctx: &mut ThreadContext, addr: u64, size: u64, text: &[u8]) -> u64 {
    let mut name = [0; NAME_LEN];
    let n = text.len().min(NAME_LEN - 1);
    name[..n].copy_from_slice(&text[..n]);
    let named = Named { addr, size, stack: stacks::at_alloc(ctx), name };
    let mut client = enter();
    let free = client.named.iter().position(Option::is_none);
    match free {
        Some(index) => {
            client.named[index] = Some(named);
            index as u64
        }
        None => {
            client.named.push(Some(named));
            client.named.len() as u64 - 1
        }
    }
}

/// False if there is no such index.
pub fn discard_block(index: u64) -> bool {
    let mut client = CLIENT.lock();
    client.named.get_mut(index as usize).and_then(Option::take).is_some()
}

/// Every declared block, in order of address, and whether it is a chunk of a pool.
pub fn for_each(mut visit: impl FnMut(u64, bool, &Marked)) {
    if USED.load(Relaxed) {
        CLIENT.lock().marked.iter().for_each(|(key, marked)| visit(key.0, key.1 != 0, marked));
    }
}

/// Fill place and block of an event whose address lies in or at something declared. True if so.
pub fn describe(event: &mut ErrorEvent) -> bool {
    if !USED.load(Relaxed) {
        return false;
    }
    let client = CLIENT.lock();
    let addr = event.addr;
    if let Some(named) = client.named.iter().flatten().find(|n| addr.wrapping_sub(n.addr) < n.size) {
        event.place = Place::ClientBlock as u32;
        event.name2 = named.name;
        let facts = Marked { size: named.size, stack: named.stack, free_stack: 0, redzone: 0 };
        event.block = facts.block(named.addr);
        return true;
    }
    let below = client.marked.range(..=(addr, u64::MAX)).rev().take(NESTING);
    let above = client.marked.range((addr, u64::MAX)..).take(1);
    let live = below.chain(above).map(|(k, m)| (k.0, k.1, m)).filter(|(a, _, m)| distance(addr, *a, m).is_some());
    if let Some((start, pool, marked)) = live.min_by_key(|(a, _, m)| distance(addr, *a, m)) {
        event.block = marked.block(start);
        let reused = client.freed.iter().any(|(a, m)| distance(addr, *a, m).is_some());
        event.place = if reused { Place::ReusedBlock } else { Place::LiveBlock } as u32;
        if pool != 0 {
            event.place = Place::ClientBlock as u32;
            event.name2[..6].copy_from_slice(b"block\0");
        }
        return true;
    }
    let freed = client.freed.iter().rev().find(|(a, m)| distance(addr, *a, m).is_some() && shadow::v(addr) != 0);
    if let Some((start, marked)) = freed {
        event.block = marked.block(*start);
        event.place = Place::FreedBlock as u32;
    }
    freed.is_some()
}

/// Bytes around a declared block that are told by it, whatever red zone it has.
const NEAR: u64 = 16;

/// 0 inside, else 1 + bytes to the block, `None` if out of its reach.
fn distance(addr: u64, start: u64, marked: &Marked) -> Option<u64> {
    let distance = if addr < start {
        start - addr
    } else if addr - start < marked.size {
        0
    } else {
        addr - start - marked.size + 1
    };
    (distance <= marked.redzone.max(NEAR)).then_some(distance)
}

impl Marked {
    fn block(&self, addr: u64) -> Block {
        Block { addr, size: self.size, family: Family::Custom as u32, alloc_stack: self.stack, free_stack: self.free_stack }
    }
}
