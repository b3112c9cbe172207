//! What stands in paths: ids, and verbs after them.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use firelane_wire::problem::{Code, Problem};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// An id in the path.
pub(crate) struct Id<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr + Send,
    T::Err: Display,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id<T>, Failure> {
        let text: String = values(parts, state).await?;
        id(&text).map(Id)
    }
}

/// A name in the path.
pub(crate) struct Text(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Text {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Text, Failure> {
        values(parts, state).await.map(Text)
    }
}

/// Two ids in the path.
pub(crate) struct Ids<A, B>(pub(crate) A, pub(crate) B);

impl<A, B, S> FromRequestParts<S> for Ids<A, B>
where
    A: FromStr + Send,
    A::Err: Display,
    B: FromStr + Send,
    B::Err: Display,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Ids<A, B>, Failure> {
        let (first, second): (String, String) = values(parts, state).await?;
        Ok(Ids(id(&first)?, id(&second)?))
    }
}

/// An id and the verb after its colon. The router takes a parameter only as a whole segment.
#[derive(Debug)]
pub(crate) struct Target<T> {
    pub(crate) id: T,
    /// Empty, if there is no colon.
    pub(crate) verb: String,
}

impl<T: FromStr> FromStr for Target<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Target<T>, T::Err> {
        let (id, verb) = text.split_once(':').unwrap_or((text, ""));
        Ok(Target {
            id: id.parse()?,
            verb: verb.into(),
        })
    }
}

impl<T: Display> Target<T> {
    /// There is no such verb, but these.
    pub(crate) fn unknown(&self, verbs: &str) -> Failure {
        let problem = Problem::not_found("verb", format!("':{}' of {}", self.verb, self.id));
        problem.with_remedy(format!("there are {verbs}")).into()
    }
}

/// The parameters of the path, percent-decoded once.
pub(crate) async fn values<T, S>(parts: &mut Parts, state: &S) -> Result<T, Failure>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let path = Path::<T>::from_request_parts(parts, state).await;
    let Path(values) = path
        .map_err(|error| Failure::new(Code::Invalid, format!("the path: {}", error.body_text())))?;
    Ok(values)
}

/// An id from its text.
pub(crate) fn id<T>(text: &str) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    // One that cannot be is not there either: the same answer keeps what exists unknown.
    text.parse().map_err(|error: T::Err| {
        let problem = Problem::not_found("thing called", text);
        problem.with_remedy(error.to_string()).into()
    })
}
