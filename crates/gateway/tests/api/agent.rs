//! An agent with programs that do what their command says, and with the files of [`crate::pipes`].
//!
//! | command | the program |
//! | --- | --- |
//! | `hold` | says `hi` on stdout, and runs until it is killed |
//! | `fail` | Firelane could not run it to its end |
//! | `lost` | has ended; the first two of its events are gone, and nobody says so |
//! | `flood` | says more on stdout than an answer that is kept may have, and has ended |
//! | other | says `hi` on stdout, and bytes that are no text on stderr, and has ended |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firelane_model::id::ExecId;
use firelane_store::bus::{Bus, BusError, Server};
use firelane_wire::bus::{FeedExec, FollowExec, GetExec, ListExecs, StartExec};
use firelane_wire::event::{End, Event, Input, LogPage};
use firelane_wire::exec::Exec;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Ending, Ran};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::coordinator::HOST;
use crate::fake::Asked;
use crate::pipes;

/// What happened to a program; it is over once the last event says so.
type Log = Vec<(u64, Event)>;
type Programs = Arc<Mutex<BTreeMap<ExecId, watch::Sender<Log>>>>;

pub(crate) async fn serve(bus: Arc<dyn Bus>, asked: Asked) -> Server {
    let mut server = Server::new(bus, &format!("agent.{HOST}"));
    let registered = programs(&mut server, asked.clone()).await;
    registered.expect("the Bus is open");
    let registered = pipes::register(&mut server, asked).await;
    registered.expect("the Bus is open");
    server
}

async fn programs(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    let programs = Programs::default();
    let (all, notes) = (Arc::clone(&programs), asked.clone());
    server
        .on(move |call: StartExec| {
            notes.note(&call);
            let log = begun(&call);
            let exec = shown(call.id, &log);
            let mut programs = all.lock().expect("nobody panics");
            programs.insert(call.id, watch::Sender::new(log));
            async { Ok(exec) }
        })
        .await?;
    let all = Arc::clone(&programs);
    server
        .on(move |_: ListExecs| {
            let programs = all.lock().expect("nobody panics");
            let execs = programs.iter().map(|(id, log)| shown(*id, &log.borrow()));
            let execs = execs.collect();
            async { Ok(execs) }
        })
        .await?;
    let all = Arc::clone(&programs);
    server
        .on(move |call: GetExec| {
            let log = find(&all, call.id);
            async move { Ok(shown(call.id, &log?.borrow())) }
        })
        .await?;
    let all = Arc::clone(&programs);
    server
        .on(move |call: FeedExec| {
            asked.note(&call);
            let log = find(&all, call.id);
            async move {
                let log = log?;
                if over(&log.borrow()) {
                    return Err(Problem::new(Code::Conflict, "the program has ended"));
                }
                if call.input == Input::Signal(9) {
                    let ending = Ending {
                        signal: Some(9),
                        ..Ending::default()
                    };
                    log.send_modify(|log| log.push((2, done(ending))));
                }
                Ok(())
            }
        })
        .await?;
    server
        .on(move |call: FollowExec| {
            let log = find(&programs, call.id);
            async move {
                let mut seen = log?.subscribe();
                let news = |log: &Log| over(log) || log.iter().any(|(n, _)| *n > call.read.after);
                let enough = |log: &Log| over(log) || (!call.read.whole && news(log));
                let wait = Duration::from_millis(call.read.wait_ms);
                drop(timeout(wait, seen.wait_for(enough)).await);
                let log = seen.borrow().clone();
                Ok(page(&log, call.read.after))
            }
        })
        .await
}

/// Events after this one, as many as fit a message.
fn page(log: &Log, after: u64) -> LogPage {
    let news: Vec<_> = log.iter().filter(|(n, _)| *n > after).cloned().collect();
    let mut room: usize = 900 << 10;
    let fits = |(_, event): &&(u64, Event)| {
        let left = room.checked_sub(event.bytes());
        room = left.unwrap_or_default();
        left.is_some()
    };
    let events: Vec<_> = news.iter().take_while(fits).cloned().collect();
    LogPage {
        end: over(log) && events.len() == news.len(),
        events,
        gap: None,
    }
}

fn find(programs: &Programs, id: ExecId) -> Result<watch::Sender<Log>, Problem> {
    let programs = programs.lock().expect("nobody panics");
    let found = programs.get(&id).cloned();
    found.ok_or_else(|| Problem::not_found("exec", id))
}

fn begun(call: &StartExec) -> Log {
    let hi = Event::Stdout(b"hi\n".to_vec());
    let raw = Event::Stderr(vec![b'a', 0xff]);
    match call.request.command.first().map_or("", String::as_str) {
        "hold" => vec![(1, hi)],
        "fail" => {
            let problem = Problem::new(Code::Unavailable, "the microVM is gone");
            vec![(1, Event::Ended(Box::new(End::Failed(problem))))]
        }
        "flood" => {
            let part = Event::Stdout(vec![b'a'; 300 << 10]);
            let parts = (1..=4).map(|number| (number, part.clone()));
            parts.chain([(5, done(Ending::default()))]).collect()
        }
        "lost" => vec![(3, hi), (4, done(Ending::default()))],
        _ => vec![(1, hi), (2, raw), (3, done(Ending::default()))],
    }
}

fn done(ending: Ending) -> Event {
    let ran = Ran::default();
    Event::Ended(Box::new(End::Done { ending, ran }))
}

fn over(log: &Log) -> bool {
    matches!(log.last(), Some((_, Event::Ended(_))))
}

fn shown(id: ExecId, log: &Log) -> Exec {
    let ending = match log.last() {
        Some((_, Event::Ended(end))) => match &**end {
            End::Done { ending, .. } => Some(ending.clone()),
            _ => None,
        },
        _ => None,
    };
    Exec {
        id,
        running: !over(log),
        started_at: "2026-01-01T00:00:00Z".into(),
        ending,
        output: None,
        problem: None,
    }
}
