//! The box to run code in. The script does it, through the public API.

use std::collections::BTreeSet;

use firelane_guest_proto::Lang;
use firelane_wire::host::Host;
use maud::{Markup, html};

/// The box; `hosts` tell which templates there are.
pub(super) fn section(hosts: &[Host]) -> Markup {
    let pools = hosts.iter().flat_map(|host| &host.pools);
    let templates: BTreeSet<&str> = pools.map(|pool| pool.template.as_str()).collect();
    let first = match templates.first() {
        Some(first) if !templates.contains("default") => first,
        _ => "default",
    };
    html! {
        section.card #run-box aria-labelledby="run-title" {
            h2 #run-title { "Run code" }
            noscript {
                p.empty {
                    "Running from this page needs JavaScript. Without: "
                    code { "firelane run -c 'print(6*7)'" }
                }
            }
            form #run-form autocomplete="off" {
                div.fields {
                    label.field {
                        span { "Language" }
                        select #run-lang name="lang" {
                            @for lang in Lang::ALL { option { (lang.name()) } }
                        }
                    }
                    label.field {
                        span { "Template" }
                        input #run-template name="template" value=(first) list="templates" required
                            spellcheck="false" autocapitalize="off";
                        datalist #templates { @for name in &templates { option value=(name) {} } }
                    }
                }
                label.field {
                    span { "Code" }
                    textarea #run-code name="code" rows="8" required spellcheck="false"
                        autocapitalize="off" autocomplete="off" wrap="off"
                        aria-describedby="run-hint" placeholder="print(6*7)" {}
                }
                details {
                    summary { "Standard input" }
                    label.field {
                        span.hidden { "Standard input" }
                        textarea #run-stdin name="stdin" rows="3" spellcheck="false"
                            autocapitalize="off" autocomplete="off" wrap="off" {}
                    }
                }
                div.actions {
                    button.primary #run-start type="submit" disabled { "Run" }
                    button #run-stop type="button" disabled { "Stop" }
                    span.hint #run-hint { kbd { "Ctrl" } " + " kbd { "Enter" } " runs it" }
                }
            }
            div #run-result hidden {
                p.status #run-status role="status" {}
                div.output #run-output role="log" aria-live="polite" aria-label="Output" tabindex="0" {}
                div #run-summary {}
            }
        }
    }
}
