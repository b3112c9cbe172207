//! Steps that are carried out to their end, whoever leaves meanwhile.

use std::future::Future;

use firelane_wire::problem::{Code, Problem};

/// Does this in a task of its own. What it gives is dropped if its caller has left by then: a value
/// that is given back by its `Drop` is given back, whenever the caller leaves.
pub(crate) async fn whole<T, F>(work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(done) => done,
        // It panicked, or the service ends.
        Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
    }
}
