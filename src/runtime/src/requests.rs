//! Client requests: the program speaks to the tool through valgrind.h's magic instructions.

use memcheck_abi::context::ThreadContext;

/// Execute the request at ctx.regs (rax = address of the six words, rdx = default answer); kind is the last byte of the preamble.
pub fn request(_ctx: &mut ThreadContext, _kind: u8) {}
