//! A host of a test's own, where networks can be made, with a server in another namespace behind it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firelane_sys::network::Namespace;
use firelane_testkit::Lab;

/// The far side.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// One of its ports that keeps what is said to it, by connection.
const TALK: u16 = 82;
/// One that no rule is for.
const SILENT: u16 = 83;
/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the far side has got.
#[derive(Clone, Default)]
pub(crate) struct Far {
    /// Connections to the ports that say hello.
    greeted: Arc<AtomicUsize>,
    /// What was said on each connection, by its number.
    talks: Arc<Mutex<Vec<String>>>,
    /// Datagrams to the port that no rule is for.
    stray: Arc<AtomicUsize>,
}

impl Far {
    pub(crate) fn greeted(&self) -> usize {
        self.greeted.load(Ordering::SeqCst)
    }

    pub(crate) fn talks(&self) -> Vec<String> {
        self.talks.lock().unwrap().clone()
    }

    pub(crate) fn stray(&self) -> usize {
        self.stray.load(Ordering::SeqCst)
    }

    /// Says hello at two ports, listens at two others, and says that every name is here.
    fn serve(&self) {
        for port in [80, 81] {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            let greeted = Arc::clone(&self.greeted);
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    greeted.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(b"hello");
                }
            });
        }
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, TALK)).unwrap();
        let talks = Arc::clone(&self.talks);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                talks.lock().unwrap().push(String::new());
                let talks = Arc::clone(&talks);
                std::thread::spawn(move || listen(stream, number, &talks));
            }
        });
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SILENT)).unwrap();
        let stray = Arc::clone(&self.stray);
        std::thread::spawn(move || {
            while socket.recv(&mut [0; 64]).is_ok() {
                stray.fetch_add(1, Ordering::SeqCst);
            }
        });
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                // The question with the flags and the count of an answer, and one record (RFC 1035, section 4.1).
                let mut answer = question[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(FAR.octets());
                let _ = socket.send_to(&answer, from);
            }
        });
    }
}

fn listen(mut stream: TcpStream, number: usize, talks: &Mutex<Vec<String>>) {
    let mut bytes = [0; 512];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        let said = String::from_utf8_lossy(&bytes[..length]);
        talks.lock().unwrap()[number].push_str(&said);
    }
}

/// Does a test on a host of its own with a template of the test's name.
pub(crate) fn on_a_host(test: &str, template: &str, body: impl FnOnce(&Lab, &Far) + Send) {
    let programs = ["/usr/sbin/nft", "/usr/sbin/ip"];
    let missing = |program: &&&str| !fs::exists(program).unwrap();
    if let Some(program) = programs.iter().find(missing) {
        println!("SKIP {test}: there is no {program}");
        return;
    }
    let spaces = Namespace::new().and_then(|host| Ok((host, Namespace::new()?)));
    let (host, far) = match spaces {
        Ok(spaces) => spaces,
        Err(error) => {
            println!("SKIP {test}: no network namespaces here: {error}");
            return;
        }
    };
    let lab = Lab::new();
    // The template is built where the machine's own network is.
    let definition = lab.path().join(format!("{test}.toml"));
    fs::write(&definition, template).unwrap();
    let built = lab.firelane(&["template", "build", definition.to_str().unwrap()]);
    assert_eq!(built.code, 0, "{built:?}");
    host.inside(|| {
        let side = Far::default();
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let far_side = far.path().display().to_string();
        ip(&format!(
            "link add w0 type veth peer name f0 netns {far_side}"
        ));
        // A service listens there.
        ip("link set lo up");
        ip("address add 203.0.113.1/24 dev w0");
        ip("link set w0 up");
        far.inside(|| {
            ip(&format!("address add {FAR}/24 dev f0"));
            ip("address add 169.254.169.254/32 dev f0");
            ip("link set f0 up");
            side.serve();
        })
        .unwrap();
        ip(&format!("route add 169.254.169.254 via {FAR}"));
        body(&lab, &side);
    })
    .unwrap();
    let removed = lab.firelane(&["template", "rm", test]);
    assert_eq!(removed.code, 0, "{removed:?}");
}

fn ip(words: &str) {
    let status = Command::new("/usr/sbin/ip")
        .args(words.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {words}");
}

/// Our devices on the host.
pub(crate) fn devices() -> usize {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let ours = devices
        .lines()
        .filter(|line| line.trim_start().starts_with("fln"));
    ours.count()
}

/// Our tables on the host.
pub(crate) fn tables() -> String {
    let tables = Command::new("/usr/sbin/nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    String::from_utf8(tables.stdout).unwrap()
}

/// Nothing of ours is on the host.
pub(crate) fn nothing_is_left() {
    assert_eq!((devices(), tables().as_str()), (0, ""));
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
