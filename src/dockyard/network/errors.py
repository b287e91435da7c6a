"""Docker's sentences about networks (moby daemon/libnetwork/errors.go, daemon/network.go)."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, Exhausted, Forbidden, InvalidParameter, NotFound, System, Unavailable

NO_SUCH_NETWORK = Code("DY-NET-001", NotFound, "network {ref} not found", hint="docker network ls")
NETWORK_EXISTS = Code("DY-NET-002", Conflict, "network with name {name} already exists")
PREDEFINED = Code("DY-NET-003", Forbidden, "{name} is a pre-defined network and cannot be removed")
PREDEFINED_NAME = Code("DY-NET-004", Forbidden, "operation is not permitted on predefined {name} network")
ACTIVE_ENDPOINTS = Code(
    "DY-NET-005", Forbidden, "error while removing network: network {name} has active endpoints ({who})",
    hint="docker network disconnect -f {name} {member}",
)  # fmt: skip
OVERLAP = Code(
    "DY-NET-006", Forbidden,
    "invalid pool request: Pool overlaps with other one on this address space: {pool} and {other} of network {name}",
    hint="choose another --subnet, or remove the other one: docker network rm {name}",
)  # fmt: skip
NO_POOL = Code(
    "DY-NET-007", System, "all predefined address pools have been fully subnetted",
    hint="remove unused networks (docker network prune), give a --subnet, or set default-address-pools with small ones "
    "(base=172.17.0.0/12,size=24 gives 4096)",
)  # fmt: skip
NO_ADDRESS = Code(
    "DY-NET-008", System, "no available IPv{version} addresses on this network's address pools: {network} ({subnet})",
    hint="docker network inspect {network} shows who holds them; make the network again with a larger --subnet",
)  # fmt: skip
ADDRESS_IN_USE = Code("DY-NET-009", Forbidden, "Address already in use")
BAD = Code("DY-NET-010", InvalidParameter, "{cause}")
PORT_TAKEN = Code(
    "DY-NET-011", System,
    "driver failed programming external connectivity on endpoint {name} ({endpoint}): Bind for {address}:{port} failed: "
    "port is already allocated",
    hint="container {holder} publishes it: choose another port, or docker stop {holder}",
    check="PUB-01",
)  # fmt: skip
NOT_A_DRIVER = Code("DY-NET-012", InvalidParameter, 'plugin {name} does not implement the requested driver type "{kind}"')
NOT_CONNECTED = Code("DY-NET-013", Forbidden, "container {container} is not connected to network {network}")
ALREADY_CONNECTED = Code("DY-NET-014", Forbidden, "endpoint with name {name} already exists in network {network}")
HOST_MODE = Code(
    "DY-NET-015", Forbidden,
    "container sharing network namespace with another container or host cannot be connected to any other network",
)  # fmt: skip
STATIC_ADDRESS = Code(
    "DY-NET-016", InvalidParameter,
    "user specified IP address is supported only when connecting to networks with user configured subnets",
)  # fmt: skip
KERNEL = Code("DY-NET-017", System, "cannot {what}: {cause}", check="network")
NONE_MODE = Code(
    "DY-NET-018", Forbidden,
    "container cannot be connected to multiple networks with one of the networks in private (none) mode",
)  # fmt: skip
CONFIG_ONLY = Code("DY-NET-019", Forbidden, "cannot use configuration-only network: {name}")
IPV6_TARGET = Code(
    "DY-NET-020", InvalidParameter,
    "cannot publish {host_ip}:{port} on a container without an IPv6 address",
    hint="connect it to a network made with --ipv6",
)  # fmt: skip
CONFLICTING_BRIDGE = Code(
    "DY-NET-021", Forbidden,
    "cannot create network {name} (br-{bridge}): conflicts with network {other}: networks have same bridge name",
)  # fmt: skip
NO_PARENT = Code(
    "DY-NET-022", InvalidParameter,
    "cannot create network {network}: invalid subinterface vlan name {parent}, example formatting is eth0.10",
    hint="ip link lists the host's interfaces",
)  # fmt: skip
NO_BRIDGE = Code(
    "DY-NET-023", InvalidParameter, "bridge device with non default name {name} must be created manually",
    hint="ip link add {name} type bridge && ip link set {name} up",
)  # fmt: skip
NO_FORWARDING = Code(
    "DY-NET-024", System,
    "IPv{version} forwarding is disabled: check your host's firewalling and set sysctl {sysctl}=1, or disable this check "
    "using daemon option --ip-forward=false",
    check="NET-01",
)  # fmt: skip
PORT_BUSY = Code(
    "DY-NET-025", System,
    "driver failed programming external connectivity on endpoint {name} ({endpoint}): failed to bind host port "
    "{address}:{port}/{protocol}: address already in use",
    hint="another program of this host has it: ss -lntup 'sport = :{port}'",
    check="PUB-02",
)  # fmt: skip
NO_FIREWALL = Code(
    "DY-NET-026", Unavailable, "cannot make firewall rules: {cause}",
    hint="install nftables or iptables, or start the engine with --iptables=false",
)  # fmt: skip
ONLY_ONE = Code("DY-NET-027", Forbidden, 'only one instance of "{driver}" network is allowed')
NO_SWARM = Code(
    "DY-NET-028", Unavailable,
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    hint="Dockyard has no swarm mode yet: use the bridge, macvlan or ipvlan driver, or a plugin",
)  # fmt: skip
AMBIGUOUS = Code("DY-NET-029", InvalidParameter, "network {ref} is ambiguous ({count} matches found on ID prefix)")
HOST_NETWORK = Code(
    "DY-NET-030", InvalidParameter, "container cannot be disconnected from host network or connected to host network"
)
STORE_FULL = Code(
    "DY-NET-031", Exhausted, "cannot record the network's change: no space left on device",
    hint="docker system df shows what takes it; docker system prune frees some",
)  # fmt: skip
