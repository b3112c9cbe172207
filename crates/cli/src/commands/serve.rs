//! `firelane serve`: gateway, coordinator and agent of one machine, in one process.
//!
//! ```text
//!   template ─▶ database, sockets ─▶ coordinator, agent ─▶ warm ─▶ gateway ─▶ … ─▶ drain
//! ```
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | a signal asked for the end, and every run ended by itself |
//! | 4 | the same, but runs were stopped at the deadline, or by a second signal |
//! | 2 | wrong usage: nothing was started |
//! | 125 | it could not start, or failed |
//! | 128 + n | signal n ended it before it served |

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use firelane_agent::Agent;
use firelane_agent::service::Config as AgentConfig;
use firelane_coordinator::{Config as CoordinatorConfig, Coordinator};
use firelane_gateway::listen::{self, Listener};
use firelane_gateway::{Config as GatewayConfig, Gateway, tls};
use firelane_model::pool::PoolConfig;
use firelane_store::bus::{Bus, LocalBus};
use firelane_store::db::Db;
use firelane_traces::{Endpoint, EndpointError, Exporter, Limits, Sink};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{MachineArgs, ServeArgs};
use crate::failure::Failure;
use crate::host::{Host, sweep, sweep_networks};
use crate::signals::Signals;

/// Name of the only host.
const HOST: &str = "local";
/// Exit code when runs were stopped.
const FORCED: u8 = 4;
/// How often what is left of microVMs is looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// How long open connections get after the last run.
const CONNECTIONS: Duration = Duration::from_secs(5);
/// How long a collector gets to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(5);

pub(super) async fn serve(args: ServeArgs) -> Result<u8, Failure> {
    if args.no_keys && !args.listen.ip().is_loopback() {
        let message = "--no-keys would let in everybody who can connect";
        return Err(Failure::usage(message));
    }
    // Clones have the shape of their snapshot.
    let machine = MachineArgs::of_snapshot(&args.template);
    let (traces, exporter) = traces(&args)?;
    let mut signals = Signals::listen()?;
    let host = tokio::select! {
        host = Host::prepare(&machine) => host?,
        number = signals.next() => return Err(Failure::interrupted(number)),
    };
    let swept = tokio::task::spawn_blocking(sweep_networks).await;
    swept.map_err(Failure::platform)?;
    // Everything that another service may have is taken before the first microVM is started.
    let state = state_folder(&args)?;
    let db = Db::open(&args.state.database()).await?;
    let socket = Socket::bind(&args.socket.path())?;
    let (network, address) = bind(&args, &state).await?;

    let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
    let memory_mib = host.machine("").memory_mib;
    let agent = Agent::new(
        agent_config(&args, &state, memory_mib),
        Arc::new(host.workshop().standing_by(args.stand_by)),
    );
    let coordinator = Coordinator::new(
        coordinator_config(&args, traces.clone()),
        Arc::clone(&bus),
        db,
    )
    .await;
    let coordinator = coordinator.map_err(Failure::platform)?;
    let _coordinating = coordinator.serve().await.map_err(Failure::platform)?;
    let _working = agent
        .serve(Arc::clone(&bus))
        .await
        .map_err(Failure::platform)?;
    let warmed = tokio::select! {
        warmed = agent.warm_up() => warmed.map_err(Failure::platform),
        number = signals.next() => Err(Failure::interrupted(number)),
    };
    if let Err(failure) = warmed {
        agent.shut_down(Instant::now()).await;
        return Err(failure);
    }

    let draining = CancellationToken::new();
    let gateway_config = GatewayConfig {
        keys: !args.no_keys,
        owner: rustix::process::geteuid().as_raw(),
        traces,
    };
    let gateway = Gateway::new(gateway_config, bus, draining.clone());
    gateway.show(|registry| coordinator.register(registry));
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    tell(&args, address, &socket.path);
    let Socket { listener, path } = socket;
    for listener in [network, Listener::Local(listener)] {
        let served = listen::serve(
            listener,
            gateway.router(),
            stop.clone(),
            connections.clone(),
        );
        connections.spawn(served);
    }
    connections.spawn(keep_swept(stop.clone()));

    let number = signals.next().await;
    tracing::info!(signal = number, "going down: no new work is taken");
    draining.cancel();
    let deadline = Instant::now() + args.drain;
    let forced = tokio::select! {
        forced = coordinator.drain(deadline) => forced,
        _ = signals.next() => true,
    };
    agent.shut_down(Instant::now()).await;
    coordinator.settle().await;
    if let Some(exporter) = exporter {
        exporter.flush(Instant::now() + LAST_SPANS).await;
    }
    stop.cancel();
    drop(path);
    connections.close();
    if timeout(CONNECTIONS, connections.wait()).await.is_err() {
        tracing::info!("connections are left open by their clients");
    }
    Ok(if forced { FORCED } else { 0 })
}

fn agent_config(args: &ServeArgs, state: &Path, memory_mib: u32) -> AgentConfig {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = args
        .slots
        .unwrap_or_else(|| u32::try_from(2 * processors).unwrap_or(u32::MAX));
    let template = args.template.clone();
    let warm = args
        .warm
        .iter()
        .map(|lang| (template.clone(), *lang))
        .collect();
    AgentConfig {
        host: HOST.into(),
        slots,
        pool: PoolConfig {
            min: args.pool_min.min(args.pool_max),
            max: args.pool_max,
            max_age: args.pool_max_age,
        },
        warm,
        sandboxes: args
            .sandboxes
            .unwrap_or_else(|| sandboxes_that_fit(memory_mib)),
        keep: state.join("snapshots"),
    }
}

/// How many microVMs of that size half of the machine's memory holds. They share what they have in
/// common and seldom use all of theirs, so that this is on the safe side.
fn sandboxes_that_fit(memory_mib: u32) -> u32 {
    let info = rustix::system::sysinfo();
    let total_mib = (info.totalram * u64::from(info.mem_unit)) >> 20;
    let fit = total_mib / 2 / u64::from(memory_mib.max(1));
    u32::try_from(fit).unwrap_or(u32::MAX).max(1)
}

/// Takes spans; and sends them, if there is where to.
fn traces(args: &ServeArgs) -> Result<(Sink, Option<Exporter>), Failure> {
    // Set to nothing is not set. Source: OpenTelemetry specification, "Environment Variables".
    let Some(url) = args.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
        return Ok((Sink::off(), None));
    };
    let endpoint: Endpoint = url
        .parse()
        .map_err(|error: EndpointError| Failure::usage(format!("--otlp-endpoint: {error}")))?;
    let started = Exporter::start(&endpoint, Limits::default());
    let (sink, exporter) = started.map_err(Failure::platform)?;
    Ok((sink, Some(exporter)))
}

fn coordinator_config(args: &ServeArgs, traces: Sink) -> CoordinatorConfig {
    CoordinatorConfig {
        queue: args.queue,
        queue_per_tenant: args.queue_per_tenant.unwrap_or(args.queue.div_ceil(2)),
        traces,
    }
}

/// The network's listener: in clear on loopback addresses, else with TLS.
async fn bind(args: &ServeArgs, state: &Path) -> Result<(Listener, SocketAddr), Failure> {
    let address = args.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::platform(anyhow::Error::from(error).context(format!("cannot listen on {address}")))
            .with_remedy("give another address: --listen 127.0.0.1:0 takes any free port")
    })?;
    let bound = listener.local_addr().map_err(Failure::platform)?;
    let files = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => tls::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        _ if address.ip().is_loopback() => return Ok((Listener::Plain(listener), bound)),
        _ => tls::own(state, &names(address)).map_err(Failure::platform)?,
    };
    let acceptor = tls::acceptor(&files).map_err(Failure::platform)?;
    eprintln!("firelane: TLS with {}", files.certificate.display());
    Ok((Listener::Tls(listener, acceptor), bound))
}

/// What a certificate of our own is made for.
fn names(address: SocketAddr) -> Vec<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut names = vec!["localhost".to_owned(), name];
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names
}

/// The service's own folder, for nobody else.
fn state_folder(args: &ServeArgs) -> Result<PathBuf, Failure> {
    let folder = args.state.folder();
    fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .map_err(|error| in_context(error, &format!("cannot use {}", folder.display())))?;
    Ok(folder)
}

fn in_context(error: io::Error, context: &str) -> Failure {
    Failure::platform(anyhow::Error::from(error).context(context.to_owned()))
}

fn tell(args: &ServeArgs, address: SocketAddr, socket: &SocketPath) {
    let clear = address.ip().is_loopback() && args.tls_cert.is_none();
    let scheme = if clear { "http" } else { "https" };
    let socket = socket.0.display();
    eprintln!("firelane: serving on {scheme}://{address} and {socket}");
}

/// The Unix socket.
struct Socket {
    listener: UnixListener,
    path: SocketPath,
}

/// The file of a socket; removed when this is dropped.
struct SocketPath(PathBuf);

impl Socket {
    fn bind(path: &Path) -> Result<Socket, Failure> {
        let cannot = |error| in_context(error, &format!("cannot listen on {}", path.display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        // One that nobody answers was left by a service that was killed.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let failure = anyhow::anyhow!("{} is served already", path.display());
            return Err(Failure::platform(failure)
                .with_remedy("stop the other 'firelane serve', or give --socket another path"));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(cannot)?;
        let path = SocketPath(path.into());
        fs::set_permissions(&path.0, fs::Permissions::from_mode(0o600)).map_err(cannot)?;
        Ok(Socket { listener, path })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// Removes now and then what microVMs left whose handles were dropped.
async fn keep_swept(stop: CancellationToken) {
    while timeout(SWEEP, stop.cancelled()).await.is_err() {
        let sweeping = tokio::task::spawn_blocking(|| {
            sweep();
            sweep_networks();
        });
        if let Err(error) = sweeping.await {
            tracing::error!(%error, "a sweep failed");
        }
    }
}
