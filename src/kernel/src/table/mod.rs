//! One row for every system call, by family.
//!
//! | file | calls |
//! |---|---|
//! | `files` | open, read, write, stat, directories, descriptors, mounts |
//! | `memory` | mappings and advice |
//! | `process` | threads, exec, wait, scheduling, limits, identity |
//! | `signals` | actions, masks, waiting |
//! | [`network`] | sockets |
//! | `ipc` | pipes of data: poll, epoll, futex, System V and POSIX queues, AIO |
//! | `time` | clocks, timers, sleeps |
//! | `ioctl` | ioctl by request |
//! | `uring` | io_uring, and the entries of its rings |
//! | `misc` | the rest |

mod files;
mod ioctl;
mod ipc;
mod memory;
mod misc;
pub mod network;
mod process;
mod signals;
mod time;
mod uring;

use crate::row::Row;

const FAMILIES: &[&[Row]] = &[
    files::ROWS,
    files::EXTENDED,
    memory::ROWS,
    process::ROWS,
    signals::ROWS,
    network::ROWS,
    ipc::ROWS,
    time::ROWS,
    misc::ROWS,
    uring::ROWS,
];

/// One more than the highest number with a row.
pub const COUNT: usize = 463;

static TABLE: [Option<&Row>; COUNT] = build();

const fn build() -> [Option<&'static Row>; COUNT] {
    let mut table = [None; COUNT];
    let mut f = 0;
    while f < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[f].len() {
            let row = &FAMILIES[f][i];
            assert!(table[row.nr as usize].is_none(), "two rows for one number");
            table[row.nr as usize] = Some(row);
            i += 1;
        }
        f += 1;
    }
    table
}

/// The row of a system call; `None` for numbers that nobody has heard of.
#[inline(always)]
pub fn find(number: u64) -> Option<&'static Row> {
    if number < COUNT as u64 { TABLE[number as usize] } else { None }
}

/// Numbers without a row: never assigned on this processor, or no longer implemented by any kernel.
pub const WITHOUT_ROW: &[core::ops::RangeInclusive<u16>] =
    &[134..=134, 174..=174, 177..=178, 180..=180, 183..=185, 205..=205, 211..=211, 214..=215, 236..=236, 337..=423];

#[cfg(test)]
mod tests {
    use super::{COUNT, FAMILIES, WITHOUT_ROW, find};
    use crate::row::Rule;
    use std::vec::Vec;

    #[test]
    fn every_number_has_a_row_or_a_reason() {
        let listed = |n: u16| WITHOUT_ROW.iter().any(|r| r.contains(&n));
        let wrong: Vec<u16> = (0..COUNT as u16).filter(|&n| find(u64::from(n)).is_some() == listed(n)).collect();
        assert!(wrong.is_empty(), "neither or both: {wrong:?}");
        assert!(find(COUNT as u64).is_none() && find(u64::MAX).is_none());
    }

    #[test]
    fn rows_use_only_arguments_that_they_name() {
        for row in FAMILIES.iter().copied().flatten() {
            let named = row.registers.split_ascii_whitespace().count();
            assert!(named <= 6, "{}", row.name);
            for rule in row.rules {
                let argument = match *rule {
                    Rule::In(a, ..) | Rule::Out(a, ..) | Rule::Set(a, ..) | Rule::InOut(a, ..) | Rule::Str(a, _) => a,
                    Rule::Data(a, n, _) | Rule::Room(a, n, _) | Rule::IovIn(a, n, ..) | Rule::IovOut(a, n, ..) => a.max(n),
                    _ => continue,
                };
                assert!((argument as usize) < named, "{} has no argument {argument}", row.name);
            }
        }
    }
}
