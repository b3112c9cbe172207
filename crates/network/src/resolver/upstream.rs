//! The host's own resolvers, which answer what a sandbox may ask.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::answer::{Reply, read_answer, write_question};

/// How long one of them may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Most of them that are asked: as many as the host's own programs ask (resolv.conf(5)).
const MAX_ASKED: usize = 3;
/// Largest answer without EDNS, in bytes (RFC 1035, section 4.2.1); some send more all the same.
const MAX_ANSWER: usize = 4096;

/// Those of `/etc/resolv.conf`.
pub(super) fn of_the_host() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = servers(&text);
    if named.is_empty() {
        vec![(Ipv4Addr::LOCALHOST, 53).into()]
    } else {
        named
    }
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    let addresses = words.filter_map(|word| word.parse::<IpAddr>().ok());
    addresses
        .map(|address| (address, 53).into())
        .take(MAX_ASKED)
        .collect()
}

/// Asks one after the other until one of them knows.
pub(super) fn ask(upstream: &[SocketAddr], name: &str) -> Reply {
    let mut reply = Reply::Failed;
    for server in upstream.iter().take(MAX_ASKED) {
        match ask_one(*server, name) {
            Ok(Reply::Failed) => {}
            Ok(known) => return known,
            Err(error) => {
                tracing::debug!(%server, %error, "a resolver of the host did not answer");
                reply = Reply::Failed;
            }
        }
    }
    reply
}

/// Each question has a port and an id of its own, both drawn by the kernel.
fn ask_one(server: SocketAddr, name: &str) -> io::Result<Reply> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let question = write_question(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own)?;
    socket.connect(server)?;
    socket.send(&question)?;
    let deadline = Instant::now() + DEADLINE;
    let mut bytes = [0; MAX_ANSWER];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut bytes)?;
        // Others than the one that was asked may send here too.
        if let Some(reply) = read_answer(&bytes[..length], id, name) {
            return Ok(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_host_reads_them() {
        let text =
            "# none\nsearch example\nnameserver 192.0.2.1\nnameserver ::1 # own\nnameserver x\n";
        let servers: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[::1]:53"]);
    }
}
