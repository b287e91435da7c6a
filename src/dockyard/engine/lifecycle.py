"""What happens to one container: start, stop, kill, pause, exit, restart by policy, removal.

Each is an operation: it takes the container's lock, writes the record before the effect, and either completes or undoes
what it did. ``faultpoint`` marks the places where the crash tests kill the engine; recovery must cope with each.

An end comes in one way only: the exit watcher hears it from the runtime and calls ``settle``. ``stop`` and ``kill``
send signals and wait for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from dockyard.engine import errors, health
from dockyard.engine.container import Container
from dockyard.engine.kit import Kit
from dockyard.engine.model import Health, MountPoint, Record
from dockyard.engine.plan.create import parse_link
from dockyard.engine.plan.restart import next_delay, should_restart
from dockyard.engine.ports import Ended, Mounted, Process, StartRequest
from dockyard.engine.supervisor import Undo
from dockyard.errors import Conflict, DockyardError, Exhausted, NotFound
from dockyard.lib.faultpoint import faultpoint
from dockyard.network.files import link_variables
from dockyard.runtime.messages import exit_code_for

DEFAULT_STOP_TIMEOUT = 10
KILL_TIMEOUT = 10.0
"""Seconds for a SIGKILLed container to be seen ending (moby waits as long)."""
SIGKILL = 9
COULD_NOT_RUN = frozenset({1, 126, 127, 255})
"""Exit codes of runtimes, shells and loaders when the program, its interpreter or a library is not as it must be."""
FULL_DISK_PAUSE = 2.0
"""Seconds until an end that could not be written down is tried again."""
AT_ONCE, EXPLAIN_LIMIT = 3.0, 2.0
"""Seconds that such a container ran at most, and that looking for the reason may take."""

_log = logging.getLogger("dockyard.engine")


# -- start ------------------------------------------------------------------------------------------------------


async def start(container: Container) -> None:
    async with container.lock:
        record = container.record
        match record.state.status:
            case "running":
                raise errors.ALREADY_STARTED()
            case "paused":
                raise errors.START_PAUSED(ref=record.name)
            case "removing" | "dead":
                raise errors.MARKED_FOR_REMOVAL(ref=record.name)
        container.stop_watching()
        await start_locked(container)


async def start_locked(container: Container) -> None:
    """The steps of a start; the lock is held. On failure everything is undone and the record tells why."""
    kit, before = container.kit, container.record
    kit.reserve.hold()
    container.save(before.replace(pending="start", stopped_by_user=False))
    undo = Undo()
    try:
        process = await _bring_up(container, undo)
        faultpoint("start.created")
        health_state = Health() if health.wanted(before.config) else None
        running = container.record.replace(
            pending="", conmon_pid=process.conmon_pid, conmon_start=process.conmon_start, boot_id=kit.boot_id
        ).with_state(
            status="running", pid=process.pid, started_at=kit.now(), exit_code=0, error="", why="", oom_killed=False,
            health=health_state,
        )  # fmt: skip
        container.save(running)
        faultpoint("start.recorded")
        await kit.runtime.start(before.id)
    except BaseException as error:
        await asyncio.shield(undo.run())
        container.save(_failed(before, error, kit.now()))
        if isinstance(error, DockyardError):
            container.emit("die", exitCode=str(container.record.state.exit_code))
            container.wake("next-exit", "not-running")
            if before.host.auto_remove:
                await remove_locked(container, volumes=True)
        raise
    faultpoint("start.started")
    watch(container)
    container.emit("start")


async def _bring_up(container: Container, undo: Undo) -> Process:
    kit, record, joined = container.kit, container.record, _joined_processes(container)
    undo.add("rootfs", lambda: kit.rootfs.unmount(record.id))
    rootfs = await kit.rootfs.mount(record.id)
    faultpoint("start.mounted")
    mounts = [await _mount(container, point, undo) for point in record.mounts]
    faultpoint("start.volumes")
    directory = kit.directory(record.id)
    undo.add("network", lambda: kit.network.teardown(record.id))
    if record.networking is not None:
        await kit.network.connect(record, record.networking)
        record = record.replace(networking=None)
        container.save(record)
    netns = await kit.network.setup(record, str(directory))
    container.forget_views()
    faultpoint("start.network")
    request = StartRequest(
        record=record, rootfs=rootfs, mounts=mounts, netns=netns, hostname=record.config.hostname,
        pid_of=joined, directory=str(directory), exit_command=(*kit.exit_command, record.id),
        environment=link_environment(container), joined_memory=_joined_memory(container),
    )  # fmt: skip
    # What an engine that died between the end of the last run and its clean-up left: "container already exists".
    await kit.runtime.delete(record.id)
    undo.add("runtime", lambda: kit.runtime.delete(record.id))
    # The runtime writes net.* sysctls, which may be about an interface; else it works while the interfaces are made.
    early = any(name.startswith(("net.", "net/")) for name in record.host.sysctls or ())
    if early:
        await kit.network.wired(record.id)
    process, warnings = await kit.runtime.create(request)
    if not early:
        await kit.network.wired(record.id)
    for warning in warnings:
        _log.warning("container %s: %s", record.name, warning)
    return process


async def _mount(container: Container, point: MountPoint, undo: Undo) -> Mounted:
    kit, container_id = container.kit, container.record.id
    if point.type == "volume":
        undo.add(f"volume {point.name}", lambda: kit.volumes.unmount(point, container_id))
        return Mounted(point, await kit.volumes.mount(point, container_id))
    if point.type == "image":
        return Mounted(point, await kit.rootfs.mount_image(container_id, point.source))
    return Mounted(point, point.source)


def link_environment(container: Container) -> list[str]:
    """What Engine links tell of the containers they name, on the default bridge only, as in moby's
    setupLinkedContainers: elsewhere a link is a name in DNS, and may dangle. Raises Conflict when one does not run."""
    kit, found = container.kit, []
    on_bridge = container.record.host.network_mode in ("", "default", "bridge")
    for link in (container.record.host.links or ()) if on_bridge else ():
        target, alias = parse_link(link)
        for other in kit.containers.values():
            record = other.record
            if target in {record.name, record.id}:
                if not record.live:
                    raise errors.LINK_NOT_RUNNING(name=record.name, own=container.record.name)
                address = kit.network.settings(record.id).get("IPAddress", "")
                ports = sorted(record.config.exposed_ports or ())
                found += link_variables(container.record.name, alias, address, ports, record.config.env or ())
    return found


def _joined_processes(container: Container) -> dict[str, int]:
    """Processes whose namespaces this container joins. Raises Conflict when one of them does not run."""
    host, found = container.record.host, {}
    for namespace, mode in (("network", host.network_mode), ("PID", host.pid_mode), ("IPC", host.ipc_mode)):
        if mode.startswith("container:"):
            ref = mode.removeprefix("container:")
            target = _named(container.kit, ref)
            if not target.record.live:
                raise errors.JOIN_TARGET_NOT_RUNNING(namespace=namespace, id=target.record.id)
            if namespace == "IPC" and target.record.host.ipc_mode in ("private", "none"):
                raise errors.IPC_NOT_SHAREABLE(id=target.record.id)
            found[ref] = target.record.state.pid
    return found


def _named(kit: Kit, ref: str) -> Container:
    """By ID, or by name where the target did not exist yet at the create. Raises NotFound."""
    found = kit.containers.get(ref)
    if found is None:
        found = next((each for each in kit.containers.values() if each.record.name == ref), None)
    if found is None:
        raise errors.NO_SUCH_CONTAINER(ref=ref)
    return found


def _joined_memory(container: Container) -> str:
    """The directory of the shared memory that ``--ipc container:`` joins, through as many containers as it takes; "" for
    one that joins none."""
    kit, owner, mode = container.kit, container, container.record.host.ipc_mode
    if not mode.startswith("container:"):
        return ""
    while mode.startswith("container:"):
        owner = _named(kit, mode.removeprefix("container:"))
        mode = owner.record.host.ipc_mode
    return "/dev/shm" if mode == "host" else f"{kit.directory(owner.record.id)}/shm"


def _failed(before: Record, error: BaseException, now: int) -> Record:
    """Exit codes as the docker CLI expects them of a failed start: 127 not found, 126 not executable, else 128."""
    text = str(error)
    status = "created" if before.state.status == "created" else "exited"
    return before.replace(pending="").with_state(
        status=status,
        pid=0,
        exit_code=exit_code_for(text),
        error=text,
        finished_at=before.state.finished_at or now if status == "exited" else 0,
    )


def watch(container: Container) -> None:
    """Arms everything that follows a running container."""
    container.exited.clear()
    supervisor, name = container.kit.supervisor, container.record.name
    container.watcher = supervisor.watch(_watch_exit(container), f"exit watcher of {name}")
    if container.record.state.health is not None:
        container.health = supervisor.watch(health.run(container, restart_unhealthy), f"health of {name}")


async def _watch_exit(container: Container) -> None:
    kit, name = container.kit, container.record.name
    ended = await kit.runtime.wait(container.record.id)
    while True:
        try:
            await kit.supervisor.operate(settle(container, ended), f"end of {name}")
            return kit.reserve.hold()
        except Exhausted as error:
            if not kit.reserve.spend():
                _log.warning("the end of container %s waits for room on the disk: %s", name, error)
                await asyncio.sleep(FULL_DISK_PAUSE)


# -- end --------------------------------------------------------------------------------------------------------


async def settle(container: Container, ended: Ended, *, daemon_start: bool = False) -> None:
    """The container has ended: record it, free what it held, then follow --rm or the restart policy."""
    async with container.lock:
        if not container.record.live:
            if container.owed and container.record.id in container.kit.containers:  # the disk was full the first time
                container.save(container.record)
            if container.record.host.auto_remove and container.record.id in container.kit.containers:
                await remove_locked(container, volumes=True)
            return
        if container.health is not None:
            container.health.cancel()
            container.health = None
        record = container.record
        ran_for = (ended.at - record.state.started_at) / 1e9
        again = should_restart(record, ended.code, daemon_start=daemon_start)
        why = await _why(container, ended, ran_for)
        container.admit(
            record.replace(restart_count=record.restart_count + 1 if again else record.restart_count).with_state(
                status="restarting" if again else "exited", pid=0, exit_code=ended.code, finished_at=ended.at,
                oom_killed=ended.oom_killed, why=why,
            )
        )  # fmt: skip
        faultpoint("settle.recorded")
        if ended.oom_killed:
            container.emit("oom")
        container.emit("die", exitCode=str(ended.code), execDuration=str(max(0, int(ran_for))))
        await release(container)
        faultpoint("settle.released")
        container.exited.set()
        container.wake("next-exit", "not-running")  # Docker's not-running ends here too, before a restart by policy
        if again:
            container.restart_delay = next_delay(container.restart_delay, ran_for)
            arm_restart(container)
            return
        container.restart_delay = 0.0
        if record.host.auto_remove:
            await remove_locked(container, volumes=True)
        if container.owed:
            raise errors.STORE_FULL(name=record.name)  # tried again by the watcher


async def _why(container: Container, ended: Ended, ran_for: float) -> str:
    """What the file system tells of a program that ended at once with the code of one that could not run."""
    record = container.record
    if ended.code not in COULD_NOT_RUN or ran_for > AT_ONCE or record.stopped_by_user:
        return ""
    try:
        async with asyncio.timeout(EXPLAIN_LIMIT):
            why = await container.kit.runtime.explain(record, str(container.kit.directory(record.id)))
    except (TimeoutError, OSError):
        return ""
    if why:
        _log.warning("container %s ended at once with %d: %s", record.name, ended.code, why)
    return why


async def release(container: Container) -> None:
    """Gives back what a running container holds. Idempotent; each part is tried even if another fails."""
    kit, record = container.kit, container.record
    parts: list[Awaitable[None]] = [kit.runtime.delete(record.id), kit.network.teardown(record.id)]
    parts += [kit.volumes.unmount(point, record.id) for point in record.mounts if point.type == "volume"]
    results = await asyncio.gather(*parts, return_exceptions=True)
    # The file system goes last: the runtime's own clean-up may still look into it.
    results += await asyncio.gather(kit.rootfs.unmount(record.id), return_exceptions=True)
    container.forget_views()
    for result in results:
        if isinstance(result, (DockyardError, OSError)):
            _log.warning("container %s: cannot release all it held: %s", record.name, result)
        elif isinstance(result, BaseException):
            raise result


def arm_restart(container: Container) -> None:
    name = container.record.name
    container.restart_timer = container.kit.supervisor.watch(_restart_later(container), f"restart timer of {name}")


async def _restart_later(container: Container) -> None:
    await asyncio.sleep(container.restart_delay)
    async with container.lock:
        if container.record.state.status != "restarting":
            return
        container.restart_timer = None
        try:
            await start_locked(container)
        except DockyardError as error:
            _log.warning("cannot restart container %s: %s", container.record.name, error)
            container.wake("not-running", error=str(error))


async def restart_unhealthy(container: Container) -> None:
    """Restart policy ``unhealthy``: ends the container; the policy then starts it again."""
    record = container.record
    if record.host.restart_policy.name == "unhealthy":
        container.emit("restart_unhealthy")
        await container.kit.runtime.kill(record.id, SIGKILL)


# -- stop, kill, pause --------------------------------------------------------------------------------------------


async def stop(container: Container, signal: int, timeout: int) -> None:
    """``timeout`` in seconds, negative for ever. Raises NotModified when it is not running."""
    async with container.lock:
        record = container.record
        if record.state.status == "restarting":
            container.stop_watching()
            container.save(record.replace(stopped_by_user=True).with_state(status="exited"))
            container.wake("not-running")
            container.emit("stop")
            return
        if not record.live:
            raise errors.ALREADY_STOPPED()
        container.save(record.replace(stopped_by_user=True))
        if record.state.status == "paused":
            await _resume(container)
    container.emit("kill", signal=str(signal))
    await _signal(container, signal)
    if not await _ended(container, timeout if timeout >= 0 else None):
        container.emit("kill", signal=str(SIGKILL))
        await _signal(container, SIGKILL)
        if not await _ended(container, KILL_TIMEOUT):
            raise errors.STOP_TIMED_OUT(id=record.id)
    container.emit("stop")


async def _signal(container: Container, signal: int) -> None:
    try:
        await container.kit.runtime.kill(container.record.id, signal)
    except (NotFound, Conflict):
        _log.debug("container %s ended before signal %d", container.record.name, signal)


async def _ended(container: Container, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await container.exited.wait()
    except TimeoutError:
        return False
    return True


async def kill(container: Container, signal: int, ref: str) -> None:
    record = container.record
    if record.state.status == "restarting" and signal == SIGKILL:
        return await stop(container, signal, 0)
    if not record.live:
        raise errors.KILL_NOT_RUNNING(ref=ref, id=record.id)
    if signal == SIGKILL:
        async with container.lock:
            if container.record.live:
                container.save(container.record.replace(stopped_by_user=True))
                if container.record.state.status == "paused":
                    await _resume(container)
    await _signal(container, signal)
    container.emit("kill", signal=str(signal))
    if signal == SIGKILL:
        await _ended(container, KILL_TIMEOUT)


async def restart(container: Container, signal: int, timeout: int) -> None:
    if container.record.live or container.record.state.status == "restarting":
        try:
            await stop(container, signal, timeout)
        except errors.ALREADY_STOPPED.kind:
            _log.debug("container %s ended by itself before its restart", container.record.name)
    if container.record.host.auto_remove and container.record.id not in container.kit.containers:
        raise errors.NO_SUCH_CONTAINER(ref=container.record.id)
    await start(container)
    container.emit("restart")


async def pause(container: Container) -> None:
    async with container.lock:
        record = container.record
        if record.state.status == "paused":
            raise errors.ALREADY_PAUSED(id=record.id)
        if record.state.status == "restarting":
            raise errors.RESTARTING(id=record.id)
        if not record.live:
            raise errors.NOT_RUNNING(id=record.id)
        await container.kit.runtime.pause(record.id)
        container.save(record.with_state(status="paused"))
    container.emit("pause")


async def try_pause(container: Container) -> bool:
    """For a commit: False when the container has ended meanwhile, which is as still as paused."""
    try:
        await pause(container)
    except DockyardError as error:
        _log.debug("container %s is not paused for its commit: %s", container.record.name, error)
        return False
    return True


async def unpause(container: Container) -> None:
    async with container.lock:
        if container.record.state.status != "paused":
            raise errors.NOT_PAUSED(id=container.record.id)
        await _resume(container)
    container.emit("unpause")


async def _resume(container: Container) -> None:
    await container.kit.runtime.resume(container.record.id)
    container.save(container.record.with_state(status="running"))


# -- removal ------------------------------------------------------------------------------------------------------


async def remove(container: Container, *, volumes: bool, force: bool) -> None:
    record = container.record
    if record.state.status == "removing":
        raise errors.REMOVAL_IN_PROGRESS(ref=record.name)
    if record.live or record.state.status == "restarting":
        if not force:
            code = errors.REMOVE_PAUSED if record.state.status == "paused" else errors.REMOVE_RUNNING
            raise code(name=record.name)
        await kill(container, SIGKILL, record.name)
    async with container.lock:
        if record.id not in container.kit.containers:
            return
        try:
            await remove_locked(container, volumes=volumes)
        except Exhausted:
            if not container.kit.reserve.spend():
                raise
            await remove_locked(container, volumes=volumes)
    container.kit.reserve.hold()


async def remove_locked(container: Container, *, volumes: bool, silent: bool = False) -> None:
    """Marks, takes apart, forgets. A crash in between is finished by recovery, which comes here again.

    ``silent``: the container never came to be (a failed create), so nobody is told of its end.
    """
    kit = container.kit
    container.stop_watching()
    if container.record.pending != "remove":
        container.save(container.record.replace(pending="remove", remove_volumes=volumes).with_state(status="removing"))
    record = container.record
    faultpoint("remove.marked")
    await kit.network.forget(record.id)
    faultpoint("remove.network")
    await kit.rootfs.remove(record.id)
    faultpoint("remove.rootfs")
    if record.remove_volumes:
        for point in record.mounts:
            if point.type == "volume" and point.anonymous:
                await kit.volumes.remove_anonymous(point, record.id)
    await kit.volumes.release(record.id)
    faultpoint("remove.volumes")
    await asyncio.to_thread(_remove_directory, container)
    kit.store.delete(record)
    kit.containers.pop(record.id, None)
    faultpoint("remove.forgotten")
    if not silent:
        container.emit("destroy")
    container.wake("removed", "not-running", "next-exit")


def _remove_directory(container: Container) -> None:
    import shutil

    shutil.rmtree(container.kit.directory(container.record.id), ignore_errors=True)
