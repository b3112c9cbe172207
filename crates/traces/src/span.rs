//! What is told: one step of something, with its begin and its end.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use uuid::Uuid;

/// Name of the scope that the spans belong to.
const SCOPE: &str = "firelane";

/// A step that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which trace; not 0.
    pub trace_id: u128,
    /// Which span of it; not 0.
    pub id: u64,
    /// The step that this one is a part of.
    pub parent: Option<Parent>,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: SystemTime,
    /// When it was over; not before its begin.
    pub end: SystemTime,
    /// What is to be known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did, as one word.
    pub error: Option<&'static str>,
}

/// A name of a span that no other has.
#[must_use]
pub fn fresh_id() -> u64 {
    root_of(Uuid::now_v7().as_u128())
}

/// The span that is the whole of the trace with this id, a UUID of version 7: the others can name it
/// before it is over.
#[must_use]
pub fn root_of(trace_id: u128) -> u64 {
    // The lower half is random, and its variant keeps it from being 0.
    trace_id as u64
}

/// The step that another one is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// One that is told by the same.
    Here(u64),
    /// One of the caller's.
    Caller(u64),
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Number(number.into())
    }
}

impl From<Value> for opentelemetry::Value {
    fn from(value: Value) -> opentelemetry::Value {
        match value {
            Value::Text(text) => text.into(),
            Value::Number(number) => number.into(),
        }
    }
}

impl From<Span> for SpanData {
    fn from(span: Span) -> SpanData {
        let (parent, is_remote) = match span.parent {
            None => (SpanId::INVALID, false),
            Some(Parent::Here(id)) => (SpanId::from(id), false),
            Some(Parent::Caller(id)) => (SpanId::from(id), true),
        };
        let span_context = SpanContext::new(
            TraceId::from(span.trace_id),
            SpanId::from(span.id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let is_inner = matches!(span.parent, Some(Parent::Here(_)));
        let attributes = span.attributes.into_iter();
        SpanData {
            span_context,
            parent_span_id: parent,
            parent_span_is_remote: is_remote,
            span_kind: if is_inner {
                SpanKind::Internal
            } else {
                SpanKind::Server
            },
            name: span.name,
            start_time: span.start,
            end_time: span.end,
            attributes: attributes
                .map(|(key, value)| KeyValue::new(key, value))
                .collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}
