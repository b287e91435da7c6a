"""Docker's sentences about networks (moby daemon/libnetwork/errors.go, daemon/network.go)."""

from __future__ import annotations

from dockyard.errors import Code, Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedYet, System

NO_SUCH_NETWORK = Code("DY-NET-001", NotFound, "network {ref} not found", hint="docker network ls")
NETWORK_EXISTS = Code("DY-NET-002", Conflict, "network with name {name} already exists")
PREDEFINED = Code("DY-NET-003", Forbidden, "{name} is a pre-defined network and cannot be removed")
PREDEFINED_NAME = Code("DY-NET-004", Forbidden, "operation is not permitted on predefined {name} network")
ACTIVE_ENDPOINTS = Code(
    "DY-NET-005", Forbidden, "error while removing network: network {name} has active endpoints ({who})",
    hint="docker network disconnect -f {name} NAME",
)  # fmt: skip
OVERLAP = Code(
    "DY-NET-006", Forbidden, "invalid pool request: Pool overlaps with other one on this address space: {pool} and {other}",
    hint="choose another --subnet",
)  # fmt: skip
NO_POOL = Code(
    "DY-NET-007", System, "all predefined address pools have been fully subnetted",
    hint="remove unused networks (docker network prune) or set default-address-pools",
)  # fmt: skip
NO_ADDRESS = Code("DY-NET-008", System, "no available IPv4 addresses on this network's address pools: {network}")
ADDRESS_IN_USE = Code("DY-NET-009", Forbidden, "Address already in use")
BAD = Code("DY-NET-010", InvalidParameter, "{cause}")
PORT_TAKEN = Code(
    "DY-NET-011", System,
    "driver failed programming external connectivity on endpoint {name} ({endpoint}): Bind for {address}:{port} failed: "
    "port is already allocated",
    hint="docker ps shows who publishes it; ss -ltnp shows other listeners",
)  # fmt: skip
NO_DRIVER = Code("DY-NET-012", NotImplementedYet, "could not find plugin {driver} in v1 plugin registry: plugin not found")
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
