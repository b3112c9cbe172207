"""What boto3, AWS's own client, sees of a region; and machines that are not ours.

A line of stdin is a command with a region, a line of stdout its answer as JSON:

    look REGION         all instances with their disks and data, all groups but the default ones
    decoys REGION       makes three instances: without tags, with half of ours, with another's label
    foreign REGION      makes a group with our name and without our tag
    open REGION         opens our group to everybody, and to another owner
"""

import base64
import json
import sys

import boto3

ec2 = None


def tags(thing):
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def attribute(instance, name):
    key = name[0].upper() + name[1:]
    answer = ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)
    return answer[key].get("Value")


def disk(instance):
    found = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])
    return [
        {"size": volume["Size"], "type": volume["VolumeType"], "tags": tags(volume)}
        for volume in found["Volumes"]
    ]


def look():
    reservations = ec2.describe_instances()["Reservations"]
    instances = []
    for one in (one for reservation in reservations for one in reservation["Instances"]):
        if one["State"]["Name"] == "terminated":
            continue
        data = attribute(one["InstanceId"], "userData")
        instances.append(
            {
                "id": one["InstanceId"],
                "state": one["State"]["Name"],
                "type": one["InstanceType"],
                "image": one["ImageId"],
                "tags": tags(one),
                "tokens": one.get("MetadataOptions", {}).get("HttpTokens"),
                "shutdown": attribute(one["InstanceId"], "instanceInitiatedShutdownBehavior"),
                "data": base64.b64decode(data or "").decode(errors="replace"),
                "groups": [group["GroupName"] for group in one["SecurityGroups"]],
                "root": one["RootDeviceName"],
                "disks": disk(one["InstanceId"]),
                "subnet": one.get("SubnetId"),
            }
        )
    groups = [
        {
            "id": group["GroupId"],
            "name": group["GroupName"],
            "description": group["Description"],
            "tags": tags(group),
            "rules": sorted(
                [rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), cidr["CidrIp"], cidr.get("Description")]
                for rule in group["IpPermissions"]
                for cidr in rule["IpRanges"]
            ),
        }
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if group["GroupName"] != "default"
    ]
    return {"instances": instances, "groups": groups}


def decoys():
    made = []
    for tagged in ({}, {"firelane-label": "mine"}, {"mvm-ephemeral": "false", "firelane-label": "mine"}):
        specification = {
            "ResourceType": "instance",
            "Tags": [{"Key": key, "Value": value} for key, value in tagged.items()],
        }
        answer = ec2.run_instances(
            ImageId="ami-00000002",
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            **({"TagSpecifications": [specification]} if tagged else {}),
        )
        made.append(answer["Instances"][0]["InstanceId"])
    return made


def foreign():
    return ec2.create_security_group(GroupName="mvm-ephemeral-ssh", Description="not theirs")["GroupId"]


def open_wide():
    group = ec2.describe_security_groups(GroupNames=["mvm-ephemeral-ssh"])["SecurityGroups"][0]
    ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"],
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "IpRanges": [{"CidrIp": "203.0.113.9/32", "Description": "firelane owner another"}],
            },
        ],
    )
    return group["GroupId"]


COMMANDS = {"look": look, "decoys": decoys, "foreign": foreign, "open": open_wide}
for line in sys.stdin:
    command, region = line.split()
    ec2 = boto3.client("ec2", region_name=region)
    print(json.dumps(COMMANDS[command]()), flush=True)
