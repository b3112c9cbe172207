//! Whether a create would go well: one row for each thing that it needs.

use super::client::{Action, CREATE_SECURITY_GROUP, GET_CALLER_IDENTITY, RUN_INSTANCES};
use super::create::{Found, Lookups, check_disk};
use super::groups::{self, GROUP};
use super::params::Params;
use super::{Aws, instances, kinds, price, quota, regions, sources, user_data};
use crate::error::{Class, CloudError};
use crate::machine::Spec;
use crate::provider::{Check, Quote, Verdict, row};

/// What EC2 answers to a dry run that would have gone well.
const WOULD_SUCCEED: &str = "DryRunOperation";

impl Aws {
    /// All rows. Without credentials or region there is nothing else to be asked.
    pub(super) async fn look_ahead(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        let mut rows = Vec::new();
        let whose = row("credentials", self.whose(&spec.region).await, |who| {
            who.clone()
        })?;
        let mut goes_on = whose.verdict == Verdict::Ok;
        rows.push(whose);
        if goes_on {
            let region = regions::check(&self.client, &self.home()?, &spec.region).await;
            let region = row("region", region, |()| spec.region.clone())?;
            goes_on = region.verdict == Verdict::Ok;
            rows.push(region);
        }
        if !goes_on {
            return Ok(rows);
        }
        let extras = match self.extras(spec) {
            Ok(extras) => extras,
            Err(error) => {
                rows.push(row("extras", Err::<(), _>(error), |()| String::new())?);
                return Ok(rows);
            }
        };
        let Lookups {
            kind,
            image,
            network,
        } = self.lookups(spec, &extras).await;
        rows.push(row("instance type", kind.clone(), |kind| {
            let route = match kind.kvm {
                kinds::Kvm::Metal => "bare metal",
                kinds::Kvm::Nested => "nested virtualization",
                kinds::Kvm::None => "no KVM, and none is asked for",
            };
            format!("{}: {} processors, {route}", spec.instance_type, kind.vcpus)
        })?);
        rows.push(row("image", image.clone(), |image| {
            format!("{}, {}", image.id, image.name)
        })?);
        rows.push(row("disk", check_disk(spec.disk_gib), |()| {
            format!("{} GiB of gp3", spec.disk_gib)
        })?);
        rows.push(row(
            "user-data",
            user_data::packed(&spec.user_data),
            |packed| format!("{} bytes of {}", packed.len(), user_data::MOST_BYTES),
        )?);
        rows.push(row("network", network.clone(), |network| {
            match &network.subnet {
                Some(subnet) => format!("{subnet} in {}", network.vpc),
                None => format!("the default VPC, {}", network.vpc),
            }
        })?);
        if let (Ok(kind), Ok(image), Ok(network)) = (kind, image, network) {
            let found = Found {
                kind,
                image,
                network,
            };
            let group = match extras.group {
                Some(id) => Ok(Some(id)),
                None => self.group(spec, &found, &mut rows).await?,
            };
            rows.push(row("security group", group.clone(), |id| match id {
                Some(id) => id.clone(),
                None => format!("{GROUP} will be made"),
            })?);
            if let Ok(group) = group {
                rows.push(row(
                    "permission",
                    self.may(spec, &found, group.as_deref()).await,
                    |()| "a dry run would have gone well".to_owned(),
                )?);
            }
            rows.push(self.quota(spec, found.kind.vcpus).await?);
            rows.push(self.price(spec).await?);
        }
        Ok(rows)
    }

    /// The group that a create would use, none if it would make one; and a row of who is let in.
    async fn group(
        &self,
        spec: &Spec,
        found: &Found,
        rows: &mut Vec<Check>,
    ) -> Result<Result<Option<String>, CloudError>, CloudError> {
        let from = sources::find(&self.client, spec).await;
        rows.push(row("ssh from", from.clone(), |from| from.join(", "))?);
        // What is wrong with the group is told beside what is wrong with those.
        let from = from.unwrap_or_default();
        let group = groups::missing(&self.client, spec, &found.network.vpc, from).await;
        Ok(group.map(|(id, _)| id))
    }

    /// Account and name of who asks.
    async fn whose(&self, region: &str) -> Result<String, CloudError> {
        super::check_region(region)?;
        let action = GET_CALLER_IDENTITY;
        let answer = self.client.call(region, action, &Params::new()).await?;
        action
            .need(&answer, "GetCallerIdentityResult/Arn")
            .map(str::to_owned)
    }

    /// Whether the account may run a machine of this size. What it runs already is not counted.
    async fn quota(&self, spec: &Spec, needed: u32) -> Result<Check, CloudError> {
        let name = "quota";
        let code = quota::STANDARD;
        let remedy = "ask for a higher limit in Service Quotas: EC2, Running On-Demand instances";
        if !quota::is_standard(&spec.instance_type) {
            let message = format!("not looked at: {needed} processors of this family are needed");
            return Ok(Check::new(name, Verdict::Warning, message).with_remedy(remedy));
        }
        let limit = match quota::processors(&self.client, &spec.region).await {
            Ok(limit) => limit,
            Err(error) if error.class.may_pass() => return Err(error),
            // It is a permission of its own, which a create can do without.
            Err(error) => {
                let message =
                    format!("not looked at, {needed} processors of {code} are needed: {error}");
                let check = Check::new(name, Verdict::Warning, message);
                return Ok(match error.class {
                    Class::Auth => check
                        .with_remedy("let an administrator allow servicequotas:GetServiceQuota"),
                    _ => check.with_remedy(
                        "look at it in Service Quotas: EC2, Running On-Demand instances",
                    ),
                });
            }
        };
        if limit < needed {
            let message = format!("{limit} processors may run ({code}), and {needed} are needed");
            return Ok(Check::new(name, Verdict::Failed, message).with_remedy(remedy));
        }
        let message = format!("{limit} processors may run ({code}), of which {needed} are needed");
        Ok(Check::new(name, Verdict::Ok, message))
    }

    /// What it would cost. Not to know it is no reason to stop.
    async fn price(&self, spec: &Spec) -> Result<Check, CloudError> {
        let quote = price::quote(&self.client, &spec.region, &spec.instance_type).await?;
        Ok(match quote {
            Some(Quote {
                milli_usd_per_hour: price,
                source,
            }) => {
                let message = format!(
                    "{}.{:03} USD for one hour: {source}",
                    price / 1000,
                    price % 1000
                );
                Check::new("price", Verdict::Ok, message)
            }
            None => Check::new(
                "price",
                Verdict::Warning,
                "not known, so --max-spend cannot be kept",
            )
            .with_remedy("let an administrator allow pricing:GetProducts"),
        })
    }

    /// Asks for what a create would ask for, with the wish that it is not done.
    async fn may(&self, spec: &Spec, found: &Found, group: Option<&str>) -> Result<(), CloudError> {
        if group.is_none() {
            let params = Params::new()
                .set("GroupName", GROUP)
                .set("GroupDescription", GROUP)
                .set("VpcId", &found.network.vpc);
            self.dry_run(spec, CREATE_SECURITY_GROUP, params).await?;
        }
        let request = instances::request(spec, &found.place(group.unwrap_or_default()), &[]);
        // A token of a request that was not carried out is used up all the same, and a group that
        // is not there yet cannot be named.
        let left_out = |name: &str| {
            name == "ClientToken" || group.is_none() && name.contains("SecurityGroupId")
        };
        let params = request
            .pairs()
            .iter()
            .filter(|(name, _)| !left_out(name))
            .fold(Params::new(), |params, (name, value)| {
                params.set(name, value)
            });
        self.dry_run(spec, RUN_INSTANCES, params).await
    }

    async fn dry_run(&self, spec: &Spec, action: Action, params: Params) -> Result<(), CloudError> {
        let params = params.set("DryRun", "true");
        match self.client.call(&spec.region, action, &params).await {
            Err(error) if error.code.as_deref() == Some(WOULD_SUCCEED) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(action
                .senseless("a dry run was carried out")
                .with_unknown_effect()),
        }
    }
}
