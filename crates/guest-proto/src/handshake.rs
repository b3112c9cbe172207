//! The line exchange that opens a connection from host to guest on a Unix socket.
//!
//! The host sends `CONNECT <port>\n`; once the guest accepted, `OK <n>\n` comes back and every
//! later byte belongs to the connection. A refused connection is closed without an answer.
//! Source: Firecracker, `docs/vsock.md`, "Host-Initiated Connections" (v1.16.1).

use alloc::string::String;

/// Longest line of the handshake in bytes, newline included: `CONNECT 4294967295\n` is 19.
pub const MAX_LINE_BYTES: usize = 32;

/// A handshake line that does not have the expected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("handshake line is not '{expected}'")]
pub struct BadLine {
    expected: &'static str,
}

/// The line that asks for a connection to `port`.
#[must_use]
pub fn connect_line(port: u32) -> String {
    alloc::format!("CONNECT {port}\n")
}

/// The line that confirms a connection; `local_port` is the host side's port number.
#[must_use]
pub fn ok_line(local_port: u32) -> String {
    alloc::format!("OK {local_port}\n")
}

/// Reads a `CONNECT <port>\n` line.
///
/// # Errors
/// [`BadLine`] if the line has any other form.
pub fn parse_connect(line: &[u8]) -> Result<u32, BadLine> {
    parse(line, "CONNECT ", "CONNECT <port>")
}

/// Reads an `OK <n>\n` line.
///
/// # Errors
/// [`BadLine`] if the line has any other form.
pub fn parse_ok(line: &[u8]) -> Result<u32, BadLine> {
    parse(line, "OK ", "OK <n>")
}

fn parse(line: &[u8], prefix: &str, expected: &'static str) -> Result<u32, BadLine> {
    let number = line
        .strip_suffix(b"\n")
        .and_then(|line| line.strip_prefix(prefix.as_bytes()))
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| core::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok());
    number.ok_or(BadLine { expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip_and_nothing_else_parses() {
        assert_eq!(
            parse_connect(connect_line(u32::MAX).as_bytes()),
            Ok(u32::MAX)
        );
        assert_eq!(parse_ok(ok_line(1073741824).as_bytes()), Ok(1073741824));
        assert!(connect_line(u32::MAX).len() <= MAX_LINE_BYTES);
        for bad in [
            "",
            "\n",
            "CONNECT \n",
            "CONNECT 5000",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "OK 1\n",
        ] {
            assert!(parse_connect(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
