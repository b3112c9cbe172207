//! A template with a network: a real microVM reaches what its rules allow, and nothing else.
//!
//! The host is a network namespace of the test's own, with a server in another one behind it.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use firelane_sys::network::Namespace;
use firelane_testkit::{Lab, Running};
use rustix::process::Signal;
use serde_json::Value;

const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const TEMPLATE: &str = r#"
description = "base with a network"
include = ["base"]

[network]
allow = ["far.example:80"]
"#;
const PROGRAM: &str = r#"
import socket
def read(host, port, wait):
    try:
        with socket.create_connection((host, port), timeout=wait) as far:
            return far.recv(100).decode()
    except OSError:
        return "nothing"
print(read("far.example", 80, 60))
print(read("203.0.113.7", 81, 1))
print(read("169.254.169.254", 80, 1))
print(read("elsewhere.example", 80, 1))
"#;

/// Does a test on a host of its own, where networks can be made.
fn on_a_host(test: &str, body: impl FnOnce(&Lab) + Send) {
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
    fs::write(&definition, TEMPLATE).unwrap();
    let built = lab.firelane(&["template", "build", definition.to_str().unwrap()]);
    assert_eq!(built.code, 0, "{built:?}");
    host.inside(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let far_side = far.path().display().to_string();
        ip(&format!(
            "link add w0 type veth peer name f0 netns {far_side}"
        ));
        ip("address add 203.0.113.1/24 dev w0");
        ip("link set w0 up");
        far.inside(|| {
            ip(&format!("address add {FAR}/24 dev f0"));
            ip("address add 169.254.169.254/32 dev f0");
            ip("link set f0 up");
            serve();
        })
        .unwrap();
        ip(&format!("route add 169.254.169.254 via {FAR}"));
        body(&lab);
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

/// Says hello at two ports, and that every name is here.
fn serve() {
    for port in [80, 81] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"hello");
            }
        });
    }
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

fn firelane(lab: &Lab, test: &str, more: &[&str]) -> Command {
    let template = [
        "run",
        "--driver",
        "qemu",
        "--template",
        test,
        "--lang",
        "python",
    ];
    let mut command = lab.command(&[&template, more].concat());
    command.env("FIRELANE_RESOLVERS", FAR.to_string());
    command
}

/// Devices and tables of ours on the host.
fn left() -> String {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let devices = devices
        .lines()
        .filter(|line| line.trim_start().starts_with("fln"));
    let tables = Command::new("/usr/sbin/nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    devices.collect::<String>() + &String::from_utf8(tables.stdout).unwrap()
}

/// Waits until the kernel has removed the namespace of a killed owner, and the device with it.
fn until_no_device() {
    let started = Instant::now();
    while fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .contains("fln")
    {
        assert!(started.elapsed() < Duration::from_secs(60), "it stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_guest_reaches_what_its_template_allows() {
    let test = "a_guest_reaches_what_its_template_allows";
    on_a_host(test, |lab| {
        let ended = Running::start(firelane(lab, test, &["--json", "-c", PROGRAM]), b"").end();
        assert_eq!(ended.code, 0, "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(
            report["stdout"], "hello\nnothing\nnothing\nnothing\n",
            "{report}"
        );
        let network = &report["network"];
        assert_eq!(network["counts"]["flows"], 1, "{network}");
        let meetings = network["meetings"].as_array().unwrap();
        let met = |count: &str, address: &str, port: u16| {
            meetings.iter().any(|meeting| {
                (meeting["count"] == count)
                    && meeting["address"] == address
                    && meeting["port"] == port
            })
        };
        assert!(met("flows", "203.0.113.7", 80), "{network}");
        assert!(met("denied", "203.0.113.7", 81), "{network}");
        assert!(met("blocked", "169.254.169.254", 80), "{network}");
        let looked_up = |name: &str, outcome: &str| {
            let mut lookups = network["lookups"].as_array().unwrap().iter();
            lookups.any(|lookup| lookup["name"] == name && lookup["outcome"] == outcome)
        };
        assert!(looked_up("far.example", "answered"), "{network}");
        assert!(looked_up("elsewhere.example", "refused"), "{network}");
        assert_eq!(left(), "");
        lab.assert_empty();
    });
}

#[test]
fn a_killed_run_leaves_no_network() {
    let test = "a_killed_run_leaves_no_network";
    on_a_host(test, |lab| {
        let waits = "import sys; print('here', flush=True); sys.stdin.read()";
        let mut killed = Running::start(firelane(lab, test, &["-c", waits]), b"");
        assert_eq!(killed.line(), "here\n");
        assert!(left().contains("fln"));
        killed.signal(Signal::KILL);
        assert_eq!(killed.end().code, -9);
        until_no_device();
        let ended = Running::start(firelane(lab, test, &["-c", "print('next')"]), b"").end();
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (0, "next\n"),
            "{ended:?}"
        );
        assert_eq!(left(), "");
        lab.assert_empty();
    });
}

#[test]
fn a_host_that_does_not_forward_is_named_with_the_remedy() {
    let test = "a_host_that_does_not_forward_is_named";
    on_a_host(test, |lab| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let ended = Running::start(firelane(lab, test, &["-c", "print(1)"]), b"").end();
        assert_eq!(ended.code, 125, "{ended:?}");
        assert!(
            ended.stderr.contains("sysctl -w net.ipv4.ip_forward=1"),
            "{ended:?}"
        );
        assert_eq!(left(), "");
        lab.assert_empty();
    });
}
