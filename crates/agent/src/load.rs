//! How much this host has to do.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what keeps processors busy.
pub(crate) struct Load {
    processors: usize,
    going: watch::Sender<usize>,
}

/// Something that keeps a processor busy, until it is dropped.
pub(crate) struct Busy(Arc<Load>);

impl Load {
    pub(crate) fn new(processors: usize) -> Load {
        Load {
            processors,
            going: watch::Sender::new(0),
        }
    }

    /// One more.
    pub(crate) fn enter(self: &Arc<Self>) -> Busy {
        self.going.send_modify(|going| *going += 1);
        Busy(Arc::clone(self))
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        let mut going = self.going.subscribe();
        let _ = going.wait_for(|going| *going == 0).await;
    }

    /// Waits until a processor has nothing to do.
    pub(crate) async fn quiet(&self) {
        let mut going = self.going.subscribe();
        // The sender is our own: it does not go away.
        let _ = going.wait_for(|going| *going < self.processors).await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.going.send_modify(|going| *going -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_is_when_a_processor_is_free() {
        let load = Arc::new(Load::new(2));
        load.quiet().await;
        let first = load.enter();
        load.quiet().await;
        let second = load.enter();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), load.quiet()).await;
        assert!(waited.is_err(), "both processors are busy");
        drop(first);
        load.quiet().await;
        drop(second);
    }
}
