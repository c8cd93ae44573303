//! Sockets. Addresses are checked field by field, because padding in them is nobody's fault.

use crate::call::{Call, Name, Phase};
use crate::row::Rule::{Do, In, Out, Set};
use crate::row::Size::{Arg, Fix, Ret};
use crate::row::{Row, fill_iov, for_iov, plain, row};

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    plain(41, "socket", "domain:4 type:4 protocol:4"),
    row(42, "connect", "sockfd:4 serv_addr addrlen:4", &[Do(|c| address_in(c, c.args[1], c.args[2], "socketcall.connect(serv_addr."))]),
    row(43, "accept", "s:4 addr addrlen", &[Do(accept)]),
    row(44, "sendto", "s:4 msg len flags:4 to tolen:4", &[
        In(1, Arg(2), "socketcall.sendto(msg)"), Do(|c| address_in(c, c.args[4], c.args[5], "socketcall.sendto(to."))]),
    row(45, "recvfrom", "s:4 buf len flags:4 from fromlen", &[
        Out(1, Arg(2), Ret, "socketcall.recvfrom(buf)"), Do(recvfrom)]),
    row(46, "sendmsg", "s:4 msg flags:4", &[Do(|c| send_header(c, c.args[1], &SENDMSG, 0))]),
    row(47, "recvmsg", "s:4 msg flags:4", &[Do(|c| receive_header(c, c.args[1], &RECVMSG, 0, true))]),
    plain(48, "shutdown", "s:4 how:4"),
    row(49, "bind", "sockfd:4 my_addr addrlen:4", &[Do(|c| address_in(c, c.args[1], c.args[2], "socketcall.bind(my_addr."))]),
    plain(50, "listen", "s:4 backlog:4"),
    row(51, "getsockname", "s:4 name namelen", &[Do(getsockname)]),
    row(52, "getpeername", "s:4 name namelen", &[Do(getpeername)]),
    row(53, "socketpair", "d:4 type:4 protocol:4 sv", &[Set(3, Fix(8), "socketcall.socketpair(sv)")]),
    row(54, "setsockopt", "s:4 level:4 optname:4 optval optlen:4", &[Do(setsockopt)]),
    row(55, "getsockopt", "s:4 level:4 optname:4 optval optlen", &[Do(getsockopt)]),
    row(288, "accept4", "s:4 addr addrlen flags:4", &[Do(accept)]),
    row(299, "recvmmsg", "s:4 mmsg vlen:4 flags:4 timeout", &[Do(recvmmsg), crate::row::Rule::InOut(4, Fix(16), "recvmmsg(timeout)")]),
    row(307, "sendmmsg", "s:4 mmsg vlen:4 flags:4", &[Do(sendmmsg)]),
];

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_BLUETOOTH: u16 = 31;
const AF_UNSPEC: u16 = 0;

/// Longest address the kernel takes.
const SOCKADDR_MAX: u64 = 128;

/// (offset, bytes, name) of the fields that count.
type Field = (u64, u64, &'static str);
const INET: &[Field] = &[(2, 2, "sin_port)"), (4, 4, "sin_addr)")];
const INET6: &[Field] = &[(2, 2, "sin6_port)"), (4, 4, "sin6_flowinfo)"), (8, 16, "sin6_addr)"), (24, 4, "sin6_scope_id)")];
/// nl_pad is padding.
const NETLINK: &[Field] = &[(4, 4, "nl_pid)"), (8, 4, "nl_groups)")];

/// RFCOMM, known by its length among the Bluetooth addresses.
const RFCOMM: &[Field] = &[(2, 6, "rc_bdaddr)"), (8, 1, "rc_channel)")];
const RFCOMM_LEN: u64 = 10;

/// A socket address that the kernel reads. `prefix` is the name up to the field, as `socketcall.bind(my_addr.`.
fn address_in(c: &mut Call, addr: u64, len: u64, prefix: &'static str) {
    let len = (len & 0xffff_ffff).min(SOCKADDR_MAX);
    if addr == 0 || len < 2 {
        return;
    }
    c.input(addr, 2, Name::field(prefix, "sa_family)"));
    let Some(family) = c.peek::<u16>(addr) else { return };
    let fields = match family {
        AF_UNSPEC => return,
        AF_UNIX => return unix_path(c, addr + 2, len - 2, prefix),
        AF_INET => INET,
        AF_INET6 => INET6,
        AF_NETLINK => NETLINK,
        AF_BLUETOOTH if len == RFCOMM_LEN => RFCOMM,
        _ => return c.input(addr + 2, len - 2, Name::field(prefix, "sa_data)")),
    };
    for &(offset, size, name) in fields {
        if offset + size <= len {
            c.input(addr + offset, size, Name::field(prefix, name));
        }
    }
}

/// A path to its NUL, or an abstract name by its length.
fn unix_path(c: &mut Call, path: u64, len: u64, prefix: &'static str) {
    let name = Name::field(prefix, "sun_path)");
    if len == 0 {
        return;
    }
    c.input(path, 1, name);
    if c.peek::<u8>(path) == Some(0) {
        c.input(path, len, name);
    } else {
        c.string_up_to(path, len, name);
    }
}

/// An address that the kernel writes: {buffer, place of its length}. The length says how much fits and then how much there was.
/// `slot` is where the first half keeps the former.
fn address_out(c: &mut Call, addr: u64, len_at: u64, slot: usize, names: [&'static str; 3]) {
    let [name, len_in, len_out] = names;
    match c.phase {
        Phase::Check => {
            c.input(len_at, 4, len_in);
            let room = u64::from(c.peek_or_zero::<u32>(len_at));
            c.keep(slot, room);
            c.output(addr, room, name);
        }
        Phase::Mark => {
            let there = u64::from(c.peek_or_zero::<u32>(len_at));
            let room = c.kept(slot);
            c.output(addr, there.min(room), name);
            if addr != 0 {
                c.read_back(len_at, 4, len_out);
            }
            c.output(len_at, 4, len_out);
        }
        Phase::Fault => {
            c.input(len_at, 4, len_in);
            let room = c.kept(slot);
            c.output(addr, room, name);
        }
        Phase::Failed => {}
    }
}

fn accept(c: &mut Call) {
    if c.args[1] != 0 {
        let names = ["socketcall.accept(addr)", "socketcall.accept(addrlen_in)", "socketcall.accept(addrlen_out)"];
        address_out(c, c.args[1], c.args[2], 0, names);
    }
}

fn recvfrom(c: &mut Call) {
    if c.args[4] != 0 {
        let names = ["socketcall.recvfrom(from)", "socketcall.recvfrom(fromlen_in)", "socketcall.recvfrom(fromlen_out)"];
        address_out(c, c.args[4], c.args[5], 0, names);
    }
}

fn getsockname(c: &mut Call) {
    let names = ["socketcall.getsockname(name)", "socketcall.getsockname(namelen_in)", "socketcall.getsockname(namelen_out)"];
    address_out(c, c.args[1], c.args[2], 0, names);
}

fn getpeername(c: &mut Call) {
    let names = ["socketcall.getpeername(name)", "socketcall.getpeername(namelen_in)", "socketcall.getpeername(namelen_out)"];
    address_out(c, c.args[1], c.args[2], 0, names);
}

fn getsockopt(c: &mut Call) {
    let names = ["socketcall.getsockopt(optval)", "socketcall.getsockopt(optlen)", "socketcall.getsockopt(optlen_out)"];
    address_out(c, c.args[3], c.args[4], 0, names);
}

const SOL_SOCKET: u64 = 1;
const SO_ATTACH_FILTER: u64 = 26;
const SO_ATTACH_REUSEPORT_CBPF: u64 = 51;

fn setsockopt(c: &mut Call) {
    let [_, level, option, value, ..] = c.args;
    if level as u32 == SOL_SOCKET as u32 && matches!(option & 0xffff_ffff, SO_ATTACH_FILTER | SO_ATTACH_REUSEPORT_CBPF) {
        let names = [
            "setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, &optval.len)",
            "setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, &optval.filter)",
            "setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, optval.filter)",
        ];
        return super::misc::filter(c, value, names);
    }
    c.input(value, c.count(4), "socketcall.setsockopt(optval)");
}

/// Parameter names of one kind of message header; `#` = index of the message, then of the buffer.
struct Names {
    header: &'static str,
    name: &'static str,
    iov: &'static str,
    entry: &'static str,
    control: &'static str,
}

macro_rules! names {
    ($call:literal, $message:literal) => {
        Names {
            header: concat!($call, "(", $message, ")"),
            name: concat!($call, "(", $message, ".msg_name)"),
            iov: concat!($call, "(", $message, ".msg_iov)"),
            entry: concat!($call, "(", $message, ".msg_iov[#])"),
            control: concat!($call, "(", $message, ".msg_control)"),
        }
    };
}

const SENDMSG: Names = names!("sendmsg", "msg");
const RECVMSG: Names = names!("recvmsg", "msg");
const SENDMMSG: Names = names!("sendmsg", "mmsg[#].msg_hdr");
const RECVMMSG: Names = names!("recvmsg", "mmsg[#].msg_hdr");

/// struct msghdr: name 8, namelen 4, padding 4, iov 8, iovlen 8, control 8, controllen 8, flags 4.
struct Header {
    name: u64,
    name_len: u64,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
}

const CONTROL_AT: u64 = 32;
const FLAGS_AT: u64 = 48;
pub const MMSG_SIZE: u64 = 64;
const MMSG_LEN_AT: u64 = 56;

/// Check the fields that the kernel reads and fetch them.
fn header(c: &mut Call, at: u64, names: &Names, index: u32) -> Option<Header> {
    c.input(at, 12, Name::at(names.header, index));
    c.input(at.wrapping_add(16), 32, Name::at(names.header, index));
    let word = |c: &Call, offset: u64| c.peek::<u64>(at.wrapping_add(offset));
    Some(Header {
        name: word(c, 0)?,
        name_len: word(c, 8)? & 0xffff_ffff,
        iov: word(c, 16)?,
        iov_len: word(c, 24)?,
        control: word(c, 32)?,
        control_len: word(c, 40)?,
    })
}

fn send_header(c: &mut Call, at: u64, names: &Names, index: u32) {
    if c.phase == Phase::Mark {
        return;
    }
    let Some(h) = header(c, at, names, index) else { return };
    c.input(h.name, h.name_len.min(SOCKADDR_MAX), Name::at(names.name, index));
    c.input(h.iov, crate::row::iov_bytes(h.iov_len), Name::at(names.iov, index));
    for_iov(c, h.iov, h.iov_len, |c, i, base, len| c.input(base, len, Name::at(names.entry, index).index(i)));
    control(c, h.control, h.control_len, |c, at, n| c.input(at, n, Name::at(names.control, index)));
}

/// Control messages: {length 8, level 4, type 4, data}, each aligned to 8. What lies between them is padding. `f` gets the
/// pieces that are no padding.
fn control(c: &mut Call, at: u64, len: u64, mut f: impl FnMut(&mut Call, u64, u64)) {
    const CMSG: u64 = 16;
    const MOST: u64 = 1 << 20;
    let len = len.min(MOST);
    let mut offset = 0;
    while at != 0 && offset + CMSG <= len {
        f(c, at.wrapping_add(offset), CMSG);
        let Some(size) = c.peek::<u64>(at.wrapping_add(offset)) else { return };
        if size < CMSG || size > len - offset {
            return;
        }
        f(c, at.wrapping_add(offset + CMSG), size - CMSG);
        offset += size.next_multiple_of(8);
    }
}

/// Descriptors that came with the message of the header at `at`.
pub fn passed_descriptors(c: &mut Call, at: u64, mut f: impl FnMut(&mut Call, i32)) {
    const RIGHTS: u64 = 1 << 32 | 1; // level SOL_SOCKET, type SCM_RIGHTS
    const KIND_AT: u64 = 8;
    const FD: u64 = 4;
    let [buffer, len] = c.peek_or_zero::<[u64; 2]>(at.wrapping_add(CONTROL_AT));
    // Headers and data take turns.
    let mut kind = None;
    control(c, buffer, len, |c, piece, n| match kind.take() {
        None => kind = Some(c.peek_or_zero::<u64>(piece.wrapping_add(KIND_AT))),
        Some(RIGHTS) => {
            for i in 0..n / FD {
                let fd = c.peek_or_zero::<i32>(piece.wrapping_add(i * FD));
                f(c, fd);
            }
        }
        Some(_) => {}
    });
}

/// `keep`: the lengths before the call are kept for the second half (only one header can have them).
fn receive_header(c: &mut Call, at: u64, names: &Names, index: u32, keep: bool) {
    let Some(mut h) = header(c, at, names, index) else { return };
    if keep && c.phase == Phase::Check {
        c.keep(0, h.name_len);
        c.keep(1, h.control_len);
    }
    if c.phase == Phase::Mark {
        let (name, control) = if keep { (c.kept(0), c.kept(1)) } else { (SOCKADDR_MAX, u64::MAX) };
        h.name_len = h.name_len.min(name);
        h.control_len = h.control_len.min(control);
        c.output(at.wrapping_add(8), 4, names.header);
        c.output(at.wrapping_add(40), 12, names.header);
    } else {
        c.input(h.iov, crate::row::iov_bytes(h.iov_len), Name::at(names.iov, index));
        c.output(at.wrapping_add(FLAGS_AT), 4, Name::at(names.header, index));
    }
    c.output(h.name, h.name_len, Name::at(names.name, index));
    fill_iov(c, h.iov, h.iov_len, Name::at(names.entry, index));
    match c.phase {
        Phase::Mark => control(c, h.control, h.control_len, |c, at, n| c.mark(at, n)),
        _ => c.output(h.control, h.control_len, Name::at(names.control, index)),
    }
}

const BY_RING: Names = names!("io_uring_enter", "msg");

/// A message that is sent by an entry of an io_uring.
pub fn send_by_ring(c: &mut Call, at: u64) {
    send_header(c, at, &BY_RING, 0);
}

/// A message that will arrive for an entry of an io_uring. `selects`: into a buffer of the kernel's choice.
pub fn receive_by_ring(c: &mut Call, at: u64, selects: bool) {
    if !selects {
        receive_header(c, at, &BY_RING, 0, false);
    }
    super::uring::marked(c, |c| {
        let Some(h) = header(c, at, &BY_RING, 0) else { return };
        c.mark(at.wrapping_add(8), 4);
        c.mark(at.wrapping_add(CONTROL_AT + 8), 12);
        c.mark(h.name, h.name_len.min(SOCKADDR_MAX));
        c.mark(h.control, h.control_len.min(1 << 20));
        if !selects {
            fill_iov(c, h.iov, h.iov_len, Name::from(BY_RING.entry));
        }
    });
}

const MMSG_MAX: u64 = 1024;

/// Only the first `result` messages were received; each says its own length.
fn recvmmsg(c: &mut Call) {
    let (vector, total) = (c.args[1], c.result);
    let count = if c.phase == Phase::Mark { total.max(0) as u64 } else { c.args[2] & 0xffff_ffff };
    for i in 0..count.min(MMSG_MAX) {
        let at = vector.wrapping_add(i * MMSG_SIZE);
        if c.phase == Phase::Mark {
            c.mark(at.wrapping_add(MMSG_LEN_AT), 4);
            c.result = i64::from(c.peek_or_zero::<u32>(at.wrapping_add(MMSG_LEN_AT)));
        }
        receive_header(c, at, &RECVMMSG, i as u32, false);
        if c.phase != Phase::Mark {
            c.output(at.wrapping_add(MMSG_LEN_AT), 4, Name::at("recvmmsg(mmsg[#].msg_len)", i as u32));
        }
    }
    c.result = total;
}

fn sendmmsg(c: &mut Call) {
    let vector = c.args[1];
    let count = if c.phase == Phase::Mark { c.result.max(0) as u64 } else { c.args[2] & 0xffff_ffff };
    for i in 0..count.min(MMSG_MAX) {
        let at = vector.wrapping_add(i * MMSG_SIZE);
        if c.phase == Phase::Mark {
            c.mark(at.wrapping_add(MMSG_LEN_AT), 4);
        } else {
            send_header(c, at, &SENDMMSG, i as u32);
            c.output(at.wrapping_add(MMSG_LEN_AT), 4, Name::at("sendmmsg(mmsg[#].msg_len)", i as u32));
        }
    }
}
