//! Where a machine is put: the subnet that was named, or the default VPC.

use super::client::{Action, Client, DESCRIBE_SUBNETS, DESCRIBE_VPCS};
use super::params::Params;
use super::xml::Node;
use crate::error::{Class, CloudError};

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// The VPC.
    pub(super) vpc: String,
    /// The subnet. None: EC2 takes one of the default VPC.
    pub(super) subnet: Option<String>,
}

/// Looks for it.
pub(super) async fn find(
    client: &Client,
    region: &str,
    subnet: Option<&str>,
) -> Result<Network, CloudError> {
    let Some(subnet) = subnet else {
        let params = Params::new().filter("is-default", ["true"]);
        let answer = client.call(region, DESCRIBE_VPCS, &params).await?;
        let vpc = first(DESCRIBE_VPCS, &answer, "vpcSet", "vpcId")?.ok_or_else(|| {
            let message = format!("{region} has no default VPC");
            DESCRIBE_VPCS.error(Class::Invalid, message).with_remedy(
                "make one by `aws ec2 create-default-vpc`, or name a public subnet in AWS_SUBNET_ID",
            )
        })?;
        return Ok(Network { vpc, subnet: None });
    };
    let params = Params::new().list("SubnetId", [subnet]);
    let answer = client.call(region, DESCRIBE_SUBNETS, &params).await?;
    let vpc = first(DESCRIBE_SUBNETS, &answer, "subnetSet", "vpcId")?.ok_or_else(|| {
        DESCRIBE_SUBNETS.error(Class::NotFound, format!("{region} has no {subnet}"))
    })?;
    let subnet = Some(subnet.to_owned());
    Ok(Network { vpc, subnet })
}

fn first(
    action: Action,
    answer: &Node,
    list: &str,
    field: &str,
) -> Result<Option<String>, CloudError> {
    let item = answer.items(list).next();
    item.map(|item| action.need(item, field).map(str::to_owned))
        .transpose()
}
