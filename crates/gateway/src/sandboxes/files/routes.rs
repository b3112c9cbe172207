//! Which path is which request.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get as on_get, post};

use super::{archives, entries, folders, get, put, watch};
use crate::Gateway;

/// All paths of files.
pub(crate) fn routes(router: Router<Arc<Gateway>>) -> Router<Arc<Gateway>> {
    let resources: [(&str, MethodRouter<Arc<Gateway>>); 5] = [
        (
            "files",
            on_get(get::get).put(put::put).delete(entries::remove),
        ),
        ("entries", on_get(entries::get)),
        ("folders", on_get(folders::list).put(folders::make)),
        ("archives", on_get(archives::get).put(archives::put)),
        ("watch", on_get(watch::get)),
    ];
    let router = router.route("/sandboxes/{id}/files:move", post(entries::change_path));
    resources
        .into_iter()
        .fold(router, |router, (name, methods)| {
            let prefix = format!("/sandboxes/{{id}}/{name}/");
            // Without a path it is the same request, and told what is wrong with it.
            router
                .route(&format!("{prefix}{{*path}}"), methods.clone())
                .route(&prefix, methods)
        })
}
