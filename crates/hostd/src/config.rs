//! What hostd is told when it is started, and by nobody after.

use std::path::PathBuf;

use firelane_host_proto::SOCKET;
use firelane_launch::{firecracker, qemu};

/// What `--help` says.
pub const USAGE: &str = "\
usage: firelane-hostd [OPTION VALUE]...

Starts microVMs in their jails for the members of a group. Has to be root.

  --socket PATH        where it listens (/run/firelane/hostd.sock)
  --group NAME         who may connect: members of this group, by name or number (firelane)
  --run-dir PATH       folder of the run directories (/run/firelane)
  --audit PATH         a line of JSON for each operation is appended there, and goes to stderr
  --qemu PATH          QEMU (FIRELANE_QEMU, else the one on PATH)
  --firecracker PATH   Firecracker (FIRELANE_FIRECRACKER, else the one on PATH, if there is one)
  --clients N          connections at once (1024); half of them for one user
  --microvms N         microVMs at once (1024)
  --memory-mib N       largest guest (65536)
  --vcpus N            most virtual processors of one (32)
  --max-microvms-per-user N    microVMs at once of one user (no bound of its own)
  --max-memory-mib-per-user N  memory of all guests of one user (no bound)";

pub(crate) const MICROVMS_PER_USER: &str = "--max-microvms-per-user";
pub(crate) const MEMORY_PER_USER: &str = "--max-memory-mib-per-user";

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub socket: PathBuf,
    /// Whose members may connect: a name of `/etc/group`, or a number.
    pub group: String,
    /// Folder of the run directories.
    pub run_base: PathBuf,
    /// Where the audit goes beside stderr.
    pub audit: Option<PathBuf>,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// Firecracker's, if it is to be started.
    pub firecracker: Option<PathBuf>,
    /// Most connections at once.
    pub clients: u32,
    /// Most microVMs at once.
    pub microvms: u32,
    /// Largest guest, in MiB.
    pub memory_mib: u32,
    /// Most virtual processors of one guest.
    pub vcpus: u32,
    /// Most microVMs of one user at once, if that is bounded.
    pub microvms_per_user: Option<u32>,
    /// Memory of all guests of one user, in MiB, if that is bounded.
    pub memory_mib_per_user: Option<u32>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            socket: SOCKET.into(),
            group: "firelane".into(),
            run_base: "/run/firelane".into(),
            audit: None,
            qemu: qemu::default_program(),
            firecracker: firecracker::default_program(),
            clients: 1024,
            microvms: 1024,
            memory_mib: 65536,
            vcpus: 32,
            microvms_per_user: None,
            memory_mib_per_user: None,
        }
    }
}

/// The options cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such option.
    #[error("there is no option '{0}'")]
    Unknown(String),
    /// It has no value behind it.
    #[error("{0} needs a value")]
    NoValue(String),
    /// Its value is no number above 0.
    #[error("{option}: '{value}' is no number above 0")]
    NoNumber {
        /// Which option.
        option: String,
        /// What stands there.
        value: String,
    },
    /// Its value is no absolute path.
    #[error("{option}: '{value}' is no absolute path")]
    NotAbsolute {
        /// Which option.
        option: String,
        /// What stands there.
        value: String,
    },
}

impl Config {
    /// Reads the arguments, the program's name excluded.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut args = args.into_iter();
        while let Some(option) = args.next() {
            let known = USAGE.contains(&format!("\n  {option} "));
            if !known || !option.starts_with("--") {
                return Err(ConfigError::Unknown(option));
            }
            let Some(value) = args.next() else {
                return Err(ConfigError::NoValue(option));
            };
            match option.as_str() {
                "--socket" => config.socket = path(&option, value)?,
                "--group" => config.group = value,
                "--run-dir" => config.run_base = path(&option, value)?,
                "--audit" => config.audit = Some(path(&option, value)?),
                "--qemu" => config.qemu = path(&option, value)?,
                "--firecracker" => config.firecracker = Some(path(&option, value)?),
                "--clients" => config.clients = number(&option, value)?,
                "--microvms" => config.microvms = number(&option, value)?,
                "--memory-mib" => config.memory_mib = number(&option, value)?,
                "--vcpus" => config.vcpus = number(&option, value)?,
                MICROVMS_PER_USER => config.microvms_per_user = Some(number(&option, value)?),
                MEMORY_PER_USER => config.memory_mib_per_user = Some(number(&option, value)?),
                _ => return Err(ConfigError::Unknown(option)),
            }
        }
        Ok(config)
    }
}

fn path(option: &str, value: String) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(ConfigError::NotAbsolute {
            option: option.into(),
            value,
        }),
    }
}

fn number(option: &str, value: String) -> Result<u32, ConfigError> {
    match value.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(ConfigError::NoNumber {
            option: option.into(),
            value,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, ConfigError> {
        Config::parse(args.iter().map(ToString::to_string))
    }

    #[test]
    fn every_option_of_the_usage_is_read() {
        let options = USAGE.lines().filter_map(|line| line.strip_prefix("  --"));
        let names: Vec<&str> = options
            .filter_map(|line| line.split_ascii_whitespace().next())
            .collect();
        assert_eq!(names.len(), 12);
        for name in names {
            let option = format!("--{name}");
            let value = if USAGE.contains(&format!("{option} PATH")) {
                "/x"
            } else {
                "7"
            };
            let config = parse(&[&option, value]).unwrap();
            assert_ne!(config, Config::default(), "{option}");
        }
        assert_eq!(parse(&[]), Ok(Config::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |args: &[&str], expected| assert_eq!(parse(args), Err(expected), "{args:?}");
        check(&["--net", "x"], ConfigError::Unknown("--net".into()));
        check(&["--"], ConfigError::Unknown("--".into()));
        check(&["socket"], ConfigError::Unknown("socket".into()));
        check(&["--group"], ConfigError::NoValue("--group".into()));
        for value in ["0", "-1", "many"] {
            let (option, value) = ("--vcpus".to_owned(), value.to_owned());
            check(
                &["--vcpus", &value.clone()],
                ConfigError::NoNumber { option, value },
            );
        }
        let (option, value) = ("--qemu".to_owned(), "qemu".to_owned());
        check(
            &["--qemu", "qemu"],
            ConfigError::NotAbsolute { option, value },
        );
    }
}
