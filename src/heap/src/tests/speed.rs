//! Numbers to read: `cargo test --release -p memcheck-heap -- --ignored --nocapture speed`.

use super::*;
use crate::entries::{free, malloc};
use memcheck_rt::callstack;

/// Calls in progress, of some depth.
fn call_stack(ctx: &mut ThreadContext, depth: u64) {
    (ctx.stack_low, ctx.stack_high, ctx.guest_rsp) = (0x0ff0_0000_0000, 0x0ff0_0010_0000, 0x0ff0_0000_8000);
    callstack::host::clear(ctx.guest_rsp, ctx.guest_rsp + 0x8000);
    ctx.first_sp = ctx.guest_rsp + 128 * (depth - 1);
    for i in 0..depth {
        callstack::host::push(ctx.guest_rsp + 128 * i, 0x40_0000 + 64 * i);
    }
}

/// Processor time of this thread: other work on the machine counts less.
fn now() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `t`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// The best of three.
fn measure(name: &str, pairs: u64, mut run: impl FnMut()) {
    let once = |_| {
        let at = now();
        run();
        (now() - at) / pairs as f64
    };
    let best = (0..3).map(once).fold(f64::MAX, f64::min);
    std::println!("{name:48} {best:7.1} ns per malloc+free");
}

#[test]
#[ignore = "prints timings"]
fn speed() {
    let (_guard, ctx) = start();
    let n = 1_000_000;
    for depth in [1, 12] {
        call_stack(ctx, depth);
        for size in [16, 100, 1000] {
            measure(&std::format!("pairs of {size} bytes, depth {depth}"), n, || {
                (0..n).for_each(|_| {
                    free(malloc(size));
                })
            });
        }
        let mut random = Random(5);
        measure(&std::format!("random sizes below 512, 1000 live, depth {depth}"), n, || {
            let mut live = std::vec![0; 1000];
            for _ in 0..n {
                let at = random.below(1000) as usize;
                if live[at] != 0 {
                    free(live[at]);
                }
                live[at] = malloc(random.below(512));
            }
            live.iter().for_each(|&p| {
                if p != 0 {
                    free(p);
                }
            });
        });
    }
    measure("pairs of 200 KB", 20_000, || {
        (0..20_000).for_each(|_| {
            free(malloc(200_000));
        })
    });
    callstack::host::clear(ctx.guest_rsp, ctx.guest_rsp + 0x8000);
}
