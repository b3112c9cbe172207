//! Starts processes, all from one thread that never ends.
//!
//! The kernel tells a process of the end of the thread that started it, not of the whole program
//! (prctl(2), `PR_SET_PDEATHSIG`): started from a connection's thread, a VMM would end with that.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Job = (Command, Sender<io::Result<Child>>);

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(Sender<Job>);

impl Spawner {
    pub(crate) fn start() -> io::Result<Spawner> {
        let (sender, jobs) = channel::<Job>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in jobs {
                    let spawned = command.spawn();
                    // What the command holds for its process is closed here before anybody is told.
                    drop(command);
                    if let Err(unheard) = answer.send(spawned)
                        && let Ok(mut child) = unheard.0
                    {
                        // Whoever asked is gone; it has just been started, and is ours to end.
                        let _ = child.kill();
                        let _ = child.wait();
                    }
                }
            })?;
        Ok(Spawner(sender))
    }

    /// Starts a process.
    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts processes is gone");
        let (answer, answered) = channel();
        self.0.send((command, answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}
