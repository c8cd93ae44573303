//! Programs run under the tracer: natively, and with a runtime of a few instructions.

mod injected;
mod native;
mod stand_in;
