"""The controller: networks, endpoints and sandboxes, recorded and done.

create network > create endpoint (``connect``) > join (``setup``, or ``connect`` while the container runs) > leave
(``teardown``) > delete endpoint (``forget``, ``disconnect``) > delete network. An endpoint keeps an address the user gave
for as long as it exists; others are given at join and returned at leave. A network with endpoints of running containers
is not removed.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec

from dockyard.kernel import netlink_ct, netns, sysctl
from dockyard.kernel.netns import NetnsThread
from dockyard.lib import clock
from dockyard.model import EndpointSettings, new_id
from dockyard.network import creation, documents, errors, files, firewall, hostfiles, ipam, kernelwork, ports, routing
from dockyard.network.ipam import Pool
from dockyard.network.model import Door, Endpoint, Network, NetworkSettings, Published, Sandbox, SandboxSpec
from dockyard.network.names import Doors, NameService, Upstream
from dockyard.network.records import Records
from dockyard.network.watch import FirewallWatch

Json = dict[str, Any]
LINGER = 2.0
"""Seconds that the kernel is given to take a left namespace's interfaces away."""
SHARED = frozenset({"", "host"})
"""``Sandbox.netns`` of containers without a namespace of their own here."""
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")


class Controller:
    def __init__(self, root: Path, run_dir: Path, settings: NetworkSettings) -> None:
        self.settings = settings
        self._netns = run_dir / "netns"
        self._records = Records(root / "network.db")
        self._thread = NetnsThread("network")
        self._firewall = kernelwork.HostFirewall()
        self._ports = ports.Holder()
        self._names = NameService(self)
        self._specs: dict[str, SandboxSpec] = {}
        self._mtu = settings.mtu
        self._watch: FirewallWatch | None = None
        self._spare: kernelwork.Spare | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._families = tuple(
            family for family, on in (("ip", settings.iptables), ("ip6", settings.ip6tables and settings.iptables)) if on
        )

    @classmethod
    async def open(cls, root: Path, run_dir: Path, settings: NetworkSettings | None = None) -> Controller:
        """Predefined networks exist afterwards; the kernel is looked at by ``recover``."""
        root.mkdir(parents=True, exist_ok=True)
        made = cls(root, run_dir, settings or NetworkSettings())
        made._mtu = made._mtu or await made._thread.run(kernelwork.uplink_mtu)
        if made.settings.ip_forward:
            await made._thread.run(made._switch_forwarding_on)
        names = {network.name for network in made._records.networks.values()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                made._records.put_network(Network(new_id(), name, driver, clock.rfc3339(clock.now())))
        if "bridge" not in names and made.settings.bridge != "none":
            made._records.put_network(await made._default_bridge())
        return made

    def _switch_forwarding_on(self) -> None:
        sysctl.write_if_present("net.ipv4.ip_forward", "1")
        if self.settings.ipv6:
            sysctl.write_if_present("net.ipv6.conf.all.forwarding", "1")

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._names.close()
        self._thread.close()
        if self._spare is not None:
            self._spare.close()
        self._firewall.close()
        self._records.close()

    async def uninstall(self) -> None:
        """Takes bridges and tables from the kernel; records stay. Running containers lose their connections."""

        def work() -> None:
            self._remove_strays()
            bridges = self._driven("bridge")
            for network in bridges:
                kernelwork.remove_bridge(network)
            self._firewall.pass_forward_policy([], self._families, [network.bridge for network in bridges])
            if self._families:
                self._firewall.run(firewall.remove())

        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._thread.run(work)

    async def _default_bridge(self) -> Network:
        name = self.settings.bridge
        if not name:
            name = "dockyard0" if await self._thread.run(lambda: kernelwork.link_exists("docker0")) else "docker0"
        taken = await self._taken()
        return creation.default_bridge(
            self.settings, name, self._mtu, lambda: ipam.choose_pool(self.settings.default_address_pools, taken)
        )

    async def _taken(self) -> list[Pool]:
        """What no pool may overlap: the host's routes and its name servers."""
        routes = await self._thread.run(kernelwork.host_networks)
        return [ip_network(item, strict=False) for item in (*routes, *files.name_servers(hostfiles.host_resolv_conf()))]

    def _driven(self, driver: str) -> list[Network]:
        return [item for item in self._records.networks.values() if item.driver == driver and not item.config_only]

    # -- networks ---------------------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        return list(self._records.networks.values())

    def network(self, ref: str) -> Network:
        """By ID, name, or unique ID prefix. Raises NotFound."""
        known = self._records.networks
        if ref in known:
            return known[ref]
        matches = [network for network in known.values() if network.name == ref]
        matches = matches or [network for network in known.values() if ref and network.id.startswith(ref)]
        if len(matches) != 1:
            raise errors.NO_SUCH_NETWORK(ref=ref)
        return matches[0]

    async def create_network(self, request: Json) -> Network:
        taken = await self._taken()
        network = creation.plan(request, self.networks(), taken, self.settings)
        self._records.put_network(network)
        if network.config_only:
            return network
        try:
            await self._thread.run(lambda: self._bring_up(network))
        except BaseException:
            self._records.drop_network(network.id)
            raise
        return network

    def _bring_up(self, network: Network) -> None:
        if network.driver == "macvlan":
            kernelwork.setup_parent(network)
            return
        kernelwork.setup_bridge(network, self._mtu)
        self._filter(firewall.network_elements(network))
        self._firewall.pass_forward_policy([network.bridge], self._families)
        if network.enable_ipv6 and self.settings.ip_forward:
            sysctl.write_if_present("net.ipv6.conf.all.forwarding", "1")

    def _filter(self, elements: Sequence[firewall.Element], *, gone: bool = False) -> None:
        """Adds or deletes elements in one transaction. In the kernel thread."""
        rows = [item for item in elements if item[0] in self._families]
        if rows:
            self._firewall.run(firewall.delete(rows) if gone else firewall.add(rows))

    async def remove_network(self, ref: str) -> Network:
        network = self.network(ref)
        if network.predefined:
            raise errors.PREDEFINED(name=network.name)
        members = self._records.within(network.id)
        active = [item for item in members if item.container in self._records.sandboxes]
        if active:
            who = ", ".join(f'name:"{item.name}" id:"{item.id[:12]}"' for item in active)
            raise errors.ACTIVE_ENDPOINTS(name=network.name, who=who)
        self._records.drop(members)
        self._records.drop_network(network.id)
        if not network.config_only:
            await self._thread.run(lambda: self._take_down(network))
        return network

    def _take_down(self, network: Network) -> None:
        if network.driver == "macvlan":
            kernelwork.remove_parent(network)
            return
        self._filter(firewall.network_elements(network), gone=True)
        self._firewall.pass_forward_policy([], self._families, [network.bridge])
        self._remove_strays(network.bridge)
        kernelwork.remove_bridge(network)

    # -- endpoints --------------------------------------------------------------------------------------------------

    def endpoints_of(self, container: str) -> list[Endpoint]:
        return self._records.of(container)

    def endpoints_in(self, network_id: str) -> list[Endpoint]:
        return self._records.within(network_id)

    async def connect(
        self, container: str, name: str, ref: str, wish: EndpointSettings, spec: SandboxSpec | None = None
    ) -> Endpoint:
        """Records an endpoint; with ``spec`` (the container runs) it is joined at once."""
        network = self.network(ref)
        if network.config_only:
            raise errors.CONFIG_ONLY(name=network.name)
        if any(item.network == network.id for item in self._records.of(container)):
            raise errors.ALREADY_CONNECTED(name=name, network=network.name)
        if wish.mac_address and not _MAC.fullmatch(wish.mac_address):
            raise errors.BAD(cause=f"invalid endpoint settings: address {wish.mac_address}: invalid MAC address")
        if spec is not None:
            _check_live(network, spec)
        names = tuple(dict.fromkeys(item.lower() for item in (name, container[:12], *(wish.aliases or ()))))
        endpoint = Endpoint(new_id(), network.id, container, name, wish, mac=wish.mac_address, names=names)
        endpoint = self._asked(network, endpoint)
        self._records.put([endpoint])
        if spec is not None:
            await self._join_live(spec, network, endpoint)
        return self._records.endpoints[endpoint.id]

    def _asked(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """With the addresses that the user named; they are held from now on."""
        wish = endpoint.wish.ipam_config
        if wish is None or not (wish.ipv4_address or wish.ipv6_address):
            return endpoint
        if not network.configured:
            raise errors.STATIC_ADDRESS()
        changes = {}
        for field, family, text in (("address", "ip", wish.ipv4_address), ("address6", "ip6", wish.ipv6_address)):
            if text:
                changes[field] = self._allocate(network, family, text, ())
        return msgspec.structs.replace(endpoint, **changes)

    def _allocate(self, network: Network, family: str, wish: str, more: Sequence[str]) -> str:
        subnet = network.subnet(family)
        if subnet is None:
            if wish:
                raise errors.BAD(cause=f"invalid endpoint settings: no configured subnet contains IP address {wish}")
            return ""
        used = [text for item in self._records.within(network.id) for text in (item.address, item.address6)]
        return ipam.allocate(subnet, [*used, *more], wish, network.name)

    def _addressed(self, network: Network, endpoint: Endpoint, interface: str) -> Endpoint:
        """Ready to be joined: addresses, MAC and interface name."""
        if network.driver == "null":
            return endpoint
        address = endpoint.address or self._allocate(network, "ip", "", ())
        address6 = endpoint.address6 or self._allocate(network, "ip6", "", ())
        mac = endpoint.mac or kernelwork.mac_of(address or address6)
        named = (endpoint.wish.driver_opts or {}).get("com.docker.network.endpoint.ifname")
        return msgspec.structs.replace(
            endpoint, address=address, address6=address6, mac=mac, interface=named or interface
        )

    async def disconnect(self, container: str, ref: str) -> Endpoint:
        network = self.network(ref)
        found = next((item for item in self._records.of(container) if item.network == network.id), None)
        if found is None:
            raise errors.NOT_CONNECTED(container=container, network=network.name)
        self._records.drop([found])
        sandbox = self._records.sandboxes.get(container)
        if sandbox is not None and sandbox.netns not in SHARED:
            gone = [item for item in sandbox.published if item.address in found.addresses]
            kept = tuple(item for item in sandbox.published if item not in gone)
            self._records.put([], msgspec.structs.replace(sandbox, published=kept))
            doors = routing.doors(self._records.pairs(container))
            await self._thread.run(lambda: self._unplug_live(network, sandbox, found, gone, doors))
            self._write_files(container)
        return found

    def _unplug_live(
        self, network: Network, sandbox: Sandbox, endpoint: Endpoint, gone: Sequence[Published],
        doors: Sequence[Door],
    ) -> None:  # fmt: skip
        self._unpublish(gone)
        kernelwork.unplug([endpoint])
        if network.driver == "macvlan":
            kernelwork.unplug_inside(sandbox.netns, endpoint)
        fd = os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernelwork.route_by(fd, doors)
        finally:
            os.close(fd)

    # -- sandboxes --------------------------------------------------------------------------------------------------

    async def setup(self, spec: SandboxSpec) -> Sandbox:
        """Namespace, endpoints, published ports, files. On failure everything made is taken back."""
        self._specs[spec.container_id] = spec
        if spec.mode == "host":
            sandbox = Sandbox(spec.container_id, "host")
            self._records.put([], sandbox)
            self._write_files(spec.container_id)
            return sandbox
        if spec.mode.startswith("container:"):
            target = self._records.sandboxes.get(spec.mode.removeprefix("container:"))
            return Sandbox(spec.container_id, target.netns if target else "")
        path = self._netns / spec.container_id
        pairs = [
            (network, self._addressed(network, endpoint, f"eth{number}"))
            for number, (network, endpoint) in enumerate(self._records.pairs(spec.container_id))
        ]
        published = self._publish(spec, pairs)
        sandbox = Sandbox(spec.container_id, str(path), published, tuple(spec.exposed), self._links(spec, pairs))
        self._records.put([endpoint for _, endpoint in pairs], sandbox)
        try:
            doors = await self._thread.run(lambda: self._join(path, pairs, sandbox))
            if doors is not None:
                self._names.serve(spec.container_id, doors)
            self._write_files(spec.container_id)
        except BaseException:
            await self.teardown(spec.container_id)
            raise
        self._thread.begin(self._prepare_spare)
        return sandbox

    def _prepare_spare(self) -> None:
        if self._spare is None:
            self._spare = kernelwork.make_spare()

    def _publish(self, spec: SandboxSpec, pairs: Sequence[routing.Pair]) -> tuple[Published, ...]:
        door = routing.gateway(pairs) or routing.gateway(pairs, "ip6")
        rows = ports.wanted(spec.exposed, spec.bindings, spec.publish_all)
        if door is None or not rows or door[0].driver != "bridge":
            return ()
        network, endpoint = door
        default = network.option("com.docker.network.bridge.host_binding_ipv4", self.settings.host_ip)
        who = ports.Who(
            spec.name, endpoint.id, endpoint.address.partition("/")[0], endpoint.address6.partition("/")[0]
        )
        return tuple(routing.directly(network, self._ports.hold(spec.container_id, who, rows, default)))

    def _links(self, spec: SandboxSpec, pairs: Sequence[routing.Pair]) -> tuple[Any, ...]:
        found: list[Any] = []
        for network, endpoint in pairs:
            if network.icc or not endpoint.address:
                continue
            for target, _ in spec.links:
                sandbox = self._records.sandboxes.get(target)
                if sandbox is not None:
                    found += routing.links(endpoint, [(item, sandbox) for item in self._records.of(target)])
        return tuple(found)

    def _join(self, path: Path, pairs: Sequence[routing.Pair], sandbox: Sandbox) -> Doors | None:
        spare, self._spare = self._spare or kernelwork.make_spare(), None
        try:
            kernelwork.keep_sandbox(spare, path)
            wired = [pair for pair in pairs if pair[0].driver in {"bridge", "macvlan"}]
            names = any(not network.predefined for network, _ in wired)
            if wired:
                kernelwork.plug(spare.namespace, wired, self._mtu, routing.doors(wired))
            self._filter(self._elements(sandbox))
            self._forget_flows(sandbox.published)
            return spare.take_doors() if names else None
        finally:
            spare.close()

    def _elements(self, sandbox: Sandbox) -> list[firewall.Element]:
        guarded = self.settings.respect_host_firewall
        return firewall.port_elements(sandbox.published, guarded=guarded) + firewall.link_elements(sandbox.links)

    def _unpublish(self, gone: Sequence[Published]) -> None:
        self._filter(firewall.port_elements(gone, guarded=self.settings.respect_host_firewall), gone=True)
        self._forget_flows(gone)

    def _forget_flows(self, published: Sequence[Published]) -> None:
        udp = [item for item in published if item.protocol == "udp"]
        if udp:
            netlink_ct.forget_udp({item.host_port for item in udp}, {item.address for item in udp})

    async def _join_live(self, spec: SandboxSpec, network: Network, endpoint: Endpoint) -> None:
        container = spec.container_id
        others = [pair for pair in self._records.pairs(container) if pair[1].id != endpoint.id]
        taken = {item.interface for _, item in others}
        interface = next(f"eth{number}" for number in range(256) if f"eth{number}" not in taken)
        self._specs.setdefault(container, spec)
        sandbox = self._records.sandboxes[container]
        serving = any(not item.predefined for item, _ in others)
        try:
            ready = self._addressed(network, endpoint, interface)
            self._records.put([ready])
            doors = routing.doors([*others, (network, ready)])
            made = await self._thread.run(
                lambda: self._plug_live(sandbox, network, ready, doors, not network.predefined and not serving)
            )
        except BaseException:
            self._records.drop([endpoint])
            await self._thread.run(lambda: kernelwork.unplug([endpoint]))
            raise
        if made is not None:
            self._names.serve(container, made)
        self._write_files(container)

    def _plug_live(
        self, sandbox: Sandbox, network: Network, ready: Endpoint, doors: Sequence[Door], names: bool
    ) -> Doors | None:
        fd = os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernelwork.plug(fd, [(network, ready)], self._mtu, ())
            kernelwork.route_by(fd, doors)
            return kernelwork.name_doors(fd) if names else None
        finally:
            os.close(fd)

    async def teardown(self, container: str) -> None:
        """Leave: the sandbox ends, given addresses go back. Idempotent."""
        sandbox = self._records.sandboxes.get(container)
        self._specs.pop(container, None)
        self._names.drop(container)
        self._ports.release(container)
        if sandbox is None:
            return
        left = self._records.of(container)
        if sandbox.netns not in SHARED:
            await self._thread.run(lambda: self._leave(sandbox))
            self._sweep_later()
        current = [item for item in left if item.id in self._records.endpoints]
        self._records.leave(container, [_left(item) for item in current])

    def _leave(self, sandbox: Sandbox) -> None:
        self._filter(self._elements(sandbox), gone=True)
        self._forget_flows(sandbox.published)
        kernelwork.close_sandbox(Path(sandbox.netns))

    def _sweep_later(self) -> None:
        """The kernel ends a namespace with its interfaces by itself, in its own time and many in one go, where removing
        an interface holds everybody up for a grace period (14 ms here). What somebody else keeps alive (a process that
        entered the namespace) is removed later."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(LINGER, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweeping = None
        self._thread.begin(self._remove_strays)

    def _remove_strays(self, *bridge: str) -> None:
        endpoints = [item for name in list(self._records.sandboxes) for item in self._records.of(name)]
        bridges = {network.bridge for network in self._driven("bridge")} | set(bridge)
        kernelwork.remove_links(kernelwork.stray_ports(bridges, endpoints))

    async def forget(self, container: str) -> None:
        await self.teardown(container)
        self._records.drop(self._records.of(container))

    async def rename(self, container: str, name: str) -> None:
        changed = []
        for item in self._records.of(container):
            names = tuple(dict.fromkeys((name.lower(), *(known for known in item.names if known != item.name.lower()))))
            changed.append(msgspec.structs.replace(item, name=name, names=names))
        self._records.put(changed)

    # -- recovery ---------------------------------------------------------------------------------------------------

    async def recover(self, live: Mapping[str, int], specs: Mapping[str, SandboxSpec]) -> None:
        """After a start of the daemon: bridges and tables as recorded, sandboxes of the dead taken away, name service
        and held ports of the living back. Established connections are not touched."""
        self._specs = dict(specs)
        alive = [sandbox for container, sandbox in self._records.sandboxes.items() if container in live]
        dead = [container for container in self._records.sandboxes if container not in live]
        await self._thread.run(self._restore)
        for container in dead:
            await self.teardown(container)
        for sandbox in alive:
            self._ports.hold_again(sandbox.container, sandbox.published)
            named = any(not network.predefined for network, _ in self._records.pairs(sandbox.container))
            if named and sandbox.netns not in SHARED:
                path = sandbox.netns
                self._names.serve(sandbox.container, await self._thread.run(lambda path=path: kernelwork.name_doors(path)))  # type: ignore[misc]
        await self._thread.run(self._sweep)
        if self._families and self._watch is None:
            self._watch = FirewallWatch(self._heal)

    def _restore(self) -> None:
        for network in self._driven("bridge"):
            kernelwork.setup_bridge(network, self._mtu)
        for network in self._driven("macvlan"):
            kernelwork.setup_parent(network)
        self._restore_firewall()

    def _restore_firewall(self) -> None:
        if not self._families:
            return
        elements = [row for network in self._driven("bridge") for row in firewall.network_elements(network)]
        elements += [row for sandbox in self._records.sandboxes.values() for row in self._elements(sandbox)]
        unique = list(dict.fromkeys(elements))
        guarded = self.settings.respect_host_firewall
        self._firewall.run(firewall.whole(unique, self._families, guarded=guarded))
        bridges = [network.bridge for network in self._driven("bridge")]
        self._firewall.pass_forward_policy(bridges, self._families)

    async def _heal(self) -> None:
        """Somebody else changed the firewall: what is ours is put back in one transaction."""
        await self._thread.run(self._restore_firewall)

    def _sweep(self) -> None:
        for path in self._netns.iterdir() if self._netns.is_dir() else ():
            if path.name not in self._records.sandboxes:
                kernelwork.close_sandbox(path)
        self._remove_strays()

    # -- looking ----------------------------------------------------------------------------------------------------

    def settings_of(self, container: str) -> Json:
        """Docker's NetworkSettings."""
        return documents.network_settings(self._records.sandboxes.get(container), self._records.pairs(container))

    def networks_of(self, container: str) -> list[str]:
        return [value for network, _ in self._records.pairs(container) for value in (network.name, network.id)]

    def document(self, network: Network) -> Json:
        members = self._records.within(network.id)
        return documents.network(network, [item for item in members if item.container in self._records.sandboxes])

    def gateway_address(self, container: str) -> str:
        door = routing.gateway(self._records.pairs(container))
        subnet = door[0].subnet("ip") if door else None
        return subnet.gateway if subnet else "127.0.0.1"

    def _write_files(self, container: str) -> None:
        spec = self._specs.get(container)
        if spec is None:
            return
        pairs = [pair for pair in self._records.pairs(container) if pair[1].addresses]
        rows = [
            (address, [alias, target[:12], linked.name])
            for target, alias in spec.links
            for linked in self._records.of(target)
            for address in linked.addresses
        ]
        own = [address for _, endpoint in pairs for address in endpoint.addresses]
        embedded = spec.mode != "host" and any(not network.predefined for network, _ in pairs)
        hostfiles.write(spec, self.settings, rows, own, self.gateway_address(container), embedded=embedded)

    # -- what the name service asks ---------------------------------------------------------------------------------

    def addresses(self, container: str, name: str) -> list[str] | None:
        return self._records.directory().addresses(container, name)

    def owner(self, container: str, address: str) -> str | None:
        return self._records.directory().owner(container, address)

    def upstreams(self, container: str) -> Sequence[Upstream]:
        pairs = self._records.pairs(container)
        if routing.gateway(pairs) is None and routing.gateway(pairs, "ip6") is None:
            return ()
        spec = self._specs.get(container)
        own = (spec.dns if spec else ()) or self.settings.dns
        if own:
            return [Upstream(server, False) for server in own]
        host = files.all_servers(hostfiles.host_resolv_conf())
        return [Upstream(server, files.is_loopback(server)) for server in host]

    async def dial(self, container: str, upstream: Upstream, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in upstream.server else socket.AF_INET
        sandbox = self._records.sandboxes.get(container)

        def opened() -> socket.socket:
            if upstream.from_host or sandbox is None:
                return socket.socket(family, kind | socket.SOCK_NONBLOCK)
            with netns.entered(sandbox.netns):
                return socket.socket(family, kind | socket.SOCK_NONBLOCK)

        return await self._thread.run(opened)


def _check_live(network: Network, spec: SandboxSpec) -> None:
    """Raises Forbidden where a running container's mode allows no further network."""
    if network.driver == "host" or spec.mode == "host" or spec.mode.startswith("container:"):
        raise errors.HOST_MODE()
    if network.driver == "null" or spec.mode == "none":
        raise errors.NONE_MODE()


def _left(endpoint: Endpoint) -> Endpoint:
    wish = endpoint.wish.ipam_config
    return msgspec.structs.replace(
        endpoint,
        address=endpoint.address if wish and wish.ipv4_address else "",
        address6=endpoint.address6 if wish and wish.ipv6_address else "",
        mac=endpoint.wish.mac_address,
        interface="",
    )
