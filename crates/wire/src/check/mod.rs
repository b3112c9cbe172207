//! What can be wrong with a request beyond its form, found before anything is done.

mod sandbox;

use std::collections::BTreeMap;

use firelane_guest_proto::MAX_CODE_BYTES;
use firelane_guest_proto::message::{MAX_ARGS, MAX_ENV};

use crate::content::Content;
use crate::problem::{Code, Problem};
use crate::run::{
    BatchRequest, MAX_BATCH, MAX_FILES, MAX_LABEL_BYTES, MAX_LABELS, MAX_OUTPUT_BYTES,
    MAX_PRIORITY, MAX_TIMEOUT_MS, Pty, RunRequest,
};

/// Longest path in the guest, in bytes; `PATH_MAX` of Linux.
const MAX_PATH_BYTES: usize = 4096;

impl RunRequest {
    /// Checks every value.
    ///
    /// # Errors
    /// A [`Problem`] that names the field, what is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), Problem> {
        content("code", &self.code, MAX_CODE_BYTES)?;
        content("stdin", &self.stdin, usize::MAX)?;
        within("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT_MS)?;
        within("output_bytes", self.output_bytes, 1, MAX_OUTPUT_BYTES)?;
        if self.priority.unsigned_abs() > MAX_PRIORITY.unsigned_abs() {
            let limit = MAX_PRIORITY;
            return Err(invalid(
                "priority",
                format!("is not from -{limit} to {limit}"),
            ));
        }
        if let Some(memory_mib) = self.memory_mib {
            within("memory_mib", memory_mib.into(), 128, 65_536)?;
        }
        if let Some(deadline_ms) = self.deadline_ms {
            within("deadline_ms", deadline_ms, 1, MAX_TIMEOUT_MS)?;
        }
        at_most("args", self.args.len(), MAX_ARGS)?;
        at_most("files", self.files.len(), MAX_FILES)?;
        at_most("fetch", self.fetch.len(), MAX_FILES)?;
        for file in &self.files {
            path("files.path", &file.path)?;
            content("files.content", &file.content, usize::MAX)?;
            if file.mode > 0o777 {
                return Err(invalid("files.mode", "has bits that are not permissions"));
            }
        }
        for wanted in &self.fetch {
            path("fetch", wanted)?;
        }
        self.pty.as_ref().map_or(Ok(()), terminal)?;
        environment(&self.env)?;
        labels(&self.labels)
    }
}

impl BatchRequest {
    /// Checks every value of every run.
    ///
    /// # Errors
    /// A [`Problem`] that names the first run and field that is wrong, and what would be right.
    pub fn check(&self) -> Result<(), Problem> {
        if self.runs.is_empty() || self.runs.len() > MAX_BATCH {
            let wrong = format!("has {} entries, not 1 to {MAX_BATCH}", self.runs.len());
            return Err(invalid("runs", wrong));
        }
        for (number, run) in self.runs.iter().enumerate() {
            run.check().map_err(|problem| Problem {
                cause: format!("runs[{number}]: {}", problem.cause),
                ..problem
            })?;
        }
        Ok(())
    }
}

/// Labels that can be kept.
///
/// # Errors
/// A [`Problem`] that says what is wrong.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), Problem> {
    at_most("labels", labels.len(), MAX_LABELS)?;
    for (name, value) in labels {
        if name.is_empty() || name.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
            let wrong =
                format!("has a name or value that is empty or over {MAX_LABEL_BYTES} bytes");
            return Err(invalid("labels", wrong));
        }
    }
    Ok(())
}

/// Variables that a program can have.
///
/// # Errors
/// A [`Problem`] that says what is wrong.
pub fn environment(env: &BTreeMap<String, String>) -> Result<(), Problem> {
    at_most("env", env.len(), MAX_ENV)?;
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(
                "env",
                format!("has a variable {name:?} that cannot be"),
            ));
        }
    }
    Ok(())
}

/// A terminal that can be.
///
/// # Errors
/// A [`Problem`].
pub fn terminal(pty: &Pty) -> Result<(), Problem> {
    if pty.rows == 0 || pty.cols == 0 {
        return Err(invalid("pty", "has no lines or no columns"));
    }
    Ok(())
}

/// A path that can be one in a guest. Where it leads is the guest's to check.
///
/// # Errors
/// A [`Problem`].
pub fn path(field: &str, path: &str) -> Result<(), Problem> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(invalid(
            field,
            format!("is empty or over {MAX_PATH_BYTES} bytes"),
        ));
    }
    if path.contains('\0') {
        return Err(invalid(field, "has a NUL byte"));
    }
    if path.split('/').any(|part| part == "..") {
        let problem = invalid(field, "goes up by '..'");
        return Err(problem.with_remedy("name the file from /work, /home/user or /tmp on"));
    }
    Ok(())
}

fn content(field: &str, content: &Content, cap: usize) -> Result<(), Problem> {
    let bytes = content
        .count()
        .map_err(|error| invalid(field, format!("is {error}")))?;
    if bytes > cap {
        let cause = format!("{field} has {bytes} bytes, the most is {cap}");
        return Err(Problem::new(Code::TooLarge, cause));
    }
    Ok(())
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), Problem> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(
        field,
        format!("is {value}, not from {least} to {most}"),
    ))
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), Problem> {
    if count <= most {
        return Ok(());
    }
    Err(invalid(
        field,
        format!("has {count} entries, the most is {most}"),
    ))
}

fn invalid(field: &str, wrong: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Invalid, format!("{field} {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &str, wrong: Option<&str>) {
        let json = format!(r#"{{"lang":"bash","code":"true"{fields}}}"#);
        let request: RunRequest = serde_json::from_str(&json).expect("its form is right");
        let cause = request.check().err().map(|problem| problem.cause);
        match (&cause, wrong) {
            (None, None) => {}
            (Some(cause), Some(wrong)) => assert!(cause.contains(wrong), "{cause}"),
            _ => panic!("{fields}: {cause:?}, not {wrong:?}"),
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_its_bounds() {
        check("", None);
        check(
            r#","timeout_ms":0"#,
            Some("timeout_ms is 0, not from 1 to 86400000"),
        );
        check(
            r#","output_bytes":16777217"#,
            Some("output_bytes is 16777217"),
        );
        check(
            r#","priority":-101"#,
            Some("priority is not from -100 to 100"),
        );
        check(r#","priority":-128"#, Some("priority"));
        check(r#","stdin":{"base64":"!"}"#, Some("stdin is not base64"));
        check(r#","env":{"A=B":"c"}"#, Some("variable \"A=B\""));
        check(r#","labels":{"":"c"}"#, Some("labels has a name"));
        check(r#","pty":{"rows":0,"cols":80}"#, Some("pty has no lines"));
        check(r#","deadline_ms":0"#, Some("deadline_ms"));
    }

    #[test]
    fn paths_do_not_go_up_and_have_no_end_inside() {
        check(r#","fetch":["a/b"]"#, None);
        check(r#","fetch":["..a/b.."]"#, None);
        check(r#","fetch":["../etc/passwd"]"#, Some("fetch goes up"));
        check(r#","fetch":["/work/a/../../etc"]"#, Some("fetch goes up"));
        check(r#","fetch":["a\u0000b"]"#, Some("fetch has a NUL byte"));
        check(r#","fetch":[""]"#, Some("fetch is empty"));
        check(
            r#","files":[{"path":"..","content":""}]"#,
            Some("files.path goes up"),
        );
        check(
            r#","files":[{"path":"a","content":"","mode":2048}]"#,
            Some("files.mode"),
        );
    }

    #[test]
    fn memory_has_bounds() {
        check(r#","memory_mib":128"#, None);
        check(
            r#","memory_mib":1"#,
            Some("memory_mib is 1, not from 128 to 65536"),
        );
    }

    #[test]
    fn code_has_a_cap() {
        let request = RunRequest {
            code: Content::Text("x".repeat(MAX_CODE_BYTES + 1)),
            ..serde_json::from_str(r#"{"lang":"bash","code":""}"#).expect("its form is right")
        };
        let problem = request.check().expect_err("it is too large");
        assert_eq!(problem.code, Code::TooLarge);
    }
}
