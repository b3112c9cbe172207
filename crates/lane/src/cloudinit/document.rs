//! The document, as types.

use firelane_cloud::Spec;
use serde::Serialize;

use crate::identity::{self, Identity};
use crate::steps::LOGIN;

/// Where the script is on the machine.
const SCRIPT: &str = "/usr/local/lib/firelane/prepare";

#[derive(Serialize)]
struct Document<'a> {
    hostname: String,
    /// Or sudo looks for its own host in vain.
    manage_etc_hosts: &'a str,
    /// No user of the image's: it may have rights, and its name differs between providers.
    users: [User<'a>; 1],
    /// One that every system has: another would be made first, or fail.
    locale: &'a str,
    disable_root: bool,
    ssh_pwauth: bool,
    ssh_deletekeys: bool,
    ssh_keys: HostKeys<'a>,
    /// Packages are installed by the script, and only those that are missing.
    package_update: bool,
    package_upgrade: bool,
    write_files: [WrittenFile<'a>; 1],
    runcmd: [[&'a str; 1]; 1],
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    gecos: &'a str,
    shell: &'a str,
    sudo: &'a str,
    lock_passwd: bool,
    ssh_authorized_keys: Vec<&'a str>,
}

#[derive(Serialize)]
struct HostKeys<'a> {
    ed25519_private: &'a str,
    ed25519_public: &'a str,
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    path: &'a str,
    owner: &'a str,
    permissions: &'a str,
    content: String,
}

/// The document as text. Its first line tells cloud-init what the rest is.
pub(super) fn document(
    spec: &Spec,
    identity: &Identity,
    others: &[String],
    script: String,
) -> String {
    let others = others.iter().map(String::as_str);
    let keys = std::iter::once(spec.ssh_key.as_str()).chain(others);
    let document = Document {
        hostname: identity::alias(&spec.label),
        manage_etc_hosts: "localhost",
        users: [User {
            name: LOGIN,
            gecos: "operator of Firelane's lane",
            shell: "/bin/bash",
            sudo: "ALL=(ALL) NOPASSWD:ALL",
            lock_passwd: true,
            ssh_authorized_keys: keys.collect(),
        }],
        locale: "C.UTF-8",
        disable_root: false,
        ssh_pwauth: false,
        ssh_deletekeys: true,
        ssh_keys: HostKeys {
            ed25519_private: &identity.host_private,
            ed25519_public: identity.host_public.trim(),
        },
        package_update: false,
        package_upgrade: false,
        write_files: [WrittenFile {
            path: SCRIPT,
            owner: "root:root",
            permissions: "0755",
            content: script,
        }],
        runcmd: [[SCRIPT]],
    };
    let json = serde_json::to_string_pretty(&document).expect("strings and booleans are JSON");
    format!("#cloud-config\n{json}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use firelane_cloud::provider::{Capabilities, UserData};
    use firelane_cloud::registry::{self, Settings};
    use firelane_model::lane::LaneId;
    use firelane_model::time::Moment;

    use super::super::Download;
    use super::*;

    fn spec() -> Spec {
        Spec {
            label: "mine".parse().unwrap(),
            lane: LaneId::from_bits(1),
            owner: "alice".into(),
            region: "here".into(),
            instance_type: "large".into(),
            disk_gib: 50,
            kvm: true,
            user_data: String::new(),
            ssh_key: "ssh-ed25519 AAAA firelane-mine".into(),
            ssh_from: Vec::new(),
            created: Moment::ORIGIN,
            expires: Moment::ORIGIN + Duration::from_secs(1_800_000_000),
            extras: BTreeMap::new(),
        }
    }

    fn identity() -> Identity {
        Identity {
            public: "ssh-ed25519 AAAA firelane-mine\n".into(),
            host_private:
                "-----BEGIN OPENSSH PRIVATE KEY-----\nBBBB\n-----END OPENSSH PRIVATE KEY-----\n"
                    .into(),
            host_public: "ssh-ed25519 CCCC firelane-mine\n".into(),
        }
    }

    fn capabilities(shutdown_ends_billing: bool) -> Capabilities {
        Capabilities {
            kvm: true,
            // The smallest limit of those providers that do not compress.
            user_data: Some(UserData {
                most_bytes: 16 << 10,
                gzip: false,
                templated: true,
            }),
            makes_machines: true,
            lists: true,
            tells_late: Duration::ZERO,
            native_ttl: false,
            shutdown_ends_billing,
            firewall: true,
            downloads: true,
        }
    }

    /// Without the script, which has tests of its own.
    #[test]
    fn the_document_is_as_it_was() {
        insta::assert_snapshot!(document(
            &spec(),
            &identity(),
            &["ssh-ed25519 DDDD alice".into()],
            "the script".into()
        ));
    }

    /// Of the script its settings: the rest is the same for all.
    #[test]
    fn each_provider_gets_its_document_as_it_was() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "of-an-example"),
            ("HCLOUD_TOKEN", "ofanexample"),
        ];
        let settings = Settings {
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            state: "state".into(),
        };
        for (name, _) in registry::all() {
            let capabilities = registry::open(name, &settings).unwrap().capabilities();
            if capabilities.user_data.is_none() {
                continue;
            }
            let download = Download::pinned();
            let firecracker = capabilities.downloads.then_some(&download);
            let (spec, identity) = (spec(), identity());
            let text =
                super::super::document(&spec, &identity, &[], firecracker, &capabilities).unwrap();
            let (head, json) = text.split_once('\n').unwrap();
            let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
            let script = &mut json["write_files"][0]["content"];
            *script = script.as_str().unwrap().lines().next().unwrap().into();
            let document = format!("{head}\n{}", serde_json::to_string_pretty(&json).unwrap());
            insta::assert_snapshot!(format!("document-of-{name}"), document);
        }
    }

    #[test]
    fn it_fits_every_provider_and_says_when_the_machine_ends() {
        for (shutdown_ends_billing, ends) in [(true, "ENDS='1800000000'"), (false, "ENDS=''")] {
            let capabilities = capabilities(shutdown_ends_billing);
            let text = super::super::document(
                &spec(),
                &identity(),
                &[],
                Some(&Download::pinned()),
                &capabilities,
            )
            .unwrap();
            let json: serde_json::Value =
                serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
            let script = json["write_files"][0]["content"].as_str().unwrap();
            assert!(
                script.starts_with(&format!("WANT_KVM=1 {ends} ")),
                "{script}"
            );
            assert_eq!(json["runcmd"][0][0], json["write_files"][0]["path"]);
        }
    }
}
