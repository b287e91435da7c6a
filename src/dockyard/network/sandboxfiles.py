"""hosts, hostname and resolv.conf of containers: when they are written, and with what."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.network import files, hostfiles, routing
from dockyard.network.core import Core
from dockyard.network.model import SandboxSpec


class SandboxFiles:
    def __init__(self, core: Core) -> None:
        self._core = core

    def embedded(self, spec: SandboxSpec, pairs: Sequence[routing.Pair]) -> bool:
        """Whether 127.0.0.11 answers: on user-defined networks, and wherever all of the host's servers are its own
        loopback ones, which mean nothing inside a container and are reached through us (libnetwork#2187)."""
        if spec.mode == "host":
            return False
        wired = [network for network, _ in pairs if network.wired]
        if any(not network.predefined for network in wired):
            return True
        return bool(wired) and not (spec.dns or self._core.settings.dns) and hostfiles.only_loopback_servers()

    def write(self, container: str, *, live: bool = False) -> None:
        spec = self._core.specs.get(container)
        if spec is None:
            return
        records = self._core.records
        pairs = [pair for pair in records.pairs(container) if pair[1].addresses]
        rows = [
            (address, [alias, target[:12], linked.name])
            for target, alias in spec.links
            for linked in records.of(target)
            for address in linked.addresses
        ]
        own = [address for _, endpoint in pairs for address in endpoint.addresses]
        embedded = self.embedded(spec, pairs)
        gateways = self._host_gateways(pairs)
        hostfiles.write(spec, self._core.settings, rows, own, gateways, embedded=embedded, live=live)

    def _host_gateways(self, pairs: Sequence[routing.Pair]) -> list[str]:
        """What ``host-gateway`` stands for: the administrator's addresses, or the host's on the container's network."""
        if self._core.settings.host_gateway_ips:
            return list(self._core.settings.host_gateway_ips)
        found = []
        for family in ("ip", "ip6"):
            pair = routing.gateway(pairs, family)
            subnet = pair[0].subnet(family) if pair and pair[0].driver == "bridge" else None
            if subnet is not None and subnet.gateway:
                found.append(subnet.gateway)
        bridge = next((item for item in self._core.driven("bridge") if item.name == "bridge"), None)
        default = bridge.subnet("ip") if bridge else None
        return found or ([default.gateway] if default else [files.LOOPBACK])
