"""What hcloud, Hetzner's own client, sees of a project; and things that are not ours.

    look.py COMMAND URL

The token is in HCLOUD_TOKEN. The answer is JSON:

    look        all servers, firewalls and keys
    decoys      makes three servers, a firewall and a key that are not ours; then as `look`
    server, firewall, key   makes one with the name that lane 7 would give it
    clear       removes everything
"""

import json
import os
import sys

from hcloud import Client
from hcloud.firewalls import FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

command, url = sys.argv[1:]
client = Client(token=os.environ["HCLOUD_TOKEN"], api_endpoint=url, poll_interval=0.01)
HALF = {"firelane-label": "mine"}
FALSE = {"mvm-ephemeral": "false", "firelane-label": "mine"}
SEVENTH = "firelane-lane-" + format(7, "032x")


def look():
    servers = [
        {
            "id": str(server.id),
            "name": server.name,
            "status": server.status,
            "type": server.server_type.name,
            "image": server.image.description,
            "location": server.location.name,
            "labels": server.labels,
            "address": server.public_net.ipv4.ip,
            "firewalls": [client.firewalls.get_by_id(one.firewall.id).name for one in server.public_net.firewalls],
        }
        for server in client.servers.get_all()
    ]
    firewalls = [
        {
            "name": firewall.name,
            "labels": firewall.labels,
            "servers": [str(one.server.id) for one in firewall.applied_to],
            "rules": [
                [rule.direction, rule.protocol, rule.port, rule.source_ips, rule.description] for rule in firewall.rules
            ],
        }
        for firewall in client.firewalls.get_all()
    ]
    keys = [
        {"name": key.name, "labels": key.labels, "public_key": key.public_key} for key in client.ssh_keys.get_all()
    ]
    return {"servers": servers, "firewalls": firewalls, "keys": keys}


def server(name="somebodys", labels=None):
    made = client.servers.create(
        name=name,
        server_type=ServerType(name="cx23"),
        image=Image(name="ubuntu-24.04"),
        location=Location(name="nbg1"),
        labels=labels,
    )
    made.action.wait_until_finished()
    for action in made.next_actions:
        action.wait_until_finished()


def firewall(name="somebodys", labels=None):
    rule = FirewallRule(direction="in", protocol="tcp", port="80", source_ips=["0.0.0.0/0"])
    client.firewalls.create(name=name, rules=[rule], labels=labels)


def key(name="somebodys", labels=None):
    client.ssh_keys.create(name=name, public_key="ssh-ed25519 AAAA somebody", labels=labels)


def decoys():
    for number, labels in enumerate([None, HALF, FALSE]):
        server(f"somebodys-{number}", labels)
    firewall(labels=HALF)
    key(labels=FALSE)
    return look()


def clear():
    for one in client.servers.get_all():
        one.delete().wait_until_finished()
    for one in client.firewalls.get_all():
        one.delete()
    for one in client.ssh_keys.get_all():
        one.delete()


commands = {
    "look": look,
    "decoys": decoys,
    "server": lambda: server(SEVENTH),
    "firewall": lambda: firewall(SEVENTH),
    "key": lambda: key(SEVENTH),
    "clear": clear,
}
print(json.dumps(commands[command]()))
