//! The Bus of one process.

use std::sync::Arc;

use async_trait::async_trait;
use firelane_store::bus::LocalBus;

use crate::conformance::{self, Ends, Make};

struct Local;

#[async_trait]
impl Make for Local {
    async fn make(&self) -> Ends {
        let bus = LocalBus::new();
        Ends {
            asker: Arc::new(bus.clone()),
            server: Arc::new(bus),
        }
    }
}

conformance::suite!(Local);
