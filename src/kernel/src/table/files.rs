//! Files and directories.

use crate::call::Call;
use crate::proc_files;
use crate::row::Rule::{self, Data, Do, In, IovIn, IovOut, Out, Room, Set, Str};
use crate::row::Size::{Arg, Fix, Ret};
use crate::row::{Row, plain, row};

const STAT: u64 = 144;
const STATFS: u64 = 120;
const STATX: u64 = 256;
const OPEN_HOW: u64 = 24;
const ATTR: u64 = 256;

const O_CREAT: u64 = 0o100;
const O_TMPFILE: u64 = 0o20_000_000;

/// open's mode counts only if a file may be made; `mode` is argument `1 << n`.
const fn open_uses(flags: u64, all: u8, mode: u8) -> u8 {
    if flags & (O_CREAT | O_TMPFILE) != 0 { all } else { all & !mode }
}

/// The sizes of getcwd, readlink and the xattr calls: the result says how much was written, size 0 only asks.
const fn got(buf: u8, size: u8, name: &'static str) -> Rule {
    Out(buf, Arg(size), Ret, name)
}

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    row(0, "read", "fd:4 buf count", &[Room(1, 2, "read(buf)")]),
    row(1, "write", "fd:4 buf count", &[Data(1, 2, "write(buf)")]),
    row(2, "open", "filename flags:4 mode:4", &[Str(0, "open(filename)")]).uses(|a| open_uses(a[1], 7, 4)).act(proc_files::open),
    plain(3, "close", "fd:4"),
    row(4, "stat", "file_name buf", &[Str(0, "stat(file_name)"), Set(1, Fix(STAT), "stat(buf)")]),
    row(5, "fstat", "fd:4 buf", &[Set(1, Fix(STAT), "fstat(buf)")]),
    row(6, "lstat", "file_name buf", &[Str(0, "lstat(file_name)"), Set(1, Fix(STAT), "lstat(buf)")]),
    plain(8, "lseek", "fd:4 offset whence:4"),
    row(17, "pread64", "fd:4 buf count offset", &[Room(1, 2, "pread64(buf)")]),
    row(18, "pwrite64", "fd:4 buf count offset", &[Data(1, 2, "pwrite64(buf)")]),
    row(19, "readv", "fd vector count", &[IovOut(1, 2, "readv(vector)", "readv(vector[...])")]),
    row(20, "writev", "fd vector count", &[IovIn(1, 2, "writev(vector)", "writev(vector[...])")]),
    row(21, "access", "pathname mode:4", &[Str(0, "access(pathname)")]),
    plain(32, "dup", "oldfd:4"),
    plain(33, "dup2", "oldfd:4 newfd:4"),
    row(40, "sendfile", "out_fd:4 in_fd:4 offset count", &[Rule::InOut(2, Fix(8), "sendfile(offset)")]),
    row(72, "fcntl", "fd:4 cmd:4 arg", &[Do(fcntl)]).uses(fcntl_uses),
    plain(73, "flock", "fd:4 operation:4"),
    plain(74, "fsync", "fd:4"),
    plain(75, "fdatasync", "fd:4"),
    row(76, "truncate", "path length", &[Str(0, "truncate(path)")]),
    plain(77, "ftruncate", "fd:4 length"),
    row(78, "getdents", "fd:4 dirp count:4", &[got(1, 2, "getdents(dirp)")]),
    row(79, "getcwd", "buf size", &[got(0, 1, "getcwd(buf)")]),
    row(80, "chdir", "path", &[Str(0, "chdir(path)")]),
    plain(81, "fchdir", "fd:4"),
    row(82, "rename", "oldpath newpath", &[Str(0, "rename(oldpath)"), Str(1, "rename(newpath)")]),
    row(83, "mkdir", "pathname mode:4", &[Str(0, "mkdir(pathname)")]),
    row(84, "rmdir", "pathname", &[Str(0, "rmdir(pathname)")]),
    row(85, "creat", "pathname mode:4", &[Str(0, "creat(pathname)")]),
    row(86, "link", "oldpath newpath", &[Str(0, "link(oldpath)"), Str(1, "link(newpath)")]),
    row(87, "unlink", "pathname", &[Str(0, "unlink(pathname)")]),
    row(88, "symlink", "oldpath newpath", &[Str(0, "symlink(oldpath)"), Str(1, "symlink(newpath)")]),
    row(89, "readlink", "path buf bufsiz:4", &[Str(0, "readlink(path)"), got(1, 2, "readlink(buf)")]),
    row(90, "chmod", "path mode:4", &[Str(0, "chmod(path)")]),
    plain(91, "fchmod", "fildes:4 mode:4"),
    row(92, "chown", "path owner:4 group:4", &[Str(0, "chown(path)")]),
    plain(93, "fchown", "fd:4 owner:4 group:4"),
    row(94, "lchown", "path owner:4 group:4", &[Str(0, "lchown(path)")]),
    plain(95, "umask", "mask:4"),
    row(132, "utime", "filename buf", &[Str(0, "utime(filename)"), In(1, Fix(16), "utime(buf)")]),
    row(133, "mknod", "pathname mode:4 dev:4", &[Str(0, "mknod(pathname)")]),
    row(136, "ustat", "dev:4 ubuf", &[Set(1, Fix(32), "ustat(ubuf)")]),
    row(137, "statfs", "path buf", &[Str(0, "statfs(path)"), Set(1, Fix(STATFS), "statfs(buf)")]),
    row(138, "fstatfs", "fd:4 buf", &[Set(1, Fix(STATFS), "fstatfs(buf)")]),
    row(161, "chroot", "path", &[Str(0, "chroot(path)")]),
    plain(162, "sync", ""),
    plain(187, "readahead", "fd:4 offset count"),
    row(217, "getdents64", "fd:4 dirp count:4", &[got(1, 2, "getdents64(dirp)")]),
    plain(221, "fadvise64", "fd:4 offset len advice:4"),
    row(235, "utimes", "filename tvp", &[Str(0, "utimes(filename)"), In(1, Fix(16), "utimes(tvp[0])"), Do(utimes_second)]),
    row(257, "openat", "dfd:4 filename flags:4 mode:4", &[Str(1, "openat(filename)")]).uses(|a| open_uses(a[2], 15, 8)).act(proc_files::openat),
    row(258, "mkdirat", "dfd:4 pathname mode:4", &[Str(1, "mkdirat(pathname)")]),
    row(259, "mknodat", "dfd:4 pathname mode:4 dev:4", &[Str(1, "mknodat(pathname)")]),
    row(260, "fchownat", "dfd:4 path owner:4 group:4 flag:4", &[Str(1, "fchownat(path)")]),
    row(261, "futimesat", "dfd:4 filename tvp", &[Str(1, "futimesat(filename)"), In(2, Fix(32), "futimesat(tvp)")]),
    row(262, "fstatat", "dfd:4 file_name buf flag:4", &[Str(1, "fstatat(file_name)"), Set(2, Fix(STAT), "fstatat(buf)")]),
    row(263, "unlinkat", "dfd:4 pathname flag:4", &[Str(1, "unlinkat(pathname)")]),
    row(264, "renameat", "olddfd:4 oldpath newdfd:4 newpath", &[Str(1, "renameat(oldpath)"), Str(3, "renameat(newpath)")]),
    row(265, "linkat", "olddfd:4 oldpath newdfd:4 newpath flags:4", &[Str(1, "linkat(oldpath)"), Str(3, "linkat(newpath)")]),
    row(266, "symlinkat", "oldpath newdfd:4 newpath", &[Str(0, "symlinkat(oldpath)"), Str(2, "symlinkat(newpath)")]),
    row(267, "readlinkat", "dfd:4 path buf bufsiz:4", &[Str(1, "readlinkat(path)"), got(2, 3, "readlinkat(buf)")]),
    row(268, "fchmodat", "dfd:4 path mode:4", &[Str(1, "fchmodat(path)")]),
    row(269, "faccessat", "dfd:4 pathname mode:4", &[Str(1, "faccessat(pathname)")]),
    row(275, "splice", "fd_in:4 off_in fd_out:4 off_out len flags:4", &[
        Rule::InOut(1, Fix(8), "splice(off_in)"), Rule::InOut(3, Fix(8), "splice(off_out)")]),
    plain(276, "tee", "fd_in:4 fd_out:4 len flags:4"),
    plain(277, "sync_file_range", "fd:4 offset nbytes flags:4"),
    row(278, "vmsplice", "fd:4 iov nr_segs flags:4", &[Do(vmsplice)]),
    row(280, "utimensat", "dfd:4 filename utimes flags:4", &[Str(1, "utimensat(filename)"), Do(utimensat)]),
    plain(285, "fallocate", "fd:4 mode:4 offset len"),
    plain(292, "dup3", "oldfd:4 newfd:4 flags:4"),
    row(295, "preadv", "fd vector count offset", &[IovOut(1, 2, "preadv(vector)", "preadv(vector[#])")]),
    row(296, "pwritev", "fd vector count offset", &[IovIn(1, 2, "pwritev(vector)", "pwritev(vector[#])")]),
    row(303, "name_to_handle_at", "dfd:4 name handle mnt_id flag:4", &[
        Str(1, "name_to_handle_at(name)"), Do(handle_out), Set(3, Fix(4), "name_to_handle_at(mnt_id)")]),
    row(304, "open_by_handle_at", "mountdirfd:4 handle flags:4", &[Do(handle_in)]),
    plain(306, "syncfs", "fd:4"),
    row(316, "renameat2", "olddfd:4 oldpath newdfd:4 newpath flags:4", &[Str(1, "renameat2(oldpath)"), Str(3, "renameat2(newpath)")]),
    row(319, "memfd_create", "uname flags:4", &[Str(0, "memfd_create(uname)")]),
    row(326, "copy_file_range", "\"fd_in\":4 \"off_in\" \"fd_out\":4 \"off_out\" \"len\" \"flags\":4", &[
        Rule::InOut(1, Fix(8), "copy_file_range(off_in)"), Rule::InOut(3, Fix(8), "copy_file_range(off_out)")]),
    row(327, "preadv2", "fd vector count offset offset_high flags:4", &[IovOut(1, 2, "preadv2(vector)", "preadv2(vector[#])")]),
    row(328, "pwritev2", "fd vector count offset offset_high flags:4", &[IovIn(1, 2, "pwritev2(vector)", "pwritev2(vector[#])")]),
    row(332, "statx", "dirfd:4 filename flags:4 mask:4 buf", &[Do(statx_name), Set(4, Fix(STATX), "statx(buf)")]),
    plain(436, "close_range", "first:4 last:4 flags:4"),
    row(437, "openat2", "dfd:4 pathname how size", &[Str(1, "openat2(pathname)"), In(2, Fix(OPEN_HOW), "openat2(how)")]),
    row(439, "faccessat2", "dfd:4 pathname mode:4 flags:4", &[Str(1, "faccessat2(pathname)")]),
    plain(447, "memfd_secret", "flags:4"),
    row(452, "fchmodat2", "dfd:4 path mode:4 flags:4", &[Str(1, "fchmodat2(path)")]),
];

#[rustfmt::skip] // one call per line
pub const EXTENDED: &[Row] = &[
    row(188, "setxattr", "path name value size flags:4", &[
        Str(0, "setxattr(path)"), Str(1, "setxattr(name)"), In(2, Arg(3), "setxattr(value)")]),
    row(189, "lsetxattr", "path name value size flags:4", &[
        Str(0, "lsetxattr(path)"), Str(1, "lsetxattr(name)"), In(2, Arg(3), "lsetxattr(value)")]),
    row(190, "fsetxattr", "fd:4 name value size flags:4", &[Str(1, "fsetxattr(name)"), In(2, Arg(3), "fsetxattr(value)")]),
    row(191, "getxattr", "path name value size", &[Str(0, "getxattr(path)"), Str(1, "getxattr(name)"), got(2, 3, "getxattr(value)")]),
    row(192, "lgetxattr", "path name value size", &[Str(0, "lgetxattr(path)"), Str(1, "lgetxattr(name)"), got(2, 3, "lgetxattr(value)")]),
    row(193, "fgetxattr", "fd:4 name value size", &[Str(1, "fgetxattr(name)"), got(2, 3, "fgetxattr(value)")]),
    row(194, "listxattr", "path list size", &[Str(0, "listxattr(path)"), got(1, 2, "listxattr(list)")]),
    row(195, "llistxattr", "path list size", &[Str(0, "llistxattr(path)"), got(1, 2, "llistxattr(list)")]),
    row(196, "flistxattr", "fd:4 list size", &[got(1, 2, "flistxattr(list)")]),
    row(197, "removexattr", "path name", &[Str(0, "removexattr(path)"), Str(1, "removexattr(name)")]),
    row(198, "lremovexattr", "path name", &[Str(0, "lremovexattr(path)"), Str(1, "lremovexattr(name)")]),
    row(199, "fremovexattr", "fd:4 name", &[Str(1, "fremovexattr(name)")]),
];

const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_GETLK: u64 = 5;
const F_SETLK: u64 = 6;
const F_SETLKW: u64 = 7;
const F_GETOWN: u64 = 9;
const F_GETSIG: u64 = 11;
const F_SETOWN_EX: u64 = 15;
const F_GETOWN_EX: u64 = 16;
const F_GETOWNER_UIDS: u64 = 17;
const F_OFD_GETLK: u64 = 36;
const F_OFD_SETLK: u64 = 37;
const F_OFD_SETLKW: u64 = 38;
const F_GETLEASE: u64 = 1025;
const F_GETPIPE_SZ: u64 = 1032;
const F_GET_SEALS: u64 = 1034;
const F_GET_RW_HINT: u64 = 1035;
const F_SET_RW_HINT: u64 = 1036;
const F_GET_FILE_RW_HINT: u64 = 1037;
const F_SET_FILE_RW_HINT: u64 = 1038;

fn fcntl_uses(a: &[u64; 6]) -> u8 {
    match a[1] & 0xffff_ffff {
        F_GETFD | F_GETFL | F_GETOWN | F_GETSIG | F_GETLEASE | F_GETPIPE_SZ | F_GET_SEALS => 3,
        _ => 7,
    }
}

/// struct flock: l_type 2, l_whence 2, l_start 8 at 8, l_len 8 at 16, l_pid 4 at 24.
fn fcntl(c: &mut Call) {
    let arg = c.args[2];
    match c.args[1] & 0xffff_ffff {
        F_GETLK | F_SETLK | F_SETLKW | F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW => {
            c.input(arg, 2, "fcntl(lock->l_type)");
            c.input(arg.wrapping_add(2), 2, "fcntl(lock->l_whence)");
            c.input(arg.wrapping_add(8), 8, "fcntl(lock->l_start)");
            c.input(arg.wrapping_add(16), 8, "fcntl(lock->l_len)");
            if matches!(c.args[1] & 0xffff_ffff, F_GETLK | F_OFD_GETLK) {
                conflict(c, arg);
            }
        }
        F_SETOWN_EX => c.input(arg, 8, "fcntl(F_SETOWN_EX)"),
        F_GETOWN_EX | F_GETOWNER_UIDS => c.output(arg, 8, "fcntl(F_GETOWN_EX)"),
        F_SET_RW_HINT | F_SET_FILE_RW_HINT => c.input(arg, 8, "fcntl(arg)"),
        F_GET_RW_HINT | F_GET_FILE_RW_HINT => c.output(arg, 8, "fcntl(arg)"),
        _ => {}
    }
}

/// The answer of GETLK: "nobody" leaves everything but the type as it was.
fn conflict(c: &mut Call, lock: u64) {
    const F_UNLCK: u16 = 2;
    if c.phase != crate::call::Phase::Mark {
        return c.output(lock.wrapping_add(24), 4, "fcntl(lock->l_pid)");
    }
    c.output(lock, 2, "fcntl(lock->l_type)");
    if c.peek_or_zero::<u16>(lock) != F_UNLCK {
        c.output(lock.wrapping_add(2), 2, "fcntl(lock->l_whence)");
        c.output(lock.wrapping_add(8), 20, "fcntl(lock->l_pid)");
    }
}

fn utimes_second(c: &mut Call) {
    if c.args[1] != 0 {
        c.input(c.args[1].wrapping_add(16), 16, "utimes(tvp[1])");
    }
}

const UTIME_NOW: u64 = 0x3fff_ffff;
const UTIME_OMIT: u64 = 0x3fff_fffe;

/// No name: the descriptor itself is meant (AT_EMPTY_PATH). Neither name nor buffer: a question whether the call exists, as Rust's
/// library asks it.
fn statx_name(c: &mut Call) {
    const AT_EMPTY_PATH: u64 = 0x1000;
    if c.args[1] != 0 || c.args[4] != 0 && c.args[2] & AT_EMPTY_PATH == 0 {
        c.string(c.args[1], "statx(filename)");
    }
}

/// Two timespecs; the seconds do not count when the nanoseconds say "now" or "leave alone".
fn utimensat(c: &mut Call) {
    let times = c.args[2];
    if times == 0 {
        return;
    }
    let (second, first_nsec, second_nsec) = (times.wrapping_add(16), times.wrapping_add(8), times.wrapping_add(24));
    c.input(first_nsec, 8, "utimensat(times[0].tv_nsec)");
    c.input(second_nsec, 8, "utimensat(times[1].tv_nsec)");
    let counts = |c: &Call, at| !matches!(c.peek_or_zero::<u64>(at), UTIME_NOW | UTIME_OMIT);
    if counts(c, first_nsec) {
        c.input(times, 8, "utimensat(times[0].tv_sec)");
    }
    if counts(c, second_nsec) {
        c.input(second, 8, "utimensat(times[1].tv_sec)");
    }
}

/// From a pipe the pages are filled, into a pipe they are read; which one it is only the descriptor knows. Checked as read
/// without their contents, marked as written.
fn vmsplice(c: &mut Call) {
    let (iov, count) = (c.args[1], c.args[2]);
    c.input(iov, crate::row::iov_bytes(count), "vmsplice(iov)");
    crate::row::fill_iov(c, iov, count, "vmsplice(iov[...])".into());
}

/// struct file_handle: handle_bytes 4, handle_type 4, bytes.
fn handle_out(c: &mut Call) {
    let handle = c.args[2];
    c.input(handle, 4, "name_to_handle_at(handle)");
    let bytes = u64::from(c.peek_or_zero::<u32>(handle)).min(ATTR);
    c.output(handle, 8 + bytes, "name_to_handle_at(handle)");
}

fn handle_in(c: &mut Call) {
    let handle = c.args[1];
    c.input(handle, 4, "open_by_handle_at(handle)");
    let bytes = u64::from(c.peek_or_zero::<u32>(handle)).min(ATTR);
    c.input(handle, 8 + bytes, "open_by_handle_at(handle)");
}
