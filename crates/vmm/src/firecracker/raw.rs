//! Firecracker with nothing of ours around it: what a restore cannot be faster than. There is no jail, no
//! run directory, no cgroup, no record, no typed client: a process, one request that loads and resumes, one
//! connection over vsock, one greeting. Only for benchmarks, with guests of our own.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::frame::{Decoder, Kind};
use firelane_guest_proto::handshake::connect_line;
use firelane_guest_proto::message::{Hello, to_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Firecracker;
use crate::driver::SnapshotFiles;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Wait between two tries to connect.
const RETRY: Duration = Duration::from_micros(100);
/// What the answer to the load has to begin with.
const LOADED: &[u8] = b"HTTP/1.1 204";

impl Firecracker {
    /// From the start of the process to the guest's greeting, of a clone of this snapshot; its sockets are
    /// made in `folder`, which is empty again afterwards.
    ///
    /// # Errors
    /// Whatever failed first; nothing of the process is left.
    pub async fn raw(&self, files: &SnapshotFiles, folder: &Path) -> io::Result<Duration> {
        let (api, vsock) = (folder.join("api.sock"), folder.join("v.sock"));
        let begun = Instant::now();
        let mut child = Command::new(&self.program)
            .arg("--api-sock")
            .arg(&api)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let greeted = timeout(LIMIT, greeted(&mut child, &api, &vsock, files)).await;
        let took = begun.elapsed();
        child.kill().await?;
        for socket in [&api, &vsock] {
            match std::fs::remove_file(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(took)
    }
}

async fn greeted(
    child: &mut Child,
    api: &Path,
    vsock: &Path,
    files: &SnapshotFiles,
) -> io::Result<()> {
    let mut api = loop {
        match UnixStream::connect(api).await {
            Ok(stream) => break stream,
            Err(error) if child.try_wait()?.is_some() => return Err(error),
            Err(_) => sleep(RETRY).await,
        }
    };
    let body = serde_json::json!({
        "snapshot_path": files.state,
        "mem_backend": { "backend_type": "File", "backend_path": files.memory },
        "resume_vm": true,
        "vsock_override": { "uds_path": vsock },
    })
    .to_string();
    let length = body.len();
    let request = format!(
        "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    api.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let count = api.read(&mut answer).await?;
    if !answer[..count].starts_with(LOADED) {
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        return Err(io::Error::other(answer));
    }
    let mut guest = UnixStream::connect(vsock).await?;
    guest
        .write_all(connect_line(SESSION_PORT).as_bytes())
        .await?;
    while guest.read_u8().await? != b'\n' {}
    let mut hello = Vec::new();
    to_frame(0, Kind::Hello, &Hello::ours())
        .map_err(io::Error::other)?
        .encode(&mut hello);
    guest.write_all(&hello).await?;
    let mut decoder = Decoder::new();
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            return match frame.kind {
                Kind::Welcome => Ok(()),
                kind => Err(io::Error::other(format!(
                    "a {kind:?} frame in place of its welcome"
                ))),
            };
        }
        let mut bytes = [0; 1024];
        match guest.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(&bytes[..count]),
        }
    }
}
