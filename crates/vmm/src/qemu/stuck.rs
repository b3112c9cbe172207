//! Where a guest stands that was not ready in time, for whoever looks for the reason: one that computes and one that
//! sleeps for ever look the same from outside, and its console is silent in both cases.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::qmp::{Qmp, QmpError};

/// How long its VMM may take to tell.
const LIMIT: Duration = Duration::from_secs(2);
/// Digits of an address.
const ADDRESS_DIGITS: usize = 16;

/// What the VMM says of it, or why nothing.
pub(super) async fn seen(monitor: &mut Qmp) -> String {
    match timeout(LIMIT, look(monitor)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => format!("not known: {error}"),
        Err(_) => format!("not known: the VMM does not answer within {LIMIT:?}"),
    }
}

async fn look(monitor: &mut Qmp) -> Result<String, QmpError> {
    let status = monitor.command("query-status").await?;
    let registers = json!({ "command-line": "info registers -a" });
    let registers = monitor
        .command_with("human-monitor-command", &registers)
        .await?;
    Ok(told(&status, registers.as_str().unwrap_or_default()))
}

/// The machine's state, and of each processor the address of its next instruction, and whether it sleeps. Source: QEMU,
/// `target/i386/cpu-dump.c`, `x86_cpu_dump_state`.
fn told(status: &Value, registers: &str) -> String {
    let status = status["status"].as_str().unwrap_or("unknown");
    let processors = registers
        .split("CPU#")
        .skip(1)
        .enumerate()
        .filter_map(|(number, text)| {
            let at = word(text, "RIP=")?;
            // A guest chooses what its registers hold, and nothing else of this.
            let is_address =
                at.len() <= ADDRESS_DIGITS && at.bytes().all(|byte| byte.is_ascii_hexdigit());
            let sleeps = if word(text, "HLT=") == Some("1") {
                ", asleep"
            } else {
                ""
            };
            is_address.then(|| format!("\nprocessor {number}: at 0x{at}{sleeps}"))
        });
    format!("machine: {status}{}", processors.collect::<String>())
}

/// What follows `name` up to the next space.
fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_by_where_they_are_and_whether_they_sleep() {
        let registers = "\r\nCPU#0\r\nRAX=0000000000000001 RBX=00\r\nR14=0 R15=0\r\n\
            RIP=ffffffff81a0b2c4 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
            \r\nCPU#1\r\nRIP=00007f0000001000 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n";
        let told = |registers| told(&json!({"status": "running"}), registers);
        assert_eq!(
            told(registers),
            "machine: running\nprocessor 0: at 0xffffffff81a0b2c4, asleep\nprocessor 1: at 0x00007f0000001000"
        );
        for strange in [
            "",
            "CPU#0\nRIP=",
            "CPU#0\nRIP=\u{1b}[31m HLT=1",
            "CPU#0 RIP=00112233445566778",
        ] {
            assert_eq!(told(strange), "machine: running", "{strange:?}");
        }
    }
}
