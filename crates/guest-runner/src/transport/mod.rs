//! Connections from the host: by vsock where the VMM has it, by the link where it has not.

mod link;
mod vsock;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use firelane_guest_proto::{ORIGINAL_PORT, SESSION_PORT};

use crate::{Guest, console, original, session};

/// Why the host cannot reach us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the microVM has neither a vsock device nor a virtio-serial port for the link")]
    Nothing,
    #[error("cannot open the link's port {path}")]
    Link {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on vsock port {port}")]
    Vsock {
        port: u32,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What the host can connect to, open but not yet served.
pub(crate) struct Listeners {
    vsock: Vec<(u32, vsock::Listener)>,
    link: Option<link::Port>,
}

/// Opens every way in that the microVM has.
pub(crate) fn open() -> Result<Listeners, TransportError> {
    let link = link::Port::find()?;
    let mut vsock = Vec::new();
    if vsock::available() {
        for port in [ORIGINAL_PORT, SESSION_PORT] {
            let listener = vsock::Listener::bind(port)
                .map_err(|source| TransportError::Vsock { port, source })?;
            vsock.push((port, listener));
        }
    }
    if link.is_none() && vsock.is_empty() {
        return Err(TransportError::Nothing);
    }
    Ok(Listeners { vsock, link })
}

/// Serves them, each on a thread of its own.
pub(crate) fn serve(listeners: Listeners, guest: &Arc<Guest>) -> Result<(), TransportError> {
    for (port, listener) in listeners.vsock {
        let guest = Arc::clone(guest);
        thread("vsock", move || {
            listener.run(|stream| connection(&guest, port, stream));
        })?;
    }
    if let Some(port) = listeners.link {
        let guest = Arc::clone(guest);
        thread("link", move || {
            port.run(|port, stream| connection(&guest, port, stream));
            // Nobody can reach us any more, and nobody ever will.
            crate::boot::reset();
        })?;
    }
    Ok(())
}

/// Whether something listens on `port`.
fn known(port: u32) -> bool {
    matches!(port, ORIGINAL_PORT | SESSION_PORT)
}

/// Serves one connection on a thread of its own. A connection that fails concerns only its client.
fn connection(guest: &Arc<Guest>, port: u32, stream: UnixStream) {
    let guest = Arc::clone(guest);
    let workers = guest.workers.clone();
    let started = workers.run(move || {
        let served = match port {
            ORIGINAL_PORT => original::serve(&guest, stream),
            _ => session::serve(&guest, stream),
        };
        if let Err(error) = served {
            console::log(&format!("connection to port {port} ended: {error}"));
        }
    });
    if let Err(error) = started {
        console::log(&format!("cannot serve a connection: {error}"));
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), TransportError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .map_err(TransportError::Thread)
}
