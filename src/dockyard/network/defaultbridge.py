"""The default bridge network, made from the daemon's flags, and made again when they change."""

from __future__ import annotations

import msgspec

from dockyard.kernel import netlink_route as rt
from dockyard.kernel.netlink import NetlinkSocket
from dockyard.network import creation, errors, files, hostfiles, ipam, kernelwork
from dockyard.network.core import Core
from dockyard.network.creation import OwnBridge
from dockyard.network.drivers.bridge import bridge_interface, setup_bridge
from dockyard.network.model import Network

DISABLED = "none"
"""--bridge=none."""


class DefaultBridge:
    def __init__(self, core: Core, mtu: int) -> None:
        self._core = core
        self._mtu = mtu

    def find(self) -> Network | None:
        return next((item for item in self._core.records.networks.values() if item.name == "bridge"), None)

    async def create(self) -> None:
        if self._core.settings.bridge != DISABLED:
            self._core.records.put_network(await self._planned(None))

    async def evade(self) -> None:
        """After a reboot another engine may have come first and have our device's name: then it is theirs, and ours is
        made anew beside it, clear of their subnet. For when no container runs."""
        before = self.find()
        if before is None or before.adopted or self._core.settings.bridge:
            return
        present, addresses = await self._core.thread.run(lambda: bridge_interface(before.bridge))
        own = {f"{item.gateway}/{item.subnet.partition('/')[2]}" for item in before.subnets}
        if present and addresses and not own & set(addresses):
            after = await self._planned(None)
            self._core.records.put_network(msgspec.structs.replace(after, id=before.id, created=before.created))

    async def renew(self) -> None:
        """After a restart with other flags. Containers that run keep what they have until the last one has ended and
        the daemon starts again, as with dockerd's live-restore."""
        before = self.find()
        if before is None or self._in_use(before):
            return
        after = None if self._core.settings.bridge == DISABLED else await self._planned(before)
        if after is not None and creation.same_bridge(before, after):
            return
        await self._core.thread.run(lambda: self._replace(before, after))
        if after is None:
            self._core.records.drop_network(before.id)
        else:
            self._core.records.put_network(after)

    def _in_use(self, network: Network) -> bool:
        records = self._core.records
        return any(item.container in records.sandboxes for item in records.within(network.id))

    def _replace(self, before: Network, after: Network | None) -> None:
        self._core.firewall.remove_network(before)
        if not before.adopted:
            with NetlinkSocket() as netlink:
                netlink.batch([rt.remove_link(name=before.bridge)])
        if after is not None:
            setup_bridge(after, self._mtu)
            self._core.firewall.add_network(after)

    async def _planned(self, before: Network | None) -> Network:
        settings, thread = self._core.settings, self._core.thread
        device = await thread.run(lambda: self._device(before))
        taken = await thread.run(kernelwork.host_networks)
        known = [item for item in self._core.records.networks.values() if item.name != "bridge" and not item.config_only]
        avoid = [ipam.parse_network(item) for item in (*taken, *files.name_servers(hostfiles.host_resolv_conf()))]
        avoid += [ipam.parse_network(subnet.subnet) for item in known for subnet in item.subnets]
        free = "" if settings.bip or (before and before.subnet("ip")) else str(ipam.choose_pool(settings.default_address_pools, avoid))
        return creation.default_bridge(settings, device, self._mtu, before, free)

    def _device(self, before: Network | None) -> OwnBridge:
        """The device's name: the administrator's, the one we have, or the first that nobody has."""
        if name := self._core.settings.bridge:
            present, addresses = bridge_interface(name)
            if not present:
                raise errors.NO_BRIDGE(name=name)
            return OwnBridge(name, True, addresses)
        if before is not None and not before.adopted:
            return OwnBridge(before.bridge)
        number = 0
        while kernelwork.link_exists(name := "docker0" if number == 0 else f"dockyard{number - 1}"):
            number += 1
        return OwnBridge(name)
