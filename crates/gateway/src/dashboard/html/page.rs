//! What all pages have.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::auth::Who;
use crate::dashboard::assets::{ICON, SCRIPT, STYLE};

/// A page, or a part of one.
pub(in crate::dashboard) struct Html(pub(in crate::dashboard) Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], self.0.0).into_response()
    }
}

/// A whole page; `who` is whoever looks, if that is known.
pub(super) fn page(title: &str, who: Option<&Who>, main: &Markup) -> Html {
    Html(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " - Firelane" }
                link rel="icon" type="image/svg+xml" href=(ICON.path());
                link rel="stylesheet" href=(STYLE.path());
                script type="module" src=(SCRIPT.path()) {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" {
                        img src=(ICON.path()) alt="" width="22" height="22";
                        "Firelane"
                    }
                    span.version { (env!("CARGO_PKG_VERSION")) }
                    span.live #live-state hidden {}
                    @if let Some(who) = who { (identity(who)) }
                }
                main #main { (main) }
            }
        }
    })
}

fn identity(who: &Who) -> Markup {
    html! {
        div.who {
            @if who.caller.key.is_some() {
                span { "Tenant " bdi { (who.caller.tenant) } }
                form method="post" action="/logout" { button.quiet type="submit" { "Log out" } }
            } @else {
                span { "No key needed here" }
            }
        }
    }
}
