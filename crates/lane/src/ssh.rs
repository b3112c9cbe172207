//! Over SSH: the system's `ssh` by one connection that all commands share, and `rsync` beside it.
//!
//! The settings of a lane are a file of its own, `ssh_config`, and nothing else is read: no user's
//! settings and no known hosts of others, so an address that was another machine's before does no
//! harm. People can use the file too: `ssh -F FILE firelane-LABEL`. Where the lane planted no keys
//! (`existing`), it is the user's own settings, keys and known hosts that count.
//!
//! No connection outlives its use by more than a minute, even if we are killed.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::access::{Access, Command, Door, Host, HostError, Keys, MOST_OUTPUT, Output};
use crate::identity::{self, KEY, KNOWN_HOSTS};

/// Settings of a lane.
pub const CONFIG: &str = "ssh_config";
/// How long a machine may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a login may take in all.
const LOGIN: Duration = Duration::from_secs(40);
/// How long a connection is kept when nothing uses it.
const IDLE_SECONDS: NonZeroUsize = NonZeroUsize::new(60).expect("not zero");

/// Writes the settings of a lane; gives their file.
pub fn write_config(door: &Door) -> io::Result<PathBuf> {
    let path = door.folder.join(CONFIG);
    // Written aside: a command of another process may be reading it.
    let aside = door.folder.join(format!("{CONFIG}.new"));
    fs::write(&aside, config(door))?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

/// The settings of a lane. See ssh_config(5).
fn config(door: &Door) -> String {
    let alias = identity::alias(&door.label);
    let mut lines = vec![
        format!("HostName {}", door.address),
        format!("Port {}", door.port),
        "BatchMode yes".to_owned(),
        format!("ConnectTimeout {}", CONNECT.as_secs()),
        // A host that is rebooted, or an answer of four minutes: 30 s, 240 times, is two hours.
        "ServerAliveInterval 30".to_owned(),
        "ServerAliveCountMax 240".to_owned(),
        "StrictHostKeyChecking yes".to_owned(),
    ];
    lines.extend(door.login.iter().map(|login| format!("User {login}")));
    match &door.keys {
        Keys::Planted => {
            let quoted = |name| format!("\"{}\"", door.folder.join(name).display());
            lines.extend([
                format!("HostKeyAlias {alias}"),
                format!("UserKnownHostsFile {}", quoted(KNOWN_HOSTS)),
                "GlobalKnownHostsFile /dev/null".to_owned(),
                format!("IdentityFile {}", quoted(KEY)),
                "IdentitiesOnly yes".to_owned(),
                "PasswordAuthentication no".to_owned(),
            ]);
        }
        Keys::Own {
            identity,
            known_hosts,
        } => {
            let line = |name, path: &String| format!("{name} \"{path}\"");
            lines.extend(identity.iter().map(|path| line("IdentityFile", path)));
            lines.extend(
                known_hosts
                    .iter()
                    .map(|path| line("UserKnownHostsFile", path)),
            );
        }
    }
    let mut text = format!("Host {alias}\n");
    for line in lines {
        text.push_str("    ");
        text.push_str(&line);
        text.push('\n');
    }
    if door.keys != Keys::Planted {
        text.push_str("Include ~/.ssh/config\n");
    }
    text
}

/// SSH, as a way in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ssh;

#[async_trait]
impl Access for Ssh {
    async fn open(&self, door: &Door) -> Result<Box<dyn Host>, HostError> {
        if let Some(text) = strange(door) {
            return Err(HostError::Failed {
                what: "the settings of the login".into(),
                cause: format!("{text:?} cannot be a part of them"),
            });
        }
        let config = write_config(door).map_err(|error| HostError::Failed {
            what: format!("cannot write {} to {}", CONFIG, door.folder.display()),
            cause: error.to_string(),
        })?;
        let mut builder = SessionBuilder::default();
        builder
            .config_file(&config)
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(CONNECT)
            .control_directory(std::env::temp_dir())
            .control_persist(ControlPersist::IdleFor(IDLE_SECONDS));
        let session = match timeout(LOGIN, builder.connect(identity::alias(&door.label))).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return Err(refused(door, &error)),
            Err(_) => {
                return Err(HostError::Late {
                    what: format!("the login at {}", door.address),
                    after: LOGIN,
                });
            }
        };
        Ok(Box::new(OverSsh {
            session,
            config,
            alias: identity::alias(&door.label),
        }))
    }
}

/// What would be more than one value in the file of settings.
fn strange(door: &Door) -> Option<&str> {
    let own = match &door.keys {
        Keys::Planted => [None, None],
        Keys::Own {
            identity,
            known_hosts,
        } => [identity.as_deref(), known_hosts.as_deref()],
    };
    let login = door.login.as_deref();
    let is_word = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let is_path = |text: &str| !text.contains(|c: char| c.is_control() || c == '"');
    let login = login.filter(|login| !is_word(login) || login.starts_with('-'));
    login.or_else(|| own.into_iter().flatten().find(|path| !is_path(path)))
}

fn refused(door: &Door, error: &openssh::Error) -> HostError {
    let cause = causes(error);
    let address = format!("{}:{}", door.address, door.port);
    if cause.contains("Host key verification failed") || cause.contains("host key") {
        HostError::WrongKey { address, cause }
    } else {
        HostError::Unreachable { address, cause }
    }
}

/// A connection.
struct OverSsh {
    session: Session,
    config: PathBuf,
    alias: String,
}

#[async_trait]
impl Host for OverSsh {
    async fn run(&self, command: &Command) -> Result<Output, HostError> {
        let what = command.words.join(" ");
        let ended = timeout(command.deadline, self.carry_out(command)).await;
        match ended {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(Broken::Off(cause))) => Err(HostError::Unreachable {
                address: self.alias.clone(),
                cause,
            }),
            Ok(Err(Broken::Failed(cause))) => Err(HostError::Failed { what, cause }),
            Err(_) => Err(HostError::Late {
                what,
                after: command.deadline,
            }),
        }
    }

    async fn send(&self, from: &Path, to: &str, deadline: Duration) -> Result<(), HostError> {
        let what = format!("rsync of {} to {to}", from.display());
        let shell = format!(
            "ssh -F '{}' -S '{}'",
            self.config.display(),
            self.session.control_socket().display()
        );
        let mut rsync = tokio::process::Command::new("rsync");
        rsync
            .args([
                "--archive",
                "--delete",
                "--compress",
                "--partial",
                "--rsync-path=sudo -n rsync",
                "--no-owner",
                "--no-group",
                "--rsh",
            ])
            .arg(shell)
            .arg("--")
            // With a slash at the end: what is in it, and not the folder itself.
            .arg(from.join(""))
            .arg(format!("{}:{to}/", self.alias))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let failed = |cause: String| HostError::Failed {
            what: what.clone(),
            cause,
        };
        let Ok(ended) = timeout(deadline, rsync.output()).await else {
            let after = deadline;
            return Err(HostError::Late { what, after });
        };
        let ended = ended.map_err(|error| failed(error.to_string()))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        Err(failed(format!("{}: {said}", ended.status)))
    }
}

/// Why a command did not come to its end.
enum Broken {
    /// The connection.
    Off(String),
    /// Anything else.
    Failed(String),
}

impl From<openssh::Error> for Broken {
    fn from(error: openssh::Error) -> Self {
        use openssh::Error::{Connect, Disconnected, Master, RemoteProcessTerminated};

        let cause = causes(&error);
        match error {
            Disconnected | RemoteProcessTerminated | Master(_) | Connect(_) => Self::Off(cause),
            _ => Self::Failed(cause),
        }
    }
}

impl OverSsh {
    async fn carry_out(&self, command: &Command) -> Result<Output, Broken> {
        let words = ["sudo", "-n", "--"].map(str::to_owned);
        let words = if command.root { &words[..] } else { &[] };
        let mut words = words.iter().chain(&command.words);
        let program = words
            .next()
            .ok_or_else(|| Broken::Failed("no program".into()))?;
        let mut remote = self.session.command(program);
        remote
            .args(words)
            .stdin(openssh::Stdio::piped())
            .stdout(openssh::Stdio::piped())
            .stderr(openssh::Stdio::piped());
        let mut child = remote.spawn().await?;
        let stdin = child.stdin().take();
        let (stdout, stderr) = (child.stdout().take(), child.stderr().take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that ends without reading all of it says why in its outcome.
                let _ = stdin.write_all(&command.input).await;
            }
        };
        let (ended, (), stdout, stderr) =
            tokio::join!(child.wait(), feed, collect(stdout), collect(stderr));
        let code = match ended {
            Ok(status) => status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            // As a shell says that there is no such program.
            Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => 127,
            Err(error) => return Err(error.into()),
        };
        let failed = |error: io::Error| Broken::Failed(error.to_string());
        Ok(Output {
            code,
            stdout: stdout.map_err(failed)?,
            stderr: stderr.map_err(failed)?,
        })
    }
}

/// The first [`MOST_OUTPUT`] bytes; the rest is read and dropped, so that the program can end.
async fn collect(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match pipe.read(&mut buffer).await? {
            0 => return Ok(kept),
            count => {
                let room = MOST_OUTPUT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
    }
}

/// An error with its causes, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace(['\r', '\n'], " ")
}
