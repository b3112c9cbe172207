//! Warm clones: they have run a program of their language, and wait, stopped, for the one that
//! claims them.
//!
//! Emulation translates every piece of the guest's code the first time that it runs. A clone that
//! has run one program of its language has most of what the next one needs, so that one is many
//! times faster. Nobody's program has run in it: the throwaway one is ours. Then it is warmed as the
//! template was, so that what a program uses up is there again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firelane_guest_proto::Lang;
use firelane_guest_proto::message::{ExecSpec, Limits, Program, WarmSpec};
use firelane_vmm::driver::{ControlError, MicroVm};
use firelane_vmm::session::{Session, SessionError};
use firelane_vmm::timeline::{Phase, Timeline};

use crate::clone::{CloneError, Names, Ready, renew};
use crate::follow::{Bounds, FollowError, Sink, follow};
use crate::network::{self, GuestNetwork};
use crate::workshop::{Prepared, Workshop};

/// How long the throwaway program may take; rustc under emulation needs seconds.
const WARMING: Duration = Duration::from_secs(120);
/// What it may write.
const WARMING_OUTPUT: u64 = 4096;

/// Why there is no warm clone. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// There is no clone.
    #[error(transparent)]
    Clone(#[from] CloneError),
    /// The throwaway program could not be run.
    #[error("cannot run the throwaway program")]
    Session(#[from] SessionError),
    /// It was not followed to its end.
    #[error("the throwaway program came to no end")]
    Follow(#[from] FollowError<Infallible>),
    /// It failed.
    #[error("the throwaway program ended with exit code {0}")]
    Failed(i32),
    /// The microVM could not be paused, or could not go on.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A clone that waits, stopped.
pub struct Warm {
    vm: Box<dyn MicroVm>,
    session: Session,
    names: Names,
    network: Option<GuestNetwork>,
}

impl Warm {
    /// A fresh clone that has run a program of `lang`.
    ///
    /// # Errors
    /// [`WarmError`].
    pub async fn make(
        workshop: &Workshop,
        prepared: &Arc<Prepared>,
        lang: Lang,
        id: &str,
    ) -> Result<Warm, WarmError> {
        let mut unseen = Timeline::start();
        let Ready {
            mut vm,
            session,
            names,
            network,
        } = workshop.restore(prepared, id, &mut unseen).await?;
        match exercise(&mut *vm, &session, prepared, lang).await {
            Ok(()) => {
                session.set_paused(true);
                Ok(Warm {
                    vm,
                    session,
                    names,
                    network,
                })
            }
            Err(error) => {
                destroy(vm, network).await;
                Err(error)
            }
        }
    }

    /// Has it go on, with the present time and numbers of its own.
    ///
    /// # Errors
    /// [`WarmError`].
    pub async fn wake(self, timeline: &mut Timeline) -> Result<Ready, WarmError> {
        let Warm {
            mut vm,
            session,
            names,
            network,
        } = self;
        let woken = async {
            vm.resume().await?;
            session.set_paused(false);
            timeline.mark(Phase::Started);
            renew(&session, &names).await?;
            timeline.mark(Phase::Renewed);
            Ok(())
        };
        match woken.await {
            Ok(()) => Ok(Ready {
                vm,
                session,
                names,
                network,
            }),
            Err(error) => {
                destroy(vm, network).await;
                Err(error)
            }
        }
    }

    /// Ends it, unused.
    pub async fn destroy(self) {
        drop(self.session);
        destroy(self.vm, self.network).await;
    }
}

async fn exercise(
    vm: &mut dyn MicroVm,
    session: &Session,
    prepared: &Prepared,
    lang: Lang,
) -> Result<(), WarmError> {
    let exec = session.exec(&throwaway(prepared, lang)).await?;
    let again = WarmSpec {
        snippets: Vec::new(),
        env: env(prepared),
    };
    let bounds = Bounds {
        time: Some(WARMING),
        output: WARMING_OUTPUT,
    };
    let outcome = follow(vm, exec, bounds, &mut Nowhere).await?;
    if outcome.exit_code() != 0 {
        return Err(WarmError::Failed(outcome.exit_code()));
    }
    // What it used up is there again; and until it is renewed, the clone runs nothing.
    session.warm(&again).await?;
    Ok(vm.pause().await?)
}

/// A program that goes the way of ordinary ones: it reads its input's end and writes a line.
fn throwaway(prepared: &Prepared, lang: Lang) -> ExecSpec {
    let source = match lang {
        Lang::Python => "import sys\nprint(len(sys.argv), file=sys.stdout)\n",
        Lang::Bash => "echo $#\n",
        Lang::Node => "console.log(process.argv.length)\n",
        Lang::Ruby => "puts ARGV.length\n",
        Lang::Rust => "fn main() { println!(\"{}\", std::env::args().count()); }\n",
    };
    ExecSpec {
        trace_id: "warming".into(),
        program: Program::Code {
            lang,
            source: source.into(),
            args: Vec::new(),
        },
        env: env(prepared).into_iter().chain(apart(lang)).collect(),
        cwd: None,
        limits: Limits {
            timeout_ms: u64::try_from(WARMING.as_millis()).unwrap_or(u64::MAX),
            output_bytes: WARMING_OUTPUT,
            ..Limits::default()
        },
        pty: None,
    }
}

/// What keeps the throwaway program from Node's interpreter that waits: one that starts now would be
/// twice as slow for the program that claims the clone. An interpreter of its own runs the same code.
fn apart(lang: Lang) -> Option<(String, String)> {
    // Any variable of this name that was not there when the one that waits was started.
    (lang == Lang::Node).then(|| ("NODE_FIRELANE_WARMING".into(), "1".into()))
}

/// The template's environment.
fn env(prepared: &Prepared) -> Vec<(String, String)> {
    let manifest = prepared.template.manifest();
    manifest.env.clone().into_iter().collect()
}

async fn destroy(vm: Box<dyn MicroVm>, network: Option<GuestNetwork>) {
    if let Err(error) = vm.destroy().await {
        tracing::warn!(%error, "left to the next sweep");
    }
    network::close(network).await;
}

/// Nobody reads what the throwaway program writes.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    type Error = Infallible;

    async fn stdout(&mut self, _: Vec<u8>) -> Result<(), Infallible> {
        Ok(())
    }

    async fn stderr(&mut self, _: Vec<u8>) -> Result<(), Infallible> {
        Ok(())
    }
}
