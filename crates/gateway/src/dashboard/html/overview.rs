//! The overview: the box on one side, what there is on the other.

use firelane_wire::host::{Host, Pool};
use firelane_wire::queue::Queue;
use maud::{Markup, html};

use super::page::{self, Html};
use super::units::duration;
use super::{run_box, runs};
use crate::auth::Who;
use crate::dashboard::overview::Overview;

/// The whole page.
pub(in crate::dashboard) fn page(overview: &Overview, who: &Who) -> Html {
    let [queue, hosts, pools, runs] = parts(overview);
    page::page(
        "Overview",
        Some(who),
        &html! {
            h1.hidden { "Overview" }
            div.columns data-refresh="/overview" {
                div.main {
                    @if overview.runs.is_some() { (run_box::section(&overview.hosts)) }
                    (runs)
                }
                div.side { (queue) (hosts) (pools) }
            }
        },
    )
}

/// What changes: sections that the script puts in the place of those with the same id.
pub(in crate::dashboard) fn parts(overview: &Overview) -> [Markup; 4] {
    [
        queue(&overview.queue),
        hosts(&overview.hosts),
        pools(&overview.hosts),
        runs::section(overview.runs.as_deref()),
    ]
}

fn queue(queue: &Queue) -> Markup {
    html! {
        section.card #queue aria-labelledby="queue-title" {
            h2 #queue-title { "Queue" }
            dl.figures {
                div {
                    dt { "Waiting" }
                    dd { strong { (queue.queued) } " of " (queue.capacity) (meter(queue.queued, queue.capacity)) }
                }
                div {
                    dt { "Yours" }
                    dd { strong { (queue.yours) } " of " (queue.capacity_per_tenant)
                        (meter(queue.yours, queue.capacity_per_tenant)) }
                }
                div {
                    dt { "Running" }
                    dd { strong { (queue.running) } " of " (queue.slots) " slots"
                        (meter(queue.running, queue.slots)) }
                }
                div {
                    dt { "Wait for a new run" }
                    dd {
                        @if queue.slots == 0 { "no host takes runs" }
                        @else if queue.eta_ms == 0 { strong { "none" } }
                        @else { "about " strong { (duration(queue.eta_ms as f64)) } }
                    }
                }
            }
        }
    }
}

fn hosts(hosts: &[Host]) -> Markup {
    html! {
        section.card #hosts aria-labelledby="hosts-title" {
            h2 #hosts-title { "Hosts" }
            @if hosts.is_empty() {
                p.empty { "No host is there, so nothing can run. What this machine lacks: " code { "firelane doctor" } }
            } @else {
                table.hosts {
                    caption.hidden { "Hosts" }
                    thead {
                        tr {
                            th scope="col" { "Host" }
                            th scope="col" { "Driver" }
                            th scope="col" { "Runs" }
                            th.number scope="col" { "Sandboxes" }
                        }
                    }
                    tbody { @for host in hosts { (host_row(host)) } }
                }
            }
        }
    }
}

fn host_row(host: &Host) -> Markup {
    html! {
        tr {
            th scope="row" {
                bdi { (host.id) }
                span.dim.below { "version " bdi { (host.version) } }
            }
            td data-label="Driver" {
                bdi { (host.driver) } ", " bdi { (host.acceleration) }
                @if host.acceleration == "tcg" { span.reason { "emulated: a weaker boundary" } }
            }
            td data-label="Runs" {
                (host.running) " of " (host.slots) (meter(host.running.into(), host.slots.into()))
            }
            td.number data-label="Sandboxes" { (host.sandboxes) }
        }
    }
}

fn pools(hosts: &[Host]) -> Markup {
    let pools: Vec<(&Host, &Pool)> = hosts
        .iter()
        .flat_map(|host| host.pools.iter().map(move |pool| (host, pool)))
        .collect();
    html! {
        section.card #pools aria-labelledby="pools-title" {
            h2 #pools-title { "Warm pools" }
            @if pools.is_empty() {
                p.empty { "No microVM waits for a run. To keep some: " code { "firelane serve --warm python" } }
            } @else {
                table {
                    caption.hidden { "Warm pools" }
                    thead {
                        tr {
                            th scope="col" { "Pool" }
                            @if hosts.len() > 1 { th scope="col" { "Host" } }
                            th.number scope="col" { "Ready" }
                            th.number scope="col" { "Preparing" }
                            th.number scope="col" { "Min–max" }
                            th.number scope="col" { "Hits" }
                            th.number scope="col" { "Misses" }
                        }
                    }
                    tbody { @for (host, pool) in &pools { (pool_row(host, pool, hosts.len() > 1)) } }
                }
            }
        }
    }
}

fn pool_row(host: &Host, pool: &Pool, named: bool) -> Markup {
    html! {
        tr {
            th scope="row" { bdi { (pool.lang) } " " span.dim { bdi { (pool.template) } } }
            @if named { td data-label="Host" { bdi { (host.id) } } }
            td.number data-label="Ready" { (pool.ready) }
            td.number data-label="Preparing" { (pool.preparing) }
            td.number data-label="Min–max" { (pool.min) "–" (pool.max) }
            td.number data-label="Hits" { (pool.hits) }
            td.number data-label="Misses" { (pool.misses) }
        }
    }
}

/// How much of something is taken; the numbers stand beside it.
fn meter(taken: u64, all: u64) -> Markup {
    let share = if all == 0 {
        0.0
    } else {
        (taken as f64 / all as f64).min(1.0)
    };
    html! {
        svg.meter viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
            rect.all width="100" height="4" {}
            rect.taken width=(format!("{:.1}", share * 100.0)) height="4" {}
        }
    }
}
