//! The link of one machine: a veth pair between this machine and a network namespace.
//!
//! Pairs are numbered. Number N is `fl-N` here with the address 10.213.x.y, and `host0` in the namespace
//! with the next one, of a network of four addresses (RFC 1918). The kernel refuses a second `fl-N`, so
//! that a number is taken by making the link.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::tool::{Failed, run};

/// Numbers that there are: 10.213.0.0/16 in networks of four.
const NUMBERS: u16 = 1 << 14;
const DEADLINE: Duration = Duration::from_secs(20);

/// Address of the machine with this number.
pub(super) fn address(number: u16) -> String {
    dotted(number, 2)
}

fn dotted(number: u16, last: u32) -> String {
    let [_, _, high, low] = (u32::from(number) * 4 + last).to_be_bytes();
    format!("10.213.{high}.{low}")
}

/// Makes a namespace with this name, and a link into it; gives its number.
pub(super) fn make(name: &str) -> Result<u16, Failed> {
    ip(&["netns", "add", name])?;
    let number = (0..NUMBERS)
        .filter(|number| !Path::new(&format!("/sys/class/net/fl-{number}")).exists())
        .find_map(|number| match link(name, number) {
            Ok(()) => Some(Ok(number)),
            // Somebody else took it in the meantime.
            Err(_) if Path::new(&format!("/sys/class/net/fl-{number}")).exists() => None,
            Err(error) => Some(Err(error)),
        });
    let number = number.ok_or_else(|| Failed::State("all links are in use".into()))??;
    let outside = format!("fl-{number}");
    ip(&[
        "address",
        "add",
        &format!("{}/30", dotted(number, 1)),
        "dev",
        &outside,
    ])?;
    ip(&["link", "set", &outside, "up"])?;
    let inside = format!("{}/30", address(number));
    ip(&["-n", name, "address", "add", &inside, "dev", "host0"])?;
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    ip(&["-n", name, "link", "set", "host0", "up"])?;
    Ok(number)
}

fn link(name: &str, number: u16) -> Result<(), Failed> {
    let outside = format!("fl-{number}");
    let words = [
        "link", "add", &outside, "type", "veth", "peer", "name", "host0", "netns", name,
    ];
    ip(&words)
}

/// Removes a namespace, and with it the link. One that is not there is fine.
pub(super) fn remove(name: &str) -> Result<(), Failed> {
    if !Path::new("/run/netns").join(name).exists() {
        return Ok(());
    }
    ip(&["netns", "delete", name])
}

fn ip(words: &[&str]) -> Result<(), Failed> {
    run(Command::new("ip").args(words), DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_four_addresses_of_its_own() {
        assert_eq!(
            (dotted(0, 1), address(0)),
            ("10.213.0.1".into(), "10.213.0.2".into())
        );
        assert_eq!(address(64), "10.213.1.2");
        assert_eq!(address(NUMBERS - 1), "10.213.255.254");
    }
}
