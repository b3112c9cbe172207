//! How the command fails: one line with the cause and the remedy, and a documented exit code.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | the program's own | it ran |
//! | 2 | wrong usage: nothing was started |
//! | 124 | the program's time limit ended it |
//! | 125 | Firelane itself failed |
//! | 127 | the template has no interpreter for the language |
//! | 130 | interrupted by Ctrl-C; 143 by SIGTERM |
//! | 137 | the program was killed, or its memory limit ended it |
//! | 128 + n | signal n ended the program |
//! | 141 | nobody reads our output any more |

use std::process::ExitCode;

use firelane_agent::clone::CloneError;
use firelane_agent::follow::FollowError;
use firelane_agent::network::OpenError;
use firelane_agent::snapshot::MakeError;
use firelane_client::ClientError;
use firelane_guest_proto::message::{EXIT_NO_INTERPRETER, RefusedCode};
use firelane_image::signing::KeyError;
use firelane_image::{BuildError, DefinitionError, StoreError};
use firelane_vmm::driver::BootError;
use firelane_vmm::session::SessionError;
use firelane_wire::problem::{Code, causes};

/// Exit code when Firelane itself failed.
pub(crate) const PLATFORM: u8 = 125;
/// Exit code of wrong usage; clap uses the same.
pub(crate) const USAGE: u8 = 2;

/// Why the command did not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// Wrong usage, with what is wrong and the remedy in the message.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: USAGE,
            message: message.into(),
            remedy: None,
        }
    }

    /// Firelane itself failed.
    pub(crate) fn platform(error: impl Into<anyhow::Error>) -> Failure {
        let error: anyhow::Error = error.into();
        Failure {
            code: PLATFORM,
            message: causes(error.as_ref()),
            remedy: None,
        }
    }

    /// A signal asked us to end.
    pub(crate) fn interrupted(signal: i32) -> Failure {
        let code = u8::try_from(128 + signal).unwrap_or(PLATFORM);
        Failure {
            code,
            message: "interrupted; nothing of it is left running".into(),
            remedy: None,
        }
    }

    /// Nobody reads our output: not worth a word.
    pub(crate) fn broken_pipe() -> Failure {
        Failure {
            code: 141,
            message: String::new(),
            remedy: None,
        }
    }

    /// The same with a remedy.
    pub(crate) fn with_remedy(self, remedy: impl Into<String>) -> Failure {
        Failure {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// What is wrong, without its remedy.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on stderr; gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            let remedy = self
                .remedy
                .as_ref()
                .map_or_else(String::new, |remedy| format!("; remedy: {remedy}"));
            // A guest may have worded a part of it: nothing of it may steer a terminal.
            let message: String = self
                .message
                .chars()
                .filter(|c| !c.is_control() || *c == '\n')
                .collect();
            eprintln!("firelane: {message}{remedy}");
        }
        ExitCode::from(self.code)
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Failure {
        let remedy = error.remedy();
        Failure {
            remedy,
            ..Failure::platform(error)
        }
    }
}

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Failure {
        let remedy = error.remedy();
        Failure {
            remedy,
            ..Failure::platform(error)
        }
    }
}

impl From<CloneError> for Failure {
    fn from(error: CloneError) -> Failure {
        match error {
            CloneError::Network(error) => error.into(),
            _ => Failure::platform(error).with_remedy("boot without a snapshot: --cold"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let remedy = error.remedy().map(String::from);
        let code = match error {
            OpenError::Resolvers { .. } => USAGE,
            _ => PLATFORM,
        };
        Failure {
            remedy,
            code,
            ..Failure::platform(error)
        }
    }
}

impl From<FollowError<Failure>> for Failure {
    fn from(error: FollowError<Failure>) -> Failure {
        match error {
            FollowError::Sink(failure) => failure,
            FollowError::Session(error) => error.into(),
            FollowError::Died(_) | FollowError::Overdue(_) | FollowError::TooMuch(_) => {
                Failure::platform(anyhow::anyhow!(causes(&error)))
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Connect { .. } => {
                Failure::platform(error).with_remedy("start it: firelane serve")
            }
            ClientError::Refused(problem) => {
                let remedy = problem.remedy.clone();
                let code = match problem.code {
                    Code::Invalid | Code::NotFound | Code::TooLarge => USAGE,
                    Code::NoInterpreter => u8::try_from(EXIT_NO_INTERPRETER).unwrap_or(PLATFORM),
                    _ => PLATFORM,
                };
                Failure {
                    code,
                    remedy,
                    ..Failure::platform(problem)
                }
            }
            _ => Failure::platform(error),
        }
    }
}

impl From<DefinitionError> for Failure {
    fn from(error: DefinitionError) -> Failure {
        Failure {
            code: USAGE,
            ..Failure::platform(error)
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        let remedy = error.remedy();
        Failure {
            remedy,
            ..Failure::platform(error)
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let remedy = error.remedy();
        let code = match error {
            StoreError::NotFound { .. } | StoreError::BadName { .. } => USAGE,
            _ => PLATFORM,
        };
        Failure {
            remedy,
            code,
            ..Failure::platform(error)
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        let remedy = error.remedy();
        let code = match error {
            KeyError::NotAKey { .. } | KeyError::Exists { .. } => USAGE,
            _ => PLATFORM,
        };
        Failure {
            remedy,
            code,
            ..Failure::platform(error)
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        let code = match &error {
            SessionError::Refused(refused) => match refused.code {
                RefusedCode::NoInterpreter => u8::try_from(EXIT_NO_INTERPRETER).unwrap_or(PLATFORM),
                RefusedCode::Invalid | RefusedCode::Confined => USAGE,
                _ => PLATFORM,
            },
            SessionError::TooLarge => USAGE,
            _ => PLATFORM,
        };
        let remedy = (code == 127).then(|| "use a template that has it, such as default".into());
        Failure {
            code,
            remedy,
            ..Failure::platform(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_is_told_once() {
        let error =
            anyhow::Error::from(std::io::Error::other("disk on fire")).context("cannot write");
        assert_eq!(
            Failure::platform(error).message,
            "cannot write: disk on fire"
        );
    }
}
