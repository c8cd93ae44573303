//! What the two halves cost; run by hand: `cargo test --release -p memcheck-kernel -- --ignored --nocapture speed`.

use super::Program;
use crate::{after, before};
use memcheck_abi::context::RAX;
use memcheck_rt::context;

/// Processor time of this thread: the machine may be busy with other things.
fn now() -> u64 {
    // SAFETY: the kernel fills one timespec.
    unsafe {
        let mut t: libc::timespec = core::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    }
}

fn measure(what: &str, number: u64, args: [u64; 6], result: i64) {
    const ROUNDS: u32 = 2_000_000;
    let ctx = context::current();
    ctx.regs.gpr[RAX] = number;
    for (r, x) in crate::call::ARGUMENTS.into_iter().zip(args) {
        ctx.regs.gpr[r] = x;
    }
    let start = now();
    for _ in 0..ROUNDS {
        core::hint::black_box(before(core::hint::black_box(ctx)));
        after(core::hint::black_box(ctx), result);
    }
    std::println!("{what}: {:.1} ns", (now() - start) as f64 / f64::from(ROUNDS));
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let p = &mut Program::new();
    let buf = p.room(70_000);
    let path = p.string("/usr/lib/x86_64-linux-gnu/libc.so.6");
    let iov = p.words(&[buf, 10, buf, 10]);
    measure("getpid", 39, [0; 6], 1);
    measure("read 1", 0, [0, buf, 1, 0, 0, 0], 1);
    measure("write 1", 1, [0, buf, 1, 0, 0, 0], 1);
    measure("read 4096", 0, [0, buf, 4096, 0, 0, 0], 4096);
    measure("write 4096", 1, [0, buf, 4096, 0, 0, 0], 4096);
    measure("read 65536", 0, [0, buf, 65536, 0, 0, 0], 65536);
    measure("open", 2, [path, 0, 0, 0, 0, 0], 3);
    measure("fstat", 5, [0, buf, 0, 0, 0, 0], 0);
    measure("writev 2", 20, [0, iov, 2, 0, 0, 0], 20);
    measure("futex wake", 202, [buf, 129, 1, 0, 0, 0], 0);
}
