//! Descriptors that are open at the end, for `--track-fds`: what is open says the kernel, where it was opened the runtime.

use std::collections::HashMap;
use std::fs;

use memcheck_abi::event::{ExitReport, OpenedFd};
use memcheck_report::options::TrackFds;
use memcheck_report::render::descriptors::{Descriptor, OpenDescriptor};
use memcheck_tracer::{Process, sockets};

use super::watched::Watched;

/// No process has more.
const MOST: u64 = 1 << 16;

/// Report what is open, the last opened first, then what was inherited.
pub fn report(watched: &mut Watched, process: &Process, exit: &ExitReport, at_exit: bool) {
    if watched.reporter.options().track_fds == TrackFds::No {
        return;
    }
    let known: Vec<OpenedFd> = process.memory().values(exit.descriptors, exit.descriptor_count.min(MOST) as usize);
    let rank: HashMap<i32, (usize, u32)> = known.iter().enumerate().map(|(at, opened)| (opened.fd, (at + 1, opened.stack))).collect();
    let order = |fd: &i32| rank.get(fd).map_or(0, |(at, _)| *at);
    let mut open = numbers(process.living());
    open.sort_by_key(|fd| std::cmp::Reverse((order(fd), *fd)));
    let described = open.into_iter().map(|number| OpenDescriptor {
        number,
        descriptor: what(process.living(), number),
        opened: rank.get(&number).and_then(|(_, stack)| watched.depot_stack(process, *stack)),
    });
    let described: Vec<OpenDescriptor> = described.collect();
    watched.reporter.open_descriptors(&described, at_exit);
}

fn numbers(tid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{tid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn what(tid: i32, fd: i32) -> Descriptor {
    let target = fs::read_link(format!("/proc/{tid}/fd/{fd}")).unwrap_or_default();
    let text = target.to_string_lossy();
    if text.starts_with("socket:") {
        let unknown = || Descriptor::Socket { family: "unknown".into(), ends: String::new() };
        return sockets::socket(tid, fd).map_or_else(unknown, |found| Descriptor::Socket { family: found.family, ends: found.ends });
    }
    let is_file = target.is_absolute() && !text.starts_with("/memfd:");
    Descriptor::File(is_file.then(|| text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned()))
}
