//! The public face: HTTP, API keys, streams. It asks the coordinator for everything and talks to no
//! guest.
//!
//! ```text
//!   listen ─▶ trace ─▶ who ─▶ body ─▶ handler ─▶ coordinator, over the Bus
//! ```
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`listen`] | sockets, TLS, time-outs of connections |
//! | [`tls`] | certificates |
//! | `trace` | request ids, `Server-Timing`, the bodies of problems |
//! | `auth` | API keys: who, which scope, how often |
//! | `body` | JSON in, with errors that say what is wrong |
//! | `runs` | `/v1/runs` |
//! | `sandboxes` | `/v1/sandboxes`, `/v1/snapshots` |
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
mod keys;
pub mod listen;
mod look;
mod metrics;
pub mod openapi;
mod runs;
mod sandboxes;
pub mod tls;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post};
use firelane_model::time::Moment;
use firelane_store::bus::{Bus, Calls};
use tokio_util::sync::CancellationToken;

use auth::{Clock, Rates};
use dashboard::ended::Ends;
use dashboard::session::Sessions;
use metrics::Metrics;

/// What a gateway is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// API keys are needed, except over the Unix socket.
    pub keys: bool,
    /// User who owns the service: over the Unix socket it and root need no key.
    pub owner: u32,
}

/// The gateway.
pub struct Gateway {
    config: Config,
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
            coordinator: Calls::of(bus, "coordinator"),
            rates: Rates::default(),
            clock: Clock::start(),
            metrics: Metrics::new(),
            draining,
            sessions: Sessions::default(),
            ends: Ends::default(),
        })
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
            .route("/runs/{id}/events", get(runs::events::events))
            .route("/runs/{id}/ws", get(runs::ws::ws))
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
            .route("/snapshots", get(sandboxes::snapshots::list))
            .route(
                "/snapshots/{id}",
                get(sandboxes::snapshots::get).delete(sandboxes::snapshots::remove),
            )
            .route("/queue", get(look::queue))
            .route("/hosts", get(look::hosts))
            .route("/usage", get(look::usage))
            .route("/keys", post(keys::make).get(keys::list))
            .route("/keys/{id}", delete(keys::revoke));
        Router::new()
            .nest("/v1", v1)
            .route("/healthz", get(look::health))
            .route("/readyz", get(look::ready))
            .route("/metrics", get(metrics::metrics))
            .route("/openapi.json", get(openapi::serve))
            .merge(dashboard::routes::router())
            .fallback(failure::no_such_path)
            .method_not_allowed_fallback(failure::wrong_method)
            .layer(middleware::from_fn_with_state(
                Arc::clone(self),
                metrics::layer,
            ))
            .layer(middleware::from_fn(trace::layer))
            .with_state(Arc::clone(self))
    }
}
