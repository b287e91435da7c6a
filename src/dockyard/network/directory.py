"""Who is called what, for the name service: an index over endpoints, made anew after a change. Pure.

Search order (moby daemon/libnetwork/sandbox.go): the container's own links and aliases, then on each of its networks the
whole name, then the name without a trailing ``.network``. The default bridge has no names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dockyard.network.model import Endpoint, Network


@dataclass(frozen=True, slots=True)
class _View:
    """What one container sees."""

    links: Mapping[str, tuple[str, ...]]
    networks: tuple[Network, ...]


class Directory:
    def __init__(self, networks: Mapping[str, Network], endpoints: Iterable[Endpoint], live: Collection[str]) -> None:
        self._names: dict[str, dict[str, list[str]]] = {}
        self._owners: dict[str, dict[str, str]] = {}
        self._views: dict[str, _View] = {}
        own: dict[str, list[Endpoint]] = {}
        for item in endpoints:
            own.setdefault(item.container, []).append(item)
            if item.address and item.container in live:
                self._add(networks[item.network], item)
        for container, items in own.items():
            self._views[container] = self._view(networks, items)

    def _add(self, network: Network, item: Endpoint) -> None:
        names = self._names.setdefault(network.id, {})
        for address in item.addresses:
            for name in item.names:
                names.setdefault(name, []).append(address)
            self._owners.setdefault(network.id, {})[address] = f"{item.name}.{network.name}"

    def _view(self, networks: Mapping[str, Network], items: list[Endpoint]) -> _View:
        links: dict[str, tuple[str, ...]] = {}
        for item in items:
            for link in item.wish.links or ():
                target, _, alias = link.partition(":")
                found = self._names.get(item.network, {}).get(target.lower())
                if found:
                    links[(alias or target).lower()] = tuple(found)
        seen = tuple(networks[item.network] for item in items if not networks[item.network].predefined)
        return _View(links, seen)

    def addresses(self, container: str, name: str) -> list[str] | None:
        """All addresses of ``name``; None if nobody here is called so."""
        view = self._views.get(container)
        if view is None:
            return None
        if (linked := view.links.get(name)) is not None:
            return list(linked)
        found: list[str] = []
        for network in view.networks:
            names = self._names.get(network.id, {})
            here = names.get(name) or names.get(name.removesuffix("." + network.name.lower()))
            found += here or ()
        return found or None

    def owner(self, container: str, address: str) -> str | None:
        view = self._views.get(container)
        for network in view.networks if view else ():
            if (name := self._owners.get(network.id, {}).get(address)) is not None:
                return name
        return None
