//! What can be wrong with requests about sandboxes and programs in them.

use firelane_guest_proto::MAX_CODE_BYTES;
use firelane_guest_proto::message::MAX_ARGS;

use super::{at_most, content, environment, invalid, labels, path, terminal, within};
use crate::content::Content;
use crate::exec::{NewExec, SignalRequest};
use crate::file::MoveRequest;
use crate::problem::Problem;
use crate::run::{MAX_OUTPUT_BYTES, MAX_TIMEOUT_MS};
use crate::sandbox::{ForkRequest, Idle, MAX_FORKS, MAX_TTL_S, NewSandbox, SandboxPatch};

/// Least memory of a program, in MiB: an interpreter hardly starts with less.
const MIN_EXEC_MIB: u64 = 16;
/// Highest number of a signal of Linux.
const MAX_SIGNAL: u8 = 64;

impl NewSandbox {
    /// Checks every value.
    ///
    /// # Errors
    /// A [`Problem`] that names the field, what is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), Problem> {
        within("ttl_s", self.ttl_s, 1, MAX_TTL_S)?;
        self.idle.as_ref().map_or(Ok(()), idle)?;
        environment(&self.env)?;
        labels(&self.labels)
    }
}

impl SandboxPatch {
    /// Checks every value.
    ///
    /// # Errors
    /// A [`Problem`] that names the field, what is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some(ttl_s) = self.ttl_s {
            within("ttl_s", ttl_s, 1, MAX_TTL_S)?;
        }
        self.idle.as_ref().map_or(Ok(()), idle)?;
        self.labels.as_ref().map_or(Ok(()), labels)
    }
}

impl ForkRequest {
    /// Checks the number.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn check(&self) -> Result<(), Problem> {
        within("count", self.count.into(), 1, MAX_FORKS.into())
    }
}

impl NewExec {
    /// Checks every value.
    ///
    /// # Errors
    /// A [`Problem`] that names the field, what is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), Problem> {
        let is_code = self.lang.is_some();
        if is_code != self.command.is_empty() {
            let problem = invalid("command", "and lang are both there, or neither is");
            return Err(
                problem.with_remedy("name a command, or the language of code that is sent along")
            );
        }
        if !is_code && (self.code != Content::Nothing || !self.args.is_empty()) {
            let problem = invalid("code", "and args go with lang, not with command");
            return Err(problem.with_remedy("give the command its arguments in command"));
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err(invalid("command", "has a NUL byte"));
        }
        at_most("command", self.command.len(), MAX_ARGS + 1)?;
        at_most("args", self.args.len(), MAX_ARGS)?;
        content("code", &self.code, MAX_CODE_BYTES)?;
        content("stdin", &self.stdin, usize::MAX)?;
        within("output_bytes", self.output_bytes, 1, MAX_OUTPUT_BYTES)?;
        if let Some(timeout_ms) = self.timeout_ms {
            within("timeout_ms", timeout_ms, 1, MAX_TIMEOUT_MS)?;
        }
        if let Some(memory_mib) = self.memory_mib {
            within("memory_mib", memory_mib.into(), MIN_EXEC_MIB, 65_536)?;
        }
        if let Some(cwd) = &self.cwd {
            path("cwd", cwd)?;
        }
        self.pty.as_ref().map_or(Ok(()), terminal)?;
        environment(&self.env)
    }
}

impl SignalRequest {
    /// Checks the number.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn check(&self) -> Result<(), Problem> {
        within("signal", self.signal.into(), 1, MAX_SIGNAL.into())
    }
}

impl MoveRequest {
    /// Checks both paths.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn check(&self) -> Result<(), Problem> {
        path("from", &self.from)?;
        path("to", &self.to)
    }
}

fn idle(idle: &Idle) -> Result<(), Problem> {
    within("idle.after_s", idle.after_s, 1, MAX_TTL_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these fields of an exec, if anything.
    fn check_exec(fields: &str, expected: Option<&str>) {
        let exec: NewExec = serde_json::from_str(fields).expect("the form is right");
        let wrong = exec.check().err().map(|problem| problem.cause);
        assert_eq!(wrong.as_deref(), expected, "{fields}");
    }

    #[test]
    fn an_exec_is_a_command_or_code() {
        let both = Some("command and lang are both there, or neither is");
        let mixed = Some("code and args go with lang, not with command");
        check_exec(r#"{"command":["ls"]}"#, None);
        check_exec(r#"{"lang":"bash","code":"true","args":["1"]}"#, None);
        check_exec("{}", both);
        check_exec(r#"{"command":["ls"],"lang":"bash"}"#, both);
        check_exec(r#"{"command":["ls"],"code":"true"}"#, mixed);
        check_exec(r#"{"command":["ls"],"args":["1"]}"#, mixed);
        check_exec(r#"{"command":["a\u0000"]}"#, Some("command has a NUL byte"));
        check_exec(
            r#"{"command":["ls"],"timeout_ms":0}"#,
            Some("timeout_ms is 0, not from 1 to 86400000"),
        );
        check_exec(
            r#"{"command":["ls"],"cwd":"/work/../etc"}"#,
            Some("cwd goes up by '..'"),
        );
    }

    #[test]
    fn a_sandbox_lives_for_a_while() {
        let check = |fields: &str, expected: Option<&str>| {
            let sandbox: NewSandbox = serde_json::from_str(fields).expect("the form is right");
            let wrong = sandbox.check().err().map(|problem| problem.cause);
            assert_eq!(wrong.as_deref(), expected, "{fields}");
        };
        check("{}", None);
        check(r#"{"ttl_s":0}"#, Some("ttl_s is 0, not from 1 to 604800"));
        check(
            r#"{"ttl_s":604801}"#,
            Some("ttl_s is 604801, not from 1 to 604800"),
        );
        check(
            r#"{"idle":{"after_s":0,"then":"pause"}}"#,
            Some("idle.after_s is 0, not from 1 to 604800"),
        );
        check(
            r#"{"env":{"A=B":"1"}}"#,
            Some(r#"env has a variable "A=B" that cannot be"#),
        );
    }
}
