"""volumes."""

from __future__ import annotations

from dockyard.api import answers
from dockyard.api.call import BAD_PARAMETER, Call
from dockyard.api.handlers.system import NO_SWARM
from dockyard.http import Answer
from dockyard.model.wire import Document


class VolumeCreate(Document, frozen=True):
    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, object] | None = None


async def list(call: Call) -> Answer:
    return answers.json(await call.engine.volumes.list(call.filters()))


async def create(call: Call) -> Answer:
    wish = await call.json(VolumeCreate, empty=VolumeCreate())
    if wish.cluster_volume_spec is not None:
        raise NO_SWARM()
    made = await call.engine.volumes.create(
        wish.name, wish.driver or "local", wish.driver_opts or {}, wish.labels or {}
    )
    return answers.json(made, 201)


async def inspect(call: Call) -> Answer:
    return answers.json(await call.engine.volumes.inspect(call.params["name"]))


async def update(call: Call) -> Answer:
    raise BAD_PARAMETER(cause="only cluster volumes can be updated")


async def remove(call: Call) -> Answer:
    await call.engine.volumes.remove(call.params["name"], force=call.flag("force"))
    return answers.empty()


async def prune(call: Call) -> Answer:
    filters = call.filters()
    if call.version < (1, 42):
        filters.setdefault("all", ["true"])  # API 1.42 began to spare named volumes
    return answers.json(await call.engine.volumes.prune(filters))
