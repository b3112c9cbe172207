//! `GET /metrics`: what is measured, as text (OpenMetrics 1.0). `docs/metrics.md` lists it.
//!
//! `prometheus-client` rather than `metrics`: its registry is a value, so that two services of one
//! process do not mix, and labels are types, so that nothing unbounded becomes one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use firelane_wire::problem::{Code, Problem};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::Gateway;
use crate::failure::{Answer, Failure};

/// Source: OpenMetrics 1.0, "Content negotiation".
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Route of requests to paths that there are not. Their own would be as many as callers like.
const NO_ROUTE: &str = "none";

/// Upper bounds of what requests take: 0.5 ms to 65 s, each twice the one before.
fn of_requests() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 18))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    code: &'static str,
}

/// What the gateway measures, and what it shows.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    took: Family<Asked, Histogram, fn() -> Histogram>,
    problems: Family<Refused, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let metrics = Metrics {
            registry: Mutex::default(),
            requests: Family::default(),
            took: Family::new_with_constructor(of_requests),
            problems: Family::default(),
        };
        {
            let mut registry = metrics.registry();
            let requests = "Requests that were answered";
            registry.register("firelane_http_requests", requests, metrics.requests.clone());
            let took = "From a request's head to its answer's head";
            let name = "firelane_http_request";
            registry.register_with_unit(name, took, Unit::Seconds, metrics.took.clone());
            let problems = "Requests that were answered with a problem";
            registry.register("firelane_http_problems", problems, metrics.problems.clone());
        }
        metrics
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refused(&self, problem: &Problem) {
        let code = problem.code.name();
        self.problems.get_or_create(&Refused { code }).inc();
    }

    fn answered(&self, route: String, method: &Method, status: StatusCode, took: Duration) {
        let method = method_label(method);
        let asked = Asked {
            route: route.clone(),
            method,
        };
        self.took.get_or_create(&asked).observe(took.as_secs_f64());
        let answered = Answered {
            route,
            method,
            status: status.as_u16(),
        };
        self.requests.get_or_create(&answered).inc();
    }
}

impl Gateway {
    /// Has others add what they measure to what `/metrics` shows.
    pub fn show(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.metrics.registry());
    }
}

/// Counts requests.
pub(crate) async fn layer(
    State(gateway): State<Arc<Gateway>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let start = std::time::Instant::now();
    let route = route.map_or_else(|| NO_ROUTE.to_owned(), |route| route.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    if let Some(problem) = response.extensions().get::<Problem>() {
        gateway.metrics.refused(problem);
    }
    let metrics = &gateway.metrics;
    metrics.answered(route, &method, response.status(), start.elapsed());
    response
}

/// Methods are words that callers choose: those that nothing takes are one.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What is measured, for Prometheus
///
/// Needs no API key, like the health: it tells of no tenant.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", security(()),
    responses((status = 200, description = "OpenMetrics text", body = String,
               content_type = "application/openmetrics-text"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Answer<Response> {
    let mut text = String::new();
    let encoded = encode(&mut text, &gateway.metrics.registry());
    encoded.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nothing_takes_is_no_label_of_its_own() {
        assert_eq!(method_label(&Method::DELETE), "DELETE");
        let odd = Method::from_bytes(b"BREW-123").expect("it is a method");
        assert_eq!(method_label(&odd), "other");
    }
}
