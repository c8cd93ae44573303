//! ioctl, by request.
//!
//! A request that is listed has its own row. Every other one is read from the bits of its number, as the kernel's headers encode
//! them: `direction:2 size:14 type:8 number:8`, direction 1 = the kernel reads, 2 = it writes. Old requests (terminals, sockets)
//! have no such bits and are unknown if they are not listed: nothing is checked or marked, and the user is told of it. Drivers whose structures hold
//! further pointers (DRM, V4L2, SG_IO, USB) are treated by the bits only.

use crate::call::{Call, Phase};
use crate::row::Row;
use crate::row::Rule::Do;
use crate::row::row;
use crate::warn;

#[derive(Clone, Copy)]
enum Effect {
    /// The kernel reads resp. writes so many bytes.
    R(u64),
    W(u64),
    /// struct ifreq: reads the name of 16 bytes, writes all 40.
    Interface,
    /// struct ifreq: reads the index behind the name, writes the name.
    InterfaceName,
    /// Reads the name and the union.
    SetInterface,
    /// The argument is a number or unused.
    No,
}
use Effect::{Interface, InterfaceName, No, R, SetInterface, W};

#[rustfmt::skip] // one request per line, sorted
const KNOWN: &[(u32, Effect, &str)] = &[
    (0x5401, W(36), "ioctl(TCGETS)"),
    (0x5402, R(36), "ioctl(TCSET{S,SW,SF})"),
    (0x5403, R(36), "ioctl(TCSET{S,SW,SF})"),
    (0x5404, R(36), "ioctl(TCSET{S,SW,SF})"),
    (0x5405, W(18), "ioctl(TCGETA)"),
    (0x5406, R(18), "ioctl(TCSET{A,AW,AF})"),
    (0x5407, R(18), "ioctl(TCSET{A,AW,AF})"),
    (0x5408, R(18), "ioctl(TCSET{A,AW,AF})"),
    (0x5409, No, ""),              // TCSBRK
    (0x540a, No, ""),              // TCXONC
    (0x540b, No, ""),              // TCFLSH
    (0x540c, No, ""),              // TIOCEXCL
    (0x540d, No, ""),              // TIOCNXCL
    (0x540e, No, ""),              // TIOCSCTTY
    (0x540f, W(4), "ioctl(TIOCGPGRP)"),
    (0x5410, R(4), "ioctl(TIOCGPGRP)"),
    (0x5411, W(4), "ioctl(TIOCOUTQ)"),
    (0x5412, R(1), "ioctl(TIOCSTI)"),
    (0x5413, W(8), "ioctl(TIOCGWINSZ)"),
    (0x5414, R(8), "ioctl(TIOCSWINSZ)"),
    (0x5415, W(4), "ioctl(TIOCMGET)"),
    (0x5416, R(4), "ioctl(TIOCMBIS)"),
    (0x5417, R(4), "ioctl(TIOCMBIC)"),
    (0x5418, R(4), "ioctl(TIOCMSET)"),
    (0x541b, W(4), "ioctl(FIONREAD)"),
    (0x541e, W(72), "ioctl(VKI_TIOCGSERIAL)"),
    (0x541f, R(72), "ioctl(VKI_TIOCSSERIAL)"),
    (0x5420, R(4), "ioctl(TIOCPKT)"),
    (0x5421, R(4), "ioctl(FIONBIO)"),
    (0x5422, No, ""),              // TIOCNOTTY
    (0x5423, R(4), "ioctl(TIOCSETD)"),
    (0x5424, W(4), "ioctl(TIOCGETD)"),
    (0x5425, No, ""),              // TCSBRKP
    (0x5427, No, ""),              // TIOCSBRK
    (0x5428, No, ""),              // TIOCCBRK
    (0x5429, W(4), "ioctl(TIOCGSID)"),
    (0x5441, No, ""),              // TIOCGPTPEER
    (0x5450, No, ""),              // FIONCLEX
    (0x5451, No, ""),              // FIOCLEX
    (0x5452, R(4), "ioctl(FIOASYNC)"),
    (0x5459, W(4), "ioctl(TIOCSERGETLSR)"),
    (0x545d, W(80), "ioctl(TIOCGICOUNT)"),
    (0x5460, W(8), "ioctl(FIOQSIZE)"),
    (0x8901, R(4), "ioctl(SIOCSPGRP)"), // FIOSETOWN
    (0x8902, R(4), "ioctl(SIOCSPGRP)"),
    (0x8903, W(4), "ioctl(SIOCGPGRP)"), // FIOGETOWN
    (0x8904, W(4), "ioctl(SIOCGPGRP)"),
    (0x8905, W(4), "ioctl(SIOCATMARK)"),
    (0x8906, W(16), "ioctl(SIOCGSTAMP)"),
    (0x8907, W(16), "ioctl(SIOCGSTAMPNS)"),
    (0x8910, InterfaceName, "ioctl(SIOCGIFNAME)"),
    (0x8913, Interface, "ioctl(SIOCGIFFLAGS)"),
    (0x8914, SetInterface, "ioctl(SIOCSIFFLAGS)"),
    (0x8915, Interface, "ioctl(SIOCGIFADDR)"),
    (0x8916, SetInterface, "ioctl(SIOCSIF*ADDR)"),
    (0x8917, Interface, "ioctl(SIOCGIFDSTADDR)"),
    (0x8918, SetInterface, "ioctl(SIOCSIF*ADDR)"),
    (0x8919, Interface, "ioctl(SIOCGIFBRDADDR)"),
    (0x891a, SetInterface, "ioctl(SIOCSIF*ADDR)"),
    (0x891b, Interface, "ioctl(SIOCGIFNETMASK)"),
    (0x891c, SetInterface, "ioctl(SIOCSIF*ADDR)"),
    (0x891d, Interface, "ioctl(SIOCGIFMETRIC)"),
    (0x891e, SetInterface, "ioctl(SIOCSIFMETRIC)"),
    (0x8921, Interface, "ioctl(SIOCGIFMTU)"),
    (0x8922, SetInterface, "ioctl(SIOCSIFMTU)"),
    (0x8924, SetInterface, "ioctl(SIOCSIFHWADDR)"),
    (0x8927, Interface, "ioctl(SIOCGIFHWADDR)"),
    (0x8933, Interface, "ioctl(SIOCGIFINDEX)"),
    (0x8942, Interface, "ioctl(SIOCGIFTXQLEN)"),
    (0x8943, SetInterface, "ioctl(SIOCSIFTXQLEN)"),
    (0x8970, Interface, "ioctl(SIOCGIFMAP)"),
    (0x8971, SetInterface, "ioctl(SIOCSIFMAP)"),
    (0x4004_5431, R(4), "ioctl(TIOCSPTLCK)"),
    (0x4004_9409, No, ""),         // FICLONE: the argument is a descriptor
    (0x8004_5430, W(4), "ioctl(TIOCGPTN)"),
    (0x8008_1272, W(8), "ioctl(BLKGETSIZE64)"),
    (0x8008_6601, W(4), "ioctl(generic)"), // FS_IOC_GETFLAGS: coded as long, is int
    (0x4008_6602, R(4), "ioctl(generic)"), // FS_IOC_SETFLAGS: likewise
    (0x1260, W(8), "ioctl(BLKGETSIZE)"),
    (0x1268, W(4), "ioctl(BLKSSZGET)"),
    (0x127b, W(4), "ioctl(BLKPBSZGET)"),
    (0x0001, W(4), "ioctl(FIBMAP)"),
    (0x0002, W(4), "ioctl(FIGETBSZ)"),
];

/// Requests without direction that Valgrind 3.19 knows and that are not listed above: nobody needs to be told.
#[rustfmt::skip]
const QUIET: &[core::ops::RangeInclusive<u32>] = &[
    0..=0, 0x301..=0x30d, 0x125d..=0x127c, 0x2201..=0x2203, 0x2271..=0x2285, 0x4112..=0x4161, 0x4600..=0x4606, 0x4915..=0x4922,
    0x4b2f..=0x4b4e, 0x4b52..=0x4b72, 0x5000..=0x5016, 0x5303..=0x5331, 0x5380..=0x5393, 0x541c..=0x541c, 0x54a0..=0x54a3,
    0x5600..=0x560c, 0x5646..=0x5646, 0x6458..=0x6458, 0x7001..=0x7006, 0x708b..=0x708f, 0x890b..=0x8962, 0x89b0..=0x89b0,
    0x8b00..=0x8b36, 0xae00..=0xae06, 0xae41..=0xae47, 0xae60..=0xae97, 0xaead..=0xaead, 0xaf01..=0xaf02,
];

#[rustfmt::skip]
pub const ROW: Row = row(16, "ioctl", "fd:4 request:4 arg", &[Do(ioctl)]).uses(uses);

fn known(request: u32) -> Option<(Effect, &'static str)> {
    KNOWN.iter().find(|k| k.0 == request).map(|k| (k.1, k.2))
}

/// The argument counts unless the request takes none.
fn uses(a: &[u64; 6]) -> u8 {
    let request = a[1] as u32;
    match known(request) {
        Some((No, _)) => 3,
        None if size(request) == 0 => 3,
        _ => 7,
    }
}

const fn size(request: u32) -> u64 {
    (request >> 16 & 0x3fff) as u64
}

const IFNAMSIZ: u64 = 16;
const IFREQ: u64 = 40;
const SIOCGIFCONF: u32 = 0x8912;

fn ioctl(c: &mut Call) {
    let (request, arg) = (c.args[1] as u32, c.args[2]);
    if request == SIOCGIFCONF {
        return interfaces(c);
    }
    let Some((effect, name)) = known(request) else { return generic(c, request, arg) };
    match effect {
        No => {}
        R(n) => c.input(arg, n, name),
        W(n) => c.output(arg, n, name),
        Interface => {
            c.string_up_to(arg, IFNAMSIZ, name);
            c.output(arg, IFREQ, name);
        }
        InterfaceName => {
            c.input(arg.wrapping_add(IFNAMSIZ), 4, name);
            c.output(arg, IFREQ, name);
        }
        // What of the union counts depends on the request; two bytes do always.
        SetInterface => {
            c.string_up_to(arg, IFNAMSIZ, name);
            c.input(arg.wrapping_add(IFNAMSIZ), 2, name);
        }
    }
}

fn generic(c: &mut Call, request: u32, arg: u64) {
    const KERNEL_READS: u32 = 1;
    const KERNEL_WRITES: u32 = 2;
    let direction = request >> 30;
    if direction & KERNEL_READS != 0 {
        c.input(arg, size(request), "ioctl(generic)");
    }
    if direction & KERNEL_WRITES != 0 {
        c.output(arg, size(request), "ioctl(generic)");
    }
    if direction == 0 && c.phase == Phase::Check && !QUIET.iter().any(|range| range.contains(&request)) {
        warn::ioctl(request);
    }
}

/// struct ifconf: length 4, padding 4, buffer 8. The length says what fits, then what was written.
fn interfaces(c: &mut Call) {
    let conf = c.args[2];
    if conf == 0 {
        return;
    }
    c.input(conf, 4, "ioctl(SIOCGIFCONF)");
    c.input(conf.wrapping_add(8), 8, "ioctl(SIOCGIFCONF)");
    let len = u64::from(c.peek_or_zero::<u32>(conf)).min(1 << 24);
    let buffer = c.peek_or_zero::<u64>(conf.wrapping_add(8));
    c.output(buffer, len, "ioctl(SIOCGIFCONF).ifc_buf");
    if c.phase == Phase::Mark {
        c.mark(conf, 4);
    }
}

#[cfg(test)]
mod tests {
    use super::KNOWN;

    #[test]
    fn no_request_twice() {
        for (i, k) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..i].iter().all(|other| other.0 != k.0), "{:#x}", k.0);
        }
    }

    #[test]
    fn sizes_agree_with_the_c_library() {
        let expect = |request: u64, n| {
            let size = match super::known(request as u32) {
                Some((super::R(n) | super::W(n), _)) => n,
                _ => 0,
            };
            assert_eq!(size, n, "{request:#x}");
        };
        expect(libc::TIOCGWINSZ, core::mem::size_of::<libc::winsize>() as u64);
        expect(libc::FIONREAD, 4);
        expect(libc::FIONBIO, 4);
        expect(libc::TCGETS, 36);
        expect(libc::TIOCSPGRP, 4);
    }
}
