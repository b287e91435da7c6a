"""Publishing a container's ports: held on the host, led to its gateway endpoint, carried by a process where need be."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.network import hostports, routing
from dockyard.network.core import Core
from dockyard.network.model import BRIDGE_OPTION, Network, Published, Sandbox, SandboxSpec
from dockyard.network.proxy import Proxy


class Publishing:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._proxy = Proxy(core.netns_dir.parent / "port-proxy") if core.settings.userland_proxy else None
        self._over_ipv6 = self._proxy is not None and hostports.ipv6_listens()

    def close(self) -> None:
        self._core.ports.close()

    def hold(self, spec: SandboxSpec, pairs: Sequence[routing.Pair]) -> tuple[Published, ...]:
        """Raises System with Docker's sentence if a port is taken. All or none."""
        rows = hostports.wanted(spec.exposed, spec.bindings, spec.publish_all)
        return self._hold(spec, pairs, rows)

    async def hold_anew(
        self, spec: SandboxSpec, pairs: Sequence[routing.Pair], old: Sequence[Published]
    ) -> tuple[Published, ...]:
        """For another gateway endpoint: ports that nobody chose stay what they are."""
        await self.release(spec.container_id)
        known = {(item.port, item.protocol): item.host_port for item in old if not item.direct}
        rows = [
            (port, protocol, at, span or _one(known.get((port, protocol))))
            for port, protocol, at, span in hostports.wanted(spec.exposed, spec.bindings, spec.publish_all)
        ]
        return self._hold(spec, pairs, rows)

    def moved(self, spec: SandboxSpec, sandbox: Sandbox, pairs: Sequence[routing.Pair]) -> bool:
        if not (spec.publish_all or any(spec.bindings.values())):
            return False
        who, _ = self._who(spec, pairs)
        wanted = {item for item in (who.address, who.address6) if item}
        return wanted != {item.address for item in sandbox.published}

    async def resume(self, alive: Sequence[Sandbox]) -> None:
        """After a restart of the daemon. What the proxy still holds goes on; what it lost is given to it again."""
        for sandbox in alive:
            spec = self._core.specs.get(sandbox.container)
            self._core.ports.hold_again(sandbox.container, spec.name if spec else sandbox.container, sandbox.published)
        if self._proxy is not None:
            self._proxy.keep([item.container for item in alive if any(_by_process(port) for port in item.published)])
            for sandbox in alive:
                await self.proxy(sandbox.container, sandbox.published, again=True)

    async def release(self, container: str) -> None:
        sandbox = self._core.records.sandboxes.get(container)
        if self._proxy is not None and sandbox is not None and any(_by_process(item) for item in sandbox.published):
            await self._proxy.drop(container)
        self._core.ports.release(container)

    async def proxy(self, container: str, published: Sequence[Published], *, again: bool = False) -> None:
        """A process carries what the kernel does not: IPv6 to IPv4, ::1, and everything with --iptables=false."""
        if self._proxy is None:
            return
        rows = [
            (item, sock)
            for item in published
            if _by_process(item) and (sock := self._core.ports.holding(container, item)) is not None
        ]
        if rows or not again:
            await self._proxy.serve(container, rows)

    def _hold(
        self, spec: SandboxSpec, pairs: Sequence[routing.Pair], rows: Sequence[hostports.Row]
    ) -> tuple[Published, ...]:
        who, network = self._who(spec, pairs)
        if network is None or not rows:
            return ()
        default = network.option(f"{BRIDGE_OPTION}host_binding_ipv4", self._core.settings.host_ip)
        held = self._core.ports.hold(spec.container_id, who, rows, default)
        found = routing.reached(network, held, direct=self._core.settings.allow_direct_routing)
        unruled = {family for family in ("ip", "ip6") if family not in self._core.settings.families}
        return tuple(
            Published(item.port, item.protocol, item.host_ip, item.host_port, item.address, item.direct, (), True)
            if ("ip6" if ":" in item.address else "ip") in unruled and not item.direct
            else item
            for item in found
        )

    def _who(self, spec: SandboxSpec, pairs: Sequence[routing.Pair]) -> tuple[hostports.Who, Network | None]:
        """Whom ports lead to: the endpoint with the default route, of each family."""
        place, place6 = routing.gateway(pairs), routing.gateway(pairs, "ip6")
        place = place if place and place[0].driver == "bridge" else None
        place6 = place6 if place6 and place6[0].driver == "bridge" else None
        first = place or place6
        if first is None:
            return hostports.Who(spec.name, "", "", ""), None
        address = place[1].address.partition("/")[0] if place else ""
        address6 = place6[1].address6.partition("/")[0] if place6 else ""
        return hostports.Who(spec.name, first[1].id, address, address6, proxy=self._over_ipv6), first[0]


def _one(port: int | None) -> range:
    return range(port, port + 1) if port else range(0)


def _by_process(item: Published) -> bool:
    return item.protocol in {"tcp", "udp"} and not item.direct and (item.proxied or item.host_ip in {"::", "::1"})


