//! The public face: HTTP, API keys, streams. It asks the coordinator for everything but the programs
//! and files of a sandbox, for which it asks the agent of its host, and talks to no guest.
//!
//! ```text
//!   listen ─▶ trace ─▶ spans ─▶ origin ─▶ idempotency ─▶ who ─▶ body ─▶ handler ─▶ coordinator or agent, over the Bus
//! ```
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`listen`] | sockets, TLS, time-outs of connections |
//! | [`tls`] | certificates |
//! | `trace` | request ids, `Server-Timing`, the bodies of problems, `traceparent` |
//! | `spans` | what was asked of sandboxes, for a collector of traces |
//! | `origin` | pages of browsers, where keys are off |
//! | `auth` | API keys: who, which scope, how often |
//! | `idempotency` | requests that are repeated |
//! | `body` | JSON in, with errors that say what is wrong |
//! | `path`, `prefer`, `created`, `failure` | ids, headers and answers that several of those below have |
//! | `whole` | steps that are carried out to their end, whoever leaves |
//! | `runs` | `/v1/runs` |
//! | `sandboxes` | `/v1/sandboxes`, `/v1/snapshots` |
//! | `templates` | `/v1/templates`, `/v1/builds` |
//! | `follow` | the logs of programs, as clients follow them |
//! | `look` | `/v1/queue`, `/v1/hosts`, `/v1/usage`, health |
//! | `keys` | `/v1/keys` |
//! | `metrics` | `/metrics` |
//! | `openapi` | the API's description, made from the types |
//! | `dashboard` | pages for people, and who logged in to see them |

mod auth;
mod body;
mod created;
mod dashboard;
mod failure;
mod follow;
mod idempotency;
mod keys;
pub mod listen;
mod look;
mod metrics;
pub mod openapi;
mod origin;
mod path;
mod prefer;
mod runs;
mod sandboxes;
mod spans;
mod templates;
pub mod tls;
mod trace;
mod whole;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post};
use firelane_model::id::RunId;
use firelane_model::time::Moment;
use firelane_store::bus::{Bus, Calls};
use firelane_traces::Sink;
use tokio_util::sync::CancellationToken;

use auth::{Clock, Rates};
use dashboard::ended::Ends;
use dashboard::session::Sessions;
use follow::Log;
use metrics::Metrics;
use sandboxes::{execs, files};

/// What a gateway is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// API keys are needed, except over the Unix socket.
    pub keys: bool,
    /// User who owns the service: over the Unix socket it and root need no key.
    pub owner: u32,
    /// Takes the spans of requests about sandboxes.
    pub traces: Sink,
}

/// The gateway.
pub struct Gateway {
    config: Config,
    bus: Arc<dyn Bus>,
    coordinator: Calls,
    rates: Rates,
    clock: Clock,
    metrics: Metrics,
    /// Set while the service goes down: it is not ready any more.
    draining: CancellationToken,
    sessions: Sessions,
    ends: Ends,
}

impl Gateway {
    /// A gateway to the coordinator on this Bus.
    #[must_use]
    pub fn new(config: Config, bus: Arc<dyn Bus>, draining: CancellationToken) -> Arc<Gateway> {
        Arc::new(Gateway {
            config,
            coordinator: Calls::of(Arc::clone(&bus), "coordinator"),
            bus,
            rates: Rates::default(),
            clock: Clock::start(),
            metrics: Metrics::new(),
            draining,
            sessions: Sessions::default(),
            ends: Ends::default(),
        })
    }

    /// Calls of one host's agent.
    fn agent(&self, host: &str) -> Calls {
        Calls::of(Arc::clone(&self.bus), &format!("agent.{host}"))
    }

    /// The log of a run.
    fn log_of_run(&self, tenant: &str, id: RunId) -> Log {
        Log::Run {
            coordinator: self.coordinator.clone(),
            tenant: tenant.into(),
            id,
        }
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Every path.
    pub fn router(self: &Arc<Self>) -> Router {
        let v1 = Router::new()
            .route("/runs", post(runs::post::post).get(runs::list::list))
            .route("/runs:batch", post(runs::batch::batch))
            .route(
                "/runs/{id}",
                get(runs::get::get).delete(runs::cancel::cancel),
            )
            .route("/runs/{id}/events", get(runs::events::get))
            .route("/runs/{id}/ws", get(runs::ws::get))
            .route(
                "/sandboxes",
                post(sandboxes::create::create).get(sandboxes::list::list),
            )
            .route(
                "/sandboxes/{id}",
                get(sandboxes::get::get)
                    .patch(sandboxes::change::patch)
                    .delete(sandboxes::change::destroy)
                    .post(sandboxes::verbs::post),
            )
            .route(
                "/sandboxes/{id}/snapshots",
                post(sandboxes::snapshots::take).get(sandboxes::snapshots::of_sandbox),
            )
            .route(
                "/sandboxes/{id}/execs",
                post(execs::start::start).get(execs::look::list),
            )
            .route(
                "/sandboxes/{id}/execs/{exec}",
                get(execs::look::get)
                    .delete(execs::feed::kill)
                    .post(execs::feed::post),
            )
            .route(
                "/sandboxes/{id}/execs/{exec}/events",
                get(execs::stream::events),
            )
            .route("/sandboxes/{id}/execs/{exec}/ws", get(execs::stream::ws))
            .route("/snapshots", get(sandboxes::snapshots::list))
            .route(
                "/snapshots/{id}",
                get(sandboxes::snapshots::get).delete(sandboxes::snapshots::remove),
            )
            .route(
                "/templates",
                post(templates::builds::start).get(templates::look::list),
            )
            .route(
                "/templates/{name}",
                get(templates::look::get).delete(templates::look::remove),
            )
            .route("/builds/{id}", get(templates::builds::get))
            .route("/builds/{id}/events", get(templates::builds::events))
            .route("/queue", get(look::queue))
            .route("/hosts", get(look::hosts))
            .route("/usage", get(look::usage))
            .route("/keys", post(keys::make).get(keys::list))
            .route("/keys/{id}", delete(keys::revoke));
        Router::new()
            .nest("/v1", files::routes(v1))
            .route("/healthz", get(look::health))
            .route("/readyz", get(look::ready))
            .route("/metrics", get(metrics::metrics))
            .route("/openapi.json", get(openapi::serve))
            .merge(dashboard::routes::router())
            .fallback(failure::no_such_path)
            .method_not_allowed_fallback(failure::wrong_method)
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                idempotency::layer,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                origin::layer,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                metrics::layer,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                spans::layer,
            ))
            .layer(middleware::from_fn(trace::layer))
            .with_state(Arc::clone(self))
    }
}
