//! Machines that are made up: what they answer to the commands of a lane.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use firelane_lane::access::{Access, Command, Door, Host, HostError, Output};

use super::faults::{Fault, Faults};

/// What is wrong with every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// SSH never answers.
    Silent,
    /// It shows another key.
    WrongKey,
    /// cloud-init fails.
    CloudInitFails,
    /// cloud-init never ends.
    CloudInitHangs,
    /// It has no KVM.
    NoKvm,
    /// Its disk is full.
    DiskFull,
    /// A service crashes again and again.
    ServiceFails,
    /// Everything is installed, and nothing works.
    ChecksFail,
}

/// The way in.
#[derive(Clone, Default)]
pub struct SimulatedAccess {
    faults: Faults,
    trouble: Arc<Mutex<Trouble>>,
}

impl SimulatedAccess {
    /// With these faults.
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            trouble: Arc::default(),
        }
    }

    /// From now on this is wrong with every machine.
    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn trouble(&self) -> Trouble {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fault(&self, call: &str) -> Result<(), HostError> {
        let unreachable = || HostError::Unreachable {
            address: "192.0.2.1:22".into(),
            cause: "connection reset".into(),
        };
        match self.faults.next(call) {
            // A command that arrives twice does so by SSH, which does not let that happen.
            None | Some(Fault::Twice) => Ok(()),
            Some(Fault::KilledBefore | Fault::KilledAfter) => self.faults.die().await,
            Some(Fault::Refused) => Err(HostError::Failed {
                what: call.into(),
                cause: "refused".into(),
            }),
            Some(Fault::Throttled | Fault::Lost | Fault::AnswerLost) => Err(unreachable()),
        }
    }
}

#[async_trait]
impl Access for SimulatedAccess {
    async fn open(&self, door: &Door) -> Result<Box<dyn Host>, HostError> {
        self.fault("open").await?;
        let address = format!("{}:{}", door.address, door.port);
        let cause = "as it was told".to_owned();
        match self.trouble() {
            Trouble::Silent => Err(HostError::Unreachable { address, cause }),
            Trouble::WrongKey => Err(HostError::WrongKey { address, cause }),
            _ => Ok(Box::new(self.clone())),
        }
    }
}

#[async_trait]
impl Host for SimulatedAccess {
    async fn run(&self, command: &Command) -> Result<Output, HostError> {
        self.fault("run").await?;
        Ok(answer(self.trouble(), command))
    }

    async fn send(&self, from: &Path, _: &str, _: Duration) -> Result<(), HostError> {
        self.fault("send").await?;
        assert!(from.join("plan").is_file(), "what is sent is whole");
        if self.trouble() == Trouble::DiskFull {
            return Err(HostError::Failed {
                what: "rsync".into(),
                cause: "No space left on device (28)".into(),
            });
        }
        Ok(())
    }
}

fn answer(trouble: Trouble, command: &Command) -> Output {
    let words: Vec<_> = command.words.iter().map(String::as_str).collect();
    match words[..] {
        ["true"] | ["test", ..] | ["install", ..] => ended(0, ""),
        ["cat", "/run/firelane/prepare.json"] => match trouble {
            Trouble::NoKvm => ended(
                0,
                r#"{"step":"kvm","status":"failed","kvm":"absent","cause":"there is no /dev/kvm"}"#,
            ),
            Trouble::CloudInitFails | Trouble::CloudInitHangs => ended(1, ""),
            _ => ended(0, r#"{"step":"done","status":"ready","kvm":"usable"}"#),
        },
        ["cloud-init", ..] => match trouble {
            Trouble::CloudInitFails => ended(
                1,
                r#"{"status":"error","errors":["a package cannot be found"]}"#,
            ),
            _ => ended(0, r#"{"status":"running","detail":"modules"}"#),
        },
        ["tail", ..] => ended(0, "E: Unable to locate package"),
        ["sh", script, _] if script.ends_with("install.sh") => match trouble {
            Trouble::ServiceFails => ended(
                1,
                "step: start firelane.service\nfirelane.service has failed",
            ),
            _ => ended(0, "step: ready"),
        },
        ["sh", "-s"] if trouble == Trouble::ChecksFail => ended(1, "it does not answer"),
        ["sh", "-s"] => ended(0, "it works"),
        _ => panic!("no machine of ours is asked {words:?}"),
    }
}

fn ended(code: i32, stdout: &str) -> Output {
    Output {
        code,
        stdout: stdout.into(),
        stderr: Vec::new(),
    }
}
