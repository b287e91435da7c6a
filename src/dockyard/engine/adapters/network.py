"""``dockyard.network`` behind the engine's Network port, and the networks of the Engine API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockyard.engine.events import Events
from dockyard.engine.kit import Kit
from dockyard.engine.model import Record
from dockyard.engine.plan.create import parse_link
from dockyard.engine.plan.select import Filters, flag, match_labels, prune_until
from dockyard.engine.ports import Json
from dockyard.engine.usernamespace import SHARED_WITH_HOST, UserNamespace
from dockyard.errors import DockyardError, NotFound
from dockyard.lib.clock import parse_rfc3339
from dockyard.model import EndpointSettings, NetworkingConfig
from dockyard.model.wire import convert
from dockyard.network import Controller, Network, SandboxSpec


class NetworkAdapter:
    def __init__(
        self, controller: Controller, containers: Mapping[str, Any], namespace: UserNamespace = SHARED_WITH_HOST
    ) -> None:
        self._controller = controller
        self._namespace = namespace
        self._containers = containers
        self._events: Events | None = None

    def listen(self, events: Events, engine: tuple[str, str]) -> None:
        """From now on what happens to networks is an event; ``engine`` is its ID and name."""
        self._events = events
        number, name = engine

        def tell(action: str, attributes: Json) -> None:
            events.emit("daemon", action, number, name=name, **{key: str(value) for key, value in attributes.items()})

        self._controller.listen(tell)

    def emit(self, action: str, network: Network, **more: str) -> None:
        if self._events is not None:
            self._events.emit("network", action, network.id, name=network.name, type=network.driver, **more)

    async def connect(self, record: Record, network: NetworkingConfig) -> None:
        mode = record.host.network_mode
        if mode.startswith("container:"):
            return
        wishes = {
            ("bridge" if name == "default" else name): wish for name, wish in (network.endpoints_config or {}).items()
        }
        primary = self._controller.network(mode)
        named = {self._controller.network(ref).id: wish for ref, wish in wishes.items()}
        named = {primary.id: named.get(primary.id, EndpointSettings()), **named}
        for endpoint in self._controller.endpoints_of(record.id):
            named.pop(endpoint.network, None)
        for network_id, wish in named.items():
            wish = self.with_mac(record, network_id, wish)
            fleeting = record.host.auto_remove
            await self._controller.connect(record.id, record.name, network_id, wish, fleeting=fleeting)

    def with_mac(self, record: Record, network_id: str, wish: EndpointSettings) -> EndpointSettings:
        """The container's MAC is that of its endpoint on the primary network, also when that is made anew (moby 20.10
        daemon/container_operations.go; one given for the endpoint itself goes with the endpoint there and here)."""
        mac, mode = record.config.mac_address, record.host.network_mode
        if not mac or wish.mac_address or mode.startswith("container:"):
            return wish
        return wish.replace(mac_address=mac) if self._controller.network(mode).id == network_id else wish

    async def forget(self, container_id: str) -> None:
        await self._controller.forget(container_id)

    async def setup(self, record: Record, directory: str) -> str:
        sandbox = await self._controller.begin(self.spec(record, directory))
        if record.host.network_mode.startswith("container:") and not sandbox.netns:
            target = self._containers[record.host.network_mode.removeprefix("container:")].record  # the start saw it live
            return f"/proc/{target.state.pid}/ns/net"
        return sandbox.netns

    async def wired(self, container_id: str) -> None:
        await self._controller.wired(container_id)
        for endpoint in self._controller.endpoints_of(container_id):
            self.emit("connect", self._controller.network(endpoint.network), container=container_id)

    def spec(self, record: Record, directory: str) -> SandboxSpec:
        host, config = record.host, record.config
        mode = host.network_mode
        if not mode.startswith("container:"):
            driver = self._controller.network(mode).driver
            mode = {"host": "host", "null": "none"}.get(driver, mode)
        namespace = self._namespace.of(host)
        return SandboxSpec(
            container_id=record.id, name=record.name, hostname=config.hostname, domainname=config.domainname, mode=mode,
            files_dir=directory, exposed=tuple(config.exposed_ports or ()), bindings=dict(host.port_bindings or {}),
            publish_all=host.publish_all_ports, dns=tuple(host.dns or ()), dns_search=tuple(host.dns_search or ()),
            dns_options=tuple(host.dns_options or ()), extra_hosts=tuple(host.extra_hosts or ()),
            links=tuple(self._links(host.links or ())), userns=namespace.path, owner=namespace.ids.root,
        )  # fmt: skip

    def _links(self, links: Sequence[str]) -> list[tuple[str, str]]:
        found = []
        for link in links:
            target, alias = parse_link(link)
            for container in self._containers.values():
                if target in {container.record.name, container.record.id}:
                    found.append((container.record.id, alias))
        return found

    async def teardown(self, container_id: str) -> None:
        joined = self._controller.joined(container_id)
        await self._controller.teardown(container_id)
        for network in joined:
            self.emit("disconnect", network, container=container_id)

    async def recover(self, live: Mapping[str, int]) -> None:
        specs = {}
        for container_id in live:
            container = self._containers[container_id]
            specs[container_id] = self.spec(container.record, str(container.kit.directory(container_id)))
        await self._controller.recover(live, specs)

    def settings(self, container_id: str) -> Json:
        return self._controller.settings_of(container_id)

    def networks_of(self, container_id: str) -> Sequence[str]:
        return self._controller.networks_of(container_id)

    async def renamed(self, record: Record) -> None:
        await self._controller.rename(record.id, record.name)


class Networks:
    """Networks as the API sees them."""

    def __init__(self, controller: Controller, adapter: NetworkAdapter, kit: Kit, find: Any) -> None:
        self._controller = controller
        self._adapter = adapter
        self._kit = kit
        self._find = find

    async def list(self, filters: Filters) -> list[Json]:
        chosen = [network for network in self._controller.networks() if self._selected(network, filters)]
        return [self._controller.document(network) | {"Containers": {}} for network in chosen]

    def _selected(self, network: Network, filters: Filters) -> bool:
        used = bool(self._controller.endpoints_in(network.id))
        checks: dict[str, Callable[[str], bool]] = {
            "name": lambda value: value in network.name,
            "id": lambda value: network.id.startswith(value),
            "driver": lambda value: value == network.driver,
            "scope": lambda value: value == network.scope,
            "type": lambda value: value == ("builtin" if network.predefined else "custom"),
        }
        if not match_labels(filters.get("label", ()), network.labels):
            return False
        if (dangling := flag(filters, "dangling")) is not None and dangling != (not used and not network.predefined):
            return False
        return all(any(check(value) for value in filters[name]) for name, check in checks.items() if filters.get(name))

    async def create(self, request: Json) -> Json:
        made = self._controller.create_network(request)
        network, warning = await self._kit.supervisor.operate(made, "create network")
        self._adapter.emit("create", network)
        return {"Id": network.id, "Warning": warning}

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Json:
        if scope and scope != "local":
            raise NotFound(f"network {ref} not found")
        return self._controller.document(self._controller.network(ref))

    async def remove(self, ref: str) -> None:
        network = await self._kit.supervisor.operate(self._controller.remove_network(ref), "remove network")
        self._kit.reserve.hold()
        self._adapter.emit("destroy", network)

    async def connect(self, ref: str, container: str, endpoint: Json) -> None:
        target = self._find(container)
        record = target.record
        network = self._controller.network(ref)
        wish = self._adapter.with_mac(record, network.id, convert(endpoint, EndpointSettings))
        spec = self._adapter.spec(record, str(self._kit.directory(record.id))) if record.live else None
        async with target.lock:
            await self._kit.supervisor.operate(
                self._controller.connect(record.id, record.name, network.id, wish, spec), "connect"
            )
        target.forget_views()
        self._adapter.emit("connect", network, container=record.id)

    async def disconnect(self, ref: str, container: str, *, force: bool) -> None:
        network = self._controller.network(ref)
        try:
            target = self._find(container)
        except NotFound:
            if force:
                return
            raise
        async with target.lock:
            await self._kit.supervisor.operate(
                self._controller.disconnect(target.record.id, network.id), "disconnect"
            )
        target.forget_views()
        self._adapter.emit("disconnect", network, container=target.record.id)

    async def prune(self, filters: Filters) -> Json:
        until = prune_until(filters, self._kit.now())
        gone = []
        for network in self._controller.networks():
            if network.predefined or self._controller.endpoints_in(network.id):
                continue
            if until and parse_rfc3339(network.created) > until:
                continue
            if not match_labels(filters.get("label", ()), network.labels):
                continue
            if any(match_labels([item], network.labels) for item in filters.get("label!", ())):
                continue
            try:
                await self.remove(network.id)
            except DockyardError:
                continue  # Somebody connected meanwhile.
            gone.append(network.name)
        self._kit.events.emit("network", "prune", "", reclaimed="0")
        return {"NetworksDeleted": gone or None}
