//! Find or make the translation of a program address.
#![allow(unsafe_code, reason = "reads link data from the code cache")]

use crate::cache::lookup_low;
use crate::fault;
use crate::renewal::for_more;
use memcheck_rt::context;

/// Host address of the body of the translation of `pc`.
pub fn body_of(pc: u64) -> u64 {
    if let Some(body) = lookup_low(pc) {
        return body;
    }
    let found = for_more().find_for_indirect(pc);
    found.unwrap_or_else(|| fault::bad_jump(pc))
}

/// Missed lookup of an indirect branch: host address of ctx.target's translation.
pub extern "C" fn dispatch() -> u64 {
    body_of(context::current().target)
}

/// Host address of the translation of ctx.regs.rip.
pub extern "C" fn entry_of_rip() -> u64 {
    crate::vectors::prepare();
    body_of(context::current().regs.rip)
}

/// First execution of a direct branch: translate its target and patch it. `data` = {program target, address of the rel32}; the link
/// stub lies just in front of it.
pub extern "C" fn link(data: u64) -> u64 {
    // SAFETY: link stubs pass the address of their own data.
    let [target, patch] = unsafe { (data as *const [u64; 2]).read_unaligned() };
    context::current().target = target;
    let mut cache = for_more();
    let Some(region) = cache.region_of(target) else {
        drop(cache);
        fault::bad_jump(target)
    };
    cache.link(patch, data - STUB_SIZE, region);
    cache.body(region)
}

/// Bytes of a link stub in front of its data: spill rax (9), lea (7), jmp (5).
const STUB_SIZE: u64 = 9 + 7 + 5;
