//! Mappings: executed by [`crate::space`], which also keeps the shadow.

use crate::row::Rule::{In, Out, Set};
use crate::row::Size::Fix;
use crate::row::{Row, Size, plain, row};
use crate::space;

const MAP_ANONYMOUS: u64 = 0x20;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    plain(9, "mmap", "start length prot:4 flags:4 fd:4 offset").act(space::mmap)
        .uses(|a| if a[3] & MAP_ANONYMOUS != 0 { 0x0f } else { 0x3f }),
    plain(10, "mprotect", "addr len prot:4").act(space::mprotect),
    plain(11, "munmap", "start length").act(space::munmap),
    plain(12, "brk", "end_data_segment").act(space::brk),
    plain(25, "mremap", "old_addr old_size new_size flags:4 new_addr").act(space::mremap)
        .uses(|a| if a[3] & 2 != 0 { 0x1f } else { 0x0f }),
    plain(26, "msync", "start length flags:4"),
    row(27, "mincore", "start length vec", &[crate::row::Rule::Do(mincore)]),
    plain(28, "madvise", "start length advice:4").act(space::madvise),
    plain(30, "shmat", "shmid:4 shmaddr shmflg:4").act(space::shmat),
    plain(67, "shmdt", "shmaddr").act(space::shmdt),
    plain(149, "mlock", "addr len"),
    plain(150, "munlock", "addr len"),
    plain(151, "mlockall", "flags:4").act(crate::virtualise::mlockall),
    plain(152, "munlockall", ""),
    plain(216, "remap_file_pages", "start size prot pgoff flags").act(space::remap_file_pages),
    row(237, "mbind", "start len policy nodemask maxnode flags:4", &[In(3, Size::Fix(8), "mbind(nodemask)")]),
    row(238, "set_mempolicy", "policy:4 nodemask maxnode", &[In(1, Fix(8), "set_mempolicy(nodemask)")]),
    row(239, "get_mempolicy", "policy nodemask maxnode addr flags", &[
        Set(0, Fix(4), "get_mempolicy(policy)"), Out(1, Fix(8), Fix(8), "get_mempolicy(nodemask)")]),
    row(256, "migrate_pages", "pid:4 maxnode old_nodes new_nodes", &[
        In(2, Fix(8), "migrate_pages(old_nodes)"), In(3, Fix(8), "migrate_pages(new_nodes)")]),
    row(279, "move_pages", "pid:4 nr_pages pages nodes status flags:4", &[
        In(2, Size::Mul(1, 8), "move_pages(pages)"), In(3, Size::Mul(1, 4), "move_pages(nodes)"),
        Set(4, Size::Mul(1, 4), "move_pages(status)")]),
    plain(325, "mlock2", "addr len flags:4"),
    plain(329, "pkey_mprotect", "addr len prot:4 pkey:4").act(space::pkey_mprotect),
    plain(330, "pkey_alloc", "flags access_rights"),
    plain(331, "pkey_free", "pkey:4"),
    row(440, "process_madvise", "pidfd:4 vec vlen advice:4 flags:4", &[In(1, Size::Mul(2, 16), "process_madvise(vec)")]),
    plain(448, "process_mrelease", "pidfd:4 flags:4"),
    plain(450, "set_mempolicy_home_node", "start len home_node flags"),
    row(451, "cachestat", "fd:4 cstat_range cstat flags:4", &[In(1, Fix(16), "cachestat(cstat_range)"), Set(2, Fix(40), "cachestat(cstat)")]),

    plain(453, "map_shadow_stack", "addr size flags:4").act(crate::action::not_implemented),
    plain(462, "mseal", "start len flags"),
];

/// One byte per page.
fn mincore(c: &mut crate::call::Call) {
    let pages = c.args[1].div_ceil(4096);
    c.output(c.args[2], pages, "mincore(vec)");
}
