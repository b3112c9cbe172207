//! A host that only says that it ran something.
//!
//! The code of a run tells the host what to do with it:
//!
//! | code | the host |
//! | --- | --- |
//! | `hold` | keeps it until it is told to let go, or the run is stopped |
//! | `break` | says that it could not run it |
//! | `stream` | says that it wrote `first` to stdout; then `last` to stderr, once it may let go |
//! | other | says that it wrote its own code to stdout |

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use firelane_store::bus::{Bus, Server};
use firelane_wire::bus::{FollowRun, StartRun, StopRun};
use firelane_wire::content::Content;
use firelane_wire::event::{End, Event, LogPage};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Ending, Origin, Ran};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{sandboxes, templates};

/// Its name.
pub(crate) const HOST: &str = "fake";

/// The runs that the host was given, in order: id and code.
pub(crate) type Begun = Arc<Mutex<Vec<(String, String)>>>;

type Given = Arc<Mutex<HashMap<String, (String, CancellationToken)>>>;

/// Serves as the host; what is held goes on when it is let go.
pub(crate) async fn host(bus: Arc<dyn Bus>, held: watch::Receiver<bool>, begun: Begun) -> Server {
    let given = Given::default();
    let mut server = Server::new(bus, &format!("agent.{HOST}"));
    let all = Arc::clone(&given);
    let start = move |call: StartRun| {
        let code = match call.request.code {
            Content::Text(code) => code,
            _ => String::new(),
        };
        let mut begun = begun.lock().expect("nobody panicked");
        begun.push((call.id.to_string(), code.clone()));
        let mut all = all.lock().expect("nobody panicked");
        all.insert(call.id.to_string(), (code, CancellationToken::new()));
        std::future::ready(Ok(()))
    };
    server.on(start).await.expect("it is served");
    let all = Arc::clone(&given);
    let stop = move |call: StopRun| {
        let all = all.lock().expect("nobody panicked");
        all[&call.id.to_string()].1.cancel();
        std::future::ready(Ok(()))
    };
    server.on(stop).await.expect("it is served");
    let follow = move |call: FollowRun| {
        let found = given.lock().expect("nobody panicked")[&call.id.to_string()].clone();
        let mut held = held.clone();
        async move {
            let (code, stopped) = found;
            if code == "hold" {
                tokio::select! {
                    _ = held.wait_for(|let_go| *let_go) => {}
                    () = stopped.cancelled() => return Ok(page(vec![ended(End::Cancelled)])),
                }
            }
            if code == "stream" {
                if call.read.after == 0 {
                    return Ok(first());
                }
                let _ = held.wait_for(|let_go| *let_go).await;
                return Ok(rest(call.read.after));
            }
            Ok(ran(code))
        }
    };
    server.on(follow).await.expect("it is served");
    sandboxes::serve(&mut server).await;
    templates::serve(&mut server).await;
    server
}

/// What `stream` says at first.
fn first() -> LogPage {
    let (host, origin) = (HOST.into(), Origin::Pool);
    let events = vec![
        Event::Started { host, origin },
        Event::Stdout(b"first\n".into()),
    ];
    LogPage {
        end: false,
        ..page(events)
    }
}

/// What it says after that.
fn rest(after: u64) -> LogPage {
    let mut page = ran(String::new());
    let end = page.events.pop().map(|(_, end)| end);
    let events = [Event::Stderr(b"last\n".into())].into_iter().chain(end);
    page.events = (after + 1..).zip(events).collect();
    page
}

fn ran(code: String) -> LogPage {
    if code == "break" {
        let problem = Problem::new(Code::Internal, "the host broke");
        return page(vec![ended(End::Failed(problem))]);
    }
    let origin = Origin::Pool;
    let phases_ms = [("renewed", 5.0), ("result", 30.0)];
    let ran = Ran {
        host: HOST.into(),
        origin,
        phases_ms: phases_ms.map(|(name, at)| (name.into(), at)).into(),
        ..Ran::default()
    };
    let ending = Ending {
        exit_code: 3,
        ..Ending::default()
    };
    let host = HOST.into();
    let started = Event::Started { host, origin };
    let stdout = Event::Stdout(code.into_bytes());
    page(vec![started, stdout, ended(End::Done { ending, ran })])
}

fn ended(end: End) -> Event {
    Event::Ended(Box::new(end))
}

fn page(events: Vec<Event>) -> LogPage {
    LogPage {
        events: (1..).zip(events).collect(),
        gap: None,
        end: true,
    }
}
