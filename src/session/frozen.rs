//! Memory of a stopped process, as searches read it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memcheck_abi::layout;
use memcheck_leak::Root;
use memcheck_tracer::Map;

/// A stopped process as the search reads it, from several threads at once.
pub struct Frozen {
    memory: File,
    /// What the program itself may not read, sorted: pointers that it put out of its own reach hold nothing.
    closed: Vec<Root>,
}

impl Frozen {
    pub fn open(tid: i32, maps: &[Map]) -> Option<Frozen> {
        let memory = File::open(Path::new("/proc").join(tid.to_string()).join("mem")).ok()?;
        let closed = maps.iter().filter(|map| map.prot & libc::PROT_READ as u32 == 0 && map.end <= layout::PROGRAM_END);
        Some(Frozen { memory, closed: closed.map(|map| Root { start: map.start, end: map.end }).collect() })
    }

    fn copy(&self, addr: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            match self.memory.read_at(&mut out[done..], addr.wrapping_add(done as u64)) {
                Ok(0) | Err(_) => break,
                Ok(more) => done += more,
            }
        }
        done
    }
}

/// How many of the `len` bytes from `addr` on lie in front of the first of these ranges, which are sorted.
fn open_part(closed: &[Root], addr: u64, len: usize) -> usize {
    let next = closed.partition_point(|range| range.end <= addr);
    closed.get(next).map_or(len, |range| range.start.saturating_sub(addr).min(len as u64) as usize)
}

impl memcheck_leak::Memory for Frozen {
    fn read(&self, addr: u64, out: &mut [u8]) -> usize {
        let open = open_part(&self.closed, addr, out.len());
        self.copy(addr, &mut out[..open])
    }

    fn v(&self, addr: u64, out: &mut [u8]) -> usize {
        self.copy(layout::v_of(addr), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_may_not_read_is_not_read() {
        let closed = [Root { start: 0x2000, end: 0x3000 }, Root { start: 0x5000, end: 0x6000 }];
        let part = |addr, len| open_part(&closed, addr, len);
        assert_eq!([part(0x1000, 0x800), part(0x1000, 0x1800), part(0x2000, 8), part(0x2ff8, 16)], [0x800, 0x1000, 0, 0]);
        assert_eq!([part(0x3000, 0x8000), part(0x6000, 0x8000)], [0x2000, 0x8000]);
    }
}
