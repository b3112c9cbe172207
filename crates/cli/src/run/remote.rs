//! A run by the service of this machine, if one is there: its warm pool is faster than a microVM that
//! we restore ourselves.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_agent::follow::Sink;
use firelane_client::attach::{self, Events, Told};
use firelane_client::{Client, ClientError, Target};
use firelane_model::id::RunId;
use firelane_wire::content::{Content, base64};
use firelane_wire::run::{FileIn as WireFile, MAX_OUTPUT_BYTES, RunRequest};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::aside::{Aside, cannot_write};
use super::{Done, Output, Program, StdinSource, interruptible, print_timings};
use crate::args::{DriverChoice, RunArgs};
use crate::failure::Failure;
use crate::host::open_store;

/// How long the service may take to say that it takes work.
const LOOK: Duration = Duration::from_secs(2);
/// Most bytes of code and files that a request can carry, as base64 with room for the rest.
const MAX_REQUEST_BYTES: u64 = 600 << 10;

/// The service of this machine, if it is there and can run this program as we would.
pub(crate) async fn service(args: &RunArgs, program: &Program) -> Result<Option<Client>, Failure> {
    let machine = &args.machine;
    let files: u64 = program.files_in.iter().map(|file| file.spec.size).sum();
    let ordinary = !args.local
        && !machine.cold
        && machine.vcpus == 1
        && machine.seccomp.is_none()
        && machine.driver == DriverChoice::Auto
        // Not a definition file.
        && !machine.template.contains(['/', '.'])
        && u64::from(args.max_output_mib) << 20 <= MAX_OUTPUT_BYTES
        && program.input.source.len() as u64 + files <= MAX_REQUEST_BYTES;
    let path = args.socket.path();
    if !ordinary || !is_ours(&path) {
        return Ok(None);
    }
    // One that is not built yet is built by us, with a word about it.
    let template = machine.template.clone();
    let built = tokio::task::spawn_blocking(move || {
        Ok::<bool, Failure>(open_store()?.get(&template).is_ok())
    });
    if !built.await.map_err(Failure::platform)?? {
        return Ok(None);
    }
    let client = Client::new(Target::Unix(path), None);
    match timeout(LOOK, client.ready()).await {
        Ok(Ok(())) => Ok(Some(client)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the service of this machine is not used");
            Ok(None)
        }
        Err(_) => {
            tracing::warn!("the service of this machine does not answer, and is not used");
            Ok(None)
        }
    }
}

/// Whether the socket is there, and was made by us or by root: code is given to nobody else.
fn is_ours(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type().is_socket() && (meta.uid() == me || meta.uid() == 0),
        Err(_) => false,
    }
}

/// Runs by the service, until the end, Ctrl-C or SIGTERM.
pub(crate) async fn run(
    args: &RunArgs,
    program: Program,
    client: &Client,
    output: &mut Output,
) -> Result<Done, Failure> {
    let Program {
        input,
        stdin,
        files_in,
        files_out,
    } = program;
    let mut files = Vec::new();
    for mut file in files_in {
        let mut content = Vec::new();
        file.file
            .read_to_end(&mut content)
            .map_err(|error| Failure::usage(format!("cannot read a file to put: {error}")))?;
        files.push(WireFile {
            path: file.spec.path,
            content: content_of(&content),
            mode: file.spec.mode,
        });
    }
    let request = RunRequest {
        lang: input.lang,
        code: content_of(&input.source),
        template: args.machine.template.clone(),
        args: input.args,
        stdin: Content::Nothing,
        interactive: true,
        pty: None,
        env: args.env.iter().cloned().collect(),
        files,
        fetch: files_out.iter().map(|file| file.guest.clone()).collect(),
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
        memory_mib: args.machine.memory_mib,
        output_bytes: u64::from(args.max_output_mib) << 20,
        priority: 0,
        deadline_ms: None,
        labels: std::collections::BTreeMap::new(),
    };
    let submitted = interruptible(async { Ok(client.submit(&request).await?) }).await?;
    let places = files_out
        .into_iter()
        .map(|file| (file.guest, file.host))
        .collect();
    let following = follow(args, client, submitted.id, stdin, places, output);
    let followed = interruptible(following).await;
    if followed.is_err()
        && let Err(error) = client.cancel(submitted.id).await
    {
        tracing::warn!(run = %submitted.id, %error, "the service goes on with the run");
    }
    followed
}

fn content_of(bytes: &[u8]) -> Content {
    match std::str::from_utf8(bytes) {
        Ok(text) => Content::Text(text.into()),
        Err(_) => Content::Base64 {
            base64: base64(bytes),
        },
    }
}

async fn follow(
    args: &RunArgs,
    client: &Client,
    id: RunId,
    stdin: StdinSource,
    places: HashMap<String, PathBuf>,
    output: &mut Output,
) -> Result<Done, Failure> {
    let (mut events, mut input) = attach::attach(client, id).await?;
    let feeding = async {
        let fed = match stdin {
            StdinSource::Empty => Ok(()),
            StdinSource::Inherited => feed(&mut input, tokio::io::stdin()).await,
            StdinSource::File(file) => feed(&mut input, tokio::fs::File::from_std(file)).await,
        };
        if fed.is_ok() {
            // A program that has ended needs no end of its input.
            let _ = input.end().await;
        }
        fed
    };
    let mut fetched = Fetched {
        places,
        open: None,
        missing: Vec::new(),
    };
    let told = {
        let hearing = hear(&mut events, output, &mut fetched);
        tokio::pin!(hearing, feeding);
        tokio::select! {
            told = &mut hearing => told?,
            fed = &mut feeding => {
                fed?;
                hearing.await?
            }
        }
    };
    if let Some(problem) = told.data.problem {
        return Err(ClientError::Refused(problem).into());
    }
    let (Some(ending), Some(ran)) = (told.data.ending, told.data.ran) else {
        let reason = told.data.reason.unwrap_or_else(|| "unknown".into());
        return Err(Failure::platform(anyhow::anyhow!("the run was {reason}")));
    };
    if args.timings {
        print_timings(&ran.phases_ms);
    }
    Ok(Done {
        id: id.to_string(),
        ending,
        ran,
        missing: fetched.missing,
    })
}

/// Passes on what happens until the end, and gives that.
async fn hear(
    events: &mut Events,
    output: &mut Output,
    fetched: &mut Fetched,
) -> Result<Told, Failure> {
    while let Some(mut told) = events.next().await? {
        match told.event.as_str() {
            "stdout" => output.stdout(told.bytes()?).await?,
            "stderr" => output.stderr(told.bytes()?).await?,
            "file" => fetched.part(told)?,
            "missing" => fetched.missing(told),
            "ended" => {
                fetched.complete()?;
                return Ok(told);
            }
            "problem" => return Ok(told),
            _ => {}
        }
    }
    let error = anyhow::anyhow!("the service ended the stream before the run was over");
    Err(Failure::platform(error))
}

/// The files that come back.
struct Fetched {
    places: HashMap<String, PathBuf>,
    open: Option<(String, Aside, fs::File)>,
    missing: Vec<Failure>,
}

impl Fetched {
    fn part(&mut self, mut told: Told) -> Result<(), Failure> {
        let path = told.data.path.take().unwrap_or_default();
        let bytes = told.bytes()?;
        if self.open.as_ref().is_none_or(|(open, ..)| *open != path) {
            self.complete()?;
            let Some(place) = self.places.get(&path) else {
                let error = anyhow::anyhow!("the service sent a file that was not asked for");
                return Err(Failure::platform(error));
            };
            let aside = Aside::of(place)?;
            let file = aside.file()?;
            self.open = Some((path, aside, file));
        }
        if let Some((path, _, file)) = &mut self.open {
            file.write_all(&bytes)
                .map_err(|error| cannot_write(path.as_ref(), error))?;
        }
        Ok(())
    }

    fn missing(&mut self, told: Told) {
        let path = told.data.path.unwrap_or_default();
        let reason = told.data.reason.unwrap_or_default();
        let error = anyhow::anyhow!("cannot fetch {path}: {reason}");
        self.missing.push(Failure::platform(error));
    }

    fn complete(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some((_, aside, _)) => aside.into_place(),
            None => Ok(()),
        }
    }
}

async fn feed(
    input: &mut attach::Input,
    mut from: impl tokio::io::AsyncRead + Unpin,
) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.map_err(|error| {
            let context = "cannot read the program's standard input";
            Failure::platform(anyhow::Error::from(error).context(context))
        })?;
        if read == 0 {
            return Ok(());
        }
        if let Err(error) = input.stdin(buffer[..read].to_vec()).await {
            // When the program ends first, what is left is not needed.
            tracing::debug!(%error, "the run ended before the program's input");
            return Ok(());
        }
    }
}
