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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Tells when it is dropped.
    struct Held(Option<oneshot::Sender<()>>);

    impl Drop for Held {
        fn drop(&mut self) {
            let told = self.0.take().map(|dropped| dropped.send(()));
            assert_eq!(told, Some(Ok(())), "somebody waits for it");
        }
    }

    #[tokio::test]
    async fn what_comes_after_its_caller_has_left_is_dropped() {
        let (begin, begun) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel();
        let (dropped, is_dropped) = oneshot::channel();
        let work = async move {
            begin.send(()).expect("it is waited for");
            goes_on.await.expect("it is told");
            Ok(Held(Some(dropped)))
        };
        let caller = tokio::spawn(whole(work));
        begun.await.expect("it begins");
        caller.abort();
        let left = caller.await.map(drop).expect_err("it has left");
        assert!(left.is_cancelled());
        // It goes on, and what it gives is given back.
        go_on.send(()).expect("it still waits");
        is_dropped.await.expect("it is dropped and says so");
    }

    #[tokio::test]
    async fn what_panics_is_a_problem() {
        let problem = whole::<(), _>(async { panic!("on purpose") }).await;
        let code = problem.map_err(|problem| problem.code);
        assert_eq!(code, Err(Code::Internal));
    }
}
