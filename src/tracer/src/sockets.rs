//! What a socket of a traced process is: its family, and the addresses of its ends.
//!
//! A duplicate of it is asked, because the kernel's lists in /proc do not know sockets that are bound to nothing. Where the kernel has
//! no such duplicates, nothing is known.
#![allow(unsafe_code, reason = "two system calls that have no wrapper, and one socket option")]

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// A socket, in the words of a report: `AF_INET`, and `127.0.0.1:80 <-> unbound`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    pub family: String,
    /// Empty: nothing can be said.
    pub ends: String,
}

/// The socket behind a descriptor of a process; `None`: the kernel does not let us look.
pub fn socket(pid: i32, fd: i32) -> Option<Socket> {
    let copy = duplicate(pid, fd)?;
    let family = domain(&copy)?;
    Some(match family {
        libc::AF_INET | libc::AF_INET6 => {
            // Any socket of these families has such addresses, whatever its type.
            let stream = TcpStream::from(copy);
            let local = stream.local_addr().ok().filter(|local| local.port() != 0);
            let local = local.map_or("<unbound>".to_string(), |local| name(&local));
            let peer = stream.peer_addr().map_or("unbound".to_string(), |peer| name(&peer));
            let family = if family == libc::AF_INET { "AF_INET" } else { "AF_INET6" };
            Socket { family: family.into(), ends: format!("{local} <-> {peer}") }
        }
        libc::AF_UNIX => {
            let local = UnixStream::from(copy).local_addr().ok();
            let path = local.and_then(|local| local.as_pathname().map(|path| path.to_string_lossy().into_owned()));
            Socket { family: "AF_UNIX".into(), ends: path.unwrap_or_else(|| "<unknown>".into()) }
        }
        other => Socket { family: format!("pf-{other}"), ends: String::new() },
    })
}

fn name(address: &SocketAddr) -> String {
    address.to_string()
}

fn duplicate(pid: i32, fd: i32) -> Option<OwnedFd> {
    // SAFETY: both calls take numbers only and give a new descriptor or an error.
    let owned = |result: libc::c_long| (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result as i32) });
    // SAFETY: as above.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

fn domain(socket: &OwnedFd) -> Option<i32> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let to = (&raw mut value).cast();
    // SAFETY: the kernel writes an int to `value`, which is as long as `len` says.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, to, &mut len) };
    (done == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn of(socket: &impl AsRawFd) -> Option<Socket> {
        super::socket(std::process::id() as i32, socket.as_raw_fd())
    }

    #[test]
    fn ends() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let Some(found) = of(&listener) else { return };
        let port = listener.local_addr().expect("its address").port();
        assert_eq!(found, Socket { family: "AF_INET".into(), ends: format!("127.0.0.1:{port} <-> unbound") });
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(of(&one), Some(Socket { family: "AF_UNIX".into(), ends: "<unknown>".into() }));
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").expect("a"), UdpSocket::bind("127.0.0.1:0").expect("b"));
        let to = b.local_addr().expect("its address");
        a.connect(to).expect("connects");
        let ends = format!("{} <-> {to}", a.local_addr().expect("its address"));
        assert_eq!(of(&a), Some(Socket { family: "AF_INET".into(), ends }));
    }
}
