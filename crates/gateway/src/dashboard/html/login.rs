//! The form that begins a session.

use maud::html;

use super::page::{self, Html};

/// The form; `refused` after a token that is not taken.
pub(in crate::dashboard) fn page(refused: bool) -> Html {
    let described = refused.then_some("refused");
    page::page(
        "Log in",
        None,
        &html! {
            section.card.narrow aria-labelledby="log-in" {
                h1 #log-in { "Log in" }
                p {
                    "This service asks for an API key. The key begins a session of this browser, "
                    "which ends after 12 hours or when you log out; the key itself is not kept."
                }
                @if refused {
                    p.problem #refused role="alert" { "This is no valid API key." }
                }
                form.stack method="post" action="/login" {
                    // Password managers and assistive programs look for a name.
                    input name="name" value="API key" autocomplete="username" readonly hidden;
                    label for="key" { "API key" }
                    input #key name="key" type="password" required autocomplete="current-password"
                        spellcheck="false" autofocus aria-describedby=[described];
                    button.primary type="submit" { "Log in" }
                }
                p.hint {
                    "No key yet? On the service's machine: "
                    code { "firelane key create --name me --scopes run" }
                }
            }
        },
    )
}
