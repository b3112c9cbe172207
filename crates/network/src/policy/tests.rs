use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn settings(allow: &[&str]) -> Settings {
    let allow: Vec<String> = allow.iter().map(|rule| format!("{rule:?}")).collect();
    toml::from_str(&format!("allow = [{}]", allow.join(", "))).unwrap()
}

fn policy(allow: &[&str]) -> Policy {
    Policy::new(&settings(allow)).unwrap()
}

#[test]
fn rules_are_read_as_they_are_documented() {
    let check = |text: &str, shown: &str| {
        assert_eq!(Rule::parse(text).unwrap().to_string(), shown);
    };
    check("203.0.113.7:443", "tcp:203.0.113.7/32:443");
    check(
        "tcp:203.0.113.0/24:8000-8100",
        "tcp:203.0.113.0/24:8000-8100",
    );
    check("udp:0.0.0.0/0:*", "udp:0.0.0.0/0:*");
    check("PyPI.example:443", "tcp:pypi.example:443");
    check("*.example.org:1-65535", "tcp:*.example.org:*");
    check("tcp:tcp:1", "tcp:tcp:1");
}

#[test]
fn what_is_no_rule_is_named_with_what_would_be_right() {
    let check = |text: &str, part: &str| {
        let error = Policy::new(&settings(&[text])).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(part), "{error}");
    };
    check("pypi.example", "has no port");
    check("pypi.example:0", "a number from 1 to 65535");
    check("pypi.example:9-8", "two with a hyphen");
    check("pypi.example:+1", "a number from 1 to 65535");
    check("203.0.113.7/24:80", "write 203.0.113.0/24");
    check("203.0.113.0/33:80", "from 0 to 32");
    check("203.0.113.0/+8:80", "from 0 to 32");
    check("203.0.113.256:80", "neither an address nor a name");
    check("[2001:db8::1]:80", "IPv4 only");
    check("2001:db8::1:80", "IPv4 only");
    check("icmp:203.0.113.1:1", "tcp and udp");
    check("a_b!.org:80", "neither an address nor a name");
    check("*.*.org:80", "neither an address nor a name");
    check("*:80", "neither an address nor a name");
    check("127.0.0.1:80", "loopback");
    check("224.0.0.1:80", "multicast");
    check("255.255.255.255:80", "broadcast");
    check("198.18.0.0/24:80", "links between sandboxes and host");
    check("192.0.0.1:80", "own link");
}

#[test]
fn unknown_fields_and_limits_out_of_bounds_are_refused() {
    assert!(toml::from_str::<Settings>("alow = []").is_err());
    let check = |text: &str, field: &str| {
        let error = Policy::new(&toml::from_str(text).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(field), "{error}");
    };
    check(
        "bytes_per_second = 65535",
        "bytes_per_second 65535 is not from 65536",
    );
    check("flows_per_second = 0", "flows_per_second 0");
    check("flows_at_once = 65537", "flows_at_once 65537");
    let many: Vec<String> = (0..=MAX_RULES)
        .map(|number| format!("n{number}.org:1"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        Policy::new(&settings(&many)),
        Err(PolicyError::TooMany { count: 65 })
    );
    let ports: Vec<String> = (1..=17)
        .map(|port| format!("203.0.113.7:{}", port * 2))
        .collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    assert!(matches!(
        Policy::new(&settings(&ports)),
        Err(PolicyError::Table(_))
    ));
}

#[test]
fn blocked_ranges_open_only_to_what_names_them() {
    let check = |allow: &[&str], address: [u8; 4], expected: Verdict| {
        let host = [Blocked::host(Ipv4Addr::new(203, 0, 113, 9))];
        let table = policy(allow).table(&host).unwrap();
        assert_eq!(
            table.judge(address.into(), Protocol::Tcp, 80),
            expected,
            "{allow:?} {address:?}"
        );
    };
    let metadata = [169, 254, 169, 254];
    check(&["0.0.0.0/0:80"], [203, 0, 113, 7], Verdict::Allowed);
    check(&["0.0.0.0/0:80"], [10, 0, 0, 1], Verdict::Blocked);
    check(&["0.0.0.0/0:80"], metadata, Verdict::Blocked);
    check(&["0.0.0.0/0:80"], [203, 0, 113, 9], Verdict::Blocked);
    check(&["10.0.0.0/7:80"], [10, 0, 0, 1], Verdict::Blocked);
    check(&["10.0.0.0/7:80"], [11, 0, 0, 1], Verdict::Allowed);
    check(&["10.1.0.0/16:80"], [10, 1, 2, 3], Verdict::Allowed);
    check(&["10.1.0.0/16:80"], [10, 2, 2, 3], Verdict::Blocked);
    check(&["10.1.0.0/16:81"], [10, 1, 2, 3], Verdict::Blocked);
    check(&["169.254.0.0/16:80"], [169, 254, 1, 1], Verdict::Allowed);
    check(&["169.254.0.0/16:80"], metadata, Verdict::Blocked);
    check(&["169.254.169.254:80"], metadata, Verdict::Allowed);
    check(&["203.0.113.9:80"], [203, 0, 113, 9], Verdict::Allowed);
    check(&["192.0.0.192:80"], [192, 0, 0, 192], Verdict::Allowed);
    check(&[], [203, 0, 113, 7], Verdict::Denied);
}

#[test]
fn names_match_whole_labels() {
    let policy = policy(&["pypi.example:443", "*.example.org:443"]);
    let check = |name: &str, expected: bool| assert_eq!(policy.names(name), expected, "{name}");
    check("pypi.example", true);
    check("a.pypi.example", false);
    check("notpypi.example", false);
    check("a.example.org", true);
    check("a.b.example.org", true);
    check("example.org", false);
    check("notexample.org", false);
    check(".example.org", false);
}

/// The rule for one address, told without a table.
fn naive(
    policy: &Policy,
    host: &[Blocked],
    address: Ipv4Addr,
    protocol: Protocol,
    port: u16,
) -> Verdict {
    let around = blocked::RANGES
        .iter()
        .chain(host)
        .filter(|range| range.prefix.has(address));
    let smallest = around.max_by_key(|range| range.prefix.bits());
    let allowed = policy.rules.iter().any(|rule| match rule.place {
        Place::Addresses(prefix) => {
            prefix.has(address)
                && rule.span.has(protocol, port)
                && smallest.is_none_or(|range| match range.opened {
                    Opened::Never => false,
                    Opened::Exactly => prefix == range.prefix,
                    Opened::Inside => range.prefix.bits() <= prefix.bits(),
                })
        }
        _ => false,
    });
    match (allowed, smallest) {
        (true, _) => Verdict::Allowed,
        (false, Some(_)) => Verdict::Blocked,
        (false, None) => Verdict::Denied,
    }
}

/// Addresses that are near each other and near what is blocked.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    let near = prop_oneof![
        Just([10, 0, 0, 0]),
        Just([169, 254, 169, 254]),
        Just([203, 0, 113, 8]),
        Just([172, 16, 0, 0]),
        Just([192, 0, 0, 192]),
    ];
    (near, 0..8_u32, 0..33_u32).prop_map(|(near, add, bits)| {
        let flipped = u32::from_be_bytes(near) ^ 1_u32.checked_shl(bits).unwrap_or_default();
        Ipv4Addr::from_bits(flipped.wrapping_add(add))
    })
}

fn any_rule() -> impl Strategy<Value = String> {
    (any::<bool>(), address(), 0..=32_u8, 1..6_u16, 0..3_u16).prop_map(
        |(tcp, address, bits, first, more)| {
            let protocol = if tcp { "tcp" } else { "udp" };
            format!(
                "{protocol}:{}:{first}-{}",
                Prefix::of(address, bits),
                first + more
            )
        },
    )
}

proptest! {
    #[test]
    fn the_table_says_what_the_rules_say(
        rules in proptest::collection::vec(any_rule(), 0..8),
        asked in proptest::collection::vec((address(), any::<bool>(), 1..9_u16), 1..64),
    ) {
        let rules: Vec<String> = rules.into_iter().filter(|text| rule(text).is_ok()).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let policy = policy(&rules);
        let host = [Blocked::host(Ipv4Addr::new(203, 0, 113, 9))];
        let table = policy.table(&host).unwrap();
        for (address, tcp, port) in asked {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let expected = naive(&policy, &host, address, protocol, port);
            prop_assert_eq!(table.judge(address, protocol, port), expected, "{} {}", address, port);
        }
    }

    #[test]
    fn a_rule_that_is_read_is_written_the_same(text in "(tcp:|udp:|)([a-z0-9.*/-]{1,12}|[0-9.]{7,11}):[0-9*-]{1,5}") {
        if let Ok(rule) = Rule::parse(&text) {
            prop_assert_eq!(Rule::parse(&rule.to_string()), Ok(rule));
        }
    }

    #[test]
    fn no_text_does_harm(text in ".{0,80}") {
        let _ = Rule::parse(&text);
    }
}
