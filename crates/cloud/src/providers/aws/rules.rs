//! Rules of the group: what is wanted, what is there, and what is to be done about it.

use super::client::{AUTHORIZE_INGRESS, Client, DESCRIBE_SECURITY_GROUP_RULES};
use super::groups::describe_owner;
use super::params::Params;
use crate::error::{Class, CloudError};
use crate::networks::network;

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    id: String,
    /// It lets SSH in from a network, and nothing else.
    ssh_from: Option<String>,
    description: String,
}

/// What has to be changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changes {
    /// Networks.
    pub(super) add: Vec<String>,
    /// Ids of rules.
    pub(super) remove: Vec<String>,
}

/// Rules of a group that let something in.
pub(super) async fn of_group(
    client: &Client,
    region: &str,
    group: &str,
) -> Result<Vec<Rule>, CloudError> {
    let action = DESCRIBE_SECURITY_GROUP_RULES;
    let params = Params::new().filter("group-id", [group]);
    let pages = client.pages(region, action, &params).await?;
    let items = pages
        .iter()
        .flat_map(|page| page.items("securityGroupRuleSet"))
        .filter(|item| item.text("isEgress") != Some("true"));
    items
        .map(|item| {
            let is_ssh = item.text("ipProtocol") == Some("tcp")
                && item.text("fromPort") == Some("22")
                && item.text("toPort") == Some("22");
            let from = item.text("cidrIpv4").or_else(|| item.text("cidrIpv6"));
            Ok(Rule {
                id: action.need(item, "securityGroupRuleId")?.to_owned(),
                ssh_from: from.filter(|_| is_ssh).map(str::to_owned),
                description: item.text("description").unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// What an owner's rules lack and have too many of. Rules of other owners stay: the group is shared.
/// What no owner has described goes.
pub(super) fn changes(there: &[Rule], wanted: &[String], owner: &str) -> Changes {
    let is_there = |network: &&String| {
        there
            .iter()
            .any(|rule| rule.ssh_from.as_ref() == Some(*network))
    };
    let add = wanted.iter().filter(|network| !is_there(network)).cloned();
    let stays = |rule: &&Rule| match &rule.ssh_from {
        None => false,
        Some(network) if wanted.contains(network) => true,
        Some(_) => {
            rule.description != describe_owner(owner)
                && rule.description.starts_with(&describe_owner(""))
        }
    };
    let remove = there.iter().filter(|rule| !stays(rule));
    Changes {
        add: add.collect(),
        remove: remove.map(|rule| rule.id.clone()).collect(),
    }
}

/// Networks as EC2 writes them, without bits outside of the prefix; without doubles.
pub(super) fn networks(texts: &[String]) -> Result<Vec<String>, CloudError> {
    let action = AUTHORIZE_INGRESS;
    let mut networks = Vec::new();
    for text in texts {
        let network = network(text).map_err(|why| {
            action
                .error(Class::Invalid, format!("SSH from {text:?}: {why}"))
                .with_remedy("name your own address, for example 198.51.100.7/32")
        })?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_are_as_ec2_writes_them() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let made = networks(&[text.to_owned()]);
            match expected {
                Ok(expected) => assert_eq!(made.unwrap(), [expected]),
                Err(expected) => {
                    let told = made.unwrap_err().message;
                    assert_eq!(&*told, format!("SSH from {text:?}: {expected}"));
                }
            }
        };
        check("198.51.100.7/32", Ok("198.51.100.7/32"));
        check("198.51.100.7/24", Ok("198.51.100.0/24"));
        check("2001:DB8:0::7/64", Ok("2001:db8::/64"));
        check("0.0.0.0/0", Err("that is everybody"));
        check("::/0", Err("that is everybody"));
        for bad in ["198.51.100.7", "x/1", "1.2.3.4/33", "::1/129", "1.2.3.4/-1"] {
            check(bad, Err("it is no network such as 198.51.100.7/32"));
        }
    }

    fn rule(id: &str, ssh_from: Option<&str>, description: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            ssh_from: ssh_from.map(str::to_owned),
            description: description.to_owned(),
        }
    }

    #[test]
    fn an_owner_changes_the_own_rules_and_those_of_nobody() {
        let there = [
            rule("mine-old", Some("192.0.2.1/32"), "firelane owner me"),
            rule("mine", Some("192.0.2.2/32"), "firelane owner me"),
            rule("hers", Some("192.0.2.3/32"), "firelane owner she"),
            rule("open", Some("0.0.0.0/0"), ""),
            rule("web", None, "firelane owner she"),
        ];
        let wanted = ["192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32"].map(str::to_owned);
        let expected = Changes {
            add: vec!["192.0.2.4/32".to_owned()],
            remove: ["mine-old", "open", "web"].map(str::to_owned).to_vec(),
        };
        assert_eq!(changes(&there, &wanted, "me"), expected);
    }

    proptest! {
        #[test]
        fn a_network_is_written_one_way(bits in any::<u128>(), length in 1_u32..=128) {
            let text = format!("{}/{length}", std::net::Ipv6Addr::from(bits));
            let once = network(&text).unwrap();
            prop_assert_eq!(network(&once).unwrap(), once);
        }
    }
}
