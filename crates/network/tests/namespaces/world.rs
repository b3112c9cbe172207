//! A world to test in: a host, a far side with real servers, and a guest with a real stack, each in a network
//! namespace. Nothing of the machine's own network is touched.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firelane_network::policy::{Policy, Settings};
use firelane_network::{Count, FenceKind, Network, Options, Report, plan};
use firelane_sys::network::{Namespace, Tap};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord};

/// The far side, and what it has beside: a private address, and one of metadata.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The host's address on the far side's network.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Ports with a server that says hello, and one that echoes.
pub(crate) const HELLO: u16 = 80;
pub(crate) const OTHER: u16 = 81;
pub(crate) const ECHO: u16 = 7000;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test gets.
pub(crate) struct World {
    pub(crate) far: Namespace,
    pub(crate) connections: Arc<AtomicUsize>,
}

/// Does a test with each kind of fence, on a thread in the namespace of a host of its own.
pub(crate) fn each(test: &str, body: impl Fn(&World, FenceKind) + Sync) {
    for kind in [FenceKind::Ebpf, FenceKind::Nftables] {
        once(test, |world| {
            if let Some(reason) = refused(kind) {
                println!("SKIP {test} with {}: {reason}", kind.name());
                return;
            }
            body(world, kind);
        });
    }
}

/// Why the kernel here has no such fence at all: by tools that have no part in making ours.
fn refused(kind: FenceKind) -> Option<String> {
    let (program, words, input) = match kind {
        FenceKind::Ebpf => ("tc", "qdisc add dev lo clsact", ""),
        FenceKind::Nftables => (
            "nft",
            "-f -",
            "table netdev t { chain c { type filter hook ingress device lo priority 0; }; }",
        ),
    };
    let command = Command::new(program)
        .args(words.split(' '))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match command {
        Ok(child) => child,
        Err(error) => return Some(format!("{program}: {error}")),
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    if kind == FenceKind::Nftables {
        let removed = Command::new("nft")
            .args(["delete", "table", "netdev", "t"])
            .status()
            .unwrap();
        assert!(removed.success());
    }
    let off = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").is_err();
    (kind == FenceKind::Ebpf && off).then(|| "the kernel has no eBPF".to_owned())
}

/// Does a test in the namespace of a host of its own.
pub(crate) fn once(test: &str, body: impl Fn(&World) + Sync) {
    let spaces = Namespace::new().and_then(|host| Ok((host, Namespace::new()?)));
    let (host, far) = match spaces {
        Ok(spaces) => spaces,
        Err(error) => {
            println!("SKIP {test}: no network namespaces here: {error}");
            return;
        }
    };
    if let Err(error) = host.inside(|| Tap::new("trial")).unwrap() {
        println!("SKIP {test}: no taps here: {error}");
        return;
    }
    let world = World {
        far,
        connections: Arc::default(),
    };
    host.inside(|| {
        world.build();
        body(&world);
    })
    .unwrap();
}

pub(crate) fn policy(allow: &[&str]) -> Policy {
    with_limits(allow, "")
}

pub(crate) fn with_limits(allow: &[&str], limits: &str) -> Policy {
    let allow: Vec<String> = allow.iter().map(|rule| format!("{rule:?}")).collect();
    let text = format!("allow = [{}]\n{limits}", allow.join(", "));
    let settings: Settings = toml::from_str(&text).unwrap();
    Policy::new(&settings).unwrap()
}

pub(crate) fn options(kind: FenceKind) -> Options {
    Options {
        fence: Some(kind),
        upstream: Some(vec![(FAR, 53).into()]),
        least_pin: None,
    }
}

pub(crate) fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something was counted so often.
pub(crate) fn counted(network: &Network, count: Count, times: u64) -> Report {
    let mut report = network.report().unwrap();
    until(
        &format!("{} {times} times in {report:?}", count.name()),
        || {
            report = network.report().unwrap();
            report.tally.of(count) >= times
        },
    );
    report
}

impl World {
    /// On a thread in the host's namespace.
    fn build(&self) {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        ip("link set lo up");
        ip(&format!(
            "link add w0 type veth peer name f0 netns {}",
            self.far.path().display()
        ));
        ip(&format!("address add {HOST}/24 dev w0"));
        ip("link set w0 up");
        self.far
            .inside(|| {
                ip("link set lo up");
                ip(&format!("address add {FAR}/24 dev f0"));
                ip(&format!("address add {PRIVATE}/32 dev f0"));
                ip(&format!("address add {METADATA}/32 dev f0"));
                ip("link set f0 up");
                for port in [HELLO, OTHER] {
                    self.hello(port);
                }
                echo();
                names();
            })
            .unwrap();
        ip(&format!("route add {PRIVATE} via {FAR}"));
        ip(&format!("route add {METADATA} via {FAR}"));
    }

    fn hello(&self, port: u16) {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let connections = Arc::clone(&self.connections);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"hello");
            }
        });
    }

    /// How many connections the far side has had.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn echo() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ECHO)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
}

/// The far side's name server: `far.*` is there, `private.*` and `metadata.*` lead where none should.
fn names() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            // The flood of another test comes by here too.
            let Ok(asked) = Packet::parse(&bytes[..length]) else {
                continue;
            };
            let mut reply = Packet::new_reply(asked.id());
            let question = asked.questions[0].clone();
            let name = question.qname.to_string();
            let addresses: &[Ipv4Addr] = match name.split('.').next() {
                Some("far") => &[FAR],
                Some("private") => &[PRIVATE],
                Some("metadata") => &[METADATA],
                Some("mixed") => &[METADATA, FAR],
                _ => &[],
            };
            for address in addresses {
                let data = RData::A(A {
                    address: address.to_bits(),
                });
                let record = ResourceRecord::new(question.qname.clone(), CLASS::IN, 1, data);
                reply.answers.push(record);
            }
            if addresses.is_empty() {
                *reply.rcode_mut() = RCODE::NameError;
            }
            reply.questions.push(question);
            let _ = socket.send_to(&reply.build_bytes_vec().unwrap(), from);
        }
    });
}

/// A guest with a real stack on the tap, and with a hand on it.
pub(crate) struct Guest {
    space: Namespace,
    tap: File,
}

impl Guest {
    pub(crate) fn new(network: &Network) -> Self {
        let space = Namespace::new().unwrap();
        let own = space
            .inside(|| {
                let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
                let own = Tap::new("eth0").unwrap();
                let mac = plan::mac_text(plan::GUEST_MAC);
                ip(&format!("link set eth0 address {mac} up"));
                ip(&format!(
                    "address add {}/{} dev eth0",
                    plan::GUEST,
                    plan::PREFIX
                ));
                ip(&format!("route add default via {}", plan::GATEWAY));
                own
            })
            .unwrap();
        pump(own.handle().unwrap(), network.tap().unwrap());
        pump(network.tap().unwrap(), own.handle().unwrap());
        Self {
            space,
            tap: network.tap().unwrap().into(),
        }
    }

    /// Does this where the guest is.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.space.inside(work).unwrap()
    }

    /// What a server says over TCP.
    pub(crate) fn read(&self, to: impl Into<SocketAddr>) -> String {
        let to = to.into();
        self.inside(|| {
            let mut stream = std::net::TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) {
        (&self.tap).write_all(frame).unwrap();
    }

    /// The answer of the sandbox's resolver.
    pub(crate) fn ask(&self, name: &str) -> (RCODE, Vec<Ipv4Addr>) {
        let mut question = Packet::new_query(77);
        let name = simple_dns::Name::new(name).unwrap();
        let kind = simple_dns::QTYPE::TYPE(simple_dns::TYPE::A);
        let class = simple_dns::QCLASS::CLASS(CLASS::IN);
        question
            .questions
            .push(simple_dns::Question::new(name, kind, class, false));
        let question = question.build_bytes_vec().unwrap();
        self.inside(|| {
            let socket = UdpSocket::bind((plan::GUEST, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
                .send_to(&question, (plan::GATEWAY, plan::DNS_PORT))
                .unwrap();
            let mut bytes = [0; 2048];
            let length = socket.recv(&mut bytes).unwrap();
            let reply = Packet::parse(&bytes[..length]).unwrap();
            assert_eq!(reply.id(), 77);
            let addresses = reply
                .answers
                .iter()
                .filter_map(|record| match &record.rdata {
                    RData::A(a) => Some(Ipv4Addr::from_bits(a.address)),
                    _ => None,
                });
            (reply.rcode(), addresses.collect())
        })
    }
}

fn pump(from: OwnedFd, to: OwnedFd) {
    let (mut from, mut to) = (File::from(from), File::from(to));
    std::thread::spawn(move || {
        let mut frame = [0; 2048];
        while let Ok(length @ 1..) = from.read(&mut frame) {
            let _ = to.write_all(&frame[..length]);
        }
    });
}
