"""The controller: networks, endpoints and sandboxes, recorded and done.

create network > create endpoint (``connect``) > join (``setup``, or ``connect`` while the container runs) > leave
(``teardown``) > delete endpoint (``forget``, ``disconnect``) > delete network. An endpoint keeps an address the user gave
for as long as it exists; others are given at join and returned at leave. A network with endpoints of running containers
is not removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec

from dockyard.kernel import sysctl
from dockyard.kernel.netns import NetnsThread
from dockyard.lib import clock
from dockyard.model import EndpointSettings, new_id
from dockyard.network import documents, errors, files, firewall, ipam, kernelwork, ports
from dockyard.network.model import Endpoint, Network, NetworkSettings, Published, Sandbox, SandboxSpec, Subnet
from dockyard.network.names import NameService
from dockyard.network.store import NetworkStore

RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
Json = dict[str, Any]


class Controller:
    def __init__(self, root: Path, run_dir: Path, settings: NetworkSettings) -> None:
        self.settings = settings
        self._netns = run_dir / "netns"
        self._store = NetworkStore(root / "network.db")
        self._thread = NetnsThread("network")
        self._ports = ports.Holder()
        self._names = NameService(self._lookup, self._reverse, self._upstreams)
        self._networks = {network.id: network for network in self._store.networks()}
        self._endpoints = {endpoint.id: endpoint for endpoint in self._store.endpoints()}
        self._sandboxes = {sandbox.container: sandbox for sandbox in self._store.sandboxes()}
        self._specs: dict[str, SandboxSpec] = {}
        self._mtu = settings.mtu

    @classmethod
    async def open(cls, root: Path, run_dir: Path, settings: NetworkSettings | None = None) -> Controller:
        """Predefined networks exist afterwards; the kernel is looked at by ``recover``."""
        root.mkdir(parents=True, exist_ok=True)
        made = cls(root, run_dir, settings or NetworkSettings())
        made._mtu = made._mtu or await made._thread.run(kernelwork.uplink_mtu)
        if made.settings.ip_forward:
            sysctl.write_if_present("net.ipv4.ip_forward", "1")
        names = {network.name for network in made._networks.values()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                made._keep(Network(new_id(), name, driver, clock.rfc3339(clock.now())))
        if "bridge" not in names and made.settings.bridge != "none":
            made._keep(await made._default_bridge())
        return made

    async def close(self) -> None:
        self._names.close()
        self._thread.close()
        self._store.close()

    async def _default_bridge(self) -> Network:
        settings = self.settings
        name = settings.bridge
        if not name:
            name = "dockyard0" if await self._thread.run(lambda: kernelwork.link_exists("docker0")) else "docker0"
        if settings.bip:
            address, _, prefix = settings.bip.partition("/")
            pool = ipam.parse_subnet(f"{address}/{prefix}")
            subnet = ipam.resolve_subnet(str(pool), address, settings.fixed_cidr, {})
        else:
            pool = ipam.choose_pool(settings.default_address_pools, await self._taken())
            subnet = ipam.resolve_subnet(str(pool), settings.default_gateway, settings.fixed_cidr, {})
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": str(settings.icc).lower(),
            "com.docker.network.bridge.enable_ip_masquerade": str(settings.ip_masq).lower(),
            "com.docker.network.bridge.host_binding_ipv4": settings.host_ip,
            "com.docker.network.bridge.name": name, "com.docker.network.driver.mtu": str(self._mtu),
        }  # fmt: skip
        return Network(new_id(), "bridge", "bridge", clock.rfc3339(clock.now()), (subnet,), options)

    def _keep(self, network: Network) -> None:
        self._store.put_network(network)
        self._networks[network.id] = network

    async def _taken(self) -> list[IPv4Network]:
        own = [IPv4Network(subnet.subnet) for network in self._networks.values() for subnet in network.subnets]
        routes = await self._thread.run(kernelwork.host_networks)
        servers = [server for server in files.name_servers(host_resolv_conf()) if ":" not in server]
        return own + [IPv4Network(item) for item in (*routes, *servers) if ":" not in item]

    # -- networks ---------------------------------------------------------------------------------------------------

    def networks(self) -> list[Network]:
        return list(self._networks.values())

    def network(self, ref: str) -> Network:
        """By ID, name, or unique ID prefix. Raises NotFound."""
        if ref in self._networks:
            return self._networks[ref]
        by_name = [network for network in self._networks.values() if network.name == ref]
        matches = by_name or [network for network in self._networks.values() if ref and network.id.startswith(ref)]
        if len(matches) != 1:
            raise errors.NO_SUCH_NETWORK(ref=ref)
        return matches[0]

    async def create_network(self, request: Json) -> Network:
        name = request.get("Name") or ""
        if not name.strip() or "/" in name:
            raise errors.BAD(cause="invalid network name: name is empty" if not name.strip() else f"invalid network name: {name}")
        driver = request.get("Driver") or "bridge"
        if name in {"bridge", "host", "none", "default"}:
            raise errors.PREDEFINED_NAME(name=name)
        if any(network.name == name for network in self._networks.values()):
            raise errors.NETWORK_EXISTS(name=name)
        if driver in {"host", "null"}:
            raise errors.BAD(cause=f'only one instance of "{driver}" network is allowed')
        if driver != "bridge":
            raise errors.NO_DRIVER(driver=driver)
        subnets, configured = await self._subnets(request.get("IPAM") or {})
        network = Network(
            id=new_id(), name=name, driver=driver, created=clock.rfc3339(clock.now()), subnets=tuple(subnets),
            options=_texts(request.get("Options")), labels=_texts(request.get("Labels")), configured=configured,
            internal=bool(request.get("Internal")), attachable=bool(request.get("Attachable")),
            ipam_options=_texts((request.get("IPAM") or {}).get("Options")),
        )  # fmt: skip
        if len(network.bridge) > 15:
            raise errors.BAD(cause=f"invalid bridge name: {network.bridge}: longer than 15 characters")
        self._keep(network)
        try:
            await self._thread.run(lambda: self._bring_up(network))
        except BaseException:
            self._store.delete_network(network.id)
            del self._networks[network.id]
            raise
        return network

    async def _subnets(self, wish: Json) -> tuple[list[Subnet], bool]:
        if (wish.get("Driver") or "default") != "default":
            raise errors.NO_DRIVER(driver=wish["Driver"])
        rows = [row for row in wish.get("Config") or [] if ":" not in (row.get("Subnet") or "")]
        own = [IPv4Network(subnet.subnet) for network in self._networks.values() for subnet in network.subnets]
        made = []
        for row in rows:
            if not row.get("Subnet"):
                if row.get("Gateway") or row.get("IPRange"):
                    raise errors.BAD(cause="invalid network config:\ninvalid subnet : subnet is empty")
                continue
            spare = row.get("AuxiliaryAddresses") or {}
            subnet = ipam.resolve_subnet(row["Subnet"], row.get("Gateway") or "", row.get("IPRange") or "", spare)
            ipam.check_overlap(IPv4Network(subnet.subnet), own)
            made.append(subnet)
        if made:
            return made, True
        pool = ipam.choose_pool(self.settings.default_address_pools, await self._taken())
        return [ipam.resolve_subnet(str(pool), "", "", {})], False

    def _bring_up(self, network: Network) -> None:
        kernelwork.setup_bridge(network, int(network.options.get("com.docker.network.driver.mtu") or self._mtu))
        if self.settings.iptables:
            kernelwork.run_nft(firewall.add_network(network))

    async def remove_network(self, ref: str) -> Network:
        network = self.network(ref)
        if network.predefined:
            raise errors.PREDEFINED(name=network.name)
        active = [item for item in self._endpoints.values() if item.network == network.id and item.container in self._sandboxes]
        if active:
            who = ", ".join(f'name:"{item.name}" id:"{item.id[:12]}"' for item in active)
            raise errors.ACTIVE_ENDPOINTS(name=network.name, who=who)
        self._drop([item for item in self._endpoints.values() if item.network == network.id])
        self._store.delete_network(network.id)
        del self._networks[network.id]
        await self._thread.run(lambda: self._take_down(network))
        return network

    def _take_down(self, network: Network) -> None:
        if self.settings.iptables:
            kernelwork.run_nft(firewall.remove_network(network))
        kernelwork.remove_bridge(network)

    # -- endpoints --------------------------------------------------------------------------------------------------

    def endpoints_of(self, container: str) -> list[Endpoint]:
        return [item for item in self._endpoints.values() if item.container == container]

    def endpoints_in(self, network_id: str) -> list[Endpoint]:
        return [item for item in self._endpoints.values() if item.network == network_id]

    async def connect(self, container: str, name: str, ref: str, wish: EndpointSettings, spec: SandboxSpec | None = None) -> Endpoint:
        """Records an endpoint; with ``spec`` (the container runs) it is joined at once."""
        network = self.network(ref)
        if any(item.network == network.id for item in self.endpoints_of(container)):
            raise errors.ALREADY_CONNECTED(name=name, network=network.name)
        if network.driver != "bridge" and spec is not None:
            raise errors.HOST_MODE()
        asked = wish.ipam_config.ipv4_address if wish.ipam_config else ""
        if asked and not network.configured:
            raise errors.STATIC_ADDRESS()
        endpoint = Endpoint(
            id=new_id(), network=network.id, container=container, name=name, wish=wish, mac=wish.mac_address,
            address=ipam.allocate(network.subnets[0], self._used(network), asked, network.name) if asked else "",
            names=_names(container, name, wish),
        )  # fmt: skip
        self._store.put([endpoint])
        self._endpoints[endpoint.id] = endpoint
        if spec is not None:
            await self._join_live(spec, network, endpoint)
        return self._endpoints[endpoint.id]

    def _used(self, network: Network) -> list[str]:
        return [item.address for item in self._endpoints.values() if item.network == network.id]

    async def disconnect(self, container: str, ref: str, *, force: bool) -> Endpoint | None:
        network = self.network(ref)
        found = next((item for item in self.endpoints_of(container) if item.network == network.id), None)
        if found is None:
            if force:
                return None
            raise errors.NOT_CONNECTED(container=container, network=network.name)
        self._drop([found])
        sandbox = self._sandboxes.get(container)
        if sandbox is not None:
            kept = tuple(item for item in sandbox.published if item.address != found.address.partition("/")[0])
            gone = [item for item in sandbox.published if item not in kept]
            self._sandboxes[container] = msgspec.structs.replace(sandbox, published=kept)
            self._store.put([], self._sandboxes[container])
            await self._thread.run(lambda: self._unplug_live(sandbox, found, gone))
            self._write_files(container)
        return found

    def _unplug_live(self, sandbox: Sandbox, endpoint: Endpoint, gone: Sequence[Published]) -> None:
        if gone and self.settings.iptables:
            kernelwork.run_nft(firewall.remove_ports(gone))
        kernelwork.unplug([endpoint])
        self._reroute(sandbox)

    def _reroute(self, sandbox: Sandbox) -> None:
        gateway, interface = self._gateway(self.endpoints_of(sandbox.container))
        fd = os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernelwork.route_by(fd, gateway, interface)
        finally:
            os.close(fd)

    def _drop(self, endpoints: Sequence[Endpoint], sandbox: str = "") -> None:
        self._store.delete(endpoints, sandbox)
        for item in endpoints:
            self._endpoints.pop(item.id, None)

    # -- sandboxes --------------------------------------------------------------------------------------------------

    async def setup(self, spec: SandboxSpec) -> Sandbox:
        """Namespace, endpoints, published ports, files. On failure everything made is taken back."""
        self._specs[spec.container_id] = spec
        if spec.mode == "host":
            return self._plain(spec, "host")
        if spec.mode.startswith("container:"):
            target = self._sandboxes.get(spec.mode.removeprefix("container:"))
            netns = target.netns if target else ""
            return Sandbox(spec.container_id, netns)
        path = self._netns / spec.container_id
        endpoints = self._prepared(spec.container_id)
        sandbox = Sandbox(spec.container_id, str(path), self._publish(spec, endpoints), tuple(spec.exposed))
        self._store.put(endpoints, sandbox)
        self._endpoints |= {item.id: item for item in endpoints}
        self._sandboxes[spec.container_id] = sandbox
        try:
            names = await self._thread.run(lambda: self._join(path, endpoints, sandbox))
            if names is not None:
                self._names.serve(spec.container_id, names)
            self._write_files(spec.container_id)
        except BaseException:
            await self.teardown(spec.container_id)
            raise
        return sandbox

    def _plain(self, spec: SandboxSpec, netns: str) -> Sandbox:
        sandbox = Sandbox(spec.container_id, netns)
        self._sandboxes[spec.container_id] = sandbox
        self._store.put([], sandbox)
        self._write_files(spec.container_id)
        return sandbox

    def _prepared(self, container: str) -> list[Endpoint]:
        """The container's endpoints with address, MAC and interface name."""
        made: list[Endpoint] = []
        pairs = [(self._networks[item.network], item) for item in self.endpoints_of(container)]
        for network, endpoint in pairs:
            if network.driver != "bridge":
                continue
            used = self._used(network) + [item.address for item in made if item.network == network.id]
            address = endpoint.address or ipam.allocate(network.subnets[0], used, "", network.name)
            made.append(
                msgspec.structs.replace(
                    endpoint, address=address, mac=endpoint.mac or _mac_of(address), interface=f"eth{len(made)}"
                )
            )
        return made

    def _publish(self, spec: SandboxSpec, endpoints: Sequence[Endpoint]) -> tuple[Published, ...]:
        network, _ = self._gateway(endpoints)
        door = next((item for item in endpoints if network and item.network == network.id), None)
        if door is None or network is None or network.internal:
            return ()
        default = network.options.get("com.docker.network.bridge.host_binding_ipv4") or self.settings.host_ip
        rows = ports.wanted(spec.exposed, spec.bindings, spec.publish_all, default)
        return tuple(self._ports.hold(spec.container_id, spec.name, door.id, rows, door.address.partition("/")[0]))

    def _gateway(self, endpoints: Sequence[Endpoint]) -> tuple[Network | None, str]:
        """The network that gives the default route: highest priority, then first by name; internal ones never."""
        pairs = [(self._networks[item.network], item) for item in endpoints if item.network in self._networks]
        able = [pair for pair in pairs if pair[0].driver == "bridge" and not pair[0].internal]
        able.sort(key=lambda pair: (-pair[1].wish.gw_priority, pair[0].name))
        return (able[0][0], able[0][1].interface) if able else (None, "")

    def _join(self, path: Path, endpoints: Sequence[Endpoint], sandbox: Sandbox):  # type: ignore[no-untyped-def]
        fd = kernelwork.open_sandbox(path)
        try:
            pairs = [(self._networks[item.network], item) for item in endpoints]
            gateway, _ = self._gateway(endpoints)
            names = kernelwork.plug(fd, pairs, self._mtu, gateway, self._uses_names(endpoints)) if pairs else None
            if sandbox.published and self.settings.iptables:
                kernelwork.run_nft(firewall.add_ports(sandbox.published))
            return names
        finally:
            os.close(fd)

    def _uses_names(self, endpoints: Sequence[Endpoint]) -> bool:
        return any(not self._networks[item.network].predefined for item in endpoints)

    async def _join_live(self, spec: SandboxSpec, network: Network, endpoint: Endpoint) -> None:
        taken = {item.interface for item in self.endpoints_of(spec.container_id)}
        interface = next(f"eth{number}" for number in range(256) if f"eth{number}" not in taken)
        address = endpoint.address or ipam.allocate(network.subnets[0], self._used(network), "", network.name)
        ready = msgspec.structs.replace(endpoint, address=address, mac=endpoint.mac or _mac_of(address), interface=interface)
        self._store.put([ready])
        self._endpoints[ready.id] = ready
        self._specs.setdefault(spec.container_id, spec)
        sandbox = self._sandboxes[spec.container_id]
        others = [item for item in self.endpoints_of(spec.container_id) if item.id != ready.id]
        names = not network.predefined and not self._uses_names(others)

        def work():  # type: ignore[no-untyped-def]
            fd = os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                made = kernelwork.plug(fd, [(network, ready)], self._mtu, None, names)
                gateway, door = self._gateway(self.endpoints_of(spec.container_id))
                kernelwork.route_by(fd, gateway, door)
                return made
            finally:
                os.close(fd)

        try:
            sock = await self._thread.run(work)
        except BaseException:
            self._drop([ready])
            raise
        if sock is not None:
            self._names.serve(spec.container_id, sock)
        self._write_files(spec.container_id)

    async def teardown(self, container: str) -> None:
        """Leave: the sandbox ends, given addresses go back. Idempotent."""
        sandbox = self._sandboxes.pop(container, None)
        self._specs.pop(container, None)
        self._names.drop(container)
        self._ports.release(container)
        if sandbox is None:
            return
        left = self.endpoints_of(container)
        freed = [
            item if item.wish.ipam_config and item.wish.ipam_config.ipv4_address
            else msgspec.structs.replace(item, address="", mac=item.wish.mac_address, interface="")
            for item in left
        ]  # fmt: skip
        if sandbox.netns not in {"", "host"}:
            await self._thread.run(lambda: self._leave(sandbox, left))
        self._store.delete(sandbox=container)
        self._store.put(freed)
        self._endpoints |= {item.id: item for item in freed if item.id in self._endpoints}

    def _leave(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        if sandbox.published and self.settings.iptables:
            kernelwork.run_nft(firewall.remove_ports(sandbox.published))
        kernelwork.unplug([item for item in endpoints if item.interface])
        kernelwork.close_sandbox(Path(sandbox.netns))

    async def forget(self, container: str) -> None:
        await self.teardown(container)
        self._drop(self.endpoints_of(container))

    async def rename(self, container: str, name: str) -> None:
        changed = [
            msgspec.structs.replace(item, name=name, names=_names(container, name, item.wish))
            for item in self.endpoints_of(container)
        ]
        self._store.put(changed)
        self._endpoints |= {item.id: item for item in changed}

    # -- recovery ---------------------------------------------------------------------------------------------------

    async def recover(self, live: Mapping[str, int], specs: Mapping[str, SandboxSpec]) -> None:
        """After a start of the daemon: bridges and the table as recorded, sandboxes of the dead taken away, name
        service and held ports of the living back. Established connections are not touched."""
        self._specs = dict(specs)
        networks = [network for network in self._networks.values() if network.driver == "bridge"]
        for network in networks:
            await self._thread.run(lambda network=network: kernelwork.setup_bridge(  # type: ignore[misc]
                network, int(network.options.get("com.docker.network.driver.mtu") or self._mtu)
            ))  # fmt: skip
        alive = [sandbox for container, sandbox in self._sandboxes.items() if container in live]
        if self.settings.iptables:
            published = [item for sandbox in alive for item in sandbox.published]
            await self._thread.run(lambda: kernelwork.run_nft(firewall.whole(networks, published)))
        for container in [item for item in self._sandboxes if item not in live]:
            await self.teardown(container)
        for sandbox in alive:
            self._ports.hold_again(sandbox.container, sandbox.published)
            if sandbox.netns not in {"", "host"} and self._uses_names(self.endpoints_of(sandbox.container)):
                sock = await self._thread.run(lambda sandbox=sandbox: _name_socket(sandbox.netns))  # type: ignore[misc]
                self._names.serve(sandbox.container, sock)
        self._sweep()

    def _sweep(self) -> None:
        for path in self._netns.iterdir() if self._netns.is_dir() else ():
            if path.name not in self._sandboxes:
                kernelwork.close_sandbox(path)

    # -- looking ----------------------------------------------------------------------------------------------------

    def settings_of(self, container: str) -> Json:
        """Docker's NetworkSettings."""
        pairs = [(self._networks[item.network], item) for item in self.endpoints_of(container)]
        return documents.network_settings(self._sandboxes.get(container), pairs)

    def networks_of(self, container: str) -> list[str]:
        found = [self._networks[item.network] for item in self.endpoints_of(container)]
        return [value for network in found for value in (network.name, network.id)]

    def document(self, network: Network) -> Json:
        running = [item for item in self.endpoints_in(network.id) if item.container in self._sandboxes]
        return documents.network(network, running)

    def gateway_address(self, container: str) -> str:
        network, _ = self._gateway(self.endpoints_of(container))
        return network.subnets[0].gateway if network else "127.0.0.1"

    def _write_files(self, container: str) -> None:
        spec = self._specs.get(container)
        if spec is None:
            return
        endpoints = [item for item in self.endpoints_of(container) if item.address]
        host = host_resolv_conf()
        if spec.mode == "host":
            hosts = Path("/etc/hosts").read_text()
        else:
            name = f"{spec.hostname}.{spec.domainname}" if spec.domainname else spec.hostname
            rows: list[tuple[str, Sequence[str]]] = []
            for target, alias in spec.links:
                for linked in self.endpoints_of(target):
                    if linked.address:
                        rows.append((linked.address.partition("/")[0], [alias, target[:12], linked.name]))
            rows += [(item.address.partition("/")[0], [name, *([spec.hostname] if spec.domainname else [])]) for item in endpoints]
            hosts = files.hosts(rows, spec.extra_hosts, self.gateway_address(container))
        embedded = spec.mode != "host" and self._uses_names(endpoints)
        dns = spec.dns or self.settings.dns
        resolv = files.resolv_conf(
            host, dns=dns, search=spec.dns_search or self.settings.dns_search,
            options=spec.dns_options or self.settings.dns_opts, embedded=embedded,
        )  # fmt: skip
        for leaf, text in (("hosts", hosts), ("hostname", spec.hostname + "\n"), ("resolv.conf", resolv)):
            # In place: the file is bind mounted into the container, a new one would not be seen there.
            Path(spec.files_dir, leaf).write_text(text)

    # -- names ------------------------------------------------------------------------------------------------------

    def _lookup(self, container: str, name: str) -> list[str] | None:
        own = self.endpoints_of(container)
        for endpoint in own:
            for link in endpoint.wish.links or ():
                target, _, alias = link.partition(":")
                if (alias or target).lower() == name:
                    return self._addresses(endpoint.network, target.lower())
        found: list[str] | None = None
        for endpoint in own:
            network = self._networks[endpoint.network]
            if network.predefined:
                continue
            for candidate in (name, name.removesuffix("." + network.name)):
                addresses = self._addresses(network.id, candidate)
                if addresses is not None:
                    found = (found or []) + addresses
                    break
        return found

    def _addresses(self, network: str, name: str) -> list[str] | None:
        known = [item for item in self.endpoints_in(network) if name in item.names]
        live = [item.address.partition("/")[0] for item in known if item.address and item.container in self._sandboxes]
        return live or None

    def _reverse(self, container: str, address: str) -> str | None:
        for endpoint in self.endpoints_of(container):
            for other in self.endpoints_in(endpoint.network):
                if other.address.partition("/")[0] == address:
                    return f"{other.name}.{self._networks[other.network].name}"
        return None

    def _upstreams(self, container: str) -> Sequence[str]:
        gateway, _ = self._gateway(self.endpoints_of(container))
        if gateway is None:
            return ()
        spec = self._specs.get(container)
        return (spec.dns if spec else ()) or self.settings.dns or files.name_servers(host_resolv_conf())


def _name_socket(netns: str):  # type: ignore[no-untyped-def]
    from dockyard.kernel.netns import entered

    with entered(netns):
        return NameService.open_socket()


def host_resolv_conf() -> str:
    """The host's file; where it names only systemd's stub, that of systemd-resolved itself."""
    try:
        text = RESOLV_CONF.read_text()
    except OSError:
        return ""
    if "127.0.0.53" in text and SYSTEMD_RESOLV_CONF.exists():
        return SYSTEMD_RESOLV_CONF.read_text()
    return text


def _names(container: str, name: str, wish: EndpointSettings) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.lower() for item in (name, container[:12], *(wish.aliases or ()))))


def _mac_of(address: str) -> str:
    """From the address: its next holder has the same MAC, so that no neighbour's cache is stale (seen: 6 s of silence
    on a published port after a new container took over an address)."""
    return kernelwork.bridge_mac(address.partition("/")[0])


def _texts(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


