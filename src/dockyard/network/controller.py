"""The controller: networks, endpoints and sandboxes, recorded and done (libnetwork's Container Network Model).

create network > create endpoint (``connect``) > join (``setup``, or ``connect`` while the container runs) > leave
(``teardown``) > delete endpoint (``forget``, ``disconnect``) > delete network. An endpoint holds its addresses while its
container runs; an address that the user gave is kept free for it by choosing others for others, but another endpoint
that asks for it by name may have it meanwhile, as in Docker. A network with endpoints of running containers is not
removed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dockyard.client.plugins import PluginDirs
from dockyard.errors import DockyardError
from dockyard.kernel import sysctl
from dockyard.kernel.netns import NetnsThread
from dockyard.lib import clock
from dockyard.lib.durable import Spare, no_spare
from dockyard.model import EndpointSettings, new_id
from dockyard.network import (
    admission,
    creation,
    documents,
    errors,
    files,
    hostfiles,
    hostports,
    kernelwork,
    requests,
    walls,
)  # fmt: skip
from dockyard.network.core import Core, Tell
from dockyard.network.defaultbridge import DefaultBridge
from dockyard.network.drivers import BridgeDriver, DriverRegistry, IpvlanDriver, LocalDriver, MacvlanDriver
from dockyard.network.ipams import DefaultIpam, IpamRegistry, NullIpam
from dockyard.network.model import Endpoint, Network, NetworkSettings, Sandbox, SandboxSpec
from dockyard.network.ports import Json
from dockyard.network.records import Records
from dockyard.network.sandboxes import GATEWAY_NETWORK, SHARED, Sandboxes
from dockyard.network.watch import FirewallWatch


class Controller:
    def __init__(self, core: Core, mtu: int) -> None:
        self._core = core
        self._records = core.records
        self._sandboxes = Sandboxes(core, self._gateway_network)
        self._default = DefaultBridge(core, mtu)
        self._watch: FirewallWatch | None = None
        self._admission: admission.Admission | None = None
        self._choosing = asyncio.Lock()

    @classmethod
    async def open(
        cls, root: Path, run_dir: Path, settings: NetworkSettings | None = None, plugins: PluginDirs | None = None,
        userns: str = "", spare: Spare = no_spare,
    ) -> Controller:  # fmt: skip
        """Predefined networks exist afterwards; the kernel is looked at by ``recover``. ``userns``: path of the user
        namespace that sandboxes are made ahead for; ``spare``: room on the disk for records of what is removed."""
        root.mkdir(parents=True, exist_ok=True)
        chosen, thread, records = settings or NetworkSettings(), NetnsThread("network"), Records(root / "network.db", spare)
        mtu = chosen.mtu or await thread.run(kernelwork.uplink_mtu)
        if not (table := records.meta("table")) and chosen.families:
            table = await thread.run(lambda: walls.free_table_name(new_id(), str(root)))
            records.put_meta("table", table)
        firewall = await thread.run(lambda: walls.make(chosen, table, str(root)))

        async def taken() -> list[str]:
            routes = await thread.run(kernelwork.host_networks)
            return [*routes, *files.name_servers(hostfiles.host_resolv_conf())]

        plain = LocalDriver()
        drivers = {
            "bridge": BridgeDriver(mtu, forward=chosen.ip_forward and "ip6" in chosen.families), "macvlan": MacvlanDriver(),
            "ipvlan": IpvlanDriver(), "host": plain, "null": plain,
        }  # fmt: skip
        ipams = {"default": DefaultIpam(chosen, taken, records.ledger.allocate), "null": NullIpam()}
        proxied = chosen.userland_proxy and hostports.ipv6_listens()
        core = Core(
            settings=chosen, netns_dir=run_dir / "netns", records=records, thread=thread, firewall=firewall,
            drivers=DriverRegistry(drivers, plugins), ipams=IpamRegistry(ipams, plugins),
            ports=hostports.Holder(listen6=proxied), userns=userns,
        )  # fmt: skip
        made = cls(core, mtu)
        await made._predefine()
        return made

    async def _predefine(self) -> None:
        await self._core.thread.run(self._switch_forwarding_on)
        names = {network.name for network in self._records.networks.values()}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in names:
                self._records.put_network(Network(new_id(), name, driver, clock.rfc3339(clock.now())))
        if "bridge" not in names:
            await self._default.create()

    def _switch_forwarding_on(self) -> None:
        """Whoever switches it on answers for the host becoming a router: what was there before is kept apart from then
        on (dockerd sets the FORWARD policy to drop, which takes the network from virtual machines; moby#50566)."""
        settings = self._core.settings
        off = sysctl.read("net.ipv4.ip_forward") == "0"
        if not settings.ip_forward or not off:
            return
        if "ip" not in settings.families:
            # Without rules of ours it is the administrator's to switch on and to guard.
            raise errors.NO_FORWARDING(version=4, sysctl="net.ipv4.ip_forward")
        if not settings.ip_forward_no_drop:
            names = kernelwork.forwarding_interfaces()
            self._records.put_meta("uplinks", json.dumps(names))
        sysctl.write_if_present("net.ipv4.ip_forward", "1")

    def listen(self, tell: Tell) -> None:
        """``tell`` hears of what nobody asked for: the firewall was restored."""
        self._core.tell = tell

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._admission is not None:
            self._admission.close()
        self._sandboxes.close()
        self._core.thread.close()
        self._sandboxes.close_spare()
        self._core.firewall.close()
        self._records.close()

    async def uninstall(self) -> None:
        """Takes bridges and tables from the kernel; records stay. Running containers lose their connections."""
        drivers = [(network, await self._core.driver(network)) for network in self._own_networks()]

        def work() -> None:
            self._sandboxes.remove_strays()
            for network, driver in drivers:
                driver.teardown(network)
            self._core.firewall.remove(self._core.driven("bridge"))

        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._core.thread.run(work)

    def _own_networks(self) -> list[Network]:
        """Networks that have something of ours in the kernel."""
        return [item for item in self._records.networks.values() if item.wired and not item.remote and not item.config_only]

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
        if len(matches) > 1:
            raise errors.AMBIGUOUS(ref=ref, count=len(matches))
        if not matches:
            raise errors.NO_SUCH_NETWORK(ref=ref)
        return matches[0]

    async def create_network(self, request: Json) -> tuple[Network, str]:
        """The network and a warning ("" if there is none)."""
        core = self._core
        draft = creation.draft(requests.checked(request), self.networks(), core.settings)
        network = draft.network
        if network.config_only:
            self._records.put_network(network)
            return network, ""
        driver = await core.drivers.get(network.driver)
        network = msgspec.structs.replace(driver.check(network, self.networks()), scope=driver.scope)
        ipams = await core.ipams.get(network.ipam_driver)
        # From the choice of pools to the record that holds them one at a time: two requests must not have the same.
        async with self._choosing:
            pools = await ipams.request_pools(
                draft.ipam, self.networks(), seed=network.id, ipv4=network.enable_ipv4, ipv6=network.enable_ipv6
            )
            try:
                creation.check_name(network.name, self.networks())
                network = driver.check(network, self.networks())
                network = creation.with_pools(network, pools.subnets, pools.idle, configured=pools.configured)
            except DockyardError:
                await ipams.release_pools(pools.subnets)
                raise
            self._records.put_network(network)
        try:
            network = await core.thread.run(lambda: driver.adopt(network))
            self._records.put_network(network)
            await driver.create_network(network)
            await core.thread.run(lambda: self._bring_up(network))
        except BaseException:
            await self._undo_network(network)
            raise
        return network, pools.warning

    async def _undo_network(self, network: Network) -> None:
        self._records.drop_network(network.id)
        try:
            await self._take_down(network)
        except (DockyardError, OSError):
            return  # The first failure is the one to be told.

    def _bring_up(self, network: Network) -> None:
        core = self._core
        driver = core.drivers.own(network.driver)
        if driver is not None:
            driver.setup(network)
        if network.driver == "bridge":
            core.firewall.add_network(network)

    async def remove_network(self, ref: str) -> Network:
        network = self.network(ref)
        if network.predefined:
            raise errors.PREDEFINED(name=network.name)
        members = self._records.within(network.id)
        active = [item for item in members if item.container in self._records.sandboxes]
        if active:
            who = ", ".join(f'name:"{item.name}" id:"{item.id[:12]}"' for item in active)
            raise errors.ACTIVE_ENDPOINTS(name=network.name, who=who, member=active[0].name)
        self._records.drop(members)
        self._records.drop_network(network.id)
        if not network.config_only:
            await self._take_down(network)
        return network

    async def _take_down(self, network: Network) -> None:
        core = self._core
        driver, ipams = await core.driver(network), await core.ipams.get(network.ipam_driver)
        heir = next((item for item in self._own_networks() if item.driver != "bridge" and item.parent == network.parent), None)
        if heir is not None and not network.adopted:
            # Its parent stays for another network, whose it is now.
            self._records.put_network(msgspec.structs.replace(heir, adopted=False))

        def work() -> None:
            if network.driver == "bridge":
                core.firewall.remove_network(network)
                if not network.adopted:
                    self._sandboxes.remove_strays(network.bridge)
            if heir is None:
                driver.teardown(network)

        await core.thread.run(work)
        await driver.delete_network(network)
        await ipams.release_pools(network.subnets)

    async def _gateway_network(self) -> Network:
        found = next((item for item in self.networks() if item.name == GATEWAY_NETWORK), None)
        if found is None:
            options = {
                "com.docker.network.bridge.name": GATEWAY_NETWORK, "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
            }  # fmt: skip
            found, _ = await self.create_network({"Name": GATEWAY_NETWORK, "Options": options})
        return found

    # -- endpoints --------------------------------------------------------------------------------------------------

    def endpoints_of(self, container: str) -> list[Endpoint]:
        return self._records.of(container)

    def endpoints_in(self, network_id: str) -> list[Endpoint]:
        return self._records.within(network_id)

    def joined(self, container: str) -> list[Network]:
        """Networks that a running container is on."""
        if container not in self._records.sandboxes:
            return []
        return [network for network, _ in self._shown(container)]

    async def connect(
        self, container: str, name: str, ref: str, wish: EndpointSettings, spec: SandboxSpec | None = None,
        *, fleeting: bool = False,
    ) -> Endpoint:  # fmt: skip
        """Records an endpoint; with ``spec`` (the container runs) it is joined at once. ``fleeting``: the container goes
        with the boot."""
        if fleeting:
            self._records.fleeting.add(container)
        network = self.network(ref)
        if network.config_only:
            raise errors.CONFIG_ONLY(name=network.name)
        if any(item.network == network.id for item in self._records.of(container)):
            raise errors.ALREADY_CONNECTED(name=name, network=network.name)
        if spec is not None:
            _check_live(network, spec)
        requests.check_endpoint(network, wish)
        names = tuple(dict.fromkeys(item.lower() for item in (name, container[:12], *(wish.aliases or ()))))
        endpoint = Endpoint(new_id(), network.id, container, name, wish, mac=wish.mac_address, names=names)
        self._records.put([endpoint])
        if spec is not None:
            await self._sandboxes.join_live(spec, network, endpoint)
        return self._records.endpoints[endpoint.id]

    async def disconnect(self, container: str, ref: str) -> Endpoint:
        network = self.network(ref)
        found = next((item for item in self._records.of(container) if item.network == network.id), None)
        if found is None:
            raise errors.NOT_CONNECTED(container=container, network=network.name)
        sandbox = self._records.sandboxes.get(container)
        if sandbox is not None and network.driver == "host":
            raise errors.HOST_NETWORK()
        self._records.drop([found])
        if sandbox is not None and sandbox.netns not in SHARED:
            await self._sandboxes.leave_live(network, found)
        return found

    async def setup(self, spec: SandboxSpec) -> Sandbox:
        return await self._sandboxes.setup(spec)

    async def begin(self, spec: SandboxSpec) -> Sandbox:
        return await self._sandboxes.begin(spec)

    async def wired(self, container: str) -> None:
        await self._sandboxes.wired(container)

    async def teardown(self, container: str) -> None:
        await self._sandboxes.teardown(container)

    async def forget(self, container: str) -> None:
        await self.teardown(container)
        self._records.drop(self._records.of(container))
        self._records.fleeting.discard(container)

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
        core = self._core
        core.specs.clear()
        core.specs.update(specs)
        dead = [container for container in self._records.sandboxes if container not in live]
        if len(dead) == len(self._records.sandboxes):
            await self._default.evade()
        drivers = [(network, await core.driver(network)) for network in self._own_networks()]

        def restore() -> None:
            for network, driver in drivers:
                driver.setup(network)
            self._restore_firewall()

        await core.thread.run(restore)
        for container in dead:
            await self.teardown(container)
        await self._default.renew()
        alive = list(self._records.sandboxes.values())
        await self._sandboxes.resume(alive)
        await core.thread.run(self._sandboxes.sweep)
        await self._replay_addresses()
        if (tables := core.firewall.watched()) and self._watch is None:
            self._watch = FirewallWatch(self._heal, tables, core.firewall.made)
        if (group := core.firewall.admitting()) and self._admission is None:
            self._admission = admission.opened(group)

    def _restore_firewall(self) -> bool:
        uplinks = json.loads(self._records.meta("uplinks") or "[]")
        bridges = self._core.driven("bridge")
        own = {network.bridge for network in bridges}
        names = [name for name in uplinks if name not in own]
        return self._core.firewall.restore(bridges, list(self._records.sandboxes.values()), names)

    async def _heal(self, culprit: str, ours: bool) -> bool:
        """Somebody else changed the firewall: what is ours is put back in one transaction."""
        restored = await self._core.thread.run(self._restore_firewall) or ours
        if restored:
            self._core.tell("firewall-restored", {"by": culprit})
        return restored

    async def _replay_addresses(self) -> None:
        for network in self.networks():
            if network.ipam_driver not in {"default", "null"}:
                held = [address for item in self._records.within(network.id) for address in item.addresses]
                try:
                    await (await self._core.ipams.get(network.ipam_driver)).replay([(network, held)])
                except DockyardError as error:
                    self._core.tell("ipam-replay-failed", {"network": network.name, "error": str(error)})

    # -- looking ----------------------------------------------------------------------------------------------------

    def settings_of(self, container: str) -> Json:
        """Docker's NetworkSettings."""
        return documents.network_settings(self._records.sandboxes.get(container), self._shown(container))

    def networks_of(self, container: str) -> list[str]:
        return [value for network, _ in self._shown(container) for value in (network.name, network.id)]

    def _shown(self, container: str) -> list[tuple[Network, Endpoint]]:
        """The way out that we add to a container on plugins' networks is not one of its networks."""
        return [pair for pair in self._records.pairs(container) if not pair[1].name.startswith("gateway_")]

    def document(self, network: Network) -> Json:
        members = self._records.within(network.id)
        return documents.network(network, [item for item in members if item.container in self._records.sandboxes])


def _check_live(network: Network, spec: SandboxSpec) -> None:
    """Raises InvalidParameter or Forbidden where a running container's mode allows no further network."""
    if network.driver == "host":
        raise errors.HOST_NETWORK()
    if spec.mode == "host" or spec.mode.startswith("container:"):
        raise errors.HOST_MODE()
    if network.driver == "null" or spec.mode == "none":
        raise errors.NONE_MODE()
