//! The socket: who may connect, and a thread for each who does.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use firelane_host_proto::message::{Code, Refusal};
use firelane_sys::peer::Peer;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::audit::Audit;
use crate::config::Config;
use crate::connection;
use crate::places::Places;
use crate::refuse::refuse_with;
use crate::spawner::Spawner;
use crate::stop::stop;
use crate::table::{Life, Most, Table};

/// The stack of a thread that serves one client or watches one VMM.
pub(crate) const STACK_BYTES: usize = 256 << 10;
/// How long nothing is accepted after a failure that will not pass at once, such as no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hostd could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It is not root.
    #[error("firelane-hostd has to be root")]
    NotRoot,
    /// There is no such group.
    #[error("there is no group '{0}'")]
    NoGroup(String),
    /// Another one is there.
    #[error("another firelane-hostd uses {0}")]
    Another(PathBuf),
    /// What is in the socket's place is none.
    #[error("{0} is there and is no socket")]
    NoSocket(PathBuf),
    /// A file or folder of its own.
    #[error("cannot make {path}")]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A thread cannot be started, or its own program is not found.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

impl ServeError {
    /// What can be done about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            ServeError::NotRoot => Some("start it as root".into()),
            ServeError::NoGroup(name) => Some(format!(
                "groupadd --system {name}, or name another with --group"
            )),
            ServeError::Another(_) => {
                Some("end that one first, or name other places with --socket and --run-dir".into())
            }
            ServeError::NoSocket(path) => Some(format!("remove {}", path.display())),
            _ => None,
        }
    }
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) audit: Audit,
    pub(crate) spawner: Spawner,
    /// This program, which is the jail as well.
    pub(crate) program: PathBuf,
    places: Arc<Places>,
    group: u32,
}

/// A hostd that takes connections.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Nobody else is hostd here for as long as this is open.
    _lock: File,
}

impl Server {
    /// Removes what an earlier one left, and takes connections from then on.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(config: Config) -> Result<Server, ServeError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ServeError::NotRoot);
        }
        let group =
            group(&config.group).ok_or_else(|| ServeError::NoGroup(config.group.clone()))?;
        let lock = lock(&config.run_base)?;
        let audit = config.audit.as_deref();
        let audit = Audit::open(audit).map_err(make(audit.unwrap_or(Path::new("stderr"))))?;
        let listener = listen(&config.socket, group)?;
        let shared = Arc::new(Shared {
            table: Table::new(Most {
                microvms: config.microvms,
                microvms_per_user: config.microvms_per_user,
                memory_mib_per_user: config.memory_mib_per_user,
            }),
            audit,
            spawner: Spawner::start().map_err(ServeError::Start)?,
            program: std::env::current_exe().map_err(ServeError::Start)?,
            places: Places::new(config.clients),
            group,
            config,
        });
        connection::sweep(&shared);
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("listener".into())
            .spawn(move || accept(&accepting, &listener))
            .map_err(ServeError::Start)?;
        Ok(Server {
            shared,
            _lock: lock,
        })
    }

    /// Takes no more connections, ends all microVMs, and waits until nothing of them is left.
    pub fn drain(self) {
        let shared = &self.shared;
        if let Err(error) = fs::remove_file(&shared.config.socket) {
            shared.audit.own("drain", None, Some(&error.to_string()));
        }
        let all = shared.table.those(|_| true);
        for entry in &all {
            // All at once; each is waited for below.
            if let Life::Running(running) = entry.life() {
                let _ = running.vmm.kill();
            }
        }
        for entry in &all {
            let cause = stop(shared, entry).err().map(|refusal| refusal.cause);
            shared.audit.own("drain", Some(&entry.id), cause.as_deref());
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for lease in 0.. {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                shared.audit.own("accept", None, Some(&error.to_string()));
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if let Err(error) = admit(shared, stream, lease) {
            shared.audit.own("accept", None, Some(&error.to_string()));
        }
    }
}

/// Gives a client a thread, or tells it why not.
fn admit(shared: &Arc<Shared>, stream: UnixStream, lease: u64) -> io::Result<()> {
    let peer = Peer::of(&stream)?;
    let turned_away = |refusal: Refusal| {
        let outcome = Err((refusal.code, refusal.cause.as_str()));
        shared.audit.write(&peer, "connect", None, outcome);
        // It fits into the socket of one that has just connected, so nobody waits here.
        connection::answer(&stream, Err(refusal)).map_err(io::Error::other)
    };
    if peer.uid != 0 && !peer.gids.contains(&shared.group) {
        let cause = format!(
            "user {} is not in the group of {}",
            peer.uid, shared.config.group
        );
        let remedy = format!("have root run: usermod -aG {} <user>", shared.config.group);
        return turned_away(refuse_with(Code::WrongUser, cause, remedy));
    }
    let Some(place) = shared.places.take(peer.uid) else {
        let cause = "there are as many connections as there may be";
        let remedy = "try again, or have root start firelane-hostd with a larger --clients";
        return turned_away(refuse_with(Code::Busy, cause, remedy));
    };
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name(format!("client {lease}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            connection::serve(&shared, &stream, &peer, lease);
            drop(place);
        })
        .map(drop)
}

fn make(path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Make {
        path: path.into(),
        source,
    }
}

/// Only one hostd has the run directories of a folder.
fn lock(base: &Path) -> Result<File, ServeError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(base).map_err(make(base))?;
    let path = base.join(".hostd");
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(&path).map_err(make(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::Another(base.into())),
        Err(errno) => Err(make(&path)(errno.into())),
    }
}

/// A socket that root and the group may connect to, in place of one that nobody answers.
fn listen(path: &Path, group: u32) -> Result<UnixListener, ServeError> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(folder).map_err(make(folder))?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NoSocket(path.into()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(ServeError::Another(path.into())),
        Ok(_) => fs::remove_file(path).map_err(make(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(make(path)(error)),
    }
    // Nobody but root connects before it has its group.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(make(path))?;
    std::os::unix::fs::chown(path, Some(0), Some(group)).map_err(make(path))?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(make(path))?;
    Ok(listener)
}

/// A group's number, by its number or by its name. Source: group(5).
fn group(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}
