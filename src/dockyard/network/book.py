"""What the name service asks: who is called what, and where other questions go."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from dockyard.kernel import netns
from dockyard.network import files, hostfiles, routing
from dockyard.network.core import Core
from dockyard.network.model import SandboxSpec
from dockyard.network.names import Upstream


class CoreBook:
    def __init__(self, core: Core) -> None:
        self._core = core

    def edition(self) -> object:
        return self._core.records.directory()

    def addresses(self, container: str, name: str) -> list[str] | None:
        return self._core.records.directory().addresses(container, name)

    def owner(self, container: str, address: str) -> str | None:
        return self._core.records.directory().owner(container, address)

    def upstreams(self, container: str) -> Sequence[Upstream]:
        """None for a sandbox without a way out (CVE-2024-29018)."""
        pairs = self._core.records.pairs(container)
        if routing.gateway(pairs) is None and routing.gateway(pairs, "ip6") is None:
            return ()
        spec = self._core.specs.get(container)
        own = (spec.dns if spec else ()) or self._core.settings.dns
        if own:
            return [Upstream(server, False) for server in own]
        host = files.all_servers(hostfiles.host_resolv_conf())
        return [Upstream(server, files.is_loopback(server)) for server in host]

    def keeps(self, container: str, name: str) -> bool:
        """Whether a name without a dot stays here: a user who asks for ndots wants it completed, not forwarded."""
        return "." not in name and _ndots(self._core.specs.get(container)) > 0

    async def dial(self, container: str, upstream: Upstream, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in upstream.server else socket.AF_INET
        sandbox = self._core.records.sandboxes.get(container)

        def opened() -> socket.socket:
            if upstream.from_host or sandbox is None:
                return socket.socket(family, kind | socket.SOCK_NONBLOCK)
            with netns.entered(sandbox.netns):
                return socket.socket(family, kind | socket.SOCK_NONBLOCK)

        return await self._core.thread.run(opened)


def _ndots(spec: SandboxSpec | None) -> int:
    """Of the container's own --dns-option; 0 if it says nothing."""
    values = [item.partition(":")[2] for item in (spec.dns_options if spec else ()) if item.startswith("ndots:")]
    return int(values[-1]) if values and values[-1].isdigit() else 0
