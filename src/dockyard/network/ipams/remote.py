"""An IPAM driver in another process: libnetwork's remote IPAM protocol (moby daemon/libnetwork/docs/ipam.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from dockyard.client.errors import PLUGIN_FAILED
from dockyard.client.plugins import Plugin, Unimplemented
from dockyard.errors import DockyardError
from dockyard.network.ipams.own import Found
from dockyard.network.model import Network, Subnet
from dockyard.network.ports import Json

GATEWAY = "com.docker.network.gateway"
_TYPE, _MAC = "RequestAddressType", "com.docker.network.endpoint.macaddress"


class RemoteIpam:
    def __init__(self, plugin: Plugin, space: str, *, wants_mac: bool, wants_replay: bool) -> None:
        self._plugin = plugin
        self._space = space
        self._wants_mac = wants_mac
        self._wants_replay = wants_replay

    @classmethod
    async def open(cls, plugin: Plugin) -> RemoteIpam:
        try:
            told = await asyncio.to_thread(plugin.call, "IpamDriver.GetCapabilities")
        except Unimplemented:
            told = {}
        spaces = await asyncio.to_thread(plugin.call, "IpamDriver.GetDefaultAddressSpaces")
        return cls(
            plugin, str(spaces.get("LocalDefaultAddressSpace") or ""), wants_mac=bool(told.get("RequiresMACAddress")),
            wants_replay=bool(told.get("RequiresRequestReplay")),
        )  # fmt: skip

    async def _call(self, method: str, request: Mapping[str, Any]) -> Json:
        try:
            return await asyncio.to_thread(self._plugin.call, f"IpamDriver.{method}", request)
        except Unimplemented:
            raise self._wrong(method, "the method is not implemented") from None

    def _wrong(self, method: str, cause: str) -> DockyardError:
        return PLUGIN_FAILED(plugin=self._plugin.name, method=f"IpamDriver.{method}", cause=cause)

    async def request_pools(
        self, wish: Json, known: Sequence[Network], *, seed: str, ipv4: bool, ipv6: bool
    ) -> Found:
        """One pool per row of the request and family; what was given is taken back if one is refused."""
        rows = list(wish.get("Config") or [])
        given = bool(rows)
        for on, family in ((ipv4, 4), (ipv6, 6)):
            if on and not any((":" in (row.get("Subnet") or "")) == (family == 6) for row in rows):
                rows.append({"v6": family == 6})
        made: list[Subnet] = []
        try:
            for row in rows:
                made.append(await self._pool(row, dict(wish.get("Options") or {})))
                made[-1] = await self._gateway(made[-1], row)
        except BaseException:
            await self.release_pools(made)
            raise
        return Found(sorted(made, key=lambda item: ":" in item.subnet), given)

    async def _pool(self, row: Json, options: dict[str, str]) -> Subnet:
        wanted, part = row.get("Subnet") or "", row.get("IPRange") or ""
        request = {
            "AddressSpace": self._space, "Pool": wanted, "SubPool": part, "Options": options,
            "V6": bool(row.get("v6")) or ":" in wanted,
        }  # fmt: skip
        answer = await self._call("RequestPool", request)
        try:
            pool = str(ip_network(str(answer.get("Pool")), strict=False))
            data = answer.get("Data") or {}
            gateway = str(ip_interface(data[GATEWAY]).ip) if data.get(GATEWAY) else ""
        except (ValueError, AttributeError, TypeError):
            raise self._wrong("RequestPool", f"cannot read its answer {answer}") from None
        return Subnet(pool, gateway, part, {}, str(answer.get("PoolID") or ""))

    async def _gateway(self, subnet: Subnet, row: Json) -> Subnet:
        wanted = str(row.get("Gateway") or "")
        if wanted or not subnet.gateway:
            given = await self._address(subnet.pool, wanted, {_TYPE: GATEWAY})
            subnet = msgspec.structs.replace(subnet, gateway=given.partition("/")[0])
        spare = {str(name): str(address) for name, address in (row.get("AuxiliaryAddresses") or {}).items()}
        for address in spare.values():
            await self._address(subnet.pool, address, {})
        return msgspec.structs.replace(subnet, auxiliary=spare)

    async def _address(self, pool: str, address: str, options: Json) -> str:
        answer = await self._call("RequestAddress", {"PoolID": pool, "Address": address, "Options": options})
        try:
            return str(ip_interface(str(answer["Address"])))
        except (KeyError, ValueError):
            raise self._wrong("RequestAddress", f"cannot read its answer {answer}") from None

    async def release_pools(self, subnets: Iterable[Subnet]) -> None:
        for subnet in subnets:
            for address in (subnet.gateway, *subnet.auxiliary.values()):
                with suppress(DockyardError):
                    await self._call("ReleaseAddress", {"PoolID": subnet.pool, "Address": address})
            with suppress(DockyardError):
                await self._call("ReleasePool", {"PoolID": subnet.pool})

    async def request_address(self, network: Network, family: str, wish: str, mac: str) -> str:
        subnet = network.subnet(family)
        if subnet is None:
            return ""
        return await self._address(subnet.pool, wish, {_MAC: mac} if mac and self._wants_mac else {})

    async def release_address(self, network: Network, address: str) -> None:
        subnet = network.subnet("ip6" if ":" in address else "ip")
        if subnet is not None:
            with suppress(DockyardError):
                await self._call("ReleaseAddress", {"PoolID": subnet.pool, "Address": address.partition("/")[0]})

    async def replay(self, networks: Iterable[tuple[Network, Sequence[str]]]) -> None:
        if not self._wants_replay:
            return
        for network, addresses in networks:
            for subnet in network.subnets:
                row = {"Subnet": subnet.subnet, "IPRange": subnet.ip_range}
                await self._pool(row, network.ipam_options)
                if subnet.gateway:
                    await self._address(subnet.pool, subnet.gateway, {_TYPE: GATEWAY})
            for address in addresses:
                found = network.subnet("ip6" if ":" in address else "ip")
                if found is not None:
                    await self._address(found.pool, address.partition("/")[0], {})
