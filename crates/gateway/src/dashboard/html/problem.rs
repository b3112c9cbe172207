//! What is there instead of a page.

use firelane_wire::problem::Problem;
use maud::{Markup, html};

use super::page::{self, Html};

/// A page that says what is wrong.
pub(in crate::dashboard) fn page(problem: &Problem) -> Html {
    page::page(
        "Problem",
        None,
        &html! {
            section.card.narrow aria-labelledby="problem" {
                h1 #problem { (problem.status()) " " (problem.code.name()) }
                (told(problem))
                p { a href="/" { "To the overview" } }
            }
        },
    )
}

/// What is wrong, and what to do.
pub(super) fn told(problem: &Problem) -> Markup {
    html! {
        p.problem { bdi { (problem.cause) } }
        @if let Some(remedy) = &problem.remedy {
            p.hint { "Remedy: " bdi { (remedy) } }
        }
    }
}
