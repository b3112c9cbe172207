//! The network of a sandbox in network namespaces: a guest on the tap, and real servers on the far side.
//!
//! Each test is done with both kinds of fence. Where there are no namespaces, taps, or one of the fences, it
//! says that it was skipped.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod frames;
mod world;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use firelane_network::{Count, FenceKind, Network, Options, plan, sweep};
use firelane_sys::network::Namespace;
use frames::{arp, ethernet, ipv4, packet, syn, udp};
use simple_dns::RCODE;
use world::{
    ECHO, FAR, Guest, HELLO, HOST, METADATA, OTHER, PRIVATE, World, counted, each, ip, options,
    policy, until, with_limits,
};

/// How long an answer is waited for that may not come; then the question is asked again.
const SOON: Duration = Duration::from_millis(200);

fn network(kind: FenceKind, allow: &[&str]) -> (Network, Guest) {
    let network = Network::new("tested", &policy(allow), options(kind)).unwrap();
    let guest = Guest::new(&network);
    (network, guest)
}

#[test]
fn what_is_allowed_is_reached_and_listed() {
    each("what_is_allowed_is_reached_and_listed", |world, kind| {
        let (network, guest) = network(kind, &["203.0.113.0/24:80", "udp:203.0.113.7:7000"]);
        assert_eq!(guest.read((FAR, HELLO)), "hello");
        assert_eq!(world.connections(), 1);
        let echoed = guest.inside(|| {
            let socket = UdpSocket::bind((plan::GUEST, 0)).unwrap();
            socket.send_to(b"who is there", (FAR, ECHO)).unwrap();
            let mut bytes = [0; 64];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            assert_eq!(from, (FAR, ECHO).into());
            bytes[..length].to_vec()
        });
        assert_eq!(echoed, b"who is there");
        let report = counted(&network, Count::Flows, 2);
        assert_eq!(report.fence, kind.name());
        let listed = |port, protocol| {
            let mut meetings = report.tally.meetings.iter();
            meetings.any(|meeting| {
                (meeting.count, meeting.address) == (Count::Flows, FAR)
                    && (meeting.port, meeting.protocol) == (port, protocol)
            })
        };
        assert!(listed(HELLO, 6) && listed(ECHO, 17), "{report:?}");
        assert!(report.tally.of(Count::BytesIn) > 0 && report.tally.of(Count::BytesOut) > 0);
    });
}

#[test]
fn what_no_rule_allows_is_refused_and_listed() {
    each(
        "what_no_rule_allows_is_refused_and_listed",
        |world, kind| {
            let (network, guest) = network(kind, &["203.0.113.7:80"]);
            guest.send(&syn(1000, FAR, OTHER));
            guest.send(&udp(1000, FAR, ECHO, b"x"));
            guest.send(&syn(1000, Ipv4Addr::new(203, 0, 113, 8), HELLO));
            let report = counted(&network, Count::Denied, 3);
            let listed = report.tally.meetings.iter().any(|meeting| {
                (meeting.count, meeting.address, meeting.port) == (Count::Denied, FAR, OTHER)
            });
            assert!(listed, "{report:?}");
            // What comes after it on the same tap has arrived, so what was refused has not.
            assert_eq!(guest.read((FAR, HELLO)), "hello");
            assert_eq!(world.connections(), 1);
        },
    );
}

#[test]
fn blocked_ranges_are_reached_by_name_only() {
    each("blocked_ranges_are_reached_by_name_only", |world, kind| {
        let (all, guest) = network(kind, &["0.0.0.0/0:*"]);
        let gateway_mtu_discovery = Ipv4Addr::new(198, 18, 0, 1);
        for to in [
            PRIVATE,
            METADATA,
            HOST,
            plan::GATEWAY,
            gateway_mtu_discovery,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::LOCALHOST,
        ] {
            guest.send(&syn(1000, to, HELLO));
        }
        counted(&all, Count::Blocked, 7);
        assert_eq!(guest.read((FAR, HELLO)), "hello");
        assert_eq!(world.connections(), 1);
        drop(guest);
        all.close().unwrap();

        let (named, guest) = network(kind, &["10.9.0.0/16:80", "169.254.169.254:80"]);
        assert_eq!(guest.read((PRIVATE, HELLO)), "hello");
        assert_eq!(guest.read((METADATA, HELLO)), "hello");
        guest.send(&syn(1000, PRIVATE, OTHER));
        counted(&named, Count::Blocked, 1);
    });
}

#[test]
fn the_host_is_reached_at_what_is_named_of_it() {
    each("the_host_is_reached_at_what_is_named_of_it", |_, kind| {
        let (_network, guest) = network(kind, &["udp:203.0.113.1:9999"]);
        let socket = UdpSocket::bind((HOST, 9999)).unwrap();
        guest.send(&udp(1000, HOST, 9999, b"named"));
        let mut bytes = [0; 16];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"named");
    });
}

#[test]
fn what_one_network_has_opened_is_closed_in_the_next() {
    each(
        "what_one_network_has_opened_is_closed_in_the_next",
        |world, kind| {
            let rules = ["far.example:80", "udp:far.example:7000"];
            let (first, guest) = network(kind, &rules);
            assert_eq!(guest.ask("far.example"), (RCODE::NoError, vec![FAR]));
            assert_eq!(guest.read((FAR, HELLO)), "hello");
            // A clone goes on where another guest was: it knows the addresses, and its queues hold frames.
            let second = Network::new("another", &policy(&rules), options(kind)).unwrap();
            let tap = File::from(second.tap().unwrap());
            for frame in [syn(1000, FAR, HELLO), udp(1000, FAR, ECHO, b"x")] {
                (&tap).write_all(&frame).unwrap();
            }
            let report = counted(&second, Count::Denied, 2);
            assert_eq!(report.tally.of(Count::Flows), 0, "{report:?}");
            assert_eq!(world.connections(), 1);
            // What is counted at one is not counted at the other.
            let report = first.report().unwrap();
            assert_eq!(report.tally.of(Count::Denied), 0, "{report:?}");
        },
    );
}

#[test]
fn many_are_opened_and_closed_at_once() {
    each("many_are_opened_and_closed_at_once", |_, kind| {
        let host = Namespace::current().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let host = &host;
                scope.spawn(move || {
                    let opened = host.inside(|| {
                        for round in 0..3 {
                            let (id, rules) = (format!("{number} {round}"), ["far.example:80"]);
                            let network = Network::new(&id, &policy(&rules), options(kind));
                            network.unwrap().close().unwrap();
                        }
                    });
                    opened.unwrap();
                });
            }
        });
        assert_eq!(sweep().unwrap(), 0);
    });
}

#[test]
fn names_are_resolved_and_pinned_as_rules_say() {
    each(
        "names_are_resolved_and_pinned_as_rules_say",
        |world, kind| {
            let (network, guest) = network(kind, &["far.example:80", "nobody.example:80"]);
            guest.send(&syn(1000, FAR, HELLO));
            counted(&network, Count::Denied, 1);
            assert_eq!(guest.ask("far.example"), (RCODE::NoError, vec![FAR]));
            assert_eq!(guest.read((FAR, HELLO)), "hello");
            guest.send(&syn(1000, FAR, OTHER));
            counted(&network, Count::Denied, 2);
            assert_eq!(guest.ask("far.elsewhere"), (RCODE::Refused, vec![]));
            assert_eq!(guest.ask("nobody.example"), (RCODE::NameError, vec![]));
            assert_eq!(world.connections(), 1);
            let lookups: Vec<(String, &str)> = network
                .report()
                .unwrap()
                .lookups
                .into_iter()
                .map(|lookup| (lookup.name, lookup.outcome))
                .collect();
            let expected = [
                ("far.example", "answered"),
                ("far.elsewhere", "refused"),
                ("nobody.example", "no_name"),
            ];
            assert_eq!(
                lookups,
                expected.map(|(name, outcome)| (name.to_owned(), outcome))
            );
        },
    );
}

#[test]
fn a_flow_goes_on_when_the_time_of_its_address_is_over() {
    let begin = || UdpSocket::bind((plan::GUEST, 0)).unwrap();
    let echoes = |socket: &UdpSocket| {
        socket.send_to(b"ping", (FAR, ECHO)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.recv(&mut [0; 8]).is_ok()
    };
    each(
        "a_flow_goes_on_when_the_time_of_its_address_is_over",
        |_, kind| {
            let options = Options {
                least_pin: Some(1),
                ..options(kind)
            };
            let rules = policy(&["udp:far.example:7000"]);
            let network = Network::new("tested", &rules, options).unwrap();
            let guest = Guest::new(&network);
            let old = guest.inside(begin);
            until("the flow has begun", || {
                guest.ask("far.example");
                guest.inside(|| echoes(&old))
            });
            let refused = network.report().unwrap().tally.of(Count::Denied);
            until("new flows are refused", || {
                guest.inside(|| echoes(&begin()));
                network.report().unwrap().tally.of(Count::Denied) > refused
            });
            until("the old one goes on", || guest.inside(|| echoes(&old)));
        },
    );
}

#[test]
fn names_do_not_rebind_to_blocked_ranges() {
    each("names_do_not_rebind_to_blocked_ranges", |world, kind| {
        let (network, guest) = network(kind, &["*.example:80"]);
        assert_eq!(guest.ask("metadata.example"), (RCODE::Refused, vec![]));
        assert_eq!(guest.ask("private.example"), (RCODE::Refused, vec![]));
        assert_eq!(guest.ask("mixed.example"), (RCODE::NoError, vec![FAR]));
        for to in [METADATA, PRIVATE] {
            guest.send(&syn(1000, to, HELLO));
        }
        let report = counted(&network, Count::Blocked, 2);
        assert!(
            report
                .lookups
                .iter()
                .all(|lookup| lookup.outcome == "rebound"),
            "{report:?}"
        );
        assert_eq!(guest.read((FAR, HELLO)), "hello");
        assert_eq!(world.connections(), 1);
    });
}

#[test]
fn frames_that_lie_are_refused_one_by_one() {
    each("frames_that_lie_are_refused_one_by_one", |world, kind| {
        let (network, guest) = network(kind, &["203.0.113.7:80", "udp:203.0.113.7:7000"]);
        let stranger = [0x02, 0, 0, 0, 0, 9];
        let other = Ipv4Addr::new(192, 0, 0, 3);
        let segment = &syn(1000, FAR, HELLO)[34..];
        let mut frames: Vec<(Count, Vec<u8>)> = Vec::new();

        let mut from_a_stranger = syn(1000, FAR, HELLO);
        from_a_stranger[6..12].copy_from_slice(&stranger);
        frames.push((Count::SourceMac, from_a_stranger));
        frames.push((
            Count::SourceAddress,
            ethernet(0x0800, &packet(other, FAR, 6, 0, segment)),
        ));
        // The first fragment, one in between, and the last.
        for fragment in [0x2000, 0x2001, 0x0001] {
            frames.push((
                Count::Fragment,
                ethernet(0x0800, &packet(plan::GUEST, FAR, 6, fragment, segment)),
            ));
        }
        frames.push((Count::Ipv6, ethernet(0x86dd, &[0x60; 60])));
        frames.push((Count::Ethertype, ethernet(0x88cc, &[0; 46])));
        frames.push((
            Count::Protocol,
            ethernet(0x0800, &ipv4(FAR, 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
        ));
        frames.push((Count::Protocol, ethernet(0x0800, &ipv4(FAR, 47, &[0; 20]))));
        let mut with_options = ipv4(FAR, 6, &[&[1; 4], segment].concat());
        with_options[0] = 0x46;
        frames.push((Count::Malformed, ethernet(0x0800, &with_options)));
        // ARP about another's address, from another's card, gratuitous, about another than the gateway.
        frames.push((
            Count::Arp,
            arp(1, plan::GUEST_MAC, plan::GATEWAY, plan::GATEWAY),
        ));
        frames.push((
            Count::Arp,
            arp(2, plan::GUEST_MAC, plan::GATEWAY, plan::GUEST),
        ));
        frames.push((Count::Arp, arp(2, stranger, plan::GUEST, plan::GATEWAY)));
        frames.push((
            Count::Arp,
            arp(1, plan::GUEST_MAC, plan::GUEST, plan::GUEST),
        ));
        frames.push((Count::Arp, arp(1, plan::GUEST_MAC, plan::GUEST, other)));

        let before = network.report().unwrap();
        for (count, frame) in &frames {
            let times = network.report().unwrap().tally.of(*count);
            guest.send(frame);
            counted(&network, *count, times + 1);
        }
        let report = network.report().unwrap();
        let refused = report.tally.refused() - before.tally.refused();
        assert_eq!(refused, frames.len() as u64, "each counts once: {report:?}");
        assert_eq!(report.tally.of(Count::Flows), 0);
        // The gateway still knows its guest.
        assert_eq!(guest.read((FAR, HELLO)), "hello");
        assert_eq!(world.connections(), 1);
    });
}

#[test]
fn nobody_begins_a_flow_to_the_guest() {
    each("nobody_begins_a_flow_to_the_guest", |_, kind| {
        let (network, guest) = network(kind, &["udp:203.0.113.7:7000"]);
        let inside = Command::new("ip")
            .args(["-json", "-4", "address", "show", "dev", network.name()])
            .output()
            .unwrap();
        let inside: serde_json::Value = serde_json::from_slice(&inside.stdout).unwrap();
        let outside: Ipv4Addr = inside[0]["addr_info"][0]["local"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let inside = Ipv4Addr::from_bits(outside.to_bits() + 1);
        ip(&format!("route add {} via {inside}", plan::GUEST));
        let heard = guest.inside(|| UdpSocket::bind((plan::GUEST, 5000)).unwrap());
        let socket = UdpSocket::bind((HOST, 7000)).unwrap();
        socket.send_to(b"unasked", (plan::GUEST, 5000)).unwrap();
        counted(&network, Count::Unsolicited, 1);
        // The first thing that it hears is what it asked for.
        heard.send_to(b"asked", (FAR, ECHO)).unwrap();
        let mut bytes = [0; 16];
        let length = heard.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"asked");
    });
}

#[test]
fn bytes_and_flows_are_limited() {
    each("bytes_and_flows_are_limited", |_, kind| {
        let limits = "bytes_per_second = 65536\nflows_per_second = 1";
        let policy = with_limits(&["udp:203.0.113.7:7000", "203.0.113.7:80"], limits);
        let network = Network::new("tested", &policy, options(kind)).unwrap();
        let guest = Guest::new(&network);
        let mut port = 1000;
        until("too many flows in a second", || {
            port += 1;
            guest.send(&syn(port, FAR, HELLO));
            network.report().unwrap().tally.of(Count::FlowRate) > 0
        });
        let large = udp(1000, FAR, ECHO, &[0; 1400]);
        until("too many bytes in a second", || {
            (0..64).for_each(|_| guest.send(&large));
            network.report().unwrap().tally.of(Count::Rate) > 0
        });
    });
}

#[test]
fn a_flood_of_flows_is_bounded() {
    each("a_flood_of_flows_is_bounded", |_, kind| {
        let limits = "flows_per_second = 100000\nflows_at_once = 64";
        let policy = with_limits(&["udp:203.0.113.0/24:*", "203.0.113.7:80"], limits);
        let network = Network::new("tested", &policy, options(kind)).unwrap();
        let guest = Guest::new(&network);
        let before = guest.read((FAR, HELLO));
        for port in 1..3000 {
            guest.send(&udp(port, FAR, port, b"x"));
        }
        let report = network.report().unwrap();
        match kind {
            // The least lately used one makes room.
            FenceKind::Ebpf => assert!(report.tally.of(Count::Flows) > 64, "{report:?}"),
            // Those that come later wait until others have ended.
            FenceKind::Nftables => assert!(
                report.tally.of(Count::FlowTable) > 0,
                "{:?}",
                report.tally.counts
            ),
        }
        assert!(report.tally.meetings.len() <= 2 * firelane_network::MAX_LISTED);
        assert_eq!(before, "hello");
    });
}

fn left(world: &World) -> String {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let ours = devices
        .lines()
        .filter(|line| line.trim_start().starts_with("fln"));
    let tables = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    let _ = world;
    ours.collect::<String>() + &String::from_utf8_lossy(&tables.stdout)
}

#[test]
fn nothing_is_left_of_a_network_that_was_dropped() {
    each(
        "nothing_is_left_of_a_network_that_was_dropped",
        |world, kind| {
            let (dropped, guest) = network(kind, &["203.0.113.7:80"]);
            assert_eq!(guest.read((FAR, HELLO)), "hello");
            assert!(left(world).contains(dropped.name()));
            drop(dropped);
            assert_eq!(left(world), "");
            let (closed, _guest) = network(kind, &[]);
            closed.close().unwrap();
            assert_eq!(left(world), "");
        },
    );
}

#[test]
fn a_sweep_removes_what_a_killed_owner_left() {
    each("a_sweep_removes_what_a_killed_owner_left", |world, kind| {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_owner_that_waits", "--ignored", "--nocapture"])
            .env("FIRELANE_TEST_FENCE", kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let name = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("owns ")?.1.to_owned()));
        let name = name.unwrap();
        assert_eq!(sweep().unwrap(), 0, "it lives");
        assert!(left(world).contains(&name));
        owner.kill().unwrap();
        owner.wait().unwrap();
        until("the kernel has removed the namespace", || {
            !std::fs::read_to_string("/proc/thread-self/net/dev")
                .unwrap()
                .contains(&name)
        });
        assert_eq!(sweep().unwrap(), 1);
        assert_eq!(left(world), "");
    });
}

/// Not a test: what `a_sweep_removes_what_a_killed_owner_left` starts and kills.
#[test]
#[ignore = "started by another test"]
fn an_owner_that_waits() {
    let kind = match std::env::var("FIRELANE_TEST_FENCE").as_deref() {
        Ok("nftables") => FenceKind::Nftables,
        _ => FenceKind::Ebpf,
    };
    let (network, _guest) = network(kind, &[]);
    println!("owns {}", network.name());
    std::io::stdin().lines().for_each(drop);
}
