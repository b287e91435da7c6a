"""Recovery: after any end of the engine, power cut included, make records and kernel agree again.

Two passes, as in moby: first see what is alive, so that networks are healed by difference and no running container
loses a packet; then, container by container and side by side, finish or roll back what was under way.

==================  =====================================  ==============================================
record says         found                                  done
==================  =====================================  ==============================================
pending create      anything                               taken away
pending remove      anything                               removal finished
pending start       anything not recorded as running       rolled back to what it was
running, paused     its conmon and process                 watched again (started first, if only created)
running, paused     an exit file                           settled with that code and time
running, paused     neither, or another boot               settled with 255
restarting          --                                     timer armed again
exited, --rm        --                                     removed
exited              policy says so (always, unless-st.)    started
==================  =====================================  ==============================================
"""

from __future__ import annotations

import asyncio
import logging

from dockyard.engine import lifecycle
from dockyard.engine.container import Container
from dockyard.engine.kit import Kit
from dockyard.engine.plan.restart import should_restart
from dockyard.engine.ports import Ended, Process
from dockyard.errors import DockyardError

LOST_EXIT_CODE = 255
PARALLEL = 8
"""Containers brought up again at the same time."""

_log = logging.getLogger("dockyard.engine")


async def recover(kit: Kit) -> None:
    """Loads all records and heals. Never raises for a single container: it is logged, and the others go on."""
    load(kit)
    found: dict[str, Process | Ended | None] = {}
    for container in kit.containers.values():
        if container.record.live:
            found[container.record.id] = await _look(container)
    live = {container_id: item.pid for container_id, item in found.items() if isinstance(item, Process)}
    await kit.network.recover(live)
    gate = asyncio.Semaphore(PARALLEL)
    async with asyncio.TaskGroup() as group:
        for container in list(kit.containers.values()):
            group.create_task(_heal_safely(container, found.get(container.record.id), gate))
    await asyncio.to_thread(_sweep_directories, kit)


def load(kit: Kit) -> None:
    for record in kit.store.records():
        kit.containers[record.id] = Container(kit, record)


async def settle_alone(kit: Kit, container_id: str) -> None:
    """What the exit helper does when no engine runs: --rm and the restart policy of one container that has ended."""
    container = kit.containers.get(container_id)
    if container is None:
        return
    if container.record.live:
        found = await _look(container)
        if isinstance(found, Process):
            return
        await lifecycle.settle(container, found or _lost(kit))
    while container.record.state.status == "restarting" and container.restart_timer is not None:
        await asyncio.wait({container.restart_timer})


async def _look(container: Container) -> Process | Ended | None:
    record, kit = container.record, container.kit
    if record.boot_id != kit.boot_id:
        return None
    return await kit.runtime.recover(record, str(kit.directory(record.id)))


def _lost(kit: Kit) -> Ended:
    return Ended(LOST_EXIT_CODE, kit.now())


async def _heal_safely(container: Container, found: Process | Ended | None, gate: asyncio.Semaphore) -> None:
    async with gate:
        try:
            await _heal(container, found)
        except (DockyardError, OSError) as error:
            _log.error("cannot recover container %s: %s", container.record.name, error)


async def _heal(container: Container, found: Process | Ended | None) -> None:
    record, kit = container.record, container.kit
    if record.pending in {"create", "remove"}:
        async with container.lock:
            volumes = record.remove_volumes or record.pending == "create"
            await lifecycle.remove_locked(container, volumes=volumes, silent=record.pending == "create")
        return
    if record.live:
        if isinstance(found, Process):
            container.show(record.with_state(pid=found.pid))
            lifecycle.watch(container)
        else:
            await lifecycle.settle(container, found or _lost(kit), daemon_start=True)
        return
    if record.pending == "start":
        await lifecycle.release(container)
        container.save(record.replace(pending=""))
    if record.state.status == "restarting":
        lifecycle.arm_restart(container)
    elif record.state.status == "exited" and record.host.auto_remove:
        await lifecycle.remove(container, volumes=True, force=False)
    elif record.state.started_at and should_restart(record, record.state.exit_code, daemon_start=True):
        await lifecycle.start(container)


def _sweep_directories(kit: Kit) -> None:
    import shutil

    base = kit.root / "containers"
    for entry in base.iterdir() if base.is_dir() else ():
        if entry.name not in kit.containers:
            shutil.rmtree(entry, ignore_errors=True)
