"""Networks."""

from __future__ import annotations

from typing import Any

from dockyard.cli.flags import Options, Refusal
from dockyard.cli.listing import network_row
from dockyard.cli.output import FORMAT, Column, show
from dockyard.cli.request.values import mapping
from dockyard.cli.shell import Shell, filters
from dockyard.client import quote
from dockyard.errors import NotFound

Json = dict[str, Any]
FLAGS = {
    "create": """
    --attachable           Containers may be attached by hand
    --aux-address KEY=VALUE...  Address that is taken (NAME=IP)
    --config-from NETWORK  Network to take the configuration of
    --config-only          Only a configuration
-d, --driver NAME          Network driver (default bridge)
    --gateway IP...        Gateway of the subnet
    --ingress              Swarm's routing mesh
    --internal             No way out
    --ip-range CIDR...     Range of the subnet for containers
    --ipam-driver NAME     Driver that gives out addresses
    --ipam-opt KEY=VALUE...  Option of that driver
    --ipv4                 IPv4 addresses (default true)
    --ipv6                 IPv6 addresses
    --label KEY=VALUE...   Label
-o, --opt KEY=VALUE...     Option of the driver
    --scope SCOPE          Scope of the network
    --subnet CIDR...       Subnet
""",
    "connect": """
    --alias NAME...        Further name on the network
    --driver-opt KEY=VALUE...  Option of the driver
    --gw-priority N        The highest gives the default gateway
    --ip ADDRESS           IPv4 address
    --ip6 ADDRESS          IPv6 address
    --link NAME[:ALIAS]...  Link to another container
    --link-local-ip ADDRESS...  Link-local address
""",
    "disconnect": "-f, --force                Even if the container does not answer",
    "ls": """
-f, --filter KEY=VALUE...  Only those that match (driver, name, label, ...)
    --no-trunc             Cut nothing
-q, --quiet                IDs only
"""
    + FORMAT,
    "prune": """
    --filter KEY=VALUE...  Only those that match (until=24h, label=...)
-f, --force                Do not ask
""",
    "rm": "-f, --force                No error if there is none such",
}
EXAMPLES = {
    "create": "dockyard network create app\ndockyard network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 app",
    "connect": "dockyard network connect --alias db app postgres",
}
_COLUMNS = (
    Column("NETWORK ID", "ID"), Column("NAME", "Name", soft=True), Column("DRIVER", "Driver"), Column("SCOPE", "Scope"),
)  # fmt: skip


def create(shell: Shell, options: Options) -> int:
    source = options.text("config-from")
    wish: Json = {
        "Name": options.words[0], "Driver": options.text("driver", "bridge"), "Scope": options.text("scope"),
        "Internal": options.on("internal"), "Attachable": options.on("attachable"), "Ingress": options.on("ingress"),
        "ConfigOnly": options.on("config-only"), "ConfigFrom": {"Network": source} if source else None,
        "Options": mapping(options.all("opt")), "Labels": mapping(options.all("label")),
        "IPAM": {
            "Driver": options.text("ipam-driver", "default"), "Options": mapping(options.all("ipam-opt")),
            "Config": subnets(options),
        },
    }  # fmt: skip
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.given(flag):
            wish[key] = options.on(flag)
    told = shell.client.request("POST", "/networks/create", body=wish)
    if told.get("Warning"):
        shell.complain(f"WARNING: {told['Warning']}")
    shell.say(told["Id"])
    return 0


def subnets(options: Options) -> list[Json]:
    """IPAM.Config: each range, gateway and taken address goes to the subnet that holds it. Pure."""
    from ipaddress import ip_address, ip_network

    found: dict[str, Json] = {word: {"Subnet": word} for word in options.all("subnet")}
    try:
        nets = {word: ip_network(word, strict=False) for word in found}
        placed = [("IPRange", word, ip_network(word, strict=False).network_address) for word in options.all("ip-range")]
        placed += [("Gateway", word, ip_address(word)) for word in options.all("gateway")]
        taken = [(key, word, ip_address(word)) for key, word in mapping(options.all("aux-address")).items()]
    except ValueError as wrong:
        raise Refusal(f"invalid CIDR address: {wrong}") from None
    if (placed or taken) and not found:
        raise Refusal("every ip-range or gateway must have a corresponding subnet")
    for key, word, address in placed:
        owner = next((name for name, net in nets.items() if address in net), None)
        if owner is None:
            raise Refusal(f"no matching subnet for {'range' if key == 'IPRange' else 'gateway'} {word}")
        if key in found[owner]:
            what = "ranges" if key == "IPRange" else "gateways"
            raise Refusal(f"cannot configure multiple {what} ({word}, {found[owner][key]}) on the same subnet ({owner})")
        found[owner][key] = word
    for key, word, address in taken:
        owner = next((name for name, net in nets.items() if address in net), None)
        if owner is None:
            raise Refusal(f"no matching subnet for aux-address {word}")
        found[owner].setdefault("AuxiliaryAddresses", {})[key] = word
    return list(found.values())


def connect(shell: Shell, options: Options) -> int:
    network, container = options.words[:2]
    addresses: Json = {"IPv4Address": options.text("ip"), "IPv6Address": options.text("ip6")}
    addresses["LinkLocalIPs"] = options.all("link-local-ip")
    endpoint: Json = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value}, "Links": options.all("link"),
        "Aliases": options.all("alias"), "DriverOpts": mapping(options.all("driver-opt")),
        "GwPriority": options.number("gw-priority"),
    }  # fmt: skip
    endpoint = {key: value for key, value in endpoint.items() if value}
    body = {"Container": container, "EndpointConfig": endpoint}
    shell.client.request("POST", f"/networks/{quote(network)}/connect", body=body)
    return 0


def disconnect(shell: Shell, options: Options) -> int:
    network, container = options.words[:2]
    body = {"Container": container, "Force": options.on("force")}
    shell.client.request("POST", f"/networks/{quote(network)}/disconnect", body=body)
    return 0


def ls(shell: Shell, options: Options) -> int:
    documents = shell.client.request("GET", "/networks", {"filters": filters(options)})
    rows = [network_row(document, whole=options.on("no-trunc")) for document in documents]
    rows.sort(key=lambda row: str(row["Name"]))
    return show(shell, options, rows, _COLUMNS, default=shell.config("networksFormat"))


def rm(shell: Shell, options: Options) -> int:
    def one(name: str) -> str:
        try:
            shell.client.request("DELETE", f"/networks/{quote(name)}")
        except NotFound:
            if not options.on("force"):
                raise
        return name

    return shell.each(options.words, one)


def prune(shell: Shell, options: Options) -> int:
    if not shell.confirm("This will remove all custom networks not used by at least one container.", options):
        return 0
    told = shell.client.request("POST", "/networks/prune", {"filters": filters(options)})
    say_pruned_networks(shell, told)
    return 0


def say_pruned_networks(shell: Shell, told: Json) -> None:
    if told.get("NetworksDeleted"):
        shell.say("Deleted Networks:")
        for name in told["NetworksDeleted"]:
            shell.say(name)
        shell.say()
