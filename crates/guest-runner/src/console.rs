//! What the guest-runner has to say for itself, on the serial console.

use std::error::Error;

/// Writes one line to the console. There is nobody to tell if that fails.
pub(crate) fn log(message: &str) {
    eprintln!("firelane-guest: {message}");
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
