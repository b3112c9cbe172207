//! Data on stdout, for whoever still reads it.

use std::fmt::Display;
use std::io::{self, Write};

use crate::failure::Failure;

/// Writes one line, or several, to stdout.
pub(crate) fn say(text: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::broken_pipe()),
        written => written.map_err(Failure::platform),
    }
}
