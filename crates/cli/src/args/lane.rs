//! Arguments of the lane's commands.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use firelane_lane::cloudinit::{Download, DownloadError};
use firelane_model::lane::Label;

/// Longest time that a lane may live: a year of hours is no mistake any more.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Which provider, and its settings.
#[derive(Clone, Debug, Args)]
pub struct ProviderArgs {
    /// Where machines come from: a provider's name, or the path of a script
    #[arg(long, value_name = "NAME|SCRIPT", env = "PROVIDER")]
    pub provider: String,
}

/// What a machine is to be.
#[derive(Clone, Debug, Args)]
pub struct WishArgs {
    /// The machine is in this region [default: the provider's]
    #[arg(long, value_name = "REGION", env = "REGION")]
    pub region: Option<String>,
    /// Its type, in the provider's words [default: the provider's]
    #[arg(long, value_name = "TYPE", env = "INSTANCE_TYPE")]
    pub instance_type: Option<String>,
    /// Its root disk in GiB
    #[arg(long, value_name = "GIB", env = "BOOT_DISK_SIZE", default_value_t = 50, value_parser = clap::value_parser!(u32).range(8..=16_384))]
    pub disk_gib: u32,
    /// From which network SSH may come; may be given again
    #[arg(
        long,
        value_name = "CIDR",
        env = "FIRELANE_SSH_FROM",
        value_delimiter = ','
    )]
    pub ssh_from: Vec<String>,
    /// The machine need not have KVM: guests are emulated
    #[arg(long)]
    pub no_kvm: bool,
    /// With provider `existing`: the machine
    #[arg(long, value_name = "[USER@]HOST[:PORT]", env = "HOST_TARGET")]
    pub host: Option<String>,
    /// A setting that only the provider knows; may be given again
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = super::parse_variable)]
    pub settings: Vec<(String, String)>,
}

/// Arguments of `firelane up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 verified; 1 a step failed and everything was given back; 2 wrong usage, or refused before \
                  anything was spent; 3 a step failed and the machine is there; 125 Firelane failed; 130 interrupted."
)]
pub struct UpArgs {
    /// Its provider
    #[command(flatten)]
    pub provider: ProviderArgs,
    /// Name of the lane: letters, digits and hyphens
    #[arg(long, value_name = "LABEL", env = "LABEL", default_value = "default", value_parser = parse_label)]
    pub label: Label,
    /// What it is to be
    #[command(flatten)]
    pub wish: WishArgs,
    /// A public key that may log in beside the lane's own: a file, or the key itself
    #[arg(long, value_name = "FILE|KEY", env = "SSH_PUBKEY", value_parser = parse_public_key)]
    pub ssh_pubkey: Option<String>,
    /// How long it may live, for example 90m, 4h or 2d; then anybody's `firelane reap` removes it [default: 4h]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    pub ttl: Option<Duration>,
    /// Do nothing if it would cost more than this over its whole life, in US dollars
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    pub max_spend: Option<u64>,
    /// What becomes of it if a step fails, or Ctrl-C is pressed
    #[arg(long, value_enum, default_value_t)]
    pub on_error: OnErrorChoice,
    /// Folder of the programs to install [default: where this program is]
    #[arg(long, value_name = "FOLDER", env = "FIRELANE_BIN_DIR")]
    pub programs: Option<PathBuf>,
    /// Send the sources, not the programs, and have the host build them: it installs Rust for that, which stays
    #[arg(long)]
    pub build_on_host: bool,
    /// Folder of the sources that the host builds
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = ".",
        requires = "build_on_host"
    )]
    pub sources: PathBuf,
    /// The host's Firecracker: a static program to bring; URL#sha256=HEX of an archive of a release, which the host
    /// downloads; or none, and guests run by QEMU [default: the release that Firelane is tested with, downloaded, on
    /// hosts that are to have KVM and can download]
    #[arg(long, value_name = "FILE|URL|none", env = "FIRELANE_FIRECRACKER", value_parser = parse_firecracker)]
    pub firecracker: Option<FirecrackerChoice>,
    /// Bring this template of ours to the host; without it the host builds `default` by itself, for which it needs
    /// a way to Debian's packages
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Print what would be asked for and what it costs, and ask for nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object for each event
    #[arg(long)]
    pub json: bool,
}

/// Where the host's Firecracker is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirecrackerChoice {
    /// It is brought.
    File(PathBuf),
    /// The host downloads it.
    Download(Download),
    /// It has none.
    None,
}

/// What becomes of a lane that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnErrorChoice {
    /// Give it back, if this very command asked for its machine
    #[default]
    Cleanup,
    /// Keep it, to look at it and go on
    Keep,
}

/// Arguments of `firelane down`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing of it is left; 3 something is left, or could not be looked for, and may cost money."
)]
pub struct DownArgs {
    /// Its provider [default: that of the lane; without a label it has to be said]
    #[arg(long, value_name = "NAME|SCRIPT", env = "PROVIDER")]
    pub provider: Option<String>,
    /// Only this lane [default: all of the provider's, wherever they were made]
    #[arg(long, value_name = "LABEL", env = "LABEL", value_parser = parse_label)]
    pub label: Option<Label>,
    /// Only lanes that are older, for example 6h
    #[arg(long, value_name = "TIME", value_parser = parse_ttl, conflicts_with = "label")]
    pub older_than: Option<Duration>,
    /// Give the lane up even if its machine lets nobody in; only of a machine that is your own
    #[arg(long, requires = "label")]
    pub forget: bool,
}

/// Arguments of `firelane list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every provider was asked that there are credentials for; 1 one could not be, or a journal cannot be read."
)]
pub struct ListArgs {
    /// Those that are over too, with what they have cost
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `firelane ssh`.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The lane
    #[arg(value_name = "LABEL", value_parser = parse_label)]
    pub label: Label,
    /// A command in place of a shell, after --
    #[arg(value_name = "COMMAND", last = true)]
    pub command: Vec<String>,
}

/// Arguments of `firelane logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The lane
    #[arg(value_name = "LABEL", value_parser = parse_label)]
    pub label: Label,
}

/// Arguments of `firelane preflight`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 a machine could be asked for; 1 it could not.")]
pub struct PreflightArgs {
    /// The provider [default: every one that is built in]
    #[arg(value_name = "NAME|SCRIPT", env = "PROVIDER")]
    pub provider: Option<String>,
    /// What it is to be
    #[command(flatten)]
    pub wish: WishArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn parse_label(text: &str) -> Result<Label, String> {
    text.parse::<Label>().map_err(|error| error.to_string())
}

/// Reads a public key, or the file that it is in.
fn parse_public_key(text: &str) -> Result<String, String> {
    let wrong = "write a public key of OpenSSH's, or the path of its file";
    let key = if text.contains(' ') {
        text.to_owned()
    } else {
        fs::read_to_string(text).map_err(|error| format!("{error}; {wrong}"))?
    };
    let key = key.trim();
    let kinds = [
        "ssh-ed25519 ",
        "ssh-rsa ",
        "ecdsa-sha2-",
        "sk-ssh-",
        "sk-ecdsa-",
    ];
    let fits = kinds.iter().any(|kind| key.starts_with(kind))
        && key.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if fits {
        Ok(key.to_owned())
    } else {
        Err(wrong.into())
    }
}

/// Reads a time of minutes, hours or days.
fn parse_firecracker(text: &str) -> Result<FirecrackerChoice, String> {
    if text == "none" {
        return Ok(FirecrackerChoice::None);
    }
    if !text.contains("://") {
        return Ok(FirecrackerChoice::File(text.into()));
    }
    let download = text
        .parse()
        .map_err(|error: DownloadError| error.to_string());
    download.map(FirecrackerChoice::Download)
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "write minutes, hours or days: 90m, 4h, 2d".to_owned();
    let units = [('m', 60), ('h', 3600), ('d', 24 * 3600)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)))
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::from_secs(number.saturating_mul(unit));
    if time.is_zero() || time > MAX_TTL {
        return Err("a lane lives for 1m at least and 365d at most".into());
    }
    Ok(time)
}

/// Reads dollars as thousandths of one.
fn parse_dollars(text: &str) -> Result<u64, String> {
    let wrong = || "write US dollars, for example 5 or 0.25".to_owned();
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || rest.len() > 3 || !is_number(whole) || !is_number(rest) {
        return Err(wrong());
    }
    let rest: u64 = format!("{rest:0<3}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    whole
        .checked_mul(1000)
        .and_then(|milli| milli.checked_add(rest))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sums_are_read_as_they_are_written() {
        assert_eq!(parse_ttl("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_ttl("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "4", "h", "0h", "-1h", "4 h", "366d", "4w", "ä"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_dollars("5"), Ok(5_000));
        assert_eq!(parse_dollars("0.25"), Ok(250));
        let key = "ssh-ed25519 AAAA alice";
        assert_eq!(parse_public_key(key).as_deref(), Ok(key));
        for wrong in [
            "/nowhere",
            "ssh-dss AAAA",
            "ssh-ed25519 A\nssh-rsa B",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert!(parse_public_key(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", ".5", "1.2345", "-1", "1e3", "99999999999999999999"] {
            assert!(parse_dollars(wrong).is_err(), "{wrong:?}");
        }
    }
}
