//! `GET /v1/sandboxes`: the tenant's sandboxes, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_wire::bus::ListSandboxes;
use firelane_wire::check;
use firelane_wire::key::Scope;
use firelane_wire::page::{Page, PageQuery};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Sandbox, SandboxesQuery};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;

/// The tenant's sandboxes, newest first
#[utoipa::path(get, path = "/v1/sandboxes", operation_id = "sandbox_list", tag = "sandboxes",
    params(SandboxesQuery),
    responses((status = 200, description = "A page of them", body = Page<Sandbox>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Query(query): Query<SandboxesQuery>,
) -> Answer<Json<Page<Sandbox>>> {
    who.require(Scope::Sandbox)?;
    let call = ListSandboxes {
        tenant: who.caller.tenant,
        labels: labels(query.labels.as_deref().unwrap_or_default())?,
        gone: query.gone,
        page: PageQuery {
            limit: query.limit,
            cursor: query.cursor,
        },
    };
    Ok(Json(gateway.coordinator.ask(&call).await?))
}

/// Labels as a query has them: `name=value`, more of them after commas.
fn labels(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut labels = BTreeMap::new();
    for label in text.split(',').filter(|label| !label.is_empty()) {
        let Some((name, value)) = label.split_once('=') else {
            let cause = format!("labels has {label:?}, which is not name=value");
            return Err(Problem::new(Code::Invalid, cause));
        };
        if labels.insert(name.into(), value.into()).is_some() {
            let cause = format!("labels has {name:?} twice");
            return Err(Problem::new(Code::Invalid, cause));
        }
    }
    check::labels(&labels)?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_between_commas() {
        let check = |text: &str, expected: Result<&[(&str, &str)], &str>| {
            let read = labels(text).map_err(|problem| problem.cause);
            let expected = expected.map(|pairs| {
                let pairs = pairs.iter().map(|(name, value)| (*name, *value));
                pairs
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            });
            assert_eq!(read, expected.map_err(str::to_owned), "{text}");
        };
        check("", Ok(&[]));
        check("a=b", Ok(&[("a", "b")]));
        check("a=b,c=d=e,f=", Ok(&[("a", "b"), ("c", "d=e"), ("f", "")]));
        check("a", Err(r#"labels has "a", which is not name=value"#));
        check("a=1,a=2", Err(r#"labels has "a" twice"#));
        check(
            "=b",
            Err("labels has a name or value that is empty or over 256 bytes"),
        );
    }
}
