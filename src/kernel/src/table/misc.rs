//! prctl, administration of the machine, modules, keys, tracing and sandboxing.

use crate::call::{Call, Phase};
use crate::row::Rule::{Do, In, Out, Str};
use crate::row::Size::{Arg, Fix, Int, Ret};
use crate::row::{Row, plain, row};
use crate::virtualise;

#[rustfmt::skip] // one call per line
pub const ROWS: &[Row] = &[
    super::ioctl::ROW,
    row(103, "syslog", "type:4 bufp len:4", &[Do(syslog)]),
    plain(139, "sysfs", "option:4 arg1 arg2"),
    plain(154, "modify_ldt", "func:4 ptr bytecount"),
    row(155, "pivot_root", "new_root old_root", &[Str(0, "pivot_root(new_root)"), Str(1, "pivot_root(old_root)")]),
    plain(156, "_sysctl", "args"),
    row(163, "acct", "filename", &[Str(0, "acct(filename)")]),
    row(165, "mount", "source target type flags data", &[Str(0, "mount(source)"), Str(1, "mount(target)"), Str(2, "mount(type)")]),
    row(166, "umount2", "path flags:4", &[Str(0, "umount2(path)")]),
    row(167, "swapon", "path flags:4", &[Str(0, "swapon(path)")]),
    row(168, "swapoff", "path", &[Str(0, "swapoff(path)")]),
    plain(169, "reboot", "magic1:4 magic2:4 cmd:4 arg"),
    row(170, "sethostname", "name len:4", &[In(0, Int(1, 1), "sethostname(name)")]),
    row(171, "setdomainname", "name len:4", &[In(0, Int(1, 1), "setdomainname(name)")]),
    plain(172, "iopl", "level:4"),
    plain(173, "ioperm", "from num turn_on:4"),
    row(175, "init_module", "umod len uargs", &[In(0, Arg(1), "init_module(umod)"), Str(2, "init_module(uargs)")]),
    row(176, "delete_module", "name_user flags:4", &[Str(0, "delete_module(name_user)")]),
    row(179, "quotactl", "cmd:4 special id:4 addr", &[Str(1, "quotactl(special)"), Do(quotactl)]),
    row(212, "sys_lookup_dcookie", "cookie buf len", &[Out(1, Arg(2), Ret, "sys_lookup_dcookie(buf)")]),
    plain(246, "kexec_load", "entry nr_segments segments flags"),
    row(248, "add_key", "type description payload plen keyring:4", &[
        Str(0, "add_key(type)"), Str(1, "add_key(description)"), In(2, Arg(3), "request_key(payload)")]),
    row(249, "request_key", "type description callout_info keyring:4", &[
        Str(0, "request_key(type)"), Str(1, "request_key(description)"), Str(2, "request_key(callout_info)")]),
    row(250, "keyctl", "option:4 arg2 arg3 arg4 arg5", &[Do(keyctl)]).uses(|_| 1),
    plain(253, "inotify_init", ""),
    row(254, "inotify_add_watch", "fd:4 path mask:4", &[Str(1, "inotify_add_watch(path)")]),
    plain(255, "inotify_rm_watch", "fd:4 wd:4"),
    plain(294, "inotify_init", "flag:4"),
    row(298, "perf_event_open", "attr pid:4 cpu:4 group_fd:4 flags", &[Do(perf_event_open)]),
    plain(300, "fanotify_init", "flags:4 event_f_flags:4"),
    row(301, "sys_fanotify_mark", "fanotify_fd:4 flags:4 mask dfd:4 pathname", &[Str(4, "fanotify_mark(path)")]),
    row(313, "finit_module", "fd:4 params flags:4", &[Str(1, "finit_module(params)")]),
    row(317, "seccomp", "operation:4 flags:4 args", &[Do(seccomp)])
        .uses(|a| if a[0] & 0xffff_ffff == 0 { 3 } else { 7 })
        .act(virtualise::seccomp),
    row(318, "getrandom", "buf count flags:4", &[Out(0, Arg(1), Ret, "getrandom(cpu)")]),
    plain(320, "kexec_file_load", "kernel_fd:4 initrd_fd:4 cmdline_len cmdline flags"),
    row(321, "bpf", "cmd:4 attr size:4", &[Do(bpf)]),
    plain(323, "userfaultfd", "flags:4"),
    plain(324, "membarrier", "cmd:4 flags:4"),
    row(428, "open_tree", "dfd:4 filename flags:4", &[Str(1, "open_tree(filename)")]),
    row(429, "move_mount", "from_dfd:4 from_pathname to_dfd:4 to_pathname flags:4", &[
        Str(1, "move_mount(from_pathname)"), Str(3, "move_mount(to_pathname)")]),
    row(430, "fsopen", "fs_name flags:4", &[Str(0, "fsopen(fs_name)")]),
    row(431, "fsconfig", "fd:4 cmd:4 key value aux:4", &[Str(2, "fsconfig(key)"), Do(fsconfig)]).uses(|a| if a[1] & 0xffff_ffff >= 6 { 3 } else { 31 }),
    plain(432, "fsmount", "fs_fd:4 flags:4 attr_flags:4"),
    row(433, "fspick", "dfd:4 path flags:4", &[Str(1, "fspick(path)")]),
    row(442, "mount_setattr", "dfd:4 path flags:4 attr size", &[Str(1, "mount_setattr(path)"), In(3, Arg(4), "mount_setattr(attr)")]),
    row(443, "quotactl_fd", "fd:4 cmd:4 id:4 addr", &[]),
    row(444, "landlock_create_ruleset", "attr size flags:4", &[In(0, Arg(1), "landlock_create_ruleset(attr)")]),
    row(445, "landlock_add_rule", "ruleset_fd:4 rule_type:4 rule_attr flags:4", &[Do(landlock_rule)]),
    plain(446, "landlock_restrict_self", "ruleset_fd:4 flags:4"),
    row(457, "statmount", "req buf bufsize flags:4", &[In(0, Fix(24), "statmount(req)"), Out(1, Arg(2), Arg(2), "statmount(buf)")]),
    row(458, "listmount", "req mnt_ids nr flags:4", &[
        In(0, Fix(24), "listmount(req)"), Out(1, crate::row::Size::Mul(2, 8), crate::row::Size::RetMul(8), "listmount(mnt_ids)")]),
    row(459, "lsm_get_self_attr", "attr:4 ctx size flags:4", &[crate::row::Rule::InOut(2, Fix(4), "lsm_get_self_attr(size)"), Do(lsm_self)]),
    row(460, "lsm_set_self_attr", "attr:4 ctx size:4 flags:4", &[In(1, Int(2, 1), "lsm_set_self_attr(ctx)")]),
    row(461, "lsm_list_modules", "ids size flags:4", &[crate::row::Rule::InOut(1, Fix(4), "lsm_list_modules(size)"), Do(lsm_list)]),
];

mod pr {
    pub const SET_PDEATHSIG: u64 = 1;
    pub const GET_PDEATHSIG: u64 = 2;
    pub const GET_DUMPABLE: u64 = 3;
    pub const GET_UNALIGN: u64 = 5;
    pub const GET_KEEPCAPS: u64 = 7;
    pub const GET_FPEMU: u64 = 9;
    pub const GET_FPEXC: u64 = 11;
    pub const GET_TIMING: u64 = 13;
    pub const SET_NAME: u64 = 15;
    pub const GET_NAME: u64 = 16;
    pub const GET_ENDIAN: u64 = 19;
    pub const GET_SECCOMP: u64 = 21;
    pub const SET_SECCOMP: u64 = 22;
    pub const CAPBSET_READ: u64 = 23;
    pub const CAPBSET_DROP: u64 = 24;
    pub const GET_TSC: u64 = 25;
    pub const GET_SECUREBITS: u64 = 27;
    pub const SET_TIMERSLACK: u64 = 29;
    pub const GET_TIMERSLACK: u64 = 30;
    pub const SET_MM: u64 = 35;
    pub const SET_CHILD_SUBREAPER: u64 = 36;
    pub const GET_CHILD_SUBREAPER: u64 = 37;
    pub const SET_NO_NEW_PRIVS: u64 = 38;
    pub const GET_NO_NEW_PRIVS: u64 = 39;
    pub const GET_TID_ADDRESS: u64 = 40;
    pub const GET_THP_DISABLE: u64 = 42;
    pub const GET_AUXV: u64 = 0x4155_5856;
    pub const SET_VMA: u64 = 0x5356_4d41;
}

const FILTER_MODE: u64 = 2;

pub fn prctl_uses(a: &[u64; 6]) -> u8 {
    match a[0] & 0xffff_ffff {
        pr::GET_DUMPABLE | pr::GET_KEEPCAPS | pr::GET_TIMING | pr::GET_SECCOMP | pr::GET_SECUREBITS | pr::GET_TIMERSLACK => 0b00001,
        pr::SET_VMA => 0b11111,
        pr::SET_SECCOMP if a[1] == FILTER_MODE => 0b00111,
        pr::GET_AUXV => 0b00111,
        pr::SET_MM => 0b01111,
        pr::SET_NO_NEW_PRIVS | pr::GET_NO_NEW_PRIVS | pr::GET_THP_DISABLE | pr::SET_CHILD_SUBREAPER => 0b00011,
        pr::SET_PDEATHSIG | pr::SET_NAME | pr::SET_TIMERSLACK | pr::CAPBSET_READ | pr::CAPBSET_DROP => 0b00011,
        _ => 0b00011,
    }
}

pub fn prctl(c: &mut Call) {
    let arg = c.args[1];
    match c.args[0] & 0xffff_ffff {
        pr::GET_PDEATHSIG => c.output(arg, 4, "prctl(get-death-signal)"),
        pr::GET_UNALIGN => c.output(arg, 4, "prctl(get-unalign)"),
        pr::GET_FPEMU => c.output(arg, 4, "prctl(get-fpemu)"),
        pr::GET_FPEXC => c.output(arg, 4, "prctl(get-fpexc)"),
        pr::GET_ENDIAN => c.output(arg, 4, "prctl(get-endian)"),
        pr::GET_TSC => c.output(arg, 4, "prctl(arg2)"),
        pr::GET_CHILD_SUBREAPER => c.output(arg, 4, "prctl(arg2)"),
        pr::GET_TID_ADDRESS => c.output(arg, 8, "prctl(arg2)"),
        pr::GET_AUXV => {
            let n = if c.phase == Phase::Mark { c.args[2].min(c.result as u64) } else { c.args[2] };
            c.output(arg, n, "prctl(arg2)");
        }
        pr::SET_NAME => c.string_up_to(arg, 16, "prctl(set-name)"),
        pr::GET_NAME => c.output(arg, 16, "prctl(get-name)"),
        pr::SET_SECCOMP => {
            if arg == FILTER_MODE {
                seccomp_filter(c, c.args[2]);
            }
            if c.phase == Phase::Mark {
                virtualise::note_seccomp(c);
            }
        }
        pr::SET_VMA => c.string_up_to(c.args[4], 80, "prctl(name)"),
        _ => {}
    }
}

const SECCOMP_NAME: &str = "prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter)";

fn seccomp_filter(c: &mut Call, program: u64) {
    filter(c, program, [SECCOMP_NAME; 3]);
}

/// struct sock_fprog: length 2, padding 6, pointer to instructions of 8 bytes. Names: length, pointer, instructions.
pub fn filter(c: &mut Call, at: u64, names: [&'static str; 3]) {
    if at == 0 {
        return;
    }
    c.input(at, 2, names[0]);
    c.input(at.wrapping_add(8), 8, names[1]);
    let count = u64::from(c.peek_or_zero::<u16>(at));
    let instructions = c.peek_or_zero::<u64>(at.wrapping_add(8));
    c.input(instructions, 8 * count, names[2]);
}

fn seccomp(c: &mut Call) {
    const SET_MODE_STRICT: u64 = 0;
    const SET_MODE_FILTER: u64 = 1;
    const GET_ACTION_AVAIL: u64 = 2;
    const GET_NOTIF_SIZES: u64 = 3;
    let operation = c.args[0] & 0xffff_ffff;
    match operation {
        SET_MODE_FILTER => filter(c, c.args[2], ["seccomp(args)"; 3]),
        GET_ACTION_AVAIL => c.input(c.args[2], 4, "seccomp(args)"),
        GET_NOTIF_SIZES => c.output(c.args[2], 6, "seccomp(args)"),
        _ => {}
    }
    if c.phase == Phase::Mark && matches!(operation, SET_MODE_STRICT | SET_MODE_FILTER) {
        virtualise::note_seccomp(c);
    }
}

/// Types 2, 3 and 4 read the kernel's messages.
fn syslog(c: &mut Call) {
    if matches!(c.args[0] as u32, 2..=4) {
        let room = c.count(2);
        let n = if c.phase == Phase::Mark { room.min(c.result as u64) } else { room };
        c.output(c.args[1], n, "syslog(bufp)");
    }
}

/// Q_GET* write, Q_SET* and Q_QUOTAON read; the command is in the upper 24 bits.
fn quotactl(c: &mut Call) {
    let addr = c.args[3];
    match c.args[0] >> 8 & 0xff_ffff {
        0x80_0002 => c.string(addr, "quotactl(addr)"),
        0x80_0004 => c.output(addr, 4, "quotactl(addr)"),
        0x80_0005 => c.output(addr, 24, "quotactl(addr)"),
        0x80_0006 => c.input(addr, 24, "quotactl(addr)"),
        0x80_0007 => c.output(addr, 72, "quotactl(addr)"),
        0x80_0008 => c.input(addr, 72, "quotactl(addr)"),
        0x80_0009 => c.output(addr, 72, "quotactl(addr)"),
        _ => {}
    }
}

fn keyctl(c: &mut Call) {
    const JOIN_SESSION: u64 = 1;
    const UPDATE: u64 = 2;
    const DESCRIBE: u64 = 6;
    const SEARCH: u64 = 10;
    const READ: u64 = 11;
    const INSTANTIATE: u64 = 12;
    let [option, _, second, third, ..] = c.args;
    match option & 0xffff_ffff {
        JOIN_SESSION => c.string(c.args[1], "keyctl(KEYCTL_JOIN_SESSION_KEYRING, name)"),
        UPDATE => c.input(second, third, "keyctl(KEYCTL_UPDATE, payload)"),
        DESCRIBE => key_out(c, second, third, "keyctl(KEYCTL_DESCRIBE, buffer)"),
        READ => key_out(c, second, third, "keyctl(KEYCTL_READ, buffer)"),
        SEARCH => {
            c.string(second, "sys_keyctl(KEYCTL_SEARCH, type)");
            c.string(third, "sys_keyctl(KEYCTL_SEARCH, description)");
        }
        INSTANTIATE => c.input(second, third, "keyctl(KEYCTL_INSTANTIATE, payload)"),
        _ => {}
    }
}

/// The result is the whole length, of which only what fits is written.
fn key_out(c: &mut Call, buffer: u64, room: u64, name: &'static str) {
    let n = if c.phase == Phase::Mark { room.min(c.result as u64) } else { room };
    c.output(buffer, n, name);
}

/// struct perf_event_attr tells its size at offset 4; 0 = the first version.
fn perf_event_open(c: &mut Call) {
    const FIRST: u64 = 64;
    const LARGEST: u64 = 4096;
    let attr = c.args[0];
    if attr == 0 {
        return;
    }
    c.input(attr.wrapping_add(4), 4, "perf_event_open(attr->size)");
    let size = match u64::from(c.peek_or_zero::<u32>(attr.wrapping_add(4))) {
        0 => FIRST,
        n => n.min(LARGEST),
    };
    c.input(attr, size, "perf_event_open(attr)");
}

/// What a command reads of its attributes is told by the size that the program gives; buffers inside are marked where they are
/// written: values of maps, and the descriptions of objects.
fn bpf(c: &mut Call) {
    const LOOKUP: u64 = 1;
    const GET_NEXT_KEY: u64 = 4;
    const GET_INFO: u64 = 15;
    const VALUE_MAX: u64 = 4096;
    let [command, attr, size, ..] = c.args;
    c.input(attr, (size & 0xffff_ffff).min(VALUE_MAX), "bpf(attr)");
    if c.phase != Phase::Mark || attr == 0 {
        return;
    }
    c.mark(attr, (size & 0xffff_ffff).min(VALUE_MAX));
    match command & 0xffff_ffff {
        LOOKUP | GET_NEXT_KEY => {
            let value = c.peek_or_zero::<u64>(attr.wrapping_add(16));
            mark_readable(c, value, VALUE_MAX);
        }
        GET_INFO => {
            let n = u64::from(c.peek_or_zero::<u32>(attr.wrapping_add(4)));
            let info = c.peek_or_zero::<u64>(attr.wrapping_add(8));
            c.mark(info, n.min(VALUE_MAX));
        }
        _ => {}
    }
}

/// The size is not known here: mark while it is the program's.
fn mark_readable(c: &mut Call, at: u64, most: u64) {
    let n = if c.readable(at, most) { most } else { 0 };
    c.mark(at, n);
}

/// FSCONFIG_SET_STRING reads a string, FSCONFIG_SET_BINARY `aux` bytes, the two path commands a string.
fn fsconfig(c: &mut Call) {
    match c.args[1] & 0xffff_ffff {
        1 | 3 | 4 => c.string(c.args[3], "fsconfig(value)"),
        2 => {
            let n = c.count(4);
            c.input(c.args[3], n, "fsconfig(value)");
        }
        _ => {}
    }
}

/// Rule type 1 (path): access 8, descriptor 4; type 2 (port): access 8, port 8.
fn landlock_rule(c: &mut Call) {
    let n = if c.args[1] as u32 == 1 { 12 } else { 16 };
    c.input(c.args[2], n, "landlock_add_rule(rule_attr)");
}

fn lsm_self(c: &mut Call) {
    let n = u64::from(c.peek_or_zero::<u32>(c.args[2])).min(1 << 16);
    c.output(c.args[1], n, "lsm_get_self_attr(ctx)");
}

fn lsm_list(c: &mut Call) {
    let n = u64::from(c.peek_or_zero::<u32>(c.args[1])).min(1 << 16);
    c.output(c.args[0], n, "lsm_list_modules(ids)");
}
