//! Instances: asked for, looked at, given back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::NAME;
use super::client::{
    Action, Client, DESCRIBE_INSTANCES, GET_CONSOLE_OUTPUT, RUN_INSTANCES, TERMINATE_INSTANCES,
};
use super::groups;
use super::images::Image;
use super::kinds::Kvm;
use super::networks::Network;
use super::params::Params;
use super::xml::Node;
use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, MachineState, Spec};
use crate::marker::{self, EPHEMERAL, LABEL, LANE, Which};

/// Longest end of a console that is kept.
const CONSOLE_BYTES: usize = 64 << 10;

/// What was found out before an instance is asked for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) image: Image,
    pub(super) kvm: Kvm,
    pub(super) network: Network,
    /// Id of the security group.
    pub(super) group: String,
}

/// What there is to be seen of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Never heard of it.
    Nothing,
    /// It has been, and why it is no longer, if EC2 says so.
    Gone(Option<String>),
    /// It is there.
    There(Box<Machine>),
}

/// The request for a machine. `user_data` is as it goes to the machine.
pub(super) fn request(spec: &Spec, place: &Place, user_data: &[u8]) -> Params {
    let mut tags = marker::tags(spec);
    tags.insert("Name".to_owned(), format!("firelane-{}", spec.label));
    let disk = "BlockDeviceMapping.1";
    let mut params = Params::new()
        .set("ImageId", &place.image.id)
        .set("InstanceType", &spec.instance_type)
        .set("MinCount", "1")
        .set("MaxCount", "1")
        .set("ClientToken", spec.lane.to_string())
        .set("InstanceInitiatedShutdownBehavior", "terminate")
        .set("MetadataOptions.HttpTokens", "required")
        .set("MetadataOptions.HttpEndpoint", "enabled")
        .set(format!("{disk}.DeviceName"), &place.image.root_device)
        .set(format!("{disk}.Ebs.VolumeSize"), spec.disk_gib.to_string())
        .set(format!("{disk}.Ebs.VolumeType"), "gp3")
        .set(format!("{disk}.Ebs.DeleteOnTermination"), "true");
    if spec.kvm && place.kvm == Kvm::Nested {
        params = params.set("CpuOptions.NestedVirtualization", "enabled");
    }
    params = match &place.network.subnet {
        None => params.set("SecurityGroupId.1", &place.group),
        // A subnet that was named may give no addresses by itself.
        Some(subnet) => params
            .set("NetworkInterface.1.DeviceIndex", "0")
            .set("NetworkInterface.1.SubnetId", subnet)
            .set("NetworkInterface.1.SecurityGroupId.1", &place.group)
            .set("NetworkInterface.1.AssociatePublicIpAddress", "true")
            .set("NetworkInterface.1.DeleteOnTermination", "true"),
    };
    if !user_data.is_empty() {
        params = params.set("UserData", STANDARD.encode(user_data));
    }
    params.tagged("instance", &tags).tagged("volume", &tags)
}

/// Asks for it.
pub(super) async fn run(
    client: &Client,
    region: &str,
    request: &Params,
) -> Result<Seen, CloudError> {
    let action = RUN_INSTANCES;
    let answer = client.call(region, action, request).await?;
    let item = answer
        .items("instancesSet")
        .next()
        .ok_or_else(|| action.senseless("the answer names no instance"))?;
    read(action, region, item)
}

/// Looks at one.
pub(super) async fn look(client: &Client, region: &str, id: &str) -> Result<Seen, CloudError> {
    let action = DESCRIBE_INSTANCES;
    let params = Params::new().list("InstanceId", [id]);
    let answer = match client.call(region, action, &params).await {
        Err(error) if error.class == Class::NotFound => return Ok(Seen::Nothing),
        answer => answer?,
    };
    let item = of_reservations(&answer).find(|item| item.text("instanceId") == Some(id));
    item.map_or(Ok(Seen::Nothing), |item| read(action, region, item))
}

/// Those of ours in a region that are not gone.
pub(super) async fn list(
    client: &Client,
    region: &str,
    which: &Which,
) -> Result<Vec<Machine>, CloudError> {
    let action = DESCRIBE_INSTANCES;
    let states = ["pending", "running", "shutting-down", "stopping", "stopped"];
    let params = Params::new()
        .filter(&format!("tag:{EPHEMERAL}"), ["true"])
        .filter("instance-state-name", states);
    let params = match which {
        Which::All => params,
        Which::Label(label) => params.filter(&format!("tag:{LABEL}"), [label.as_str()]),
        Which::Lane(lane) => params.filter(&format!("tag:{LANE}"), [lane.to_string().as_str()]),
    };
    let params = params.set("MaxResults", "1000");
    let mut machines = Vec::new();
    for page in client.pages(region, action, &params).await? {
        for item in of_reservations(&page) {
            let Seen::There(machine) = read(action, region, item)? else {
                continue;
            };
            // Filters are EC2's; what is removed by this list is our responsibility.
            let ours = groups::tags(item).get(EPHEMERAL).map(String::as_str) == Some("true");
            let meant = match &machine.mark {
                Some(mark) => which.means(mark),
                // Ephemeral, but made by something that gives no labels.
                None => *which == Which::All,
            };
            if ours && meant {
                machines.push(*machine);
            }
        }
    }
    Ok(machines)
}

/// Gives one back. One that is gone is fine.
pub(super) async fn terminate(client: &Client, region: &str, id: &str) -> Result<(), CloudError> {
    let action = TERMINATE_INSTANCES;
    let params = Params::new().list("InstanceId", [id]);
    let answer = match client.call(region, action, &params).await {
        Err(error) if error.class == Class::NotFound => return Ok(()),
        answer => answer?,
    };
    let mut ids = answer.items("instancesSet");
    if ids.any(|item| item.text("instanceId") == Some(id)) {
        Ok(())
    } else {
        Err(action.senseless(format!("the answer does not name {id}")))
    }
}

/// The end of what it wrote on its console. None: nothing yet.
pub(super) async fn console(
    client: &Client,
    region: &str,
    id: &str,
) -> Result<Option<String>, CloudError> {
    let action = GET_CONSOLE_OUTPUT;
    let params = Params::new().set("InstanceId", id);
    // Only machines of the Nitro system tell what they write now; others what they wrote at boot.
    let latest = params.clone().set("Latest", "true");
    let answer = match client.call(region, action, &latest).await {
        Err(error) if error.class == Class::NotFound => return Ok(None),
        Err(error) if matches!(error.class, Class::Invalid | Class::Capacity) => {
            client.call(region, action, &params).await?
        }
        answer => answer?,
    };
    let Some(text) = answer.text("output") else {
        return Ok(None);
    };
    let lines: String = text.split_whitespace().collect();
    let bytes = STANDARD
        .decode(lines)
        .map_err(|_| action.senseless("what the console wrote is not base64"))?;
    let end = &bytes[bytes.len().saturating_sub(CONSOLE_BYTES)..];
    Ok(Some(String::from_utf8_lossy(end).into_owned()))
}

fn of_reservations(answer: &Node) -> impl Iterator<Item = &Node> {
    answer
        .items("reservationSet")
        .flat_map(|reservation| reservation.items("instancesSet"))
}

fn read(action: Action, region: &str, item: &Node) -> Result<Seen, CloudError> {
    let id = action.need(item, "instanceId")?;
    if !id.starts_with("i-") {
        return Err(action.senseless(format!("the answer has {id:?} for an instance's id")));
    }
    let state = match action.need(item, "instanceState/name")? {
        "pending" => MachineState::Pending,
        "running" => MachineState::Running,
        "shutting-down" => MachineState::Leaving,
        "stopping" | "stopped" => MachineState::Stopped,
        "terminated" => {
            let reason = item.text("stateReason/message").map(str::to_owned);
            return Ok(Seen::Gone(reason));
        }
        other => return Err(action.senseless(format!("{id} is {other:?}, which is no state"))),
    };
    let handle = Handle {
        provider: NAME.to_owned(),
        region: region.to_owned(),
        id: id.to_owned(),
    };
    Ok(Seen::There(Box::new(Machine {
        handle,
        state,
        address: item.text("ipAddress").map(str::to_owned),
        ssh_port: 22,
        instance_type: action.need(item, "instanceType")?.to_owned(),
        mark: marker::read(&groups::tags(item)),
    })))
}

#[cfg(test)]
mod tests {
    use super::super::xml;
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Seen, String> {
        let node = xml::parse(text.as_bytes()).unwrap();
        read(RUN_INSTANCES, "us-east-1", &node).map_err(|error| {
            assert_eq!(error.effect, crate::Effect::Unknown, "{error}");
            error.message.into()
        })
    }

    fn item(state: &str, more: &str) -> String {
        format!(
            "<item><instanceId>i-1</instanceId><instanceType>c5.metal</instanceType>\
             <instanceState><code>0</code><name>{state}</name></instanceState>{more}</item>"
        )
    }

    #[test]
    fn states_are_those_of_lanes() {
        let state = |name: &str| match of(&item(name, "")).unwrap() {
            Seen::There(machine) => machine.state,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(state("pending"), MachineState::Pending);
        assert_eq!(state("running"), MachineState::Running);
        assert_eq!(state("shutting-down"), MachineState::Leaving);
        assert_eq!(state("stopping"), MachineState::Stopped);
        assert_eq!(state("stopped"), MachineState::Stopped);
        let reason = "<stateReason><code>Server.X</code><message>no room</message></stateReason>";
        let gone = of(&item("terminated", reason)).unwrap();
        assert_eq!(gone, Seen::Gone(Some("no room".to_owned())));
        assert_eq!(
            of(&item("resting", "")).unwrap_err(),
            "i-1 is \"resting\", which is no state"
        );
    }

    #[test]
    fn an_answer_without_what_it_has_to_have_is_an_error() {
        let whole = item("running", "<ipAddress>192.0.2.1</ipAddress>");
        let Ok(Seen::There(machine)) = of(&whole) else {
            panic!("{whole}");
        };
        assert_eq!(machine.address.as_deref(), Some("192.0.2.1"));
        assert_eq!(machine.mark, None);
        for (part, path) in [
            ("<instanceId>i-1</instanceId>", "instanceId"),
            ("<instanceType>c5.metal</instanceType>", "instanceType"),
            ("<name>running</name>", "instanceState/name"),
        ] {
            let told = of(&whole.replace(part, "")).unwrap_err();
            assert_eq!(told, format!("the answer has no {path} in <item>"));
        }
        let told = of(&whole.replace("i-1", "?")).unwrap_err();
        assert_eq!(told, "the answer has \"?\" for an instance's id");
    }

    proptest! {
        #[test]
        fn any_item_is_read_or_refused(texts in proptest::collection::vec("[ -;=-~]{0,12}", 6)) {
            let text = texts.iter().map(|text| text.replace('&', "")).collect::<Vec<_>>();
            let item = format!(
                "<item><instanceId>i-{}</instanceId><instanceType>{}</instanceType><instanceState><name>{}</name></instanceState>\
                 <ipAddress>{}</ipAddress><tagSet><item><key>{}</key><value>{}</value></item></tagSet></item>",
                text[0], text[1], text[2], text[3], text[4], text[5],
            );
            let _ = of(&item);
        }
    }
}
