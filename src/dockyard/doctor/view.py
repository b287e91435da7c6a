"""The view: facts with indices, and the model of what must exist that follows from the Engine API.

Pure. `Container` and `Network` wrap the engine's documents; `View` answers the questions rules ask: which bridge
carries a network, where the host's uplink is, what the rule sets do with a packet.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from dockyard.doctor.facts import Facts, Link, NetNs, Process
from dockyard.doctor.finding import Object
from dockyard.doctor.firewall import Packet, Ruleset, read_firewall

OUTSIDE = "198.51.100.10"  # an address of TEST-NET-2 that stands for "anywhere outside" when packets are modelled


class Published(NamedTuple):
    proto: str
    host_ip: str
    host_port: int
    port: int


class Container:
    """One container of the engine; what it is asked for again and again is worked out once."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.id = str(document.get("Id", ""))
        self.name = str(document.get("Name", "")).lstrip("/")
        self.state: dict[str, Any] = document.get("State") or {}
        self.config: dict[str, Any] = document.get("Config") or {}
        self.host_config: dict[str, Any] = document.get("HostConfig") or {}

    @property
    def object(self) -> Object:
        return Object("container", self.name, self.id[:12])

    @property
    def running(self) -> bool:
        return bool(self.state.get("Running")) and not self.state.get("Restarting")

    @property
    def exit_code(self) -> int:
        return int(self.state.get("ExitCode") or 0)

    @property
    def error(self) -> str:
        return str(self.state.get("Error") or "")

    @property
    def command(self) -> list[str]:
        return [str(self.document.get("Path", "")), *(str(arg) for arg in self.document.get("Args") or [])]

    @property
    def network_mode(self) -> str:
        return str(self.host_config.get("NetworkMode") or "default")

    @property
    def labels(self) -> dict[str, str]:
        return self.config.get("Labels") or {}

    @cached_property
    def networks(self) -> dict[str, dict[str, Any]]:
        networks = (self.document.get("NetworkSettings") or {}).get("Networks") or {}
        return {name: value for name, value in networks.items() if isinstance(value, dict)}

    @cached_property
    def mounts(self) -> list[dict[str, Any]]:
        return [mount for mount in self.document.get("Mounts") or [] if isinstance(mount, dict)]

    @cached_property
    def published(self) -> list[Published]:
        """Ports that are bound now (running), else those asked for."""
        ports = (self.document.get("NetworkSettings") or {}).get("Ports") or {}
        if not any(ports.values()):
            ports = self.host_config.get("PortBindings") or {}
        found = []
        for key, bindings in ports.items():
            port, _, proto = str(key).partition("/")
            for binding in bindings or []:
                number = str(binding.get("HostPort") or "0")
                if number.isdigit() and port.isdigit():
                    found.append(
                        Published(proto or "tcp", str(binding.get("HostIp") or "0.0.0.0"), int(number), int(port))
                    )
        return sorted(set(found))

    @property
    def seconds_up(self) -> float:
        start, end = when(self.state.get("StartedAt")), when(self.state.get("FinishedAt"))
        return max(0.0, end - start) if start and end > start else 0.0


class Network:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.id = str(document.get("Id", ""))
        self.name = str(document.get("Name", ""))
        self.driver = str(document.get("Driver", ""))
        self.internal = bool(document.get("Internal"))
        self.options: dict[str, str] = document.get("Options") or {}

    @property
    def object(self) -> Object:
        return Object("network", self.name, self.id[:12])

    @property
    def bridge(self) -> str:
        """Name of the bridge link by the drivers' own rule: the option, else br-<first twelve of the id>."""
        if self.driver != "bridge":
            return ""
        return self.options.get("com.docker.network.bridge.name") or f"br-{self.id[:12]}"

    @property
    def subnets(self) -> list[str]:
        configs = (self.document.get("IPAM") or {}).get("Config") or []
        return [str(config["Subnet"]) for config in configs if config.get("Subnet") and ":" not in config["Subnet"]]

    @property
    def gateway(self) -> str:
        configs = (self.document.get("IPAM") or {}).get("Config") or []
        return next(
            (str(c["Gateway"]).split("/")[0] for c in configs if c.get("Gateway") and ":" not in c["Gateway"]), ""
        )

    @property
    def masquerade(self) -> bool:
        mode = self.options.get("com.docker.network.bridge.gateway_mode_ipv4", "nat")
        wanted = self.options.get("com.docker.network.bridge.enable_ip_masquerade", "true")
        return not self.internal and wanted.lower() != "false" and mode.startswith("nat")

    @property
    def icc(self) -> bool:
        return self.options.get("com.docker.network.bridge.enable_icc", "true").lower() != "false"


class View:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @cached_property
    def containers(self) -> list[Container]:
        return [Container(document) for document in self.facts.containers]

    @cached_property
    def networks(self) -> list[Network]:
        return [Network(document) for document in self.facts.networks]

    @cached_property
    def firewall(self) -> Ruleset:
        return read_firewall(self.facts.firewall)

    @cached_property
    def running(self) -> list[Container]:
        return [container for container in self.containers if container.running]

    @cached_property
    def bridges(self) -> list[Network]:
        """Bridge networks of this engine that have a subnet."""
        return [network for network in self.networks if network.bridge and network.subnets]

    def knows(self, kind: str, name: str) -> bool:
        """Whether there is such a container (by name or start of its ID) or network."""
        if kind == "container":
            return any(each.name == name or each.id.startswith(name) for each in self.containers)
        return any(name in (each.name, each.id[:12], each.id) for each in self.networks)

    @cached_property
    def _by_network(self) -> dict[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for container in self.running:
            for name in container.networks:
                found.setdefault(name, []).append(container)
        return found

    def members(self, network: Network) -> list[Container]:
        """Running containers on it. Looked up: a host can have thousands of both."""
        return self._by_network.get(network.name, [])

    def address(self, container: Container, network: Network) -> str:
        return str(container.networks.get(network.name, {}).get("IPAddress") or "")

    @cached_property
    def by_id(self) -> dict[str, Container]:
        return {container.id: container for container in self.containers}

    def process(self, container: Container) -> Process | None:
        return self.facts.processes.get(container.id)

    def net(self, container: Container) -> NetNs | None:
        return self.facts.nets.get(container.id)

    def log(self, container: Container) -> str:
        return self.facts.logs.get(container.id, "")

    def log_line(self, container: Container, pattern: str) -> str:
        """The last line of the container's log that matches, empty if none."""
        lines = [line.strip() for line in self.log(container).splitlines() if re.search(pattern, line, re.IGNORECASE)]
        return lines[-1][:300] if lines else ""

    @cached_property
    def _links_by_name(self) -> dict[str, Link]:
        return {link.name: link for link in (self.facts.host_net.links if self.facts.host_net else [])}

    def host_link(self, name: str) -> Link | None:
        return self._links_by_name.get(name)

    @cached_property
    def links_by_index(self) -> dict[int, Link]:
        return {link.index: link for link in (self.facts.host_net.links if self.facts.host_net else [])}

    @cached_property
    def uplink(self) -> str:
        """Link of the default route of the engine's namespace, empty if there is none."""
        routes = [route for route in (self.facts.host_net.routes if self.facts.host_net else [])
                  if route.destination == "0.0.0.0/0" and route.kind == "unicast"]  # fmt: skip
        if not routes:
            return ""
        best = min(routes, key=lambda route: route.metric)
        return self.links_by_index[best.link].name if best.link in self.links_by_index else ""

    @cached_property
    def host_addresses(self) -> list[str]:
        return [
            a.address for a in (self.facts.host_net.addresses if self.facts.host_net else []) if ":" not in a.address
        ]

    @cached_property
    def uplink_address(self) -> str:
        link = self.host_link(self.uplink)
        addresses = self.facts.host_net.addresses if self.facts.host_net else []
        return next((a.address for a in addresses if link and a.link == link.index and ":" not in a.address), "")

    def outbound(self, network: Network, **changes: object) -> Packet:
        """A new connection from a container of ``network`` to the outside, as it enters the forward hook."""
        packet = Packet(example(network), OUTSIDE, "tcp", dport=443, iif=network.bridge, oif=self.uplink)
        return packet.with_(**changes)

    def events_of(self, container: Container) -> Iterator[dict[str, Any]]:
        for event in self.facts.events:
            if (event.get("Actor") or {}).get("ID") == container.id:
                yield event

    @property
    def is_docker(self) -> bool:
        """dockerd itself (its chains and names can be expected), not podman or Dockyard."""
        names = {str(item.get("Name", "")) for item in self.facts.engine.version.get("Components") or []}
        return "Engine" in names and "Dockyard" not in names

    @property
    def engine_version(self) -> tuple[int, ...]:
        text = str(self.facts.engine.version.get("Version", ""))
        return tuple(int(part) for part in re.findall(r"\d+", text)[:2])

    @property
    def manages_iptables(self) -> bool:
        words = " ".join(self.facts.engine.command)
        return "--iptables=false" not in words and '"iptables": false' not in (self.facts.engine.config_text or "")


def example(network: Network) -> str:
    """An address of the network that stands for any container of it."""
    subnet = ipaddress.ip_network(network.subnets[0])
    return str(subnet.network_address + min(10, subnet.num_addresses - 2))


def when(text: object) -> float:
    """Seconds since the epoch of Docker's RFC 3339 time; 0 for its zero time."""
    value = str(text or "")
    if not value or value.startswith("0001"):
        return 0.0
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", value)
    if match is None:
        return 0.0
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(match[1] + zone).timestamp() + float(match[2] or 0)
