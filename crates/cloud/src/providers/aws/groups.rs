//! The security group that machines of a region share: SSH, from their owners only.
//!
//! It is made when the first machine needs it, and removed by a sweep when none uses it. Each rule
//! is described by its owner's name, so that several can share an account: each keeps the own rules.

use std::collections::BTreeMap;

use super::client::{
    AUTHORIZE_INGRESS, CREATE_SECURITY_GROUP, Client, DELETE_SECURITY_GROUP,
    DESCRIBE_SECURITY_GROUPS, REVOKE_INGRESS,
};
use super::params::Params;
use super::rules::{self, Changes};
use super::xml::Node;
use crate::error::{Class, CloudError, Effect};
use crate::machine::Spec;
use crate::marker::{self, EPHEMERAL};

/// Its name in each region.
pub(super) const GROUP: &str = "mvm-ephemeral-ssh";
/// ASCII: EC2 takes a-z, A-Z, 0-9, spaces and `._-:/()#,@[]+=&;{}!$*` only.
const DESCRIPTION: &str = "SSH to machines of firelane, from their owners only";

/// A group that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its id, `sg-...`.
    pub(super) id: String,
    /// It has been made for this machine just now.
    pub(super) is_new: bool,
}

/// The description of an owner's rules.
pub(super) fn describe_owner(owner: &str) -> String {
    format!("firelane owner {owner}")
}

/// What a group in a VPC lacks for SSH from these networks. The id is none if there is no group.
pub(super) async fn missing(
    client: &Client,
    spec: &Spec,
    vpc: &str,
    wanted: Vec<String>,
) -> Result<(Option<String>, Changes), CloudError> {
    let Some(id) = find(client, &spec.region, vpc).await? else {
        let remove = Vec::new();
        return Ok((
            None,
            Changes {
                add: wanted,
                remove,
            },
        ));
    };
    let there = rules::of_group(client, &spec.region, &id).await?;
    Ok((Some(id), rules::changes(&there, &wanted, &spec.owner)))
}

/// The group of a VPC, with the rules of this machine's owner. What was made is removed on failure.
pub(super) async fn ready(
    client: &Client,
    spec: &Spec,
    vpc: &str,
    wanted: Vec<String>,
) -> Result<Group, CloudError> {
    let (found, changes) = missing(client, spec, vpc, wanted).await?;
    let group = match found {
        Some(id) => Group { id, is_new: false },
        None => create(client, spec, vpc).await?,
    };
    let changed = change(client, spec, &group.id, &changes).await;
    if let Err(error) = changed {
        give_up(client, spec, vpc, &group).await;
        return Err(error);
    }
    Ok(group)
}

/// Has the rules of this owner in a VPC's group as they are wanted now, if there is one.
pub(super) async fn refresh(
    client: &Client,
    spec: &Spec,
    vpc: &str,
    wanted: Vec<String>,
) -> Result<(), CloudError> {
    match missing(client, spec, vpc, wanted).await? {
        (Some(group), changes) => change(client, spec, &group, &changes).await,
        // Its machine was made in a group that is gone, and has another one.
        (None, _) => Ok(()),
    }
}

/// Removes a group that was made for a machine which did not come about.
pub(super) async fn give_up(client: &Client, spec: &Spec, vpc: &str, group: &Group) {
    if !group.is_new {
        return;
    }
    match delete(client, &spec.region, &group.id).await {
        Ok(()) => tracing::debug!(
            group = group.id,
            vpc,
            "removed, because there is no machine"
        ),
        // It has the marker, and a sweep finds it.
        Err(error) => tracing::warn!(%error, group = group.id, vpc, "a group is left for a sweep"),
    }
}

/// The group that is ours in a VPC.
async fn find(client: &Client, region: &str, vpc: &str) -> Result<Option<String>, CloudError> {
    let action = DESCRIBE_SECURITY_GROUPS;
    let params = Params::new()
        .filter("group-name", [GROUP])
        .filter("vpc-id", [vpc]);
    let answer = client.call(region, action, &params).await?;
    let Some(group) = answer.items("securityGroupInfo").next() else {
        return Ok(None);
    };
    let id = action.need(group, "groupId")?;
    if tags(group).get(EPHEMERAL).map(String::as_str) != Some("true") {
        let message =
            format!("{id} is named {GROUP}, but is not Firelane's: it has no tag {EPHEMERAL}=true");
        return Err(action
            .error(Class::Invalid, message)
            .with_remedy("rename or remove it, or name a group of yours in AWS_SG_ID"));
    }
    Ok(Some(id.to_owned()))
}

async fn create(client: &Client, spec: &Spec, vpc: &str) -> Result<Group, CloudError> {
    let action = CREATE_SECURITY_GROUP;
    let params = Params::new()
        .set("GroupName", GROUP)
        .set("GroupDescription", DESCRIPTION)
        .set("VpcId", vpc)
        .tagged("security-group", &group_tags(spec));
    let made = match client.call(&spec.region, action, &params).await {
        Ok(answer) => action.need(&answer, "groupId").map(str::to_owned),
        Err(error) => Err(error),
    };
    let error = match made {
        Ok(id) => return Ok(Group { id, is_new: true }),
        Err(error) => error,
    };
    // Made by another at the same moment, or made although the answer says nothing of it: a look
    // tells, and costs nothing.
    if error.effect == Effect::Unknown || error.class == Class::Conflict {
        match find(client, &spec.region, vpc).await {
            Ok(Some(id)) => {
                return Ok(Group {
                    id,
                    is_new: error.class != Class::Conflict,
                });
            }
            Ok(None) => {}
            Err(second) => tracing::warn!(%second, "what became of a group is not known"),
        }
    }
    Err(error)
}

/// Whose idea the group was. It has no label: it is everybody's.
fn group_tags(spec: &Spec) -> BTreeMap<String, String> {
    let mut tags = marker::tags(spec);
    tags.retain(|key, _| [EPHEMERAL, marker::OWNER, marker::CREATED].contains(&key.as_str()));
    tags
}

async fn change(
    client: &Client,
    spec: &Spec,
    group: &str,
    changes: &Changes,
) -> Result<(), CloudError> {
    let region = &spec.region;
    // First what is missing, so that nobody is locked out if the second call fails.
    if !changes.add.is_empty() {
        let params = authorize(group, &changes.add, &spec.owner);
        match client.call(region, AUTHORIZE_INGRESS, &params).await {
            Err(error) if error.class != Class::Conflict => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    if !changes.remove.is_empty() {
        let params = Params::new().set("GroupId", group).list(
            "SecurityGroupRuleId",
            changes.remove.iter().map(String::as_str),
        );
        match client.call(region, REVOKE_INGRESS, &params).await {
            Err(error) if error.class != Class::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// What lets SSH in from these networks.
pub(super) fn authorize(group: &str, networks: &[String], owner: &str) -> Params {
    let base = "IpPermissions.1";
    let mut params = Params::new()
        .set("GroupId", group)
        .set(format!("{base}.IpProtocol"), "tcp")
        .set(format!("{base}.FromPort"), "22")
        .set(format!("{base}.ToPort"), "22");
    let (mut v4, mut v6) = (0, 0);
    for network in networks {
        let (range, field) = if network.contains(':') {
            v6 += 1;
            (format!("{base}.Ipv6Ranges.{v6}"), "CidrIpv6")
        } else {
            v4 += 1;
            (format!("{base}.IpRanges.{v4}"), "CidrIp")
        };
        params = params
            .set(format!("{range}.{field}"), network)
            .set(format!("{range}.Description"), describe_owner(owner));
    }
    params
}

/// Groups of ours in a region.
pub(super) async fn ours(client: &Client, region: &str) -> Result<Vec<String>, CloudError> {
    let action = DESCRIBE_SECURITY_GROUPS;
    let params = Params::new()
        .filter("group-name", [GROUP])
        .filter(&format!("tag:{EPHEMERAL}"), ["true"]);
    let pages = client.pages(region, action, &params).await?;
    let groups = pages
        .iter()
        .flat_map(|page| page.items("securityGroupInfo"));
    groups
        .map(|group| action.need(group, "groupId").map(str::to_owned))
        .collect()
}

/// Removes one. One that is gone is fine.
pub(super) async fn delete(client: &Client, region: &str, id: &str) -> Result<(), CloudError> {
    let params = Params::new().set("GroupId", id);
    match client.call(region, DELETE_SECURITY_GROUP, &params).await {
        Err(error) if error.class != Class::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Tags of anything.
pub(super) fn tags(node: &Node) -> BTreeMap<String, String> {
    node.items("tagSet")
        .filter_map(|tag| {
            let value = tag.text("value").unwrap_or_default();
            Some((tag.text("key")?.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ec2_reads_as_description_is_of_its_alphabet() {
        let texts = [
            DESCRIPTION.to_owned(),
            describe_owner("me-1"),
            GROUP.to_owned(),
        ];
        for text in texts {
            let fits = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
            assert!(text.chars().all(fits) && text.len() <= 255, "{text}");
        }
    }

    #[test]
    fn each_network_is_a_range_of_its_kind() {
        let networks = ["192.0.2.1/32", "2001:db8::/64", "192.0.2.2/32"].map(str::to_owned);
        let params = authorize("sg-1", &networks, "me");
        let ranges: Vec<_> = params
            .pairs()
            .iter()
            .filter(|(name, _)| name.contains("Cidr"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            ranges,
            [
                "IpPermissions.1.IpRanges.1.CidrIp=192.0.2.1/32",
                "IpPermissions.1.Ipv6Ranges.1.CidrIpv6=2001:db8::/64",
                "IpPermissions.1.IpRanges.2.CidrIp=192.0.2.2/32",
            ]
        );
    }
}
