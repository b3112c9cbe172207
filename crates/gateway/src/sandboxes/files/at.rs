//! A sandbox and a path in it, as they stand in the path of a request.

use std::collections::HashMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use firelane_model::id::SandboxId;
use firelane_wire::check;

use crate::failure::Failure;
use crate::path::{id, values};

/// A sandbox, and the absolute path of a file in it.
pub(crate) struct At {
    pub(super) sandbox: SandboxId,
    pub(super) path: String,
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At, Failure> {
        let mut values: HashMap<String, String> = values(parts, state).await?;
        let sandbox = id(&values.remove("id").unwrap_or_default())?;
        // Nothing follows the prefix where there is none.
        let path = values.remove("path").unwrap_or_default();
        check::path("path", &path)?;
        let path = format!("/{path}");
        check::path("path", &path)?;
        Ok(At { sandbox, path })
    }
}
