"""networks."""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.api import answers
from dockyard.api.call import BAD_PARAMETER, Call
from dockyard.http import Answer
from dockyard.model.network import IPAM
from dockyard.model.wire import Document


class Connect(Document, frozen=True):
    container: str = ""
    endpoint_config: dict[str, Any] | None = None
    force: bool = False


class ConfigFrom(Document, frozen=True):
    network: str = ""


class NetworkCreate(Document, frozen=True):
    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    ipam: IPAM | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


async def list(call: Call) -> Answer:
    return answers.json(await call.engine.networks.list(call.filters()))


async def create(call: Call) -> Answer:
    wish = await call.json(NetworkCreate)
    if call.version < (1, 48):
        wish = wish.replace(enable_ipv4=None)  # the field is not known yet: IPv4 is always on
    return answers.json(await call.engine.networks.create(msgspec.to_builtins(wish)), 201)


async def inspect(call: Call) -> Answer:
    found = await call.engine.networks.inspect(
        call.params["id"], verbose=call.flag("verbose"), scope=call.text("scope")
    )
    return answers.json(found)


async def remove(call: Call) -> Answer:
    await call.engine.networks.remove(call.params["id"])
    return answers.empty()


async def connect(call: Call) -> Answer:
    wish = await call.json(Connect)
    if not wish.container:
        raise BAD_PARAMETER(cause="container cannot be empty")
    await call.engine.networks.connect(call.params["id"], wish.container, wish.endpoint_config or {})
    return answers.empty(200)


async def disconnect(call: Call) -> Answer:
    wish = await call.json(Connect)
    if not wish.container:
        raise BAD_PARAMETER(cause="container cannot be empty")
    await call.engine.networks.disconnect(call.params["id"], wish.container, force=wish.force)
    return answers.empty(200)


async def prune(call: Call) -> Answer:
    return answers.json(await call.engine.networks.prune(call.filters()))
