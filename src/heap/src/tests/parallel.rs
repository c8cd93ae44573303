use super::*;
use crate::entries::{free, malloc, realloc};
use memcheck_rt::report::host::drain;
use std::sync::Mutex;
use std::vec::Vec;

const THREADS: u64 = 6;
const STEPS: usize = 20_000;

/// A block carries its own address and the thread that filled it.
fn mark(p: u64, size: u64, thread: u64) {
    if size >= 16 {
        bytes_mut(p, 8).copy_from_slice(&p.to_ne_bytes());
        bytes_mut(p + 8, 8).copy_from_slice(&(thread ^ p).to_ne_bytes());
        bytes_mut(p + 16, size - 16).fill(thread as u8);
    }
}

fn check(p: u64, size: u64, thread: u64) {
    if size >= 16 {
        assert_eq!(bytes_mut(p, 8), p.to_ne_bytes());
        assert_eq!(bytes_mut(p + 8, 8), (thread ^ p).to_ne_bytes());
        assert!(bytes_mut(p + 16, size - 16).iter().all(|&b| b == thread as u8));
    }
}

fn work(thread: u64, shared: &Mutex<Vec<(u64, u64, u64)>>) {
    let mut random = Random(thread + 1);
    let mut own: Vec<(u64, u64)> = Vec::new();
    for _ in 0..STEPS {
        let size = random.below(600);
        match random.below(8) {
            0..3 => {
                let p = malloc(size);
                assert!(shadow::a_clear(p) || size == 0);
                mark(p, size, thread);
                own.push((p, size));
            }
            3 => {
                // What another thread allocated is freed here.
                let p = malloc(size);
                mark(p, size, thread);
                let mut shared = shared.lock().expect("no panic elsewhere");
                shared.push((p, size, thread));
                if shared.len() > 100 {
                    let (p, size, thread) = shared.swap_remove(random.below(100) as usize);
                    check(p, size, thread);
                    free(p);
                }
            }
            4 if !own.is_empty() => {
                let (p, old) = own.swap_remove(random.below(own.len() as u64) as usize);
                check(p, old, thread);
                let q = realloc(p, size + 1);
                mark(q, size + 1, thread);
                own.push((q, size + 1));
            }
            _ if !own.is_empty() => {
                let (p, size) = own.swap_remove(random.below(own.len() as u64) as usize);
                check(p, size, thread);
                free(p);
            }
            _ => {}
        }
    }
    own.iter().for_each(|&(p, size)| {
        check(p, size, thread);
        free(p);
    });
    crate::cache::current(context::current()).expect("a cache").retire();
}

#[test]
fn blocks_of_many_threads_never_meet() {
    let (_guard, _) = start();
    context::share();
    let before = crate::totals();
    let shared = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let shared = &shared;
            scope.spawn(move || work(thread, shared));
        }
    });
    for (p, size, thread) in shared.into_inner().expect("no panic") {
        check(p, size, thread);
        free(p);
    }
    let after = crate::totals();
    assert_eq!(after.0 - before.0, after.1 - before.1);
    assert_eq!(drain().0, 0);
}

/// Of many threads that free one block, one succeeds and all others are told.
#[test]
fn one_free_wins() {
    let (_guard, _) = start();
    for _ in 0..50 {
        let p = malloc(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| free(p));
            }
        });
    }
    let errors = memcheck_rt::report::ERRORS.load(std::sync::atomic::Ordering::Relaxed);
    drain();
    free(malloc(1));
    assert!(errors >= 150);
}

#[test]
fn fork_keeps_the_lists_whole() {
    let (_guard, _) = start();
    crate::before_fork();
    crate::after_fork();
    let p = malloc(100_000);
    assert_live(p, 100_000);
    free(p);
}
