"""Sandboxes: a container's network namespace with its endpoints, published ports, names and files, while it runs.

One record is written before the kernel is touched, one netlink batch and one firewall transaction make it so. Built-in
drivers answer without suspending: an address that was chosen is recorded before anything else runs. Where a plugin takes
part, each step is recorded by itself, so that ``teardown`` finds after a crash what the plugin must take back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

import msgspec

from dockyard.errors import DockyardError
from dockyard.kernel import netlink_ct
from dockyard.model import new_id
from dockyard.network import kernelwork, publishing, routing, sandboxfiles
from dockyard.network.book import CoreBook
from dockyard.network.core import Core
from dockyard.network.drivers.bridge import mac_of
from dockyard.network.drivers.remote import options_of
from dockyard.network.kernelwork import Plug
from dockyard.network.model import Door, Endpoint, LinkRule, Network, Published, Sandbox, SandboxSpec
from dockyard.network.names import Doors, NameService

log = logging.getLogger(__name__)
Pair = routing.Pair
LINGER = 2.0
"""Seconds that the kernel is given to take a left namespace's interfaces away."""
SHARED = frozenset({"", "host"})
"""``Sandbox.netns`` of containers without a namespace of their own here."""
GATEWAY_NETWORK = "docker_gwbridge"
"""The way out of containers on networks of plugins only, which may have none (libnetwork default_gateway.go)."""
IFACE_PREFIX = "com.docker.network.container_iface_prefix"
_OWN_IPAM = frozenset({"default", "null"})


class Sandboxes:
    def __init__(self, core: Core, gateway_network: Callable[[], Awaitable[Network]]) -> None:
        self._core = core
        self._gateway_network = gateway_network
        self._files = sandboxfiles.SandboxFiles(core)
        self._publishing = publishing.Publishing(core)
        self._spare: kernelwork.Spare | None = None
        """Set in the namespace thread where it is None, taken on the loop where it is not."""
        self._wiring: dict[str, asyncio.Task[None]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self.names = NameService(CoreBook(core))

    def close(self) -> None:
        """Before the thread is closed: nothing new begins."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.names.close()
        self._publishing.close()

    def close_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()

    # -- while a container starts -----------------------------------------------------------------------------------

    async def setup(self, spec: SandboxSpec) -> Sandbox:
        """All of it. On failure everything made is taken back."""
        sandbox = await self.begin(spec)
        await self.wired(spec.container_id)
        return sandbox

    async def begin(self, spec: SandboxSpec) -> Sandbox:
        """Namespace, addresses, held ports, files: all that a container is made with. Its interfaces, rules and names
        follow meanwhile, up to ``wired``: the kernel's lock for them may be somebody else's for a while, and making a
        container takes longer. On failure everything made is taken back."""
        core, container = self._core, spec.container_id
        core.specs[container] = spec
        if spec.mode == "host":
            sandbox = Sandbox(container, "host")
            core.records.put([], sandbox)
            self._files.write(container)
            return sandbox
        if spec.mode.startswith("container:"):
            target = core.records.sandboxes.get(spec.mode.removeprefix("container:"))
            return Sandbox(container, target.netns if target else "")
        path = core.netns_dir / container
        try:
            pairs = await self._endpoints(spec, path)
            published = self._publishing.hold(spec, pairs)
            sandbox = Sandbox(container, str(path), published, tuple(spec.exposed), self._links(spec, pairs))
            core.records.put([endpoint for _, endpoint in pairs], sandbox)
            plugs = [Plug(await core.driver(network), network, endpoint) for network, endpoint in pairs if network.wired]
            spare = await self._named_spare(path, spec.userns)
            work = self._wire(spare, plugs, sandbox, names=self._files.embedded(spec, pairs))
            self._wiring[container] = asyncio.get_running_loop().create_task(work)
            self._files.write(container)
        except BaseException:
            await self.teardown(container)
            raise
        return sandbox

    async def wired(self, container: str) -> None:
        """Until what ``begin`` left under way is there. Raises what went wrong with it, and all is taken back then."""
        task = self._wiring.get(container)
        if task is None:
            return
        try:
            await asyncio.shield(task)
        except BaseException:
            await self.teardown(container)
            raise
        self._wiring.pop(container, None)

    async def _named_spare(self, path: Path, userns: str) -> kernelwork.Spare:
        spare = self._spare if userns == self._core.userns else None
        if spare is not None:
            self._spare = None
        else:
            spare = await self._core.thread.run(lambda: kernelwork.make_spare(userns))
        try:
            kernelwork.keep_sandbox(spare, path)
        except BaseException:
            spare.close()
            raise
        return spare

    async def _wire(self, spare: kernelwork.Spare, plugs: Sequence[Plug], sandbox: Sandbox, *, names: bool) -> None:
        core = self._core
        doors = await core.thread.run(lambda: self._join(spare, plugs, sandbox, names=names))
        if doors is not None:
            self.names.serve(sandbox.container, doors)
        await self._publish_remote(plugs, sandbox)
        await self._publishing.proxy(sandbox.container, sandbox.published)
        core.thread.begin(self._prepare_spare)

    def _prepare_spare(self) -> None:
        if self._spare is None:
            self._spare = kernelwork.make_spare(self._core.userns)

    async def _endpoints(self, spec: SandboxSpec, path: Path) -> list[Pair]:
        """The container's endpoints, ready to be plugged: addresses, MACs, names, and joined at their drivers."""
        core, container = self._core, spec.container_id
        slow = any(_foreign(network) for network, _ in core.records.pairs(container))
        if slow:
            core.records.put([], Sandbox(container, str(path)))
        made: list[Pair] = []
        for network, endpoint in core.records.pairs(container):
            taken = {item.interface for _, item in made}
            made.append((network, await self._ready(network, endpoint, spec, str(path), taken, record=slow)))
        if routing.needs_gateway_network(made):
            network = await self._gateway_network()
            endpoint = Endpoint(new_id(), network.id, container, f"gateway_{container[:12]}")
            taken = {item.interface for _, item in made}
            made.append((network, await self._ready(network, endpoint, spec, str(path), taken, record=True)))
        return made

    async def _ready(
        self, network: Network, endpoint: Endpoint, spec: SandboxSpec, path: str, taken: Collection[str], *, record: bool
    ) -> Endpoint:
        """Address, MAC, driver's endpoint, joined, interface name: in libnetwork's order."""
        if not network.wired:
            return endpoint
        core = self._core
        ipam, driver = await core.ipams.get(network.ipam_driver), await core.driver(network)
        wish, mac = endpoint.wish.ipam_config, endpoint.wish.mac_address
        address = await ipam.request_address(network, "ip", wish.ipv4_address if wish else "", mac)
        address6 = await ipam.request_address(network, "ip6", wish.ipv6_address if wish else "", mac)
        if not network.remote:
            mac = mac or (mac_of(address or address6) if address or address6 else _random_mac())
        ready = msgspec.structs.replace(endpoint, address=address, address6=address6, mac=mac)
        if record:
            core.records.put([ready])
        options = options_of(ready, spec.exposed, ())
        ready = await driver.create_endpoint(network, ready, options)
        ready = await driver.join(network, ready, path, options)
        prefix = ready.joined.prefix if ready.joined else network.option(IFACE_PREFIX, "eth")
        named = (ready.wish.driver_opts or {}).get("com.docker.network.endpoint.ifname")
        free = (f"{prefix}{number}" for number in range(256))
        ready = msgspec.structs.replace(ready, interface=named or next(name for name in free if name not in taken))
        if record:
            core.records.put([ready])
        return ready

    def _links(self, spec: SandboxSpec, pairs: Sequence[Pair]) -> tuple[LinkRule, ...]:
        found: list[LinkRule] = []
        for network, endpoint in pairs:
            if network.icc or not endpoint.address:
                continue
            for target, _ in spec.links:
                sandbox = self._core.records.sandboxes.get(target)
                if sandbox is not None:
                    found += routing.links(endpoint, [(item, sandbox) for item in self._core.records.of(target)])
        return tuple(found)

    def _join(self, spare: kernelwork.Spare, plugs: Sequence[Plug], sandbox: Sandbox, *, names: bool) -> Doors | None:
        try:
            if plugs:
                kernelwork.plug(spare.namespace, plugs, routing.doors([(item.network, item.endpoint) for item in plugs]))
            self._core.firewall.open(sandbox)
            forget_flows(sandbox.published)
            return spare.take_doors() if names else None
        finally:
            spare.close()

    async def _publish_remote(self, plugs: Sequence[Plug], sandbox: Sandbox) -> None:
        for item in plugs:
            if item.network.remote:
                options = options_of(item.endpoint, sandbox.exposed, sandbox.published)
                await item.driver.publish(item.network, item.endpoint, options)

    # -- while it runs ----------------------------------------------------------------------------------------------

    async def join_live(self, spec: SandboxSpec, network: Network, endpoint: Endpoint) -> None:
        core, container = self._core, spec.container_id
        others = [pair for pair in core.records.pairs(container) if pair[1].id != endpoint.id]
        core.specs.setdefault(container, spec)
        sandbox = core.records.sandboxes[container]
        driver = await core.driver(network)
        serving = self._files.embedded(spec, others)
        try:
            taken = {item.interface for _, item in others}
            ready = await self._ready(network, endpoint, spec, sandbox.netns, taken, record=_foreign(network))
            core.records.put([ready])
            doors = routing.doors([*others, (network, ready)])
            plug = Plug(driver, network, ready)
            names = not serving and self._files.embedded(spec, [*others, (network, ready)])
            made = await core.thread.run(lambda: _plug_live(sandbox.netns, plug, doors, names=names))
        except BaseException:
            await self._depart(network, core.records.endpoints.get(endpoint.id, endpoint), sandbox.netns)
            core.records.drop([endpoint])
            raise
        if made is not None:
            self.names.serve(container, made)
        await self._follow_gateway(container)
        self._files.write(container, live=True)

    async def leave_live(self, network: Network, endpoint: Endpoint) -> None:
        """The endpoint's record is gone already."""
        core, container = self._core, endpoint.container
        sandbox = core.records.sandboxes[container]
        await self._depart(network, endpoint, sandbox.netns)
        doors = routing.doors(core.records.pairs(container))
        await core.thread.run(lambda: _route_live(sandbox.netns, doors))
        await self._follow_gateway(container)
        self._files.write(container, live=True)

    async def _depart(self, network: Network, endpoint: Endpoint, netns: str) -> None:
        """One endpoint out of its sandbox and back at its drivers. What cannot be undone is logged: leaving never fails."""
        try:
            driver, ipam = await self._core.driver(network), await self._core.ipams.get(network.ipam_driver)
        except DockyardError as error:
            log.warning("cannot leave network %s: %s", network.name, error)
            return
        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: driver.withdraw(network, endpoint),
            lambda: self._core.thread.run(lambda: driver.unplug(network, endpoint, netns)),
            lambda: driver.leave(network, endpoint),
            lambda: driver.delete_endpoint(network, endpoint),
        ]
        steps += [lambda item=item: ipam.release_address(network, item) for item in endpoint.addresses]  # type: ignore[misc]
        for step in steps:
            try:
                await step()
            except (DockyardError, OSError) as error:
                log.warning("leaving network %s: %s", network.name, error)

    async def _follow_gateway(self, container: str) -> None:
        """Published ports lead to the endpoint that has the default route; it may be another one now."""
        core = self._core
        spec, sandbox = core.specs.get(container), core.records.sandboxes[container]
        if spec is None or not self._publishing.moved(spec, sandbox, core.records.pairs(container)):
            return
        old = sandbox.published
        new = await self._publishing.hold_anew(spec, core.records.pairs(container), old)
        core.records.put([], msgspec.structs.replace(sandbox, published=new))

        def swap() -> None:
            core.firewall.shut(container, old, ())
            core.firewall.open(Sandbox(container, sandbox.netns, new, links=sandbox.links))
            forget_flows([*old, *new])

        await core.thread.run(swap)
        await self._publishing.proxy(container, new)

    # -- when it has ended ------------------------------------------------------------------------------------------

    async def teardown(self, container: str) -> None:
        """Leave: the sandbox ends, addresses go back. Idempotent."""
        core = self._core
        if (task := self._wiring.pop(container, None)) is not None:
            await asyncio.gather(task, return_exceptions=True)  # what is half made cannot be taken back
        sandbox = core.records.sandboxes.get(container)
        core.specs.pop(container, None)
        self.names.drop(container)
        await self._publishing.release(container)
        if sandbox is None:
            return
        pairs = core.records.pairs(container)
        if sandbox.netns not in SHARED:
            for network, endpoint in pairs:
                if _foreign(network):
                    await self._depart(network, endpoint, sandbox.netns)
            await core.thread.run(lambda: self._leave(sandbox))
            self._sweep_later()
        current = [pair for pair in pairs if pair[1].id in core.records.endpoints]
        core.records.leave(container, [_left(item) for _, item in current])
        passing = [item for network, item in current if network.name == GATEWAY_NETWORK and item.name.startswith("gateway_")]
        if passing:
            core.records.drop(passing)

    def _leave(self, sandbox: Sandbox) -> None:
        self._core.firewall.shut(sandbox.container, sandbox.published, sandbox.links)
        forget_flows(sandbox.published)
        kernelwork.close_sandbox(Path(sandbox.netns))

    def _sweep_later(self) -> None:
        """The kernel ends a namespace with its interfaces by itself, in its own time and many in one go, where removing
        an interface holds everybody up for a grace period (14 ms here). What somebody else keeps alive (a process that
        entered the namespace) is removed later."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(LINGER, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweeping = None
        self._core.thread.begin(self.remove_strays)

    def remove_strays(self, *bridge: str) -> None:
        """Ports of our bridges that no running container has. In the namespace thread."""
        records = self._core.records
        endpoints = [item for name in list(records.sandboxes) for item in records.of(name)]
        bridges = {network.bridge for network in self._core.driven("bridge") if not network.adopted} | set(bridge)
        kernelwork.remove_links(kernelwork.stray_ports(bridges, endpoints))

    # -- after a restart of the daemon ------------------------------------------------------------------------------

    async def resume(self, alive: Sequence[Sandbox]) -> None:
        """Ports held and names served again; established connections are not touched."""
        core = self._core
        await self._publishing.resume(alive)
        for sandbox in alive:
            spec, pairs = core.specs.get(sandbox.container), core.records.pairs(sandbox.container)
            if sandbox.netns not in SHARED and spec is not None and self._files.embedded(spec, pairs):
                path = sandbox.netns
                made = await core.thread.run(lambda path=path: kernelwork.name_doors(path))  # type: ignore[misc]
                self.names.serve(sandbox.container, made)

    def sweep(self) -> None:
        """Namespaces and interfaces that no record names. In the namespace thread."""
        core = self._core
        for path in core.netns_dir.iterdir() if core.netns_dir.is_dir() else ():
            if path.name not in core.records.sandboxes:
                kernelwork.close_sandbox(path)
        self.remove_strays()


def _foreign(network: Network) -> bool:
    """A plugin has to be told when an endpoint goes."""
    return network.remote or network.ipam_driver not in _OWN_IPAM


def _random_mac() -> str:
    return "02:42:" + secrets.token_bytes(4).hex(":")


def _plug_live(netns: str, plug: Plug, doors: Sequence[Door], *, names: bool) -> Doors | None:
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernelwork.plug(fd, [plug], ())
        kernelwork.route_by(fd, doors)
        return kernelwork.name_doors(fd) if names else None
    finally:
        os.close(fd)


def _route_live(netns: str, doors: Sequence[Door]) -> None:
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernelwork.route_by(fd, doors)
    finally:
        os.close(fd)


def forget_flows(published: Sequence[Published]) -> None:
    """UDP flows know their translation for as long as somebody sends. In the namespace thread."""
    udp = [item for item in published if item.protocol == "udp"]
    if udp:
        netlink_ct.forget_udp({item.host_port for item in udp}, {item.address for item in udp})


def _left(endpoint: Endpoint) -> Endpoint:
    return msgspec.structs.replace(
        endpoint, address="", address6="", mac=endpoint.wish.mac_address, interface="", joined=None
    )



