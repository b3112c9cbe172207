//! A machine that is there already: `--provider existing --host [USER@]HOST[:PORT]`.
//!
//! Nothing is made and nothing is deleted. The lane installs itself over SSH and removes what it
//! installed; who may log in, and which key the machine shows, is what its user's own SSH settings
//! say.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, MachineState, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept, Verdict};

const NAME: &str = "existing";
/// The machine, as `HOST` or `HOST:PORT`; an IPv6 address in brackets.
const HOST: &str = "host";
/// What the lane reads: the user who logs in, the file of a key, the file of known hosts.
const OF_LANE: [&str; 3] = ["login", "identity", "known-hosts"];
const SSH_PORT: u16 = 22;

/// The provider.
pub(crate) struct Existing;

impl Existing {
    fn machine(id: &str) -> Option<Machine> {
        let (address, ssh_port) = split(id)?;
        Some(Machine {
            handle: Handle {
                provider: NAME.into(),
                region: NAME.into(),
                id: id.to_owned(),
            },
            state: MachineState::Running,
            address: Some(address.to_owned()),
            ssh_port,
            instance_type: NAME.into(),
            mark: None,
        })
    }
}

/// Host and port. None: it is neither a name nor an address.
pub(crate) fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = port.map_or(Some(SSH_PORT), |port| port.parse().ok())?;
    // What could be an option of ssh, or a second word of its settings, is none.
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    let is_name = !host.is_empty() && !host.starts_with('-') && host.chars().all(fits);
    (is_name && port > 0).then_some((host, port))
}

fn asked(spec: &Spec) -> Result<Machine, CloudError> {
    let invalid = |message: String| {
        CloudError::new(NAME, "existing", Class::Invalid, message)
            .with_remedy("say --host [USER@]HOST[:PORT]")
    };
    for name in spec.extras.keys() {
        if name != HOST && !OF_LANE.contains(&name.as_str()) {
            return Err(invalid(format!("there is no setting {name:?}")));
        }
    }
    let host = spec
        .extras
        .get(HOST)
        .ok_or_else(|| invalid("no machine is named".into()))?;
    Existing::machine(host).ok_or_else(|| invalid(format!("{host:?} is no host and port")))
}

#[async_trait]
impl Provider for Existing {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: true,
            user_data: None,
            makes_machines: false,
            lists: false,
            tells_late: Duration::ZERO,
            native_ttl: false,
            shutdown_ends_billing: false,
            firewall: false,
            downloads: true,
        }
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        Ok(NAME.into())
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        Ok(NAME.into())
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        Ok(vec![match asked(spec) {
            Ok(machine) => Check::new("host", Verdict::Ok, machine.handle.id),
            Err(error) => Check::new("host", Verdict::Failed, &*error.message)
                .with_remedy(error.remedy.as_deref().unwrap_or_default()),
        }])
    }

    async fn quote(&self, _: &Spec) -> Result<Option<Quote>, CloudError> {
        Ok(Some(Quote {
            milli_usd_per_hour: 0,
            source: "it is there already".into(),
        }))
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let with = vec![(HOST.to_owned(), asked(spec)?.handle.id)];
        Ok(vec![Step {
            call: "log in".into(),
            with,
        }])
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        asked(spec)
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        Ok(Self::machine(&handle.id))
    }

    async fn list(&self, _: &Which) -> Result<Vec<Machine>, CloudError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &Handle) -> Result<(), CloudError> {
        Ok(())
    }

    async fn sweep(&self, _: &Which) -> Result<Swept, CloudError> {
        Ok(Swept::default())
    }

    async fn console_log(&self, _: &Handle) -> Result<Option<String>, CloudError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_that_ssh_could_take_for_more() {
        for (text, expected) in [
            ("box", Some(("box", 22))),
            ("box.example:2222", Some(("box.example", 2222))),
            ("192.0.2.7", Some(("192.0.2.7", 22))),
            ("[2001:db8::7]", Some(("2001:db8::7", 22))),
            ("[2001:db8::7]:2222", Some(("2001:db8::7", 2222))),
            ("", None),
            ("-oProxyCommand=x", None),
            ("box\nProxyCommand x", None),
            ("box x", None),
            ("box:0", None),
            ("box:65536", None),
            ("[2001:db8::7", None),
        ] {
            assert_eq!(split(text), expected, "{text:?}");
        }
    }
}
