//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod lane;

pub use lane::{
    DownArgs, FirecrackerChoice, ListArgs, LogsArgs, OnErrorChoice, PreflightArgs, ProviderArgs,
    SshArgs, UpArgs, WishArgs,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use firelane_guest_proto::{Lang, Tier};
use firelane_wire::key::{Rate, Scope};

use crate::commands::key::{parse_rate, parse_scope};

/// Run code that you did not write, in a fresh microVM.
#[derive(Debug, Parser)]
#[command(
    name = "firelane",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one program in a fresh microVM and pass on what it writes
    Run(RunArgs),
    /// Open a shell in a fresh microVM
    Shell(ShellArgs),
    /// Build, list, show and remove templates
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Say what this host can do, and the remedy for what it cannot
    Doctor(DoctorArgs),
    /// Measure phases of a run, with the host's fingerprint
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Offer runs over HTTP on this machine
    Serve(ServeArgs),
    /// Make, list and revoke API keys of the service on this machine
    #[command(subcommand)]
    Key(KeyCommand),
    /// Check the record of what was done to keys
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show that a lane's services work, or that a control does what it is for
    Verify(VerifyArgs),
    /// Get a machine, install Firelane on it, and show that it works
    Up(UpArgs),
    /// Give machines back
    Down(DownArgs),
    /// List lanes: what this machine knows of them, and what their providers say
    List(ListArgs),
    /// Give back every lane whose time is over
    #[command(
        after_help = "Exit codes: 0 nothing overdue is left where there are credentials; 1 a provider could not be looked at, or a \
                      journal cannot be read; 3 something overdue is left, and may cost money."
    )]
    Reap,
    /// Log in to the machine of a lane
    Ssh(SshArgs),
    /// Print what became of a lane, from here and from its machine
    Logs(LogsArgs),
    /// Look at everything that a machine of a provider needs, for nothing
    Preflight(PreflightArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which VMM runs the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DriverChoice {
    /// The best that works on this host
    #[default]
    Auto,
    /// Firecracker
    Firecracker,
    /// QEMU, by KVM where guests run on it, else by software emulation
    Qemu,
}

/// Where the kernel of a template comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelChoice {
    /// Debian's cloud kernel
    Debian,
    /// Compiled from Debian's source with only what a guest needs: boots faster, takes 10 to 30 minutes to build
    Small,
}

/// The microVM of a run or shell.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Template: a built-in one, one that was built before, or a definition file
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    pub template: String,
    /// Guest memory in MiB [default: the template's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..=65536))]
    pub memory_mib: Option<u32>,
    /// System calls that programs may make: essential, minimal, standard, network or unrestricted [default: the template's]
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    pub seccomp: Option<Tier>,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub vcpus: u32,
    /// Which VMM to use
    #[arg(long, value_enum, default_value_t)]
    pub driver: DriverChoice,
    /// Boot, in place of restoring the template's snapshot
    #[arg(long)]
    pub cold: bool,
}

/// Arguments of `firelane run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: the program's own; 124 time limit; 127 no interpreter; \
                        137 killed or out of memory; 125 Firelane failed; 2 wrong usage."
)]
pub struct RunArgs {
    /// File with the code (- for standard input), then the program's own arguments
    #[arg(
        value_name = "FILE|ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<String>,
    /// The code itself, in place of a file
    #[arg(
        short = 'c',
        long = "code",
        value_name = "CODE",
        allow_hyphen_values = true
    )]
    pub code: Option<String>,
    /// Language [default: by the file's extension, else its #! line]
    #[arg(long, value_name = "LANG", value_parser = parse_lang)]
    pub lang: Option<Lang>,
    /// Time limit, for example 5, 2.5s, 300ms or 2m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time, allow_hyphen_values = true)]
    pub timeout: Duration,
    /// Set a variable of the program's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub env: Vec<(String, String)>,
    /// Read the program's standard input from this file
    #[arg(long, value_name = "FILE")]
    pub stdin_file: Option<PathBuf>,
    /// Put a file into the guest first; relative guest paths are in the working directory
    #[arg(long = "file", value_name = "HOST:GUEST", value_parser = parse_file_in)]
    pub files_in: Vec<(PathBuf, String)>,
    /// Get a file from the guest afterwards
    #[arg(long = "out", value_name = "GUEST:HOST", value_parser = parse_file_out)]
    pub files_out: Vec<(String, PathBuf)>,
    /// Bytes of stdout and of stderr each that are passed on, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_output_mib: u32,
    /// Print one JSON object in place of what the program writes
    #[arg(long)]
    pub json: bool,
    /// Print when each phase was reached, on stderr
    #[arg(long)]
    pub timings: bool,
    /// Use a microVM of our own, even if 'firelane serve' runs on this machine
    #[arg(long)]
    pub local: bool,
    /// The service
    #[command(flatten)]
    pub socket: SocketArgs,
    /// The microVM
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Arguments of `firelane shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The microVM
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Commands of `firelane template`.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Build a template, if it is not built yet
    Build {
        /// A built-in template or a definition file
        #[arg(default_value = "default", value_name = "NAME|FILE")]
        template: String,
        /// Build again with the newest packages
        #[arg(long)]
        refresh: bool,
        /// Where the kernel comes from [default: as it was built before, else debian]
        #[arg(long, value_enum)]
        kernel: Option<KernelChoice>,
    },
    /// List the templates that are built
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a template is made of
    Show {
        /// Its name
        template: String,
        /// As JSON, packages included
        #[arg(long)]
        json: bool,
    },
    /// Remove a template and what only it needs
    Rm {
        /// Its name
        template: String,
    },
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments of `firelane serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every run ended by itself; 4 runs were stopped; 125 it could not start."
)]
pub struct ServeArgs {
    /// Address to listen on; with TLS if it is not a loopback address
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "FIRELANE_LISTEN",
        default_value = "127.0.0.1:7300"
    )]
    pub listen: SocketAddr,
    /// The owner's socket
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Its own files
    #[command(flatten)]
    pub state: StateArgs,
    /// Certificate for TLS, as PEM [default: one of our own]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let everybody in who can connect, without a key; only on a loopback address
    #[arg(long)]
    pub no_keys: bool,
    /// Runs at once [default: twice the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: Option<u32>,
    /// Runs that may wait
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub queue: usize,
    /// Runs of one tenant that may wait [default: half of the queue]
    #[arg(long, value_name = "N")]
    pub queue_per_tenant: Option<usize>,
    /// Languages of which microVMs wait from the start
    #[arg(long, value_name = "LANG,...", value_delimiter = ',', default_value = "python", value_parser = parse_lang)]
    pub warm: Vec<Lang>,
    /// MicroVMs that wait for each of these languages
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pool_min: u32,
    /// MicroVMs that wait at most, for each language; 0 for no pool
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub pool_max: u32,
    /// How long a microVM may wait
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    pub pool_max_age: Duration,
    /// VMMs of each template in use that are started ahead of need, and wait for a restore
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=64))]
    pub stand_by: u32,
    /// Sandboxes at once; by default as many as half of this machine's memory holds
    #[arg(long, value_name = "N")]
    pub sandboxes: Option<u32>,
    /// How the log is written; it has a line for each run, without its code and output
    #[arg(
        long,
        value_name = "FORMAT",
        env = "FIRELANE_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// Collector of OpenTelemetry that gets the traces of runs, over OTLP/HTTP, as http://HOST:PORT
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How long runs may take to end after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub drain: Duration,
    /// Template of the microVMs that wait: a built-in one, or one that was built before
    #[arg(
        long,
        value_name = "NAME",
        env = "FIRELANE_TEMPLATE",
        default_value = "default"
    )]
    pub template: String,
}

/// Where the service keeps its own files.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Folder of the service's database and certificate [default: serve in $FIRELANE_HOME]
    #[arg(long, value_name = "FOLDER", env = "FIRELANE_STATE")]
    pub state: Option<PathBuf>,
}

impl StateArgs {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let default = || firelane_image::Store::default_root().join("serve");
        self.state.clone().unwrap_or_else(default)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder().join("firelane.db")
    }
}

/// Where the owner of the service reaches it.
#[derive(Clone, Debug, Args)]
pub struct SocketArgs {
    /// Unix socket of the service, for its owner, who needs no key [default: serve.sock in the run directory]
    #[arg(long, value_name = "PATH", env = "FIRELANE_SOCKET")]
    pub socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let default = || firelane_vmm::rundir::default_base().join("serve.sock");
        self.socket.clone().unwrap_or_else(default)
    }
}

/// Commands of `firelane key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; its token is printed once
    Create {
        /// For people
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Keys of one tenant see each other's runs [default: the name]
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// What it allows: run, sandbox, template, admin
        #[arg(long, value_name = "SCOPE,...", value_delimiter = ',', default_value = "run", value_parser = parse_scope)]
        scopes: Vec<Scope>,
        /// Its share of the machine against other tenants, from 1 to 1000
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// How often it may ask, for example 10/s, 100/m or 1000/h
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        rate: Option<Rate>,
        /// Requests that may come at once after a pause [default: the rate's number]
        #[arg(long, value_name = "N")]
        burst: Option<u32>,
        /// Runs that it may have at the same time, those that wait included
        #[arg(long, value_name = "N")]
        concurrency: Option<u32>,
        /// Seconds of processor time that its programs may use on one day (UTC)
        #[arg(long, value_name = "SECONDS")]
        cpu_seconds_per_day: Option<u64>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// The service
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// List the keys
    List {
        /// The signing keys that this host trusts, its own first, in place of API keys
        #[arg(long)]
        signing: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// The service
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Make a key pair in files
    Generate {
        /// A key that signs templates and snapshots, as minisign has them
        #[arg(long, required = true)]
        signing: bool,
        /// Folder of the pair, firelane.key and firelane.pub; without it, this host's own key is made if there is none
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Trust what another host signs
    Trust {
        /// Its public key: its signing/host.pub, or the firelane.pub of a pair
        file: PathBuf,
    },
    /// End a key, from now on
    Revoke {
        /// Its name: what comes before the dot of its token
        key: String,
        /// The service
        #[command(flatten)]
        socket: SocketArgs,
    },
}

/// Commands of `firelane audit`.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that nothing was changed or removed; the service must not run
    Verify {
        /// The service's files
        #[command(flatten)]
        state: StateArgs,
    },
}

/// Arguments of `firelane verify`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 it works; 1 a check failed.")]
pub struct VerifyArgs {
    /// A control, in place of a lane
    #[command(subcommand)]
    pub command: Option<VerifyCommand>,
    /// The lane
    #[arg(value_name = "LABEL", value_parser = lane::parse_label)]
    pub label: Option<firelane_model::lane::Label>,
    /// Go on after a check that failed
    #[arg(long = "continue")]
    pub go_on: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Commands of `firelane verify`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum VerifyCommand {
    /// Make system calls behind the filters that programs in guests get; needs no KVM and no root
    #[command(after_help = "Exit codes: 0 each filter answers as it should; 1 one does not.")]
    Seccomp {
        /// As JSON, every call included
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `firelane bench firecracker`.
#[derive(Debug, Args)]
pub struct FirecrackerArgs {
    /// How often each, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Sizes of the guest's memory
    #[arg(long, value_name = "MIB,...", value_delimiter = ',', default_values_t = [128, 512, 2048])]
    pub memory_mib: Vec<u32>,
    /// Clones that live at once, for what each takes of the host's memory
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clones: u32,
    /// Write the raw samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `firelane bench paging`.
#[derive(Debug, Args)]
pub struct PagingArgs {
    /// How often each, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Memory that each clone reads
    #[arg(long, value_name = "MIB,...", value_delimiter = ',', default_values_t = [1, 8, 32], value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub touched_mib: Vec<u32>,
    /// Write the raw samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `firelane doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Apply the remedies that cannot hurt, and say what was done
    #[arg(long)]
    pub fix: bool,
    /// Template that is booted to see the controls in force, if it is built
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub template: String,
}

/// Commands of `firelane bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Boot a microVM until its guest-runner answers
    Boot(BenchArgs),
    /// Start a microVM, run a small program in it, destroy it
    Run {
        /// Language of the program
        #[arg(long, default_value = "python", value_parser = parse_lang)]
        lang: Lang,
        /// How often, and where to
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Boot, restore, claim and the same snapshot in a bare QEMU, in turns, and their ratios
    Compare {
        /// Language of the program
        #[arg(long, default_value = "python", value_parser = parse_lang)]
        lang: Lang,
        /// How often, and where to
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Firecracker with the bare guest: a restore to the first reply, raw, by Firelane without a jail, in
    /// ours, and in Firecracker's jailer, in turns
    Firecracker(FirecrackerArgs),
    /// How clones of the bare guest come by their memory in Firecracker: from a file that is mapped, or as it is
    /// missed, in turns
    Paging(PagingArgs),
    /// Complete runs each second through a service: one client, several, several and warm microVMs
    Throughput(ThroughputArgs),
    /// Memory that clones of a snapshot take on this host, before and after a run
    Memory(MemoryArgs),
    /// Claim a microVM that has run a program of its language before, and run one in it
    Claim {
        /// Language of the program
        #[arg(long, default_value = "python", value_parser = parse_lang)]
        lang: Lang,
        /// How often, and where to
        #[command(flatten)]
        args: BenchArgs,
    },
}

/// Arguments of `firelane bench throughput`.
#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// Language of the program
    #[arg(long, default_value = "python", value_parser = parse_lang)]
    pub lang: Lang,
    /// Clients that wait for a run at the same time [default: twice the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: Option<u32>,
    /// How long each of the three takes
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Template: a built-in one, or one that was built before
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub template: String,
    /// Write the raw samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `firelane bench memory`.
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// Language of the program
    #[arg(long, default_value = "python", value_parser = parse_lang)]
    pub lang: Lang,
    /// Clones that live at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clones: u32,
    /// Template: a built-in one, or one that was built before
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub template: String,
    /// Write the raw samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of every benchmark of phases.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// How often, after one run that does not count
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Write the raw samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The microVM
    #[command(flatten)]
    pub machine: MachineArgs,
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    text.parse()
        .map_err(|error: firelane_guest_proto::lang::UnknownLang| error.to_string())
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    text.parse()
        .map_err(|error: firelane_guest_proto::tier::UnknownTier| error.to_string())
}

/// Longest time limit: one day.
const MAX_TIME: Duration = Duration::from_secs(86_400);

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, factor) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let seconds = number.parse::<f64>().map(|number| number * factor);
    match seconds {
        Ok(seconds) if seconds >= 1e-3 && seconds <= MAX_TIME.as_secs_f64() => {
            Ok(Duration::from_secs_f64(seconds))
        }
        Ok(_) => Err("a time limit is at least 1ms and at most 1440m".into()),
        Err(_) => Err("not a time: write seconds, or a number with ms, s or m".into()),
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn parse_file_in(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => {
            Ok((host.into(), guest.into()))
        }
        _ => Err("write HOST:GUEST".into()),
    }
}

fn parse_file_out(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once(':') {
        Some((guest, host)) if !host.is_empty() && !guest.is_empty() => {
            Ok((guest.into(), host.into()))
        }
        _ => Err("write GUEST:HOST".into()),
    }
}

impl MachineArgs {
    /// The machine of a template's snapshot.
    #[must_use]
    pub fn of_snapshot(template: &str) -> MachineArgs {
        MachineArgs {
            template: template.to_owned(),
            memory_mib: None,
            seccomp: None,
            vcpus: 1,
            driver: DriverChoice::Auto,
            cold: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units_and_bounds() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(
                parse_time(text).ok(),
                ms.map(Duration::from_millis),
                "{text}"
            );
        };
        check("5", Some(5000));
        check("2.5s", Some(2500));
        check("300ms", Some(300));
        check("2m", Some(120_000));
        check("0", None);
        check("-1", None);
        check("0.1ms", None);
        check("1441m", None);
        check("NaN", None);
        check("5 minutes", None);
    }

    #[test]
    fn a_kernel_is_named_or_left_as_it_was() {
        let check = |flags: &[&str], expected: Result<Option<KernelChoice>, ()>| {
            let words = ["firelane", "template", "build", "base"];
            let parsed = Cli::try_parse_from(words.iter().chain(flags));
            let kernel = parsed.map_err(drop).map(|cli| match cli.command {
                Command::Template(TemplateCommand::Build { kernel, .. }) => kernel,
                _ => panic!("not a template build"),
            });
            assert_eq!(kernel, expected, "{flags:?}");
        };
        check(&[], Ok(None));
        check(&["--kernel", "debian"], Ok(Some(KernelChoice::Debian)));
        check(&["--kernel=small"], Ok(Some(KernelChoice::Small)));
        check(&["--kernel", "tiny"], Err(()));
        check(&["--kernel"], Err(()));
    }

    #[test]
    fn benchmarks_refuse_numbers_that_measure_nothing_or_never_end() {
        let check = |words: &[&str], expected: bool| {
            let all = ["firelane", "bench"].iter().chain(words);
            assert_eq!(Cli::try_parse_from(all).is_ok(), expected, "{words:?}");
        };
        check(&["throughput", "--clients", "1", "--seconds", "1"], true);
        check(&["throughput", "--clients", "0"], false);
        check(&["throughput", "--seconds", "0"], false);
        check(&["throughput", "--seconds", "3601"], false);
        check(&["throughput", "--lang", "cobol"], false);
        check(&["memory", "--clones", "64"], true);
        check(&["memory", "--clones", "0"], false);
        check(&["memory", "--clones", "65"], false);
    }

    #[test]
    fn a_programs_own_flags_are_not_ours() {
        let cli =
            Cli::try_parse_from(["firelane", "run", "--json", "x.py", "--json", "-v"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not a run")
        };
        assert_eq!(run.words, ["x.py", "--json", "-v"]);
    }
}
