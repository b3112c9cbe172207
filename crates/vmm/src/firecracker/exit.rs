//! What Firecracker's exit codes mean.
//!
//! Source: Firecracker, `src/vmm/src/lib.rs`, `FcExitCode`, v1.16.1.

use crate::driver::Death;

/// The death with its exit code explained.
pub(super) fn explain(death: Death) -> Death {
    let code = death.status.strip_prefix("exit code ");
    match code.and_then(|code| meaning(code.parse().ok()?)) {
        Some(meaning) => Death {
            status: format!("{} ({meaning})", death.status),
            ..death
        },
        None => death,
    }
}

fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        0 => "the guest ended the microVM",
        1 => "an error that it told",
        2 => "an error that it did not expect",
        148 => "a system call that its filter forbids",
        149 => "SIGBUS",
        150 => "SIGSEGV",
        151 => "SIGXFSZ: a file became too large",
        152 => "a configuration that it does not accept",
        153 => "arguments that it does not accept",
        154 => "SIGXCPU",
        155 => "SIGPIPE",
        156 => "SIGHUP",
        157 => "SIGILL",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_explained_and_signals_are_left() {
        let check = |status: &str, expected: &str| {
            let death = Death {
                status: status.into(),
                stderr: String::new(),
                console: String::new(),
            };
            assert_eq!(explain(death).status, expected);
        };
        check(
            "exit code 148",
            "exit code 148 (a system call that its filter forbids)",
        );
        check("exit code 77", "exit code 77");
        check("signal 9", "signal 9");
    }
}
